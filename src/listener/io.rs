//! A client's socket that notes its pace for the connection's watchdog, and does what hyper does not:
//! it sends interim answers, sees heads that are framed twice, and ends floods of HTTP/2.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use crate::listener::calm::Calm;
use crate::listener::connection::{LINGER, linger};
use crate::listener::heads::Heads;
use crate::listener::transport::Transport;
use crate::proxy::client::Client;
use crate::proxy::error::Reason;

/// What a client begins HTTP/2 with (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// RFC 9113 section 6.8, for the reason ENHANCE_YOUR_CALM; any stream may have been acted upon.
const GO_AWAY: &[u8] = &[0, 0, 8, 7, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0x0b];

/// What is known of a client by its first bytes.
#[derive(Debug)]
enum Greeting {
    /// These may be the beginning of [`PREFACE`]. hyper tells it from a bad request only if all of
    /// it comes at once.
    Open(Vec<u8>),
    /// It speaks HTTP/1, or nothing that makes sense.
    Http1,
    /// The same, and this has been read of it already.
    Begun(Bytes),
    /// It speaks HTTP/2, and this has been read of that already.
    Http2(Bytes, Box<Calm>),
}

/// See the module.
#[derive(Debug)]
pub struct ClientIo {
    /// Until it is taken away from hyper.
    stream: Option<Transport>,
    client: Arc<Client>,
    greeting: Greeting,
    heads: Heads,
    /// Whether hyper may have more in hand of what it has begun to write.
    is_behind: bool,
    /// What is left of interim answers that are being written.
    interim: Bytes,
}

/// hyper hands over at most this many parts of what it has in hand.
const MOST_PARTS: usize = 64;

impl ClientIo {
    /// Watches `stream`, on which nothing was read yet, for `client`.
    pub fn new(stream: Transport, client: Arc<Client>) -> Self {
        // With TLS the handshake has told what is spoken (RFC 9113 section 3.2).
        let greeting = match stream.is_tls() {
            true => Greeting::Http1,
            false => Greeting::Open(Vec::new()),
        };
        Self::begin(stream, client, greeting)
    }

    /// The same of a client that has begun with HTTP/2, with all that was read of it.
    pub fn http2(stream: Transport, client: Arc<Client>, early: Bytes) -> Self {
        let calm = Box::new(Calm::new(Instant::now()));
        Self::begin(stream, client, Greeting::Http2(early, calm))
    }

    fn begin(stream: Transport, client: Arc<Client>, greeting: Greeting) -> Self {
        let (stream, heads, interim) = (Some(stream), Heads::default(), Bytes::new());
        Self { stream, client, greeting, heads, is_behind: false, interim }
    }

    /// hyper is put in place anew, and has not made use of this yet.
    pub fn put_back(&mut self, read: Bytes) {
        if !read.is_empty() {
            self.client.pace.read();
            self.greeting = Greeting::Begun(read);
        }
    }

    /// What is below, if it still is.
    pub fn get_ref(&self) -> Option<&Transport> {
        self.stream.as_ref()
    }

    /// The same.
    pub fn into_inner(self) -> Option<Transport> {
        self.stream
    }

    fn stream(&mut self) -> io::Result<Pin<&mut Transport>> {
        self.stream.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Hyper had `size` bytes to write, in `parts` parts.
    fn note(&mut self, written: &Poll<io::Result<usize>>, size: usize, parts: usize) {
        self.note_pace(written);
        let wrote_all = matches!(written, Poll::Ready(Ok(count)) if *count == size);
        self.is_behind = !wrote_all || parts >= MOST_PARTS;
    }

    fn note_pace(&mut self, written: &Poll<io::Result<usize>>) {
        if let Some(Transport::Tls(_)) = &self.stream {
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
        let Some(Transport::Tls(stream)) = &mut self.stream else { return };
        let (moved, stuck) = stream.progress();
        if moved > 0 {
            self.client.pace.wrote(Some(moved));
        }
        if stuck {
            self.client.pace.wrote(None);
        }
    }

    /// Ends a connection of HTTP/2 that floods; its client is told if hyper is not in the middle of
    /// something else. What it has sent is read on, since a reset would destroy that.
    fn calm_down(&mut self) -> io::Error {
        self.client.cut(Reason::Flood);
        if let Some(mut stream) = self.stream.take() {
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

    /// Writes interim answers where hyper stands between two messages. Elsewhere they would cut one
    /// in two, and when it has written that one their own answer may follow at once: they are left
    /// out.
    fn poll_interim(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_behind && self.client.interim.is_waiting() {
            drop(self.client.interim.take());
        }
        loop {
            if self.interim.is_empty() {
                if !self.client.interim.is_waiting() {
                    return Poll::Ready(Ok(()));
                }
                self.interim = self.client.interim.take();
            }
            let Some(stream) = &mut self.stream else { return Poll::Ready(Ok(())) };
            let written = Pin::new(stream).poll_write(cx, &self.interim);
            self.note_pace(&written);
            match ready!(written)? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.interim.advance(count),
            }
        }
    }

    fn poll_http1(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let start = buffer.filled().len();
        let read = self.stream()?.poll_read(cx, buffer);
        if read.is_ready() {
            self.client.pace.read();
            if self.heads.see(&buffer.filled()[start..]) {
                self.client.frame_twice();
            }
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
            Greeting::Begun(read) => {
                let size = read.len().min(buffer.remaining());
                buffer.put_slice(&read[..size]);
                read.advance(size);
                if read.is_empty() {
                    this.greeting = Greeting::Http1;
                }
                Poll::Ready(Ok(()))
            }
            Greeting::Http2(early, calm) => {
                let start = buffer.filled().len();
                if early.is_empty() {
                    // What comes may be a part of any stream, or of none.
                    let Some(stream) = &mut this.stream else {
                        return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
                    };
                    ready!(Pin::new(stream).poll_read(cx, buffer))?;
                } else {
                    let size = early.len().min(buffer.remaining());
                    buffer.put_slice(&early[..size]);
                    early.advance(size);
                }
                match calm.exceeds(&buffer.filled()[start..], Instant::now()) {
                    true => Poll::Ready(Err(this.calm_down())),
                    false => Poll::Ready(Ok(())),
                }
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
        ready!(self.poll_interim(cx))?;
        let written = self.stream()?.poll_write(cx, bytes);
        self.note(&written, bytes.len(), 1);
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper flushes when it has nothing in hand.
        self.is_behind = false;
        ready!(self.poll_interim(cx))?;
        let flushed = self.stream()?.poll_flush(cx);
        self.note_wire();
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_interim(cx))?;
        let written = self.stream()?.poll_write_vectored(cx, parts);
        self.note(&written, parts.iter().map(|part| part.len()).sum(), parts.len());
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }
}
