//! How a process that dies looks to whoever was connected to it: a reset, for embedded instances and for
//! those of the demo.

use std::io;
use std::time::Duration;

use socket2::{SockRef, Socket};
use tokio::net::TcpStream;

/// Resets the connection where its task is stopped half way. It holds a second descriptor of the
/// socket, because by then the first one is buried in hyper or in the tunnel.
pub(crate) struct ResetOnDrop(Option<Socket>);

impl ResetOnDrop {
    pub(crate) fn watch(stream: &TcpStream) -> io::Result<Self> {
        SockRef::from(stream).try_clone().map(|socket| Self(Some(socket)))
    }

    pub(crate) fn ended(&mut self) {
        self.0 = None;
    }
}

impl Drop for ResetOnDrop {
    fn drop(&mut self) {
        if let Some(socket) = &self.0 {
            // A linger of zero makes the last close send RST. Failure means it is gone already.
            let _ = socket.set_linger(Some(Duration::ZERO));
        }
    }
}
