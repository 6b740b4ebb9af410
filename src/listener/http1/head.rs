//! The head of a request, and where its body ends (RFC 9112 sections 3 and 6.3).

use std::mem::MaybeUninit;

use bytes::{Buf, Bytes};
use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HeaderName, HeaderValue, TE, TRANSFER_ENCODING,
};
use http::{Method, Request, Uri, Version};
use httparse::{Error, Status};

use crate::http1::content::Length;
use crate::http1::fields::{self, Options};
use crate::http1::spare;
use crate::proxy::error::Reason;

/// The most fields that there is room for on the stack.
const ROOM: usize = 100;

/// The most that a head may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Bytes.
    pub(super) bytes: usize,
    /// Fields.
    pub(super) fields: usize,
}

/// The head of a request.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) request: Request<()>,
    pub(super) length: Length,
    /// Whether a 100 is waited for before the body is sent (RFC 9110 section 10.1.1).
    pub(super) expects: bool,
    pub(super) said: Said,
}

/// What of a request its answer depends on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Said {
    pub(super) version: Version,
    /// Whether it asks for a head alone.
    pub(super) is_head: bool,
    /// Whether another request may follow (RFC 9112 section 9.3).
    pub(super) persists: bool,
    /// Whether trailers are welcome (RFC 9110 section 6.5.1).
    pub(super) trailers: bool,
    /// Whether its answer ends with the connection.
    pub(super) ends_by_close: bool,
    /// Whether nothing follows it, not even a body (RFC 9112 section 9.6).
    pub(super) is_last: bool,
}

/// Takes a head off the front of `input`, if all of it is there.
pub(super) fn parse(input: &mut Bytes, limits: Limits) -> Result<Option<Head>, Reason> {
    // RFC 9112 section 2.2: what some clients send behind a body.
    while let [b'\r', b'\n', ..] | [b'\n', ..] = input[..] {
        input.advance(if input[0] == b'\n' { 1 } else { 2 });
    }
    let mut here = [const { MaybeUninit::uninit() }; ROOM];
    let mut elsewhere = Vec::new();
    let room = match here.get_mut(..limits.fields) {
        Some(room) => room,
        None => {
            elsewhere.resize(limits.fields, MaybeUninit::uninit());
            &mut elsewhere[..]
        }
    };
    let mut head = httparse::Request::new(&mut []);
    let size = match head.parse_with_uninit_headers(input, room) {
        Ok(Status::Complete(size)) if size <= limits.bytes => size,
        Ok(Status::Complete(_)) | Err(Error::TooManyHeaders) => return Err(Reason::HeadTooLarge),
        Ok(Status::Partial) => return Ok(None),
        Err(_unclear) => return Err(Reason::BadRequest),
    };
    read(&head, input).map(|head| {
        input.advance(size);
        Some(head)
    })
}

fn read(head: &httparse::Request<'_, '_>, input: &Bytes) -> Result<Head, Reason> {
    let method = head.method.and_then(|method| Method::from_bytes(method.as_bytes()).ok());
    let method = method.ok_or(Reason::BadRequest)?;
    let target = head.path.ok_or(Reason::BadRequest)?;
    // A part of what came, not a copy of it; the same below.
    let target = Uri::from_maybe_shared(input.slice_ref(target.as_bytes()));
    let target = target.map_err(|_unclear| Reason::BadRequest)?;
    let version = match head.version {
        Some(1) => Version::HTTP_11,
        Some(_) | None => Version::HTTP_10,
    };
    let mut headers = spare::take(head.headers.len());
    let (mut options, mut told) = (Options::default(), Told::default());
    let (mut expects, mut trailers) = (false, false);
    for field in head.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Reason::BadRequest)?;
        let value = HeaderValue::from_maybe_shared(input.slice_ref(field.value));
        let value = value.map_err(|_unclear| Reason::BadRequest)?;
        match name {
            CONNECTION => options.note(&value),
            TRANSFER_ENCODING => told.note_coding(&value, version)?,
            // One of several that say the same is enough (RFC 9112 section 6.3).
            CONTENT_LENGTH if told.note_length(&value)? => continue,
            EXPECT => expects |= value.as_bytes().eq_ignore_ascii_case(b"100-continue"),
            TE => trailers |= wants_trailers(&value),
            _ => {}
        }
        headers.append(name, value);
    }
    let length = told.length()?;
    let persists = options.persist(version);
    let is_head = method == Method::HEAD;
    let is_last = !persists && length == Length::Exactly(0);
    let said = Said { version, is_head, persists, trailers, ends_by_close: false, is_last };
    let mut request = Request::new(());
    *request.method_mut() = method;
    *request.uri_mut() = target;
    *request.version_mut() = version;
    *request.headers_mut() = headers;
    Ok(Head { request, length, expects: expects && version == Version::HTTP_11, said })
}

/// RFC 9110 section 10.1.4.
fn wants_trailers(line: &HeaderValue) -> bool {
    let mut members = line.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    members.any(|member| member.eq_ignore_ascii_case(b"trailers"))
}

/// What a head says of where its body ends. What says it in two ways has one here, and is refused by
/// who is asked next ([`crate::proxy::headers::check`]), with all that is known of the request.
#[derive(Debug, Default)]
struct Told {
    /// Whether there is a coding, and whether the last one is that of chunks.
    coded: bool,
    chunked: bool,
    length: Option<u64>,
}

impl Told {
    /// HTTP/1.0 knows no codings (RFC 9112 section 6.1).
    fn note_coding(&mut self, line: &HeaderValue, version: Version) -> Result<(), Reason> {
        let last = line.as_bytes().rsplit(|byte| *byte == b',').next().unwrap_or_default();
        self.coded = true;
        self.chunked = last.trim_ascii().eq_ignore_ascii_case(b"chunked");
        if version == Version::HTTP_11 { Ok(()) } else { Err(Reason::BadRequest) }
    }

    /// Whether it was told before.
    fn note_length(&mut self, line: &HeaderValue) -> Result<bool, Reason> {
        let size = fields::length(line.as_bytes()).map_err(|_malformed| Reason::BadRequest)?;
        match self.length.replace(size) {
            None => Ok(false),
            Some(known) if known == size => Ok(true),
            Some(_) => Err(Reason::BadRequest),
        }
    }

    /// RFC 9112 section 6.3: without a length there is no body, and without an end neither.
    fn length(&self) -> Result<Length, Reason> {
        match (self.coded, self.chunked) {
            (false, _) => Ok(Length::Exactly(self.length.unwrap_or(0))),
            (true, true) => Ok(Length::Chunked),
            (true, false) => Err(Reason::BadRequest),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { bytes: 1000, fields: 20 };

    fn parsed(text: &str) -> Result<Option<Head>, Reason> {
        parse(&mut Bytes::copy_from_slice(text.as_bytes()), LIMITS)
    }

    fn read(lines: &str) -> Result<Head, Reason> {
        parsed(&format!("{lines}\r\n\r\n")).map(|head| head.expect("a whole head"))
    }

    #[test]
    fn a_head_is_taken_when_it_is_whole_and_what_follows_is_left() {
        let text =
            b"\r\n\nPOST /a?b HTTP/1.1\r\nX-A: 1\r\nx-a: \xe9\r\nContent-Length: 3\r\n\r\nabcd";
        let whole = text.len() - 4;
        for size in 0..whole {
            assert!(parse(&mut Bytes::copy_from_slice(&text[..size]), LIMITS).unwrap().is_none());
        }
        let mut input = Bytes::from_static(text);
        let head = parse(&mut input, LIMITS).unwrap().unwrap();
        assert_eq!(input, "abcd");
        assert_eq!((head.length, head.expects), (Length::Exactly(3), false));
        let request = head.request;
        assert_eq!((request.method(), request.uri().to_string()), (&Method::POST, "/a?b".into()));
        let values: Vec<_> = request.headers().get_all("x-a").iter().collect();
        assert_eq!(values, [&b"1"[..], b"\xe9"]);
    }

    #[test]
    fn where_a_request_ends_is_as_the_rules_say() {
        let post = |lines: &str| read(&format!("POST / HTTP/1.1\r\n{lines}")).map(|it| it.length);
        for (lines, expected) in [
            ("A: b", Ok(Length::Exactly(0))),
            ("Content-Length: 7", Ok(Length::Exactly(7))),
            ("Content-Length: 7\r\nContent-Length: 07", Ok(Length::Exactly(7))),
            ("Content-Length: 7\r\nContent-Length: 8", Err(Reason::BadRequest)),
            ("Content-Length: 7, 7", Err(Reason::BadRequest)),
            ("Content-Length: +7", Err(Reason::BadRequest)),
            ("Content-Length: ", Err(Reason::BadRequest)),
            ("Content-Length: 18446744073709551616", Err(Reason::BadRequest)),
            ("Content-Length: 9223372036854775808", Err(Reason::BadRequest)),
            ("Transfer-Encoding: Chunked", Ok(Length::Chunked)),
            ("Transfer-Encoding: gzip, chunked", Ok(Length::Chunked)),
            ("Transfer-Encoding: chunked, gzip", Err(Reason::BadRequest)),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip", Err(Reason::BadRequest)),
            ("Transfer-Encoding: xchunked", Err(Reason::BadRequest)),
            ("Transfer-Encoding: ", Err(Reason::BadRequest)),
            ("Content-Length: 7\r\nTransfer-Encoding: chunked", Ok(Length::Chunked)),
            ("Content-Length: x\r\nTransfer-Encoding: chunked", Err(Reason::BadRequest)),
        ] {
            assert_eq!(post(lines), expected, "{lines}");
        }
        let old = read("POST / HTTP/1.0\r\nTransfer-Encoding: chunked").map(drop);
        assert_eq!(old, Err(Reason::BadRequest));
        let once = read("POST / HTTP/1.1\r\nContent-Length: 7\r\nContent-Length: 7").unwrap();
        assert_eq!(once.request.headers().get_all(CONTENT_LENGTH).iter().count(), 1);
        let twice = read("POST / HTTP/1.1\r\nContent-Length: 7\r\nTransfer-Encoding: chunked");
        assert_eq!(twice.unwrap().request.headers().len(), 2, "both are there to be refused");
    }

    #[test]
    fn what_its_answer_depends_on_is_kept() {
        let said = |head: &str| read(head).unwrap().said;
        for (head, persists) in [
            ("GET / HTTP/1.1", true),
            ("GET / HTTP/1.0", false),
            ("GET / HTTP/1.0\r\nConnection: Keep-Alive", true),
            ("GET / HTTP/1.1\r\nConnection: x, close\r\nConnection: keep-alive", false),
        ] {
            assert_eq!(said(head).persists, persists, "{head}");
        }
        assert!(said("HEAD / HTTP/1.1").is_head);
        assert!(said("GET / HTTP/1.1\r\nTE: gzip;q=1, trailers").trailers);
        assert!(!said("GET / HTTP/1.1\r\nTE: gzip").trailers);
        assert!(read("PUT / HTTP/1.1\r\nExpect: 100-Continue").unwrap().expects);
        assert!(!read("PUT / HTTP/1.0\r\nExpect: 100-continue").unwrap().expects);
    }

    #[test]
    fn a_head_has_bounds() {
        let head = |count: usize| format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(count));
        assert!(parsed(&head(LIMITS.fields)).is_ok());
        assert_eq!(parsed(&head(LIMITS.fields + 1)).map(drop), Err(Reason::HeadTooLarge));
        let many = Limits { bytes: 10_000, fields: 2 * ROOM };
        assert!(parse(&mut Bytes::from(head(2 * ROOM)), many).unwrap().is_some());
        let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(LIMITS.bytes));
        assert_eq!(parsed(&long).map(drop), Err(Reason::HeadTooLarge));
    }

    #[test]
    fn what_makes_no_sense_is_no_request() {
        for head in [
            "GET / HTTP/2.0",
            "GET / HTTP/1.2",
            "GET /",
            "GET  / HTTP/1.1",
            "G(T / HTTP/1.1",
            "GET / HTTP/1.1\r\nA : b",
            "GET / HTTP/1.1\r\n a: b",
            "GET / HTTP/1.1\r\nA: b\r\n c",
            "GET / HTTP/1.1\r\nA: \0",
            "GET / HTTP/1.1\r\nA\r\nB: c",
            "GET ::: HTTP/1.1",
        ] {
            assert_eq!(read(head).map(drop), Err(Reason::BadRequest), "{head}");
        }
    }
}
