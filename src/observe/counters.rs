//! Counts of the whole process that belong to no instance.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::config::types::{Close, Closes};
use crate::observe::events::Event;
use crate::observe::journal::Journal;
use crate::proxy::error::Reason;

/// Between two warnings that descriptors run short.
const SHORT_TOLD: Duration = Duration::from_secs(60);

/// How a tunnel ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TunnelEnd {
    /// The client closed it.
    Client,
    /// The instance closed it.
    Instance,
    /// `websocket.max_lifetime`.
    Lifetime,
    /// `websocket.idle_timeout`.
    Idle,
    /// A side that was pinged said nothing.
    PingTimeout,
    /// Its instance was removed.
    Removed,
    /// The operator drains its instance.
    Draining,
    /// The operator has disabled its instance.
    Disabled,
    /// Its instance is unready.
    Unready,
    /// Its instance is dead.
    Dead,
    /// Another instance has too few tunnels.
    Rebalanced,
    /// Burdock stops.
    Shutdown,
}

impl TunnelEnd {
    /// Every cause, in the order of the metric's rows.
    pub const ALL: [Self; 12] = [
        Self::Client,
        Self::Instance,
        Self::Lifetime,
        Self::Idle,
        Self::PingTimeout,
        Self::Removed,
        Self::Draining,
        Self::Disabled,
        Self::Unready,
        Self::Dead,
        Self::Rebalanced,
        Self::Shutdown,
    ];

    /// The label in logs and metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Instance => "instance",
            Self::Lifetime => "lifetime",
            Self::Idle => "idle",
            Self::PingTimeout => "ping_timeout",
            Self::Removed => "removed",
            Self::Draining => "draining",
            Self::Disabled => "disabled",
            Self::Unready => "unready",
            Self::Dead => "dead",
            Self::Rebalanced => "rebalanced",
            Self::Shutdown => "shutdown",
        }
    }

    /// What the peers are told; nothing where it was the client's own doing.
    pub const fn close(self, closes: &Closes) -> Option<&Close> {
        Some(match self {
            Self::Client => return None,
            Self::Instance => &closes.instance,
            Self::Lifetime => &closes.lifetime,
            Self::Idle => &closes.idle,
            Self::PingTimeout => &closes.ping_timeout,
            Self::Removed => &closes.removed.close,
            Self::Draining => &closes.draining.close,
            Self::Disabled => &closes.disabled.close,
            Self::Unready => &closes.unready.close,
            Self::Dead => &closes.dead.close,
            Self::Rebalanced => &closes.rebalanced,
            Self::Shutdown => &closes.shutdown,
        })
    }
}

/// How a TLS handshake with a client went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handshake {
    /// A session began.
    Full,
    /// A session went on, by a ticket.
    Resumed,
    /// It was not over in `handshake_timeout`.
    Timeout,
    /// The client went away, or Burdock stops.
    Closed,
    /// The client spoke HTTP without TLS, and got a 400.
    PlainHttp,
    /// The client did not like what it was shown.
    RefusedByClient,
    /// The client has no certificate, or none that counts.
    ClientCertificate,
    /// There is no version, cipher or protocol that both sides speak.
    Incompatible,
    /// What came was no handshake.
    Malformed,
    /// A CA looked whether a host is ours, and saw it.
    Proof,
    /// Somebody asked for such a proof, and there was none.
    NoProof,
    /// The first certificate has not come yet.
    NoCertificate,
}

impl Handshake {
    /// Every outcome, in the order of the metric's rows.
    pub const ALL: [Self; 12] = [
        Self::Full,
        Self::Resumed,
        Self::Timeout,
        Self::Closed,
        Self::PlainHttp,
        Self::RefusedByClient,
        Self::ClientCertificate,
        Self::Incompatible,
        Self::Malformed,
        Self::Proof,
        Self::NoProof,
        Self::NoCertificate,
    ];

    /// The label in metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Resumed => "resumed",
            Self::Timeout => "timeout",
            Self::Closed => "closed",
            Self::PlainHttp => "plain_http",
            Self::RefusedByClient => "refused_by_client",
            Self::ClientCertificate => "client_certificate",
            Self::Incompatible => "incompatible",
            Self::Malformed => "malformed",
            Self::Proof => "acme_proof",
            Self::NoProof => "acme_no_proof",
            Self::NoCertificate => "no_certificate",
        }
    }
}

#[derive(Debug)]
struct Errors([AtomicU64; Reason::ALL.len()]);

impl Default for Errors {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

/// What came of the last configuration that was to be taken over.
#[derive(Debug, Clone)]
pub struct LastReload {
    /// When that was.
    pub at: SystemTime,
    /// Why it was rejected; empty if it was not.
    pub problems: Vec<String>,
    /// What its reader said; that of the last one that was taken.
    pub warnings: Vec<String>,
    /// When that was.
    pub taken: SystemTime,
}

impl Default for LastReload {
    /// The start takes one over as well.
    fn default() -> Self {
        let now = SystemTime::now();
        Self { at: now, problems: Vec::new(), warnings: Vec::new(), taken: now }
    }
}

/// The process's counters.
#[derive(Debug, Default)]
pub struct Counters {
    /// TLS handshakes, by outcome.
    handshakes: [AtomicU64; Handshake::ALL.len()],
    /// Errors, by reason.
    errors: Errors,
    /// Client connections accepted.
    pub accepted: AtomicU64,
    /// Client connections closed.
    pub closed: AtomicU64,
    /// Of those that are open: they rest between two requests.
    resting: AtomicU64,
    /// Accepts that failed.
    pub accept_errors: AtomicU64,
    /// Workers that let nobody in for want of descriptors.
    short: AtomicU64,
    /// How often that has begun.
    pub short_total: AtomicU64,
    short_told: Mutex<Option<Instant>>,
    last_reload: Mutex<LastReload>,
    /// Upgrades in which no process took over.
    pub upgrades_failed: AtomicU64,
}

impl Counters {
    /// Counts an error.
    pub fn error(&self, reason: Reason) {
        self.errors.0[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a TLS handshake.
    pub fn handshake(&self, outcome: Handshake) {
        self.handshakes[outcome as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// TLS handshakes with this outcome so far.
    pub fn handshakes(&self, outcome: Handshake) -> u64 {
        self.handshakes[outcome as usize].load(Ordering::Relaxed)
    }

    /// Errors of `reason` so far.
    pub fn errors(&self, reason: Reason) -> u64 {
        self.errors.0[reason as usize].load(Ordering::Relaxed)
    }

    /// A configuration was taken over, or was the one that holds already; its reader had these warnings.
    /// Tells whether the one before was rejected.
    pub fn reloaded(&self, warnings: Vec<String>) -> bool {
        let now = SystemTime::now();
        let new = LastReload { at: now, problems: Vec::new(), warnings, taken: now };
        !std::mem::replace(&mut *self.reload(), new).problems.is_empty()
    }

    /// A configuration was rejected, for these reasons.
    pub fn rejected(&self, problems: Vec<String>) {
        let mut last = self.reload();
        (last.at, last.problems) = (SystemTime::now(), problems);
    }

    /// The last configuration that was to be taken over.
    pub fn last_reload(&self) -> LastReload {
        self.reload().clone()
    }

    fn reload(&self) -> MutexGuard<'_, LastReload> {
        self.last_reload.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Descriptors run short, until what this gives is dropped.
    pub fn run_short(&self, journal: &Journal) -> Short<'_> {
        self.short.fetch_add(1, Ordering::Relaxed);
        self.short_total.fetch_add(1, Ordering::Relaxed);
        let mut told = self.short_told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_none_or(|told| told.elapsed() >= SHORT_TOLD) {
            *told = Some(Instant::now());
            journal.note(Event::Warning {
                code: "descriptors_short",
                whose: None,
                message: "descriptors run short: new clients wait".to_owned(),
                cure: Some("ulimit -n raises their number".to_owned()),
            });
            tracing::warn!(
                "descriptors run short: new clients wait; `ulimit -n` raises their number"
            );
        }
        Short(self)
    }

    /// Whether descriptors run short.
    pub fn are_short(&self) -> bool {
        self.short() > 0
    }

    /// Workers that let nobody in for want of descriptors.
    pub fn short(&self) -> u64 {
        self.short.load(Ordering::Relaxed)
    }

    /// A client's connection rests, until what this gives is dropped.
    pub fn rest(&self) -> Resting<'_> {
        self.resting.fetch_add(1, Ordering::Relaxed);
        Resting(self)
    }

    /// Client connections that rest now.
    pub fn resting(&self) -> u64 {
        self.resting.load(Ordering::Relaxed)
    }

    /// Client connections open now.
    pub fn connections(&self) -> u64 {
        let closed = self.closed.load(Ordering::Relaxed);
        self.accepted.load(Ordering::Relaxed).saturating_sub(closed)
    }
}

/// A worker that lets nobody in for want of descriptors.
#[derive(Debug)]
pub struct Short<'a>(&'a Counters);

impl Drop for Short<'_> {
    fn drop(&mut self) {
        self.0.short.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A client's connection that rests.
#[derive(Debug)]
pub struct Resting<'a>(&'a Counters);

impl Drop for Resting<'_> {
    fn drop(&mut self) {
        self.0.resting.fetch_sub(1, Ordering::Relaxed);
    }
}
