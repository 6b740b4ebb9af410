//! What a version counts, whatever instance it happens at.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::affinity::Rejection;
use crate::affinity::order::Fate;
use crate::health::Rehome;
use crate::health::breaker::{Change, Trigger};
use crate::health::check::Kind;
use crate::instance::mirrored::Copies;
use crate::observe::counters::TunnelEnd;
use crate::observe::latency::Latencies;
use crate::observe::tunnels;
use crate::route::ramp::Cause;
use crate::route::split::By;

/// Counts of a version, shared by all workers.
#[derive(Debug, Default)]
pub struct Tally {
    /// Requests that came to it rather than to another version, by what decided.
    pub split: [AtomicU64; By::ALL.len()],
    /// Ramps of it that were rolled back, by cause.
    pub rolled_back: [AtomicU64; Cause::BACK.len()],
    /// Copies of requests to other versions.
    pub copies: Copies,
    /// Sessions begun.
    pub new: AtomicU64,
    /// Requests with an id of the app's own.
    pub keyed: AtomicU64,
    /// Requests without one where there could be one.
    pub keyless: AtomicU64,
    /// Requests that reached their bound instance, at instances that are gone.
    pub kept: AtomicU64,
    /// Sessions moved, by reason.
    pub rehomed: [AtomicU64; Rehome::ALL.len()],
    /// Tokens rejected, by reason.
    pub rejected: [AtomicU64; Rejection::ALL.len()],
    /// Requests that brought rejected tokens only.
    pub unhonoured: AtomicU64,
    /// What became of instances' orders.
    pub orders: [AtomicU64; Fate::ALL.len()],
    /// Requests that had to wait for a place.
    pub queued: AtomicU64,
    /// Requests tried again, by reason.
    pub retried: [AtomicU64; Rehome::ALL.len()],
    /// Requests that a second instance was asked for.
    pub hedges: AtomicU64,
    /// Those that it won.
    pub hedges_won: AtomicU64,
    /// Breakers that opened, by trigger.
    pub opened: [AtomicU64; Trigger::ALL.len()],
    /// Breakers that `max_ejected` kept from opening.
    pub held: AtomicU64,
    /// Tunnels opened.
    pub tunnels: AtomicU64,
    /// Tunnels ended, by cause.
    pub ended: [AtomicU64; TunnelEnd::ALL.len()],
    /// Of those, how many were told of.
    told: Mutex<[u64; TunnelEnd::ALL.len()]>,
    /// How long they lived.
    pub tunnel_lifetimes: tunnels::Lifetimes,
    /// How long probes took, by check.
    pub probes: [Latencies; Kind::ALL.len()],
    /// The Closes that were sent in them.
    pub tunnel_closes: tunnels::Closes,
}

impl Tally {
    /// Tunnels that ended for this cause since this was last asked.
    pub fn newly_ended(&self, end: TunnelEnd) -> u64 {
        let ended = self.ended[end as usize].load(Ordering::Relaxed);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        ended.saturating_sub(std::mem::replace(&mut told[end as usize], ended))
    }

    /// A ramp of it was rolled back.
    pub fn ramp_rolled_back(&self, cause: Cause) {
        if let Some(place) = Cause::BACK.iter().position(|known| *known == cause) {
            count(&self.rolled_back[place]);
        }
    }

    pub(super) fn breaker_changed(&self, change: Change) {
        match change {
            Change::Opened { trigger, .. } => count(&self.opened[trigger as usize]),
            Change::Held { .. } => count(&self.held),
            Change::HalfOpen | Change::Closed => {}
        }
    }
}

/// Adds one.
pub fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
