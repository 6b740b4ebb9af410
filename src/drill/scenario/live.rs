//! What a scenario may ask of a running balancer: the faults that it can undo by itself, and how far it may
//! be troubled.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde_json::{Map, Value};

use super::steps::{WHO, exec, who};
use super::{Action, Scenario};
use crate::config::{Data, Fields, Node, units};
use crate::drill::wire;

/// What is left of its time when a drill has gone as it was to: for its last answers.
const SPARE: Duration = Duration::from_secs(30);
const LONGEST: Duration = Duration::from_secs(3600);
const MOST: u32 = 10_000;
/// As the API takes it.
const DELAY: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(60);
/// Of an aborted request, unless it is said.
const STATUS: u32 = 503;
const ALLOWED: &str = "eject, unready, dead, drain, disable, delay, abort, restore, exec";

/// How far a running balancer may be troubled; it holds the drill to this by itself.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::drill) struct Safety {
    /// As its API takes it.
    pub(in crate::drill) min_healthy: Value,
    pub(in crate::drill) max_duration: Duration,
}

/// A fault on a running balancer.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::drill) struct Strike {
    pub(in crate::drill) kind: &'static str,
    /// What else its API takes.
    pub(in crate::drill) more: Map<String, Value>,
}

/// The value of `safety`; what is not said has a default.
pub(super) fn safety(node: Option<&Node<'_>>, duration: Duration) -> Option<Safety> {
    let max_duration = (duration + SPARE).min(LONGEST);
    let Some(node) = node else { return Some(Safety { min_healthy: 1.into(), max_duration }) };
    let mut fields = node.fields("safety")?;
    let min_healthy = fields.take("min_healthy").map(|node| match node.as_text() {
        Some(_) => node.percent(100).map(|share| units::format_percent(share).into()),
        None => node.integer(0..=MOST).map(Value::from),
    });
    let range = duration.max(Duration::from_secs(1))..=LONGEST;
    let max_duration = fields.duration("max_duration", range, max_duration);
    fields.finish();
    Some(Safety { min_healthy: min_healthy.unwrap_or_else(|| Some(1.into()))?, max_duration })
}

impl Scenario {
    /// The clients send this mark, and faults for those that send one are for them alone.
    pub(in crate::drill) fn marked(mut self, mark: String) -> Self {
        for step in &mut self.steps {
            let Action::Strike(_, Strike { more, .. }) = &mut step.action else { continue };
            let header = more.get("header").and_then(Value::as_str);
            if header.is_some_and(|name| name.eq_ignore_ascii_case(wire::MARK)) {
                more.entry("value").or_insert_with(|| mark.clone().into());
            }
        }
        Self { mark, ..self }
    }
}

/// What a step does.
pub(super) fn action(key: &str, node: &Node<'_>) -> Option<Action> {
    let is_plain = !matches!(node.tree.data, Data::Map(_));
    let plain = match key {
        "restore" => return who(node).map(Action::Restore),
        "exec" => return exec(node),
        "unready" | "dead" => Some(strike("eject", &[("as", key.into())])),
        "disable" => Some(strike("disable", &[])),
        "eject" => Some(strike("eject", &[])).filter(|_| is_plain),
        "drain" => Some(strike("drain", &[])).filter(|_| is_plain),
        "abort" => Some(strike("abort", &[("status", STATUS.into())])).filter(|_| is_plain),
        "delay" if is_plain => return node.wrong("a map: { who: one, by: 50ms }"),
        "delay" => None,
        _ => {
            let allowed = "not possible on a running balancer; allowed";
            node.problem(format_args!("{key}: {allowed}: {ALLOWED}"));
            return None;
        }
    };
    if let Some(plain) = plain {
        return Some(Action::Strike(who(node)?, plain));
    }
    let mut fields = node.fields("fault")?;
    let target = needed(&mut fields, "who", WHO);
    let strike = described(key, &mut fields);
    fields.finish();
    Some(Action::Strike(who(&target?)?, strike?))
}

fn strike(kind: &'static str, more: &[(&str, Value)]) -> Strike {
    let more = more.iter().map(|(key, value)| ((*key).to_owned(), value.clone()));
    Strike { kind, more: more.collect() }
}

/// A fault of which more is said than whom it hits.
fn described(key: &str, fields: &mut Fields<'_>) -> Option<Strike> {
    const WORDS: [(&str, &str); 2] = [("unready", "unready"), ("dead", "dead")];
    let text = |duration| Value::from(units::format_duration(duration));
    match key {
        "eject" => {
            let word = fields.take("as").map_or(Some("unready"), |node| node.word(&WORDS));
            Some(strike("eject", &[("as", word?.into())]))
        }
        "drain" => match fields.take("deadline") {
            Some(node) => {
                let deadline = node.duration(Duration::ZERO..=LONGEST)?;
                Some(strike("drain", &[("deadline", text(deadline))]))
            }
            None => Some(strike("drain", &[])),
        },
        "delay" => {
            let by = needed(fields, "by", "how much later it arrives, such as 50ms");
            let more = meant(fields);
            let mut delay = strike("delay", &[("by", text(by?.duration(DELAY)?))]);
            delay.more.extend(more?);
            Some(delay)
        }
        _ => {
            let status = fields.integer("status", 400..=599, STATUS);
            let mut abort = strike("abort", &[("status", status.into())]);
            abort.more.extend(meant(fields)?);
            Some(abort)
        }
    }
}

/// Which requests are meant.
fn meant(fields: &mut Fields<'_>) -> Option<Map<String, Value>> {
    let mut more = Map::new();
    if let Some(node) = fields.take("share") {
        more.insert("share".to_owned(), units::format_percent(node.percent(100)?).into());
    }
    let value = fields.take("value");
    let header = fields.take("header");
    if let (Some(value), None) = (&value, &header) {
        value.problem("it says nothing without `header`");
    }
    for (key, node) in [("header", header), ("value", value)] {
        let Some(node) = node else { continue };
        let is_fine = |text: &str| match key {
            "header" => http::HeaderName::try_from(text).is_ok(),
            _ => http::HeaderValue::try_from(text).is_ok(),
        };
        let fits = |text: &str| is_fine(text).then(|| text.to_owned());
        more.insert(key.to_owned(), node.parsed("what a field is called, or holds", fits)?.into());
    }
    Some(more)
}

fn needed<'a>(fields: &mut Fields<'a>, key: &'static str, what: &str) -> Option<Node<'a>> {
    let node = fields.take(key);
    if node.is_none() {
        fields.missing(key, what);
    }
    node
}
