//! Spans that wait to be sent: a bounded number of them and of bytes, whatever the collector does and
//! whatever clients make them of.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use crate::trace::span::Span;

/// So many wait at most.
pub(super) const CAPACITY: usize = 8192;
/// So many bytes, as they are sent.
const CAPACITY_BYTES: usize = 8 << 20;
/// So many are sent at once.
pub(super) const BATCH: usize = 512;
/// So many bytes, unless it is one alone. With what stands around them it is less than 1 MiB, which is
/// where some servers begin to refuse.
const BATCH_BYTES: usize = 1_000_000;
/// How long they wait for others.
const GATHER: Duration = Duration::from_secs(1);
/// Between two looks at whether all are sent.
const LOOK: Duration = Duration::from_millis(10);

/// Why a span was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dropped {
    /// Too many waited, or too many bytes.
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
    waiting: Mutex<Waiting>,
    filled: Notify,
    /// Taken out, but neither sent nor dropped yet.
    under_way: AtomicUsize,
    /// Whether nobody waits for others any more.
    hurries: AtomicBool,
    sent: AtomicU64,
    dropped: [AtomicU64; Dropped::ALL.len()],
}

/// Spans with what they weigh.
#[derive(Debug, Default)]
struct Waiting {
    spans: VecDeque<(usize, Span)>,
    bytes: usize,
}

impl Waiting {
    fn fills_a_batch(&self) -> bool {
        self.spans.len() >= BATCH || self.bytes >= BATCH_BYTES
    }

    /// The oldest that fit into one.
    fn take_batch(&mut self) -> Vec<Span> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while let Some((weight, _)) = self.spans.front() {
            bytes += weight;
            if batch.len() == BATCH || bytes > BATCH_BYTES && !batch.is_empty() {
                break;
            }
            self.bytes -= weight;
            batch.extend(self.spans.pop_front().map(|(_, span)| span));
        }
        batch
    }
}

impl Spans {
    /// Adds one, or drops it.
    pub fn push(&self, span: Span) {
        let weight = span.weight();
        let mut waiting = self.waiting();
        if waiting.spans.len() == CAPACITY || waiting.bytes + weight > CAPACITY_BYTES {
            self.count_dropped(Dropped::Queue, 1);
            return;
        }
        let was_enough = waiting.fills_a_batch();
        waiting.spans.push_back((weight, span));
        waiting.bytes += weight;
        if waiting.spans.len() == 1 || !was_enough && waiting.fills_a_batch() {
            self.filled.notify_one();
        }
    }

    /// A batch, once there is something and it has had time to become more.
    pub(super) async fn batch(&self) -> Vec<Span> {
        self.until(|waiting| !waiting.spans.is_empty()).await;
        if !self.hurries.load(Ordering::Relaxed) {
            // Few are sent as well.
            let _ = timeout(GATHER, self.until(Waiting::fills_a_batch)).await;
        }
        let mut waiting = self.waiting();
        let batch = waiting.take_batch();
        self.under_way.store(batch.len(), Ordering::Relaxed);
        batch
    }

    async fn until(&self, is_enough: impl Fn(&Waiting) -> bool) {
        loop {
            let filled = self.filled.notified();
            let hurries = self.hurries.load(Ordering::Relaxed);
            let is_ready = {
                let waiting = self.waiting();
                is_enough(&waiting) || hurries && !waiting.spans.is_empty()
            };
            if is_ready {
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
            while !self.waiting().spans.is_empty() || self.under_way.load(Ordering::Relaxed) > 0 {
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

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::trace::span::Kind;

    fn span(id: u64, texts: usize) -> Span {
        let mut span = Span {
            trace: 1,
            id,
            parent: None,
            is_remote: false,
            state: None,
            name: "GET".to_owned(),
            kind: Kind::Server,
            start: SystemTime::UNIX_EPOCH,
            end: SystemTime::UNIX_EPOCH,
            attributes: Vec::new(),
            is_error: false,
        };
        (0..texts).for_each(|_| span.tell("url.path", &*"/".repeat(60_000)));
        span
    }

    /// The number and the weight of a batch.
    async fn next(spans: &Spans) -> (usize, usize) {
        let batch = spans.batch().await;
        (batch.len(), batch.iter().map(Span::weight).sum())
    }

    #[tokio::test]
    async fn the_queue_has_an_end_in_bytes_and_in_number() {
        let spans = Spans::default();
        for id in 0..9000 {
            spans.push(span(id, 0));
        }
        assert_eq!(spans.dropped(Dropped::Queue), 9000 - CAPACITY as u64);
        assert_eq!(next(&spans).await.0, BATCH);

        let spans = Spans::default();
        for id in 0..9000 {
            spans.push(span(id, 5));
        }
        let bytes = spans.waiting().bytes;
        assert!((CAPACITY_BYTES - 6000..=CAPACITY_BYTES).contains(&bytes), "{bytes}");
        let mut left = 9000 - spans.dropped(Dropped::Queue);
        while left > 0 {
            let (count, weight) = next(&spans).await;
            assert!(weight <= BATCH_BYTES && count > 0, "{count} of {weight} bytes");
            left -= count as u64;
            assert!(left == 0 || weight > BATCH_BYTES - 6000, "{weight}");
            // Nobody waits for more before the last.
            spans.hurries.store(true, Ordering::Relaxed);
        }
        assert_eq!(spans.waiting().bytes, 0, "room is given back");
    }

    #[tokio::test]
    async fn one_that_is_larger_than_a_batch_goes_alone() {
        let spans = Spans::default();
        spans.push(span(1, 1500));
        spans.push(span(2, 0));
        spans.hurries.store(true, Ordering::Relaxed);
        assert_eq!((next(&spans).await.0, next(&spans).await.0), (1, 1));
    }
}
