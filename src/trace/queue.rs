//! Spans that wait to be sent: a bounded number of them, whatever the collector does.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use crate::trace::span::Span;

/// So many wait at most.
pub(super) const CAPACITY: usize = 8192;
/// So many are sent at once.
pub(super) const BATCH: usize = 512;
/// How long they wait for others.
const GATHER: Duration = Duration::from_secs(1);
/// Between two looks at whether all are sent.
const LOOK: Duration = Duration::from_millis(10);

/// Why a span was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dropped {
    /// Too many waited.
    Queue,
    /// The collector could not be reached, or asked to be left alone for too long.
    Unreachable,
    /// The collector would not have it.
    Refused,
}

impl Dropped {
    /// Every reason, in the order of the metric's rows.
    pub const ALL: [Self; 3] = [Self::Queue, Self::Unreachable, Self::Refused];

    /// The label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Unreachable => "unreachable",
            Self::Refused => "refused",
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Spans {
    waiting: Mutex<VecDeque<Span>>,
    filled: Notify,
    /// Taken out, but neither sent nor dropped yet.
    under_way: AtomicUsize,
    /// Whether nobody waits for others any more.
    hurries: AtomicBool,
    sent: AtomicU64,
    dropped: [AtomicU64; Dropped::ALL.len()],
}

impl Spans {
    /// Adds one, or drops it.
    pub fn push(&self, span: Span) {
        let mut waiting = self.waiting();
        if waiting.len() == CAPACITY {
            self.count_dropped(Dropped::Queue, 1);
            return;
        }
        waiting.push_back(span);
        if waiting.len() == 1 || waiting.len() == BATCH {
            self.filled.notify_one();
        }
    }

    /// A batch, once there is something and it has had time to become more.
    pub(super) async fn batch(&self) -> Vec<Span> {
        self.until(1).await;
        if !self.hurries.load(Ordering::Relaxed) {
            // Few are sent as well.
            let _ = timeout(GATHER, self.until(BATCH)).await;
        }
        let mut waiting = self.waiting();
        let count = waiting.len().min(BATCH);
        self.under_way.store(count, Ordering::Relaxed);
        waiting.drain(..count).collect()
    }

    async fn until(&self, count: usize) {
        loop {
            let filled = self.filled.notified();
            let waiting = self.waiting().len();
            if waiting >= count || (waiting > 0 && self.hurries.load(Ordering::Relaxed)) {
                return;
            }
            filled.await;
        }
    }

    /// A batch is done with: so many were sent, the others dropped.
    pub(super) fn settle(&self, sent: usize, dropped: usize, reason: Dropped) {
        self.sent.fetch_add(sent as u64, Ordering::Relaxed);
        self.count_dropped(reason, dropped as u64);
        self.under_way.store(0, Ordering::Relaxed);
    }

    fn count_dropped(&self, reason: Dropped, count: u64) {
        self.dropped[reason as usize].fetch_add(count, Ordering::Relaxed);
    }

    /// Waits until all are sent, or for `limit`.
    pub async fn flush(&self, limit: Duration) {
        self.hurries.store(true, Ordering::Relaxed);
        self.filled.notify_one();
        let sent = async {
            while !self.waiting().is_empty() || self.under_way.load(Ordering::Relaxed) > 0 {
                sleep(LOOK).await;
            }
        };
        // What is left then is lost with the process.
        let _ = timeout(limit, sent).await;
    }

    /// Spans that a collector took.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Spans that were dropped for this reason.
    pub fn dropped(&self, reason: Dropped) -> u64 {
        self.dropped[reason as usize].load(Ordering::Relaxed)
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<Span>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
