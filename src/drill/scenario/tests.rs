//! Scenario files: what is understood, and what is said about what is not.

use std::path::PathBuf;
use std::time::Duration;

use super::steps::parse_who;
use super::*;
use crate::drill::plan::{self, What};

const GOOD: &str = "duration: 10s\nseed: 7\nconfig: &base\n  instances:\n    \
    - { name: a, address: a:1 }\n    - { name: b, address: b:1 }\n    - { name: c, address: c:1 }\n";

fn read_text(text: &str) -> Result<Scenario, String> {
    read_for(text, &Mode::Embedded)
}

fn read_for(text: &str, mode: &Mode) -> Result<Scenario, String> {
    let name = format!("burdock-scenario-{}-{}.yaml", std::process::id(), fastrand::u64(..));
    let path: PathBuf = std::env::temp_dir().join(name);
    std::fs::write(&path, text).unwrap();
    let scenario = read(&path, mode)
        .map_err(|errors| errors.to_string().replace(&*path.display().to_string(), "x.yaml"));
    std::fs::remove_file(&path).unwrap();
    scenario
}

fn good(rest: &str) -> Scenario {
    read_text(&format!("{GOOD}{rest}")).unwrap()
}

#[test]
fn every_problem_is_told_with_its_line_and_what_is_allowed() {
    let text = "duration: 10\nseed: -1\nload: { sessions: { clients: 0 } }\nsteps:\n  - at: 1s\n    \
                crash: one\n    hang: one\n  - crash: one\n  - { at: 2s, slow: a }\n  \
                - { at: 3s, krash: a }\nexpect: { errors: 101%, p99: 3 }\nconfig: { instances: [] }\n";
    let told = read_text(text).unwrap_err();
    for (line, wanted) in [
        (1, "duration: the number 10 has no unit"),
        (2, "seed: found the number -1; allowed: a whole number from 0"),
        (3, "load.sessions.clients: found the number 0"),
        (3, "load.sessions: `every` is missing"),
        (5, "steps[0]: crash and hang in one step; allowed: one action"),
        (8, "steps[1]: `at` is missing"),
        (9, "steps[2].slow: found \"a\"; allowed: a map: { who: one, from: 100ms, to: 300ms }"),
        (10, "steps[3].krash: unknown key, did you mean `crash`?"),
        (11, "expect.errors: found \"101%\""),
        (11, "expect.p99: the number 3 has no unit"),
        (12, "config.instances: "),
    ] {
        let begin = format!("x.yaml:{line}: {wanted}");
        assert!(told.lines().any(|line| line.starts_with(&begin)), "{begin}\n{told}");
    }
}

#[test]
fn a_step_after_the_end_is_refused() {
    let told = read_text(&format!("{GOOD}steps: [{{ at: 10s, crash: a }}]\n")).unwrap_err();
    assert!(told.contains("steps[0].at: after the end; allowed: less than `duration`"), "{told}");
}

#[test]
fn targets_are_words() {
    let who = |which, of: Option<(&str, &str)>| {
        let of = of.map(|(s, v)| (s.to_owned(), v.to_owned()));
        Some(Who { which, of })
    };
    let names = |names: &[&str]| Which::Named(names.iter().map(|&n| n.to_owned()).collect());
    assert_eq!(parse_who("one of chat/v1"), who(Which::Any(1), Some(("chat", "v1"))));
    assert_eq!(parse_who("half"), who(Which::Half, None));
    assert_eq!(parse_who("3 of x/y"), who(Which::Any(3), Some(("x", "y"))));
    assert_eq!(parse_who("a, b"), who(names(&["a", "b"]), None));
    for wrong in ["", "0", "one of chat", " of a/b"] {
        assert_eq!(parse_who(wrong), None, "{wrong:?}");
    }
}

#[test]
fn what_no_drill_has_to_say_is_expected_all_the_same() {
    let scenario = good("steps: []\nexpect: { needless_moves: 3, errors: { at_least: 1 } }\n");
    let most = |measure| scenario.limits.iter().find(|l| l.measure == measure).unwrap().most;
    assert_eq!(most(Measure::Needless), Some(Value::Count(3)));
    assert_eq!(most(Measure::Lost), Some(Value::Count(0)));
    assert_eq!(most(Measure::Errors), None);
}

fn cast(scenario: &Scenario) -> Vec<plan::Id> {
    match &scenario.setting {
        Setting::Embedded(config) => plan::cast(config),
        Setting::Running(_) => ["a", "b", "c"].map(id).to_vec(),
    }
}

fn id(name: &str) -> plan::Id {
    let [service, version, name] = ["s", "v", name].map(str::to_owned);
    plan::Id { service, version, name }
}

fn told(scenario: &Scenario) -> Vec<String> {
    let plan = plan::plan(scenario, cast(scenario), Vec::new()).unwrap();
    let names = |ids: &[plan::Id]| ids.iter().map(|id| &*id.name).collect::<Vec<_>>().join(",");
    let tell = |act: &plan::Act| {
        let what = match &act.what {
            What::Begin(who, fault) => format!("+{} {}", fault.word(), names(who)),
            What::End(who, fault) => format!("-{} {}", fault.word(), names(who)),
            What::Restore(who) => format!("restore {}", names(who)),
            What::Admin(who, state) => format!("{} {}", state.word(), names(who)),
            What::Reload(config) => format!("reload {}", plan::cast(config).len()),
            What::Upset(upset, _) => upset.word().to_owned(),
            What::Exec { run, .. } => run.join(" "),
            What::Strike(who, strike) => format!("+{} {}", strike.kind, names(who)),
            What::Lift(who, strike) => format!("-{} {}", strike.kind, names(who)),
        };
        format!("{} {what}", act.at.as_millis())
    };
    plan.acts.iter().map(tell).collect()
}

const BUSY: &str = "steps:\n  - { at: 1s, crash: one, for: 2s }\n  - { at: 1s, hang: one }\n  \
    - { at: 4s, restart: next, for: 500ms, repeat: { every: 1s, times: 3 } }\n  \
    - { at: 8s, restore: all }\n  - at: 9s\n    reload:\n      <<: *base\n      instances: [d:1]\n";

#[test]
fn a_seed_decides_who_is_hit_and_nothing_else_does() {
    let scenario = good(BUSY);
    let first = told(&scenario);
    assert_eq!(first, told(&scenario));
    let others = (0..40).map(|seed| told(&Scenario { seed, ..scenario.clone() }));
    assert!(others.into_iter().any(|other| other != first));
    let after: Vec<_> = first.iter().skip(3).map(String::as_str).collect();
    assert_eq!(
        after,
        [
            "4000 +crash a",
            "4500 -crash a",
            "5000 +crash b",
            "5500 -crash b",
            "6000 +crash c",
            "6500 -crash c",
            "8000 restore a,b,c",
            "9000 reload 1",
        ]
    );
}

#[test]
fn one_is_drawn_from_those_without_a_fault() {
    for seed in 0..30 {
        let acts = told(&Scenario { seed, ..good(BUSY) });
        let (crashed, hung) = (acts[0].rsplit(' ').next(), acts[1].rsplit(' ').next());
        assert_ne!(crashed, hung, "{acts:?}");
    }
}

#[test]
fn an_impossible_step_names_its_line() {
    for (steps, wanted) in [
        ("[{ at: 1s, crash: x }]", "no instance \"x\" by then; there are a, b, c"),
        ("[{ at: 1s, crash: 4 }]", "4 wanted, and 3 are without a fault by then"),
        ("[{ at: 1s, crash: one of x/y }]", "no version x/y; there are default/default"),
    ] {
        let scenario = good(&format!("steps: {steps}\n"));
        let error = plan::plan(&scenario, cast(&scenario), Vec::new()).unwrap_err();
        assert_eq!((error.line, &*error.message), (8, wanted));
    }
}

#[test]
fn limits_look_until_the_next_step() {
    let scenario =
        good("steps:\n  - { at: 1s, crash: a }\n  - { at: 2s, until: 3s }\n  - { at: 6s }\n");
    let windows = plan::plan(&scenario, cast(&scenario), Vec::new()).unwrap();
    let seconds: Vec<_> = windows.windows.iter().map(|(a, b)| (a.as_secs(), b.as_secs())).collect();
    assert_eq!(seconds, [(1, 2), (2, 5), (6, 10)]);
    assert_eq!(scenario.duration, Duration::from_secs(10));
}

const LIVE: &str = "duration: 10s\nsteps:\n  - { at: 1s, eject: { who: one, as: dead }, for: 2s }\n  \
    - { at: 4s, unready: a }\n  - { at: 5s, restore: all }\n  \
    - { at: 6s, abort: { who: b, share: 2.5%, header: x-drill, value: yes }, for: 1s }\n  \
    - { at: 7s, delay: { who: b, by: 50ms } }\n  - { at: 8s, drain: { who: c, deadline: 5s } }\n  \
    - { at: 9s, exec: { run: [kill, c], undo: [start, c], who: c } }\nexpect: { errors: 1% }\n";

#[test]
fn a_running_balancer_is_asked_for_faults_as_its_api_takes_them() {
    let scenario = read_for(LIVE, &Mode::Running(None)).unwrap();
    assert_eq!(scenario.limits.len(), 1, "what nobody can measure there is not expected");
    let bodies = scenario.steps.iter().filter_map(|step| match &step.action {
        Action::Strike(_, strike) => {
            Some((strike.kind, serde_json::json!(strike.more).to_string()))
        }
        _ => None,
    });
    let bodies: Vec<_> = bodies.collect();
    let expected = [
        ("eject", r#"{"as":"dead"}"#),
        ("eject", r#"{"as":"unready"}"#),
        ("abort", r#"{"header":"x-drill","share":"2.5%","status":503,"value":"yes"}"#),
        ("delay", r#"{"by":"50ms"}"#),
        ("drain", r#"{"deadline":"5s"}"#),
    ];
    assert_eq!(bodies, expected.map(|(kind, body)| (kind, body.to_owned())));
    let text = LIVE.replace("by: 50ms", "by: 50ms, header: X-Drill-Mark");
    let marked = read_for(&text, &Mode::Running(None)).unwrap().marked("1f".to_owned());
    let more = marked.steps.iter().find_map(|step| match &step.action {
        Action::Strike(_, strike) if strike.kind == "delay" => Some(&strike.more),
        _ => None,
    });
    assert_eq!((&*marked.mark, more.unwrap()["value"].as_str()), ("1f", Some("1f")));
    let unfit = vec![id("a"), id("b")];
    let plan = plan::plan(&scenario, cast(&scenario), unfit).unwrap();
    assert_eq!(plan.targets[0], [id("c")], "who is unwell already is not drawn");
    assert_eq!(plan.undo, [["start", "c"]]);
    let Setting::Running(safety) = scenario.setting else { panic!() };
    assert_eq!((safety.min_healthy, safety.max_duration), (1.into(), Duration::from_secs(40)));
}

#[test]
fn what_a_running_balancer_cannot_do_is_refused_with_what_it_can() {
    let text = "duration: 5s\nconfig: { instances: [a:1] }\nsafety: { min_healthy: 200%, max_duration: 1s }\n\
                load: { sessions: { clients: 1, every: 1s }, polling: { clients: 1, every: 1s } }\nsteps:\n  \
                - { at: 1s, crash: one }\n  - { at: 2s, delay: a }\n  - { at: 3s, abort: { who: a, value: x } }\n\
                expect: { evenness: 5% }\n";
    let told = read_for(text, &Mode::Running(None)).unwrap_err();
    for (line, wanted) in [
        (2, "config: a running balancer has its own"),
        (3, "safety.min_healthy: "),
        (3, "safety.max_duration: "),
        (4, "load.polling: these need the drill's own instances; allowed: sessions, visitors"),
        (4, "load: `url` is missing"),
        (
            6,
            "steps[0].crash: crash: not possible on a running balancer; allowed: eject, unready, dead",
        ),
        (7, "steps[1].delay: found \"a\"; allowed: a map: { who: one, by: 50ms }"),
        (8, "steps[2].abort.value: it says nothing without `header`"),
        (9, "expect.evenness: not on a running balancer; allowed: errors, moved"),
    ] {
        let begin = format!("x.yaml:{line}: {wanted}");
        assert!(told.lines().any(|line| line.starts_with(&begin)), "{begin}\n{told}");
    }
    let told =
        read_text("duration: 5s\nsteps: [{ at: 1s, eject: one }]\nsafety: {}\n").unwrap_err();
    for wanted in
        ["steps[0].eject: found \"one\"; allowed: with --admin URL", "safety: only of a running"]
    {
        assert!(told.contains(wanted), "{told}");
    }
}
