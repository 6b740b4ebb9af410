//! The admin listener: `/healthz`, `/metrics`, and what happens under `/api/v1`. It only reads.
//!
//! [`sampler`] looks at everything once a second; [`events`], [`live`] and the history tell of it.

pub mod events;
pub mod live;
pub mod metrics;
pub mod sampler;
pub mod stream;
pub mod tick;

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;

use crate::admin::stream::{StreamBody, Streams};
use crate::listener::BindError;
use crate::snapshot::Live;

/// Connections at once; more wait to be accepted.
const MAX_CONNECTIONS: usize = 64;
/// A scraper that is slower to send its request is dropped.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(5);
/// From accept to close: one request on each connection, so that nobody keeps one of them. A stream
/// may last, and ends when its client doesn't read.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// Binds the admin address. To be called on the runtime that will serve it.
pub fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    let socket = StdListener::bind(address).map_err(|cause| BindError { address, cause })?;
    adopt(address, socket)
}

/// Takes a socket over that listens at `address` already. To be called where [`bind`] is.
pub fn adopt(address: SocketAddr, socket: StdListener) -> Result<TcpListener, BindError> {
    let adopted = socket.set_nonblocking(true).and_then(|()| TcpListener::from_std(socket));
    adopted.map_err(|cause| BindError { address, cause })
}

/// Serves until the task is aborted.
pub async fn serve(listener: TcpListener, live: Arc<Live>) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let streams = Arc::new(Streams::default());
    // Dropped with this task, and all connections with it.
    let mut connections = JoinSet::new();
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _peer)) => stream,
            Err(error) => {
                tracing::warn!(%error, "accepting an admin connection failed");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (live, streams) = (Arc::clone(&live), Arc::clone(&streams));
        connections.spawn(async move {
            converse(stream, &live, &streams, CONNECTION_TIMEOUT).await;
            drop(permit);
        });
        while connections.try_join_next().is_some() {}
    }
}

/// One request and its answer, in `limit`; or a stream.
async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    live: &Arc<Live>,
    streams: &Streams,
    limit: Duration,
) {
    let (cut, lasts) = (Arc::<Notify>::default(), AtomicBool::new(false));
    let service = service_fn(|request| {
        let opened = open(live, &request, streams, &cut);
        lasts.store(opened.is_some(), Ordering::Relaxed);
        let response = opened.unwrap_or_else(|| answer(live, &request));
        async move { Ok::<_, Infallible>(response) }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEADER_READ_TIMEOUT).keep_alive(false);
    let connection = server.serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    tokio::select! {
        // What breaks an admin connection, or outlasts it, is its client's business.
        _ = &mut connection => return,
        () = cut.notified() => return,
        () = tokio::time::sleep(limit) => {}
    }
    if lasts.load(Ordering::Relaxed) {
        tokio::select! {
            _ = connection => {}
            () = cut.notified() => {}
        }
    }
}

/// A stream, if the request asks for one.
fn open(
    live: &Arc<Live>,
    request: &Request<Incoming>,
    streams: &Streams,
    cut: &Arc<Notify>,
) -> Option<Answer> {
    let (query, cut) = (request.uri().query().unwrap_or_default(), Arc::clone(cut));
    let wants_json = query.split('&').any(|pair| pair == "format=json")
        || request.headers().get(ACCEPT).is_some_and(|it| it == "application/json");
    let stream = match (request.method(), request.uri().path()) {
        (&Method::GET, "/api/v1/events") if !wants_json => {
            events::stream(live, events::seen(request.headers(), query), streams, cut)
        }
        (&Method::GET, "/api/v1/live") => live::stream(live, streams, cut),
        _ => return None,
    };
    Some(stream.map_or_else(too_many, streamed))
}

fn streamed(body: StreamBody) -> Answer {
    let mut response = Response::new(body.boxed_unsync());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn too_many() -> Answer {
    let told = "503 too many streams\n".to_owned();
    whole(StatusCode::SERVICE_UNAVAILABLE, "text/plain; charset=utf-8", told)
}

fn answer(live: &Live, request: &Request<Incoming>) -> Answer {
    let readable = matches!(*request.method(), Method::GET | Method::HEAD);
    let (status, kind, text) = match (request.uri().path(), readable) {
        ("/healthz", true) => (StatusCode::OK, "text/plain; charset=utf-8", "ok\n".to_owned()),
        // The exposition format's own content type, version included.
        ("/metrics", true) => {
            (StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", metrics::render(live))
        }
        ("/api/v1/events", true) => {
            let seen = events::seen(request.headers(), request.uri().query().unwrap_or_default());
            (StatusCode::OK, "application/json", events::kept(live, seen).to_string())
        }
        ("/api/v1/history", true) => {
            (StatusCode::OK, "application/json", live.telemetry.history_json().to_string())
        }
        ("/healthz" | "/metrics", false) => (
            StatusCode::METHOD_NOT_ALLOWED,
            "text/plain; charset=utf-8",
            "405 GET only\n".to_owned(),
        ),
        _ => (StatusCode::NOT_FOUND, "text/plain; charset=utf-8", "404 not found\n".to_owned()),
    };
    whole(status, kind, text)
}

fn whole(status: StatusCode, kind: &'static str, text: String) -> Answer {
    let mut response = Response::new(Full::new(Bytes::from(text)).boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::affinity::token::Keyring;
    use crate::config;

    #[tokio::test]
    async fn a_scraper_that_does_not_read_is_dropped() {
        let config = config::minimal(&["127.0.0.1:1".to_owned()], false).unwrap();
        let keyring = Keyring::new(&[[0; 32]]).unwrap();
        let (live, _) = Live::new(Arc::new(config), Arc::new(keyring), 1);
        let (mut scraper, stream) = tokio::io::duplex(256);
        scraper.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let limit = Duration::from_millis(50);
        converse(stream, &Arc::new(live), &Streams::default(), limit).await;
        let mut rest = String::new();
        scraper.read_to_string(&mut rest).await.unwrap();
        assert!(rest.starts_with("HTTP/1.1 200 ") && rest.len() <= 256, "{rest}");
    }
}
