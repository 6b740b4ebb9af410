//! The socket of a connection, and what leads to an instance.
//!
//! Small messages go out in one plain send: HTTP/2 hands over frames as slices, and to gather them in the
//! kernel costs more than to copy a few hundred bytes first.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::proxy_protocol::{self, Introduction};
use crate::tls::client::{Alpn, Target, ToInstance};

/// Slices of this many bytes in all are put together.
const SMALL: usize = 1024;

/// A socket that prefers plain sends.
#[derive(Debug)]
pub struct Stream(TcpStream);

impl Stream {
    /// Writes to `stream` in as few and as cheap calls as it can.
    pub fn new(stream: TcpStream) -> Self {
        Self(stream)
    }

    /// The bare socket, lent.
    pub fn get_ref(&self) -> &TcpStream {
        &self.0
    }

    /// The bare socket.
    pub fn into_inner(self) -> TcpStream {
        self.0
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let stream = Pin::new(&mut self.0);
        if let [part] = parts {
            return stream.poll_write(cx, part);
        }
        let mut whole = [0; SMALL];
        match gather(parts, &mut whole) {
            Some(size) => stream.poll_write(cx, &whole[..size]),
            None => stream.poll_write_vectored(cx, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }
}

/// A socket, or TLS on it.
#[derive(Debug)]
pub enum Line<Secured> {
    /// The socket itself.
    Plain(Stream),
    /// Boxed: a plain one should not be as large.
    Tls(Box<Secured>),
}

/// What leads to an instance.
pub type Wire = Line<ToInstance>;

impl Wire {
    /// Connects to `address`, and secures that for `alpn` if there is a `target`. A name is looked up each
    /// time, so that a moved instance is found.
    pub async fn open(
        address: &str,
        introduction: Option<Introduction>,
        target: Option<&Target>,
        alpn: Alpn,
    ) -> Result<Self, OpenError> {
        let stream = TcpStream::connect(address).await.map_err(OpenError::Connect)?;
        stream.set_nodelay(true).map_err(OpenError::Connect)?;
        Self::begin(stream, introduction, target, alpn).await
    }

    /// The same with a socket that is connected already. An introduction goes before all else.
    pub async fn begin(
        mut stream: TcpStream,
        introduction: Option<Introduction>,
        target: Option<&Target>,
        alpn: Alpn,
    ) -> Result<Self, OpenError> {
        if let Some(introduction) = introduction {
            let header = proxy_protocol::write(introduction);
            let written = tokio::io::AsyncWriteExt::write_all(&mut stream, &header);
            written.await.map_err(OpenError::Connect)?;
        }
        match target {
            None => Ok(Self::Plain(Stream::new(stream))),
            Some(target) => {
                let secured =
                    Box::pin(target.secure(stream, alpn)).await.map_err(OpenError::Tls)?;
                Ok(Self::Tls(Box::new(secured)))
            }
        }
    }
}

/// Why no connection was opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The instance could not be connected to.
    #[error("connecting: {0}")]
    Connect(#[source] io::Error),
    /// It was connected to, and then TLS failed.
    #[error("TLS: {0}")]
    Tls(#[source] io::Error),
}

impl<Secured: AsyncRead + Unpin> AsyncRead for Line<Secured> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl<Secured: AsyncWrite + Unpin> AsyncWrite for Line<Secured> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }
}

/// Copies all parts if there is room for them; how many bytes that was.
fn gather(parts: &[IoSlice<'_>], whole: &mut [u8; SMALL]) -> Option<usize> {
    let mut size = 0;
    for part in parts {
        whole.get_mut(size..size + part.len())?.copy_from_slice(part);
        size += part.len();
    }
    Some(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_put_together_as_far_as_there_is_room() {
        let (long, short) = ([1; SMALL - 2], [2; 2]);
        let mut whole = [0; SMALL];
        let parts = [IoSlice::new(&long), IoSlice::new(&short)];
        assert_eq!(gather(&parts, &mut whole), Some(SMALL));
        assert_eq!(whole[SMALL - 3..], [1, 2, 2]);
        let parts = [IoSlice::new(&long), IoSlice::new(&short), IoSlice::new(&[3])];
        assert_eq!(gather(&parts, &mut whole), None);
        assert_eq!(gather(&[], &mut whole), Some(0));
    }
}
