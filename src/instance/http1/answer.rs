//! The head of an answer, and where its body ends (RFC 9112 sections 4 and 6.3).

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING,
};
use http::{Method, Response, StatusCode, Version};
use httparse::{ParserConfig, Status};
use hyper::ext::ReasonPhrase;

use crate::http1::content::Length;
use crate::http1::fields::{self, FIELDS, Options};
use crate::http1::{Malformed, spare};

/// The longest head of an answer, in bytes.
pub(in crate::instance) const LONGEST: usize = 64 * 1024;

/// The status and the fields of an interim answer (RFC 9110 section 15.2).
pub type Interim = (StatusCode, HeaderMap);

/// What bytes begin with.
#[derive(Debug)]
pub(in crate::instance) enum Parsed {
    /// One that another follows.
    Interim(Interim),
    /// The answer.
    Final(Head),
}

/// The head of an answer.
#[derive(Debug)]
pub(in crate::instance) struct Head {
    pub(in crate::instance) response: Response<()>,
    pub(in crate::instance) length: Length,
    /// Whether another request may follow on its connection (RFC 9112 section 9.3).
    pub(in crate::instance) persists: bool,
}

/// Takes a head off the front of `input`, if all of it is there. `method` is that of its request.
pub(in crate::instance) fn parse(
    input: &mut Bytes,
    method: &Method,
) -> Result<Option<Parsed>, Malformed> {
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS];
    let mut head = httparse::Response::new(&mut []);
    let config = ParserConfig::default();
    let parsed = config.parse_response_with_uninit_headers(&mut head, input, &mut fields);
    let size = match parsed.map_err(|_| Malformed)? {
        Status::Complete(size) => size,
        Status::Partial => return Ok(None),
    };
    let status = StatusCode::from_u16(head.code.ok_or(Malformed)?).map_err(|_| Malformed)?;
    // RFC 9110 section 15: there is no such class.
    if status.as_u16() >= 600 {
        return Err(Malformed);
    }
    let version = match head.version {
        Some(1) => Version::HTTP_11,
        Some(_) | None => Version::HTTP_10,
    };
    let mut headers = spare::take(head.headers.len());
    let (mut options, mut told) = (Options::default(), Told::default());
    for field in head.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Malformed)?;
        // A part of what came, not a copy of it.
        let value = HeaderValue::from_maybe_shared(input.slice_ref(field.value));
        let value = value.map_err(|_| Malformed)?;
        match name {
            CONNECTION => options.note(&value),
            TRANSFER_ENCODING => told.note_coding(&value, version)?,
            CONTENT_LENGTH => told.note_length(&value)?,
            _ => {}
        }
        headers.append(name, value);
    }
    let reason = head.reason.filter(|reason| Some(*reason) != status.canonical_reason());
    let reason = reason.map(|reason| ReasonPhrase::try_from(reason.as_bytes()));
    let reason = reason.transpose().map_err(|_| Malformed)?;
    if size > LONGEST {
        return Err(Malformed);
    }
    let _head = input.split_to(size);
    if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(Some(Parsed::Interim((status, headers))));
    }
    let length = told.length(method, status);
    if let Some(length) = told.length.filter(|_| told.is_repeated) {
        // Once is enough (RFC 9112 section 6.3).
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    let switches = status == StatusCode::SWITCHING_PROTOCOLS || method == Method::CONNECT;
    let persists = options.persist(version) && length != Length::UntilClose && !switches;
    // What is framed twice may have been meant to end elsewhere (RFC 9112 section 6.3).
    let persists = persists && !(told.chunked && told.length.is_some());
    let mut response = Response::new(());
    *response.status_mut() = status;
    *response.version_mut() = version;
    *response.headers_mut() = headers;
    if let Some(reason) = reason {
        response.extensions_mut().insert(reason);
    }
    Ok(Some(Parsed::Final(Head { response, length, persists })))
}

/// What a head says of where its body ends.
#[derive(Debug, Default)]
struct Told {
    chunked: bool,
    length: Option<u64>,
    /// Whether the length is there more than once.
    is_repeated: bool,
}

impl Told {
    /// Nobody asked for any coding but one, and HTTP/1.0 knows none (RFC 9112 section 6.1). Whatever is
    /// said beside it, the client could not undo.
    fn note_coding(&mut self, line: &HeaderValue, version: Version) -> Result<(), Malformed> {
        let is_clear = version == Version::HTTP_11
            && !self.chunked
            && line.as_bytes().eq_ignore_ascii_case(b"chunked");
        self.chunked = true;
        is_clear.then_some(()).ok_or(Malformed)
    }

    /// Equal lengths are one (RFC 9112 section 6.3).
    fn note_length(&mut self, line: &HeaderValue) -> Result<(), Malformed> {
        for member in line.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            let size = fields::length(member)?;
            match self.length {
                None => self.length = Some(size),
                Some(known) if known == size => self.is_repeated = true,
                Some(_) => return Err(Malformed),
            }
        }
        Ok(())
    }

    /// RFC 9112 section 6.3, in its order.
    fn length(&self, method: &Method, status: StatusCode) -> Length {
        let is_bare = method == Method::HEAD
            || (method == Method::CONNECT && status.is_success())
            || matches!(
                status,
                StatusCode::SWITCHING_PROTOCOLS | StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
            );
        match self.length {
            _ if is_bare => Length::Exactly(0),
            _ if self.chunked => Length::Chunked,
            Some(length) => Length::Exactly(length),
            None => Length::UntilClose,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::LINK;

    fn parsed(text: &str, method: &Method) -> Result<Option<Parsed>, Malformed> {
        parse(&mut Bytes::copy_from_slice(text.as_bytes()), method)
    }

    fn answered(head: &str, method: &Method) -> Option<(Length, bool)> {
        match parsed(&format!("{head}\r\n\r\n"), method) {
            Ok(Some(Parsed::Final(head))) => Some((head.length, head.persists)),
            Ok(other) => panic!("{other:?}"),
            Err(Malformed) => None,
        }
    }

    #[test]
    fn a_head_is_taken_when_it_is_whole_and_what_follows_is_left() {
        let text =
            b"HTTP/1.1 299 Very Well\r\nX-A: 1\r\nx-a: \xe9\r\nContent-Length: 3\r\n\r\nabcd";
        let whole = text.len() - 4;
        for size in 0..whole {
            let mut input = Bytes::copy_from_slice(&text[..size]);
            assert!(matches!(parse(&mut input, &Method::GET), Ok(None)), "{size}");
            assert_eq!(input.len(), size);
        }
        let mut input = Bytes::from_static(text);
        let Ok(Some(Parsed::Final(head))) = parse(&mut input, &Method::GET) else { panic!() };
        assert_eq!(input, "abcd");
        assert_eq!((head.length, head.persists), (Length::Exactly(3), true));
        let values: Vec<_> = head.response.headers().get_all("x-a").iter().collect();
        assert_eq!(values, [&b"1"[..], b"\xe9"]);
        assert_eq!(head.response.status().as_u16(), 299);
        let reason = head.response.extensions().get::<ReasonPhrase>().unwrap();
        assert_eq!(reason.as_bytes(), b"Very Well");
    }

    #[test]
    fn where_an_answer_ends_is_as_the_rules_say() {
        use Length::{Chunked, Exactly, UntilClose};
        let table = [
            ("HTTP/1.1 200 OK\r\nContent-Length: 7", Some((Exactly(7), true))),
            ("HTTP/1.0 200 OK\r\nContent-Length: 7", Some((Exactly(7), false))),
            (
                "HTTP/1.0 200 OK\r\nContent-Length: 7\r\nConnection: Keep-Alive",
                Some((Exactly(7), true)),
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 7, 7\r\nContent-Length: 7",
                Some((Exactly(7), true)),
            ),
            ("HTTP/1.1 200 OK\r\nContent-Length: 7\r\nContent-Length: 8", None),
            ("HTTP/1.1 200 OK\r\nContent-Length: +7", None),
            ("HTTP/1.1 200 OK\r\nContent-Length: ", None),
            ("HTTP/1.1 200 OK\r\nContent-Length: 7,", None),
            ("HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999", None),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked", Some((Chunked, true))),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 7",
                Some((Chunked, false)),
            ),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked", None),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: identity", None),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked", None),
            ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked", None),
            ("HTTP/1.1 200 OK", Some((UntilClose, false))),
            ("HTTP/1.1 600 Odd\r\nContent-Length: 0", None),
            ("HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: gzip", None),
            ("HTTP/1.1 204 No Content\r\nContent-Length: 7, 8", None),
            ("HTTP/1.1 204 No Content\r\nContent-Length: 7", Some((Exactly(0), true))),
            ("HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked", Some((Exactly(0), true))),
            ("HTTP/1.1 101 Switching Protocols", Some((Exactly(0), false))),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: x, close\r\nConnection: keep-alive",
                Some((Exactly(0), false)),
            ),
            ("HTTP/2.0 200 OK\r\nContent-Length: 0", None),
            ("HTTP/1.1 2000 OK\r\nContent-Length: 0", None),
            ("HTTP/1.1 200 OK\r\nA : b", None),
            ("HTTP/1.1 200 OK\r\nA: b\r\n c", None),
        ];
        for (head, expected) in table {
            assert_eq!(answered(head, &Method::GET), expected, "{head}");
        }
        let told = "HTTP/1.1 200 OK\r\nContent-Length: 7";
        assert_eq!(answered(told, &Method::HEAD), Some((Exactly(0), true)));
        assert_eq!(answered(told, &Method::CONNECT), Some((Exactly(0), false)));
    }

    #[test]
    fn a_length_is_told_once() {
        let text = "HTTP/1.1 200 OK\r\nContent-Length: 07,7\r\nContent-Length: 7\r\n\r\n";
        let Ok(Some(Parsed::Final(head))) = parsed(text, &Method::GET) else { panic!() };
        let lengths: Vec<_> = head.response.headers().get_all(CONTENT_LENGTH).iter().collect();
        assert_eq!(lengths, ["7"]);
    }

    #[test]
    fn interim_answers_come_one_by_one() {
        let text =
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 2";
        let mut input = Bytes::copy_from_slice(text.as_bytes());
        let mut seen = Vec::new();
        while let Some(Parsed::Interim((status, fields))) = parse(&mut input, &Method::GET).unwrap()
        {
            seen.push((status.as_u16(), fields.get(LINK).cloned()));
        }
        assert_eq!(seen, [(100, None), (103, Some(HeaderValue::from_static("</a>")))]);
        assert_eq!(input, "HTTP/1.1 2");
    }

    #[test]
    fn too_many_fields_are_refused() {
        let fields = |count: usize| "A: b\r\n".repeat(count);
        let head = |count| format!("HTTP/1.1 204 No Content\r\n{}\r\n", fields(count));
        assert!(parsed(&head(FIELDS), &Method::GET).is_ok());
        assert!(parsed(&head(FIELDS + 1), &Method::GET).is_err());
    }
}
