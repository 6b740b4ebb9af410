//! What one worker counts and keeps of one instance.
//!
//! Only that worker writes here on a request's path; readers sum over lanes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use crate::health::breaker::Counts;
use crate::instance::bell::Bells;
use crate::instance::in_flight::{Kind, Stage};
use crate::instance::pool::Pool;
use crate::observe::counters::TunnelEnd;
use crate::observe::latency::Latencies;

/// Classes of statuses, 1xx to 5xx.
pub const CLASSES: usize = 5;

/// What one side sent in tunnels.
#[derive(Debug, Default)]
struct Traffic {
    bytes: AtomicU64,
    messages: AtomicU64,
}

/// One worker's share of an instance; aligned so that two workers never share a cache line.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Lane {
    requests: AtomicU64,
    /// Requests for a tunnel that have not been answered.
    openings: AtomicU64,
    tunnels: AtomicU64,
    answers: [AtomicU64; CLASSES],
    failures: AtomicU64,
    /// How long it took to the head of each answer that was passed on.
    first_byte: Latencies,
    /// Failures and 5xx answers, but those of upgrades that were not refused.
    spoiled: AtomicU64,
    /// Answers and failures that the breaker does not see.
    excused: AtomicU64,
    kept: AtomicU64,
    opened: AtomicU64,
    ended: [AtomicU64; TunnelEnd::ALL.len()],
    /// What clients and what instances sent in tunnels.
    traffic: [Traffic; 2],
    alarm: Notify,
    /// Of the connections to the instance.
    pub(super) bells: Bells,
    /// Idle connections to the instance.
    pub pool: Pool,
}

impl Lane {
    /// Requests in flight, those for a tunnel included.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed) + self.openings.load(Ordering::Relaxed)
    }

    /// Open tunnels.
    pub fn tunnels(&self) -> u64 {
        self.tunnels.load(Ordering::Relaxed)
    }

    /// Answers so far, by class of status.
    pub fn answers(&self, class: usize) -> u64 {
        self.answers[class].load(Ordering::Relaxed)
    }

    /// Attempts without an answer so far.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// How long it took to the head of each answer that was passed on.
    pub fn first_byte(&self) -> &Latencies {
        &self.first_byte
    }

    /// Counts an answer that is passed on. To be called by the worker of this lane only.
    pub fn took(&self, latency: Duration) {
        self.first_byte.count(latency);
    }

    /// What counts against the limit of this kind.
    pub(super) fn taken(&self, kind: Kind) -> u64 {
        // Whoever takes a place counts it before it looks: in one order for all, so that of two that
        // take the last place at once at least one sees the other.
        match kind {
            Kind::Request => self.requests.load(Ordering::SeqCst),
            Kind::Tunnel => {
                self.tunnels.load(Ordering::SeqCst) + self.openings.load(Ordering::SeqCst)
            }
        }
    }

    pub(super) fn count(&self, stage: Stage) -> &AtomicU64 {
        match stage {
            Stage::Request => &self.requests,
            Stage::Opening => &self.openings,
            Stage::Tunnel => &self.tunnels,
        }
    }

    pub(super) fn open(&self) {
        self.opened.fetch_add(1, Ordering::Relaxed);
    }

    /// Tunnels opened so far.
    pub fn opened(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }

    /// Tunnels ended so far, by cause.
    pub fn ended(&self, end: TunnelEnd) -> u64 {
        self.ended[end as usize].load(Ordering::Relaxed)
    }

    /// Counts a tunnel that ended.
    pub fn end(&self, end: TunnelEnd) {
        self.ended[end as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Bytes that clients (0) or instances (1) sent in tunnels so far.
    pub fn bytes(&self, sender: usize) -> u64 {
        self.traffic[sender].bytes.load(Ordering::Relaxed)
    }

    /// Messages that clients (0) or instances (1) sent in tunnels so far.
    pub fn messages(&self, sender: usize) -> u64 {
        self.traffic[sender].messages.load(Ordering::Relaxed)
    }

    /// Counts what one side sent in a tunnel.
    pub fn passed(&self, sender: usize, bytes: u64, messages: u64) {
        let traffic = &self.traffic[sender];
        traffic.bytes.fetch_add(bytes, Ordering::Relaxed);
        if messages > 0 {
            traffic.messages.fetch_add(messages, Ordering::Relaxed);
        }
    }

    /// Requests of bound sessions so far.
    pub fn kept(&self) -> u64 {
        self.kept.load(Ordering::Relaxed)
    }

    /// Counts a request of a bound session.
    pub fn keep(&self) {
        self.kept.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an answer.
    pub fn answered(&self, status: http::StatusCode) {
        let class = usize::from(status.as_u16() / 100).clamp(1, CLASSES) - 1;
        self.answers[class].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an attempt without an answer.
    pub fn failed(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an attempt that went badly, as the breaker sees it.
    pub(super) fn spoiled(&self) {
        self.spoiled.fetch_add(1, Ordering::Relaxed);
    }

    /// Of the answers and failures that were counted one more says nothing of the instance.
    pub fn excused(&self) {
        self.excused.fetch_add(1, Ordering::Relaxed);
    }

    /// Attempts that have ended, as the breaker sees them.
    pub(super) fn outcomes(&self) -> Counts {
        let answers = self.answers.iter().map(|count| count.load(Ordering::Relaxed)).sum::<u64>();
        let excused = self.excused.load(Ordering::Relaxed);
        let attempts = (answers + self.failures()).saturating_sub(excused);
        Counts { attempts, bad: self.spoiled.load(Ordering::Relaxed) }
    }

    /// Resolves when the instance comes into distress after this call.
    pub fn alarmed(&self) -> Notified<'_> {
        self.alarm.notified()
    }

    pub(super) fn alarm(&self) {
        self.alarm.notify_waiters();
        self.bells.ring();
    }
}
