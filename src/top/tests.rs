//! The picture at 80 by 24, and what keys make of it.

use std::path::Path;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use serde_json::{Value, json};

use super::draw::{curve, draw};
use super::keys::Effect;
use super::state::{Mode, News, Sort, State, Wanted};

fn picture(state: &State, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, state)).unwrap();
    let buffer = terminal.backend().buffer();
    let cell = |x, y| buffer.cell((x, y)).map_or(" ", |cell| cell.symbol()).to_owned();
    let line = |y| (0..width).map(|x| cell(x, y)).collect::<String>();
    (0..height).map(|y| line(y).trim_end().to_owned()).collect()
}

fn load(rps: f64, sessions: u64, tunnels: u64) -> Value {
    json!({ "rps": rps, "eps": 0.0, "p99": 0.012, "requests": 1, "tunnels": tunnels,
            "sessions": sessions, "admin": "active", "health": "ready", "breaker": "closed",
            "weight": 1 })
}

fn tick(second: u64, instances: &Value) -> News {
    let tick = json!({
        "at": format!("2026-11-29T06:24:{second:02}.000Z"),
        "totals": { "requests_per_second": 100.0 * second as f64, "errors_per_second": 0.5,
                    "latency_seconds": { "p50": 0.0012, "p90": 0.004, "p99": 0.0081 } },
        "connections": 212, "tunnels": 41, "sessions": 520,
        "rehomes_total": { "unready": 10 + second, "dead": 2, "removed": 0 },
        "instances": instances, "last_event": 3,
    });
    News::Tick(serde_json::from_value(tick).unwrap())
}

fn sample() -> State {
    let mut state = State::new("127.0.0.1:9900");
    let status = json!({
        "burdock": { "version": "0.1.0", "pid": 4711, "uptime_seconds": 7300.4, "workers": 2,
                     "phase": "serving" },
        "config": { "generation": 3, "file": "burdock.yaml", "last_reload": { "ok": true } },
        "warnings": [{ "code": "sid_unknown", "message": "instances do not know their sessions",
                       "cure": "session_affinity: true", "count": 12 }],
    });
    state.hear(News::Status(serde_json::from_value(status).unwrap()));
    for second in 1..=4 {
        let mut failing = load(0.0, 0, 0);
        failing["health"] = "dead".into();
        failing["eps"] = 1.5.into();
        let mut draining = load(3.0, 412, 37);
        draining["admin"] = "draining".into();
        let instances = json!({
            "chat/v1/10.0.0.11:8080": load(25.0 * second as f64, 96, 4),
            "chat/v1/10.0.0.12:8080": draining,
            "chat/v1/10.0.0.13:8080": failing,
            "shop/default/a-very-long-name-of-an-instance.internal:8080": load(1234.0, 12, 0),
        });
        state.hear(tick(second, &instances));
    }
    for (id, kind, severity, text) in [
        (1, "reload", "info", "generation 3: chat/v1: drain"),
        (2, "health", "error", "dead: connection refused"),
        (3, "drain", "warning", "draining, 412 sessions, until 06:24:53"),
    ] {
        let event = json!({ "id": id, "at": format!("2026-11-29T06:23:4{id}.120Z"), "kind": kind,
                            "severity": severity, "instance": "chat/v1/10.0.0.13:8080",
                            "text": text });
        state.hear(News::Event(serde_json::from_value(event).unwrap()));
    }
    state
}

fn press(state: &mut State, keys: &str) -> Option<Effect> {
    let mut effect = None;
    for key in keys.chars() {
        let code = match key {
            '\n' => KeyCode::Enter,
            '\u{1b}' => KeyCode::Esc,
            key => KeyCode::Char(key),
        };
        effect = state.key(KeyEvent::new(code, KeyModifiers::NONE));
    }
    effect
}

/// Holds a picture to the one that somebody has looked at, in the file of this name.
fn assert_pictured(shown: &str, name: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/top/tests");
    let seen = std::fs::read_to_string(folder.join(name).with_extension("txt")).unwrap();
    assert_eq!(shown, seen.trim_end_matches('\n'), "\n{shown}");
}

fn ids(state: &State) -> Vec<&str> {
    state.shown().iter().map(|row| row.id.rsplit('/').next().unwrap()).collect()
}

#[test]
fn everything_is_on_80_by_24() {
    let shown = picture(&sample(), 80, 24);
    assert_pictured(&shown.join("\n"), "80x24");
}

#[test]
fn a_question_and_the_help_lie_on_top() {
    let mut state = sample();
    press(&mut state, "jd");
    let shown = picture(&state, 80, 24).join("\n");
    assert_pictured(&shown, "confirm");
    press(&mut state, "n?");
    let shown = picture(&state, 80, 24).join("\n");
    assert_pictured(&shown, "help");
}

#[test]
fn only_a_yes_steers() {
    let mut state = sample();
    for (key, wanted) in [("d", Wanted::Drain), ("e", Wanted::Enable), ("x", Wanted::Disable)] {
        let id = "chat/v1/10.0.0.11:8080".to_owned();
        press(&mut state, key);
        assert_eq!(state.mode, Mode::Confirm(wanted, id.clone()));
        for no in ["n", "\n", "\u{1b}", "d", " "] {
            assert_eq!(press(&mut state, no), None);
            assert_eq!(state.mode, Mode::Look);
            state.mode = Mode::Confirm(wanted, id.clone());
        }
        assert_eq!(press(&mut state, "y"), Some(Effect::Steer(id, wanted)));
    }
}

#[test]
fn a_selected_instance_stays_so_wherever_it_goes() {
    let mut state = sample();
    press(&mut state, "jjjjjj");
    let last = state.selected.clone();
    assert!(last.as_ref().is_some_and(|id| id.starts_with("shop/")), "no further than the last");
    press(&mut state, "r");
    let shown = state.shown();
    assert_eq!(state.place(&shown), 0);
    assert_eq!(state.selected, last);
    state.hear(tick(5, &json!({ "chat/v1/b": load(1.0, 1, 1) })));
    assert_eq!((ids(&state), state.place(&state.shown())), (vec!["b"], 0), "the others are gone");
}

#[test]
fn rows_are_sorted_by_what_was_asked_for() {
    let mut state = sample();
    let (first, drained, dead) = ("10.0.0.11:8080", "10.0.0.12:8080", "10.0.0.13:8080");
    let long = "a-very-long-name-of-an-instance.internal:8080";
    for (sort, order) in [
        (Sort::Name, [first, drained, dead, long]),
        (Sort::State, [dead, drained, first, long]),
        (Sort::Sessions, [drained, first, long, dead]),
        (Sort::Tunnels, [drained, first, dead, long]),
        (Sort::Rate, [long, first, drained, dead]),
        (Sort::Errors, [dead, first, drained, long]),
        (Sort::Latency, [first, drained, dead, long]),
    ] {
        assert_eq!((state.sort, ids(&state)), (sort, order.to_vec()));
        press(&mut state, "s");
    }
    assert_eq!(state.sort, Sort::Name);
}

#[test]
fn a_filter_looks_at_ids_and_states() {
    let mut state = sample();
    press(&mut state, "/dead\n");
    assert_eq!(ids(&state), ["10.0.0.13:8080"]);
    assert!(picture(&state, 80, 24)[4].starts_with("1 of 4 instances, by name, with dead"));
    press(&mut state, "\u{1b}/SHOP");
    assert_eq!(ids(&state).len(), 1);
    press(&mut state, "q");
    assert_eq!((state.mode.clone(), ids(&state).len()), (Mode::Filter, 0), "q is a letter there");
    assert_eq!(press(&mut state, "\u{1b}q"), Some(Effect::Quit));
}

#[test]
fn what_was_lost_or_went_wrong_is_told() {
    let mut state = sample();
    state.hear(News::Lost("connection refused".to_owned()));
    state.hear(News::Steered(Err("chat/v1/a: no such instance".to_owned())));
    let shown = picture(&state, 80, 24);
    assert_eq!(shown[0], "lost 127.0.0.1:9900: connection refused");
    assert_eq!(shown[3], "chat/v1/a: no such instance");
    state.hear(tick(6, &json!({})));
    assert!(picture(&state, 80, 24)[0].starts_with("burdock 0.1.0"), "it is back");
}

#[test]
fn a_drill_is_told_of_while_it_runs() {
    let mut state = sample();
    let shown = |state: &State| picture(state, 80, 24).join("\n");
    assert!(!shown(&state).contains("drill"));
    let tick = json!({ "at": "2026-11-29T06:24:09.000Z", "drill": "game day" });
    state.hear(News::Tick(serde_json::from_value(tick).unwrap()));
    assert!(shown(&state).contains("the drill game day runs"), "{}", shown(&state));
}

#[test]
fn a_ramp_is_told_of_while_it_lasts_and_when_it_ended_badly() {
    let told = |stage: &str| {
        let mut state = sample();
        let ramp = json!({ "service": "chat", "version": "v2", "stage": stage, "share": 0.125,
            "reason": "too bad" });
        let status = json!({ "services": [{ "name": "chat", "ramp": ramp }] });
        state.hear(News::Status(Box::new(serde_json::from_value(status).unwrap())));
        picture(&state, 80, 24).join("\n").contains("ramp of chat/v2: ")
    };
    let stages = ["running", "held", "paused", "rolled_back", "done", "cancelled"];
    assert_eq!(stages.map(told), [true, true, true, true, false, false]);
}

#[test]
fn any_size_is_drawn_and_a_large_one_used() {
    let mut state = sample();
    for mode in ["", "d", "n?"] {
        press(&mut state, mode);
        for (width, height) in [(1, 1), (20, 5), (40, 12), (79, 23), (300, 5), (200, 80)] {
            picture(&state, width, height);
        }
    }
    let wide = picture(&sample(), 120, 40);
    assert!(wide[5].ends_with("WEIGHT"), "{}", wide[5]);
    assert!(wide.iter().any(|line| line.contains("a-very-long-name-of-an-inst")));
    assert!(picture(&sample(), 30, 10)[0].starts_with("top needs 40 columns"));
}

#[test]
fn with_nothing_heard_there_is_still_a_picture() {
    let mut state = State::new("127.0.0.1:9900");
    assert_eq!(press(&mut state, "jkdex"), None);
    assert_eq!(state.mode, Mode::Look, "nobody to steer");
    assert!(picture(&state, 80, 24)[4].starts_with("0 instances"));
}

#[test]
fn a_curve_is_as_high_as_its_highest() {
    let values = |numbers: &[f64]| curve(&numbers.iter().copied().collect(), 5);
    assert_eq!(values(&[]), "     ");
    assert_eq!(values(&[0.0, 0.0]), "   ▁▁");
    assert_eq!(values(&[9.0, 0.0, 1.0, 2.0, 4.0, 8.0]), "▁▂▃▅█");
}
