//! A client's connection as the request path sees it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use http::Version;
use http::header::HeaderValue;

use crate::instance::{Instance, Roster};
use crate::proxy::burst::{Burst, Joined};
use crate::proxy::error::Reason;
use crate::proxy::headers::{self, Origin};
use crate::proxy::interim::Interim;
use crate::proxy::upgrade::Opening;
use crate::snapshot::{Live, Snapshot};
use crate::tunnel::registry::Registry;

/// What is known of a client's connection for as long as it lasts, or of one stream of it.
#[derive(Debug)]
pub struct Client {
    /// The connection of a stream.
    connection: Option<Arc<Self>>,
    /// Where its streams go that bring no token.
    burst: Burst,
    /// Whether this one is among them.
    joined: Joined,
    /// What all workers share.
    pub live: Arc<Live>,
    /// The worker that this connection belongs to.
    pub worker: usize,
    /// That worker's tunnels and streams.
    pub registry: Arc<Registry>,
    /// The other end.
    pub peer: SocketAddr,
    peer_text: HeaderValue,
    /// A tunnel that begins when the 101 has been sent.
    opening: Mutex<Option<Box<Opening>>>,
    /// Why Burdock is about to close it in the middle of a request.
    late: OnceLock<Reason>,
    /// Whether a head has come on it that has a length and a coding, of which hyper tells one.
    framed_twice: AtomicBool,
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
        peer: SocketAddr,
    ) -> Self {
        // An IPv4 client of a dual-stack socket is an IPv4 client.
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        let peer_text = HeaderValue::try_from(peer.ip().to_string())
            .expect("an address is made of header-safe characters");
        let (opening, late) = (Mutex::new(None), OnceLock::new());
        Self {
            connection: None,
            burst: Burst::default(),
            joined: Joined::default(),
            live,
            worker,
            registry,
            peer,
            peer_text,
            opening,
            late,
            framed_twice: AtomicBool::new(false),
            interim: Interim::default(),
            pace: Pace::new(),
        }
    }

    /// The client of a stream of this connection.
    pub fn stream(self: &Arc<Self>) -> Self {
        Self {
            connection: Some(Arc::clone(self)),
            burst: Burst::default(),
            joined: Joined::default(),
            live: Arc::clone(&self.live),
            worker: self.worker,
            registry: Arc::clone(&self.registry),
            peer: self.peer,
            peer_text: self.peer_text.clone(),
            opening: Mutex::new(None),
            late: OnceLock::new(),
            framed_twice: AtomicBool::new(false),
            interim: Interim::default(),
            pace: Pace::new(),
        }
    }

    /// Whether it is a stream of a connection.
    pub fn is_stream(&self) -> bool {
        self.connection.is_some()
    }

    /// The other end's address as text.
    pub fn peer_text(&self) -> &str {
        self.peer_text.to_str().unwrap_or_default()
    }

    /// What instances are told of it, where it speaks `version`.
    pub fn origin(&self, snapshot: &Snapshot, version: Version) -> Origin<'_> {
        let trusted = headers::is_trusted(self.peer.ip(), &snapshot.config.trusted_proxies);
        Origin { peer: self.peer.ip(), peer_text: &self.peer_text, trusted, version }
    }

    /// A request has begun that is over when what this gives is dropped.
    pub fn stay_busy(self: &Arc<Self>) -> Busy {
        self.pace.begin();
        if let Some(connection) = &self.connection {
            connection.pace.begin();
        }
        Busy(Arc::clone(self))
    }

    /// It may take nothing of its answer for this long.
    pub fn allow_idle(&self, idle: Duration) {
        self.pace.allow_idle(idle);
        if let Some(connection) = &self.connection {
            connection.pace.allow_idle(idle);
        }
    }

    /// A part of an answer was handed over, or there is room for the next: how a stream's client
    /// keeps up is not seen at its socket.
    pub fn keeps_up(&self, does: bool) {
        if self.is_stream() {
            self.pace.wrote(does);
        }
    }

    /// A head that is framed twice has come.
    pub fn frame_twice(&self) {
        self.framed_twice.store(true, Ordering::Relaxed);
    }

    /// Whether a request on it that has a coding may have had a length as well.
    pub fn is_framed_twice(&self) -> bool {
        self.framed_twice.load(Ordering::Relaxed)
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

/// Says that a connection is in the middle of a request: of its answer, or of a body that outlasts
/// an early answer.
#[derive(Debug)]
pub struct Busy(Arc<Client>);

impl Drop for Busy {
    fn drop(&mut self) {
        let now = Instant::now();
        self.0.pace.end(now);
        if let Some(connection) = &self.0.connection {
            connection.pace.end(now);
        }
    }
}

/// Where a connection stands in its requests: written by one worker, so all is relaxed.
///
/// Instants are microseconds since `start`, 0 for never.
#[derive(Debug)]
pub struct Pace {
    start: Instant,
    /// Requests that have begun less those that have ended.
    busy: AtomicU64,
    /// When the last request ended.
    rested: AtomicU64,
    /// When the first byte of the next head came.
    begun: AtomicU64,
    /// Since when the client has taken nothing of what was written.
    blocked: AtomicU64,
    /// How long it may do so, in microseconds.
    idle: AtomicU64,
}

/// What a connection is waiting for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waits {
    /// A request's first byte on a new connection, or the rest of a head, since this instant.
    Head(Instant, HeadBytes),
    /// The next request.
    Request(Instant),
    /// An answer, or the client to take it since this instant.
    Answer(Option<Instant>),
}

/// Whether any of a head has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadBytes {
    /// Not yet.
    None,
    /// Some.
    Some,
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl Pace {
    fn new() -> Self {
        let never = || AtomicU64::new(0);
        Self {
            start: Instant::now(),
            busy: never(),
            rested: never(),
            begun: never(),
            blocked: never(),
            idle: AtomicU64::new(u64::MAX),
        }
    }

    fn now(&self) -> u64 {
        micros(self.start.elapsed()).max(1)
    }

    fn instant(&self, micros: u64) -> Instant {
        self.start + Duration::from_micros(micros)
    }

    /// Whether nothing has been asked for yet.
    pub fn is_fresh(&self) -> bool {
        !self.is_busy() && self.rested.load(Ordering::Relaxed) == 0
    }

    /// From now on bytes are no head by themselves.
    pub fn begin_streams(&self) {
        self.begun.store(0, Ordering::Relaxed);
    }

    /// Bytes came from the client.
    pub fn read(&self) {
        if self.busy.load(Ordering::Relaxed) == 0 && self.begun.load(Ordering::Relaxed) == 0 {
            self.begun.store(self.now(), Ordering::Relaxed);
        }
    }

    /// A write was taken in full, in part, or not at all.
    pub fn wrote(&self, progress: bool) {
        let blocked = self.blocked.load(Ordering::Relaxed) != 0;
        if progress && blocked {
            self.blocked.store(0, Ordering::Relaxed);
        } else if !progress && !blocked {
            self.blocked.store(self.now(), Ordering::Relaxed);
        }
    }

    /// A request's head is complete.
    pub fn begin(&self) {
        self.busy.fetch_add(1, Ordering::Relaxed);
        self.begun.store(0, Ordering::Relaxed);
    }

    /// A request is answered.
    pub fn end(&self, now: Instant) {
        self.busy.fetch_sub(1, Ordering::Relaxed);
        let rested = micros(now.saturating_duration_since(self.start)).max(1);
        self.rested.store(rested, Ordering::Relaxed);
    }

    /// The client may take nothing of its answer for this long.
    pub fn allow_idle(&self, idle: Duration) {
        self.idle.store(micros(idle), Ordering::Relaxed);
    }

    /// How long the client may take nothing of its answer.
    pub fn idle(&self) -> Duration {
        Duration::from_micros(self.idle.load(Ordering::Relaxed))
    }

    /// Whether it is in the middle of a request.
    pub fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Relaxed) > 0
    }

    /// What it waits for, and since when.
    pub fn waits(&self) -> Waits {
        let load = |instant: &AtomicU64| match instant.load(Ordering::Relaxed) {
            0 => None,
            micros => Some(self.instant(micros)),
        };
        let blocked = load(&self.blocked);
        if self.is_busy() || blocked.is_some() {
            return Waits::Answer(blocked);
        }
        match (load(&self.begun), load(&self.rested)) {
            (Some(begun), _) => Waits::Head(begun, HeadBytes::Some),
            (None, Some(rested)) => Waits::Request(rested),
            (None, None) => Waits::Head(self.start, HeadBytes::None),
        }
    }
}
