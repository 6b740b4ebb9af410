//! A client's socket that notes its pace for the connection's watchdog.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::listener::transport::Transport;
use crate::proxy::client::Client;

/// What a client begins HTTP/2 with (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What is known of a client by its first bytes.
#[derive(Debug)]
enum Greeting {
    /// These may be the beginning of [`PREFACE`]. hyper tells it from a bad request only if all of
    /// it comes at once.
    Open(Vec<u8>),
    /// It speaks HTTP/1, or nothing that makes sense.
    Http1,
    /// It speaks HTTP/2, and this has been read of that already.
    Http2(Bytes),
}

/// See the module.
#[derive(Debug)]
pub struct ClientIo {
    stream: Transport,
    client: Arc<Client>,
    greeting: Greeting,
}

impl ClientIo {
    /// Watches `stream`, on which nothing was read yet, for `client`.
    pub fn new(stream: Transport, client: Arc<Client>) -> Self {
        // With TLS the handshake has told what is spoken (RFC 9113 section 3.2).
        let greeting = match stream.is_tls() {
            true => Greeting::Http1,
            false => Greeting::Open(Vec::new()),
        };
        Self { stream, client, greeting }
    }

    /// The same of a client that has begun with HTTP/2, with all that was read of it.
    pub fn http2(stream: Transport, client: Arc<Client>, early: Bytes) -> Self {
        Self { stream, client, greeting: Greeting::Http2(early) }
    }

    /// What is below.
    pub fn into_inner(self) -> Transport {
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

    fn poll_http1(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if read.is_ready() {
            self.client.pace.read();
        }
        read
    }

    /// Reads on for as long as what came might be the beginning of the preface.
    fn poll_greeting(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let start = buffer.filled().len();
        loop {
            let Greeting::Open(held) = &mut self.greeting else { return Poll::Ready(Ok(())) };
            let held = std::mem::take(held);
            let room = buffer.remaining();
            buffer.put_slice(&held[..held.len().min(room)]);
            let read = self.poll_http1(cx, buffer);
            let came = &buffer.filled()[start..];
            let is_more = came.len() > held.len();
            let may_be = came.len() < PREFACE.len() && PREFACE.starts_with(came);
            if read.is_pending() || (is_more && may_be && came.len() < room) {
                self.greeting = Greeting::Open(came.to_vec());
                buffer.set_filled(start);
                ready!(read)?;
                continue;
            }
            self.greeting = Greeting::Http1;
            return read;
        }
    }
}

impl AsyncRead for ClientIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        match &mut this.greeting {
            Greeting::Http1 => this.poll_http1(cx, buffer),
            Greeting::Open(_) => this.poll_greeting(cx, buffer),
            Greeting::Http2(early) if early.is_empty() => {
                // What comes may be a part of any stream, or of none.
                Pin::new(&mut this.stream).poll_read(cx, buffer)
            }
            Greeting::Http2(early) => {
                let size = early.len().min(buffer.remaining());
                buffer.put_slice(&early[..size]);
                early.advance(size);
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl AsyncWrite for ClientIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.note(&written);
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.note_wire();
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.note(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
