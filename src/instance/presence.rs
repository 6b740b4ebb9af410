//! Whether an instance still listens.
//!
//! When a process dies, all its tunnels end at once. One of them asks by connecting; those that
//! came to ask before it began share what it learns.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::sync::Mutex;

/// Without an answer for this long nothing is known.
const PATIENCE: Duration = Duration::from_secs(1);

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
        let connecting = tokio::time::timeout(PATIENCE, TcpStream::connect(address));
        let refused = matches!(connecting.await, Ok(Err(error)) if is_refusal(error.kind()));
        *seen = Some((began, !refused));
        !refused
    }
}

fn is_refusal(kind: ErrorKind) -> bool {
    use ErrorKind::{ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable};
    matches!(kind, ConnectionRefused | ConnectionReset | HostUnreachable | NetworkUnreachable)
}

#[cfg(test)]
mod tests {
    use super::*;
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
}
