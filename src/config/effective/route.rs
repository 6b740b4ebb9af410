//! The `routes` of a service, written so that they read back equal.

use http::header::{HeaderName, HeaderValue};

use super::{Text, scalar};
use crate::config::types::{Edits, Route};

pub(super) fn routes(out: &mut Text, routes: &[Route]) {
    if routes.is_empty() {
        return out.key("routes", "[]");
    }
    out.line("routes:");
    for it in routes {
        out.line("  -");
        out.depth += 2;
        route(out, it);
        out.depth -= 2;
    }
}

fn route(out: &mut Text, route: &Route) {
    out.list("hosts", route.hosts.iter().map(|host| scalar(host)));
    out.list("paths", route.paths.iter().map(|path| scalar(path)));
    match &route.redirect {
        None => out.key("redirect", "off"),
        Some(redirect) => out.map("redirect", |out| {
            out.key("status", redirect.status);
            out.key("to", scalar(&redirect.to));
        }),
    }
    out.switched("rewrite_prefix", route.rewrite_prefix.as_deref().map(scalar));
    edits(out, "request_headers", &route.request_headers);
    edits(out, "response_headers", &route.response_headers);
}

fn edits(out: &mut Text, key: &str, edits: &Edits) {
    let text = |value: &HeaderValue| scalar(value.to_str().unwrap_or_default());
    let pairs = |pairs: &[(HeaderName, HeaderValue)]| {
        let pair = |(name, value): &(HeaderName, HeaderValue)| {
            format!("{}: {}", scalar(name.as_str()), text(value))
        };
        let pairs: Vec<_> = pairs.iter().map(pair).collect();
        format!("{{ {} }}", pairs.join(", "))
    };
    out.map(key, |out| {
        out.list("remove", edits.remove.iter().map(|name| scalar(name.as_str())));
        out.key("set", pairs(&edits.set));
        out.key("add", pairs(&edits.add));
    });
}
