//! Looks at everything once a second, on the control side: sets the marks that rates are told from,
//! keeps the history, says how many tunnels were closed, and makes the tick of whoever looks on.
//!
//! Instances may be many thousands, so each second a fifth of them gets its mark; all else is read
//! per version. Nothing on the path of requests knows of it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use tokio::time::MissedTickBehavior;

use crate::admin::tick;
use crate::health::Rehome;
use crate::instance::Roster;
use crate::observe::counters::TunnelEnd;
use crate::observe::events::Event;
use crate::observe::latency::Spread;
use crate::observe::telemetry::{STEP, Step, Totals};
use crate::observe::trend::{Counted, Rates};
use crate::snapshot::{Live, Snapshot};

const SECOND: Duration = Duration::from_secs(1);
/// Seconds from one mark to the next, and in a step of the history.
const MARKS: u64 = STEP.as_secs();
/// Seconds that the rates of the whole process are of.
const WINDOW: usize = 10;

/// Looks on until it is dropped.
pub async fn run(live: Arc<Live>) {
    let mut sampler = Sampler::new(Instant::now());
    let mut seconds = tokio::time::interval_at(tokio::time::Instant::now() + SECOND, SECOND);
    // What was missed is told as missing.
    seconds.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        seconds.tick().await;
        sampler.look(&live, Instant::now());
    }
}

/// What was seen before.
#[derive(Debug)]
pub struct Sampler {
    second: u64,
    /// What had been counted in all in each of the last seconds, the oldest first.
    before: VecDeque<(Instant, Counted)>,
    /// The same, and sessions that had moved, at the last step of the history.
    step: (Instant, Counted, [u64; Rehome::ALL.len()]),
    /// Sessions of each fifth of the instances.
    sessions: [u64; MARKS as usize],
}

impl Sampler {
    /// Nothing was seen before.
    pub fn new(now: Instant) -> Self {
        let step = (now, Counted::default(), [0; Rehome::ALL.len()]);
        Self {
            second: 0,
            before: VecDeque::with_capacity(WINDOW),
            step,
            sessions: [0; MARKS as usize],
        }
    }

    /// A second is over.
    pub fn look(&mut self, live: &Live, now: Instant) {
        let snapshot = live.snapshot();
        self.second += 1;
        self.mark(&snapshot, now);
        let (counted, tunnels, rehomes) = read(live, &snapshot);
        let totals = Totals {
            rates: self.rates(counted, now),
            tunnels,
            sessions: self.sessions.iter().sum(),
            rehomes,
        };
        live.telemetry.set_totals(totals);
        if self.second.is_multiple_of(MARKS) {
            self.end_step(live, (counted, totals), now);
            snapshot.services().iter().for_each(|service| tell_closed(&service.roster));
        }
        if live.telemetry.ticks.receiver_count() > 0 {
            let tick = tick::of(live, &snapshot, now).to_string();
            live.telemetry.ticks.send_replace(tick.into());
        }
    }

    /// Sets the marks of a fifth of the instances and of the versions.
    fn mark(&mut self, snapshot: &Snapshot, now: Instant) {
        let turn = self.second % MARKS;
        let (mut place, mut sessions) = (0, 0);
        let mut is_due = || {
            place += 1;
            place % MARKS == turn
        };
        for service in snapshot.services() {
            if is_due() {
                service.roster.mark(now);
            }
            for instance in service.roster.members().everyone() {
                if is_due() {
                    instance.mark(now);
                    sessions += instance.session_count(now);
                }
            }
        }
        self.sessions[turn as usize] = sessions;
    }

    fn rates(&mut self, counted: Counted, now: Instant) -> Rates {
        let (at, before) = self.before.front().copied().unwrap_or((self.step.0, counted));
        if self.before.len() == WINDOW {
            self.before.pop_front();
        }
        self.before.push_back((now, counted));
        counted.since(&before, now.saturating_duration_since(at))
    }

    fn end_step(&mut self, live: &Live, (counted, totals): (Counted, Totals), now: Instant) {
        let (at, before, moved) = self.step;
        let passed = now.saturating_duration_since(at);
        let rehomes = |place: usize| totals.rehomes[place].saturating_sub(moved[place]);
        let step = Step {
            rates: counted.since(&before, passed),
            tunnels: totals.tunnels,
            connections: live.counters.connections(),
            sessions: totals.sessions,
            rehomes: std::array::from_fn(rehomes),
        };
        let steps = (passed.as_secs_f64() / STEP.as_secs_f64()).round() as usize;
        live.telemetry.step(step, steps.saturating_sub(1), SystemTime::now());
        self.step = (now, counted, totals.rehomes);
    }
}

/// What has been counted in all, open tunnels, and sessions that moved by reason.
fn read(live: &Live, snapshot: &Snapshot) -> (Counted, u64, [u64; Rehome::ALL.len()]) {
    let mut counted = Counted::default();
    // Some requests belong to no version.
    for (_, sums) in live.listeners() {
        counted.requests += sums.requests();
        counted.errors += sums.errors;
    }
    let (mut tunnels, mut rehomes) = (0, [0; Rehome::ALL.len()]);
    for service in snapshot.services() {
        let (roster, tally) = (&service.roster, &service.roster.tally);
        let mut first_byte = Spread::default();
        roster.reds().iter().for_each(|red| red.add_first_byte(&mut first_byte));
        counted.first_byte.join(&first_byte);
        let ended: u64 = tally.ended.iter().map(|count| count.load(Ordering::Relaxed)).sum();
        tunnels += tally.tunnels.load(Ordering::Relaxed).saturating_sub(ended);
        for (sum, moved) in rehomes.iter_mut().zip(&tally.rehomed) {
            *sum += moved.load(Ordering::Relaxed);
        }
    }
    (counted, tunnels, rehomes)
}

/// Tells of tunnels that Burdock has closed since this was last called.
fn tell_closed(roster: &Roster) {
    for end in TunnelEnd::ALL {
        let closed = roster.tally.newly_ended(end);
        let is_own = !matches!(end, TunnelEnd::Client | TunnelEnd::Instance);
        if closed > 0 && is_own {
            roster.journal.note(Event::Tunnels(roster.whose(), end, closed));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::metrics::tests::{busy, busy_time};
    use crate::instance::tally::count;
    use crate::observe::events::Kind;

    #[test]
    fn it_sees_what_was_counted_since_the_last_step() {
        let live = busy(3);
        let _held = live.listener(([127, 0, 0, 1], 8080).into(), 0);
        let begin = Instant::now();
        let mut sampler = Sampler::new(begin);
        let roster = Arc::clone(&live.snapshot().services()[0].roster);
        for second in 1..=4 {
            sampler.look(&live, begin + SECOND * second);
        }
        count(&roster.tally.rehomed[0]);
        count(&roster.tally.ended[TunnelEnd::Draining as usize]);
        count(&roster.tally.ended[TunnelEnd::Client as usize]);
        sampler.look(&live, begin + SECOND * 5);
        let totals = live.telemetry.totals();
        assert_eq!((totals.rates.requests_total, totals.rehomes[0]), (1, 1));
        assert!((3..=9).contains(&totals.sessions), "{}", totals.sessions);
        let history = live.telemetry.history_json();
        let last =
            |name: &str| history["series"][name].as_array().unwrap().last().cloned().unwrap();
        assert_eq!(last("requests_per_second"), 0.2);
        assert_eq!(last("p50"), 0.75, "in the bucket from 0.5 to 1 s");
        assert_eq!(live.journal.count(Kind::Tunnels), 1, "clients' own doing is no event");
        let rates =
            live.snapshot().services()[0].roster.members().all()[0].rates(begin + SECOND * 5);
        assert_eq!(rates.requests_total, 2);
        assert!(rates.latency_seconds.unwrap().p50 > 0.002);
    }

    #[test]
    fn a_tick_is_made_only_where_somebody_looks_on() {
        let live = busy(2);
        let mut sampler = Sampler::new(Instant::now());
        sampler.look(&live, Instant::now());
        assert_eq!(&**live.telemetry.ticks.borrow(), "");
        let ticks = live.telemetry.ticks.subscribe();
        sampler.look(&live, Instant::now());
        let tick: serde_json::Value = serde_json::from_str(&ticks.borrow()).unwrap();
        assert_eq!(tick["instances"].as_object().unwrap().len(), 2);
        assert_eq!(tick["instances"]["default/default/10.0.1.1:80"]["health"], "ready");
        assert!(tick["instances_left_out"].is_null());
    }

    /// What a second takes of ten thousand instances is printed, not promised: `--nocapture`.
    #[test]
    fn ten_thousand_instances_are_looked_at() {
        let live = busy(10_000);
        let mut sampler = Sampler::new(Instant::now());
        let ten_seconds = |sampler: &mut Sampler, live: &Live| {
            let (begun, used) = (Instant::now(), busy_time());
            (0..10).for_each(|second| sampler.look(live, begun + SECOND * second));
            (busy_time() - used) / 10
        };
        ten_seconds(&mut sampler, &live);
        println!("a second takes {:?} of a core", ten_seconds(&mut sampler, &live));
        let ticks = live.telemetry.ticks.subscribe();
        println!("with a tick {:?}", ten_seconds(&mut sampler, &live));
        let tick: serde_json::Value = serde_json::from_str(&ticks.borrow()).unwrap();
        assert_eq!(tick["instances"].as_object().unwrap().len(), 200);
        assert_eq!(tick["instances_left_out"], 9800);
    }
}
