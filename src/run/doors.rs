//! The addresses that accept clients, and how a reload exchanges them: what is new is bound before
//! anything changes, and nobody is refused at an address that old and new share.

use std::net::SocketAddr;
use std::time::Duration;

use pingora_runtime::NoStealRuntime;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::config::types::Listener;
use crate::listener::{self, BindError, Bound, Worker};

/// A listener that another one takes over from goes on this long: clients that it has greeted may
/// still be on their way, by a round trip.
const OVERLAP: Duration = Duration::from_secs(1);

/// An address that accepts; closes when dropped.
#[derive(Debug)]
struct Open {
    /// As the configuration says, maybe with port 0.
    asked: SocketAddr,
    address: SocketAddr,
    _open: watch::Sender<bool>,
}

impl Open {
    fn is_at(&self, address: SocketAddr) -> bool {
        self.asked == address || self.address == address
    }
}

/// Sockets that are bound and not yet served, with the address that the configuration says.
pub(super) type Unserved = Vec<(SocketAddr, Bound)>;

/// Every address that accepts clients.
#[derive(Debug, Default)]
pub(super) struct Doors {
    open: Vec<Open>,
    /// Hold those that another one takes over from.
    leaving: JoinSet<()>,
}

impl Doors {
    /// The addresses that accept clients.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.open.iter().map(|open| open.address).collect()
    }

    /// Binds those of `asked` that are not open, and changes nothing.
    pub(super) fn bind(&self, asked: &[Listener], workers: usize) -> Result<Unserved, BindError> {
        let is_open = |new: &&Listener| self.open.iter().any(|open| open.is_at(new.address));
        let stays = |open: &Open| asked.iter().any(|new| open.is_at(new.address));
        let bind = |new: &Listener| {
            let overlaps = |open: &Open| overlap(open.address, new.address);
            let shared = self.open.iter().any(|open| overlaps(open) && !stays(open));
            Ok((new.address, listener::bind(new.address, workers, shared)?))
        };
        asked.iter().filter(|new| !is_open(new)).map(bind).collect()
    }

    /// Serves `unserved`, and closes what is neither in `asked` nor a part of it.
    pub(super) fn exchange(
        &mut self,
        asked: &[Listener],
        unserved: Unserved,
        (runtime, workers): (&NoStealRuntime, &[Worker]),
    ) {
        // A wider address is also served by the narrower one that was there: closing a socket
        // resets whoever is about to be accepted, and this one need not be closed.
        let serves = |open: &Open| {
            asked.iter().any(|new| open.is_at(new.address) || covers(new.address, open.address))
        };
        let (staying, leaving): (Vec<_>, _) = self.open.drain(..).partition(serves);
        self.open = staying;
        for (asked, bound) in unserved {
            let (sender, open) = watch::channel(true);
            for (worker, socket) in workers.iter().zip(bound.sockets) {
                let accepting = listener::accept(worker.clone(), socket, open.clone());
                runtime.get_runtime_at(worker.index).spawn(accepting);
            }
            tracing::info!(address = %bound.address, "listening");
            self.open.push(Open { asked, address: bound.address, _open: sender });
        }
        while self.leaving.try_join_next().is_some() {}
        for old in leaving {
            if self.open.iter().any(|open| overlap(open.address, old.address)) {
                self.leaving.spawn(async move {
                    tokio::time::sleep(OVERLAP).await;
                    drop(old);
                });
            }
        }
    }

    /// Accepts nobody any more.
    pub(super) async fn close(&mut self) {
        self.open.clear();
        self.leaving.shutdown().await;
    }
}

/// Whether a client of `narrow` can be accepted at `wide` too.
fn covers(wide: SocketAddr, narrow: SocketAddr) -> bool {
    // Linux lets an IPv6 wildcard take IPv4 too, unless it is told otherwise.
    wide.port() == narrow.port()
        && wide.ip().is_unspecified()
        && (wide.is_ipv6() || narrow.is_ipv4())
}

/// Whether one client could be accepted at either.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    a == b || covers(a, b) || covers(b, a)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_covers_the_addresses_of_its_port_and_family() {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        for (wide, narrow, expected) in [
            ("0.0.0.0:80", "127.0.0.1:80", true),
            ("0.0.0.0:80", "127.0.0.1:81", false),
            ("0.0.0.0:80", "[::1]:80", false),
            ("[::]:80", "[::1]:80", true),
            ("[::]:80", "0.0.0.0:80", true),
            ("0.0.0.0:80", "[::]:80", false),
            ("127.0.0.1:80", "127.0.0.1:80", false),
        ] {
            assert_eq!(covers(address(wide), address(narrow)), expected, "{wide} {narrow}");
        }
        assert!(overlap(address("127.0.0.1:80"), address("0.0.0.0:80")));
        assert!(!overlap(address("127.0.0.1:80"), address("127.0.0.2:80")));
    }
}
