//! The admin listener: `/healthz`, `/metrics` and the dashboard. It only reads.

pub mod dashboard;
pub mod metrics;

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::listener::BindError;
use crate::snapshot::Live;

/// Connections at once; more wait to be accepted.
const MAX_CONNECTIONS: usize = 64;
/// A scraper that is slower to send its request is dropped.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(5);
/// From accept to close: one request on each connection, so that nobody keeps one of them.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);

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
        let live = Arc::clone(&live);
        tokio::spawn(async move {
            converse(stream, &live, CONNECTION_TIMEOUT).await;
            drop(permit);
        });
    }
}

/// One request and its answer, in `limit`.
async fn converse(stream: impl AsyncRead + AsyncWrite + Unpin, live: &Live, limit: Duration) {
    let service = service_fn(|request| {
        let response = answer(live, &request);
        async move { Ok::<_, Infallible>(response) }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEADER_READ_TIMEOUT).keep_alive(false);
    let connection = server.serve_connection(TokioIo::new(stream), service);
    // What breaks an admin connection, or outlasts it, is its client's business.
    let _ = tokio::time::timeout(limit, connection).await;
}

fn answer(live: &Live, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let page = dashboard::answer(request.method(), request.uri().path(), request.headers());
    if let Some(page) = page {
        return page;
    }
    let readable = matches!(*request.method(), Method::GET | Method::HEAD);
    let (status, kind, text) = match (request.uri().path(), readable) {
        ("/healthz", true) => (StatusCode::OK, "text/plain; charset=utf-8", "ok\n".to_owned()),
        // The exposition format's own content type, version included.
        ("/metrics", true) => {
            (StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", metrics::render(live))
        }
        ("/healthz" | "/metrics", false) => (
            StatusCode::METHOD_NOT_ALLOWED,
            "text/plain; charset=utf-8",
            "405 GET only\n".to_owned(),
        ),
        _ => (StatusCode::NOT_FOUND, "text/plain; charset=utf-8", "404 not found\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
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
        converse(stream, &live, Duration::from_millis(50)).await;
        let mut rest = String::new();
        scraper.read_to_string(&mut rest).await.unwrap();
        assert!(rest.starts_with("HTTP/1.1 200 ") && rest.len() <= 256, "{rest}");
    }
}
