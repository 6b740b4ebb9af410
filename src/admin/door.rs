//! The admin listener's connections, and what keeps a client from holding them: each is read, written
//! and ended within limits, and a stream without an end has a place of its own.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::Sleep;

use crate::admin::desk::Desk;
use crate::admin::router;
use crate::listener::BindError;

/// Connections at once; more wait to be accepted.
const MAX_CONNECTIONS: usize = 64;
/// How long a client may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// To send a request's head, or to rest between two.
    head: Duration,
    /// To take anything of an answer.
    stall: Duration,
    /// From accept to close, so that nobody keeps a place; an answer without an end may take longer.
    connection: Duration,
    /// What is under way then gets this long.
    last_words: Duration,
}

const LIMITS: Limits = Limits {
    head: Duration::from_secs(5),
    stall: Duration::from_secs(10),
    connection: Duration::from_secs(60),
    last_words: Duration::from_secs(30),
};
/// Between two looks at whether a connection that is due still streams.
const STREAM_LOOK: Duration = Duration::from_secs(1);

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
pub async fn serve(listener: TcpListener, desk: Arc<Desk>) {
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
        // Small answers must not wait for one another.
        let _ = stream.set_nodelay(true);
        let is_here = stream.local_addr().is_ok_and(|it| it.ip().to_canonical().is_loopback());
        let desk = Arc::clone(&desk);
        tokio::spawn(async move {
            converse(stream, &desk, (is_here, LIMITS)).await;
            drop(permit);
        });
    }
}

/// Requests and their answers, within `limits`. `is_here` says that the other end is on this machine.
pub(super) async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    desk: &Arc<Desk>,
    (is_here, limits): (bool, Limits),
) {
    let streams = AtomicBool::new(false);
    let service = service_fn(|request: Request<Incoming>| {
        let streams = &streams;
        async move {
            let answer = router::answer(desk, request, is_here).await;
            streams.store(answer.streams, Ordering::Relaxed);
            Ok::<_, Infallible>(answer.reply)
        }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(limits.head);
    let stalls = Stalls { stream, limit: limits.stall, stalled: None };
    let mut connection = pin!(server.serve_connection(TokioIo::new(stalls), service));
    // What breaks an admin connection, or outlasts it, is its client's business.
    if tokio::time::timeout(limits.connection, connection.as_mut()).await.is_ok() {
        return;
    }
    connection.as_mut().graceful_shutdown();
    if tokio::time::timeout(limits.last_words, connection.as_mut()).await.is_ok() {
        return;
    }
    while streams.load(Ordering::Relaxed) {
        if tokio::time::timeout(STREAM_LOOK, connection.as_mut()).await.is_ok() {
            return;
        }
    }
}

/// A stream that fails when nothing can be written to it for so long.
struct Stalls<S> {
    stream: S,
    limit: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> Stalls<S> {
    fn mind<T>(
        &mut self,
        poll: Poll<std::io::Result<T>>,
        cx: &mut Context<'_>,
    ) -> Poll<std::io::Result<T>> {
        if poll.is_ready() {
            self.stalled = None;
            return poll;
        }
        let due = || Box::pin(tokio::time::sleep(self.limit));
        let stalled = self.stalled.get_or_insert_with(due);
        match stalled.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(std::io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Stalls<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Stalls<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.mind(poll, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.mind(poll, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_flush(cx);
        self.mind(poll, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.mind(poll, cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::affinity::token::Keyring;
    use crate::config;
    use crate::config::overrides::Overrides;
    use crate::snapshot::Live;

    fn desk() -> Arc<Desk> {
        let config = config::minimal(&["127.0.0.1:1".to_owned()], false).unwrap();
        let keyring = Keyring::new(&[[0; 32]]).unwrap();
        let (live, _) = Live::new(Arc::new(config), Arc::new(keyring), 1);
        let (desk, _) =
            Desk::new(Arc::new(live), None, Overrides::default(), SystemTime::UNIX_EPOCH);
        Arc::new(desk)
    }

    const LONG: Duration = Duration::from_secs(3600);
    const SOON: Duration = Duration::from_millis(50);
    const PATIENT: Limits = Limits { head: LONG, stall: LONG, connection: LONG, last_words: SOON };

    /// What a client gets that takes `takes` bytes of what it asks for until it is let go.
    async fn left_alone(path: &str, takes: usize, limits: Limits) -> String {
        let (mut client, stream) = tokio::io::duplex(takes);
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        client.write_all(request.as_bytes()).await.unwrap();
        converse(stream, &desk(), (true, limits)).await;
        let mut rest = String::new();
        client.read_to_string(&mut rest).await.unwrap();
        assert!(rest.starts_with("HTTP/1.1 200 ") && rest.len() <= takes, "{rest}");
        rest
    }

    #[tokio::test]
    async fn whoever_takes_nothing_of_an_answer_is_dropped() {
        let of = |stall, connection| Limits { stall, connection, ..PATIENT };
        left_alone("/metrics", 256, of(SOON, LONG)).await;
        left_alone("/metrics", 256, of(LONG, SOON)).await;
    }

    /// A reload may have taken the token away from an address that the connection still comes by.
    #[tokio::test]
    async fn without_a_token_only_this_machine_is_answered() {
        for (is_here, status) in [(true, "200"), (false, "401")] {
            let (mut client, stream) = tokio::io::duplex(65536);
            let request = b"GET /api/v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n";
            client.write_all(request).await.unwrap();
            converse(stream, &desk(), (is_here, Limits { head: SOON, ..PATIENT })).await;
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        }
    }

    #[tokio::test]
    async fn nobody_rests_longer_than_a_request_may_take_to_come() {
        let whole = left_alone("/healthz", 4096, Limits { head: SOON, ..PATIENT }).await;
        assert!(whole.ends_with("ok\n"), "{whole}");
    }
}
