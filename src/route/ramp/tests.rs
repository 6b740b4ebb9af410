//! What is judged of what, and that nothing is judged of too little.

use std::collections::BTreeMap;

use super::*;
use crate::config::overlay::weights;
use crate::route::split::Sharing;
use proptest::prelude::*;

const CLIENTS: u64 = 100_000;

const SECOND: Duration = Duration::from_secs(1);

fn seen(requests: u64, faults: u64, millis: u64) -> Seen {
    Seen { requests, faults, latency: Some(Duration::from_millis(millis)) }
}

fn limits() -> Limits {
    Limits {
        hold_latency: Some(Slow::Times(150)),
        back_latency: Some(Slow::Times(300)),
        ..Limits::default()
    }
}

fn plan() -> Plan {
    Plan { from: 100, to: 5000, over: 10_000, limits: limits() }
}

/// `fine`, or what it does and why.
fn word(finding: &Finding) -> String {
    match finding {
        Finding::TooFew(reason) => format!("nothing: {}", reason.cause.label()),
        Finding::Fine => "fine".to_owned(),
        Finding::Hold(reason) => format!("hold: {}", reason.cause.label()),
        Finding::Back(reason) => format!("back: {}", reason.cause.label()),
    }
}

#[test]
fn a_version_is_compared_with_the_others() {
    let fine = seen(10_000, 0, 20);
    for (own, others, expected) in [
        (seen(99, 99, 9000), fine, "nothing: too_few_requests"),
        (seen(100, 0, 20), fine, "fine"),
        (seen(100, 1, 20), fine, "fine"),
        (seen(100, 2, 20), fine, "hold: errors"),
        (seen(100, 4, 20), fine, "hold: errors"),
        (seen(100, 5, 20), fine, "back: errors"),
        (seen(100, 100, 20), fine, "back: errors"),
        // What all have is no fault of the newer one.
        (seen(1000, 300, 20), seen(10_000, 3000, 20), "fine"),
        (seen(1000, 325, 20), seen(10_000, 3000, 20), "hold: errors"),
        (seen(1000, 350, 20), seen(10_000, 3000, 20), "back: errors"),
        (seen(1000, 0, 20), seen(10_000, 3000, 20), "fine"),
        // Too few of the others are no excuse.
        (seen(1000, 60, 20), seen(99, 99, 20), "back: errors"),
        (seen(1000, 0, 2000), seen(99, 0, 20), "fine"),
        (seen(1000, 0, 29), fine, "fine"),
        (seen(1000, 0, 30), fine, "hold: latency"),
        (seen(1000, 0, 60), fine, "back: latency"),
        (seen(1000, 30, 60), fine, "back: latency"),
        (seen(1000, 30, 40), fine, "hold: errors"),
        // A few milliseconds are nothing.
        (seen(1000, 0, 6), seen(1000, 0, 2), "fine"),
        (seen(1000, 0, 7), seen(1000, 0, 2), "back: latency"),
        (Seen { latency: None, ..seen(100, 0, 0) }, fine, "fine"),
    ] {
        assert_eq!(word(&judge(&limits(), &own, &others)), expected, "{own:?} {others:?}");
    }
}

#[test]
fn a_limit_may_be_a_time_or_off() {
    let mut limits = Limits { hold_errors: None, back_errors: None, ..Limits::default() };
    assert_eq!(judge(&limits, &seen(100, 100, 60_000), &Seen::default()), Finding::Fine);
    limits.back_latency = Some(Slow::Millis(800));
    let of = |millis| word(&judge(&limits, &seen(100, 0, millis), &Seen::default()));
    assert_eq!([of(799), of(800)], ["fine", "back: latency"]);
    let Finding::Back(reason) = judge(&limits, &seen(100, 0, 900), &Seen::default()) else {
        panic!("it is too slow")
    };
    assert_eq!(reason.text, "its answers take 900 ms: 800 ms is the limit");
    let Finding::Back(reason) = judge(&Limits::default(), &seen(200, 11, 1), &seen(1000, 2, 1))
    else {
        panic!("it is too bad")
    };
    let text = "5.5% of its answers are errors, 0.2% of the other versions': 5% more is the limit";
    assert_eq!(reason.text, text);
}

/// A rig that lets time pass: what it sees is the same in each window.
struct Rig {
    watch: Watch,
    plan: Plan,
    step: u32,
    is_paused: bool,
    look: Look,
    told: Vec<String>,
}

impl Rig {
    fn new() -> Self {
        let now = Instant::now();
        let (own, others) = (seen(500, 0, 20), seen(10_000, 0, 20));
        let look = Look { now, own, others, is_served: true, has_refuge: true, is_drilled: false };
        let watch = Watch::new(now);
        Self { watch, plan: plan(), step: 0, is_paused: false, look, told: Vec::new() }
    }

    /// Looks twice a second, for so many seconds, or until it is over.
    fn pass(&mut self, seconds: u64) -> String {
        self.told.clear();
        for _ in 0..seconds * 2 {
            self.look.now += SECOND / 2;
            let next = self.watch.look(&self.plan, (self.step, self.is_paused), &self.look);
            match &next {
                Next::Wait => continue,
                Next::Renew => {}
                Next::Step => self.step += 1,
                Next::Finish | Next::Back(_) => {
                    self.told.push(match next {
                        Next::Back(reason) => format!("back: {}", reason.cause.label()),
                        _ => "done".to_owned(),
                    });
                    break;
                }
            }
            self.watch.renew(self.look.now);
        }
        let held = self.watch.held().map_or("", |reason| reason.cause.label());
        format!("{}{held}{}", self.step, self.told.concat())
    }
}

#[test]
fn it_grows_by_a_step_in_each_window_and_is_judged_at_its_last_share_too() {
    let mut rig = Rig::new();
    assert_eq!((rig.plan.interval(), rig.plan.steps()), (SECOND, 10));
    assert_eq!([rig.pass(1), rig.pass(4), rig.pass(5)], ["1", "5", "10"]);
    assert_eq!(rig.plan.share(10), 5000);
    assert_eq!(rig.pass(1), "10done");
}

#[test]
fn it_stays_where_it_is_for_as_long_as_it_must() {
    let mut rig = Rig::new();
    rig.pass(3);
    rig.look.own.faults = 12;
    assert_eq!(rig.pass(7), "3errors");
    rig.look.own.faults = 0;
    assert_eq!(rig.pass(1), "4");
    rig.look.own.requests = 7;
    assert_eq!(rig.pass(60), "4too_few_requests");
    rig.look.own.requests = 700;
    assert_eq!(rig.pass(1), "5");
    rig.look.is_drilled = true;
    rig.look.is_served = false;
    rig.look.own.faults = 700;
    assert_eq!(rig.pass(60), "5drill");
    rig.look.is_drilled = false;
    rig.look.is_served = true;
    rig.look.now += SECOND / 2;
    let next = rig.watch.look(&rig.plan, (5, false), &rig.look);
    assert_eq!(next, Next::Renew, "that was the drill's");
    rig.watch.renew(rig.look.now);
    rig.look.own.faults = 0;
    rig.is_paused = true;
    assert_eq!(rig.pass(60), "5");
    rig.look.own.faults = 70;
    assert_eq!(rig.pass(1), "5back: errors", "a pause is no blindness");
}

#[test]
fn it_goes_back_at_once_and_not_for_nothing() {
    let mut rig = Rig::new();
    rig.look.own.faults = 25;
    rig.look.now += SECOND / 4;
    let next = rig.watch.look(&rig.plan, (0, false), &rig.look);
    assert!(matches!(next, Next::Back(Reason { cause: Cause::Errors, .. })), "{next:?}");
    let mut rig = Rig::new();
    rig.look.is_served = false;
    rig.look.own = Seen::default();
    assert_eq!(rig.pass(1), "0unserved");
    assert_eq!(rig.pass(1), "0unservedback: unserved");
    // The others may fail as often, and only be seen later; but not for ever.
    let mut rig = Rig::new();
    (rig.look.own.faults, rig.look.others) = (500, seen(99, 99, 20));
    rig.look.now += SECOND / 2;
    assert_eq!(rig.watch.look(&rig.plan, (0, false), &rig.look), Next::Wait);
    rig.look.others = seen(100, 99, 20);
    assert_eq!(rig.watch.look(&rig.plan, (0, false), &rig.look), Next::Wait);
    rig.look.others = seen(99, 99, 20);
    assert_eq!(rig.pass(1), "0back: errors");
    // One that comes back in time goes on.
    let mut rig = Rig::new();
    for _ in 0..5 {
        rig.look.is_served = false;
        rig.look.now += SECOND / 4;
        assert_eq!(rig.watch.look(&rig.plan, (0, false), &rig.look), Next::Wait);
        rig.look.is_served = true;
        assert!(!matches!(rig.watch.look(&rig.plan, (0, false), &rig.look), Next::Back(_)));
    }
    // Nobody else could do better.
    let mut rig = Rig::new();
    (rig.look.has_refuge, rig.look.own.faults) = (false, 500);
    assert_eq!(rig.pass(60), "0errors");
    assert!(rig.watch.held().unwrap().text.ends_with("; no other version can serve"));
}

/// The version of each client.
fn drawn(weights: &BTreeMap<String, u32>) -> Vec<usize> {
    let sharing = Sharing::new(weights.iter().map(|(name, weight)| (&**name, *weight)));
    (0..CLIENTS).map(|number| sharing.of(number)).collect()
}

/// Growth moves those who come to the version that grows and nobody else, and to go back moves the same ones.
#[test]
fn nobody_moves_but_to_the_version_that_grows() {
    for beneath in [&[("v1", 10_000), ("v2", 0)][..], &[("v1", 7), ("v2", 1), ("v3", 90_001)]] {
        let beneath: BTreeMap<_, _> =
            beneath.iter().map(|(name, weight)| ((*name).to_owned(), *weight)).collect();
        let first = drawn(&beneath);
        let mut before = first.clone();
        for share in [1, 100, 250, 1000, 5000, 9000, 9999, 10_000] {
            let grown = weights(&beneath, "v2", share).unwrap();
            let now = drawn(&grown);
            let moved: Vec<_> =
                before.iter().zip(&now).filter(|(before, now)| before != now).collect();
            assert!(moved.iter().all(|(_, now)| **now == 1), "at {share}");
            let own = now.iter().filter(|version| **version == 1).count() as f64;
            let expected = f64::from(share) / 1e4 * CLIENTS as f64;
            assert!((own - expected).abs() < 350.0, "{own} of {CLIENTS} at {share}");
            let back = now.iter().zip(&first).filter(|(now, first)| **now != 1 && now != first);
            assert_eq!(back.count(), 0, "whoever is not there is where it was");
            before = now;
        }
    }
    assert_eq!(weights(&[("v2".to_owned(), 1)].into(), "v2", 500), None);
}

proptest! {
    /// Whatever is seen, in whatever order of looks and clocks: shares stay within the plan, nothing is judged of
    /// too few requests, and nothing good goes back.
    #[test]
    fn no_ramp_does_what_it_may_not(
        looks in proptest::collection::vec(
            (0_u64..5000, 0_u64..300, 0_u64..300, 0_u64..100, any::<[bool; 4]>()), 1..200),
        (from, to, over) in (1_u32..5000, 5001_u32..=10_000, 1000_u64..604_800_000),
    ) {
        let plan = Plan { from, to, over, limits: limits() };
        prop_assert!(plan.is_sane());
        let start = Instant::now() + Duration::from_secs(3600);
        let (mut watch, mut step) = (Watch::new(start), 0);
        for (at, requests, millis, faults, [is_paused, is_served, has_refuge, is_drilled]) in looks {
            // Not even in order.
            let now = start + Duration::from_millis(at * over / 500);
            let own = seen(requests, faults.min(requests), millis);
            let look =
                Look { now, own, others: seen(1000, 0, 20), is_served, has_refuge, is_drilled };
            let before = step;
            match watch.look(&plan, (step, is_paused), &look) {
                Next::Wait => {}
                Next::Renew => watch.renew(now),
                Next::Step => {
                    prop_assert!(!is_paused && !is_drilled && is_served && requests >= 100);
                    prop_assert!(own.errors() < 200 && millis < 30);
                    step += 1;
                    watch.renew(now);
                }
                Next::Finish => {
                    prop_assert!(step == plan.steps() && !is_paused && requests >= 100);
                    break;
                }
                Next::Back(reason) => {
                    prop_assert!(has_refuge && !is_drilled);
                    match reason.cause {
                        Cause::Unserved => prop_assert!(!is_served),
                        Cause::Errors => prop_assert!(requests >= 100 && own.errors() >= 500),
                        Cause::Latency => prop_assert!(requests >= 100 && millis >= 60),
                        Cause::Operator | Cause::TooFew | Cause::Drill => prop_assert!(false),
                    }
                    break;
                }
            }
            prop_assert!(step <= plan.steps() && plan.share(step) >= plan.share(before));
            prop_assert!((from..=to).contains(&plan.share(step)));
        }
        prop_assert_eq!((plan.share(0), plan.share(plan.steps())), (from, to));
    }
}
