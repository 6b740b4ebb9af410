//! The access log: one line for each request or tunnel when it ends.
//!
//! Lines are made by hand rather than through `tracing`'s field machinery: at the rates of a load
//! balancer that machinery would cost more than the rest of a request.

mod agent;
mod ncsa;
mod outlet;

use std::cell::RefCell;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::config::types::AccessLog;
use crate::observe::log::Format;
use crate::tls::session::Session;

pub use agent::Agent;
pub use outlet::{Prepared, flush, follow, prepare, reopen};

static PRETTY: AtomicBool = AtomicBool::new(true);

/// All that is told of one request, or one tunnel.
#[derive(Debug, Clone, Default)]
pub struct Line<'a> {
    /// `request` or `tunnel`.
    pub message: &'static str,
    /// The client's address, as trusted proxies tell it.
    pub client: &'a str,
    /// The request's method; empty where none was understood.
    pub method: &'a str,
    /// The protocol that it came by, such as `HTTP/1.1`.
    pub protocol: &'static str,
    /// Path and query as they came.
    pub path: &'a str,
    /// The Host field.
    pub host: &'a str,
    /// The status sent; 0 if none could be.
    pub status: u16,
    /// The service, version and instance that it came to last; empty where it came to none.
    pub service: &'a str,
    /// See `service`.
    pub version: &'a str,
    /// See `service`.
    pub instance: &'a str,
    /// `off`, `new`, `kept`, `rehomed` or `rejected`.
    pub affinity: &'static str,
    /// Why, for the last two.
    pub affinity_reason: Option<&'static str>,
    /// By what it came to its version, where its service has several.
    pub split: Option<&'static str>,
    /// Instances tried.
    pub attempts: u32,
    /// Body bytes from the client; all bytes for a tunnel.
    pub request_bytes: u64,
    /// Body bytes to the client; all bytes for a tunnel.
    pub response_bytes: u64,
    /// From the request's head to the answer's, where one came.
    pub first_byte: Option<Duration>,
    /// From the request's head to the end.
    pub duration: Duration,
    /// The request's id, where it has one.
    pub request_id: &'a str,
    /// The label of what went wrong, or of how a tunnel ended.
    pub error: Option<&'static str>,
    /// Of its connection, if that is TLS.
    pub tls: Option<&'a Session>,
    /// What is told of tunnels only.
    pub tunnel: Option<Tunnel>,
    /// Its `Referer` and `User-Agent`, as they came.
    pub agent: [&'a [u8]; 2],
    /// Whether there is a line whatever the sample is.
    pub must: bool,
    /// The trace that it is a part of, and its span there.
    pub trace: Option<(u128, u64)>,
}

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Pretty,
    Json,
    Common,
    Combined,
}

/// What is told of a tunnel. Pairs are client's, instance's.
#[derive(Debug, Clone, Copy)]
pub struct Tunnel {
    /// Complete data messages that each side sent.
    pub messages: [u64; 2],
    /// The codes of their Close frames.
    pub close_codes: [Option<u16>; 2],
}

pub(super) fn set_format(format: Format) {
    PRETTY.store(format == Format::Pretty, Ordering::Relaxed);
}

fn is_pretty() -> bool {
    PRETTY.load(Ordering::Relaxed)
}

/// Writes the line to the access log, if there is one and the line is not left out.
pub fn write(line: &Line<'_>) {
    thread_local! {
        static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    outlet::with(|log| {
        let Some(share) = log.share(line.must) else { return };
        BUFFER.with_borrow_mut(|buffer| {
            buffer.clear();
            match log.form {
                Form::Pretty => pretty(buffer, line),
                Form::Json => json(buffer, line, share),
                Form::Common => ncsa::common(buffer, line),
                Form::Combined => ncsa::combined(buffer, line),
            }
            log.sink().line(buffer);
        });
    });
}

/// `share` of the requests like this one have a line, in basis points.
fn json(out: &mut Vec<u8>, line: &Line<'_>, share: u32) {
    out.extend_from_slice(b"{\"timestamp\":\"");
    timestamp(out);
    out.extend_from_slice(b"\",\"level\":\"INFO\",\"target\":\"access\"");
    // Labels of ours need no escaping, nor do names, addresses and methods: what they are made of is
    // checked where they come in.
    for (key, label) in [
        (",\"message\":\"", Some(line.message)),
        (",\"affinity\":\"", Some(line.affinity)),
        (",\"affinity_reason\":\"", line.affinity_reason),
        (",\"split\":\"", line.split),
        (",\"error\":\"", line.error),
        (",\"client\":\"", Some(line.client)),
        (",\"method\":\"", Some(line.method)),
        (",\"service\":\"", Some(line.service)),
        (",\"version\":\"", Some(line.version)),
        (",\"instance\":\"", Some(line.instance)),
    ] {
        if let Some(label) = label {
            out.extend_from_slice(key.as_bytes());
            out.extend_from_slice(label.as_bytes());
            out.push(b'"');
        }
    }
    for (key, text) in [
        (",\"path\":", Some(line.path)),
        (",\"host\":", Some(line.host)),
        (",\"request_id\":", Some(line.request_id)),
        (",\"tls_version\":", line.tls.map(|tls| tls.version)),
        (",\"tls_cipher\":", line.tls.map(|tls| tls.cipher)),
        (",\"sni\":", line.tls.and_then(|tls| tls.sni.as_deref())),
    ] {
        if let Some(text) = text {
            out.extend_from_slice(key.as_bytes());
            quoted(out, text);
        }
    }
    for (key, number) in [
        (",\"status\":", u64::from(line.status)),
        (",\"attempts\":", u64::from(line.attempts)),
        (",\"request_bytes\":", line.request_bytes),
        (",\"response_bytes\":", line.response_bytes),
    ] {
        out.extend_from_slice(key.as_bytes());
        decimal(out, number);
    }
    if let Some(Tunnel { messages, close_codes }) = line.tunnel {
        for (key, number) in [
            (",\"client_messages\":", Some(messages[0])),
            (",\"instance_messages\":", Some(messages[1])),
            (",\"client_close\":", close_codes[0].map(u64::from)),
            (",\"instance_close\":", close_codes[1].map(u64::from)),
        ] {
            if let Some(number) = number {
                out.extend_from_slice(key.as_bytes());
                decimal(out, number);
            }
        }
    }
    if let Some(first_byte) = line.first_byte {
        out.extend_from_slice(b",\"first_byte_ms\":");
        milliseconds(out, first_byte);
    }
    out.extend_from_slice(b",\"duration_ms\":");
    milliseconds(out, line.duration);
    if let Some((trace, span)) = line.trace {
        // Writing to memory fails for nobody.
        let _ = write!(out, ",\"trace_id\":\"{trace:032x}\",\"span_id\":\"{span:016x}\"");
    }
    if share < AccessLog::ALL {
        out.extend_from_slice(b",\"sample\":0.");
        let digits =
            [share / 1000, share / 100, share / 10, share].map(|it| b'0' + (it % 10) as u8);
        out.extend_from_slice(&digits);
    }
    out.extend_from_slice(b"}\n");
}

fn pretty(out: &mut Vec<u8>, line: &Line<'_>) {
    timestamp(out);
    out.extend_from_slice(b"  INFO access: ");
    out.extend_from_slice(line.message.as_bytes());
    for (before, text) in
        [(" ", line.client), (" ", line.method), (" ", line.host), ("", line.path)]
    {
        out.extend_from_slice(before.as_bytes());
        printable(out, text);
    }
    out.push(b' ');
    decimal(out, u64::from(line.status));
    let instance = if line.instance.is_empty() { "-" } else { line.instance };
    for (key, label) in [
        (" -> ", Some(line.service)),
        ("/", Some(line.version)),
        ("/", Some(instance)),
        (" affinity=", Some(line.affinity)),
        (" reason=", line.affinity_reason),
        (" split=", line.split),
        (" error=", line.error),
        (" tls=", line.tls.map(|tls| tls.version)),
    ] {
        if let Some(label) = label {
            out.extend_from_slice(key.as_bytes());
            out.extend_from_slice(label.as_bytes());
        }
    }
    for (key, number) in [
        (" attempts=", u64::from(line.attempts)),
        (" in=", line.request_bytes),
        (" out=", line.response_bytes),
    ] {
        out.extend_from_slice(key.as_bytes());
        decimal(out, number);
    }
    if let Some(Tunnel { messages, close_codes }) = line.tunnel {
        for (key, number) in [
            (" messages=", Some(messages[0])),
            ("/", Some(messages[1])),
            (" client_close=", close_codes[0].map(u64::from)),
            (" instance_close=", close_codes[1].map(u64::from)),
        ] {
            if let Some(number) = number {
                out.extend_from_slice(key.as_bytes());
                decimal(out, number);
            }
        }
    }
    out.extend_from_slice(b" ms=");
    milliseconds(out, line.duration);
    out.extend_from_slice(b" id=");
    printable(out, line.request_id);
    if let Some((trace, _)) = line.trace {
        // Writing to memory fails for nobody.
        let _ = write!(out, " trace={trace:032x}");
    }
    out.push(b'\n');
}

/// What a client sends, so that it neither ends the line, nor passes for another field, nor drives
/// the terminal that shows it.
fn printable(out: &mut Vec<u8>, text: &str) {
    // All bytes are looked at, whatever is found: that goes many at a time.
    let special = |byte: u8| !byte.is_ascii_graphic() || byte == b'\\';
    if !text.bytes().fold(false, |found, byte| found | special(byte)) {
        out.extend_from_slice(text.as_bytes());
        return;
    }
    let mut utf8 = [0; 4];
    for letter in text.chars() {
        match letter {
            ' ' => out.extend_from_slice(b"\\u{20}"),
            '"' | '\'' => out.push(letter as u8),
            // Everything that has no shape of its own, as the standard library sees it: control
            // characters of both sets, separators, marks that turn the direction of writing.
            _ => letter
                .escape_debug()
                .for_each(|c| out.extend_from_slice(c.encode_utf8(&mut utf8).as_bytes())),
        }
    }
}

/// RFC 3339 in UTC with milliseconds. The part down to the second is made once a second.
fn timestamp(out: &mut Vec<u8>) {
    thread_local! {
        static SECOND: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    SECOND.with_borrow_mut(|(second, text)| {
        if *second != now.as_secs() || text.is_empty() {
            *second = now.as_secs();
            let whole = UNIX_EPOCH + Duration::from_secs(now.as_secs());
            *text = humantime::format_rfc3339_seconds(whole).to_string();
            text.pop();
        }
        out.extend_from_slice(text.as_bytes());
    });
    thousandths(out, now.subsec_millis());
    out.push(b'Z');
}

fn decimal(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Three decimals.
fn milliseconds(out: &mut Vec<u8>, duration: Duration) {
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    decimal(out, micros / 1000);
    thousandths(out, (micros % 1000) as u32);
}

fn thousandths(out: &mut Vec<u8>, value: u32) {
    let digit = |of: u32| b'0' + (of % 10) as u8;
    out.extend_from_slice(&[b'.', digit(value / 100), digit(value / 10), digit(value)]);
}

/// A JSON string. What a client sends may hold anything; what needs no escape is copied whole.
fn quoted(out: &mut Vec<u8>, text: &str) {
    let special = |byte: u8| byte < 0x20 || byte == b'"' || byte == b'\\';
    if !text.bytes().fold(false, |found, byte| found | special(byte)) {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else if serde_json::to_writer(&mut *out, text).is_err() {
        // Writing to memory fails for nobody; a line must stay an object all the same.
        out.extend_from_slice(b"\"\"");
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::observe) fn line() -> Line<'static> {
        Line {
            message: "request",
            client: "192.0.2.1",
            method: "GET",
            protocol: "HTTP/1.1",
            path: "/a\"b?c=\u{7f}",
            host: "example.com",
            status: 200,
            service: "chat",
            version: "v1",
            instance: "a",
            affinity: "rehomed",
            affinity_reason: Some("dead"),
            split: Some("token"),
            attempts: 2,
            request_bytes: 0,
            response_bytes: 5,
            first_byte: Some(Duration::from_micros(1500)),
            duration: Duration::from_micros(2005),
            request_id: "id",
            error: None,
            tls: None,
            tunnel: None,
            agent: [b"", b""],
            must: false,
            trace: None,
        }
    }

    #[test]
    fn a_json_line_is_one_object_whatever_the_client_sent() {
        let mut out = Vec::new();
        json(&mut out, &line(), 10_000);
        assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), 1);
        let object: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(object["path"], "/a\"b?c=\u{7f}");
        assert_eq!(object["duration_ms"], 2.005);
        assert_eq!(object["affinity_reason"], "dead");
        assert_eq!(object["split"], "token");
        assert!(object.get("error").is_none() && object.get("sample").is_none());
        for (share, told) in [(1, 0.0001), (250, 0.025), (9999, 0.9999)] {
            out.clear();
            json(&mut out, &line(), share);
            let object: serde_json::Value = serde_json::from_slice(&out).unwrap();
            assert_eq!(object["sample"], told);
        }
    }

    #[test]
    fn a_pretty_line_is_one_line_that_drives_no_terminal() {
        let mut out = Vec::new();
        let path = "/\u{9b}31m\u{1b}[2J\u{7f}\u{85}\u{2028}\u{202e}\r\nx\\/ü\"";
        pretty(&mut out, &Line { path, request_id: "a status=200", ..line() });
        let text = String::from_utf8(out).unwrap();
        let (line, rest) = text.split_at(text.len() - 1);
        assert_eq!(rest, "\n");
        assert!(
            !line.contains(|c: char| c.is_control() || "\u{2028}\u{202e}".contains(c)),
            "{line}"
        );
        let shown = "/\\u{9b}31m\\u{1b}[2J\\u{7f}\\u{85}\\u{2028}\\u{202e}\\r\\nx\\\\/ü\" 200 ->";
        assert!(line.contains(shown), "{line}");
        assert!(line.ends_with("id=a\\u{20}status=200"), "{line}");
    }

    #[test]
    fn a_tunnels_line_tells_messages_and_codes() {
        let tunnel = Some(Tunnel { messages: [3, 4], close_codes: [Some(1001), None] });
        let (mut out, mut shown) = (Vec::new(), Vec::new());
        json(&mut out, &Line { tunnel, ..line() }, 10_000);
        let object: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(
            (&object["client_messages"], &object["instance_messages"]),
            (&3.into(), &4.into())
        );
        assert_eq!(object["client_close"], 1001);
        assert!(object.get("instance_close").is_none());
        pretty(&mut shown, &Line { tunnel, ..line() });
        let text = String::from_utf8(shown).unwrap();
        assert!(text.contains(" messages=3/4 client_close=1001 ms="), "{text}");
    }

    #[test]
    fn a_line_of_a_connection_with_tls_says_so() {
        let session = Session {
            version: "1.3",
            cipher: "TLS13_AES_128_GCM_SHA256",
            sni: Some("a.b".into()),
            hsts: None,
            certificate: Box::default(),
        };
        let tls = Some(&session);
        let (mut out, mut shown) = (Vec::new(), Vec::new());
        json(&mut out, &Line { tls, ..line() }, 10_000);
        let object: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!((&object["tls_version"], &object["sni"]), (&"1.3".into(), &"a.b".into()));
        assert_eq!(object["tls_cipher"], "TLS13_AES_128_GCM_SHA256");
        pretty(&mut shown, &Line { tls, ..line() });
        assert!(String::from_utf8(shown).unwrap().contains(" tls=1.3 "));
    }

    #[test]
    fn a_pretty_line_names_instance_and_reason() {
        let mut out = Vec::new();
        pretty(&mut out, &line());
        let text = String::from_utf8(out).unwrap();
        assert!(
            text.contains("200 -> chat/v1/a affinity=rehomed reason=dead split=token attempts=2"),
            "{text}"
        );
    }
}
