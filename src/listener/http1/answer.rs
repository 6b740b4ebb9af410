//! The head of an answer as a client gets it, and how its body is framed (RFC 9112 sections 4 and 6).

use http::header::{CONNECTION, CONTENT_LENGTH, DATE, TRANSFER_ENCODING};
use http::{StatusCode, Version, response};
use http_body::Body;
use hyper::ext::ReasonPhrase;

use super::date;
use super::head::Said;
use crate::http1::fields::{self, line};
use crate::http1::sending::{Framing, Unsent};
use crate::proxy::answer::{AnswerBody, Broken};
use crate::proxy::headers;

impl From<Broken> for Unsent {
    /// The client's connection is cut, so that it can tell.
    fn from(_: Broken) -> Self {
        Self::Broken
    }
}

/// Writes it, and notes whether another request may follow.
pub(super) fn write(
    head: &response::Parts,
    body: &AnswerBody,
    said: &mut Said,
    text: &mut Vec<u8>,
) -> Framing {
    let framing = framing(head, body, said);
    let closes = headers::has_token(&head.headers, &CONNECTION, "close");
    said.ends_by_close = framing == Framing::UntilClose;
    let switches = head.status == StatusCode::SWITCHING_PROTOCOLS;
    said.persists &= !closes && !said.ends_by_close && !switches;
    write_status(head, said.version, text);
    let mut is_dated = false;
    for (name, value) in &head.headers {
        let is_left_out = match *name {
            TRANSFER_ENCODING => true,
            // What is framed is told of below.
            CONTENT_LENGTH => framing != Framing::Nothing || has_no_length(head.status),
            _ => false,
        };
        is_dated |= *name == DATE;
        if !is_left_out {
            line(text, name, value.as_bytes());
        }
    }
    match framing {
        Framing::Nothing => write_length_of_nothing(head, body, said, text),
        Framing::UntilClose => {}
        Framing::Length(size) => write_length(size, text),
        Framing::Chunks | Framing::BareChunks => line(text, &TRANSFER_ENCODING, b"chunked"),
    }
    // RFC 9112 section 9.6: and HTTP/1.0 must be told of the contrary.
    if !switches && !closes {
        match (said.persists, said.version) {
            (false, _) => line(text, &CONNECTION, b"close"),
            (true, Version::HTTP_10) => line(text, &CONNECTION, b"keep-alive"),
            (true, _) => {}
        }
    }
    if !is_dated {
        text.extend_from_slice(b"date: ");
        date::now(text);
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(b"\r\n");
    framing
}

/// RFC 9112 section 6.3, and section 6.1 for clients that know no codings.
fn framing(head: &response::Parts, body: &AnswerBody, said: &Said) -> Framing {
    if said.is_head || has_no_length(head.status) || head.status == StatusCode::NOT_MODIFIED {
        return Framing::Nothing;
    }
    let told = || fields::length(head.headers.get(CONTENT_LENGTH)?.as_bytes()).ok();
    match body.size_hint().exact().or_else(told) {
        Some(size) => Framing::Length(size),
        None if said.version == Version::HTTP_10 => Framing::UntilClose,
        None if said.trailers => Framing::Chunks,
        None => Framing::BareChunks,
    }
}

/// RFC 9110 section 8.6.
fn has_no_length(status: StatusCode) -> bool {
    status.is_informational() || status == StatusCode::NO_CONTENT
}

/// A head alone tells the length that its body would have, if that is known.
fn write_length_of_nothing(
    head: &response::Parts,
    body: &AnswerBody,
    said: &Said,
    text: &mut Vec<u8>,
) {
    let is_told = head.headers.contains_key(CONTENT_LENGTH) || has_no_length(head.status);
    let size = body.size_hint().exact().filter(|size| *size > 0 && said.is_head && !is_told);
    if let Some(size) = size {
        write_length(size, text);
    }
}

fn write_length(size: u64, text: &mut Vec<u8>) {
    line(text, &CONTENT_LENGTH, itoa::Buffer::new().format(size).as_bytes());
}

fn write_status(head: &response::Parts, version: Version, text: &mut Vec<u8>) {
    // What a client of HTTP/1.0 makes of another number is not known (RFC 9110 section 2.5).
    text.extend_from_slice(match version {
        Version::HTTP_10 => b"HTTP/1.0 ",
        _ => b"HTTP/1.1 ",
    });
    text.extend_from_slice(head.status.as_str().as_bytes());
    text.push(b' ');
    let own = head.extensions.get::<ReasonPhrase>().map(ReasonPhrase::as_bytes);
    let known = || head.status.canonical_reason().unwrap_or_default().as_bytes();
    text.extend_from_slice(own.unwrap_or_else(known));
    text.extend_from_slice(b"\r\n");
}
