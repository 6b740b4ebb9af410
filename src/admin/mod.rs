//! The admin listener: `/healthz`, `/metrics`, and what is asked of [`ask`]. It only reads.

pub mod ask;
pub mod metrics;

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::admin::ask::{MAX_BODY, Reply};
use crate::listener::BindError;
use crate::snapshot::Live;

const PLAIN: &str = "text/plain; charset=utf-8";
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
    let service = service_fn(|request| async { Ok::<_, Infallible>(answer(live, request).await) });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEADER_READ_TIMEOUT).keep_alive(false);
    let connection = server.serve_connection(TokioIo::new(stream), service);
    // What breaks an admin connection, or outlasts it, is its client's business.
    let _ = tokio::time::timeout(limit, connection).await;
}

async fn answer(live: &Live, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let readable = matches!(*request.method(), Method::GET | Method::HEAD);
    match (request.uri().path(), readable) {
        ("/healthz", true) => text(StatusCode::OK, PLAIN, "ok\n".to_owned()),
        // The exposition format's own content type, version included.
        ("/metrics", true) => {
            text(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", metrics::render(live))
        }
        ("/api/v1/explain" | "/api/v1/check", _) => reply(&asked(live, request).await),
        ("/healthz" | "/metrics", false) => {
            text(StatusCode::METHOD_NOT_ALLOWED, PLAIN, "405 GET only\n".to_owned())
        }
        _ => text(StatusCode::NOT_FOUND, PLAIN, "404 not found\n".to_owned()),
    }
}

/// Asks what may be asked.
async fn asked(live: &Live, request: Request<Incoming>) -> Reply {
    let (head, body) = request.into_parts();
    if let Err(barred) = ask::admit(&head) {
        return barred;
    }
    match (head.uri.path(), head.method) {
        ("/api/v1/explain", Method::GET) => {
            ask::explain(live, head.uri.query().unwrap_or_default())
        }
        ("/api/v1/check", Method::POST) => match Limited::new(body, MAX_BODY).collect().await {
            Ok(body) => ask::check(live, &body.to_bytes()),
            Err(error) => {
                Reply::problem(StatusCode::PAYLOAD_TOO_LARGE, &format!("the body: {error}"))
            }
        },
        (path, method) => {
            let detail = format!("{path} knows no {method}");
            Reply::problem(StatusCode::METHOD_NOT_ALLOWED, &detail)
        }
    }
}

fn reply(reply: &Reply) -> Response<Full<Bytes>> {
    let kind = match reply.status.is_success() {
        true => "application/json",
        false => "application/problem+json",
    };
    text(reply.status, kind, reply.body.to_string())
}

fn text(status: StatusCode, kind: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
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
