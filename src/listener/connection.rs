//! One client connection, from accept to close or to tunnel.
//!
//! hyper parses and writes; this file runs it, watches its pace, and takes the socket back when
//! HTTP is over on it.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::listener::Worker;
use crate::listener::io::ClientIo;
use crate::proxy::answer::AnswerBody;
use crate::proxy::client::{Client, HeadBytes, Waits};
use crate::proxy::error::Reason;
use crate::proxy::exchange;
use crate::snapshot::{Phase, Snapshot};
use crate::tunnel::Side;

/// The longest head of a request.
const MAX_HEAD: usize = 64 * 1024;
/// The most that is read ahead of an instance.
const MAX_BUFFER: usize = 64 * 1024;
/// After the answer to a request that was not read to its end, the client may go on sending for
/// this long before its connection is reset: a reset would destroy the answer on its way.
const LINGER: Duration = Duration::from_secs(2);

struct Proxy(Arc<Client>);

impl Service<Request<Incoming>> for Proxy {
    type Response = Response<AnswerBody>;
    type Error = Infallible;
    type Future = Answering;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        Answering(Box::pin(crate::proxy::handle(Arc::clone(&self.0), request)))
    }
}

/// hyper asks for a result; there is always an answer.
struct Answering(Pin<Box<dyn Future<Output = Response<AnswerBody>> + Send>>);

impl Future for Answering {
    type Output = Result<Response<AnswerBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx).map(Ok)
    }
}

type Connection = http1::Connection<TokioIo<ClientIo>, Proxy>;

/// Serves a connection on a task of its own.
pub fn spawn(worker: &Worker, stream: TcpStream, peer: SocketAddr) {
    // Without it small answers wait for the client's acknowledgement; failing that, they wait.
    let _ = stream.set_nodelay(true);
    let worker = worker.clone();
    tokio::spawn(async move {
        let counters = &worker.live.counters;
        counters.accepted.fetch_add(1, Ordering::Relaxed);
        serve(&worker, stream, peer).await;
        counters.closed.fetch_add(1, Ordering::Relaxed);
    });
}

async fn serve(worker: &Worker, stream: TcpStream, peer: SocketAddr) {
    let here = (worker.index, Arc::clone(&worker.registry));
    let client = Arc::new(Client::new(Arc::clone(&worker.live), here, peer));
    let io = TokioIo::new(ClientIo::new(stream, Arc::clone(&client)));
    let mut connection = Box::new(
        http1::Builder::new()
            .max_buf_size(MAX_BUFFER)
            .max_header_size(MAX_HEAD)
            .serve_connection(io, Proxy(Arc::clone(&client))),
    );
    let over = run(&mut connection, &client).await;
    let was_busy = client.pace.is_busy();
    if let Over::Late(reason) = over {
        client.cut(reason);
    }
    let parts = connection.into_parts();
    let mut stream = parts.io.into_inner().into_inner();
    match (over, client.opening()) {
        (Over::Finished, Some(opening)) => {
            let client = Side { stream, early: parts.read_buf };
            if let Some(tunnel) = opening.into_tunnel(client) {
                tokio::spawn(tunnel.open(&worker.registry));
            }
        }
        (Over::Finished, None) => Box::pin(linger(stream)).await,
        (Over::Late(Reason::HeaderReadTimeout), _) => {
            // Without a byte of a head there is no request to answer, and none to log.
            if head_bytes(&client) == HeadBytes::None {
                client.live.counters.error(Reason::HeaderReadTimeout);
            } else {
                exchange::unread(&client, Reason::HeaderReadTimeout);
                let late = "HTTP/1.1 408 Request Timeout\r\nconnection: close\r\n\
                            content-type: text/plain; charset=utf-8\r\ncontent-length: 24\r\n\r\n\
                            408 header_read_timeout\n";
                if stream.write_all(late.as_bytes()).await.is_ok() {
                    Box::pin(linger(stream)).await;
                }
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

/// Sends FIN, and takes what the client still sends until it has seen it. Boxed where it is called:
/// a connection should not carry this buffer all its life.
async fn linger(mut stream: TcpStream) {
    if stream.shutdown().await.is_err() {
        return;
    }
    let mut rest = [0; 4096];
    let read = async { while stream.read(&mut rest).await.is_ok_and(|count| count > 0) {} };
    let _ = tokio::time::timeout(LINGER, read).await;
}

/// How HTTP ended on a connection.
enum Over {
    /// In order: closed, or switched to another protocol.
    Finished,
    /// A limit of time was passed.
    Late(Reason),
    /// The socket failed, or the client broke the protocol and was told so.
    Broken,
}

/// Runs hyper, the watchdog beside it, and the drain when it comes.
async fn run(connection: &mut Connection, client: &Client) -> Over {
    let mut phase = client.live.phase();
    let mut watchdog = Watchdog::new(client);
    let mut draining = false;
    loop {
        let over = tokio::select! {
            biased;
            over = poll_fn(|cx| poll(connection, &mut watchdog, client, cx)) => over,
            _ = phase.wait_for(|phase| *phase != Phase::Serving), if !draining => {
                draining = true;
                Pin::new(&mut *connection).graceful_shutdown();
                continue;
            }
        };
        return over;
    }
}

fn poll(
    connection: &mut Connection,
    watchdog: &mut Watchdog,
    client: &Client,
    cx: &mut Context<'_>,
) -> Poll<Over> {
    match connection.poll_without_shutdown(cx) {
        Poll::Ready(Ok(())) => Poll::Ready(Over::Finished),
        Poll::Ready(Err(error)) => {
            tracing::debug!(client = %client.peer, %error, "a client's connection ended");
            if error.is_parse() {
                let reason = match error.is_parse_too_large() {
                    true => Reason::HeadTooLarge,
                    false => Reason::BadRequest,
                };
                exchange::unread(client, reason);
                // hyper has written its 400, 414 or 431; the client gets to read it.
                return Poll::Ready(Over::Finished);
            }
            Poll::Ready(Over::Broken)
        }
        Poll::Pending => watchdog.poll(client, cx).map(Over::Late),
    }
}

/// Ends connections that take too long. One lazy timer per connection: it fires now and then,
/// looks at the pace, and sleeps on; a request costs it nothing.
struct Watchdog {
    sleep: Pin<Box<tokio::time::Sleep>>,
    /// Whether it will wake the task, which stays the same.
    set: bool,
}

impl Watchdog {
    fn new(client: &Client) -> Self {
        let first = Instant::now() + shortest(client, &client.live.snapshot());
        Self { sleep: Box::pin(tokio::time::sleep_until(first.into())), set: false }
    }

    fn poll(&mut self, client: &Client, cx: &mut Context<'_>) -> Poll<Reason> {
        if self.set && !self.sleep.is_elapsed() {
            return Poll::Pending;
        }
        while self.sleep.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            let snapshot = client.live.snapshot();
            let (limits, idle) = (snapshot.config.client_timeouts, client.pace.idle());
            let (since, limit, reason) = match client.pace.waits() {
                Waits::Head(since, _) => (since, limits.header_read, Reason::HeaderReadTimeout),
                Waits::Request(since) => (since, limits.keep_alive, Reason::KeepAliveTimeout),
                Waits::Answer(since) => (since.unwrap_or(now), idle, Reason::ClientIdleTimeout),
            };
            let waited = now.saturating_duration_since(since);
            if waited >= limit {
                return Poll::Ready(reason);
            }
            // What it waits for may change before then, to something with a shorter limit.
            let next = (limit - waited).min(shortest(client, &snapshot));
            self.sleep.as_mut().reset((now + next).into());
        }
        self.set = true;
        Poll::Pending
    }
}

/// The shortest limit that a connection may come under: whose idle timeout that is changes with
/// each request.
fn shortest(client: &Client, snapshot: &Snapshot) -> Duration {
    let limits = snapshot.config.client_timeouts;
    let idle = snapshot.services().iter().map(|service| service.version().timeouts.idle).min();
    let idle = idle.unwrap_or(Duration::MAX).min(client.pace.idle());
    limits.header_read.min(limits.keep_alive).min(idle)
}
