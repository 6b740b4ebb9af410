//! A client's connection as the request path sees it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use http::header::HeaderValue;

use crate::proxy::headers::{self, Origin};
use crate::proxy::upgrade::Opening;
use crate::snapshot::{Live, Snapshot};

/// What is known of a client's connection for as long as it lasts.
#[derive(Debug)]
pub struct Client {
    /// What all workers share.
    pub live: Arc<Live>,
    /// The worker that this connection belongs to.
    pub worker: usize,
    /// The other end.
    pub peer: SocketAddr,
    peer_text: HeaderValue,
    /// A tunnel that begins when the 101 has been sent.
    opening: Mutex<Option<Box<Opening>>>,
    /// What the connection's watchdog looks at.
    pub pace: Pace,
}

impl Client {
    /// A connection that was just accepted.
    pub fn new(live: Arc<Live>, worker: usize, peer: SocketAddr) -> Self {
        // An IPv4 client of a dual-stack socket is an IPv4 client.
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        let peer_text = HeaderValue::try_from(peer.ip().to_string())
            .expect("an address is made of header-safe characters");
        Self { live, worker, peer, peer_text, opening: Mutex::new(None), pace: Pace::new() }
    }

    /// The other end's address as text.
    pub fn peer_text(&self) -> &str {
        self.peer_text.to_str().unwrap_or_default()
    }

    /// What instances are told of it.
    pub fn origin(&self, snapshot: &Snapshot) -> Origin<'_> {
        let trusted = headers::is_trusted(self.peer.ip(), &snapshot.config.trusted_proxies);
        Origin { peer: self.peer.ip(), peer_text: &self.peer_text, trusted }
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

impl Pace {
    fn new() -> Self {
        let never = || AtomicU64::new(0);
        Self {
            start: Instant::now(),
            busy: never(),
            rested: never(),
            begun: never(),
            blocked: never(),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX).max(1)
    }

    fn instant(&self, micros: u64) -> Instant {
        self.start + std::time::Duration::from_micros(micros)
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
        let micros = now.saturating_duration_since(self.start).as_micros();
        self.rested.store(u64::try_from(micros).unwrap_or(u64::MAX).max(1), Ordering::Relaxed);
    }

    /// What it waits for, and since when.
    pub fn waits(&self) -> Waits {
        let load = |instant: &AtomicU64| match instant.load(Ordering::Relaxed) {
            0 => None,
            micros => Some(self.instant(micros)),
        };
        let blocked = load(&self.blocked);
        if self.busy.load(Ordering::Relaxed) > 0 || blocked.is_some() {
            return Waits::Answer(blocked);
        }
        match (load(&self.begun), load(&self.rested)) {
            (Some(begun), _) => Waits::Head(begun, HeadBytes::Some),
            (None, Some(rested)) => Waits::Request(rested),
            (None, None) => Waits::Head(self.start, HeadBytes::None),
        }
    }
}
