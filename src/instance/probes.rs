//! What the probes of an instance found: the last of each check in words, and how many came to what.
//!
//! Written by the prober, read when somebody asks.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use crate::health::check::{Kind, Outcome};

/// One probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// When it was over.
    pub at: SystemTime,
    /// What it came to.
    pub outcome: Outcome,
    /// How long it took.
    pub took: Duration,
    /// What the instance said, or why it said nothing.
    pub said: Box<str>,
}

impl Probe {
    /// The same in words: `200 OK in 3 ms`, `connecting: Connection refused`.
    pub fn detail(&self) -> String {
        match self.outcome {
            Outcome::Pass | Outcome::Refused => {
                let millis = self.took.as_secs_f64() * 1000.0;
                let places = if millis < 10.0 { 1 } else { 0 };
                format!("{} in {millis:.places$} ms", self.said)
            }
            Outcome::NoAnswer => self.said.to_string(),
        }
    }
}

/// What is kept of the probes of an instance, by check.
#[derive(Debug, Default)]
pub struct Probes([Probed; Kind::ALL.len()]);

#[derive(Debug, Default)]
struct Probed {
    last: Mutex<Option<Probe>>,
    outcomes: [AtomicU64; Outcome::ALL.len()],
}

impl Probes {
    /// Takes note of one.
    pub fn note(&self, kind: Kind, probe: Probe) {
        let probed = &self.0[kind as usize];
        probed.outcomes[probe.outcome as usize].fetch_add(1, Ordering::Relaxed);
        *probed.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(probe);
    }

    /// The last one of a check that is asked for.
    pub fn last(&self, kind: Kind) -> Option<Probe> {
        self.0[kind as usize].last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many came to what, in the order of [`Outcome`].
    pub fn outcomes(&self, kind: Kind) -> [u64; Outcome::ALL.len()] {
        self.0[kind as usize].outcomes.each_ref().map(|count| count.load(Ordering::Relaxed))
    }

    /// The check is not asked for any more: what it found says nothing of today.
    pub fn forget(&self, kind: Kind) {
        *self.0[kind as usize].last.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(outcome: Outcome, micros: u64, said: &str) -> Probe {
        let took = Duration::from_micros(micros);
        Probe { at: SystemTime::UNIX_EPOCH, outcome, took, said: said.into() }
    }

    #[test]
    fn the_detail_says_how_long_an_answer_took() {
        for (outcome, micros, said, detail) in [
            (Outcome::Pass, 300, "200 OK", "200 OK in 0.3 ms"),
            (
                Outcome::Refused,
                12_345,
                "503 Service Unavailable",
                "503 Service Unavailable in 12 ms",
            ),
            (Outcome::NoAnswer, 9, "connecting: refused", "connecting: refused"),
        ] {
            assert_eq!(probe(outcome, micros, said).detail(), detail);
        }
    }

    #[test]
    fn the_last_probe_of_each_check_is_kept_until_the_check_is_gone() {
        let probes = Probes::default();
        assert_eq!(probes.last(Kind::Readiness), None);
        let (good, bad) = (probe(Outcome::Pass, 1, "a"), probe(Outcome::NoAnswer, 2, "b"));
        probes.note(Kind::Readiness, good);
        probes.note(Kind::Readiness, bad.clone());
        assert_eq!(probes.last(Kind::Readiness), Some(bad));
        assert_eq!(probes.last(Kind::Liveness), None);
        assert_eq!(probes.outcomes(Kind::Readiness), [1, 0, 1]);
        probes.forget(Kind::Readiness);
        assert_eq!(probes.last(Kind::Readiness), None);
        assert_eq!(probes.outcomes(Kind::Readiness), [1, 0, 1], "a counter never falls");
    }
}
