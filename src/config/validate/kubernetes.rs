//! `discovery.kubernetes`: a service, and the API server that knows its pods.
//!
//! Its files are read when they are needed: a service account's are there in its pod only, and change.

use http::Uri;

use super::keys::absolute;
use crate::config::node::Node;
use crate::config::tree::Data;
use crate::config::types::{Kubernetes, SlicePort};

const LABEL: &str = "1 to 63 of a-z, 0-9 and -, which is neither first nor last";
const PORT: &str = "1 to 65535, or the name of a port";
const API: &str = "an http:// or https:// URL such as https://10.96.0.1:443";

pub(super) fn kubernetes(node: &Node<'_>) -> Option<Kubernetes> {
    let mut fields = node.fields("kubernetes")?;
    let service = fields.take("service");
    if service.is_none() {
        fields.missing("service", "the name of a service");
    }
    let service = service.and_then(|node| node.parsed(LABEL, label));
    let namespace = fields.optional("namespace", None, |node| node.parsed(LABEL, label));
    let port = fields.optional("port", None, port);
    let api = fields.optional("api", None, |node| node.parsed(API, url));
    let is_plain = api.as_ref().is_some_and(|url| url.starts_with("http:"));
    let file = |why: &'static str| {
        move |node: &Node<'_>| {
            let path = node.sink.resolve(node.text("the path of a file, none")?);
            if is_plain {
                node.problem(format_args!("`api` is not https: {why}; allowed: none"));
            }
            Some(absolute(path))
        }
    };
    let token_file = fields.optional("token_file", None, file("anybody could read the token"));
    let ca = fields.optional("ca", None, file("there is no certificate to verify"));
    fields.finish();
    Some(Kubernetes { service: service?, namespace, port, api, token_file, ca })
}

/// A label as RFC 1123 has it, in lower case.
fn label(text: &str) -> Option<String> {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let fits = (1..=63).contains(&text.len())
        && text.bytes().all(is_inner)
        && !text.starts_with('-')
        && !text.ends_with('-');
    fits.then(|| text.to_owned())
}

fn port(node: &Node<'_>) -> Option<SlicePort> {
    if let Data::Integer(_) = node.tree.data {
        let number = node.integer(1..=u32::from(u16::MAX))?;
        return u16::try_from(number).ok().map(SlicePort::Number);
    }
    // A name of digits only would be taken for a number when it is read again.
    let is_name = |text: &str| text.bytes().any(|byte| !byte.is_ascii_digit());
    node.parsed(PORT, |text| label(text).filter(|text| is_name(text)).map(SlicePort::Name))
}

/// A path before the API's own is that of a proxy.
fn url(text: &str) -> Option<String> {
    let url: Uri = text.parse().ok()?;
    let has_host =
        url.authority().is_some_and(|it| !it.as_str().contains('@') && !it.host().is_empty());
    let is_known = matches!(url.scheme_str(), Some("http" | "https"));
    let is_whole = has_host && is_known && url.query().is_none() && !text.contains('#');
    is_whole.then(|| text.trim_end_matches('/').to_owned())
}
