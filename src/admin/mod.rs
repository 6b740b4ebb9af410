//! The admin listener: `/healthz` and `/metrics`. It only reads.

pub mod metrics;

use std::convert::Infallible;
use std::net::SocketAddr;
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
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::listener::BindError;
use crate::snapshot::Live;

/// Connections at once; more wait to be accepted.
const MAX_CONNECTIONS: usize = 64;
/// A scraper that is slower to send its request is dropped.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(5);

/// Binds the admin address. To be called on the runtime that will serve it.
pub fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    let listen = || {
        let socket = std::net::TcpListener::bind(address)?;
        socket.set_nonblocking(true)?;
        TcpListener::from_std(socket)
    };
    listen().map_err(|cause| BindError { address, cause })
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
            let service = service_fn(|request| {
                let response = answer(&live, &request);
                async move { Ok::<_, Infallible>(response) }
            });
            let mut server = http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(HEADER_READ_TIMEOUT);
            // What breaks an admin connection is its client's business.
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
            drop(permit);
        });
    }
}

fn answer(live: &Live, request: &Request<Incoming>) -> Response<Full<Bytes>> {
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
