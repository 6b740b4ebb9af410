//! Whether an instance still listens.
//!
//! When a process dies, all its tunnels end at once. One of them asks by connecting; those that
//! came to ask before it began share what it learns.
//!
//! A dying process's connections may end before its listener does, and a connection that comes in
//! between is made, then reset. So one that was made is watched for a moment.

use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::Mutex;

/// Without an answer for this long nothing is known.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a connection that was made may yet be reset: the kernel closes the ten thousand sockets
/// of a dead process in less.
const RESET_TIMEOUT: Duration = Duration::from_millis(200);

/// What was last seen, and when the look at it began.
#[derive(Debug, Default)]
pub(super) struct Presence(Mutex<Option<(Instant, bool)>>);

impl Presence {
    /// Whether anybody accepts connections at `address`. `false` only for certain.
    pub(super) async fn look(&self, address: &str) -> bool {
        let came = Instant::now();
        let mut seen = self.0.lock().await;
        if let Some((began, listens)) = *seen
            && began >= came
        {
            return listens;
        }
        let began = Instant::now();
        let refused = matches!(knock(address).await, Err(error) if is_refusal(error.kind()));
        *seen = Some((began, !refused));
        !refused
    }
}

/// Fails where nobody accepts connections. Whatever an instance says to one is its own affair.
async fn knock(address: &str) -> io::Result<()> {
    let Ok(connected) = tokio::time::timeout(PATIENCE, TcpStream::connect(address)).await else {
        return Ok(());
    };
    let mut stream = connected?;
    match tokio::time::timeout(RESET_TIMEOUT, stream.read(&mut [0])).await {
        Ok(read) => read.map(drop),
        Err(_quiet) => Ok(()),
    }
}

fn is_refusal(kind: ErrorKind) -> bool {
    use ErrorKind::{ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable};
    matches!(kind, ConnectionRefused | ConnectionReset | HostUnreachable | NetworkUnreachable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::SockRef;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn those_who_ask_together_share_one_look() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let presence = Presence::default();
        let looks = (0..50).map(|_| presence.look(&address));
        assert!(futures_util::future::join_all(looks).await.iter().all(|listens| *listens));
        let std = listener.into_std().unwrap();
        std.set_nonblocking(true).unwrap();
        let connects = std::iter::from_fn(|| std.accept().ok()).count();
        assert!((1..=3).contains(&connects), "{connects}");
        drop(std);
        assert!(!presence.look(&address).await);
    }

    #[tokio::test]
    async fn one_that_dies_while_it_is_looked_at_is_seen_to() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let dies = async move {
            let (connection, _) = listener.accept().await.unwrap();
            drop(listener);
            // As the kernel ends one that nobody had accepted.
            SockRef::from(&connection).set_linger(Some(Duration::ZERO)).unwrap();
        };
        let presence = Presence::default();
        let (listens, ()) = tokio::join!(presence.look(&address), dies);
        assert!(!listens);
    }
}
