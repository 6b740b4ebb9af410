//! An answer of the admin listener: JSON, a problem, text or a stream, each with the fields that
//! keep a browser from making more of it.

use std::convert::Infallible;

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue,
    REFERRER_POLICY, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use http::{Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use serde::Serialize;

use crate::admin::problem::Problem;
use crate::admin::stream::StreamBody;

/// Whole or a stream without an end.
pub type Body = UnsyncBoxBody<Bytes, Infallible>;
/// What is answered.
pub type Reply = Response<Body>;

/// For everything that is read by people and scripts.
pub(super) const PLAIN: &str = "text/plain; charset=utf-8";

/// Has something made where it holds up nobody: of ten thousand instances it takes long enough for a
/// probe to be late by it.
pub(super) async fn aside<T: Send + 'static>(
    doing: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Problem> {
    let failed = |error| {
        let detail = format!("{doing}: {error}");
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, detail)
    };
    tokio::task::spawn_blocking(work).await.map_err(failed)
}

const STREAM: &str = "text/event-stream";

/// On every answer, unless it has the field already.
const SECURITY: [(HeaderName, &str); 4] = [
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (
        CONTENT_SECURITY_POLICY,
        "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
         object-src 'none'",
    ),
    (REFERRER_POLICY, "no-referrer"),
    (CACHE_CONTROL, "no-store"),
];

/// A body that is there already.
pub fn whole(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).boxed_unsync()
}

/// Some bytes of this type.
pub(super) fn bytes(status: StatusCode, kind: &'static str, bytes: impl Into<Bytes>) -> Reply {
    let mut response = Response::new(whole(bytes));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// A value as JSON.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Reply {
    match serde_json::to_vec(value) {
        Ok(text) => bytes(status, "application/json", text),
        Err(error) => {
            let detail = format!("writing the answer: {error}");
            problem(&Problem::new(StatusCode::INTERNAL_SERVER_ERROR, detail))
        }
    }
}

/// A stream of server-sent events, unless there are too many.
pub(super) fn stream(body: Option<StreamBody>) -> Result<Reply, Problem> {
    let too_many = || Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too many streams are open");
    let mut reply = Response::new(body.ok_or_else(too_many)?.boxed_unsync());
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(STREAM));
    Ok(reply)
}

/// Whether it has no end of its own.
pub(super) fn is_stream(reply: &Reply) -> bool {
    reply.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == STREAM)
}

/// A problem, as RFC 9457 writes it.
pub(super) fn problem(problem: &Problem) -> Reply {
    let mut reply = bytes(problem.status, "application/problem+json", problem.to_json());
    if problem.status == StatusCode::UNAUTHORIZED {
        // RFC 9110 section 11.6.1
        reply.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    reply
}

/// The resource is there, and this is not how it is used.
pub(super) fn not_allowed(allowed: &'static str) -> Reply {
    let detail = format!("allowed here: {allowed}");
    let mut reply = problem(&Problem::new(StatusCode::METHOD_NOT_ALLOWED, detail));
    // RFC 9110 section 15.5.6
    reply.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    reply
}

/// With the fields that every answer has.
pub(super) fn secured(mut reply: Reply) -> Reply {
    for (name, value) in SECURITY {
        reply.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    reply
}
