//! A client's connection as the request path sees it.

use std::net::{IpAddr, SocketAddr};
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use http::Version;
use http::header::HeaderValue;

use crate::config::types::HttpsRedirect;
use crate::instance::body::Hold;
use crate::instance::rate::{GRACE, earned};
use crate::instance::{Instance, Roster};
use crate::observe::red::Red;
use crate::proxy::burst::{Burst, Joined};
use crate::proxy::error::Reason;
use crate::proxy::headers::{self, Origin};
use crate::proxy::interim::Interim;
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
    /// Bytes that the client must take in a second; 0 for any.
    slowest: AtomicU64,
    /// How long it may yet be waited for, in microseconds.
    left: AtomicU64,
    /// Bytes that it took since it was last waited for.
    run: AtomicU64,
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
    fn new(snapshot: &Snapshot) -> Self {
        let never = || AtomicU64::new(0);
        Self {
            start: Instant::now(),
            busy: never(),
            rested: never(),
            begun: never(),
            blocked: never(),
            // Whoever is answered without a service has no other limit.
            idle: AtomicU64::new(micros(snapshot.config.client_timeouts.keep_alive)),
            slowest: never(),
            left: never(),
            run: never(),
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

    /// So many bytes of a write were taken, or none could be yet.
    pub fn wrote(&self, bytes: Option<u64>) {
        let blocked = self.blocked.load(Ordering::Relaxed);
        match bytes {
            Some(bytes) => {
                if self.slowest.load(Ordering::Relaxed) != 0 {
                    self.took(bytes, blocked);
                }
                if blocked != 0 {
                    self.blocked.store(0, Ordering::Relaxed);
                }
            }
            None if blocked == 0 => self.blocked.store(self.now(), Ordering::Relaxed),
            None => {}
        }
    }

    /// Bytes pay for waiting, up to the grace; and all that was taken at once does, since the kernel
    /// asks for more only when it has got rid of much.
    fn took(&self, bytes: u64, blocked: u64) {
        let waited = if blocked == 0 { 0 } else { self.now().saturating_sub(blocked) };
        let run = if blocked == 0 { self.run.load(Ordering::Relaxed) } else { 0 };
        let run = run.saturating_add(bytes);
        self.run.store(run, Ordering::Relaxed);
        let slowest = self.slowest.load(Ordering::Relaxed);
        let most = micros(GRACE.max(earned(run, slowest)));
        let left = self.left.load(Ordering::Relaxed).saturating_sub(waited);
        let left = left.saturating_add(micros(earned(bytes, slowest))).min(most);
        self.left.store(left, Ordering::Relaxed);
    }

    /// The client must take so many bytes of an answer in a second.
    fn ask(&self, slowest: Option<u64>) {
        let slowest = slowest.unwrap_or(0);
        if slowest != 0 || self.slowest.load(Ordering::Relaxed) != 0 {
            self.slowest.store(slowest, Ordering::Relaxed);
            self.left.store(micros(GRACE), Ordering::Relaxed);
            self.run.store(0, Ordering::Relaxed);
        }
    }

    /// How long the client may be waited for before it is too slow, if it can be.
    pub fn left(&self) -> Option<Duration> {
        let is_asked = self.slowest.load(Ordering::Relaxed) != 0;
        is_asked.then(|| Duration::from_micros(self.left.load(Ordering::Relaxed)))
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
