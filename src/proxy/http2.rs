//! What HTTP/2 says in another way than HTTP/1.1, whose way is that of the whole path of a request.
//!
//! Fields that mean something to one connection only are refused by the library below (RFC 9113
//! section 8.2.2), and so are malformed pseudo-fields.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{CONNECTION, COOKIE, HeaderMap, HeaderName, HeaderValue, UPGRADE};
use http::{Method, StatusCode, Version, request, response};
use hyper::ext::Protocol;
use hyper::upgrade::OnUpgrade;

use crate::proxy::upgrade::{SEC_WEBSOCKET_KEY, WEBSOCKET};

const SEC_WEBSOCKET_ACCEPT: HeaderName = HeaderName::from_static("sec-websocket-accept");

/// Puts a request of HTTP/2 as HTTP/1.1 does. Gives what becomes of its stream if it asks for a
/// WebSocket.
pub fn translate(head: &mut request::Parts) -> Option<OnUpgrade> {
    if head.version != Version::HTTP_2 {
        return None;
    }
    join_cookies(&mut head.headers);
    open_websocket(head)
}

/// RFC 8441 section 5: an extended CONNECT is a GET that asks for an upgrade, but for the key, whose
/// purpose is fulfilled by the pseudo-field.
fn open_websocket(head: &mut request::Parts) -> Option<OnUpgrade> {
    let protocol = head.extensions.get::<Protocol>()?;
    if head.method != Method::CONNECT || protocol.as_str() != WEBSOCKET {
        return None;
    }
    let upgrade = head.extensions.remove::<OnUpgrade>()?;
    let key = STANDARD.encode(fastrand::u128(..).to_be_bytes());
    head.method = Method::GET;
    head.headers.insert(UPGRADE, HeaderValue::from_static(WEBSOCKET));
    head.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    head.headers.insert(SEC_WEBSOCKET_KEY, HeaderValue::from_str(&key).ok()?);
    Some(upgrade)
}

/// RFC 9113 section 8.2.3: a client may send each cookie on a line of its own; HTTP/1.1 knows one.
fn join_cookies(headers: &mut HeaderMap) {
    let mut lines = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes);
    let (Some(first), Some(second)) = (lines.next(), lines.next()) else { return };
    let all: Vec<&[u8]> = [first, second].into_iter().chain(lines).collect();
    if let Ok(joined) = HeaderValue::from_bytes(&all.join(&b"; "[..])) {
        headers.insert(COOKIE, joined);
    }
}

/// Puts an instance's 101 as HTTP/2 does; `Upgrade` and `Connection` are gone from every answer.
pub fn granted(head: &mut response::Parts) {
    head.status = StatusCode::OK;
    head.headers.remove(SEC_WEBSOCKET_ACCEPT);
}

/// Whether an instance has answered the key that Burdock made.
pub fn answers_key(key: &HeaderValue, answer: &HeaderMap) -> bool {
    let expected = tokio_tungstenite::tungstenite::handshake::derive_accept_key(key.as_bytes());
    answer.get(SEC_WEBSOCKET_ACCEPT).is_some_and(|accept| accept.as_bytes() == expected.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    #[test]
    fn cookies_on_several_lines_become_one() {
        let request = |lines: &[&str]| {
            let mut request = Request::builder().version(Version::HTTP_2);
            for line in lines {
                request = request.header(COOKIE, *line);
            }
            request.body(()).unwrap().into_parts().0
        };
        for (lines, joined) in [
            (&["a=1"][..], Some("a=1")),
            (&["a=1", "b=2", "c=3; d=4"][..], Some("a=1; b=2; c=3; d=4")),
            (&[][..], None),
        ] {
            let mut head = request(lines);
            assert!(translate(&mut head).is_none());
            let found: Vec<_> = head.headers.get_all(COOKIE).iter().collect();
            assert_eq!(found, joined.iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_key_of_rfc_6455_is_answered_as_it_says() {
        let key = HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ==");
        let mut answer = HeaderMap::new();
        assert!(!answers_key(&key, &answer));
        let accept = HeaderValue::from_static("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        answer.insert(SEC_WEBSOCKET_ACCEPT, accept);
        assert!(answers_key(&key, &answer));
    }
}
