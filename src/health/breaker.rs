//! Passive ejection: closed passes, open refuses, half-open lets trial requests through.
//!
//! Pure: the time and what was counted are arguments. Failures in a row open it (connections that
//! fail or break before an answer, answers that never come), and so does a share of failures and 5xx
//! answers where the limits name one. Each time it opens it stays so for twice as long.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::config::types;

/// A window is looked at in this many steps.
const STEPS: u32 = 10;

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

/// Why it opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// Failures in a row.
    Failures,
    /// The share of errors.
    ErrorShare,
    /// A trial request failed.
    Trial,
}

impl Trigger {
    /// Every trigger, in the order of the metric's rows.
    pub const ALL: [Self; 3] = [Self::Failures, Self::ErrorShare, Self::Trial];

    /// The label in logs and metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Failures => "failures",
            Self::ErrorShare => "error_share",
            Self::Trial => "trial",
        }
    }
}

/// A change that somebody may want to know of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It refuses until this instant.
    Opened {
        /// When trials begin.
        until: Instant,
        /// Why.
        trigger: Trigger,
    },
    /// It would have opened, but too many others are open.
    Held {
        /// Whether it was not held lately.
        is_news: bool,
    },
    /// Trials begin.
    HalfOpen,
    /// Back to normal.
    Closed,
}

/// Attempts that have ended, and how many of them badly; both only grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// All.
    pub attempts: u64,
    /// Those that failed or were answered with a 5xx.
    pub bad: u64,
}

/// What a bad outcome is judged by.
#[derive(Clone, Copy)]
pub struct Moment<'a> {
    /// What the configuration allows.
    pub limits: &'a types::Breaker,
    /// When it happened.
    pub now: Instant,
    /// With this outcome.
    pub counts: Counts,
    /// Whether one more instance may be ejected; asked only when it is about to be.
    pub may_open: &'a dyn Fn() -> bool,
}

impl std::fmt::Debug for Moment<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Moment").field("counts", &self.counts).finish_non_exhaustive()
    }
}

/// The breaker of one instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breaker {
    state: State,
    /// Counts the times that it became half-open.
    round: u64,
    /// Times that it opened without having been closed for long between.
    openings: u32,
    /// When it last closed.
    closed: Option<Instant>,
    /// When it was last news that it was kept from opening.
    held: Option<Instant>,
    /// What was counted before bad outcomes in the window, a step apart.
    marks: VecDeque<(Instant, Counts)>,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            state: State::Closed { failures: 0 },
            round: 0,
            openings: 0,
            closed: None,
            held: None,
            marks: VecDeque::new(),
        }
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

    /// Whether it is closed with no failure in a row: a success would change nothing.
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
    pub fn succeeded(
        &mut self,
        permit: Option<Permit>,
        limits: &types::Breaker,
        now: Instant,
    ) -> Option<Change> {
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
                self.close_if_proven(limits, now)
            }
        }
    }

    /// A request failed without an answer.
    pub fn failed(&mut self, permit: Option<Permit>, moment: Moment<'_>) -> Option<Change> {
        match &mut self.state {
            State::Closed { failures } => {
                *failures += 1;
                let in_a_row = *failures >= moment.limits.failures;
                let share = self.share_reached(moment);
                match (in_a_row, share) {
                    (true, _) => Some(self.open_if_allowed(Trigger::Failures, moment)),
                    (false, true) => Some(self.open_if_allowed(Trigger::ErrorShare, moment)),
                    (false, false) => None,
                }
            }
            State::Open { .. } => None,
            State::HalfOpen { .. } => self.fail_trial(permit, moment),
        }
    }

    /// A request was answered with a 5xx, which is bad only where a share of them is named.
    pub fn erred(&mut self, permit: Option<Permit>, moment: Moment<'_>) -> Option<Change> {
        if moment.limits.error_share.is_none() {
            return self.succeeded(permit, moment.limits, moment.now);
        }
        match &mut self.state {
            State::Closed { failures } => {
                *failures = 0;
                let opens = self.share_reached(moment);
                opens.then(|| self.open_if_allowed(Trigger::ErrorShare, moment))
            }
            State::Open { .. } => None,
            State::HalfOpen { .. } => self.fail_trial(permit, moment),
        }
    }

    /// Takes over other limits: fewer trials may have been passed already.
    pub fn relimit(&mut self, limits: &types::Breaker, now: Instant) -> Option<Change> {
        self.close_if_proven(limits, now)
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
        *self = Self { round: self.round, ..Self::default() };
        (!was_closed).then_some(Change::Closed)
    }

    fn close_if_proven(&mut self, limits: &types::Breaker, now: Instant) -> Option<Change> {
        match self.state {
            State::HalfOpen { successes, .. } if successes >= limits.trials => {
                self.state = State::Closed { failures: 0 };
                self.closed = Some(now);
                Some(Change::Closed)
            }
            State::Closed { .. } | State::Open { .. } | State::HalfOpen { .. } => None,
        }
    }

    fn fail_trial(&mut self, permit: Option<Permit>, moment: Moment<'_>) -> Option<Change> {
        permit.filter(|permit| permit.round == self.round)?;
        Some(self.open(Trigger::Trial, moment))
    }

    /// Notes a bad outcome; whether too many were, since the first of them in the window.
    fn share_reached(&mut self, moment: Moment<'_>) -> bool {
        let Moment { limits, now, counts, .. } = moment;
        let Some(share) = limits.error_share else { return false };
        let age = |at: &Instant| now.saturating_duration_since(*at);
        while self.marks.front().is_some_and(|(at, _)| age(at) > limits.window) {
            self.marks.pop_front();
        }
        if self.marks.back().is_none_or(|(at, _)| age(at) >= limits.window / STEPS) {
            let before = Counts {
                attempts: counts.attempts.saturating_sub(1),
                bad: counts.bad.saturating_sub(1),
            };
            self.marks.push_back((now, before));
        }
        let Some((_, first)) = self.marks.front() else { return false };
        let attempts = counts.attempts.saturating_sub(first.attempts);
        let bad = counts.bad.saturating_sub(first.bad);
        attempts >= u64::from(limits.min_requests) && bad * 10_000 >= attempts * u64::from(share)
    }

    fn open_if_allowed(&mut self, trigger: Trigger, moment: Moment<'_>) -> Change {
        let Moment { limits, now, .. } = moment;
        if (moment.may_open)() {
            return self.open(trigger, moment);
        }
        // It has to earn the next question, which is dear.
        self.state = State::Closed { failures: 0 };
        self.marks.clear();
        let lately = |at: Instant| now.saturating_duration_since(at) < limits.max_open;
        let is_news = !self.held.is_some_and(lately);
        if is_news {
            self.held = Some(now);
        }
        Change::Held { is_news }
    }

    fn open(&mut self, trigger: Trigger, moment: Moment<'_>) -> Change {
        let Moment { limits, now, .. } = moment;
        let rested = |at: Instant| now.saturating_duration_since(at) >= limits.max_open;
        if trigger != Trigger::Trial && self.closed.is_none_or(rested) {
            self.openings = 0;
        }
        let until = now + back_off(limits, self.openings);
        self.openings = self.openings.saturating_add(1);
        self.held = None;
        self.marks.clear();
        self.state = State::Open { until };
        Change::Opened { until, trigger }
    }
}

/// How long it stays open after having opened so many times.
fn back_off(limits: &types::Breaker, openings: u32) -> Duration {
    let factor = 2_u32.checked_pow(openings).unwrap_or(u32::MAX);
    limits.open.saturating_mul(factor).min(limits.max_open)
}

#[cfg(test)]
mod tests;
