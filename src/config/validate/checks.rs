//! `readiness_check` and `liveness_check` with App Engine's keys, defaults and ranges, and the
//! finer forms that Burdock adds to them.
//!
//! Used for Burdock's own file and for an app.yaml, which knows App Engine's keys only.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::names::{self, is_host, is_path};
use crate::config::node::{Fields, Node};
use crate::config::tree::Data;
use crate::config::types::{Check, InitialState, OnRestart};
use crate::config::units;

/// What tells the two checks apart.
pub(in crate::config) struct Kind {
    name: &'static str,
    is_readiness: bool,
    default: fn() -> Check,
}

pub(in crate::config) const READINESS: Kind =
    Kind { name: "readiness_check", is_readiness: true, default: Check::readiness };
pub(in crate::config) const LIVENESS: Kind =
    Kind { name: "liveness_check", is_readiness: false, default: Check::liveness };

/// Seconds that App Engine allows, and how far below Burdock goes.
struct Span {
    first: u64,
    last: u64,
    finest: Duration,
}

/// Below this a probe measures the scheduler and not the instance.
const FINEST_PROBE: Duration = Duration::from_millis(10);
const TIMEOUT: Span = Span { first: 1, last: 300, finest: FINEST_PROBE };
const CHECK_INTERVAL: Span = Span { first: 1, last: 300, finest: FINEST_PROBE };
const INITIAL_DELAY: Span = Span { first: 0, last: 3600, finest: Duration::ZERO };
const APP_START_TIMEOUT: Span = Span { first: 1, last: 1800, finest: FINEST_PROBE };

/// Reads a check of Burdock's own file; keys that are left out come from `base`.
pub(super) fn check(node: &Node<'_>, kind: &Kind, base: Option<Check>) -> Option<Check> {
    if !matches!(node.tree.data, Data::Map(_)) {
        return node.wrong("a map of check keys, {} for the defaults, off");
    }
    let mut fields = node.fields(kind.name)?;
    let base = base.unwrap_or_else(kind.default);
    let mut check = common(&mut fields, base);
    target(&mut fields, &mut check);
    check.timeout = time(&mut fields, ["timeout_sec", "timeout"], &TIMEOUT, check.timeout);
    check.interval = time(
        &mut fields,
        ["check_interval_sec", "check_interval"],
        &CHECK_INTERVAL,
        check.interval,
    );
    if kind.is_readiness {
        readiness(&mut fields, &mut check);
    } else {
        let keys = ["initial_delay_sec", "initial_delay"];
        check.initial_delay = time(&mut fields, keys, &INITIAL_DELAY, check.initial_delay);
    }
    if let Some(node) = fields.take("expected_statuses") {
        check.expected_statuses = expected_statuses(&node);
    }
    fields.finish();
    Some(check)
}

/// What is asked where, beyond App Engine's `path`.
fn target(fields: &mut Fields<'_>, check: &mut Check) {
    let grpc = fields.take("grpc");
    if let Some(node) = &grpc {
        let allowed = "the name of a gRPC service, \"\" for the whole server, none";
        let name = |text: &str| {
            (text.len() <= 255 && !text.contains(char::is_control)).then(|| text.to_owned())
        };
        check.grpc = if node.as_text() == Some("none") { None } else { node.parsed(allowed, name) };
        if check.grpc.is_some() && check.path.is_some() {
            node.problem("given beside `path`; allowed: one of the two");
        }
    }
    check.port = fields.optional("port", check.port, |node| {
        node.integer(1..=65535).and_then(|port| u16::try_from(port).ok())
    });
}

/// The keys that only `readiness_check` has.
fn readiness(fields: &mut Fields<'_>, check: &mut Check) {
    let keys = ["app_start_timeout_sec", "app_start_timeout"];
    check.app_start_timeout = time(fields, keys, &APP_START_TIMEOUT, check.app_start_timeout);
    let states = [("unknown", InitialState::Unknown), ("ready", InitialState::Ready)];
    let state = fields.take("initial_state").and_then(|node| node.word(&states));
    check.initial_state = state.unwrap_or(check.initial_state);
    if let Some(node) = fields.take("agent") {
        check.agent = node.boolean().unwrap_or(check.agent);
        if check.agent && check.path.is_none() {
            node.problem("no answer to read without one; allowed: true beside `path`");
        }
    }
    let field = |node: &Node<'_>| {
        node.parsed("the name of a response field, none", |text| {
            names::is_token(text).then(|| text.to_ascii_lowercase())
        })
    };
    let incarnation = fields.take("incarnation_header");
    if let Some(node) = &incarnation {
        check.incarnation_header = if node.as_text() == Some("none") { None } else { field(node) };
        if check.incarnation_header.is_some() && check.path.is_none() {
            node.problem("no answer to read without one; allowed: a name beside `path`");
        }
    }
    if let Some(node) = fields.take("on_restart") {
        let words = [("keep", OnRestart::Keep), ("re-home", OnRestart::Rehome)];
        check.on_restart = node.word(&words).unwrap_or(check.on_restart);
        if check.on_restart == OnRestart::Rehome
            && incarnation.is_none_or(|node| node.as_text() == Some("none"))
        {
            node.problem(
                "nothing tells of a restart; allowed: re-home beside `incarnation_header`",
            );
        }
    }
}

/// Reads a check of an app.yaml: whole seconds, and none of Burdock's additions.
pub(in crate::config) fn app_engine_check(node: &Node<'_>, kind: &Kind) -> Option<Check> {
    let mut fields = node.fields(kind.name)?;
    let mut check = common(&mut fields, (kind.default)());
    let mut seconds = |key, span: &Span, default| {
        let range = u32::try_from(span.first).unwrap_or(0)..=u32::try_from(span.last).unwrap_or(0);
        let value = fields.take(key).and_then(|node| node.integer(range));
        value.map_or(default, |seconds| Duration::from_secs(seconds.into()))
    };
    check.timeout = seconds("timeout_sec", &TIMEOUT, check.timeout);
    check.interval = seconds("check_interval_sec", &CHECK_INTERVAL, check.interval);
    if kind.is_readiness {
        check.app_start_timeout =
            seconds("app_start_timeout_sec", &APP_START_TIMEOUT, check.app_start_timeout);
    } else {
        check.initial_delay = seconds("initial_delay_sec", &INITIAL_DELAY, check.initial_delay);
    }
    fields.finish();
    Some(check)
}

/// The keys that are read alike everywhere.
fn common(fields: &mut Fields<'_>, base: Check) -> Check {
    let path = fields.optional("path", base.path.clone(), |node| {
        node.parsed("a path that starts with /, without spaces or control characters", |text| {
            is_path(text).then(|| text.to_owned())
        })
    });
    let host = fields.optional("host", base.host.clone(), |node| {
        node.parsed("a host name, with or without port", |text| {
            let host =
                text.split_once(':').filter(|_| !text.starts_with('[')).map(|(host, _)| host);
            let is_valid = match host {
                Some(_) => super::names::is_address(text),
                None => is_host(text) || super::names::is_address(text),
            };
            is_valid.then(|| text.to_owned())
        })
    });
    Check {
        path,
        host,
        failure_threshold: fields.integer("failure_threshold", 1..=10, base.failure_threshold),
        success_threshold: fields.integer("success_threshold", 1..=10, base.success_threshold),
        ..base
    }
}

/// A time under App Engine's key, a number of seconds, or under Burdock's, a duration.
fn time(
    fields: &mut Fields<'_>,
    [seconds_key, duration_key]: [&'static str; 2],
    span: &Span,
    default: Duration,
) -> Duration {
    let in_seconds = fields.take(seconds_key);
    let as_duration = fields.take(duration_key);
    let range = span.finest..=Duration::from_secs(span.last);
    match (in_seconds, as_duration) {
        (Some(_), Some(node)) => {
            node.problem(format_args!("given beside `{seconds_key}`; allowed: one of the two"));
            None
        }
        (Some(node), None) => seconds(&node, span),
        (None, Some(node)) => node.duration(range),
        (None, None) => None,
    }
    .unwrap_or(default)
}

fn seconds(node: &Node<'_>, span: &Span) -> Option<Duration> {
    let value = match node.tree.data {
        Data::Integer(seconds) => u64::try_from(seconds).ok().map(Duration::from_secs),
        // Whole milliseconds, as everywhere; `try_from` refuses what is negative or not a number.
        Data::Float(seconds) => {
            Duration::try_from_secs_f64((seconds * 1000.0).round() / 1000.0).ok()
        }
        _ => None,
    };
    let last = Duration::from_secs(span.last);
    value.filter(|value| (span.finest..=last).contains(value)).or_else(|| {
        let (first, last) = (span.first, span.last);
        let finest = units::format_duration(span.finest);
        node.wrong(match span.finest {
            Duration::ZERO => format!("a number of seconds from {first} to {last}"),
            _ => format!("a number of seconds from {first} to {last}, fractions down to {finest}"),
        })
    })
}

fn expected_statuses(node: &Node<'_>) -> Vec<(u16, u16)> {
    if matches!(&node.tree.data, Data::List(items) if items.is_empty()) {
        node.problem("no status; needed: at least one, such as 200");
    }
    statuses(node, 100..=599, "200 or 200-299").unwrap_or_default()
}

/// Statuses of `range`, one by one or from one to another.
pub(super) fn statuses(
    node: &Node<'_>,
    range: RangeInclusive<u16>,
    example: &str,
) -> Option<Vec<(u16, u16)>> {
    let (first, last) = (range.start(), range.end());
    let allowed = format!("statuses from {first} to {last}, such as {example}");
    let status = |item: &Node<'_>| {
        let found = match &item.tree.data {
            Data::Integer(status) => units::parse_statuses(&status.to_string()),
            Data::Text(text) => units::parse_statuses(text),
            _ => None,
        };
        let fits = |(low, high): &(u16, u16)| range.contains(low) && range.contains(high);
        found.filter(fits).or_else(|| item.wrong(&allowed))
    };
    Some(node.list(&allowed)?.iter().filter_map(status).collect())
}
