//! The machine step by step, and under any events.

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
