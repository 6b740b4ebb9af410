//! The limit before a model of an instance, in simulated time.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use proptest::prelude::*;

use super::*;

const LIMITS: types::Concurrency =
    types::Concurrency { initial: 20, min: 4, max: 1000, tolerance: 2500 };
const SECOND: u64 = 1_000_000;

/// An instance that works on so many requests at once and lets the others wait in it. More requests
/// than are let in are always there, unless `every` says how many microseconds are between two.
struct Model {
    workers: u64,
    /// Microseconds of work in a request, and how much that varies.
    work: u64,
    spread: f64,
    every: Option<u64>,
    limits: types::Concurrency,
    limit: Concurrency,
    begin: Instant,
    now: u64,
    random: fastrand::Rng,
    /// When those that are worked on end, and when they came.
    worked_on: BinaryHeap<Reverse<(u64, u64)>>,
    inside: VecDeque<u64>,
    outside: u64,
    next: u64,
    window: Window,
    opened: u64,
    answered: u64,
}

impl Model {
    fn new(workers: u64, work: u64) -> Self {
        let begin = Instant::now();
        Self {
            workers,
            work,
            spread: 0.5,
            every: None,
            limits: LIMITS,
            limit: Concurrency::new(&LIMITS, begin),
            begin,
            now: 0,
            random: fastrand::Rng::with_seed(7),
            worked_on: BinaryHeap::new(),
            inside: VecDeque::new(),
            outside: 0,
            next: 0,
            window: Window::default(),
            opened: 0,
            answered: 0,
        }
    }

    fn limited(mut self, limits: types::Concurrency) -> Self {
        self.limits = limits;
        self.limit = Concurrency::new(&limits, self.begin);
        self
    }

    fn limit(&self) -> u64 {
        self.limit.limit(&self.limits).into()
    }

    fn in_flight(&self) -> u64 {
        (self.worked_on.len() + self.inside.len()) as u64
    }

    /// Log-normal, so that some take long.
    fn takes(&mut self) -> u64 {
        let normal = (0..12).map(|_| self.random.f64()).sum::<f64>() - 6.0;
        (self.work as f64 * (normal * self.spread).exp()) as u64 + 1
    }

    fn admit(&mut self) {
        while self.in_flight() < self.limit() && (self.every.is_none() || self.outside > 0) {
            self.outside = self.outside.saturating_sub(1);
            self.inside.push_back(self.now);
        }
        while (self.worked_on.len() as u64) < self.workers {
            let Some(came) = self.inside.pop_front() else { break };
            let end = self.now + self.takes();
            self.worked_on.push(Reverse((end, came)));
        }
    }

    /// Runs for so many seconds; gives the limits it had, and the answers.
    fn run(&mut self, seconds: u64) -> (Vec<u64>, u64) {
        let (end, before) = (self.now + seconds * SECOND, self.answered);
        let mut limits = Vec::new();
        self.next = self.next.max(self.now);
        while self.now < end {
            self.admit();
            let answer = self.worked_on.peek().map_or(u64::MAX, |Reverse((at, _))| *at);
            let arrival = self.every.map_or(u64::MAX, |_| self.next);
            self.now = answer.min(arrival);
            if arrival <= answer {
                self.next += self.every.unwrap_or(u64::MAX);
                self.outside += 1;
                continue;
            }
            self.answer();
            limits.push(self.limit());
        }
        (limits, self.answered - before)
    }

    fn answer(&mut self) {
        // It is still counted when its head comes.
        self.window.in_flight = self.in_flight();
        let Some(Reverse((_, came))) = self.worked_on.pop() else { return };
        self.answered += 1;
        self.window.answers += 1;
        self.window.shares += share_of(Duration::from_micros(self.now - came));
        let open = Duration::from_micros(self.now - self.opened);
        if self.window.is_over(open) {
            let now = self.begin + Duration::from_micros(self.now);
            let random = self.random.f64();
            self.limit.learn(&std::mem::take(&mut self.window), &self.limits, now, random);
            self.opened = self.now;
        }
    }
}

fn mean(limits: &[u64]) -> f64 {
    limits.iter().sum::<u64>() as f64 / limits.len() as f64
}

/// Requests a second that so many workers can answer.
fn capacity(workers: u64, work: u64) -> f64 {
    let mean_work = work as f64 * (0.5_f64 * 0.5 / 2.0).exp();
    SECOND as f64 * workers as f64 / mean_work
}

#[test]
fn the_limit_settles_a_little_above_what_an_instance_can_do_at_once() {
    for (workers, work) in
        [(8, 5_000), (8, 500_000), (20, 20_000), (100, 5_000), (100, 500_000), (400, 50_000)]
    {
        let mut model = Model::new(workers, work);
        model.run(40);
        let (limits, answers) = model.run(20);
        let share = mean(&limits) / workers as f64;
        let used = answers as f64 / 20.0 / capacity(workers, work);
        assert!((1.0..2.0).contains(&share), "{share} of {workers} with {work} us");
        assert!(used > 0.85, "{used} of what {workers} can do with {work} us");
    }
}

#[test]
fn it_recovers_when_answers_slow_down_for_good_and_when_they_are_fast_again() {
    let mut model = Model::new(50, 5_000);
    model.run(30);
    model.work *= 5;
    model.run(10);
    let (_, slow) = model.run(10);
    let used = slow as f64 / 10.0 / capacity(50, 25_000);
    assert!(used > 0.85, "{used} of what it can do while it is slow");
    model.work /= 5;
    model.run(10);
    let (limits, fast) = model.run(30);
    let used = fast as f64 / 30.0 / capacity(50, 5_000);
    assert!(used > 0.9, "{used} of what it can do afterwards");
    model.run(30);
    let share = mean(&limits) / 50.0;
    assert!((1.0..6.0).contains(&share), "{share} times what it can do at once");
    let share = mean(&model.run(20).0) / 50.0;
    assert!((1.0..2.2).contains(&share), "{share} times what it can do at once, later");
}

#[test]
fn where_less_comes_than_an_instance_can_do_nobody_waits_outside() {
    for percent in [50, 90] {
        let mut model = Model::new(20, 10_000);
        model.every =
            Some((SECOND as f64 / capacity(20, 10_000) * 100.0 / f64::from(percent)) as u64);
        model.run(20);
        let waiting = (0..20)
            .map(|_| {
                model.run(1);
                model.outside
            })
            .max();
        assert!(waiting < Some(20), "{waiting:?} wait at {percent} %");
    }
}

#[test]
fn more_than_it_can_do_waits_outside_and_not_in_it() {
    let mut model = Model::new(20, 10_000);
    model.every = Some((SECOND as f64 / capacity(20, 10_000) / 1.2) as u64);
    model.run(30);
    let inside = (0..20)
        .map(|_| {
            model.run(1);
            model.in_flight()
        })
        .max();
    assert!(inside < Some(50), "{inside:?}");
    assert!(model.outside > 1000, "{}", model.outside);
}

#[test]
fn failures_alone_bring_it_down_to_the_least_and_answers_up_again() {
    let now = Instant::now();
    let mut limit = Concurrency::new(&LIMITS, now);
    let failing = Window { failures: 100, in_flight: 20, ..Window::default() };
    (0..10).for_each(|_| limit.learn(&failing, &LIMITS, now, 0.5));
    assert_eq!(limit.limit(&LIMITS), 4);
    let shares = 100 * share_of(Duration::from_millis(10));
    let fine = Window { answers: 100, shares, failures: 0, in_flight: 20 };
    (0..10).for_each(|_| limit.learn(&fine, &LIMITS, now, 0.5));
    assert!(limit.limit(&LIMITS) > 20);
}

#[test]
fn one_slow_answer_among_many_changes_little() {
    let now = Instant::now();
    let mut limit = Concurrency::new(&LIMITS, now);
    let shares = 100 * share_of(Duration::from_millis(10));
    let fine = Window { answers: 100, shares, failures: 0, in_flight: 20 };
    limit.learn(&fine, &LIMITS, now, 0.5);
    let before = limit.limit(&LIMITS);
    let report = share_of(Duration::from_secs(30));
    let mixed = Window { answers: 101, shares: shares + report, in_flight: 50, ..fine };
    limit.learn(&mixed, &LIMITS, now, 0.5);
    assert!(limit.limit(&LIMITS) > before);
}

#[test]
fn a_look_that_cannot_be_had_is_given_up() {
    let begin = Instant::now();
    let mut limit = Concurrency::new(&LIMITS, begin);
    let shares = 100 * share_of(Duration::from_millis(10));
    // As if streams that never end held all places.
    let held = Window { answers: 100, shares, failures: 0, in_flight: 1000 };
    let limits: Vec<_> = (0..600)
        .map(|tenth| {
            limit.learn(&held, &LIMITS, begin + Duration::from_millis(100 * tenth), 0.5);
            limit.limit(&LIMITS)
        })
        .collect();
    let looking = limits[100..].iter().filter(|limit| **limit < 1000).count();
    assert!((5..50).contains(&looking), "{looking} of 500 windows");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn it_never_leaves_its_range_whatever_comes(
        windows in proptest::collection::vec(
            (0_u64..1000, 0_u64..100_000_000, 0_u64..1000, 0_u64..10_000, 0_u64..10_000), 1..200,
        ),
        (min, initial, max) in (1_u32..100, 1_u32..1000, 1_u32..10_000),
        tolerance in 1_u32..100_000,
    ) {
        let limits = types::Concurrency { min, initial: initial.max(min), max: max.max(min), tolerance };
        let mut now = Instant::now();
        let mut limit = Concurrency::new(&limits, now);
        for (answers, micros, failures, in_flight, millis) in windows {
            let shares = answers * share_of(Duration::from_micros(micros));
            now += Duration::from_millis(millis);
            limit.learn(&Window { answers, shares, failures, in_flight }, &limits, now, 0.3);
            prop_assert!((limits.min..=limits.max).contains(&limit.limit(&limits)));
            prop_assert!(limit.limit.is_finite());
        }
    }

    #[test]
    fn any_instance_is_kept_busy_and_none_is_flooded(
        workers in 5_u64..200, work in 3_000_u64..200_000, initial in 4_u32..100,
    ) {
        // From far above what an instance can do its limit comes down slowly.
        prop_assume!(u64::from(initial) <= 4 * workers);
        let range = types::Concurrency { initial, ..LIMITS };
        let mut model = Model::new(workers, work).limited(range);
        model.run(60);
        let (limits, answers) = model.run(10);
        let share = mean(&limits) / workers as f64;
        prop_assert!((0.8..3.0).contains(&share), "{share} of {workers}");
        prop_assert!(answers as f64 / 10.0 / capacity(workers, work) > 0.75);
    }
}
