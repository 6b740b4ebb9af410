//! The head of a request (RFC 9112 section 3), as an instance gets it.

use http::header::{CONTENT_LENGTH, HOST, HeaderMap, HeaderValue, TRANSFER_ENCODING};
use http::{Method, Uri};
use http_body::{Body, SizeHint};

use crate::http1::fields::line;
use crate::http1::sending::Framing;
use crate::instance::body::RequestBody;
use crate::trace::context::TRACEPARENT;

/// A request but for its body. The fields are the client's own, since copying them for each attempt
/// would cost more than all that is written here.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    /// Its method.
    pub method: &'a Method,
    /// Its target, as it is written: a path with a query, or `*`.
    pub target: &'a Uri,
    /// Its fields.
    pub fields: &'a HeaderMap,
    /// What `Host` says, if that is not in the fields.
    pub host: Option<&'a str>,
    /// What `traceparent` says in the place of what the fields say.
    pub traceparent: Option<&'a HeaderValue>,
}

impl Outgoing<'_> {
    /// Writes it, and gives how its body is to be framed, if it has one.
    pub(super) fn write(&self, body: &RequestBody, text: &mut Vec<u8>) -> Framing {
        self.head((!body.is_end_stream()).then(|| body.size_hint()), text)
    }

    fn head(&self, size: Option<SizeHint>, text: &mut Vec<u8>) -> Framing {
        text.extend_from_slice(self.method.as_str().as_bytes());
        text.push(b' ');
        self.write_target(text);
        text.extend_from_slice(b" HTTP/1.1\r\n");
        let framing = self.framing(size);
        let is_chunked = framing == Framing::Chunks;
        for (name, value) in self.fields {
            let is_left_out = match *name {
                TRANSFER_ENCODING => true,
                CONTENT_LENGTH => is_chunked,
                HOST => self.host.is_some(),
                _ => *name == TRACEPARENT && self.traceparent.is_some(),
            };
            if !is_left_out {
                line(text, name, value.as_bytes());
            }
        }
        // HTTP/1.1 has none without (RFC 9112 section 3.2).
        if let Some(host) = self.host {
            line(text, &HOST, host.as_bytes());
        }
        if let Some(value) = self.traceparent {
            line(text, &TRACEPARENT, value.as_bytes());
        }
        if is_chunked {
            line(text, &TRANSFER_ENCODING, b"chunked");
        }
        text.extend_from_slice(b"\r\n");
        framing
    }

    /// As the client framed it, whatever it is (RFC 9112 section 6.3).
    fn framing(&self, size: Option<SizeHint>) -> Framing {
        let Some(size) = size else { return Framing::Nothing };
        let is_chunked = self.fields.contains_key(TRANSFER_ENCODING);
        match size.exact() {
            Some(size) if !is_chunked && self.fields.contains_key(CONTENT_LENGTH) => {
                Framing::Length(size)
            }
            Some(_) | None => Framing::Chunks,
        }
    }

    fn write_target(&self, text: &mut Vec<u8>) {
        let plain = self.target.path_and_query().map(|target| target.as_str());
        let plain = plain.filter(|plain| plain.starts_with(['/', '*']));
        match plain.filter(|_| self.target.authority().is_none()) {
            Some(plain) => text.extend_from_slice(plain.as_bytes()),
            None => text.extend_from_slice(self.target.to_string().as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::HeaderName;

    fn written(target: &str, fields: &[(&'static str, &'static str)], size: Option<u64>) -> String {
        let map = fields
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        let fields: HeaderMap = map.collect();
        let traceparent = HeaderValue::from_static("00-b");
        let outgoing = Outgoing {
            method: &Method::POST,
            target: &target.parse().unwrap(),
            fields: &fields,
            host: (!fields.contains_key(HOST)).then_some("10.0.0.1:80"),
            traceparent: fields.contains_key(TRACEPARENT).then_some(&traceparent),
        };
        let mut text = Vec::new();
        let framing = outgoing.head(size.map(SizeHint::with_exact), &mut text);
        format!("{}{framing:?}", String::from_utf8(text).unwrap())
    }

    #[test]
    fn a_head_says_once_what_it_must() {
        assert_eq!(
            written("/a?b=c", &[("host", "a"), ("content-length", "0")], None),
            "POST /a?b=c HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\nNothing"
        );
        assert_eq!(
            written("*", &[("traceparent", "00-a"), ("transfer-encoding", "chunked")], None),
            "POST * HTTP/1.1\r\nhost: 10.0.0.1:80\r\ntraceparent: 00-b\r\n\r\nNothing"
        );
        assert_eq!(
            written("/", &[("host", "a"), ("content-length", "3")], Some(3)),
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nLength(3)"
        );
        let chunked = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nChunks";
        let both = [("host", "a"), ("content-length", "3"), ("transfer-encoding", "chunked")];
        assert_eq!(written("/", &both, Some(3)), chunked);
        assert_eq!(written("/", &[("host", "a")], Some(3)), chunked);
    }
}
