//! Drills on live state: what is refused, what is undone when, and who wins.

use std::path::Path;

use http::{HeaderMap, StatusCode};

use super::*;
use crate::affinity::token::Keyring;
use crate::health::{Admin, Health};
use crate::instance::disturbance::{Disturbance, Effect, Mark};
use crate::rehearsal::Least;
use crate::rehearsal::fault::Kind;
use crate::snapshot::Layers;

const TEXT: &str = "instances: [{ name: a, address: a:1 }, { name: b, address: b:1 }, \
                    { name: c, address: c:1 }]\n";

fn config(text: &str) -> Arc<Config> {
    Arc::new(crate::config::parse(text, Path::new("c.yaml")).unwrap().config)
}

fn live() -> Arc<Live> {
    let keyring = Keyring::new(&[[0; 32]]).unwrap();
    Arc::new(Live::new(config(TEXT), Arc::new(keyring), 1).0)
}

fn reload(live: &Arc<Live>, text: &str) {
    let (before, after) = (Arc::clone(&live.snapshot().config), config(text));
    heed(live, &before, &after);
    let keyring = Arc::clone(&live.snapshot().keyring);
    live.publish(Layers::from(after), keyring);
}

fn of(live: &Live, name: &str) -> Arc<Instance> {
    let snapshot = live.snapshot();
    let members = snapshot.services()[0].roster.members();
    let mut all = members.everyone().iter();
    Arc::clone(all.find(|it| it.identity().name == name).unwrap())
}

fn roster(live: &Live) -> Arc<Roster> {
    Arc::clone(&live.snapshot().services()[0].roster)
}

fn terms(min_healthy: Least) -> Terms {
    Terms {
        name: "test".to_owned(),
        holder: "me".to_owned(),
        min_healthy,
        max_duration: Duration::from_secs(60),
        lease: Duration::from_secs(5),
    }
}

fn began(live: &Live) -> String {
    begin(live, terms(Least::Count(2)), Vec::new()).unwrap()
}

fn hit(live: &Arc<Live>, id: &str, deed: Deed, names: &[&str]) -> Result<u64, Refusal> {
    inject(live, id, deed, names.iter().map(|name| of(live, name)).collect())
}

fn abort_with(status: StatusCode, share: u32) -> Deed {
    Deed::Disturb(Arc::new(Disturbance::new(Effect::Abort(status), share, None)))
}

fn ended(live: &Live) -> Option<String> {
    live.rehearsals.look(|running, last| match (running, last.map(|last| &last.end)) {
        (None, Some(End::Aborted(reason))) => Some(reason.clone()),
        _ => None,
    })
}

#[tokio::test]
async fn each_fault_does_what_it_says_and_nothing_of_it_is_left() {
    let live = live();
    let id = begin(&live, terms(Least::Count(0)), Vec::new()).unwrap();
    let a = of(&live, "a");
    let whole = |it: &Instance| {
        let eligibility = it.eligibility();
        (it.health(), it.admin(), eligibility.bound.is_ok(), eligibility.new_sessions)
    };
    let before = whole(&a);
    for (deed, expected) in [
        (Deed::Eject(Health::Unready), (Health::Unready, Admin::Active, false, false)),
        (Deed::Eject(Health::Dead), (Health::Dead, Admin::Active, false, false)),
        (Deed::Drain(None), (Health::Ready, Admin::Draining, true, false)),
        (Deed::Disable, (Health::Ready, Admin::Disabled, false, false)),
    ] {
        let number = hit(&live, &id, deed.clone(), &["a"]).unwrap();
        assert_eq!((whole(&a), a.checked()), (expected, Health::Ready), "{deed:?}");
        undo(&live, &id, number).unwrap();
        assert_eq!(whole(&a), before, "{deed:?}");
        assert_eq!((a.departure(), a.drain_departure()), (None, None), "{deed:?}");
    }
    let number = hit(&live, &id, abort_with(StatusCode::BAD_GATEWAY, 10_000), &["a"]).unwrap();
    assert!(a.is_disturbed() && !of(&live, "b").is_disturbed());
    assert_eq!(a.blow(&HeaderMap::new()).abort, Some(StatusCode::BAD_GATEWAY));
    undo(&live, &id, number).unwrap();
    assert!(!a.is_disturbed() && a.blow(&HeaderMap::new()).abort.is_none());
    assert!(matches!(undo(&live, &id, number), Err(Refusal::Unknown(_))));
    assert_eq!(Kind::ALL.map(|kind| live.rehearsals.injected(kind)), [2, 1, 1, 0, 1]);
}

#[tokio::test]
async fn of_faults_that_overlap_the_worst_counts_until_it_is_undone() {
    let live = live();
    let (id, a) = (began(&live), of(&live, "a"));
    let unready = hit(&live, &id, Deed::Eject(Health::Unready), &["a"]).unwrap();
    let dead = hit(&live, &id, Deed::Eject(Health::Dead), &["a"]).unwrap();
    let disable = hit(&live, &id, Deed::Disable, &["a"]).unwrap();
    assert_eq!((a.health(), a.admin()), (Health::Dead, Admin::Disabled));
    undo(&live, &id, dead).unwrap();
    assert_eq!(a.health(), Health::Unready);
    // What checks say goes on beneath.
    a.set_health(Health::Dead, "a test");
    assert_eq!(a.health(), Health::Dead);
    a.set_health(Health::Ready, "a test");
    assert_eq!(a.health(), Health::Unready);
    undo(&live, &id, unready).unwrap();
    undo(&live, &id, disable).unwrap();
    assert!(a.eligibility().new_sessions);
}

#[tokio::test]
async fn there_is_one_drill_at_a_time_and_only_its_holder_speaks_for_it() {
    let live = live();
    let id = began(&live);
    let Err(Refusal::Conflict(why)) = begin(&live, terms(Least::Count(1)), Vec::new()) else {
        panic!()
    };
    assert!(why.contains("the drill test of me has been running for 0 s"), "{why}");
    assert!(matches!(hear(&live, "another"), Err(Refusal::Unknown(_))));
    assert!(matches!(hit(&live, "another", Deed::Disable, &["a"]), Err(Refusal::Unknown(_))));
    end(&live, &id, "passed".to_owned()).unwrap();
    let Err(Refusal::Over(why)) = hear(&live, &id) else { panic!() };
    assert_eq!(why, "the drill test is over");
    began(&live);
}

#[tokio::test]
async fn no_fault_leaves_fewer_healthy_instances_than_promised() {
    let live = live();
    let id = began(&live);
    let Err(Refusal::Conflict(why)) = hit(&live, &id, Deed::Disable, &["a", "b"]) else { panic!() };
    assert_eq!(why, "default/default would have 1 healthy instances, and min_healthy is 2");
    assert_eq!(of(&live, "a").admin(), Admin::Active, "nothing of it is done");
    // A share of requests that fail is a share of an instance.
    hit(&live, &id, abort_with(StatusCode::BAD_GATEWAY, 2000), &["a", "b", "c"]).unwrap();
    let Err(Refusal::Conflict(why)) = hit(&live, &id, Deed::Disable, &["a"]) else { panic!() };
    assert!(why.contains("would have 1.6 healthy instances"), "{why}");
    of(&live, "b").set_health(Health::Dead, "a test");
    let deed = Deed::Eject(Health::Unready);
    assert!(matches!(hit(&live, &id, deed, &["c"]), Err(Refusal::Conflict(_))));
}

fn delay_by(seconds: u64, share: u32) -> Deed {
    let effect = Effect::Delay(Duration::from_secs(seconds));
    Deed::Disturb(Arc::new(Disturbance::new(effect, share, None)))
}

#[tokio::test]
async fn delays_that_leave_too_little_time_count_as_aborts() {
    let live = live();
    reload(&live, &format!("{TEXT}timeouts: {{ first_byte: 10s }}\n"));
    let id = began(&live);
    let all = ["a", "b", "c"];
    let refused = hit(&live, &id, delay_by(5, 10_000), &all);
    let why = "default/default would have 0 healthy instances, and min_healthy is 2";
    assert_eq!(refused, Err(Refusal::Conflict(why.to_owned())));
    hit(&live, &id, delay_by(3, 10_000), &all).unwrap();
    // It is what they come to together.
    assert!(matches!(hit(&live, &id, delay_by(2, 10_000), &all), Err(Refusal::Conflict(_))));
    hit(&live, &id, delay_by(2, 10_000), &["a"]).unwrap();
    let mark = Mark { name: http::HeaderName::from_static("x-drill"), value: None };
    let marked = Disturbance::new(Effect::Delay(Duration::from_secs(10)), 10_000, Some(mark));
    hit(&live, &id, Deed::Disturb(Arc::new(marked)), &all).unwrap();
    look(&live, Instant::now());
    assert_eq!(ended(&live), None);
    // A reload may make too much of what was little.
    reload(&live, &format!("{TEXT}timeouts: {{ first_byte: 6s }}\n"));
    look(&live, Instant::now());
    let why = "default/default has 0 healthy instances, and min_healthy is 2";
    assert_eq!(ended(&live).as_deref(), Some(why));
    assert!(all.iter().all(|name| !of(&live, name).is_disturbed()));
}

#[tokio::test]
async fn a_look_costs_each_instance_no_more_than_what_is_done_to_it() {
    let live = live();
    let many: String =
        (0..10_000).map(|at| format!("  - {{ name: i{at}, address: i{at}:1 }}\n")).collect();
    reload(&live, &format!("instances:\n{many}"));
    let id = began(&live);
    let members = live.snapshot().services()[0].roster.members();
    let all = members.present();
    for fault in all.chunks(1000) {
        inject(&live, &id, abort_with(StatusCode::BAD_GATEWAY, 5000), fault.to_vec()).unwrap();
    }
    let looked: usize = live.rehearsals.look(|running, _| {
        let hits = &running.unwrap().hits;
        all.iter().map(|instance| hits.on(instance).len()).sum()
    });
    assert_eq!((all.len(), looked), (10_000, 10_000), "each is compared with its own fault alone");
    let began = Instant::now();
    look(&live, began);
    println!("a look at 10,000 instances and ten faults of 1,000: {:?}", began.elapsed());
    assert_eq!(ended(&live), None);
    let few = Least::Count(5001);
    let left =
        live.rehearsals.look(|running, _| objection(&roster(&live), few, &running.unwrap().hits));
    let why = "default/default would have 5000 healthy instances, and min_healthy is 5001";
    assert_eq!(left.as_deref(), Some(why));
}

#[tokio::test]
async fn a_version_that_is_to_be_touched_is_guarded_from_the_beginning() {
    let live = live();
    let roster = || vec![roster(&live)];
    let refused = begin(&live, terms(Least::Count(4)), roster());
    let why = "default/default has 3 healthy instances, and min_healthy is 4";
    assert_eq!(refused, Err(Refusal::Conflict(why.to_owned())));
    begin(&live, terms(Least::Share(10_000)), roster()).unwrap();
    of(&live, "a").set_health(Health::Dead, "a test");
    look(&live, Instant::now());
    let why = "default/default has 2 healthy instances, and min_healthy is 100%";
    assert_eq!(ended(&live).as_deref(), Some(why));
}

#[tokio::test]
async fn falling_health_a_lost_holder_and_time_undo_everything() {
    let soon = |seconds| Instant::now() + Duration::from_secs(seconds);
    type Change = fn(&Arc<Live>, &str);
    let cases: [(Change, u64, &str); 4] = [
        (
            |live, _| of(live, "b").set_health(Health::Unready, "a test"),
            0,
            "default/default has 1 healthy instances, and min_healthy is 2",
        ),
        (|_, _| {}, 6, "nothing was heard of its holder for 5s, its lease"),
        (|_, _| {}, 61, "it has lasted for 1m, its max_duration"),
        (|live, _| assert!(abort(live, "the balancer is stopping")), 0, "the balancer is stopping"),
    ];
    for (change, seconds, expected) in cases {
        let live = live();
        let id = began(&live);
        hit(&live, &id, Deed::Eject(Health::Dead), &["a"]).unwrap();
        hit(&live, &id, abort_with(StatusCode::BAD_GATEWAY, 0), &["c"]).unwrap();
        look(&live, soon(1));
        assert_eq!(ended(&live), None, "not yet: {expected}");
        change(&live, &id);
        look(&live, soon(seconds));
        assert_eq!(ended(&live).as_deref(), Some(expected));
        assert!(of(&live, "a").eligibility().new_sessions && !of(&live, "c").is_disturbed());
        let told: Vec<_> = live.journal.since(0, 100).entries;
        let told: Vec<_> = told.iter().map(|entry| entry.event.text()).collect();
        let last = told.last().unwrap();
        assert_eq!(*last, format!("the drill test was ended: {expected}"), "{told:#?}");
    }
}

#[tokio::test]
async fn what_the_operator_wants_meanwhile_wins_and_stays() {
    let live = live();
    reload(&live, &TEXT.replace("c:1", "c:1, state: draining"));
    let id = begin(&live, terms(Least::Count(0)), Vec::new()).unwrap();
    let Err(Refusal::Conflict(why)) = hit(&live, &id, Deed::Disable, &["c"]) else { panic!() };
    assert_eq!(why, "default/default/c is draining without a drill");
    hit(&live, &id, Deed::Disable, &["a", "b"]).unwrap();
    // By a file.
    reload(&live, &TEXT.replace("a:1", "a:1, state: draining"));
    assert_eq!(of(&live, "a").admin(), Admin::Draining);
    assert_eq!(of(&live, "c").admin(), Admin::Active);
    // By the API: a state that is the file's own.
    let key = Key { service: "default".into(), version: "default".into(), name: "b".into() };
    yield_to(&live, &key);
    assert_eq!(of(&live, "b").admin(), Admin::Active);
    end(&live, &id, "passed".to_owned()).unwrap();
    let states = ["a", "b", "c"].map(|name| of(&live, name).admin());
    assert_eq!(states, [Admin::Draining, Admin::Active, Admin::Active]);
}

#[tokio::test]
async fn an_instance_that_is_removed_takes_its_faults_with_it() {
    let live = live();
    let id = begin(&live, terms(Least::Count(1)), Vec::new()).unwrap();
    hit(&live, &id, Deed::Disable, &["a"]).unwrap();
    reload(&live, "instances: [{ name: b, address: b:1 }]\n");
    reload(&live, TEXT);
    assert_eq!(of(&live, "a").admin(), Admin::Active);
    look(&live, Instant::now());
    end(&live, &id, "passed".to_owned()).unwrap();
}
