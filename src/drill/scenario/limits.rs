//! What clients may notice: the keys of `expect`.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::config::{Data, Fields, Node, units};

/// One thing that is measured and held against a limit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::drill) struct Limit {
    pub(in crate::drill) measure: Measure,
    pub(in crate::drill) least: Option<Value>,
    pub(in crate::drill) most: Option<Value>,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::drill) enum Measure {
    /// Requests that failed, and tunnels that broke without a reason.
    Errors,
    /// Sessions that answered from another instance than before.
    Moved,
    /// Those whose instance had no fault.
    Needless,
    Lost,
    Duplicated,
    Reordered,
    /// Answers to something else than was asked.
    Wrong,
    /// Tunnels that ended, however they did.
    TunnelsEnded,
    /// Tunnels that ended with this Close code.
    Closed(u16),
    DetectWithin,
    RehomeWithin,
    RecoverWithin,
    P50,
    P90,
    P99,
    /// How far new sessions per instance are from its share.
    Evenness,
    /// How far open tunnels per instance are from its share, at the end.
    TunnelEvenness,
}

impl Measure {
    /// The key in the file.
    pub(in crate::drill) const fn key(self) -> &'static str {
        match self {
            Self::Errors => "errors",
            Self::Moved => "moved",
            Self::Needless => "needless_moves",
            Self::Lost => "lost",
            Self::Duplicated => "duplicated",
            Self::Reordered => "reordered",
            Self::Wrong => "wrong",
            Self::TunnelsEnded => "tunnels_ended",
            Self::Closed(_) => "closed",
            Self::DetectWithin => "detect_within",
            Self::RehomeWithin => "rehome_within",
            Self::RecoverWithin => "recover_within",
            Self::P50 => "p50",
            Self::P90 => "p90",
            Self::P99 => "p99",
            Self::Evenness => "evenness",
            Self::TunnelEvenness => "tunnel_evenness",
        }
    }
}

/// A limit, or what was measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::drill) enum Value {
    Count(u64),
    /// In basis points.
    Share(u32),
    Time(Duration),
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Count(count) => write!(f, "{count}"),
            Self::Share(points) => f.write_str(&units::format_percent(*points)),
            Self::Time(time) => f.write_str(&units::format_duration(*time)),
        }
    }
}

const COUNTED: [Measure; 8] = [
    Measure::Errors,
    Measure::Moved,
    Measure::Needless,
    Measure::Lost,
    Measure::Duplicated,
    Measure::Reordered,
    Measure::Wrong,
    Measure::TunnelsEnded,
];
const TIMED: [Measure; 6] = [
    Measure::DetectWithin,
    Measure::RehomeWithin,
    Measure::RecoverWithin,
    Measure::P50,
    Measure::P90,
    Measure::P99,
];
const SPREAD: [Measure; 2] = [Measure::Evenness, Measure::TunnelEvenness];

/// What no drill has to say: nothing moves needlessly, and every answer is the one asked for.
const ALWAYS: [Measure; 5] =
    [Measure::Needless, Measure::Lost, Measure::Duplicated, Measure::Reordered, Measure::Wrong];

const TIME: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(3600);
const MOST: u32 = 1_000_000_000;

/// The limits of a whole drill.
pub(super) fn overall(fields: &mut Fields<'_>, watches: bool) -> Vec<Limit> {
    let mut limits = fields.take("expect").map(|node| expect(&node, watches)).unwrap_or_default();
    for measure in ALWAYS.into_iter().filter(|_| !watches) {
        if limits.iter().all(|limit| limit.measure != measure) {
            limits.push(Limit { measure, least: None, most: Some(Value::Count(0)) });
        }
    }
    limits
}

/// Measured by the drill's own instances and clients only.
const OF_EMBEDDED: [Measure; 6] = [
    Measure::Lost,
    Measure::Duplicated,
    Measure::Reordered,
    Measure::Wrong,
    Measure::Evenness,
    Measure::TunnelEvenness,
];

/// The value of an `expect` key; `watches` says that the clients are those of a running balancer.
pub(super) fn expect(node: &Node<'_>, watches: bool) -> Vec<Limit> {
    let Some(mut fields) = node.fields("expect") else { return Vec::new() };
    for measure in OF_EMBEDDED.into_iter().filter(|_| watches) {
        if let Some(node) = fields.take(measure.key()) {
            let allowed = COUNTED.iter().chain(&TIMED).filter(|it| !OF_EMBEDDED.contains(it));
            let allowed: Vec<_> = allowed.map(|it| it.key()).collect();
            let allowed = allowed.join(", ");
            node.problem(format_args!("not on a running balancer; allowed: {allowed}, closed"));
        }
    }
    let mut limits = Vec::new();
    for measure in COUNTED {
        limits.extend(fields.take(measure.key()).and_then(|node| counted(&node, measure)));
    }
    for measure in TIMED {
        let most = fields.take(measure.key()).and_then(|node| node.duration(TIME));
        limits.extend(most.map(|most| at_most(measure, Value::Time(most))));
    }
    for measure in SPREAD {
        let most = fields.take(measure.key()).and_then(|node| node.percent(100));
        limits.extend(most.map(|most| at_most(measure, Value::Share(most))));
    }
    limits.extend(fields.take("closed").and_then(|node| closed(&node)));
    fields.finish();
    limits
}

const fn at_most(measure: Measure, most: Value) -> Limit {
    Limit { measure, least: None, most: Some(most) }
}

fn counted(node: &Node<'_>, measure: Measure) -> Option<Limit> {
    if !matches!(node.tree.data, Data::Map(_)) {
        return amount(node).map(|most| at_most(measure, most));
    }
    let mut fields = node.fields("bound")?;
    let (least, most) = bound(&mut fields);
    fields.finish();
    Some(Limit { measure, least, most })
}

/// How many tunnels end with a code.
fn closed(node: &Node<'_>) -> Option<Limit> {
    let mut fields = node.fields("closed")?;
    let code = fields.take("code");
    if code.is_none() {
        fields.missing("code", "a Close code such as 1012");
    }
    let (least, most) = bound(&mut fields);
    fields.finish();
    let code = u16::try_from(code?.integer(1000..=4999)?).ok()?;
    Some(Limit { measure: Measure::Closed(code), least, most })
}

fn bound(fields: &mut Fields<'_>) -> (Option<Value>, Option<Value>) {
    let [least, most] = ["at_least", "at_most"].map(|key| fields.take(key));
    if least.is_none() && most.is_none() {
        fields.missing("at_most", "at_least, at_most or both");
    }
    (least.and_then(|node| amount(&node)), most.and_then(|node| amount(&node)))
}

fn amount(node: &Node<'_>) -> Option<Value> {
    match node.as_text() {
        Some(_) => node.percent(100).map(Value::Share),
        None => node.integer(0..=MOST).map(|count| Value::Count(count.into())),
    }
}
