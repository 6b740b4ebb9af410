//! Counts of the whole process that belong to no instance.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::proxy::error::Reason;

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
    /// Its instance was removed.
    Removed,
    /// Its instance is dead.
    Dead,
    /// Burdock stops.
    Shutdown,
}

impl TunnelEnd {
    /// Every cause, in the order of the metric's rows.
    pub const ALL: [Self; 7] = [
        Self::Client,
        Self::Instance,
        Self::Lifetime,
        Self::Idle,
        Self::Removed,
        Self::Dead,
        Self::Shutdown,
    ];

    /// The label in logs and metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Instance => "instance",
            Self::Lifetime => "lifetime",
            Self::Idle => "idle",
            Self::Removed => "removed",
            Self::Dead => "dead",
            Self::Shutdown => "shutdown",
        }
    }
}

/// The process's counters.
#[derive(Debug, Default)]
pub struct Counters {
    /// Errors, by reason.
    errors: [AtomicU64; Reason::ALL.len()],
    /// Client connections accepted.
    pub accepted: AtomicU64,
    /// Client connections closed.
    pub closed: AtomicU64,
    /// Accepts that failed.
    pub accept_errors: AtomicU64,
    /// 1 if the last reload was rejected.
    pub reload_failed: AtomicU64,
}

impl Counters {
    /// Counts an error.
    pub fn error(&self, reason: Reason) {
        self.errors[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Errors of `reason` so far.
    pub fn errors(&self, reason: Reason) -> u64 {
        self.errors[reason as usize].load(Ordering::Relaxed)
    }

    /// Client connections open now.
    pub fn connections(&self) -> u64 {
        let closed = self.closed.load(Ordering::Relaxed);
        self.accepted.load(Ordering::Relaxed).saturating_sub(closed)
    }
}
