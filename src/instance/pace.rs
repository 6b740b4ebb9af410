//! The limit that an instance sets by how long its answers take: what is observed of them, and what
//! the machine of `health::concurrency` makes of it.
//!
//! An answer adds to three counters. The one that completes a window lets the machine learn; whoever
//! comes meanwhile doesn't wait for that.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use crate::config::types;
use crate::health::concurrency::{Concurrency, Window, share_of};
use crate::instance::{Instance, Kind, events};

/// What is observed of an instance, where `concurrency` asks for it.
#[derive(Debug)]
pub(super) struct Pace {
    is_on: AtomicBool,
    start: Instant,
    /// When the window began, in microseconds since the start.
    opened: AtomicU64,
    answers: AtomicU64,
    shares: AtomicU64,
    failures: AtomicU64,
    learnt: Mutex<Option<Box<Learnt>>>,
}

#[derive(Debug)]
struct Learnt {
    machine: Concurrency,
    range: types::Concurrency,
    /// `max_requests`.
    most: Option<u32>,
    /// The limit that was last told of.
    told: u32,
}

impl Learnt {
    fn limit(&self) -> u32 {
        let limit = self.machine.limit(&self.range);
        self.most.map_or(limit, |most| limit.min(most))
    }
}

impl Pace {
    pub(super) fn new(start: Instant) -> Self {
        Self {
            is_on: AtomicBool::new(false),
            start,
            opened: AtomicU64::new(0),
            answers: AtomicU64::new(0),
            shares: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            learnt: Mutex::default(),
        }
    }

    fn micros(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.start);
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    }

    fn window(&self, read: impl Fn(&AtomicU64) -> u64) -> Window {
        let [answers, shares, failures] = [&self.answers, &self.shares, &self.failures].map(read);
        Window { answers, shares, failures, in_flight: 0 }
    }

    /// Whether what was observed by now is enough to learn from.
    fn is_over(&self, now: Instant) -> bool {
        let opened = self.opened.load(Ordering::Relaxed);
        let open = Duration::from_micros(self.micros(now).saturating_sub(opened));
        self.window(|count| count.load(Ordering::Relaxed)).is_over(open)
    }
}

impl Instance {
    /// Whether its limit on requests in flight follows its answers.
    pub fn is_paced(&self) -> bool {
        self.pace.is_on.load(Ordering::Relaxed)
    }

    /// What the configuration says of that, and the limit that holds with it.
    pub(super) fn set_pace(&self, range: Option<types::Concurrency>, most: Option<u32>) {
        let mut learnt = self.pace.learnt.lock().unwrap_or_else(PoisonError::into_inner);
        // What it can't reach it must not rise to: it would have to fall from there first.
        let reached = |it: types::Concurrency| it.max.min(most.unwrap_or(it.max)).max(it.min);
        let range = range.map(|it| types::Concurrency { max: reached(it), ..it });
        *learnt = range.map(|range| match learnt.take() {
            Some(known) => Box::new(Learnt { range, most, ..*known }),
            None => {
                let machine = Concurrency::new(&range, Instant::now());
                Box::new(Learnt { machine, range, most, told: range.initial })
            }
        });
        let limit = learnt.as_ref().map_or(most.unwrap_or_default(), |learnt| learnt.limit());
        self.set_limit(Kind::Request, limit);
        self.pace.is_on.store(learnt.is_some(), Ordering::Relaxed);
    }

    /// It took so long to answer a request.
    pub fn took(self: &Arc<Self>, latency: Duration, now: Instant) {
        self.pace.shares.fetch_add(share_of(latency), Ordering::Relaxed);
        self.pace.answers.fetch_add(1, Ordering::Relaxed);
        self.learn(now);
    }

    /// It failed to answer a request, or answered that it had too much to do.
    pub fn gave_up(self: &Arc<Self>, now: Instant) {
        self.pace.failures.fetch_add(1, Ordering::Relaxed);
        self.learn(now);
    }

    fn learn(self: &Arc<Self>, now: Instant) {
        if !self.pace.is_over(now) {
            return;
        }
        let mut guard = match self.pace.learnt.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        // Somebody else may have done it since.
        let Some(learnt) = guard.as_mut().filter(|_| self.pace.is_over(now)) else { return };
        self.pace.opened.store(self.pace.micros(now), Ordering::Relaxed);
        let window = self.pace.window(|count| count.swap(0, Ordering::Relaxed));
        let window = Window { in_flight: self.taken(Kind::Request), ..window };
        let before = learnt.limit();
        learnt.machine.learn(&window, &learnt.range, now, fastrand::f64());
        let limit = learnt.limit();
        self.set_limit(Kind::Request, limit);
        if limit >= 2 * learnt.told || 2 * limit <= learnt.told {
            events::limit_changed(self.identity(), learnt.told, limit, &window);
            learnt.told = limit;
        }
        drop(guard);
        if limit > before
            && let Some(roster) = self.roster()
        {
            roster.serve(self, Kind::Request);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instance::{InFlight, Roster};

    fn instance(rest: &str) -> (Arc<Roster>, Arc<Instance>) {
        let roster = Arc::new(Roster::new("s", "v", Instant::now()));
        reload(&roster, rest);
        let instance = Arc::clone(&roster.members().all()[0]);
        (roster, instance)
    }

    fn reload(roster: &Arc<Roster>, rest: &str) {
        let text = format!("instances: [{{ address: a:1, max_requests: 30 }}]\n{rest}");
        let config = crate::config::parse(&text, std::path::Path::new("c.yaml")).unwrap().config;
        roster.reconcile(&config.services[0].versions[0], 1);
    }

    /// A window of answers that took so long, with all places taken.
    fn answers(instance: &Arc<Instance>, millis: u64, now: Instant) {
        let begin = || InFlight::begin(instance, 0, Kind::Request);
        let places: Vec<_> = std::iter::from_fn(begin).take(100).collect();
        for _ in 0..100 {
            instance.took(Duration::from_millis(millis), now);
        }
        drop(places);
    }

    #[test]
    fn a_limit_follows_answers_within_its_range_and_max_requests() {
        let (roster, instance) = instance("concurrency: { min: 5, initial: 10, max: 100 }\n");
        let (begin, mut seconds) = (Instant::now(), 0);
        let mut pass = |millis, windows| {
            for _ in 0..windows {
                seconds += 1;
                answers(&instance, millis, begin + Duration::from_secs(seconds));
            }
            instance.limit(Kind::Request)
        };
        assert_eq!(pass(10, 0), 10);
        assert_eq!(pass(10, 20), 30, "max_requests holds");
        assert!((5..15).contains(&pass(100, 4)), "answers take ten times as long");
        reload(&roster, "concurrency: { min: 20, max: 100 }\n");
        assert!(pass(10, 0) >= 20, "a reload keeps what was learnt within the new range");
        reload(&roster, "");
        assert_eq!((pass(10, 3), instance.is_paced()), (30, false));
    }

    #[test]
    fn failures_shrink_it() {
        let (_roster, instance) = instance("concurrency: { min: 2 }\n");
        let begin = Instant::now();
        for second in 1..=12 {
            (0..100).for_each(|_| instance.gave_up(begin + Duration::from_secs(second)));
        }
        assert_eq!(instance.limit(Kind::Request), 2);
    }
}
