//! How a client's connection goes on: what it waits for, since when, and for how long it may.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::instance::rate::{GRACE, earned};
use crate::snapshot::Snapshot;

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
    pub(super) fn new(snapshot: &Snapshot) -> Self {
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
    pub(super) fn ask(&self, slowest: Option<u64>) {
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
