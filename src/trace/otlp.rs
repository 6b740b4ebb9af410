//! Spans as OTLP has them, in its JSON form: ids in hexadecimal, 64-bit numbers as text, enumerations
//! as numbers.

use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Serialize, Serializer};

use crate::trace::span::{Kind, Span, Value};

/// Tells this process from others of the same service.
static INSTANCE: LazyLock<String> = LazyLock::new(|| format!("{:032x}", fastrand::u128(..)));
/// The parent is known to be here, or elsewhere; trace.proto, `SpanFlags`.
const HAS_IS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;
/// The W3C flag.
const SAMPLED: u32 = 1;

/// An `ExportTraceServiceRequest`.
pub(super) fn request(service: &str, spans: &[Span]) -> serde_json::Result<Vec<u8>> {
    let version = env!("CARGO_PKG_VERSION");
    let attributes = [
        ("service.name", Value::from(service)),
        ("service.version", Value::from(version)),
        ("service.instance.id", Value::from(INSTANCE.as_str())),
        ("process.pid", Value::Number(std::process::id().into())),
    ];
    let scope = Scope { name: "burdock", version };
    let spans = Rows(spans);
    serde_json::to_vec(&Request {
        resource_spans: [ResourceSpans {
            resource: Resource { attributes: Attributes(&attributes) },
            scope_spans: [ScopeSpans { scope, spans }],
        }],
    })
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    resource_spans: [ResourceSpans<'a>; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ResourceSpans<'a> {
    resource: Resource<'a>,
    scope_spans: [ScopeSpans<'a>; 1],
}

#[derive(Serialize)]
struct Resource<'a> {
    attributes: Attributes<'a>,
}

#[derive(Serialize)]
struct ScopeSpans<'a> {
    scope: Scope,
    spans: Rows<'a>,
}

#[derive(Serialize)]
struct Scope {
    name: &'static str,
    version: &'static str,
}

struct Rows<'a>(&'a [Span]);

impl Serialize for Rows<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(row))
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row<'a> {
    trace_id: String,
    span_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_span_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_state: Option<&'a str>,
    flags: u32,
    name: &'a str,
    kind: u8,
    start_time_unix_nano: String,
    end_time_unix_nano: String,
    attributes: Attributes<'a>,
    status: Status,
}

#[derive(Serialize)]
struct Status {
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u8>,
}

fn row(span: &Span) -> Row<'_> {
    let remote = if span.is_remote { IS_REMOTE } else { 0 };
    Row {
        trace_id: format!("{:032x}", span.trace),
        span_id: format!("{:016x}", span.id),
        parent_span_id: span.parent.map(|id| format!("{id:016x}")),
        trace_state: span.state.as_ref().and_then(|state| state.to_str().ok()),
        flags: SAMPLED | HAS_IS_REMOTE | remote,
        name: &span.name,
        kind: match span.kind {
            Kind::Server => 2,
            Kind::Client => 3,
        },
        start_time_unix_nano: nanos(span.start),
        end_time_unix_nano: nanos(span.end),
        attributes: Attributes(&span.attributes),
        // Unset unless it failed: for ok it is whoever reads it to say.
        status: Status { code: span.is_error.then_some(2) },
    }
}

fn nanos(at: SystemTime) -> String {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos().to_string()
}

struct Attributes<'a>(&'a [(&'static str, Value)]);

impl Serialize for Attributes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let any = |value: &Value| match value {
            Value::Text(text) => AnyValue::StringValue(text.clone()),
            Value::Number(number) => AnyValue::IntValue(number.to_string()),
        };
        serializer
            .collect_seq(self.0.iter().map(|(key, value)| KeyValue { key, value: any(value) }))
    }
}

#[derive(Serialize)]
struct KeyValue {
    key: &'static str,
    value: AnyValue,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum AnyValue {
    StringValue(String),
    IntValue(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_span_takes_more_than_it_weighs() {
        let bare = Span {
            trace: u128::MAX,
            id: u64::MAX,
            parent: Some(u64::MAX),
            is_remote: true,
            state: None,
            name: "GET".to_owned(),
            kind: Kind::Client,
            start: SystemTime::now(),
            end: SystemTime::now(),
            attributes: Vec::new(),
            is_error: true,
        };
        let mut told = bare.clone();
        told.state = Some(http::HeaderValue::from_static("a=\"\\1,b=2"));
        for text in ["", "/plain", "\"quoted\" \\ \u{1}\t", "ünï…", &"y\"".repeat(4000)] {
            told.tell("url.path", text);
        }
        told.tell("burdock.attempts", i64::MIN);
        for span in [bare, told] {
            // With the comma to the next.
            let written = serde_json::to_vec(&row(&span)).unwrap().len() + 1;
            let weight = span.weight();
            assert!((written..written * 3 / 2).contains(&weight), "{weight}, {written}");
        }
    }
}
