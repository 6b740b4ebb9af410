//! Rates and percentiles of the last few seconds, from counts that only grow.
//!
//! Two marks are kept of what had been counted when; whoever asks gets the difference to the older
//! one. With a mark set every 5 s that is 5 to 10 s old. Nothing is computed before somebody asks,
//! and where nothing was counted no mark is kept.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::observe::latency::Spread;

/// A rate over less than this would say little.
const LEAST: Duration = Duration::from_secs(1);

/// What has been counted so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counted {
    /// Requests.
    pub requests: u64,
    /// Those of them, or attempts beside them, that failed or were answered with a 5xx.
    pub errors: u64,
    /// How long it took to the head of each answer.
    pub first_byte: Spread,
}

/// What the API tells of it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Rates {
    /// Since the start.
    pub requests_total: u64,
    /// Since the start.
    pub failures_total: u64,
    /// Lately.
    pub requests_per_second: f64,
    /// Lately.
    pub errors_per_second: f64,
    /// Lately; `None` without answers.
    pub latency_seconds: Option<Percentiles>,
}

/// How long it took to the heads of answers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Percentiles {
    /// Half of them took no longer.
    pub p50: f64,
    /// Likewise nine tenths.
    pub p90: f64,
    /// Likewise 99 of 100.
    pub p99: f64,
}

impl Percentiles {
    /// Of these; `None` if there are none.
    pub fn of(spread: &Spread) -> Option<Self> {
        let at = |share| spread.percentile(share).map(round);
        Some(Self { p50: at(0.5)?, p90: at(0.9)?, p99: at(0.99)? })
    }
}

/// Six digits after the point are enough for anybody.
pub fn round(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}

impl Counted {
    /// Rates since `before`, so long ago.
    pub fn since(&self, before: &Self, ago: Duration) -> Rates {
        let seconds = ago.max(LEAST).as_secs_f64();
        let rate = |now: u64, then: u64| round(now.saturating_sub(then) as f64 / seconds);
        Rates {
            requests_total: self.requests,
            failures_total: self.errors,
            requests_per_second: rate(self.requests, before.requests),
            errors_per_second: rate(self.errors, before.errors),
            latency_seconds: Percentiles::of(&self.first_byte.since(&before.first_byte)),
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Mark {
    at: Instant,
    counted: Counted,
}

/// The marks of an instance or a version.
#[derive(Debug)]
pub struct Trend {
    begin: Instant,
    /// The older first.
    marks: Mutex<Option<Box<[Mark; 2]>>>,
}

impl Trend {
    /// Nothing has been counted yet.
    pub fn new(begin: Instant) -> Self {
        Self { begin, marks: Mutex::default() }
    }

    /// Sets a mark.
    pub fn mark(&self, counted: &Counted, now: Instant) {
        if counted.requests == 0 && counted.errors == 0 {
            return;
        }
        let mark = Mark { at: now, counted: *counted };
        let mut marks = self.marks();
        match &mut *marks {
            Some(marks) => **marks = [marks[1], mark],
            None => {
                let at = now.checked_sub(Duration::from_secs(5)).unwrap_or(now).max(self.begin);
                let first = Mark { at, counted: Counted::default() };
                *marks = Some(Box::new([first, mark]));
            }
        }
    }

    /// Rates since the older mark, or since there was nothing yet.
    pub fn rates(&self, counted: &Counted, now: Instant) -> Rates {
        let (at, before) = match &*self.marks() {
            Some(marks) => (marks[0].at, marks[0].counted),
            None => (self.begin, Counted::default()),
        };
        counted.since(&before, now.saturating_duration_since(at))
    }

    /// Requests per second alone, where so many have been counted.
    pub fn pace(&self, requests: u64, now: Instant) -> f64 {
        let (at, before) = match &*self.marks() {
            Some(marks) => (marks[0].at, marks[0].counted.requests),
            None => (self.begin, 0),
        };
        let seconds = now.saturating_duration_since(at).max(LEAST).as_secs_f64();
        requests.saturating_sub(before) as f64 / seconds
    }

    fn marks(&self) -> MutexGuard<'_, Option<Box<[Mark; 2]>>> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::latency::Latencies;

    fn counted(requests: u64, errors: u64) -> Counted {
        let latencies = Latencies::default();
        (0..requests).for_each(|_| latencies.count(Duration::from_millis(2)));
        let mut first_byte = Spread::default();
        first_byte.add(&latencies);
        Counted { requests, errors, first_byte }
    }

    #[test]
    fn rates_are_of_the_last_seconds() {
        let begin = Instant::now();
        let after = |seconds| begin + Duration::from_secs(seconds);
        let trend = Trend::new(begin);
        assert_eq!(trend.rates(&counted(10, 0), after(10)).requests_per_second, 1.0);
        for step in 1..=4 {
            trend.mark(&counted(step * 50, step * 5), after(step * 5));
        }
        let rates = trend.rates(&counted(250, 25), after(25));
        assert_eq!((rates.requests_total, rates.failures_total), (250, 25));
        assert_eq!((rates.requests_per_second, rates.errors_per_second), (10.0, 1.0));
        assert_eq!(trend.pace(250, after(25)), 10.0);
        let latency = rates.latency_seconds.unwrap();
        assert!((0.001..=0.0025).contains(&latency.p50), "{latency:?}");
        let idle = (5..=6).map(|step| step * 5);
        idle.for_each(|seconds| trend.mark(&counted(250, 25), after(seconds)));
        let rates = trend.rates(&counted(250, 25), after(31));
        assert_eq!((rates.requests_per_second, rates.latency_seconds), (0.0, None));
    }

    #[test]
    fn the_first_moments_exaggerate_nothing() {
        let begin = Instant::now();
        let rates = Trend::new(begin).rates(&counted(3, 0), begin + Duration::from_millis(1));
        assert_eq!(rates.requests_per_second, 3.0);
        let late = Trend::new(begin);
        late.mark(&counted(50, 0), begin + Duration::from_secs(600));
        let rates = late.rates(&counted(50, 0), begin + Duration::from_secs(600));
        assert_eq!(rates.requests_per_second, 10.0, "all of it came since the last look");
    }

    #[test]
    fn without_requests_no_memory_is_taken() {
        let trend = Trend::new(Instant::now());
        trend.mark(&Counted::default(), Instant::now());
        assert!(trend.marks().is_none());
    }
}
