//! `routes`: parts of a service that are treated differently.

use http::header::{HeaderName, HeaderValue};
use http::uri::Authority;

use super::names::{is_path, is_token};
use super::service;
use crate::config::node::{Fields, Node};
use crate::config::types::{Edits, Redirect, Route};

/// Statuses that send a client elsewhere (RFC 9110 section 15.4).
const STATUSES: [u16; 5] = [301, 302, 303, 307, 308];
/// What may stand in braces.
const PLACEHOLDERS: [&str; 5] = ["scheme", "host", "path", "rest", "query"];

/// Fields that frame a message, concern one hop, carry tokens, or are what Burdock itself tells.
const OURS: [&str; 26] = [
    "connection",
    "content-length",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "sec-websocket-accept",
    "sec-websocket-extensions",
    "sec-websocket-key",
    "sec-websocket-protocol",
    "sec-websocket-version",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-request-id",
];

pub(super) fn routes(fields: &mut Fields<'_>) -> Vec<Route> {
    let nodes = fields.take("routes").and_then(|node| node.list("routes"));
    nodes.unwrap_or_default().iter().filter_map(route).collect()
}

fn route(node: &Node<'_>) -> Option<Route> {
    let mut fields = node.fields("route")?;
    let hosts = fields.take("hosts").map(|node| service::hosts(&node)).unwrap_or_default();
    let paths = match fields.take("paths") {
        Some(node) => service::paths(&node),
        None => {
            fields.missing("paths", "a list of path prefixes");
            Vec::new()
        }
    };
    let route = Route {
        hosts,
        paths,
        redirect: fields.switched("redirect", redirect),
        rewrite_prefix: fields.switched("rewrite_prefix", prefix),
        request_headers: edits(&mut fields, "request_headers"),
        response_headers: edits(&mut fields, "response_headers"),
    };
    fields.finish();
    let does_more = route.rewrite_prefix.is_some()
        || !route.request_headers.is_empty()
        || !route.response_headers.is_empty();
    if route.redirect.is_some() && does_more {
        node.problem("a redirect reaches no instance; allowed: nothing beside it");
    }
    Some(route)
}

fn prefix(node: &Node<'_>) -> Option<String> {
    node.parsed("a path that starts with /, without query, .. and %, or off", |text| {
        let is_plain = is_path(text) && !text.contains(['?', '%', '\\']);
        let is_clean = !text.contains("//") && !text.split('/').any(|part| part.starts_with('.'));
        (is_plain && is_clean).then(|| text.to_owned())
    })
}

fn redirect(node: &Node<'_>) -> Option<Redirect> {
    let mut fields = node.fields("redirect")?;
    let status = fields.take("status").map_or(Some(308), |node| {
        let listed = |status: &u32| STATUSES.iter().any(|known| u32::from(*known) == *status);
        let status = node.whole("301, 302, 303, 307, 308", listed)?;
        u16::try_from(status).ok()
    });
    let to = match fields.take("to") {
        Some(node) => target(&node),
        None => {
            fields.missing("to", "a URL such as https://new.example{path}{query}");
            None
        }
    };
    fields.finish();
    Some(Redirect { status: status?, to: to? })
}

/// A template that leads where its author says, whatever the client asks for.
fn target(node: &Node<'_>) -> Option<String> {
    let allowed = "a path, or a URL with http://, https:// or {scheme}:// and a host, with {scheme}, {host}, \
                   {path}, {rest}, {query} in it";
    let to = node.parsed(allowed, |text| {
        let is_visible = text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
        let schemes = ["http://", "https://", "{scheme}://"];
        let host = schemes.iter().find_map(|scheme| text.strip_prefix(scheme));
        let leads = match host {
            Some(host) => is_host_of_template(host),
            None => ["/", "{path}", "{rest}"].iter().any(|start| text.starts_with(start)),
        };
        (is_visible && leads && !text.starts_with("//")).then(|| text.to_owned())
    })?;
    let mut rest = to.as_str();
    while let Some((_, after)) = rest.split_once('{') {
        let (name, after) = after.split_once('}').unwrap_or_default();
        if !PLACEHOLDERS.contains(&name) {
            node.problem(format_args!(
                "{{{name}}} is not known; allowed: {{scheme}}, {{host}}, {{path}}, {{rest}}, {{query}}"
            ));
            return None;
        }
        rest = after;
    }
    Some(to)
}

/// Whether what stands behind `://` is a host, with a port or without.
fn is_host_of_template(text: &str) -> bool {
    let text = text.replacen("{host}", "h", 1);
    let end = text.find(['/', '?', '#', '{']).unwrap_or(text.len());
    let authority: Result<Authority, _> = text[..end].parse();
    let is_plain = |it: &Authority| !it.as_str().contains('@') && !it.host().is_empty();
    let has_port = |it: &Authority| it.as_str() == it.host() || it.port_u16().is_some();
    authority.is_ok_and(|it| is_plain(&it) && has_port(&it))
}

fn edits(fields: &mut Fields<'_>, key: &'static str) -> Edits {
    let Some(mut fields) = fields.take(key).and_then(|node| node.fields("headers")) else {
        return Edits::default();
    };
    let names = fields.take("remove").and_then(|node| node.list("field names"));
    let names = names.unwrap_or_default();
    let remove = names.iter().filter_map(|node| name(node, node.text(FIELD)?)).collect();
    let mut pairs = |key| {
        let entries = fields.take(key).and_then(|node| node.named("a map of fields by name"));
        let pair = |(text, node): (&str, Node<'_>)| Some((name(&node, text)?, value(&node)?));
        entries.unwrap_or_default().into_iter().filter_map(pair).collect()
    };
    let (set, add) = (pairs("set"), pairs("add"));
    fields.finish();
    Edits { remove, set, add }
}

const FIELD: &str = "the name of a field";

fn name(node: &Node<'_>, text: &str) -> Option<HeaderName> {
    let lower = text.to_ascii_lowercase();
    if OURS.contains(&&*lower) {
        let why = "frames messages, concerns one hop or is told by Burdock";
        node.problem(format_args!("{text} {why}; allowed: other fields"));
        return None;
    }
    let name = HeaderName::try_from(&lower).ok().filter(|_| is_token(&lower));
    name.or_else(|| {
        node.problem(format_args!("{text:?} is no name of a field; allowed: {FIELD}"));
        None
    })
}

fn value(node: &Node<'_>) -> Option<HeaderValue> {
    node.parsed("text of visible ASCII and spaces", |text| {
        let is_fine = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
        let is_fine = text.bytes().all(is_fine) && text.trim() == text;
        HeaderValue::from_str(text).ok().filter(|_| is_fine)
    })
}
