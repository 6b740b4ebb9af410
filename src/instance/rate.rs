//! A limit on how often something may happen in a second. Pure; the time is an argument.
//!
//! What it keeps is one instant: when all that was let through would have been, had it come evenly.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

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

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

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
