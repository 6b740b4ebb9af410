//! What speaks for a version and what against it: its answers, as one worker counts them, where its service has
//! several.
//!
//! An answer that is no error is good. One that the version or an instance of it has failed is a fault. All else
//! says nothing of it: what clients did wrong, and what Burdock itself was short of. Latencies are those of good
//! answers, in finer buckets than elsewhere, since they are to be compared with those of another version.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::observe::latency::add;

/// Below 64 us all are alike, and from 67 s on.
const FIRST_OCTAVE: u32 = 6;
const LAST_OCTAVE: u32 = 26;
/// Parts of a doubling: a bucket is an eighth wide at most.
const PARTS: usize = 8;
const BUCKETS: usize = (LAST_OCTAVE - FIRST_OCTAVE) as usize * PARTS + 2;

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It was answered; the head of the answer took so long, where that is known.
    Good(Option<Duration>),
    /// It was failed.
    Fault,
    /// Nothing that says something of the version.
    Nothing,
}

/// Counts of one worker.
#[derive(Debug, Default)]
pub struct Judged {
    good: AtomicU64,
    faults: AtomicU64,
    took: OnceLock<Box<[AtomicU64; BUCKETS]>>,
}

impl Judged {
    /// Counts a request. To be called by one thread only.
    pub fn count(&self, verdict: Verdict) {
        match verdict {
            Verdict::Good(took) => {
                add(&self.good, 1);
                if let Some(took) = took {
                    let make = || Box::new(std::array::from_fn(|_| AtomicU64::new(0)));
                    add(&self.took.get_or_init(make)[bucket(took)], 1);
                }
            }
            Verdict::Fault => add(&self.faults, 1),
            Verdict::Nothing => {}
        }
    }
}

/// What several workers have counted, of one version or of several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// Good answers and faults.
    pub requests: u64,
    /// Of these, the faults.
    pub faults: u64,
    took: Box<[u64; BUCKETS]>,
}

impl Default for Judgement {
    fn default() -> Self {
        Self { requests: 0, faults: 0, took: Box::new([0; BUCKETS]) }
    }
}

impl Judgement {
    /// Of these.
    pub fn of<'a>(workers: impl IntoIterator<Item = &'a Judged>) -> Self {
        let mut sums = Self::default();
        for worker in workers {
            let faults = worker.faults.load(Ordering::Relaxed);
            sums.faults += faults;
            sums.requests += faults + worker.good.load(Ordering::Relaxed);
            for (sum, bucket) in
                sums.took.iter_mut().zip(worker.took.get().into_iter().flat_map(|it| it.iter()))
            {
                *sum += bucket.load(Ordering::Relaxed);
            }
        }
        sums
    }

    /// What has come since `before`; nothing where that had more.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let took = std::array::from_fn(|at| self.took[at].saturating_sub(before.took[at]));
        Self {
            requests: self.requests.saturating_sub(before.requests),
            faults: self.faults.saturating_sub(before.faults),
            took: Box::new(took),
        }
    }

    /// How long all but the slowest took, where `points` of ten thousand are not the slowest; as if those of a
    /// bucket were spread evenly over it. `None` if there are none.
    pub fn latency(&self, points: u32) -> Option<Duration> {
        let all: u64 = self.took.iter().sum();
        let rank = f64::from(points) / 1e4 * all as f64;
        let mut below = 0;
        for (at, count) in self.took.iter().enumerate().filter(|(_, count)| **count > 0) {
            if (below + count) as f64 >= rank {
                let (from, to) = (floor(at), floor(at + 1));
                let part = ((rank - below as f64) / *count as f64).clamp(0.0, 1.0);
                let micros = from as f64 + (to - from) as f64 * part;
                return Some(Duration::from_micros(micros as u64));
            }
            below += count;
        }
        None
    }
}

fn bucket(took: Duration) -> usize {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    if micros < 1 << FIRST_OCTAVE {
        return 0;
    }
    let octave = micros.ilog2();
    if octave >= LAST_OCTAVE {
        return BUCKETS - 1;
    }
    let part = (micros >> (octave - PARTS.ilog2())) as usize % PARTS;
    1 + (octave - FIRST_OCTAVE) as usize * PARTS + part
}

/// The least that falls into a bucket, in microseconds; the last one has no width.
fn floor(bucket: usize) -> u64 {
    match bucket.min(BUCKETS - 1).checked_sub(1) {
        None => 0,
        Some(at) => ((PARTS + at % PARTS) as u64) << (FIRST_OCTAVE as usize + at / PARTS - 3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(millis: f64) -> Duration {
        Duration::from_secs_f64(millis / 1000.0)
    }

    #[test]
    fn buckets_lie_side_by_side_and_are_an_eighth_wide_at_most() {
        for at in 0..BUCKETS {
            assert_eq!(bucket(Duration::from_micros(floor(at))), at);
            let last = floor(at + 1).max(floor(at) + 1) - 1;
            assert_eq!(bucket(Duration::from_micros(last)), at);
            assert!(at == 0 || (floor(at + 1) - floor(at)) * 8 <= floor(at), "{at}");
        }
        assert_eq!(floor(BUCKETS - 1), 1 << LAST_OCTAVE);
        assert_eq!(bucket(Duration::MAX), BUCKETS - 1);
    }

    #[test]
    fn a_latency_is_as_it_was_but_for_an_eighth() {
        let judged = Judged::default();
        (1..=1000).for_each(|n| judged.count(Verdict::Good(Some(millis(f64::from(n))))));
        let found = Judgement::of([&judged]);
        for (points, expected) in [(5000, 500.0), (9500, 950.0), (9900, 990.0)] {
            let latency = found.latency(points).unwrap().as_secs_f64() * 1000.0;
            assert!((latency / expected - 1.0).abs() < 0.13, "{points}: {latency} ms");
        }
        assert_eq!(Judgement::default().latency(9500), None);
    }

    #[test]
    fn what_has_come_since_is_never_less_than_nothing() {
        let workers = [Judged::default(), Judged::default()];
        workers[0].count(Verdict::Good(None));
        workers[1].count(Verdict::Fault);
        workers[1].count(Verdict::Nothing);
        let before = Judgement::of(&workers);
        assert_eq!((before.requests, before.faults), (2, 1));
        workers[1].count(Verdict::Fault);
        workers[0].count(Verdict::Good(Some(millis(5.0))));
        let after = Judgement::of(&workers);
        let since = after.since(&before);
        assert_eq!((since.requests, since.faults), (2, 1));
        assert!(since.latency(5000).is_some());
        assert_eq!(before.since(&after), Judgement::default());
    }
}
