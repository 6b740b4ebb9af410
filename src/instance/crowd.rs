//! What all instances of a version carry together, for the bounded load of hashed sessions.
//!
//! To sum it up takes as long as there are instances; with many, a sum serves for a while.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::balance::Bound;
use crate::instance::Members;

/// Up to so many instances are summed up for each request, in about a microsecond.
const FEW: usize = 64;
/// How long a sum over more serves.
const STALE: Duration = Duration::from_millis(10);

/// The sum of a moment ago.
#[derive(Debug)]
pub(super) struct Crowd {
    start: Instant,
    /// When it was taken, in microseconds since the start, 0 for never.
    taken: AtomicU64,
    load: AtomicU64,
}

impl Crowd {
    pub(super) fn new(now: Instant) -> Self {
        Self { start: now, taken: AtomicU64::new(0), load: AtomicU64::new(0) }
    }

    /// How much each of `members` may carry now.
    pub(super) fn bound(&self, members: &Members, factor: u32) -> Bound {
        let (count, weight, load) = members.crowd();
        let load = if count <= FEW { load() } else { self.recent(Instant::now(), load) };
        Bound { factor, load, weight }
    }

    fn recent(&self, now: Instant, load: impl FnOnce() -> u64) -> u64 {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let now = micros(now.saturating_duration_since(self.start)).max(1);
        let taken = self.taken.load(Ordering::Acquire);
        if taken != 0 && now.saturating_sub(taken) < micros(STALE) {
            return self.load.load(Ordering::Relaxed);
        }
        let load = load();
        self.load.store(load, Ordering::Relaxed);
        self.taken.store(now, Ordering::Release);
        load
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_serves_for_a_while() {
        let begin = Instant::now();
        let crowd = Crowd::new(begin);
        assert_eq!(crowd.recent(begin, || 7), 7);
        assert_eq!(crowd.recent(begin + STALE / 2, || 8), 7);
        assert_eq!(crowd.recent(begin + 2 * STALE, || 9), 9);
    }
}
