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
use tokio::time::{Instant, Sleep};

use crate::admin::desk::Desk;
use crate::admin::router;
use crate::listener::BindError;

/// Connections at once; more wait to be accepted.
const MAX_CONNECTIONS: usize = 128;
/// A client that is slower to send a request, or rests longer between two, is dropped.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(5);
/// From accept to close, so that nobody keeps a place; an answer without an end may take longer.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);
/// A client that takes nothing of its answer for so long is dropped.
const STALL_TIMEOUT: Duration = Duration::from_secs(10);
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
        let desk = Arc::clone(&desk);
        tokio::spawn(async move {
            converse(stream, &desk, CONNECTION_TIMEOUT).await;
            drop(permit);
        });
    }
}

/// Requests and their answers, in `limit`.
pub(super) async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    desk: &Arc<Desk>,
    limit: Duration,
) {
    let streams = AtomicBool::new(false);
    let service = service_fn(|request: Request<Incoming>| {
        let streams = &streams;
        async move {
            let answer = router::answer(desk, request).await;
            streams.store(answer.streams, Ordering::Relaxed);
            Ok::<_, Infallible>(answer.reply)
        }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEADER_READ_TIMEOUT);
    let stalls = Stalls { stream, stalled: None };
    let mut connection = pin!(server.serve_connection(TokioIo::new(stalls), service));
    // What breaks an admin connection, or outlasts it, is its client's business.
    if tokio::time::timeout(limit, connection.as_mut()).await.is_ok() {
        return;
    }
    while streams.load(Ordering::Relaxed) {
        if tokio::time::timeout(STREAM_LOOK, connection.as_mut()).await.is_ok() {
            return;
        }
    }
}

/// A stream that fails when nothing can be written to it for [`STALL_TIMEOUT`].
struct Stalls<S> {
    stream: S,
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
        let due = || Box::pin(tokio::time::sleep_until(Instant::now() + STALL_TIMEOUT));
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
    use crate::snapshot::Live;

    fn desk() -> Arc<Desk> {
        let config = config::minimal(&["127.0.0.1:1".to_owned()], false).unwrap();
        let keyring = Keyring::new(&[[0; 32]]).unwrap();
        let (live, _) = Live::new(Arc::new(config), Arc::new(keyring), 1);
        let (desk, _) = Desk::new(Arc::new(live), None, Vec::new(), SystemTime::UNIX_EPOCH);
        Arc::new(desk)
    }

    #[tokio::test]
    async fn a_scraper_that_does_not_read_is_dropped() {
        let (mut scraper, stream) = tokio::io::duplex(256);
        scraper.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        converse(stream, &desk(), Duration::from_millis(50)).await;
        let mut rest = String::new();
        scraper.read_to_string(&mut rest).await.unwrap();
        assert!(rest.starts_with("HTTP/1.1 200 ") && rest.len() <= 256, "{rest}");
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_rests_longer_than_a_request_may_take_to_come() {
        let (mut scraper, stream) = tokio::io::duplex(64 * 1024);
        scraper.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        let begun = Instant::now();
        converse(stream, &desk(), CONNECTION_TIMEOUT).await;
        let took = begun.elapsed();
        assert!((HEADER_READ_TIMEOUT..CONNECTION_TIMEOUT).contains(&took), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_takes_nothing_of_an_answer_is_dropped_soon() {
        let (mut scraper, stream) = tokio::io::duplex(256);
        scraper.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        let begun = Instant::now();
        converse(stream, &desk(), CONNECTION_TIMEOUT).await;
        let took = begun.elapsed();
        assert!((STALL_TIMEOUT..CONNECTION_TIMEOUT).contains(&took), "{took:?}");
    }
}
