//! What a ramp makes of the weights, what it leaves behind, and what it does not outlive.

use std::path::Path;

use super::*;

fn config(text: &str) -> Config {
    crate::config::parse(text, Path::new("burdock.yaml")).unwrap().config
}

fn file(weights: &str, versions: &[&str]) -> Config {
    let versions: Vec<_> =
        versions.iter().map(|name| format!("{name}: {{ instances: ['{name}:1'] }}")).collect();
    config(&format!(
        "services: {{ a: {{ traffic_split: {{ allocations: {weights} }}, versions: {{ {} }} }} }}",
        versions.join(", ")
    ))
}

fn ramp(stage: Stage, step: u32) -> Ramp {
    let plan = Plan { from: 100, to: 5100, over: 600_000, limits: Limits::default() };
    let before = [("v1".to_owned(), 10_000), ("v2".to_owned(), 0)].into();
    let (since, changed) = (7_500_000, 9_000_000);
    let (version, why) = ("v2".to_owned(), String::new());
    Ramp { version, plan, step, stage, why, before, shares: None, since, changed }
}

fn over(stage: Stage, step: u32) -> Overlay {
    let mut overlay = Overlay::default();
    overlay.set_ramp("a".to_owned(), ramp(stage, step));
    overlay
}

#[test]
fn a_plan_has_steps_of_a_minute_at_most() {
    for (over, interval, steps) in [
        (1000, 100, 10),
        (30_000, 3000, 10),
        (600_000, 60_000, 10),
        (1_800_000, 60_000, 30),
        (1_830_000, 60_000, 31),
        (604_800_000, 60_000, 10_080),
    ] {
        let plan = Plan { over, ..ramp(Stage::Running, 0).plan };
        assert_eq!((plan.interval(), plan.steps()), (Duration::from_millis(interval), steps));
        assert_eq!((plan.share(0), plan.share(steps), plan.share(u32::MAX)), (100, 5100, 5100));
    }
}

#[test]
fn it_is_put_over_the_shares_and_taken_away_again() {
    let file = file("{ v1: 1, v2: 0 }", &["v1", "v2"]);
    let share = |overlay: &Overlay| overlay.apply(&file).services[0].share("v2");
    assert_eq!(share(&over(Stage::Running, 0)), 0.01);
    assert_eq!(share(&over(Stage::Paused, 10)), 0.51);
    for stage in [Stage::Done, Stage::Cancelled, Stage::RolledBack] {
        assert_eq!(share(&over(stage, 5)), 0.0, "{stage:?}");
        assert!(over(stage, 5).differences(&file).is_empty());
    }
    let recall = |overlay: Overlay| overlay.apply(&file).services[0].split.clone().unwrap().recall;
    assert_eq!(recall(over(Stage::Running, 3)), None);
    let found = recall(over(Stage::RolledBack, 3)).unwrap();
    let means = [7499, 7500, 9000, 9001].map(|issued| found.means(issued));
    assert_eq!((&*found.version, means), ("v2", [false, true, true, false]));
    // Other weights than before it are somebody's wish.
    let mut other = over(Stage::RolledBack, 3);
    let allocations = [("v1".to_owned(), 1), ("v2".to_owned(), 1)].into();
    other.set_shares("a".to_owned(), Some(Shares { allocations, since: 1 }));
    assert_eq!(recall(other), None);
    let found = over(Stage::Running, 5).differences(&file);
    let [difference] = &found[..] else { panic!("{found:?}") };
    let told = (difference.file.as_deref(), &*difference.now);
    assert_eq!(told, (Some("v1=1 v2=0"), "v1=74 v2=26"));
}

#[test]
fn it_comes_back_from_its_text_unless_nobody_can_have_asked_for_it() {
    for stage in [Stage::Running, Stage::Paused, Stage::Done, Stage::Cancelled, Stage::RolledBack] {
        let mut overlay = over(stage, 4);
        let mut kept = ramp(stage, 4);
        kept.plan.limits.back_latency = Some(Slow::Times(250));
        kept.plan.limits.hold_latency = Some(Slow::Millis(900));
        overlay.set_ramp("b".to_owned(), kept);
        assert_eq!(Overlay::from_text(&overlay.to_text()).unwrap(), overlay);
    }
    let wrong: [fn(&mut Ramp); 7] = [
        |it| it.step = 11,
        |it| it.plan.from = 0,
        |it| it.plan.to = 10_001,
        |it| it.plan.over = 10,
        |it| it.plan.limits.min_requests = 0,
        |it| it.plan.limits.back_latency = Some(Slow::Times(100)),
        |it| it.changed = u64::MAX,
    ];
    for spoil in wrong {
        let (mut overlay, mut ramp) = (Overlay::default(), ramp(Stage::Running, 4));
        spoil(&mut ramp);
        overlay.set_ramp("a".to_owned(), ramp);
        assert!(Overlay::from_text(&overlay.to_text()).unwrap().is_empty());
    }
}

#[test]
fn a_file_that_leaves_no_place_for_it_ends_it() {
    for (file, why) in [
        (config("instances: [a:1]"), "the file has no such service any more"),
        (file("{ v1: 1, v3: 1 }", &["v1", "v3"]), "the file has no version v2 any more"),
        (file("{ v1: 0, v2: 1 }", &["v1", "v2"]), "no other version than v2 has a weight any more"),
        (
            config("services: { a: { versions: { v2: { instances: [a:1] } } } }"),
            "the file has no traffic_split there any more",
        ),
    ] {
        let mut overlay = over(Stage::Running, 4);
        assert_eq!(overlay.prune(&file), [format!("the ramp of a/v2: {why}")]);
        assert!(overlay.is_empty());
        let mut over = over(Stage::RolledBack, 4);
        assert!(over.prune(&file).is_empty() && over.is_empty(), "and who asks for what is over");
    }
    // Others, and other weights of them, change nothing of it.
    let mut overlay = over(Stage::Running, 5);
    let file = file("{ v1: 1, v3: 3 }", &["v1", "v2", "v3"]);
    assert!(overlay.prune(&file).is_empty());
    let service = &overlay.apply(&file).services[0];
    let shares = ["v1", "v2", "v3"].map(|name| (service.share(name) * 1000.0).round());
    assert_eq!(shares, [185.0, 260.0, 555.0]);
}
