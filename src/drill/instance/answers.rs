//! What an embedded instance answers to which path, and what its faults make of that.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;

use super::{Faults, State, polling, websocket};
use crate::drill::wire;

/// An answer that breaks off on purpose.
#[derive(Debug, thiserror::Error)]
#[error("the answer breaks off")]
pub(super) struct Broken;

type Reply = Response<UnsyncBoxBody<Bytes, Broken>>;

/// What an answer that breaks off promises beyond what it gives.
const PROMISED: usize = 4096;
/// Between the part that it gives and its end.
const BREATH: Duration = Duration::from_millis(20);

/// One request.
pub(super) async fn answer(
    state: &State,
    tunnel: &websocket::Slot,
    request: Request<Incoming>,
) -> Result<Reply, Infallible> {
    let faults = state.faults.borrow().clone();
    let path = request.uri().path().to_owned();
    if let Some(status) = checked(&path, &faults) {
        return Ok(named(state, text(status, "")));
    }
    if let Some((from, to, share)) = faults.slow
        && state.draws(share)
    {
        let time = state.rng().u64(millis(from)..=millis(to));
        tokio::time::sleep(Duration::from_millis(time)).await;
    }
    if let Some((share, status)) = faults.fail
        && state.draws(share)
    {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
        return Ok(named(state, text(status, "told to fail")));
    }
    if state.draws(faults.reset) {
        return Ok(named(state, breaking()));
    }
    let reply = match &*path {
        wire::WEBSOCKET => websocket::accept(tunnel, request),
        wire::SESSION => session(state, &request),
        wire::DOWNLOAD => download(&request),
        wire::UPLOAD => upload(state, request).await,
        wire::POLL => poll(state, request).await,
        _ => text(StatusCode::NOT_FOUND, "nothing here"),
    };
    Ok(named(state, reply))
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The answer to a probe.
fn checked(path: &str, faults: &Faults) -> Option<StatusCode> {
    let flaps = |(every, since): (Duration, Instant)| {
        (since.elapsed().as_millis() / every.as_millis().max(1)).is_multiple_of(2)
    };
    let fails = match path {
        wire::READY => faults.unready || faults.flap.is_some_and(flaps),
        wire::ALIVE => faults.dead,
        _ => return None,
    };
    Some(if fails { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK })
}

/// Says who answers.
fn named(state: &State, mut reply: Reply) -> Reply {
    if let Ok(name) = HeaderValue::from_str(&state.id.to_string()) {
        reply.headers_mut().insert(wire::INSTANCE, name);
    }
    reply
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Reply {
    let body = Full::new(body.into()).map_err(|never| match never {}).boxed_unsync();
    let mut reply = Response::new(body);
    *reply.status_mut() = status;
    reply
}

/// Promises more than it gives; the connection breaks with it.
fn breaking() -> Reply {
    let parts = [Ok(Frame::data(Bytes::from_static(b"a part of an answer"))), Err(Broken)];
    let parts = futures_util::stream::iter(parts).then(|part| async move {
        if part.is_err() {
            // So that what came before is on its way.
            tokio::time::sleep(BREATH).await;
        }
        part
    });
    let body = StreamBody::new(parts).boxed_unsync();
    let mut reply = Response::new(body);
    reply.headers_mut().insert(header::CONTENT_LENGTH, PROMISED.into());
    reply
}

fn field<'a, B>(request: &'a Request<B>, name: &str) -> &'a str {
    request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// Counts the session's requests here, and gives back what was asked.
fn session(state: &State, request: &Request<Incoming>) -> Reply {
    let (session, number) = (field(request, wire::CLIENT), field(request, wire::NUMBER));
    let mut memory = state.memory();
    let seen = memory.seen.entry(session.to_owned()).or_default();
    *seen += 1;
    text(StatusCode::OK, format!("{session} {number} {seen}"))
}

fn download(request: &Request<Incoming>) -> Reply {
    let size = wire::parameter(request.uri(), "size").and_then(|text| text.parse().ok());
    let size: u64 = size.unwrap_or_default();
    let chunks = (0..size).step_by(wire::CHUNK).map(move |at| {
        let length = (size - at).min(wire::CHUNK as u64) as usize;
        Ok(Frame::data(wire::pattern(at, length)))
    });
    let body = StreamBody::new(futures_util::stream::iter(chunks)).boxed_unsync();
    let mut reply = Response::new(body);
    reply.headers_mut().insert(header::CONTENT_LENGTH, size.into());
    reply
}

/// Says what came, and notes that it was done.
async fn upload(state: &State, request: Request<Incoming>) -> Reply {
    let id = format!("{} {}", field(&request, wire::CLIENT), field(&request, wire::NUMBER));
    let mut body = request.into_body();
    let (mut length, mut hasher) = (0_u64, crc32fast::Hasher::new());
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return text(StatusCode::BAD_REQUEST, "the body broke off") };
        if let Ok(data) = frame.into_data() {
            length += data.len() as u64;
            hasher.update(&data);
        }
    }
    state.ledger.note(&id);
    text(StatusCode::OK, format!("{id} {length} {:08x}", hasher.finalize()))
}

async fn poll(state: &State, request: Request<Incoming>) -> Reply {
    let sid = wire::parameter(request.uri(), "sid").map(str::to_owned);
    let (status, body) = match (request.method().clone(), sid) {
        (Method::GET, None) => polling::open(state),
        (Method::GET, Some(sid)) => polling::read(state, &sid).await,
        (Method::POST, Some(sid)) => match request.into_body().collect().await {
            Ok(body) => polling::write(state, &sid, &String::from_utf8_lossy(&body.to_bytes())),
            Err(_) => (StatusCode::BAD_REQUEST, "the body broke off".to_owned()),
        },
        _ => (StatusCode::METHOD_NOT_ALLOWED, String::new()),
    };
    text(status, body)
}
