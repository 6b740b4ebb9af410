//! The retry budget of a version: retries as a share of requests, so that a failing version is not
//! buried under its own retries. Pure; the time is an argument.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::config::types::Retry;

/// Credit is counted in thousandths of a retry.
const RETRY: u64 = 1000;
/// At most this many seconds' worth of the floor is saved up.
const FLOOR_SECONDS: u64 = 10;
/// At most this many retries are saved up beyond the floor.
const SAVINGS: u64 = 10_000 * RETRY;

/// Credit for retries, shared by all workers.
#[derive(Debug)]
pub struct Budget {
    /// Earned by requests.
    earned: AtomicU64,
    /// What the floor gave, and the second in which it was last filled up.
    floor: AtomicU64,
    filled: AtomicU64,
    start: Instant,
}

impl Budget {
    /// A budget whose floor is full.
    pub fn new(start: Instant) -> Self {
        Self {
            earned: AtomicU64::new(0),
            floor: AtomicU64::new(u64::MAX),
            filled: AtomicU64::new(0),
            start,
        }
    }

    /// A request came in.
    pub fn earn(&self, retry: &Retry) {
        if self.earned.load(Ordering::Relaxed) < SAVINGS {
            self.earned.fetch_add(u64::from(retry.budget) * RETRY / 10_000, Ordering::Relaxed);
        }
    }

    /// Pays for a retry; `false` if there is no credit.
    pub fn pay(&self, retry: &Retry, now: Instant) -> bool {
        self.fill(retry, now);
        let take = |credit: u64| credit.checked_sub(RETRY);
        let from = |credit: &AtomicU64| {
            credit.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
        };
        from(&self.floor) || from(&self.earned)
    }

    fn fill(&self, retry: &Retry, now: Instant) {
        let per_second = u64::from(retry.budget_floor) * RETRY;
        let second = now.saturating_duration_since(self.start).as_secs() + FLOOR_SECONDS;
        let before = self.filled.swap(second, Ordering::Relaxed);
        let gained = second.saturating_sub(before).min(FLOOR_SECONDS) * per_second;
        let add = |credit: u64| {
            let credit = if credit == u64::MAX { 0 } else { credit };
            Some((credit + gained).min(FLOOR_SECONDS * per_second))
        };
        let _ = self.floor.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_floor_fills_by_the_second_and_requests_earn_their_share() {
        let start = Instant::now();
        let budget = Budget::new(start);
        let retry = Retry { budget: 2000, budget_floor: 2, ..Retry::default() };
        let paid = |at: Duration| (0..1000).take_while(|_| budget.pay(&retry, start + at)).count();
        assert_eq!(paid(Duration::ZERO), 20, "ten seconds of the floor");
        assert_eq!(paid(Duration::ZERO), 0);
        assert_eq!(paid(Duration::from_secs(3)), 6);
        for _ in 0..100 {
            budget.earn(&retry);
        }
        assert_eq!(paid(Duration::from_secs(3)), 20, "a fifth of a hundred requests");
    }

    #[test]
    fn without_share_and_floor_nothing_is_retried() {
        let budget = Budget::new(Instant::now());
        let retry = Retry { budget: 0, budget_floor: 0, ..Retry::default() };
        budget.earn(&retry);
        assert!(!budget.pay(&retry, Instant::now()));
    }
}
