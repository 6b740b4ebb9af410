//! The addresses that accept clients or scrapers, and how a reload exchanges them: what is new is
//! bound before anything changes, and nobody is refused at an address that old and new share.

use std::net::{SocketAddr, TcpListener as StdListener};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::admin;
use crate::admin::desk::Desk;
use crate::config::types::{Admin, Config};
use crate::listener::manner::Manner;
use crate::listener::{self, BindError, Bound, Worker};
use crate::run::StartError;
use crate::run::inherited::{Given, Inherited};
use crate::run::threads::Threads;
use crate::snapshot;
use crate::tls::automatic::Automatic;
use crate::tls::server::Shared;

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

/// What keeps a listener open.
#[derive(Debug)]
struct Accepting {
    /// Tells those who accept how to.
    how: watch::Sender<Arc<Manner>>,
    /// The same sockets once more, for a process that takes over.
    sockets: Vec<StdListener>,
}

type Listening = Open<Accepting>;

/// What keeps the admin listener open.
#[derive(Debug)]
struct Scraped {
    _serving: JoinSet<()>,
    /// The same socket once more.
    socket: Option<StdListener>,
}

/// Sockets that are bound and not yet served.
#[derive(Debug)]
pub(super) struct Unserved {
    /// How each listener of the configuration serves, with its sockets if it is not open.
    listeners: Vec<(Arc<Manner>, Option<Bound>)>,
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
    admin: Option<Open<Scraped>>,
    /// What the handshakes of all listeners share.
    shared: Shared,
}

impl Doors {
    /// The addresses that accept clients.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.open.iter().map(|open| open.address).collect()
    }

    /// Certificates that Burdock gets for itself.
    pub(super) fn automatic(&self) -> &Arc<Automatic> {
        &self.shared.automatic
    }

    /// The address of the admin listener.
    pub(super) fn admin(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(|open| open.address)
    }

    /// Binds what `config` asks for and is not open, unless it is inherited, and changes nothing.
    pub(super) fn bind(
        &self,
        config: &Config,
        workers: usize,
        inherited: &mut Inherited,
    ) -> Result<Unserved, StartError> {
        let asked = &config.listeners;
        let is_open = |address| self.open.iter().any(|open| open.is_at(address));
        let stays = |open: &Listening| asked.iter().any(|new| open.is_at(new.address));
        let mut listeners = Vec::with_capacity(asked.len());
        for new in asked {
            let manner = Arc::new(Manner::new(new.clone(), &self.shared)?);
            let overlaps = |open: &Listening| overlap(open.address, new.address);
            let bound = if is_open(new.address) {
                None
            } else if let Some(Given { address, sockets, .. }) = inherited.take(new.address) {
                Some(listener::adopt(address, sockets, workers)?)
            } else {
                let shared = self.open.iter().any(|open| overlaps(open) && !stays(open))
                    || inherited.overlaps(new.address);
                Some(listener::bind(new.address, workers, shared)?)
            };
            listeners.push((manner, bound));
        }
        Ok(Unserved { listeners, admin: self.bind_admin(config.admin.as_ref(), inherited)? })
    }

    /// An address that nobody asked for may be in use; one that was asked for may not.
    fn bind_admin(
        &self,
        asked: Option<&Admin>,
        inherited: &mut Inherited,
    ) -> Result<Option<(SocketAddr, TcpListener)>, BindError> {
        let Some(asked) = asked else { return Ok(None) };
        if self.admin.as_ref().is_some_and(|open| open.is_at(asked.address)) {
            return Ok(None);
        }
        let given =
            inherited.take(asked.address).and_then(|given| given.sockets.into_iter().next());
        let bound = match given {
            Some(socket) => admin::adopt(asked.address, socket),
            None => admin::bind(asked.address),
        };
        match bound {
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
        desk: &Arc<Desk>,
        crew: (&Threads, &[Worker]),
    ) {
        let admin = config.admin.as_ref();
        let is_over = |open: &mut Open<Scraped>| !admin.is_some_and(|it| open.is_at(it.address));
        if self.admin.take_if(is_over).is_some() {
            desk.streams.end();
        }
        if let Some((asked, socket)) = unserved.admin {
            let address = socket.local_addr().unwrap_or(asked);
            // Without a copy a process that takes over has to find the address free.
            let copy = socket.as_fd().try_clone_to_owned().ok().map(StdListener::from);
            let mut serving = JoinSet::new();
            serving.spawn(admin::serve(socket, Arc::clone(desk)));
            tracing::info!(%address, "admin listening");
            let handle = Scraped { _serving: serving, socket: copy };
            self.admin = Some(Open { asked, address, handle });
        }
        self.exchange_listeners(unserved.listeners, crew);
        let bound = |open: &Listening| snapshot::Bound { asked: open.asked, address: open.address };
        desk.live.accepts_at(self.open.iter().map(bound).collect());
    }

    fn exchange_listeners(
        &mut self,
        asked: Vec<(Arc<Manner>, Option<Bound>)>,
        (threads, workers): (&Threads, &[Worker]),
    ) {
        // A wider address is also served by the narrower one that was there: closing a socket
        // resets whoever is about to be accepted, and this one need not be closed.
        let serves = |open: &Listening| {
            let mut addresses = asked.iter().map(|(new, _)| new.listener.address);
            addresses.any(|new| open.is_at(new) || covers(new, open.address))
        };
        let (staying, leaving): (Vec<_>, _) = self.open.drain(..).partition(serves);
        self.open = staying;
        for open in &self.open {
            let told = asked.iter().find(|(new, _)| open.is_at(new.listener.address));
            if let Some((told, _)) = told {
                open.handle.how.send_replace(Arc::clone(told));
            }
        }
        for (manner, bound) in asked {
            let Some(bound) = bound else { continue };
            let (how, open) = watch::channel(Arc::clone(&manner));
            let copies = bound.sockets.iter().filter_map(|socket| socket.try_clone().ok());
            let handle = Accepting { how, sockets: copies.collect() };
            for (worker, socket) in workers.iter().cycle().zip(bound.sockets) {
                let accepting = listener::accept(worker.clone(), socket, open.clone());
                self.accepting.spawn_on(accepting, threads.of(worker.index));
            }
            tracing::info!(address = %bound.address, "listening");
            let (asked, address) = (manner.listener.address, bound.address);
            self.open.push(Open { asked, address, handle });
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

    /// Every socket once more, for a process that takes over.
    pub(super) fn sockets(&self) -> Vec<Given> {
        let listeners =
            self.open.iter().map(|open| (open.asked, open.address, &open.handle.sockets[..]));
        let admin = self
            .admin
            .as_ref()
            .map(|open| (open.asked, open.address, open.handle.socket.as_slice()));
        let copy = |(asked, address, sockets): (_, _, &[StdListener])| {
            let sockets: Vec<_> =
                sockets.iter().filter_map(|socket| socket.try_clone().ok()).collect();
            (!sockets.is_empty()).then_some(Given { asked, address, sockets })
        };
        listeners.chain(admin).filter_map(copy).collect()
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
pub(super) fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
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
