//! A client's connection as the request path sees it.

use std::net::{IpAddr, SocketAddr};
use std::ops::Deref;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use http::Version;
use http::header::HeaderValue;

use crate::config::types::HttpsRedirect;
use crate::instance::body::Hold;
use crate::instance::{Instance, Roster};
use crate::observe::red::Red;
use crate::proxy::burst::{Burst, Joined};
use crate::proxy::error::Reason;
use crate::proxy::headers::{self, Origin};
use crate::proxy::interim::Interim;
use crate::proxy::pace::Pace;
use crate::proxy::upgrade::Opening;
use crate::proxy_protocol::{Ends, Header};
use crate::snapshot::{Live, Snapshot};
use crate::tls::session::Session;
use crate::tunnel::registry::Registry;

/// By what way a client came.
#[derive(Debug, Clone, Default)]
pub struct Arrival {
    /// Of its connection, if that is TLS.
    pub session: Option<Arc<Session>>,
    /// Whether it is sent to https.
    pub redirect: Option<HttpsRedirect>,
    /// Counts the requests of its listener, on its worker.
    pub red: Arc<Red>,
}

/// What is known of a client's connection for as long as it lasts, or of one stream of it.
#[derive(Debug)]
pub struct Client {
    /// The connection of a stream.
    connection: Option<Arc<Self>>,
    /// Where its streams go that bring no token.
    burst: Burst,
    /// The number in a traffic split of those that bring none.
    number: OnceLock<u32>,
    /// Whether this one is among them.
    joined: Joined,
    /// What all workers share.
    pub live: Arc<Live>,
    /// The worker that this connection belongs to.
    pub worker: usize,
    /// That worker's tunnels and streams.
    pub registry: Arc<Registry>,
    /// The other end, or whom that speaks for by the PROXY protocol.
    pub peer: SocketAddr,
    /// Where that connected to.
    reached: SocketAddr,
    peer_text: HeaderValue,
    /// How it came.
    pub arrival: Arrival,
    /// Dropped when its connection is no more.
    hold: Mutex<Option<Hold>>,
    /// A tunnel that begins when the 101 has been sent.
    opening: Mutex<Option<Box<Opening>>>,
    /// Why Burdock is about to close it in the middle of a request.
    late: OnceLock<Reason>,
    /// What is to be sent before the next answer.
    pub interim: Interim,
    /// What the connection's watchdog looks at.
    pub pace: Pace,
}

impl Client {
    /// A connection that was just accepted.
    pub fn new(
        live: Arc<Live>,
        (worker, registry): (usize, Arc<Registry>),
        (ends, hold): (Ends, Hold),
        arrival: Arrival,
    ) -> Self {
        // An IPv4 client of a dual-stack socket is an IPv4 client.
        let canonical = |it: SocketAddr| SocketAddr::new(it.ip().to_canonical(), it.port());
        let (peer, reached) = (canonical(ends.source), canonical(ends.destination));
        let peer_text = HeaderValue::try_from(peer.ip().to_string())
            .expect("an address is made of header-safe characters");
        let (opening, late) = (Mutex::new(None), OnceLock::new());
        let pace = Pace::new(&live.snapshot());
        Self {
            connection: None,
            burst: Burst::default(),
            number: OnceLock::new(),
            joined: Joined::default(),
            live,
            worker,
            registry,
            peer,
            reached,
            hold: Mutex::new(Some(hold)),
            peer_text,
            arrival,
            opening,
            late,
            interim: Interim::default(),
            pace,
        }
    }

    /// The client of a stream of this connection.
    pub fn stream(self: &Arc<Self>) -> Self {
        Self {
            connection: Some(Arc::clone(self)),
            burst: Burst::default(),
            number: OnceLock::new(),
            joined: Joined::default(),
            live: Arc::clone(&self.live),
            worker: self.worker,
            registry: Arc::clone(&self.registry),
            peer: self.peer,
            reached: self.reached,
            hold: Mutex::default(),
            peer_text: self.peer_text.clone(),
            arrival: self.arrival.clone(),
            opening: Mutex::new(None),
            late: OnceLock::new(),
            interim: Interim::default(),
            pace: Pace::new(&self.live.snapshot()),
        }
    }

    /// Whether it is a stream of a connection.
    pub fn is_stream(&self) -> bool {
        self.connection.is_some()
    }

    /// Whether its connection ends with the next answer: the process leaves, or needs its descriptor.
    /// Nothing else says so in HTTP/1.1 (RFC 9112 section 9.6); a stream's is told otherwise.
    pub fn is_leaving(&self) -> bool {
        let leaves = self.live.is_leaving() || self.live.counters.are_short();
        leaves && !self.is_stream()
    }

    /// The other end's address as text.
    pub fn peer_text(&self) -> &str {
        self.peer_text.to_str().unwrap_or_default()
    }

    /// What instances are told of it in front of a connection, for a request that came from `told`.
    pub fn introduced(&self, told: Option<IpAddr>) -> Header {
        // Whoever is told of in a field has a port that nobody knows.
        let source = told.map_or(self.peer, |address| SocketAddr::new(address, 0));
        Header::Proxied(Ends { source, destination: self.reached })
    }

    /// What instances are told of it, where it speaks `version`.
    pub fn origin(&self, snapshot: &Snapshot, version: Version) -> Origin<'_> {
        let trusted = headers::is_trusted(self.peer.ip(), &snapshot.config.trusted_proxies);
        let https = self.arrival.session.is_some();
        Origin { peer: self.peer.ip(), peer_text: &self.peer_text, trusted, version, https }
    }

    /// A request has begun that is over when what this gives is dropped.
    pub fn stay_busy(self: &Arc<Self>) -> Busy {
        self.pace.begin();
        if let Some(connection) = &self.connection {
            connection.pace.begin();
        }
        Busy { client: Arc::clone(self), is_over: false }
    }

    /// It may take nothing of its answer for this long, and must take so many bytes in a second.
    pub fn allow_idle(&self, idle: Duration, slowest: Option<u64>) {
        self.pace.allow_idle(idle);
        self.pace.ask(slowest);
        if let Some(connection) = &self.connection {
            connection.pace.allow_idle(idle);
        }
    }

    /// A part of an answer was handed over, of so many bytes, or there is room for the next: how a
    /// stream's client keeps up is not seen at its socket.
    pub fn keeps_up(&self, handed: Option<u64>) {
        if self.is_stream() {
            self.pace.wrote(Some(handed.unwrap_or_default()));
            if handed.is_some() {
                self.pace.wrote(None);
            }
        }
    }

    /// The connection is about to be closed, for this reason.
    pub fn cut(&self, reason: Reason) {
        // The first reason is the one.
        let _ = self.late.set(reason);
    }

    /// Why it was closed, if it was.
    pub fn late(&self) -> Option<Reason> {
        self.late.get().copied()
    }

    /// Where this stream goes if it brings no token: with the others that are in flight, where they
    /// are somewhere that `fits`, else where `make` says.
    pub fn together(
        &self,
        roster: &Roster,
        fits: impl FnOnce(&Arc<Instance>) -> bool,
        make: impl FnOnce() -> Option<Arc<Instance>>,
    ) -> Option<Arc<Instance>> {
        match &self.connection {
            Some(connection) => connection.burst.share(&self.joined, roster, fits, make),
            None => make(),
        }
    }

    /// Where streams of this service are that are in flight beside this one and brought no token.
    pub fn companion(&self, service: &str) -> Option<Arc<Instance>> {
        self.connection.as_ref()?.burst.instance(service)
    }

    /// The number that all streams of its connection get which bring none: of several at once the client
    /// may keep any.
    pub fn number(&self, draw: impl FnOnce() -> u32) -> u32 {
        *self.connection.as_deref().unwrap_or(self).number.get_or_init(draw)
    }

    /// This stream has its answer, and its client a token.
    pub fn part(&self) {
        if let Some(connection) = &self.connection {
            connection.burst.leave(&self.joined);
        }
    }

    /// Why a request that nobody ended has ended.
    pub fn gone(&self) -> Reason {
        let otherwise = || match self.live.is_cut() {
            true => Reason::ShutdownDeadline,
            false => Reason::ClientClosed,
        };
        let of_connection = || self.connection.as_ref().and_then(|it| it.late.get());
        self.late.get().or_else(of_connection).copied().unwrap_or_else(otherwise)
    }

    /// What is dropped when its connection is no more, for the tunnel that the connection becomes.
    pub fn hand_over(&self) -> Option<Hold> {
        self.hold.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Leaves a tunnel to begin when the 101 has been sent.
    pub fn open(&self, opening: Box<Opening>) {
        *self.opening.lock().unwrap_or_else(PoisonError::into_inner) = Some(opening);
    }

    /// The tunnel to begin, if there is one.
    pub fn opening(&self) -> Option<Box<Opening>> {
        self.opening.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.part();
    }
}

/// A request whose head is complete, until somebody opens its account.
#[derive(Debug)]
pub struct Came {
    /// Keeps its connection from being thought idle.
    pub busy: Busy,
    /// When.
    pub at: Instant,
}

impl Came {
    /// Now, by the connection of `client`.
    pub fn now(client: &Arc<Client>) -> Self {
        Self { busy: client.stay_busy(), at: Instant::now() }
    }

    /// By whose connection.
    pub fn client(&self) -> &Arc<Client> {
        &self.busy
    }
}

/// Says that a connection is in the middle of a request: of its answer, or of a body that outlasts
/// an early answer.
#[derive(Debug)]
pub struct Busy {
    client: Arc<Client>,
    is_over: bool,
}

impl Busy {
    /// It no longer is.
    pub fn end(&mut self, now: Instant) {
        if std::mem::replace(&mut self.is_over, true) {
            return;
        }
        self.client.pace.end(now);
        if let Some(connection) = &self.client.connection {
            connection.pace.end(now);
        }
    }
}

impl Deref for Busy {
    type Target = Arc<Client>;

    fn deref(&self) -> &Arc<Client> {
        &self.client
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        if !self.is_over {
            self.end(Instant::now());
        }
    }
}
