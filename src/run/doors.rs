//! The addresses that accept clients or scrapers, and how a reload exchanges them: what is new is
//! bound before anything changes, and nobody is refused at an address that old and new share.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pingora_runtime::NoStealRuntime;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::admin;
use crate::config::types::{Admin, Config, Listener};
use crate::listener::{self, BindError, Bound, Worker};
use crate::snapshot::Live;

/// A listener that another one takes over from goes on this long: clients that it has greeted may
/// still be on their way, by a round trip.
const OVERLAP: Duration = Duration::from_secs(1);

/// An address that accepts until its handle is dropped.
#[derive(Debug)]
struct Open<Handle> {
    /// As the configuration says, maybe with port 0.
    asked: SocketAddr,
    address: SocketAddr,
    handle: Handle,
}

impl<Handle> Open<Handle> {
    fn is_at(&self, address: SocketAddr) -> bool {
        self.asked == address || self.address == address
    }
}

/// Tells those who accept how to.
type Listening = Open<watch::Sender<Arc<Listener>>>;

/// Sockets that are bound and not yet served.
#[derive(Debug)]
pub(super) struct Unserved {
    /// With what the configuration says of them.
    listeners: Vec<(Listener, Bound)>,
    admin: Option<(SocketAddr, TcpListener)>,
}

/// Every address that accepts.
#[derive(Debug, Default)]
pub(super) struct Doors {
    open: Vec<Listening>,
    /// Hold those that another one takes over from.
    leaving: JoinSet<()>,
    /// The tasks that accept, on all workers.
    accepting: JoinSet<()>,
    admin: Option<Open<JoinSet<()>>>,
}

impl Doors {
    /// The addresses that accept clients.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.open.iter().map(|open| open.address).collect()
    }

    /// The address of the admin listener.
    pub(super) fn admin(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(|open| open.address)
    }

    /// Binds what `config` asks for and is not open, and changes nothing.
    pub(super) fn bind(&self, config: &Config, workers: usize) -> Result<Unserved, BindError> {
        let asked = &config.listeners;
        let is_open = |new: &&Listener| self.open.iter().any(|open| open.is_at(new.address));
        let stays = |open: &Listening| asked.iter().any(|new| open.is_at(new.address));
        let bind = |new: &Listener| {
            let overlaps = |open: &Listening| overlap(open.address, new.address);
            let shared = self.open.iter().any(|open| overlaps(open) && !stays(open));
            Ok((new.clone(), listener::bind(new.address, workers, shared)?))
        };
        let listeners: Result<_, _> = asked.iter().filter(|new| !is_open(new)).map(bind).collect();
        Ok(Unserved { listeners: listeners?, admin: self.bind_admin(config.admin.as_ref())? })
    }

    /// An address that nobody asked for may be in use; one that was asked for may not.
    fn bind_admin(
        &self,
        asked: Option<&Admin>,
    ) -> Result<Option<(SocketAddr, TcpListener)>, BindError> {
        let Some(asked) = asked else { return Ok(None) };
        if self.admin.as_ref().is_some_and(|open| open.is_at(asked.address)) {
            return Ok(None);
        }
        match admin::bind(asked.address) {
            Ok(socket) => Ok(Some((asked.address, socket))),
            Err(error) if asked.explicit => Err(error),
            Err(error) => {
                tracing::warn!(%error, "no admin listener: its default address is taken");
                Ok(None)
            }
        }
    }

    /// Serves `unserved`, and closes what `config` doesn't ask for.
    pub(super) fn exchange(
        &mut self,
        config: &Config,
        unserved: Unserved,
        live: &Arc<Live>,
        crew: (&NoStealRuntime, &[Worker]),
    ) {
        let admin = config.admin.as_ref();
        self.admin.take_if(|open| !admin.is_some_and(|asked| open.is_at(asked.address)));
        if let Some((asked, socket)) = unserved.admin {
            let address = socket.local_addr().unwrap_or(asked);
            let mut serving = JoinSet::new();
            serving.spawn(admin::serve(socket, Arc::clone(live)));
            tracing::info!(%address, "admin listening");
            self.admin = Some(Open { asked, address, handle: serving });
        }
        self.exchange_listeners(&config.listeners, unserved.listeners, crew);
    }

    fn exchange_listeners(
        &mut self,
        asked: &[Listener],
        unserved: Vec<(Listener, Bound)>,
        (runtime, workers): (&NoStealRuntime, &[Worker]),
    ) {
        // A wider address is also served by the narrower one that was there: closing a socket
        // resets whoever is about to be accepted, and this one need not be closed.
        let serves = |open: &Listening| {
            asked.iter().any(|new| open.is_at(new.address) || covers(new.address, open.address))
        };
        let (staying, leaving): (Vec<_>, _) = self.open.drain(..).partition(serves);
        self.open = staying;
        for open in &self.open {
            let told = asked.iter().find(|new| open.is_at(new.address));
            open.handle.send_if_modified(|how| {
                let told = told.filter(|told| **how != **told);
                told.is_some_and(|told| {
                    *how = Arc::new(told.clone());
                    true
                })
            });
        }
        for (asked, bound) in unserved {
            let (asked, listener) = (asked.address, Arc::new(asked));
            let (sender, open) = watch::channel(listener);
            for (worker, socket) in workers.iter().zip(bound.sockets) {
                let accepting = listener::accept(worker.clone(), socket, open.clone());
                self.accepting.spawn_on(accepting, runtime.get_runtime_at(worker.index));
            }
            tracing::info!(address = %bound.address, "listening");
            let address = bound.address;
            self.open.push(Open { asked, address, handle: sender });
        }
        while self.leaving.try_join_next().is_some() {}
        while self.accepting.try_join_next().is_some() {}
        for old in leaving {
            if self.open.iter().any(|open| overlap(open.address, old.address)) {
                self.leaving.spawn(async move {
                    tokio::time::sleep(OVERLAP).await;
                    drop(old);
                });
            }
        }
    }

    /// Lets nobody in any more, apart from those that the kernel has greeted already.
    pub(super) fn close(&mut self) {
        self.open.clear();
        self.leaving.abort_all();
    }

    /// Resolves when those have been let in.
    pub(super) async fn closed(&mut self) {
        while self.leaving.join_next().await.is_some() {}
        while self.accepting.join_next().await.is_some() {}
    }

    /// Answers no scraper any more.
    pub(super) fn close_admin(&mut self) {
        self.admin = None;
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
