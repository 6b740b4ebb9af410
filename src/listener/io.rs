//! A client's socket of HTTP/2 that does what hyper does not: it ends floods.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use crate::listener::calm::Calm;
use crate::listener::connection::{LINGER, linger};
use crate::listener::paced::Paced;
use crate::listener::transport::Transport;
use crate::proxy::client::Client;
use crate::proxy::error::Reason;

/// RFC 9113 section 6.8, for the reason ENHANCE_YOUR_CALM; any stream may have been acted upon.
const GO_AWAY: &[u8] = &[0, 0, 8, 7, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0x0b];

/// hyper hands over at most this many parts of what it has in hand.
const MOST_PARTS: usize = 64;

/// See the module.
#[derive(Debug)]
pub struct ClientIo {
    /// Until it is taken away from hyper.
    stream: Option<Paced>,
    client: Arc<Client>,
    /// What was read already.
    early: Bytes,
    calm: Calm,
    /// Whether hyper may have more in hand of what it has begun to write.
    is_behind: bool,
}

impl ClientIo {
    /// Watches `stream` for `client`, which has begun with HTTP/2 by `early`, all that was read of it.
    pub fn new(stream: Transport, client: Arc<Client>, early: Bytes) -> Self {
        let stream = Some(Paced::new(stream, Arc::clone(&client)));
        Self { stream, client, early, calm: Calm::new(Instant::now()), is_behind: false }
    }

    fn stream(&mut self) -> io::Result<Pin<&mut Paced>> {
        self.stream.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Hyper had `size` bytes to write, in `parts` parts.
    fn note(&mut self, written: &Poll<io::Result<usize>>, size: usize, parts: usize) {
        let wrote_all = matches!(written, Poll::Ready(Ok(count)) if *count == size);
        self.is_behind = !wrote_all || parts >= MOST_PARTS;
    }

    /// Ends a connection of HTTP/2 that floods; its client is told if hyper is not in the middle of
    /// something else. What it has sent is read on, since a reset would destroy that.
    fn calm_down(&mut self) -> io::Error {
        self.client.cut(Reason::Flood);
        if let Some(mut stream) = self.stream.take().map(Paced::into_inner) {
            let word = if self.is_behind { &[][..] } else { GO_AWAY };
            // It has its places until its connection is no more.
            let client = Arc::clone(&self.client);
            tokio::spawn(async move {
                let told = tokio::time::timeout(LINGER, stream.write_all(word)).await;
                if told.is_ok_and(|told| told.is_ok()) {
                    linger(stream).await;
                }
                drop(client);
            });
        }
        io::Error::new(io::ErrorKind::ConnectionAborted, "the client floods")
    }
}

impl AsyncRead for ClientIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let start = buffer.filled().len();
        if self.early.is_empty() {
            ready!(self.stream()?.poll_read(cx, buffer))?;
        } else {
            let size = self.early.len().min(buffer.remaining());
            buffer.put_slice(&self.early.split_to(size));
        }
        match self.calm.exceeds(&buffer.filled()[start..], Instant::now()) {
            true => Poll::Ready(Err(self.calm_down())),
            false => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for ClientIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = self.stream()?.poll_write(cx, bytes);
        self.note(&written, bytes.len(), 1);
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper flushes when it has nothing in hand.
        self.is_behind = false;
        self.stream()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = self.stream()?.poll_write_vectored(cx, parts);
        self.note(&written, parts.iter().map(|part| part.len()).sum(), parts.len());
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }
}
