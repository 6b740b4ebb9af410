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

/// Leave to pass while half-open, for one attempt. It is worth nothing once the breaker has moved on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permit {
    round: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed { failures: u32 },
    Open { until: Instant },
    HalfOpen { successes: u32, on_trial: u32 },
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
    /// Counts the times that it became half-open.
    round: u64,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { state: State::Closed { failures: 0 }, round: 0 }
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

    /// Whether an attempt may begin: successes so far and attempts on trial add up to the trials at
    /// most.
    pub fn admits(&self, limits: &types::Breaker) -> bool {
        match self.state {
            State::Closed { .. } => true,
            State::Open { .. } => false,
            State::HalfOpen { successes, on_trial } => successes + on_trial < limits.trials,
        }
    }

    /// Takes a permit for an attempt that begins. `None` where none is asked for or none is left;
    /// the outcome of an attempt without one changes no half-open breaker.
    pub fn permit(&mut self, limits: &types::Breaker) -> Option<Permit> {
        let admits = self.admits(limits);
        match &mut self.state {
            State::HalfOpen { on_trial, .. } if admits => {
                *on_trial += 1;
                Some(Permit { round: self.round })
            }
            State::Closed { .. } | State::Open { .. } | State::HalfOpen { .. } => None,
        }
    }

    /// An attempt ended without an outcome.
    pub fn give_back(&mut self, permit: Permit) {
        if let State::HalfOpen { on_trial, .. } = &mut self.state
            && permit.round == self.round
        {
            *on_trial -= 1;
        }
    }

    /// A request was answered.
    pub fn succeeded(&mut self, permit: Option<Permit>, limits: &types::Breaker) -> Option<Change> {
        match &mut self.state {
            State::Closed { failures } => {
                *failures = 0;
                None
            }
            // Sent before it opened, answered after: no trial.
            State::Open { .. } => None,
            State::HalfOpen { successes, on_trial } => {
                permit.filter(|permit| permit.round == self.round)?;
                *on_trial -= 1;
                *successes += 1;
                self.close_if_proven(limits)
            }
        }
    }

    /// A request failed without an answer.
    pub fn failed(
        &mut self,
        permit: Option<Permit>,
        limits: &types::Breaker,
        now: Instant,
    ) -> Option<Change> {
        let opens = match &mut self.state {
            State::Closed { failures } => {
                *failures += 1;
                *failures >= limits.failures
            }
            State::Open { .. } => false,
            State::HalfOpen { .. } => permit.is_some_and(|permit| permit.round == self.round),
        };
        opens.then(|| {
            let until = now + limits.open;
            self.state = State::Open { until };
            Change::Opened { until }
        })
    }

    /// Takes over other limits: fewer trials may have been passed already.
    pub fn relimit(&mut self, limits: &types::Breaker) -> Option<Change> {
        self.close_if_proven(limits)
    }

    fn close_if_proven(&mut self, limits: &types::Breaker) -> Option<Change> {
        match self.state {
            State::HalfOpen { successes, .. } if successes >= limits.trials => self.reset(),
            State::Closed { .. } | State::Open { .. } | State::HalfOpen { .. } => None,
        }
    }

    /// Lets an open breaker whose time is over begin its trials.
    pub fn tick(&mut self, now: Instant) -> Option<Change> {
        match self.state {
            State::Open { until } if now >= until => {
                self.round += 1;
                self.state = State::HalfOpen { successes: 0, on_trial: 0 };
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
        assert_eq!(breaker.failed(None, &LIMITS, start), None);
        assert_eq!(breaker.succeeded(None, &LIMITS), None);
        assert_eq!(breaker.failed(None, &LIMITS, start), None);
        assert_eq!(breaker.failed(None, &LIMITS, start), None);
        let until = start + LIMITS.open;
        assert_eq!(breaker.failed(None, &LIMITS, start), Some(Change::Opened { until }));
        assert_eq!((breaker.passage(), breaker.admits(&LIMITS)), (Passage::Refuses, false));
        assert_eq!(breaker.succeeded(None, &LIMITS), None, "a late answer closes nothing");
        assert_eq!(breaker.tick(start), None);
        assert_eq!(breaker.tick(until), Some(Change::HalfOpen));
        assert_eq!((breaker.passage(), breaker.admits(&LIMITS)), (Passage::Trial, true));
        let (one, other) = (breaker.permit(&LIMITS), breaker.permit(&LIMITS));
        assert_eq!((breaker.permit(&LIMITS), breaker.admits(&LIMITS)), (None, false));
        assert_eq!(breaker.succeeded(one, &LIMITS), None);
        assert!(!breaker.admits(&LIMITS), "one has passed, one is under way");
        assert_eq!(breaker.succeeded(other, &LIMITS), Some(Change::Closed));
        assert!(breaker.is_calm());
    }

    /// A breaker that is half-open, and when it became so.
    fn half_open() -> (Breaker, Instant) {
        let mut breaker = Breaker::default();
        let start = Instant::now();
        for _ in 0..LIMITS.failures {
            breaker.failed(None, &LIMITS, start);
        }
        breaker.tick(start + LIMITS.open);
        (breaker, start + LIMITS.open)
    }

    #[test]
    fn a_failed_trial_opens_it_again() {
        let (mut breaker, now) = half_open();
        let permit = breaker.permit(&LIMITS);
        let until = now + LIMITS.open;
        assert_eq!(breaker.failed(permit, &LIMITS, now), Some(Change::Opened { until }));
        assert_eq!(breaker.reset(), Some(Change::Closed));
        assert_eq!(breaker.reset(), None);
    }

    #[test]
    fn a_permit_given_back_serves_another_and_an_old_one_counts_for_nothing() {
        let (mut breaker, now) = half_open();
        let old = breaker.permit(&LIMITS).unwrap();
        let failed = breaker.permit(&LIMITS);
        breaker.failed(failed, &LIMITS, now);
        breaker.tick(now + LIMITS.open);
        let (one, other) = (breaker.permit(&LIMITS), breaker.permit(&LIMITS));
        breaker.give_back(old);
        assert_eq!(breaker.succeeded(Some(old), &LIMITS), None);
        assert_eq!(breaker.failed(Some(old), &LIMITS, now), None, "from before it opened");
        assert_eq!(breaker.failed(None, &LIMITS, now), None, "not on trial");
        assert!(!breaker.admits(&LIMITS), "nothing came back");
        breaker.give_back(one.unwrap());
        assert!(breaker.permit(&LIMITS).is_some());
        assert_eq!(breaker.succeeded(other, &LIMITS), None, "two are asked for");
    }

    #[test]
    fn other_limits_hold_at_once() {
        let (mut breaker, _now) = half_open();
        let permit = breaker.permit(&LIMITS);
        let more = types::Breaker { trials: 5, ..LIMITS };
        let fewer = types::Breaker { trials: 1, ..LIMITS };
        assert_eq!(breaker.relimit(&more), None);
        assert!(!breaker.admits(&fewer) && breaker.admits(&more));
        breaker.succeeded(permit, &more);
        assert_eq!(breaker.relimit(&fewer), Some(Change::Closed), "one success is enough now");
    }

    proptest! {
        /// `b` an attempt begins; the oldest one ends: `s` with success, `f` with failure, `d` with
        /// neither; `t` a second passes.
        #[test]
        fn it_opens_only_after_failures_in_a_row_and_loses_no_permit(events in "[bsfdt]{0,96}") {
            let mut breaker = Breaker::default();
            let mut now = Instant::now();
            let mut in_a_row = 0;
            let mut attempts = std::collections::VecDeque::new();
            for event in events.chars() {
                let before = breaker.passage();
                let mut end = || attempts.pop_front().flatten();
                let change = match event {
                    'b' => { attempts.push_back(breaker.permit(&LIMITS)); None }
                    's' => { in_a_row = 0; breaker.succeeded(end(), &LIMITS) }
                    'f' => { in_a_row += 1; breaker.failed(end(), &LIMITS, now) }
                    'd' => { end().into_iter().for_each(|permit| breaker.give_back(permit)); None }
                    _ => { now += Duration::from_secs(1); breaker.tick(now) }
                };
                if let (Some(Change::Opened { .. }), Passage::Passes) = (change, before) {
                    prop_assert!(in_a_row >= LIMITS.failures);
                }
                prop_assert_eq!(change.is_some(), before != breaker.passage());
            }
            attempts.into_iter().flatten().for_each(|permit| breaker.give_back(permit));
            prop_assert_eq!(breaker.admits(&LIMITS), breaker.passage() != Passage::Refuses);
        }
    }
}
