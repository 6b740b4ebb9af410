//! Limits on how often something may happen: in a second, or by each of many. Pure; the time is an
//! argument.
//!
//! What is kept is one instant: when all that was let through would have been, had it come evenly.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Nanoseconds of a second, which is also what may come at once.
const BURST: u64 = 1_000_000_000;

/// A token bucket that holds one second's worth.
#[derive(Debug)]
pub struct Rate {
    start: Instant,
    /// In nanoseconds since `start`.
    even: AtomicU64,
}

impl Rate {
    /// A full bucket.
    pub fn new(start: Instant) -> Self {
        Self { start, even: AtomicU64::new(0) }
    }

    /// Takes one of `per_second`; whether there was one.
    pub fn take(&self, per_second: u32, now: Instant) -> bool {
        let now = now.saturating_duration_since(self.start).as_nanos();
        let now = u64::try_from(now).unwrap_or(u64::MAX).saturating_add(BURST);
        let step = BURST / u64::from(per_second.max(1));
        let next = |even: u64| {
            let next = even.max(now - BURST) + step;
            (next <= now).then_some(next)
        };
        self.even.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
    }
}

/// A token bucket of any size, of which only that instant is kept, elsewhere (the generic cell rate
/// algorithm).
#[derive(Debug, Clone, Copy)]
pub struct Quota {
    step: Duration,
    burst: Duration,
}

impl Quota {
    /// So many in so long, of which `burst` may come at once.
    pub fn new(count: u32, per: Duration, burst: u32) -> Self {
        let step = per / count.max(1);
        Self { step, burst: step * burst }
    }

    /// Takes one: what is to be kept from then on, and how long to wait if there was none.
    pub fn take(self, even: Option<Instant>, now: Instant) -> (Instant, Result<(), Duration>) {
        let even = even.map_or(now, |even| even.max(now));
        let next = even + self.step;
        match next.saturating_duration_since(now).checked_sub(self.burst) {
            Some(wait) if !wait.is_zero() => (even, Err(wait)),
            Some(_) | None => (next, Ok(())),
        }
    }
}

/// How long somebody may keep others waiting at once who sends bytes slowly, whatever its rate.
pub const GRACE: Duration = Duration::from_secs(10);

/// How long somebody who sends may yet keep others waiting: a grace, and what bytes earn.
///
/// Waiting takes from it and bytes add to it, but never beyond the grace: many bytes now don't pay
/// for few of them later.
#[derive(Debug, Clone, Copy)]
pub struct Dawdle {
    /// Bytes for a second.
    slowest: u64,
    left: Duration,
}

impl Dawdle {
    /// The whole grace.
    pub fn new(slowest: u64) -> Self {
        Self { slowest: slowest.max(1), left: GRACE }
    }

    /// How long it may be waited for.
    pub fn left(self) -> Duration {
        self.left
    }

    /// It was waited for this long, until so many bytes came.
    pub fn came(&mut self, bytes: u64, waited: Duration) {
        self.left = (self.left.saturating_sub(waited) + earned(bytes, self.slowest)).min(GRACE);
    }
}

/// How long so many bytes may take, at most.
pub fn earned(bytes: u64, slowest: u64) -> Duration {
    Duration::from_micros(bytes.saturating_mul(1_000_000) / slowest.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_lets_a_burst_through_and_then_one_each_step() {
        let start = Instant::now();
        let quota = Quota::new(10, Duration::from_secs(1), 3);
        let mut kept = None;
        let mut taken = |at: u64| {
            let at = start + Duration::from_millis(at);
            let mut take = || {
                let (next, outcome) = quota.take(kept, at);
                kept = Some(next);
                outcome.is_ok()
            };
            (0..100).take_while(|_| take()).count()
        };
        assert_eq!(taken(0), 3);
        assert_eq!(taken(99), 0);
        assert_eq!(taken(100), 1);
        assert_eq!(taken(350), 2);
        assert_eq!(taken(60_000), 3, "no more than a burst is saved up");
        let (_, wait) = quota.take(kept, start + Duration::from_millis(60_010));
        assert_eq!(wait, Err(Duration::from_millis(90)));
    }

    #[test]
    fn who_keeps_to_the_rate_may_go_on_for_ever_and_who_does_not_has_a_grace() {
        let second = Duration::from_secs(1);
        let mut dawdle = Dawdle::new(100);
        for _ in 0..1000 {
            dawdle.came(100, second);
        }
        assert_eq!(dawdle.left(), GRACE);
        dawdle.came(1_000_000, Duration::ZERO);
        assert_eq!(dawdle.left(), GRACE, "nothing is saved up");
        let took = |rate: u64| {
            let mut dawdle = Dawdle::new(100);
            (0_u32..1000)
                .take_while(|_| {
                    let is_in_time = dawdle.left() >= second;
                    dawdle.came(rate, second);
                    is_in_time
                })
                .count()
        };
        assert_eq!((took(1), took(50), took(100)), (10, 19, 1000));
    }

    #[test]
    fn a_second_may_come_at_once_and_the_rest_evenly() {
        let start = Instant::now();
        let rate = Rate::new(start);
        let taken = |at: u64| {
            let at = start + Duration::from_millis(at);
            (0..100).take_while(|_| rate.take(10, at)).count()
        };
        assert_eq!(taken(0), 10);
        assert_eq!(taken(99), 0);
        assert_eq!(taken(100), 1);
        assert_eq!(taken(350), 2);
        assert_eq!(taken(60_000), 10, "no more than a second is saved up");
    }
}
