//! What collectors are told of a request and of each attempt, by the names of OpenTelemetry's semantic
//! conventions for HTTP, and by names of our own that begin with `burdock.`.

use std::time::Instant;

use http::header::HeaderValue;
use http::{Method, request};

use crate::observe::access::Line;
use crate::proxy::exchange::Exchange;
use crate::proxy::stay::Stay;
use crate::snapshot::Snapshot;
use crate::trace::span::{Span, Trace};

/// Methods that a span may be named by; others could be anything.
const KNOWN: [Method; 9] = [
    Method::GET,
    Method::POST,
    Method::PUT,
    Method::DELETE,
    Method::HEAD,
    Method::OPTIONS,
    Method::PATCH,
    Method::TRACE,
    Method::CONNECT,
];

/// What stands for a method that is none of them.
const OTHER: &str = "_OTHER";

/// Gives the request a place in a trace, if there are to be any.
pub(super) fn trace(exchange: &mut Exchange, snapshot: &Snapshot, head: &mut request::Parts) {
    let Some(tracing) = &snapshot.config.tracing else { return };
    let is_proxy = exchange.client.origin(snapshot, head.version).trusted;
    exchange.trace = Some(Trace::begin(tracing, &mut head.headers, is_proxy));
}

/// A stay that is told of, and what the instance is told.
pub(super) fn attempt(
    exchange: &Exchange,
    trace: &Trace,
    stay: Stay,
) -> (Stay, Option<Box<HeaderValue>>) {
    if !trace.is_sampled() {
        return (stay, Some(Box::new(trace.traceparent())));
    }
    let (method, original) = named(exchange.method());
    let mut span = trace.attempt(name(method), &exchange.client.live.spans);
    let instance = stay.instance();
    span.tell("http.request.method", method);
    if let Some(original) = original {
        span.tell("http.request.method_original", original);
    }
    let (host, port) = authority(instance.address());
    span.tell("server.address", host);
    if let Some(port) = port {
        span.tell("server.port", port);
    }
    let scheme = if instance.target().is_some() { "https" } else { "http" };
    let path = exchange.target().path_and_query().map_or("/", |path| path.as_str());
    span.tell("url.full", &*format!("{scheme}://{}{path}", instance.address()));
    if exchange.attempts > 1 {
        span.tell("http.request.resend_count", i64::from(exchange.attempts - 1));
    }
    span.tell("burdock.instance", &*instance.identity().name);
    let traceparent = span.traceparent().map(Box::new);
    (stay.told_by(span), traceparent)
}

/// The span of a request that is over `now`, told by the same words as its line in the log.
pub(super) fn request(
    trace: &Trace,
    line: &Line<'_>,
    (exchange, now): (&Exchange, Instant),
) -> Span {
    let (method, original) = named(exchange.method());
    let mut span = trace.span(name(method), exchange.started, now);
    span.tell("http.request.method", method);
    if let Some(original) = original {
        span.tell("http.request.method_original", original);
    }
    span.tell("url.scheme", if exchange.https { "https" } else { "http" });
    span.tell("url.path", exchange.target().path());
    if let Some(query) = exchange.target().query() {
        span.tell("url.query", query);
    }
    let (host, port) = authority(line.host);
    for (name, text) in [
        ("server.address", host),
        ("client.address", line.client),
        ("user_agent.original", trace.agent().unwrap_or_default()),
        ("burdock.service", line.service),
        ("burdock.version", line.version),
        ("burdock.instance", line.instance),
        ("burdock.affinity", line.affinity),
        ("burdock.affinity_reason", line.affinity_reason.unwrap_or_default()),
        ("burdock.request_id", line.request_id),
    ] {
        if !text.is_empty() {
            span.tell(name, text);
        }
    }
    if let Some(port) = port {
        span.tell("server.port", port);
    }
    let version = line.protocol.trim_start_matches("HTTP/");
    span.tell("network.protocol.version", if version == "2.0" { "2" } else { version });
    for (name, number) in [
        ("http.response.status_code", u64::from(line.status)),
        ("http.request.body.size", line.request_bytes),
        ("http.response.body.size", line.response_bytes),
        ("burdock.attempts", u64::from(line.attempts)),
    ] {
        if number > 0 {
            span.tell(name, i64::try_from(number).unwrap_or(i64::MAX));
        }
    }
    let status = line.status.to_string();
    span.is_error = line.must;
    if let Some(error) = line.error.or(line.must.then_some(&*status)) {
        span.tell("error.type", error);
    }
    span
}

/// The name of a method, and what it was where it has none.
fn named(method: &Method) -> (&str, Option<&str>) {
    match KNOWN.contains(method) {
        true => (method.as_str(), None),
        false => (OTHER, Some(method.as_str())),
    }
}

/// A span is named by its method alone: no route is known here.
fn name(method: &str) -> String {
    let name = if method == OTHER { "HTTP" } else { method };
    name.to_owned()
}

/// Host and port of an authority.
fn authority(text: &str) -> (&str, Option<i64>) {
    let split = text.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
    let (host, port) = split.map_or((text, None), |(host, port): (_, u16)| (host, Some(port)));
    (host.trim_start_matches('[').trim_end_matches(']'), port.map(i64::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_methods_have_the_names_that_conventions_give_them() {
        assert_eq!(authority("a.test:8080"), ("a.test", Some(8080)));
        assert_eq!(authority("a.test"), ("a.test", None));
        assert_eq!(authority("[::1]:80"), ("::1", Some(80)));
        assert_eq!(authority("[::1]"), ("::1", None));
        assert_eq!(named(&Method::PATCH), ("PATCH", None));
        let other = Method::from_bytes(b"BREW").unwrap();
        assert_eq!(named(&other), ("_OTHER", Some("BREW")));
    }
}
