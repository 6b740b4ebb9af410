//! `tracing`: where spans go, whose traces are gone on with, how many are begun.
//!
//! Values of header fields are secrets: no message repeats one.

use std::path::PathBuf;

use http::Uri;
use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderName, HeaderValue, TRANSFER_ENCODING,
    USER_AGENT,
};

use super::acme::ca;
use super::keys::absolute;
use crate::config::errors::Problem;
use crate::config::node::{Fields, Node};
use crate::config::read;
use crate::config::types::{Tracing, Trust};

const ENDPOINT: &str = "an http:// or https:// URL such as http://127.0.0.1:4318/v1/traces";
const FIELD: &str = "NAME: VALUE of printable ASCII";
/// Fields that a request to the collector has anyway.
const OURS: [HeaderName; 6] =
    [CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, TRANSFER_ENCODING, USER_AGENT];
const LONGEST_NAME: usize = 255;

type Header = (HeaderName, HeaderValue);

pub(super) fn tracing(node: &Node<'_>) -> Option<Tracing> {
    let mut fields = node.fields("tracing")?;
    let endpoint = fields.take("endpoint");
    if endpoint.is_none() {
        fields.missing("endpoint", ENDPOINT);
    }
    let endpoint = endpoint.and_then(|node| node.parsed(ENDPOINT, url));
    let headers = fields.take("headers").map(|node| headers(&node)).unwrap_or_default();
    let (headers_file, filed) = fields.switched("headers_file", file).unzip();
    let headers = joined(&fields, headers, filed.unwrap_or_default());
    let secured = endpoint.as_ref().is_some_and(|url| url.starts_with("https:"));
    let ca = authorities(&mut fields, secured);
    let sample = fields.take("sample").map_or(Some(100), |node| node.percent(100));
    let trust = fields.take("trust");
    let trust = trust.map_or(Some(Trust::Proxies), |node| node.word(&Trust::WORDS));
    let service_name = match fields.take("service_name") {
        None => Some("burdock".to_owned()),
        Some(node) => node.parsed("a name of 1 to 255 characters", |text| {
            let fits = (1..=LONGEST_NAME).contains(&text.len()) && !text.contains(char::is_control);
            fits.then(|| text.to_owned())
        }),
    };
    fields.finish();
    Some(Tracing {
        endpoint: endpoint?,
        headers,
        headers_file,
        ca: ca?,
        sample: sample?,
        trust: trust?,
        service_name: service_name?,
    })
}

fn url(text: &str) -> Option<String> {
    let url: Uri = text.parse().ok()?;
    let has_user = url.authority()?.as_str().contains('@');
    let is_known = matches!(url.scheme_str(), Some("http" | "https"));
    (is_known && !has_user && !text.contains('#')).then(|| text.to_owned())
}

/// Nobody needs to be vouched for without TLS.
fn authorities(
    fields: &mut Fields<'_>,
    secured: bool,
) -> Option<Option<crate::config::types::CaRoots>> {
    if secured {
        return ca(fields).map(Some);
    }
    if let Some(node) = fields.take("ca").filter(|node| node.as_text() != Some("system")) {
        node.problem("the endpoint is not https; allowed: system");
    }
    Some(None)
}

fn headers(node: &Node<'_>) -> Vec<Header> {
    let named = node.named("a map of header fields, NAME: VALUE").unwrap_or_default();
    let field = |(name, node): (&str, Node<'_>)| {
        let value = node.as_text().and_then(|value| header(name, value));
        if value.is_none() {
            node.problem(format_args!("not a field that may be set; allowed: {FIELD}"));
        }
        value
    };
    named.into_iter().filter_map(field).collect()
}

fn header(name: &str, value: &str) -> Option<Header> {
    let name = HeaderName::try_from(name).ok().filter(|name| !OURS.contains(name))?;
    let is_plain = value.bytes().all(|byte| (0x20..0x7f).contains(&byte)) && !value.is_empty();
    let value = HeaderValue::try_from(value).ok().filter(|_| is_plain)?;
    Some((name, value))
}

fn file(node: &Node<'_>) -> Option<(PathBuf, Vec<Header>)> {
    let path = node.sink.resolve(node.text("the path of a file, or none")?);
    node.sink.watch(&path);
    let text = match read::text(&path) {
        Ok(text) => text,
        Err(error) => {
            let shown = path.display();
            node.problem(format_args!("cannot read {shown}: {error}; needed: lines of {FIELD}"));
            return None;
        }
    };
    let mut headers = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let found = line.split_once(':');
        match found.and_then(|(name, value)| header(name.trim(), value.trim())) {
            Some(field) => headers.push(field),
            None => node.sink.problems.borrow_mut().push(Problem {
                file: path.clone(),
                line: index + 1,
                path: String::new(),
                message: format!("not a field that may be set; allowed: {FIELD}"),
            }),
        }
    }
    Some((absolute(path), headers))
}

/// Both, where no name is given twice.
fn joined(fields: &Fields<'_>, mut headers: Vec<Header>, filed: Vec<Header>) -> Vec<Header> {
    for (name, value) in filed {
        if headers.iter().any(|(known, _)| *known == name) {
            fields.node.problem(format_args!("the field {name} is given twice; allowed: once"));
        } else {
            headers.push((name, value));
        }
    }
    headers
}
