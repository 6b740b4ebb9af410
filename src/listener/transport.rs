//! What a client's bytes come by: its socket, or TLS on it.

use tokio::net::TcpStream;

use crate::instance::stream::{Line, Stream};
use crate::tls;
use crate::tunnel::socket::Socket;

/// See the module.
pub type Transport = Line<tls::stream::Stream>;

impl Transport {
    /// A plain one.
    pub fn plain(stream: TcpStream) -> Self {
        Self::Plain(Stream::new(stream))
    }

    /// Whether it is TLS.
    pub fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// Waits until its socket has something to read, or is found to be broken.
    pub async fn readable(&self) -> std::io::Result<()> {
        match self {
            Self::Plain(stream) => stream.get_ref().readable().await,
            Self::Tls(stream) => stream.socket().readable().await,
        }
    }

    /// For a tunnel.
    pub fn into_socket(self) -> Socket {
        match self {
            Self::Plain(stream) => Socket::Tcp(stream.into_inner()),
            Self::Tls(stream) => Socket::Tls(stream),
        }
    }
}
