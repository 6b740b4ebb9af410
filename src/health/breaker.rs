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
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: types::Breaker = types::Breaker {
        failures: 3,
        error_share: None,
        window: Duration::from_secs(10),
        min_requests: 20,
        open: Duration::from_secs(5),
        max_open: Duration::from_secs(60),
        trials: 2,
        max_ejected: 5000,
    };

    /// A moment without a count in which anybody may open.
    fn at(now: Instant) -> Moment<'static> {
        Moment { limits: &LIMITS, now, counts: Counts::default(), may_open: &|| true }
    }

    /// A change to open after failures in a row.
    fn opened(until: Instant) -> Option<Change> {
        Some(Change::Opened { until, trigger: Trigger::Failures })
    }

    #[test]
    fn it_trips_tries_and_recovers() {
        let mut breaker = Breaker::default();
        let start = Instant::now();
        assert_eq!(breaker.failed(None, at(start)), None);
        assert_eq!(breaker.succeeded(None, &LIMITS, start), None);
        assert_eq!(breaker.failed(None, at(start)), None);
        assert_eq!(breaker.failed(None, at(start)), None);
        let until = start + LIMITS.open;
        assert_eq!(breaker.failed(None, at(start)), opened(until));
        assert_eq!((breaker.passage(), breaker.admits(&LIMITS)), (Passage::Refuses, false));
        assert_eq!(breaker.succeeded(None, &LIMITS, start), None, "a late answer closes nothing");
        assert_eq!(breaker.tick(start), None);
        assert_eq!(breaker.tick(until), Some(Change::HalfOpen));
        assert_eq!((breaker.passage(), breaker.admits(&LIMITS)), (Passage::Trial, true));
        let (one, other) = (breaker.permit(&LIMITS), breaker.permit(&LIMITS));
        assert_eq!((breaker.permit(&LIMITS), breaker.admits(&LIMITS)), (None, false));
        assert_eq!(breaker.succeeded(one, &LIMITS, until), None);
        assert!(!breaker.admits(&LIMITS), "one has passed, one is under way");
        assert_eq!(breaker.succeeded(other, &LIMITS, until), Some(Change::Closed));
        assert!(breaker.is_calm());
    }

    /// A breaker that is half-open, and when it became so.
    fn half_open() -> (Breaker, Instant) {
        let mut breaker = Breaker::default();
        let start = Instant::now();
        for _ in 0..LIMITS.failures {
            breaker.failed(None, at(start));
        }
        breaker.tick(start + LIMITS.open);
        (breaker, start + LIMITS.open)
    }

    #[test]
    fn a_failed_trial_opens_it_again() {
        let (mut breaker, now) = half_open();
        let permit = breaker.permit(&LIMITS);
        let until = now + 2 * LIMITS.open;
        let opened = Change::Opened { until, trigger: Trigger::Trial };
        assert_eq!(breaker.failed(permit, at(now)), Some(opened));
        assert_eq!(breaker.reset(), Some(Change::Closed));
        assert_eq!(breaker.reset(), None);
    }

    #[test]
    fn a_permit_given_back_serves_another_and_an_old_one_counts_for_nothing() {
        let (mut breaker, now) = half_open();
        let old = breaker.permit(&LIMITS).unwrap();
        let failed = breaker.permit(&LIMITS);
        breaker.failed(failed, at(now));
        breaker.tick(now + 2 * LIMITS.open);
        let (one, other) = (breaker.permit(&LIMITS), breaker.permit(&LIMITS));
        breaker.give_back(old);
        assert_eq!(breaker.succeeded(Some(old), &LIMITS, now), None);
        assert_eq!(breaker.failed(Some(old), at(now)), None, "from before it opened");
        assert_eq!(breaker.failed(None, at(now)), None, "not on trial");
        assert!(!breaker.admits(&LIMITS), "nothing came back");
        breaker.give_back(one.unwrap());
        assert!(breaker.permit(&LIMITS).is_some());
        assert_eq!(breaker.succeeded(other, &LIMITS, now), None, "two are asked for");
    }

    #[test]
    fn other_limits_hold_at_once() {
        let (mut breaker, now) = half_open();
        let permit = breaker.permit(&LIMITS);
        let more = types::Breaker { trials: 5, ..LIMITS };
        let fewer = types::Breaker { trials: 1, ..LIMITS };
        assert_eq!(breaker.relimit(&more, now), None);
        assert!(!breaker.admits(&fewer) && breaker.admits(&more));
        breaker.succeeded(permit, &more, now);
        assert_eq!(breaker.relimit(&fewer, now), Some(Change::Closed), "one success is enough now");
    }

    #[test]
    fn it_stays_open_for_longer_each_time_until_it_has_been_closed_for_long() {
        let mut breaker = Breaker::default();
        let mut now = Instant::now();
        let open = |breaker: &mut Breaker, now: Instant| {
            let change = (0..LIMITS.failures).find_map(|_| breaker.failed(None, at(now)));
            let Some(Change::Opened { until, .. }) = change else { panic!("{change:?}") };
            until
        };
        let close = |breaker: &mut Breaker, now: Instant| {
            breaker.tick(now);
            for _ in 0..LIMITS.trials {
                let permit = breaker.permit(&LIMITS);
                breaker.succeeded(permit, &LIMITS, now);
            }
            assert_eq!(breaker.passage(), Passage::Passes);
        };
        for seconds in [5, 10, 20, 40, 60, 60] {
            let until = open(&mut breaker, now);
            assert_eq!((until - now).as_secs(), seconds);
            close(&mut breaker, until);
            now = until + LIMITS.max_open / 2;
        }
        now += LIMITS.max_open;
        let until = open(&mut breaker, now);
        assert_eq!(until - now, LIMITS.open, "it was closed for a minute and a half");
        breaker.reset();
        assert_eq!(open(&mut breaker, until) - until, LIMITS.open);
    }

    #[test]
    fn a_share_of_errors_in_the_window_opens_it() {
        let limits = types::Breaker { error_share: Some(5000), ..LIMITS };
        let start = Instant::now();
        let moment = |seconds: u64, attempts: u64, bad: u64| Moment {
            limits: &limits,
            now: start + Duration::from_secs(seconds),
            counts: Counts { attempts, bad },
            may_open: &|| true,
        };
        let is_opened = |change: Option<Change>| {
            matches!(change, Some(Change::Opened { trigger: Trigger::ErrorShare, .. }))
        };
        let mut breaker = Breaker::default();
        assert_eq!(breaker.erred(None, moment(0, 1000, 1)), None, "what was before is not asked");
        assert_eq!(breaker.erred(None, moment(1, 1018, 10)), None, "nineteen are too few");
        let mut young = breaker.clone();
        assert!(is_opened(young.erred(None, moment(9, 1019, 11))), "11 of 20");
        let mut few = breaker.clone();
        assert_eq!(few.erred(None, moment(9, 1023, 11)), None, "11 of 24");
        assert_eq!(breaker.erred(None, moment(12, 1019, 11)), None, "the window has passed");
        let mut unasked = Breaker::default();
        assert_eq!(unasked.erred(None, at(start)), None);
        assert!(unasked.is_calm(), "without a share a 5xx is an answer");
    }

    #[test]
    fn a_trial_that_is_answered_with_a_5xx_fails_where_a_share_is_asked_for() {
        let limits = types::Breaker { error_share: Some(5000), ..LIMITS };
        let (mut breaker, now) = half_open();
        let mut unasked = breaker.clone();
        let permit = breaker.permit(&limits);
        assert!(breaker.erred(permit, Moment { limits: &limits, ..at(now) }).is_some());
        assert_eq!(breaker.passage(), Passage::Refuses);
        for _ in 0..LIMITS.trials {
            let permit = unasked.permit(&LIMITS);
            unasked.erred(permit, at(now));
        }
        assert_eq!(unasked.passage(), Passage::Passes);
    }

    #[test]
    fn one_that_may_not_open_says_so_once_and_asks_again_only_after_as_many_failures() {
        let mut breaker = Breaker::default();
        let asked = std::cell::Cell::new(0);
        let refused = || {
            asked.set(asked.get() + 1);
            false
        };
        let now = Instant::now();
        let changes: Vec<_> = (0..9)
            .filter_map(|_| breaker.failed(None, Moment { may_open: &refused, ..at(now) }))
            .collect();
        let held = |is_news| Change::Held { is_news };
        assert_eq!((asked.get(), &changes[..]), (3, &[held(true), held(false), held(false)][..]));
        assert_eq!(breaker.passage(), Passage::Passes);
        let opened = (0..3).find_map(|_| breaker.failed(None, at(now)));
        assert!(matches!(opened, Some(Change::Opened { .. })), "there is room");
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
                    's' => { in_a_row = 0; breaker.succeeded(end(), &LIMITS, now) }
                    'f' => { in_a_row += 1; breaker.failed(end(), at(now)) }
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
