//! What clients were answered, how often badly, and how long it took: the requests of one listener,
//! or of one version, as one worker counts them when each is over.
//!
//! What instances answered is counted beside each instance: several may be asked for one request, and
//! none for another.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::StatusCode;

use crate::observe::judged::Judged;
use crate::observe::latency::{Latencies, Spread, add};

/// Labels of what clients were answered: classes of statuses, and nothing.
pub const CLASSES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "none"];
const NONE: usize = CLASSES.len() - 1;

/// A request that is over.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    /// What its client was answered, if it was.
    pub status: Option<StatusCode>,
    /// Whether Burdock or the instance failed, rather than the client.
    pub is_error: bool,
    /// Attempts made.
    pub attempts: u32,
    /// From its head to the head of an answer, if there is one.
    pub first_byte: Option<Duration>,
    /// From its head to its end, if it had a head.
    pub duration: Option<Duration>,
}

/// Counts of one worker; aligned so that two workers never share a cache line.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Red {
    answers: [AtomicU64; CLASSES.len()],
    errors: AtomicU64,
    attempts: AtomicU64,
    first_byte: Latencies,
    duration: Latencies,
    /// What they say of the version, where its service has several.
    pub judged: Judged,
}

impl Red {
    /// Counts a request. To be called by one thread only.
    pub fn count(&self, ended: &Ended) {
        let class =
            ended.status.map_or(NONE, |it| usize::from(it.as_u16() / 100).clamp(1, NONE) - 1);
        add(&self.answers[class], 1);
        if ended.is_error {
            add(&self.errors, 1);
        }
        add(&self.attempts, ended.attempts.into());
        if let Some(first_byte) = ended.first_byte {
            self.first_byte.count(first_byte);
        }
        if let Some(duration) = ended.duration {
            self.duration.count(duration);
        }
    }

    /// Adds how long requests waited for the head of an answer.
    pub fn add_first_byte(&self, spread: &mut Spread) {
        spread.add(&self.first_byte);
    }
}

/// What several workers have counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sums {
    /// Requests, in the order of [`CLASSES`].
    pub answers: [u64; CLASSES.len()],
    /// Those that Burdock or an instance failed.
    pub errors: u64,
    /// Attempts made for them.
    pub attempts: u64,
    /// How long they waited for the head of an answer.
    pub first_byte: Spread,
    /// How long they took in all.
    pub duration: Spread,
}

impl Sums {
    /// Of these.
    pub fn of<'a>(workers: impl IntoIterator<Item = &'a Red>) -> Self {
        let mut sums = Self::default();
        for red in workers {
            let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
            for (sum, answers) in sums.answers.iter_mut().zip(&red.answers) {
                *sum += read(answers);
            }
            sums.errors += read(&red.errors);
            sums.attempts += read(&red.attempts);
            sums.first_byte.add(&red.first_byte);
            sums.duration.add(&red.duration);
        }
        sums
    }

    /// Requests in all.
    pub fn requests(&self) -> u64 {
        self.answers.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_what_was_answered() {
        let workers = [Red::default(), Red::default()];
        let second = Some(Duration::from_secs(1));
        for (worker, status, is_error) in
            [(0, Some(200), false), (1, Some(204), false), (0, Some(502), true), (1, None, true)]
        {
            let status = status.map(|it| StatusCode::from_u16(it).unwrap());
            let first_byte = status.and(second);
            let ended = Ended { status, is_error, attempts: 2, first_byte, duration: second };
            workers[worker].count(&ended);
        }
        let sums = Sums::of(&workers);
        assert_eq!(sums.answers, [0, 2, 0, 0, 1, 1]);
        assert_eq!((sums.requests(), sums.errors, sums.attempts), (4, 2, 8));
        assert_eq!((sums.first_byte.count(), sums.duration.count()), (3, 4));
    }
}
