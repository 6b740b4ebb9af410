//! The form of questions to etcd's JSON gateway and of its answers. Pure: knows no connection.
//!
//! It is protobuf's JSON: bytes are base64, integers of 64 bits are text, what is zero or empty is
//! left out. Gateways of different versions tell of errors in different forms.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::watch::{Batch, Event};

/// As much as is repeated of what an etcd says, in characters.
const TOLD: usize = 200;

/// Codes of gRPC that mean something here.
mod code {
    pub(super) const UNKNOWN: i64 = 2;
    pub(super) const DEADLINE: i64 = 4;
    pub(super) const NOT_FOUND: i64 = 5;
    pub(super) const EXHAUSTED: i64 = 8;
    pub(super) const PRECONDITION: i64 = 9;
    pub(super) const OUT_OF_RANGE: i64 = 11;
    pub(super) const UNAVAILABLE: i64 = 14;
    pub(super) const UNAUTHENTICATED: i64 = 16;
    /// As they are named where they are told of in words.
    pub(super) const NAMES: [(&str, i64); 3] = [
        ("DeadlineExceeded", DEADLINE),
        ("Unavailable", UNAVAILABLE),
        ("Unauthenticated", UNAUTHENTICATED),
    ];
}

/// A key, and what stands there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The key.
    pub key: Vec<u8>,
    /// What stands there.
    pub value: Vec<u8>,
    /// The revision of its last change.
    pub revision: i64,
    /// The lease that it ends with; 0 for none.
    pub lease: i64,
}

/// What an etcd says instead of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The status of HTTP; 0 where it came in the middle of an answer.
    pub status: u16,
    /// The code of gRPC; 0 if there is none.
    pub code: i64,
    /// In its own words.
    pub message: String,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.message.is_empty() {
            true => write!(f, "status {}", self.status),
            false => f.write_str(&self.message),
        }
    }
}

impl Refusal {
    /// `{"code", "message"}`, `{"error": "..", "code"}`, or `{"error": {"grpc_code", "message"}}`.
    fn told(status: u16, told: &Value) -> Self {
        let inner = &told["error"];
        let number = |value: &Value| value.as_i64().or_else(|| value.as_str()?.parse().ok());
        let codes = [&inner["grpc_code"], &inner["code"], &told["code"]];
        let code = codes.into_iter().find_map(number).unwrap_or(0);
        let words = [&inner["message"], &told["message"], inner];
        let message = words.into_iter().find_map(Value::as_str).unwrap_or_default();
        Self { status, code, message: short(message) }
    }

    /// A watch that is refused has the code by its name, `rpc error: code = Unavailable desc = ..`.
    fn in_words(text: &str) -> Self {
        let is_named = |(name, _): &(&str, i64)| text.contains(&format!("code = {name} "));
        let code = code::NAMES.into_iter().find(is_named).map_or(code::UNKNOWN, |(_, code)| code);
        Self { status: 0, code, message: short(text) }
    }

    pub(super) fn is_without_lease(&self) -> bool {
        self.code == code::NOT_FOUND && self.message.contains("lease not found")
    }

    /// Such as one without a leader, or one that has no gateway.
    pub(super) fn is_of_the_member(&self) -> bool {
        matches!(self.code, 0 | code::DEADLINE | code::UNAVAILABLE)
    }

    /// It says so by code, or in words where a watch is refused, or where none was given.
    pub(super) fn wants_token(&self) -> bool {
        let is_said = |words| self.message.contains(words);
        self.code == code::UNAUTHENTICATED
            || is_said("invalid auth token")
            || is_said("user name is empty")
            || is_said("revision of auth store is old")
    }

    pub(super) fn is_too_long(&self) -> bool {
        self.code == code::EXHAUSTED && self.message.contains("larger than max")
    }

    pub(super) fn is_compacted(&self) -> bool {
        self.code == code::OUT_OF_RANGE && self.message.contains("compacted")
    }

    /// Nobody has to say who he is.
    pub(super) fn is_without_users(&self) -> bool {
        self.code == code::PRECONDITION && self.message.contains("not enabled")
    }
}

/// What every answer begins with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Header {
    #[serde(deserialize_with = "unsigned")]
    pub(super) cluster_id: u64,
    #[serde(deserialize_with = "signed")]
    pub(super) revision: i64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Ranged {
    pub(super) header: Header,
    kvs: Vec<Raw>,
    pub(super) more: bool,
    #[serde(deserialize_with = "signed")]
    pub(super) count: i64,
}

impl Ranged {
    pub(super) fn pairs(self) -> Result<Vec<Pair>, String> {
        self.kvs.into_iter().map(Raw::pair).collect()
    }
}

/// A key and its value, as they come.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Raw {
    key: String,
    value: String,
    #[serde(deserialize_with = "signed")]
    mod_revision: i64,
    #[serde(deserialize_with = "signed")]
    lease: i64,
}

impl Raw {
    fn pair(self) -> Result<Pair, String> {
        let bytes = |what, text: &str| {
            STANDARD.decode(text).map_err(|error| format!("a {what} that is no base64: {error}"))
        };
        let (key, value) = (bytes("key", &self.key)?, bytes("value", &self.value)?);
        if key.is_empty() {
            return Err("a key that is empty".to_owned());
        }
        Ok(Pair { key, value, revision: self.mod_revision, lease: self.lease })
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Done {
    pub(super) header: Header,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Granted {
    #[serde(rename = "ID", deserialize_with = "signed")]
    pub(super) id: i64,
    #[serde(rename = "TTL", deserialize_with = "signed")]
    pub(super) ttl: i64,
}

/// A message of a stream.
#[derive(Debug, Deserialize)]
#[serde(bound = "T: Default + Deserialize<'de>")]
pub(super) struct Streamed<T> {
    #[serde(default)]
    pub(super) result: T,
    #[serde(default)]
    error: Option<Value>,
}

impl<T> Streamed<T> {
    /// What is said instead of a result.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        let error = self.error.as_ref()?;
        Some(Refusal::told(0, &json!({ "error": error })))
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Authenticated {
    pub(super) token: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Compared {
    pub(super) header: Header,
    pub(super) succeeded: bool,
    responses: Vec<Looked>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Looked {
    response_range: Ranged,
}

impl Compared {
    /// What stood there instead.
    pub(super) fn found(self) -> Result<Option<Pair>, String> {
        let looked = self.responses.into_iter().next().unwrap_or_default();
        Ok(looked.response_range.pairs()?.pop())
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Watched {
    header: Header,
    created: bool,
    canceled: bool,
    #[serde(deserialize_with = "signed")]
    compact_revision: i64,
    cancel_reason: String,
    events: Vec<RawEvent>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawEvent {
    r#type: Kind,
    kv: Raw,
}

#[derive(Debug, Default, Deserialize)]
enum Kind {
    #[default]
    #[serde(rename = "PUT", alias = "0")]
    Put,
    #[serde(rename = "DELETE", alias = "1")]
    Delete,
}

/// One message of a watch.
#[derive(Debug)]
pub(super) enum Message {
    /// It is watched now; so far the member has come.
    Created(Header),
    /// What has changed; nothing, if only that nothing has.
    Changed(Batch),
    /// What it was to begin with is forgotten, until this revision.
    Compacted(i64),
    /// It is watched no more.
    Ended(Refusal),
}

/// A message of a watch, from its line.
pub(super) fn watched(line: &[u8]) -> Result<Message, String> {
    let told: Streamed<Watched> = answer(line)?;
    if let Some(refusal) = told.refusal() {
        return Ok(Message::Ended(refusal));
    }
    let Watched { header, created, canceled, compact_revision, cancel_reason, events } =
        told.result;
    if compact_revision > 0 {
        return Ok(Message::Compacted(compact_revision));
    }
    if canceled {
        return Ok(Message::Ended(Refusal::in_words(&cancel_reason)));
    }
    if created {
        return Ok(Message::Created(header));
    }
    let mut revision = if events.is_empty() { header.revision } else { 0 };
    let mut told = Vec::with_capacity(events.len());
    for event in events {
        let pair = event.kv.pair()?;
        revision = revision.max(pair.revision);
        told.push(match event.r#type {
            Kind::Put => Event::Put(pair),
            Kind::Delete => Event::Delete(pair.key),
        });
    }
    Ok(Message::Changed(Batch { revision, events: told }))
}

/// An answer, from its text.
pub(super) fn answer<T: DeserializeOwned>(text: &[u8]) -> Result<T, String> {
    serde_json::from_slice(text).map_err(|error| error.to_string())
}

/// What is said instead of an answer, from its text.
pub(super) fn refusal(status: u16, text: &[u8]) -> Refusal {
    match serde_json::from_slice(text) {
        Ok(told) => Refusal::told(status, &told),
        // Not of the gateway, but of what stands before it.
        Err(_) => {
            let message = short(String::from_utf8_lossy(text).trim());
            Refusal { status, code: 0, message }
        }
    }
}

/// The beginning of what is said, on one line.
fn short(text: &str) -> String {
    text.chars().map(|it| if it.is_control() { ' ' } else { it }).take(TOLD).collect()
}

/// The first key after all those that begin with `prefix`; `\0` stands for the end.
pub(super) fn end_of(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    vec![0]
}

fn text(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

pub(super) fn range(from: &[u8], end: &[u8], limit: usize, revision: i64) -> Value {
    json!({
        "key": text(from),
        "range_end": text(end),
        "limit": limit.to_string(),
        "revision": revision.to_string(),
    })
}

pub(super) fn key(key: &[u8]) -> Value {
    json!({ "key": text(key) })
}

pub(super) fn put(key: &[u8], value: &[u8], lease: i64) -> Value {
    json!({ "key": text(key), "value": text(value), "lease": lease.to_string() })
}

/// Puts if the last change of the key was at `revision`, 0 for a key that is not there; else looks.
pub(super) fn swap(at: &[u8], revision: i64, value: &[u8], lease: i64) -> Value {
    let as_before = json!({
        "key": text(at),
        "target": "MOD",
        "result": "EQUAL",
        "mod_revision": revision.to_string(),
    });
    json!({
        "compare": [as_before],
        "success": [{ "request_put": put(at, value, lease) }],
        "failure": [{ "request_range": key(at) }],
    })
}

pub(super) fn lease(id: i64) -> Value {
    json!({ "ID": id.to_string() })
}

pub(super) fn grant(seconds: u64) -> Value {
    json!({ "TTL": seconds.to_string() })
}

pub(super) fn user(name: &str, password: &str) -> Value {
    json!({ "name": name, "password": password })
}

pub(super) fn watch(prefix: &[u8], from: i64) -> Value {
    json!({ "create_request": {
        "key": text(prefix),
        "range_end": text(&end_of(prefix)),
        "start_revision": from.to_string(),
        "progress_notify": true,
    } })
}

/// A number, or one as text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Number<'a, T> {
    Number(T),
    #[serde(borrow)]
    Text(std::borrow::Cow<'a, str>),
}

fn signed<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    number(deserializer)
}

fn unsigned<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    number(deserializer)
}

fn number<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + std::str::FromStr,
{
    match Number::deserialize(deserializer)? {
        Number::Number(number) => Ok(number),
        Number::Text(text) => text
            .parse()
            .map_err(|_| serde::de::Error::custom(format_args!("{:?} is no number", short(&text)))),
    }
}

#[cfg(test)]
mod tests;
