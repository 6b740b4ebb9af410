//! A client's socket that notes for the connection's watchdog how the client keeps up.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::listener::transport::Transport;
use crate::proxy::client::Client;

/// See the module.
#[derive(Debug)]
pub(super) struct Paced {
    stream: Transport,
    client: Arc<Client>,
}

impl Paced {
    /// Notes the pace of `client`, whose socket this is.
    pub(super) fn new(stream: Transport, client: Arc<Client>) -> Self {
        Self { stream, client }
    }

    /// The socket.
    pub(super) fn into_inner(self) -> Transport {
        self.stream
    }

    fn note(&mut self, written: &Poll<io::Result<usize>>) {
        if let Transport::Tls(_) = &self.stream {
            return self.note_wire();
        }
        let taken = match written {
            Poll::Ready(taken) => Some(taken.as_ref().map_or(0, |taken| *taken as u64)),
            Poll::Pending => None,
        };
        self.client.pace.wrote(taken);
    }

    /// What TLS has taken may not be in its socket yet: only that one knows how the client keeps up.
    fn note_wire(&mut self) {
        let Transport::Tls(stream) = &mut self.stream else { return };
        let (moved, stuck) = stream.progress();
        if moved > 0 {
            self.client.pace.wrote(Some(moved));
        }
        if stuck {
            self.client.pace.wrote(None);
        }
    }
}

impl AsyncRead for Paced {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Paced {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.note(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.note(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.note_wire();
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
