//! The routes of a demo instance: the page, `/whoami`, the checks, and the chat by long polling in
//! the manner of engine.io. It must not know sessions' contents, nor how a tunnel is served.
//!
//! Start at [`answer`].

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use serde_json::json;
use tokio::time::{Instant, timeout, timeout_at};

use super::chat::{Chat, MAX_MESSAGE, OpenError, PostError, too_long};
use super::store::{Sid, StoreError};
use super::ws;

/// How long a poll is held. The tick usually answers it within a second.
const POLL_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a client may take to send a body of at most [`MAX_MESSAGE`] bytes.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Nothing inline, nothing from elsewhere: what a chat shows was typed by strangers.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

type Reply = Response<Full<Bytes>>;

/// Answers one request; every outcome is a response.
pub(super) async fn answer(chat: &Chat, tunnel: &ws::Slot, request: Request<Incoming>) -> Reply {
    let path = request.uri().path().to_owned();
    let mut reply = match (path.as_str(), path.strip_prefix("/poll/")) {
        ("/ws", _) => {
            only(&[Method::GET], &request).unwrap_or_else(|| ws::accept(chat, tunnel, request))
        }
        (_, Some("open")) => only(&[Method::POST], &request).unwrap_or_else(|| open(chat)),
        (_, Some(sid)) => poll(chat, sid, request).await,
        (path, None) => {
            only(&[Method::GET, Method::HEAD], &request).unwrap_or_else(|| fixed(chat, path))
        }
    };
    let headers = reply.headers_mut();
    // Names are checked at the start of the instance, so this always holds.
    if let Ok(name) = HeaderValue::from_str(chat.name()) {
        headers.insert("x-instance", name);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    reply
}

fn fixed(chat: &Chat, path: &str) -> Reply {
    match path {
        "/" => {
            let mut page =
                reply(StatusCode::OK, "text/html; charset=utf-8", include_str!("page/index.html"));
            let headers = page.headers_mut();
            let policy = HeaderValue::from_static(CONTENT_SECURITY_POLICY);
            headers.insert(header::CONTENT_SECURITY_POLICY, policy);
            headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
            page
        }
        "/app.js" => {
            reply(StatusCode::OK, "text/javascript; charset=utf-8", include_str!("page/app.js"))
        }
        "/style.css" => {
            reply(StatusCode::OK, "text/css; charset=utf-8", include_str!("page/style.css"))
        }
        "/burr.svg" => reply(StatusCode::OK, "image/svg+xml", include_str!("page/burr.svg")),
        "/whoami" => {
            let number = chat.count_answer();
            let line = format!("{} (request number {number} here)\n", chat.name());
            reply(StatusCode::OK, TEXT, line)
        }
        "/readyz" | "/healthz" => reply(StatusCode::OK, TEXT, "ok\n"),
        _ => refuse(StatusCode::NOT_FOUND, 0, "nothing here"),
    }
}

fn open(chat: &Chat) -> Reply {
    match chat.open() {
        Ok((_, greeting)) => reply(StatusCode::OK, JSON, greeting),
        Err(error) => refuse_open(&error),
    }
}

/// One request of a polling session: GET reads, POST sends, DELETE leaves.
async fn poll(chat: &Chat, sid: &str, request: Request<Incoming>) -> Reply {
    let methods = [Method::GET, Method::POST, Method::DELETE];
    if let Some(refusal) = only(&methods, &request) {
        return refusal;
    }
    let Some(sid) = Sid::parse(sid) else { return refuse_store(&StoreError::UnknownSid) };
    let outcome = match *request.method() {
        Method::POST => return send(chat, sid, request.into_body()).await,
        Method::DELETE => chat.close(sid).map(|()| reply(StatusCode::NO_CONTENT, JSON, "")),
        _ => hold(chat, sid).await.map(|events| reply(StatusCode::OK, JSON, events)),
    };
    outcome.unwrap_or_else(|error| refuse_store(&error))
}

/// Waits for something to read and returns it as a JSON array, empty when the wait was in vain.
async fn hold(chat: &Chat, sid: Sid) -> Result<String, StoreError> {
    let deadline = Instant::now() + POLL_TIMEOUT;
    // Listen first, read second: what is posted in between still rings.
    let mut news = chat.listen();
    chat.touch(sid)?;
    loop {
        let events = chat.read(sid)?;
        if !events.is_empty() {
            return Ok(format!("[{}]", events.join(",")));
        }
        if !matches!(timeout_at(deadline, news.changed()).await, Ok(Ok(()))) {
            chat.touch(sid)?;
            return Ok("[]".to_owned());
        }
    }
}

async fn send(chat: &Chat, sid: Sid, body: Incoming) -> Reply {
    let body = match timeout(BODY_TIMEOUT, Limited::new(body, MAX_MESSAGE).collect()).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            return refuse(StatusCode::PAYLOAD_TOO_LARGE, 3, &too_long());
        }
        Ok(Err(_)) => return refuse(StatusCode::BAD_REQUEST, 3, "the body broke off"),
        Err(_) => return refuse(StatusCode::REQUEST_TIMEOUT, 3, "the body came too slowly"),
    };
    match chat.post(sid, &body) {
        Ok(()) => reply(StatusCode::NO_CONTENT, JSON, ""),
        Err(PostError::Store(error)) => refuse_store(&error),
        Err(error @ PostError::Malformed) => refuse(StatusCode::BAD_REQUEST, 3, &error.to_string()),
    }
}

/// The refusal, if the method is none of these.
fn only(methods: &[Method], request: &Request<Incoming>) -> Option<Reply> {
    if methods.contains(request.method()) {
        return None;
    }
    let mut refusal = refuse(StatusCode::METHOD_NOT_ALLOWED, 2, "method not allowed here");
    let allowed = methods.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
    // RFC 9110 15.5.6: a 405 says which methods would do.
    if let Ok(allowed) = HeaderValue::from_str(&allowed) {
        refusal.headers_mut().insert(header::ALLOW, allowed);
    }
    Some(refusal)
}

pub(super) fn refuse_open(error: &OpenError) -> Reply {
    refuse(StatusCode::SERVICE_UNAVAILABLE, 0, &error.to_string())
}

fn refuse_store(error: &StoreError) -> Reply {
    let (status, code) = match error {
        // What engine.io answers, to the byte: clients take it as "open a new session".
        StoreError::UnknownSid => (StatusCode::BAD_REQUEST, 1),
        StoreError::Full => (StatusCode::SERVICE_UNAVAILABLE, 0),
    };
    refuse(status, code, &error.to_string())
}

/// An error in engine.io's shape.
pub(super) fn refuse(status: StatusCode, code: u8, message: &str) -> Reply {
    reply(status, JSON, json!({ "code": code, "message": message }).to_string())
}

pub(super) fn reply(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Reply {
    let body = body.into();
    let mut reply = Response::new(Full::new(body));
    *reply.status_mut() = status;
    if status != StatusCode::NO_CONTENT {
        let kind = HeaderValue::from_static(kind);
        reply.headers_mut().insert(header::CONTENT_TYPE, kind);
    }
    reply
}

/// Whether a comma-separated header names this token. RFC 9110 5.6.1; several lines count as one.
pub(super) fn names_token(headers: &HeaderMap, name: header::HeaderName, token: &str) -> bool {
    let lines = headers.get_all(name);
    lines
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .any(|member| member.trim().eq_ignore_ascii_case(token))
}

/// The service function's shape; nothing here fails.
pub(super) type Answered = Result<Reply, Infallible>;
