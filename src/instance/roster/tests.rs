//! Who is chosen, and what reloads, breakers and ramps make of that.

use super::*;
use crate::config::types::OnRestart;
use crate::health::breaker::Passage;
use crate::instance::Trial;

/// A roster of what `text` configures.
fn roster(text: &str) -> Arc<Roster> {
    let roster = Arc::new(Roster::new("default", "default", Instant::now()));
    roster.reconcile(&version(text), 1);
    roster
}

pub(super) fn version(text: &str) -> types::Version {
    let loaded = crate::config::parse(text, std::path::Path::new("burdock.yaml"));
    loaded.unwrap().config.services.remove(0).versions.remove(0)
}

const HALF_OPEN: &str = "breaker: { failures: 1, open: 1ms, trials: 1, max_ejected: 100% }\n";

/// Lets the breaker of an instance open, and begin its trials.
fn half_open(instance: &Instance) {
    let due = instance.failed(0, None, Instant::now()).unwrap();
    instance.tick(due);
    assert_eq!(instance.passage(), Passage::Trial);
}

#[test]
fn choosing_takes_no_permit_and_an_attempt_gives_its_own_back() {
    for balance in ["even", "least_requests", "random", "hash"] {
        let text = format!("balance: {balance}\ninstances: [a:1, b:1, c:1]\n{HALF_OPEN}");
        let roster = roster(&text);
        let one = Arc::clone(&roster.members().all()[0]);
        half_open(&one);
        let choose = |random: u64| {
            let key = random.to_be_bytes();
            roster.choose(Draw { key: Some(&key), random }, Kind::Request, &[]).unwrap()
        };
        let chosen = |instance: &Arc<Instance>| {
            let mut random = fastrand::Rng::with_seed(7);
            (0..100).filter(|_| Arc::ptr_eq(&choose(random.u64(..)), instance)).count()
        };
        assert!(chosen(&one) > 1, "{balance}: a choice is no trial");
        let trial = Trial::begin(&one);
        assert!(trial.is_some() && Trial::begin(&one).is_none(), "{balance}: one at a time");
        assert_eq!(chosen(&one), 0, "{balance}: on trial");
        drop(trial);
        assert!(chosen(&one) > 1, "{balance}: its client left");
        one.succeeded(Trial::begin(&one));
        assert_eq!(one.passage(), Passage::Passes);
    }
}

#[test]
fn a_bound_session_needs_a_permit_too_unless_nobody_else_could_serve() {
    let roster = roster(&format!("instances: [a:1, b:1]\n{HALF_OPEN}"));
    let [one, other] = [0, 1].map(|place| Arc::clone(&roster.members().all()[place]));
    half_open(&one);
    assert!(roster.bound("a:1", 0).is_ok());
    let trial = Trial::begin(&one);
    assert_eq!(roster.bound("a:1", 0).err(), Some(Rehome::BreakerOpen));
    half_open(&other);
    assert!(roster.bound("a:1", 0).is_err(), "the other has a permit");
    let _another = Trial::begin(&other);
    assert!(roster.bound("a:1", 0).is_ok(), "neither has: better there than nowhere");
    drop(trial);
    assert!(roster.bound("b:1", 0).is_err());
}

#[test]
fn removed_instances_serve_new_sessions_while_no_present_one_can() {
    let roster = roster("instances: [{ name: a, address: a:1 }, { name: b, address: b:1 }]");
    let [a, b] = [0, 1].map(|place| Arc::clone(&roster.members().all()[place]));
    let check = "readiness_check: {}\n";
    let named = "instances: [{ name: a, address: a:2 }, { name: c, address: c:1 }]";
    let reconciled = roster.reconcile(&version(&format!("{check}{named}")), 1);
    assert_eq!((reconciled.added.len(), reconciled.removed.len()), (2, 2));
    let new = &reconciled.added;
    assert!(roster.members().all().iter().all(|known| !Arc::ptr_eq(known, &a)), "one a only");
    let chosen = |tried: &[Arc<Instance>]| -> Vec<_> {
        let draw = |random| Draw { key: None, random };
        (0..8).map(|random| roster.choose(draw(random), Kind::Request, tried).unwrap()).collect()
    };
    let goes_to = |tried: &[Arc<Instance>], instance: &Arc<Instance>| {
        chosen(tried).iter().filter(|chosen| Arc::ptr_eq(chosen, instance)).count()
    };
    assert_eq!((goes_to(&[], &a), goes_to(&[], &b)), (4, 4), "the new ones are unknown");
    assert_eq!(goes_to(&[Arc::clone(&a)], &b), 8);
    new[1].set_health(Health::Ready, "a test");
    assert_eq!(goes_to(&[], &new[1]), 8, "one that is present takes over");
    let tried = [Arc::clone(&new[1])];
    assert_eq!((goes_to(&tried, &a), goes_to(&tried, &b)), (4, 4), "it was tried in vain");
    roster.forget(&b);
    assert_eq!(goes_to(&tried, &a), 8, "the drain of the other is over");
    let again = "instances: [{ name: a, address: a:1 }]";
    assert_eq!(roster.reconcile(&version(again), 1).added.len(), 0, "it is known");
    assert_eq!((goes_to(&[], &a), a.membership()), (8, Membership::Present));
}

#[test]
fn a_reload_of_the_breaker_holds_for_one_that_is_half_open() {
    let text = |rest: &str| format!("instances: [a:1, b:1]\nbreaker: {rest}\n");
    let roster = roster(&text("{ failures: 1, open: 1ms, trials: 3 }"));
    let one = Arc::clone(&roster.members().all()[0]);
    half_open(&one);
    let trials = [Trial::begin(&one), Trial::begin(&one)];
    assert!(one.admits());
    roster.reconcile(&version(&text("{ failures: 1, open: 1ms, trials: 2 }")), 1);
    assert!(!one.admits(), "two are on trial");
    drop(trials);
    one.succeeded(Trial::begin(&one));
    assert_eq!(one.passage(), Passage::Trial);
    roster.reconcile(&version(&text("{ failures: 1, open: 1ms, trials: 1 }")), 1);
    assert_eq!(one.passage(), Passage::Passes, "it has passed as many as are asked for");
    half_open(&one);
    let trial = Trial::begin(&one);
    roster.reconcile(&version(&text("off")), 1);
    assert!(one.admits());
    one.failed(0, trial, Instant::now());
    assert!(one.admits() && one.passage() == Passage::Passes);
}

#[test]
fn a_change_of_health_makes_no_new_ring() {
    let text = "balance: hash\ninstances: [a:1, b:1]\n";
    let roster = roster(text);
    let ring = || roster.members().field.ring.clone().unwrap();
    let before = ring();
    let one = Arc::clone(&roster.members().all()[0]);
    let other = Arc::clone(&roster.members().all()[1]);
    one.set_health(Health::Unready, "a test");
    assert!(Arc::ptr_eq(&before, &ring()));
    for key in 0..50u8 {
        let draw = Draw { key: Some(&[key]), random: 0 };
        let chosen = roster.choose(draw, Kind::Request, &[]).unwrap();
        assert!(Arc::ptr_eq(&chosen, &other), "the ring holds it, but nobody finds it there");
    }
}

/// So often was each present instance chosen.
fn counts(roster: &Roster, choices: usize) -> Vec<usize> {
    let all: Vec<_> = roster.members().present().to_vec();
    let mut counts = vec![0; all.len()];
    for _ in 0..choices {
        let chosen = roster.choose(Draw { key: None, random: 7 }, Kind::Request, &[]).unwrap();
        counts[all.iter().position(|known| Arc::ptr_eq(known, &chosen)).unwrap()] += 1;
    }
    counts
}

#[test]
fn an_added_instance_ramps_up_and_the_spread_is_exact_before_between_and_after() {
    let text = |instances: &str| format!("slow_start: 30s\ninstances: [{instances}]\n");
    let roster = roster(&text("a:1, b:1"));
    assert_eq!(counts(&roster, 100), [50, 50], "at the start all are new");
    roster.reconcile(&version(&text("a:1, b:1, c:1")), 1);
    assert_eq!(counts(&roster, 210), [100, 100, 10]);
    let now = Instant::now();
    roster.advance_ramps(now + Duration::from_secs(15));
    assert_eq!(counts(&roster, 255), [100, 100, 55]);
    roster.advance_ramps(now + Duration::from_secs(31));
    assert_eq!(counts(&roster, 3), [1, 1, 1]);
}

#[test]
fn a_recovered_instance_ramps_up_too_but_not_one_that_everybody_waited_for() {
    let text = "slow_start: 30s\nreadiness_check: {}\ninstances: [a:1, b:1]\n";
    let roster = roster(text);
    let [one, other] = [0, 1].map(|place| Arc::clone(&roster.members().all()[place]));
    for instance in [&one, &other] {
        instance.set_health(Health::Ready, "a test");
        assert_eq!(instance.effective_weight(), 100);
    }
    other.set_health(Health::Unready, "a test");
    other.set_health(Health::Ready, "a test");
    assert_eq!((one.effective_weight(), other.effective_weight()), (100, 10));
    assert_eq!(counts(&roster, 11), [10, 1]);
}

#[test]
fn only_sessions_of_an_earlier_life_are_lost_and_reloads_do_not_forget_that() {
    let text = "instances: [a:1, b:1]\n";
    let roster = roster(text);
    let one = Arc::clone(&roster.members().all()[0]);
    for (life, on_restart) in [("1", OnRestart::Rehome), ("1", OnRestart::Rehome)] {
        one.lives(life, on_restart, 100);
        assert!(roster.bound("a:1", 50).is_ok(), "nothing has changed");
    }
    one.lives("2", OnRestart::Keep, 150);
    assert!(roster.bound("a:1", 50).is_ok(), "it was told to keep them");
    one.lives("3", OnRestart::Rehome, 200);
    roster.reconcile(&version(text), 1);
    assert_eq!(one.restarts(), 2);
    assert_eq!(roster.bound("a:1", 199).err(), Some(Rehome::Restarted));
    assert!(roster.bound("a:1", 200).is_ok() && roster.bound("b:1", 199).is_ok());
}

#[test]
fn a_change_among_ten_thousand_is_published_within_milliseconds() {
    let rows: Vec<_> = (1..=10_000).map(|port| format!("a:{port}")).collect();
    let rows = rows.join(", ");
    for rest in ["", "panic_threshold: 50%\n", "balance: hash\n"] {
        let roster = roster(&format!("{rest}slow_start: 30s\ninstances: [{rows}]\n"));
        let one = Arc::clone(&roster.members().all()[7]);
        let took = [Health::Unready, Health::Ready, Health::Unready, Health::Ready].map(|health| {
            let begun = Instant::now();
            one.set_health(health, "a test");
            begun.elapsed()
        });
        println!("{} instances, {rest:?}: {took:?}", roster.members().all().len());
        // The best: what else the machine does is not what is promised.
        assert!(took.iter().min().is_some_and(|best| *best < Duration::from_millis(50)));
    }
}
