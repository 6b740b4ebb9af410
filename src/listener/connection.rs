//! One client connection, from accept to close or to tunnel.
//!
//! hyper parses and writes; this file runs it, and takes the socket back when HTTP/1 is over on it:
//! for a tunnel, or for HTTP/2 where the client begins with that.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::config::types;
use crate::listener::io::ClientIo;
use crate::listener::watchdog::{Over, attend};
use crate::listener::{Worker, http2};
use crate::proxy::answer::AnswerBody;
use crate::proxy::client::{Client, HeadBytes, Waits};
use crate::proxy::error::Reason;
use crate::proxy::exchange;
use crate::tunnel::Side;
use crate::tunnel::socket::Socket;

/// The longest head of a request.
pub(super) const MAX_HEAD: usize = 64 * 1024;
/// The most that is read ahead of an instance.
const MAX_BUFFER: usize = 64 * 1024;
/// After the answer to a request that was not read to its end, the client may go on sending for
/// this long before its connection is reset: a reset would destroy the answer on its way.
pub(super) const LINGER: Duration = Duration::from_secs(2);

struct Proxy(Arc<Client>);

impl Service<Request<Incoming>> for Proxy {
    type Response = Response<AnswerBody>;
    type Error = Infallible;
    type Future = Answering;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        Answering::new(Arc::clone(&self.0), request)
    }
}

/// hyper asks for a result; there is always an answer.
pub(super) struct Answering(Pin<Box<dyn Future<Output = Response<AnswerBody>> + Send>>);

impl Answering {
    pub(super) fn new(client: Arc<Client>, request: Request<Incoming>) -> Self {
        Self(Box::pin(crate::proxy::handle(client, request)))
    }
}

impl Future for Answering {
    type Output = Result<Response<AnswerBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx).map(Ok)
    }
}

type Connection = http1::Connection<TokioIo<ClientIo>, Proxy>;

/// Serves a connection on a task of its own, as its listener says.
pub fn spawn(worker: &Worker, stream: TcpStream, peer: SocketAddr, listener: types::Listener) {
    // Without it small answers wait for the client's acknowledgement; failing that, they wait.
    let _ = stream.set_nodelay(true);
    let worker = worker.clone();
    tokio::spawn(async move {
        let counters = &worker.live.counters;
        counters.accepted.fetch_add(1, Ordering::Relaxed);
        serve(&worker, stream, peer, listener).await;
        counters.closed.fetch_add(1, Ordering::Relaxed);
    });
}

async fn serve(worker: &Worker, stream: TcpStream, peer: SocketAddr, listener: types::Listener) {
    let here = (worker.index, Arc::clone(&worker.registry));
    let client = Arc::new(Client::new(Arc::clone(&worker.live), here, peer));
    let io = TokioIo::new(ClientIo::new(stream, Arc::clone(&client)));
    let mut connection = Box::new(
        http1::Builder::new()
            .max_buf_size(MAX_BUFFER)
            .max_header_size(MAX_HEAD)
            .serve_connection(io, Proxy(Arc::clone(&client))),
    );
    let leave = |it: &mut Box<Connection>| {
        Pin::new(&mut **it).graceful_shutdown();
        // Browsers connect before they know what to ask; hyper would wait for that.
        matches!(client.pace.waits(), Waits::Head(_, HeadBytes::None))
    };
    let over = attend(&mut connection, &client, |it, cx| poll(it, &client, cx), leave).await;
    let was_busy = client.pace.is_busy();
    if let Over::Late(reason) = over {
        client.cut(reason);
    }
    let parts = connection.into_parts();
    let stream = parts.io.into_inner().into_inner();
    match (over, client.opening()) {
        (Over::Finished, Some(opening)) => {
            let client = Side { socket: Socket::Tcp(stream), early: parts.read_buf };
            if let Some(tunnel) = opening.into_tunnel(client) {
                tokio::spawn(tunnel.open(&worker.registry));
            }
        }
        (Over::Finished, None) => Box::pin(linger(stream)).await,
        (Over::Unreadable(reason), _) => {
            exchange::unread(&client, reason);
            Box::pin(linger(stream)).await;
        }
        (Over::Http2, _) if listener.http2 && client.pace.is_fresh() => {
            Box::pin(http2::serve(client, stream, parts.read_buf)).await;
        }
        (Over::Http2, _) => Box::pin(refuse(&client, stream, Reason::BadRequest)).await,
        (Over::Late(Reason::HeaderReadTimeout), _) => {
            // Without a byte of a head there is no request to answer, and none to log.
            if head_bytes(&client) == HeadBytes::None {
                client.live.counters.error(Reason::HeaderReadTimeout);
            } else {
                Box::pin(refuse(&client, stream, Reason::HeaderReadTimeout)).await;
            }
        }
        // What is not told on the line of a request that was cut is counted here.
        (Over::Late(reason), _) if !was_busy => client.live.counters.error(reason),
        (Over::Late(_) | Over::Broken, _) => {}
    }
}

fn head_bytes(client: &Client) -> HeadBytes {
    match client.pace.waits() {
        Waits::Head(_, bytes) => bytes,
        Waits::Request(_) | Waits::Answer(_) => HeadBytes::None,
    }
}

/// Answers what is no request with a reason, in the place of hyper.
async fn refuse(client: &Client, mut stream: TcpStream, reason: Reason) {
    exchange::unread(client, reason);
    let status = reason.outward().1.unwrap_or(StatusCode::BAD_REQUEST);
    let text = format!("{} {}\n", status.as_u16(), reason.label());
    let answer = format!(
        "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-type: text/plain; charset=utf-8\r\n\
         content-length: {}\r\n\r\n{text}",
        text.len(),
    );
    if stream.write_all(answer.as_bytes()).await.is_ok() {
        linger(stream).await;
    }
}

/// Sends FIN, and takes what the client still sends until it has seen it. Boxed where it is called:
/// a connection should not carry this buffer all its life.
pub(super) async fn linger(mut stream: TcpStream) {
    if stream.shutdown().await.is_err() {
        return;
    }
    let mut rest = [0; 4096];
    let read = async { while stream.read(&mut rest).await.is_ok_and(|count| count > 0) {} };
    let _ = tokio::time::timeout(LINGER, read).await;
}

fn poll(connection: &mut Connection, client: &Client, cx: &mut Context<'_>) -> Poll<Over> {
    connection.poll_without_shutdown(cx).map(|ended| {
        let Err(error) = ended else { return Over::Finished };
        tracing::debug!(client = %client.peer, %error, "a client's connection ended");
        // To what is no head hyper writes its 400, 414 or 431; the client gets to read it.
        match error.is_parse() {
            true if error.is_parse_version_h2() => Over::Http2,
            true if error.is_parse_too_large() => Over::Unreadable(Reason::HeadTooLarge),
            true => Over::Unreadable(Reason::BadRequest),
            false => Over::Broken,
        }
    })
}
