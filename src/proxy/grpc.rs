//! What Burdock answers a gRPC client by itself: a gRPC client looks for its status in fields of its
//! own, not in that of HTTP. Pure.

use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};

use crate::proxy::error::Reason;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const TYPE: &str = "application/grpc";

/// Whether a request is a call of gRPC. gRPC-Web, for pages, is none: it has its status in the body.
pub fn asks(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let rest = kind.and_then(|kind| kind.strip_prefix(TYPE.as_bytes()));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"+") || rest.starts_with(b";"))
}

/// The fields of an answer that is nothing but its trailers.
pub fn refuse(headers: &mut HeaderMap, reason: Reason) {
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(TYPE));
    headers.insert(GRPC_STATUS, HeaderValue::from_static(code(reason)));
    headers.insert(GRPC_MESSAGE, HeaderValue::from_static(reason.label()));
}

/// As gRPC itself reads a status of HTTP: INTERNAL, PERMISSION_DENIED, UNIMPLEMENTED, UNAVAILABLE; and
/// for a client that was too slow DEADLINE_EXCEEDED.
fn code(reason: Reason) -> &'static str {
    let status = reason.outward().1.unwrap_or(StatusCode::BAD_GATEWAY);
    match status {
        StatusCode::BAD_REQUEST | StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => "13",
        StatusCode::FORBIDDEN => "7",
        StatusCode::NOT_FOUND | StatusCode::NOT_IMPLEMENTED => "12",
        StatusCode::REQUEST_TIMEOUT => "4",
        _ => "14",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_told_from_other_requests_and_every_reason_has_a_code() {
        for (kind, expected) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc; a=b", true),
            ("application/grpc-web", false),
            ("application/grpc-web+proto", false),
            ("text/plain", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
            assert_eq!(asks(&headers), expected, "{kind}");
        }
        assert!(!asks(&HeaderMap::new()));
        assert_eq!(code(Reason::NoInstance), "14");
        assert_eq!(code(Reason::FirstByteTimeout), "14");
        assert_eq!(code(Reason::NoService), "12");
        assert_eq!(code(Reason::BadHost), "13");
        assert_eq!(code(Reason::RequestIdleTimeout), "4");
    }
}
