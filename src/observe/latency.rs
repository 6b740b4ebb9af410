//! How long things took: counts by bucket, which one thread writes and others read.
//!
//! Many are kept that never count anything, so there is memory for one only once it has. Read
//! [`Latencies`] first; [`Spread`] is what was read of one, or of many together.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the buckets, in microseconds: from what a process beside Burdock takes to what
/// `timeouts.first_byte` allows by default.
pub const BOUNDS: [u64; 16] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000, 25_000_000, 60_000_000,
];

/// The bounds as the exposition has them, in seconds; the last bucket has none.
pub const LABELS: [&str; BUCKETS] = [
    "0.0005", "0.001", "0.0025", "0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1",
    "2.5", "5", "10", "25", "60", "+Inf",
];

/// One more than there are bounds.
pub const BUCKETS: usize = BOUNDS.len() + 1;

/// Adds to a counter that only this thread writes: a locked instruction would cost a request more
/// than all the rest of counting it.
pub fn add(counter: &AtomicU64, more: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
}

#[derive(Debug)]
struct Counts {
    buckets: [AtomicU64; BUCKETS],
    micros: AtomicU64,
}

/// How long things took that one worker did.
#[derive(Debug, Default)]
pub struct Latencies {
    counts: OnceLock<Box<Counts>>,
}

impl Latencies {
    /// Counts one. To be called by one thread only.
    pub fn count(&self, took: Duration) {
        let make = || {
            let buckets = std::array::from_fn(|_| AtomicU64::new(0));
            Box::new(Counts { buckets, micros: AtomicU64::new(0) })
        };
        let counts = self.counts.get_or_init(make);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        add(&counts.buckets[BOUNDS.partition_point(|bound| *bound < micros)], 1);
        add(&counts.micros, micros);
    }
}

/// How many took how long.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spread {
    /// By bucket, each without those below it.
    pub buckets: [u64; BUCKETS],
    /// All of them together, in microseconds.
    pub micros: u64,
}

impl Spread {
    /// Adds what was counted so far.
    pub fn add(&mut self, latencies: &Latencies) {
        let Some(counts) = latencies.counts.get() else { return };
        for (sum, bucket) in self.buckets.iter_mut().zip(&counts.buckets) {
            *sum += bucket.load(Ordering::Relaxed);
        }
        self.micros = self.micros.wrapping_add(counts.micros.load(Ordering::Relaxed));
    }

    /// Adds what another has.
    pub fn join(&mut self, other: &Self) {
        for (sum, bucket) in self.buckets.iter_mut().zip(other.buckets) {
            *sum += bucket;
        }
        self.micros = self.micros.wrapping_add(other.micros);
    }

    /// What has been counted since `before`; nothing where that had more, which it has when
    /// something that both are sums over is gone.
    pub fn since(&self, before: &Self) -> Self {
        let pairs = |at: usize| self.buckets[at].saturating_sub(before.buckets[at]);
        let buckets = std::array::from_fn(pairs);
        Self { buckets, micros: self.micros.saturating_sub(before.micros) }
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// How long all but the slowest took, in seconds, where `share` of all are not the slowest; as
    /// if those of a bucket were spread evenly over it. Those beyond the last bound took as long as
    /// that. `None` if there are none.
    pub fn percentile(&self, share: f64) -> Option<f64> {
        let all = self.count();
        if all == 0 {
            return None;
        }
        let rank = share * all as f64;
        let mut below = 0;
        for (at, bucket) in self.buckets.iter().enumerate() {
            if *bucket > 0 && (below + bucket) as f64 >= rank {
                let from = if at == 0 { 0 } else { BOUNDS[at - 1] };
                let to = BOUNDS.get(at).copied().unwrap_or(from);
                let part = ((rank - below as f64) / *bucket as f64).clamp(0.0, 1.0);
                return Some((from as f64 + (to - from) as f64 * part) / 1e6);
            }
            below += bucket;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(millis: &[f64]) -> Spread {
        let latencies = Latencies::default();
        millis.iter().for_each(|it| latencies.count(Duration::from_secs_f64(it / 1000.0)));
        let mut spread = Spread::default();
        spread.add(&latencies);
        spread
    }

    #[test]
    fn each_falls_into_the_first_bucket_that_holds_it() {
        for (millis, place) in [(0.0, 0), (0.5, 0), (0.501, 1), (3.0, 3), (60_000.0, 15), (1e9, 16)]
        {
            let spread = spread(&[millis]);
            assert_eq!(spread.buckets.iter().position(|it| *it == 1), Some(place), "{millis}");
            assert_eq!((spread.count(), spread.micros), (1, (millis * 1000.0) as u64));
        }
    }

    #[test]
    fn labels_are_the_bounds_in_seconds() {
        for (bound, label) in BOUNDS.iter().zip(LABELS) {
            assert_eq!(label.parse::<f64>().unwrap(), *bound as f64 / 1e6);
        }
    }

    #[test]
    fn a_percentile_lies_in_the_bucket_of_its_rank() {
        assert_eq!(spread(&[]).percentile(0.5), None);
        let mixed = spread(&[[2.0; 90].as_slice(), &[400.0; 10]].concat());
        for (share, from, to) in [(0.5, 0.001, 0.0025), (0.9, 0.001, 0.0025), (0.99, 0.25, 0.5)] {
            let found = mixed.percentile(share).unwrap();
            assert!((from..=to).contains(&found), "{share}: {found}");
        }
        assert_eq!(spread(&[1e7]).percentile(0.5), Some(60.0), "beyond the last bound");
    }

    #[test]
    fn what_was_counted_since_is_never_less_than_nothing() {
        let (few, many) = (spread(&[1.0]), spread(&[1.0, 1.0, 9.0]));
        assert_eq!(many.since(&few).count(), 2);
        assert_eq!(few.since(&many), Spread::default());
        let mut both = few;
        both.join(&many);
        assert_eq!(both.count(), 4);
    }
}
