//! The access log: one line for each request or tunnel when it ends.
//!
//! Lines are made by hand rather than through `tracing`'s field machinery: at the rates of a load
//! balancer that machinery would cost more than the rest of a request.

use std::cell::RefCell;
use std::io::Write;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use crate::observe::log::Format;
use crate::observe::sink::sink;

static PRETTY: AtomicBool = AtomicBool::new(true);

/// All that is told of one request, or one tunnel.
#[derive(Debug, Clone)]
pub struct Line<'a> {
    /// `request` or `tunnel`.
    pub message: &'static str,
    /// The client's address, as trusted proxies tell it.
    pub client: IpAddr,
    /// The request's method.
    pub method: &'a str,
    /// Path and query as they came.
    pub path: &'a str,
    /// The Host field.
    pub host: &'a str,
    /// The status sent; 0 if none could be.
    pub status: u16,
    /// The service, version and instance that answered; empty where it came to none.
    pub service: &'a str,
    /// See `service`.
    pub version: &'a str,
    /// See `service`.
    pub instance: &'a str,
    /// `off`, `new`, `kept`, `rehomed` or `rejected`.
    pub affinity: &'static str,
    /// Why, for the last two.
    pub affinity_reason: Option<&'static str>,
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
    /// The codes of the Close frames from client and instance, for tunnels.
    pub close_codes: [Option<u16>; 2],
}

pub(super) fn set_format(format: Format) {
    PRETTY.store(format == Format::Pretty, Ordering::Relaxed);
}

/// Writes the line to the log.
pub fn write(line: &Line<'_>) {
    thread_local! {
        static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    BUFFER.with_borrow_mut(|buffer| {
        buffer.clear();
        let written = if PRETTY.load(Ordering::Relaxed) {
            pretty(buffer, line)
        } else {
            json(buffer, line)
        };
        // Writing to memory fails for nobody.
        if written.is_ok() {
            sink().line(buffer);
        }
    });
}

fn json(out: &mut Vec<u8>, line: &Line<'_>) -> std::io::Result<()> {
    let now = humantime::format_rfc3339_millis(SystemTime::now());
    write!(out, "{{\"timestamp\":\"{now}\",\"level\":\"INFO\",\"target\":\"access\"")?;
    for (key, value) in [
        ("message", line.message),
        ("method", line.method),
        ("path", line.path),
        ("host", line.host),
        ("service", line.service),
        ("version", line.version),
        ("instance", line.instance),
        ("affinity", line.affinity),
        ("request_id", line.request_id),
    ] {
        write!(out, ",\"{key}\":")?;
        serde_json::to_writer(&mut *out, value)?;
    }
    for (key, value) in [("affinity_reason", line.affinity_reason), ("error", line.error)] {
        if let Some(value) = value {
            write!(out, ",\"{key}\":\"{value}\"")?;
        }
    }
    for (key, value) in [
        ("status", u64::from(line.status)),
        ("attempts", u64::from(line.attempts)),
        ("request_bytes", line.request_bytes),
        ("response_bytes", line.response_bytes),
    ] {
        write!(out, ",\"{key}\":{value}")?;
    }
    if let Some(first_byte) = line.first_byte {
        write!(out, ",\"first_byte_ms\":{}", Milliseconds(first_byte))?;
    }
    for (key, code) in ["client_close", "instance_close"].into_iter().zip(line.close_codes) {
        if let Some(code) = code {
            write!(out, ",\"{key}\":{code}")?;
        }
    }
    let (client, duration) = (line.client, Milliseconds(line.duration));
    writeln!(out, ",\"client\":\"{client}\",\"duration_ms\":{duration}}}")
}

fn pretty(out: &mut Vec<u8>, line: &Line<'_>) -> std::io::Result<()> {
    let now = humantime::format_rfc3339_millis(SystemTime::now());
    let Line { client, method, path, host, status, affinity, attempts, .. } = line;
    let instance = if line.instance.is_empty() { "-" } else { line.instance };
    write!(out, "{now} INFO access: {} {client} {method} {host}{path} {status}", line.message)?;
    write!(out, " -> {}/{}/{instance} affinity={affinity}", line.service, line.version)?;
    for (key, value) in [("reason", line.affinity_reason), ("error", line.error)] {
        if let Some(value) = value {
            write!(out, " {key}={value}")?;
        }
    }
    let (received, sent) = (line.request_bytes, line.response_bytes);
    write!(out, " attempts={attempts} in={received} out={sent}")?;
    writeln!(out, " ms={} id={}", Milliseconds(line.duration), line.request_id)
}

/// Three decimals, as fast as integers print.
struct Milliseconds(Duration);

impl std::fmt::Display for Milliseconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let micros = self.0.as_micros();
        write!(f, "{}.{:03}", micros / 1000, micros % 1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> Line<'static> {
        Line {
            message: "request",
            client: IpAddr::from([192, 0, 2, 1]),
            method: "GET",
            path: "/a\"b?c=\u{7f}",
            host: "example.com",
            status: 200,
            service: "chat",
            version: "v1",
            instance: "a",
            affinity: "rehomed",
            affinity_reason: Some("dead"),
            attempts: 2,
            request_bytes: 0,
            response_bytes: 5,
            first_byte: Some(Duration::from_micros(1500)),
            duration: Duration::from_micros(2005),
            request_id: "id",
            error: None,
            close_codes: [None, None],
        }
    }

    #[test]
    fn a_json_line_is_one_object_whatever_the_client_sent() {
        let mut out = Vec::new();
        json(&mut out, &line()).unwrap();
        assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), 1);
        let object: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(object["path"], "/a\"b?c=\u{7f}");
        assert_eq!(object["duration_ms"], 2.005);
        assert_eq!(object["affinity_reason"], "dead");
        assert!(object.get("error").is_none());
    }

    #[test]
    fn a_pretty_line_names_instance_and_reason() {
        let mut out = Vec::new();
        pretty(&mut out, &line()).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("200 -> chat/v1/a affinity=rehomed reason=dead attempts=2"), "{text}");
    }
}
