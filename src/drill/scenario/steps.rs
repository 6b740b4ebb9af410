//! The timeline: the keys of `steps`.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::read::{TIME, configuration};
use super::{Action, Fault, Repeat, Step, Upset, Which, Who, limits, live};
use crate::config::types::State;
use crate::config::{Data, Fields, Node};

/// Keys of which a step has one.
const ACTIONS: [&str; 23] = [
    "crash", "restart", "hang", "refuse", "reset", "slow", "fail", "unready", "dead", "flap",
    "forget", "delay", "cut", "throttle", "restore", "drain", "disable", "enable", "reload",
    "balancer", "exec", "eject", "abort",
];

const ALL: u32 = 10_000;
pub(super) const WAIT: RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_secs(3600);
/// What a restart takes unless `for` says otherwise.
const RESTART: Duration = Duration::from_secs(1);
const STORM: Duration = Duration::from_millis(100);
const FLAP: Duration = Duration::from_millis(500);
const MAX_RATE: u64 = 1024 * 1024 * 1024;
pub(super) const WHO: &str = "one, next, half, all, a number or names such as `a, b`, and ` of \
                   SERVICE/VERSION` where there is more than one";

/// Sorted by time; steps of one time stay in the order of the file.
pub(super) fn steps(node: &Node<'_>, duration: Option<Duration>, watches: bool) -> Vec<Step> {
    let items = node.list("steps such as { at: 5s, crash: one }").unwrap_or_default();
    let mut steps: Vec<_> = items.iter().filter_map(|item| step(item, duration, watches)).collect();
    steps.sort_by_key(|step| step.at);
    steps
}

fn step(node: &Node<'_>, duration: Option<Duration>, watches: bool) -> Option<Step> {
    let mut fields = node.fields("step")?;
    let at = fields.take("at");
    if at.is_none() {
        fields.missing("at", "when it happens, counted from the beginning, such as 5s");
    }
    let at = at.and_then(|node| {
        let at = node.duration(TIME)?;
        if duration.is_some_and(|duration| at >= duration) {
            node.problem("after the end; allowed: less than `duration`");
        }
        Some(at)
    });
    let given: Vec<_> = ACTIONS.iter().filter_map(|key| Some((*key, fields.take(key)?))).collect();
    let names: Vec<_> = given.iter().map(|(key, _)| *key).collect();
    if names.len() > 1 {
        let names = names.join(" and ");
        node.problem(format_args!("{names} in one step; allowed: one action, or none to look on"));
    }
    let lasts = fields.take("for").and_then(|node| node.duration(WAIT));
    let repeat = fields.take("repeat").and_then(|node| repeat(&node));
    let until = fields.take("until").and_then(|node| node.duration(WAIT));
    let limits =
        fields.take("expect").map(|node| limits::expect(&node, watches)).unwrap_or_default();
    fields.finish();
    let action = match given.first() {
        None => Action::Watch,
        Some((key, node)) if watches => live::action(key, node)?,
        Some((key, node)) => action(key, node)?,
    };
    let lasts = lasts.or((names == ["restart"]).then_some(RESTART));
    Some(Step { line: node.tree.line, at: at?, action, lasts, repeat, until, limits })
}

fn repeat(node: &Node<'_>) -> Option<Repeat> {
    let mut fields = node.fields("repeat")?;
    let every = fields.duration("every", WAIT, Duration::from_secs(1));
    let times = fields.integer("times", 1..=1000, 2);
    fields.finish();
    Some(Repeat { every, times })
}

fn action(key: &str, node: &Node<'_>) -> Option<Action> {
    match key {
        "restore" => who(node).map(Action::Restore),
        "drain" => who(node).map(|who| Action::Admin(who, State::Draining)),
        "disable" => who(node).map(|who| Action::Admin(who, State::Disabled)),
        "enable" => who(node).map(|who| Action::Admin(who, State::Active)),
        "reload" => configuration(node).map(|config| Action::Reload(Arc::new(config))),
        "balancer" => balancer(node).map(Action::Balancer),
        "exec" => exec(node),
        "eject" | "abort" => {
            let alike = if key == "eject" { "unready, dead" } else { "fail" };
            node.wrong(format_args!("with --admin URL: on a running balancer; here {alike}"))
        }
        _ => fault(key, node),
    }
}

/// A fault of one key: who it is of, or a map with that and more.
fn fault(key: &str, node: &Node<'_>) -> Option<Action> {
    if !matches!(node.tree.data, Data::Map(_)) {
        let fault = plain(key).or_else(|| node.wrong(format_args!("a map: {}", form(key))))?;
        return who(node).map(|who| Action::Fault(who, fault));
    }
    let mut fields = node.fields("fault")?;
    let target = fields.take("who");
    if target.is_none() {
        fields.missing("who", WHO);
    }
    let fault = described(key, &mut fields);
    fields.finish();
    Some(Action::Fault(who(&target?)?, fault?))
}

/// The fault that needs no more words.
fn plain(key: &str) -> Option<Fault> {
    Some(match key {
        "crash" | "restart" => Fault::Crash,
        "hang" => Fault::Hang,
        "refuse" => Fault::Refuse,
        "reset" => Fault::Reset { share: ALL },
        "fail" => Fault::Fail { share: ALL, status: 503 },
        "unready" => Fault::Unready,
        "dead" => Fault::Dead,
        "flap" => Fault::Flap { every: FLAP },
        "forget" => Fault::Forget,
        "cut" => Fault::Cut,
        _ => return None,
    })
}

/// What such a fault looks like.
fn form(key: &str) -> &'static str {
    match key {
        "slow" => "{ who: one, from: 100ms, to: 300ms }",
        "delay" => "{ who: one, by: 50ms }",
        _ => "{ who: one, rate: 64KiB }",
    }
}

fn described(key: &str, fields: &mut Fields<'_>) -> Option<Fault> {
    let share = |fields: &mut Fields<'_>| {
        fields.take("share").and_then(|node| node.percent(100)).unwrap_or(ALL)
    };
    match key {
        "reset" => Some(Fault::Reset { share: share(fields) }),
        "fail" => {
            let status = fields.integer("status", 400..=599, 503);
            Some(Fault::Fail { share: share(fields), status: u16::try_from(status).ok()? })
        }
        "flap" => Some(Fault::Flap { every: fields.duration("every", WAIT, FLAP) }),
        "slow" => {
            let from = fields.duration("from", TIME, Duration::ZERO);
            let to = fields.take("to");
            if to.is_none() {
                fields.missing("to", "how long the slowest answer takes, such as 300ms");
            }
            let to = to.and_then(|node| node.duration(from..=*TIME.end()))?;
            Some(Fault::Slow { from, to, share: share(fields) })
        }
        "delay" => match fields.take("by") {
            Some(node) => node.duration(WAIT).map(|by| Fault::Delay { by }),
            None => {
                fields.missing("by", "how much later it arrives, such as 50ms");
                None
            }
        },
        "throttle" => match fields.take("rate") {
            Some(node) => node.size(MAX_RATE).map(|rate| Fault::Throttle { rate }),
            None => {
                fields.missing("rate", "bytes a second, such as 64KiB");
                None
            }
        },
        _ => plain(key),
    }
}

fn balancer(node: &Node<'_>) -> Option<Upset> {
    const PLAIN: [(&str, Upset); 4] = [
        ("kill", Upset::Kill),
        ("upgrade", Upset::Upgrade),
        ("bad_config", Upset::BadConfig),
        ("reload_storm", Upset::ReloadStorm { every: STORM }),
    ];
    if !matches!(node.tree.data, Data::Map(_)) {
        return node.word(&PLAIN);
    }
    let mut fields = node.fields("balancer")?;
    let every = fields.take("reload_storm");
    if every.is_none() {
        fields.missing("reload_storm", "how often it reloads, such as 100ms");
    }
    fields.finish();
    every?.duration(WAIT).map(|every| Upset::ReloadStorm { every })
}

pub(super) fn exec(node: &Node<'_>) -> Option<Action> {
    let words = |node: &Node<'_>| -> Option<Vec<String>> {
        let allowed = "words of a command, such as [systemctl, stop, app]";
        let items = node.list(allowed)?;
        let words = items.iter().map(|item| item.text(allowed).map(str::to_owned));
        let words = words.collect::<Option<Vec<_>>>()?;
        if words.is_empty() { node.wrong(allowed) } else { Some(words) }
    };
    if !matches!(node.tree.data, Data::Map(_)) {
        return Some(Action::Exec { run: words(node)?, undo: Vec::new(), who: None });
    }
    let mut fields = node.fields("exec")?;
    let run = fields.take("run");
    if run.is_none() {
        fields.missing("run", "a list of words");
    }
    let undo = fields.take("undo").and_then(|node| words(&node)).unwrap_or_default();
    let who = fields.take("who").and_then(|node| who(&node));
    fields.finish();
    Some(Action::Exec { run: words(&run?)?, undo, who })
}

/// `one`, `half of chat/v1`, `a, b`, `2 of chat/v1`, or just a number.
pub(super) fn who(node: &Node<'_>) -> Option<Who> {
    if matches!(node.tree.data, Data::Integer(_)) {
        let count = node.integer(1..=10_000)?;
        return Some(Who { which: Which::Any(count), of: None });
    }
    node.parsed(WHO, parse_who)
}

pub(super) fn parse_who(text: &str) -> Option<Who> {
    let (which, of) = match text.split_once(" of ") {
        Some((which, of)) => {
            let (service, version) = of.trim().split_once('/')?;
            (which.trim(), Some((service.to_owned(), version.to_owned())))
        }
        None => (text.trim(), None),
    };
    let which = match which {
        "one" => Which::Any(1),
        "half" => Which::Half,
        "all" => Which::All,
        "next" => Which::Next,
        "" => return None,
        words => match words.parse::<u32>() {
            Ok(0) => return None,
            Ok(count) => Which::Any(count),
            Err(_) => Which::Named(words.split(',').map(|name| name.trim().to_owned()).collect()),
        },
    };
    Some(Who { which, of })
}
