//! Passive ejection: closed passes, open refuses, half-open lets trial requests through.
//!
//! Pure: the time is an argument. Connection failures, resets before an answer and answers that
//! never came count; what an instance answers doesn't.

use std::time::Instant;

use crate::config::types;

/// What the breaker lets through now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passage {
    /// Everything.
    Passes,
    /// As many requests at once as trials are left.
    Trial,
    /// Nothing.
    Refuses,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed { failures: u32 },
    Open { until: Instant },
    HalfOpen { successes: u32 },
}

/// A change that somebody may want to know of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It refuses until this instant.
    Opened {
        /// When trials begin.
        until: Instant,
    },
    /// Trials begin.
    HalfOpen,
    /// Back to normal.
    Closed,
}

/// The breaker of one instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breaker {
    state: State,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { state: State::Closed { failures: 0 } }
    }
}

impl Breaker {
    /// What passes now.
    pub fn passage(&self) -> Passage {
        match self.state {
            State::Closed { .. } => Passage::Passes,
            State::Open { .. } => Passage::Refuses,
            State::HalfOpen { .. } => Passage::Trial,
        }
    }

    /// Whether it is closed with no failure on record: a success would change nothing.
    pub fn is_calm(&self) -> bool {
        self.state == State::Closed { failures: 0 }
    }

    /// A request was answered.
    pub fn succeeded(&mut self, limits: &types::Breaker) -> Option<Change> {
        match &mut self.state {
            State::Closed { failures } => {
                *failures = 0;
                None
            }
            // Sent before it opened, answered after: no trial.
            State::Open { .. } => None,
            State::HalfOpen { successes } => {
                *successes += 1;
                (*successes >= limits.trials).then(|| {
                    self.state = State::Closed { failures: 0 };
                    Change::Closed
                })
            }
        }
    }

    /// A request failed without an answer.
    pub fn failed(&mut self, limits: &types::Breaker, now: Instant) -> Option<Change> {
        let opens = match &mut self.state {
            State::Closed { failures } => {
                *failures += 1;
                *failures >= limits.failures
            }
            State::Open { .. } => false,
            State::HalfOpen { .. } => true,
        };
        opens.then(|| {
            let until = now + limits.open;
            self.state = State::Open { until };
            Change::Opened { until }
        })
    }

    /// Lets an open breaker whose time is over begin its trials.
    pub fn tick(&mut self, now: Instant) -> Option<Change> {
        match self.state {
            State::Open { until } if now >= until => {
                self.state = State::HalfOpen { successes: 0 };
                Some(Change::HalfOpen)
            }
            State::Open { .. } | State::Closed { .. } | State::HalfOpen { .. } => None,
        }
    }

    /// Forgets everything: a readiness check has just vouched for the instance anew.
    pub fn reset(&mut self) -> Option<Change> {
        let was_closed = matches!(self.state, State::Closed { .. });
        self.state = State::Closed { failures: 0 };
        (!was_closed).then_some(Change::Closed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    const LIMITS: types::Breaker =
        types::Breaker { failures: 3, open: Duration::from_secs(5), trials: 2 };

    #[test]
    fn it_trips_tries_and_recovers() {
        let mut breaker = Breaker::default();
        let start = Instant::now();
        assert_eq!(breaker.failed(&LIMITS, start), None);
        assert_eq!(breaker.succeeded(&LIMITS), None);
        assert_eq!(breaker.failed(&LIMITS, start), None);
        assert_eq!(breaker.failed(&LIMITS, start), None);
        let until = start + LIMITS.open;
        assert_eq!(breaker.failed(&LIMITS, start), Some(Change::Opened { until }));
        assert_eq!(breaker.passage(), Passage::Refuses);
        assert_eq!(breaker.succeeded(&LIMITS), None, "a late answer closes nothing");
        assert_eq!(breaker.tick(start), None);
        assert_eq!(breaker.tick(until), Some(Change::HalfOpen));
        assert_eq!(breaker.passage(), Passage::Trial);
        assert_eq!(breaker.succeeded(&LIMITS), None);
        assert_eq!(breaker.succeeded(&LIMITS), Some(Change::Closed));
    }

    #[test]
    fn a_failed_trial_opens_it_again() {
        let mut breaker = Breaker::default();
        let start = Instant::now();
        for _ in 0..3 {
            breaker.failed(&LIMITS, start);
        }
        breaker.tick(start + LIMITS.open);
        let again = start + LIMITS.open * 2;
        assert_eq!(
            breaker.failed(&LIMITS, again - LIMITS.open),
            Some(Change::Opened { until: again })
        );
        assert_eq!(breaker.reset(), Some(Change::Closed));
        assert_eq!(breaker.reset(), None);
    }

    proptest! {
        /// `s` success, `f` failure, `t` a second passes.
        #[test]
        fn it_opens_only_after_failures_in_a_row(events in "[sft]{0,64}") {
            let mut breaker = Breaker::default();
            let mut now = Instant::now();
            let mut in_a_row = 0;
            for event in events.chars() {
                let before = breaker.passage();
                let change = match event {
                    's' => { in_a_row = 0; breaker.succeeded(&LIMITS) }
                    'f' => { in_a_row += 1; breaker.failed(&LIMITS, now) }
                    _ => { now += Duration::from_secs(1); breaker.tick(now) }
                };
                if let (Some(Change::Opened { .. }), Passage::Passes) = (change, before) {
                    prop_assert!(in_a_row >= LIMITS.failures);
                }
                prop_assert_eq!(change.is_some(), before != breaker.passage());
            }
        }
    }
}
