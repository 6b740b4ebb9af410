//! What is told of one request, and of each attempt at an instance.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use http::header::{HeaderValue, USER_AGENT};
use http::{HeaderMap, StatusCode};

use crate::config::types::{AccessLog, Tracing, Trust};
use crate::trace::context::{self, Parent};
use crate::trace::queue::Spans;

/// Bytes that an attribute's text has at most: what clients send ends up here.
const LONGEST: usize = 1024;
/// Stands at the end of text that was longer.
const CUT: &str = "…";
/// What a span takes as OTLP has it, without its texts; and each attribute. Neither is less.
const FRAME: usize = 280;
const ATTRIBUTE: usize = 40;
/// The most digits of a number.
const DIGITS: usize = 20;

/// Whose side of a call a span is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It answers.
    Server,
    /// It asks.
    Client,
}

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Text, of 1 KiB at most where it was made of a `&str`.
    Text(String),
    /// A whole number.
    Number(i64),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(cut(text))
    }
}

/// The beginning of `text` where it is too long, marked.
fn cut(text: &str) -> String {
    if text.len() <= LONGEST {
        return text.to_owned();
    }
    let fits = |at: &usize| text.is_char_boundary(*at);
    let end = (0..=LONGEST - CUT.len()).rev().find(fits).unwrap_or_default();
    format!("{}{CUT}", &text[..end])
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

/// A span that is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// The trace.
    pub trace: u128,
    /// Its own id.
    pub id: u64,
    /// Whose it is a part of.
    pub parent: Option<u64>,
    /// Whether that one is elsewhere.
    pub is_remote: bool,
    /// What vendors said of the trace.
    pub state: Option<HeaderValue>,
    /// What it does.
    pub name: String,
    /// Whose side it is.
    pub kind: Kind,
    /// When it began.
    pub start: SystemTime,
    /// When it was over.
    pub end: SystemTime,
    /// All that is told of it, by names of the semantic conventions and our own.
    pub attributes: Vec<(&'static str, Value)>,
    /// Whether it failed.
    pub is_error: bool,
}

impl Span {
    /// Adds what is told.
    pub fn tell(&mut self, name: &'static str, value: impl Into<Value>) {
        self.attributes.push((name, value.into()));
    }

    /// Bytes that it takes as it is sent, or some more; in memory it is about as large.
    pub(super) fn weight(&self) -> usize {
        let state = self.state.as_ref().map_or(0, |state| written(state.as_bytes()));
        let of = |(name, value): &(&str, Value)| {
            let value = match value {
                Value::Text(text) => written(text.as_bytes()),
                Value::Number(_) => DIGITS,
            };
            ATTRIBUTE + name.len() + value
        };
        let attributes: usize = self.attributes.iter().map(of).sum();
        FRAME + self.name.len() + state + attributes
    }
}

/// The length of text in JSON.
fn written(text: &[u8]) -> usize {
    let length = |byte: &u8| match byte {
        b'"' | b'\\' => 2,
        0..0x20 => 6,
        _ => 1,
    };
    text.iter().map(length).sum()
}

/// The place of a request in its trace.
#[derive(Debug)]
pub struct Trace {
    trace: u128,
    span: u64,
    parent: Option<u64>,
    sampled: bool,
    state: Option<HeaderValue>,
    agent: Option<String>,
}

impl Trace {
    /// Goes on with the trace that a request's `headers` name, or begins one. `is_proxy` says that it came
    /// from a trusted proxy.
    pub fn begin(tracing: &Tracing, headers: &mut HeaderMap, is_proxy: bool) -> Box<Self> {
        let is_believed = match tracing.trust {
            Trust::All => true,
            Trust::Proxies => is_proxy,
            Trust::None => false,
        };
        let parent = is_believed.then(|| Parent::of(headers)).flatten();
        let state = match parent {
            Some(_) => context::settle_state(headers),
            None => {
                context::forget_state(headers);
                None
            }
        };
        let is_drawn = || fastrand::u32(..AccessLog::ALL) < tracing.sample;
        let sampled = parent.map_or_else(is_drawn, |parent| parent.sampled);
        let agent = headers.get(USER_AGENT).filter(|_| sampled);
        let agent = agent.and_then(|agent| agent.to_str().ok()).map(cut);
        Box::new(Self {
            trace: parent.map_or_else(|| fastrand::u128(1..), |parent| parent.trace),
            span: new_id(),
            parent: parent.map(|parent| parent.span),
            sampled,
            state: state.filter(|_| sampled),
            agent,
        })
    }

    /// The trace and the request's own span in it.
    pub fn ids(&self) -> (u128, u64) {
        (self.trace, self.span)
    }

    /// Whether anything is to be told of it.
    pub fn is_sampled(&self) -> bool {
        self.sampled
    }

    /// What the client calls itself.
    pub fn agent(&self) -> Option<&str> {
        self.agent.as_deref()
    }

    /// What an attempt that is not told of says to the instance.
    pub fn traceparent(&self) -> HeaderValue {
        context::traceparent(self.trace, self.span, self.sampled)
    }

    /// The span of the request, which took from `began` to `now`.
    pub fn span(&self, name: String, began: Instant, now: Instant) -> Span {
        let end = SystemTime::now();
        let start = end.checked_sub(now.saturating_duration_since(began)).unwrap_or(end);
        Span {
            trace: self.trace,
            id: self.span,
            parent: self.parent,
            is_remote: self.parent.is_some(),
            state: self.state.clone(),
            name,
            kind: Kind::Server,
            start,
            end,
            attributes: Vec::new(),
            is_error: false,
        }
    }

    /// The span of an attempt, which begins now.
    pub fn attempt(&self, name: String, spans: &Arc<Spans>) -> Attempt {
        let now = SystemTime::now();
        let span = Span {
            trace: self.trace,
            id: new_id(),
            parent: Some(self.span),
            is_remote: false,
            state: self.state.clone(),
            name,
            kind: Kind::Client,
            start: now,
            end: now,
            attributes: Vec::new(),
            is_error: false,
        };
        Attempt { span: Some(span), spans: Arc::clone(spans), is_settled: false }
    }
}

fn new_id() -> u64 {
    fastrand::u64(1..)
}

/// An attempt that is under way. It is over when it fails, or when it is dropped with all that was
/// read of its answer.
#[derive(Debug)]
pub struct Attempt {
    /// Until it is over.
    span: Option<Span>,
    spans: Arc<Spans>,
    is_settled: bool,
}

impl Attempt {
    /// What the instance is told.
    pub fn traceparent(&self) -> Option<HeaderValue> {
        let span = self.span.as_ref()?;
        Some(context::traceparent(span.trace, span.id, true))
    }

    /// Adds what is told.
    pub fn tell(&mut self, name: &'static str, value: impl Into<Value>) {
        if let Some(span) = &mut self.span {
            span.tell(name, value);
        }
    }

    /// An answer came.
    pub fn answered(&mut self, status: StatusCode) {
        self.is_settled = true;
        self.tell("http.response.status_code", i64::from(status.as_u16()));
        if status.is_client_error() || status.is_server_error() {
            self.err(status.as_str());
        }
    }

    /// None came, for this reason.
    pub fn failed(&mut self, reason: &str) {
        self.is_settled = true;
        self.err(reason);
        self.end();
    }

    fn err(&mut self, what: &str) {
        self.tell("error.type", what);
        if let Some(span) = &mut self.span {
            span.is_error = true;
        }
    }

    fn end(&mut self) {
        if let Some(mut span) = self.span.take() {
            span.end = SystemTime::now();
            self.spans.push(span);
        }
    }
}

impl Drop for Attempt {
    /// Without an outcome another attempt was better, or the client has left.
    fn drop(&mut self) {
        if !self.is_settled {
            self.tell("burdock.outcome", "abandoned");
        }
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_between_characters_and_marked() {
        let text = |length: usize| "ä".repeat(length / 2);
        assert_eq!(Value::from(&*text(1024)), Value::Text(text(1024)));
        assert_eq!(Value::from(&*text(1026)), Value::Text(format!("{}…", text(1020))));
        let Value::Text(cut) = Value::from(&*"x".repeat(60_000)) else { panic!("no text") };
        assert_eq!(cut.len(), LONGEST);
        assert_eq!(Value::from(&*cut), Value::Text(cut.clone()), "and not twice");
    }

    fn tracing(trust: Trust) -> Tracing {
        let endpoint = "http://127.0.0.1:1/".to_owned();
        let service_name = "burdock".to_owned();
        let (headers, headers_file, ca) = (Vec::new(), None, None);
        Tracing { endpoint, headers, headers_file, ca, sample: 0, trust, service_name }
    }

    #[test]
    fn who_is_not_believed_begins_a_trace_of_its_own() {
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        for (trust, is_proxy, believed) in [
            (Trust::All, false, true),
            (Trust::Proxies, true, true),
            (Trust::Proxies, false, false),
            (Trust::None, true, false),
        ] {
            let field = |name: &str, value: &str| {
                (name.parse().unwrap(), HeaderValue::from_str(value).unwrap())
            };
            let fields: [(http::HeaderName, _); 2] =
                [field("traceparent", parent), field("tracestate", "foo=1")];
            let mut headers = HeaderMap::from_iter(fields);
            let trace = Trace::begin(&tracing(trust), &mut headers, is_proxy);
            let goes_on = trace.trace == 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736;
            let has_state = headers.contains_key("tracestate");
            let seen = (goes_on, trace.is_sampled(), trace.state.is_some(), has_state);
            assert_eq!(seen, (believed, believed, believed, believed), "{trust:?} {is_proxy}");
        }
    }
}
