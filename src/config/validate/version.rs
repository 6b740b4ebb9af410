//! What a version says: its instances, and how they are treated.
//!
//! Knows no services. Where an app.yaml describes the version, its values stand in the place of
//! the defaults, so that Burdock's own keys win.

use std::time::Duration;

use super::names::is_token;
use super::{LIMIT, affinity, checks, drain, instance_tls, instances, tunnels};
use crate::config::app_yaml::{self, AppYaml};
use crate::config::node::{Fields, Node};
use crate::config::types::{
    Affinity, Balance, Breaker, Check, HashKey, Protocol, Queue, Retry, Timeouts, Version,
};

/// The keys of a version but `timeouts`, which the whole file has too.
pub(in crate::config) const VERSION_KEYS: [&str; 20] = [
    "instances",
    "tls",
    "protocol",
    "session_affinity",
    "network",
    "affinity",
    "balance",
    "hash_by",
    "readiness_check",
    "liveness_check",
    "breaker",
    "panic_threshold",
    "slow_start",
    "retry",
    "queue",
    "upgrades",
    "websocket",
    "rebalance",
    "drain",
    "app_yaml",
];

/// Reads the keys of a version that has a `timeouts` key of its own.
pub(super) fn version_with_timeouts(
    fields: &mut Fields<'_>,
    name: &str,
    default: Timeouts,
) -> Version {
    let node = fields.take("timeouts");
    let timeouts = node.and_then(|node| node.fields("version timeouts")).map(|mut fields| {
        let timeouts = timeouts(&mut fields, default);
        fields.finish();
        timeouts
    });
    version(fields, name, timeouts.unwrap_or(default))
}

/// Reads the keys of a version but `timeouts`.
pub(super) fn version(fields: &mut Fields<'_>, name: &str, timeouts: Timeouts) -> Version {
    let app = fields.take("app_yaml").and_then(|node| app_yaml::beside(&node)).unwrap_or_default();
    let AppYaml { session_affinity, readiness_check, liveness_check } = app;
    let affinity = affinity::affinity(fields, session_affinity);
    Version {
        name: name.to_owned(),
        balance: balance(fields, affinity.as_ref()),
        instances: instances::instances(fields),
        tls: instance_tls::of_version(fields),
        protocol: fields
            .take("protocol")
            .and_then(|node| node.word(&Protocol::WORDS))
            .unwrap_or_default(),
        readiness_check: check(fields, "readiness_check", &checks::READINESS, readiness_check),
        liveness_check: check(fields, "liveness_check", &checks::LIVENESS, liveness_check),
        breaker: breaker(fields),
        panic_threshold: fields
            .take("panic_threshold")
            .and_then(|node| node.percent(100))
            .unwrap_or_default(),
        slow_start: fields.optional("slow_start", None, |node| node.duration(LIMIT)),
        retry: retry(fields),
        queue: queue(fields),
        upgrades: tunnels::upgrades(fields),
        websocket: tunnels::websocket(fields),
        rebalance: tunnels::rebalance(fields, affinity.as_ref()),
        drain: drain(fields, "drain"),
        timeouts,
        affinity,
    }
}

/// The limits that both the file and a version may set.
pub(super) fn timeouts(fields: &mut Fields<'_>, default: Timeouts) -> Timeouts {
    Timeouts {
        connect: fields.duration("connect", LIMIT, default.connect),
        first_byte: fields.duration("first_byte", LIMIT, default.first_byte),
        idle: fields.duration("idle", LIMIT, default.idle),
    }
}

fn check(
    fields: &mut Fields<'_>,
    key: &'static str,
    kind: &checks::Kind,
    default: Option<Check>,
) -> Option<Check> {
    match fields.take(key) {
        None => default,
        Some(node) if node.is_off() => None,
        Some(node) => checks::check(&node, kind, default),
    }
}

fn balance(fields: &mut Fields<'_>, affinity: Option<&Affinity>) -> Balance {
    #[derive(Clone, Copy, PartialEq)]
    enum Word {
        Even,
        LeastRequests,
        LeastSessions,
        Random,
        Hash,
    }
    let words = [
        ("even", Word::Even),
        ("least_requests", Word::LeastRequests),
        ("least_sessions", Word::LeastSessions),
        ("random", Word::Random),
        ("hash", Word::Hash),
    ];
    let node = fields.take("balance");
    let is_given = node.is_some();
    let word = node.as_ref().and_then(|node| node.word(&words));
    if let (Some(node), Some(Word::LeastSessions)) = (&node, word)
        && affinity.is_none_or(|affinity| affinity.by.is_some())
    {
        node.problem("sessions are counted by their tokens; needed: session_affinity, by token");
    }
    let hash_by = fields.take("hash_by");
    if let Some(node) = &hash_by
        && word != Some(Word::Hash)
        && (word.is_some() || !is_given)
    {
        node.problem("`hash_by` has no effect without `balance: hash`; allowed: only beside it");
    }
    let hash_by = hash_by.and_then(|node| hash_key(&node)).unwrap_or(HashKey::ClientIp);
    match word.unwrap_or(Word::Even) {
        Word::Even => Balance::Even,
        Word::LeastRequests => Balance::LeastRequests,
        Word::LeastSessions => Balance::LeastSessions,
        Word::Random => Balance::Random,
        Word::Hash => Balance::Hash(hash_by),
    }
}

/// What [`hash_key`] takes.
const HASH_KEYS: &str = "client_ip, path, uri, header NAME, cookie NAME, query NAME";

fn hash_key(node: &Node<'_>) -> Option<HashKey> {
    node.parsed(HASH_KEYS, parse_hash_key)
}

/// What sessions are recognised by; `token` is Burdock's own way.
pub(super) fn affinity_key(node: &Node<'_>) -> Option<HashKey> {
    let is_token = node.as_text() == Some("token");
    let allowed = format_args!("token, {HASH_KEYS}");
    (!is_token).then(|| node.parsed(allowed, parse_hash_key)).flatten()
}

fn parse_hash_key(text: &str) -> Option<HashKey> {
    let mut words = text.split_ascii_whitespace();
    let key = match (words.next()?, words.next()) {
        ("client_ip", None) => HashKey::ClientIp,
        ("path", None) => HashKey::Path,
        ("uri", None) => HashKey::Uri,
        ("header", Some(name)) if is_token(name) => HashKey::Header(name.to_ascii_lowercase()),
        ("cookie", Some(name)) if is_token(name) => HashKey::Cookie(name.to_owned()),
        ("query", Some(name)) if is_query_name(name) => HashKey::Query(name.to_owned()),
        _ => return None,
    };
    words.next().is_none().then_some(key)
}

fn is_query_name(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_graphic() && !b"&=?#".contains(&byte))
}

fn breaker(fields: &mut Fields<'_>) -> Option<Breaker> {
    let default = Breaker::default();
    let Some(node) = fields.take("breaker") else { return Some(default) };
    if node.is_off() {
        return None;
    }
    let mut fields = node.fields("breaker")?;
    let failures = fields.integer("failures", 1..=1000, default.failures);
    let error_share = fields.optional("error_share", default.error_share, |node| {
        let share = node.percent(100)?;
        if share == 0 {
            node.problem("0% would open it at once; allowed: above 0% to 100%, none");
        }
        Some(share)
    });
    let open = fields.duration("open", LIMIT, default.open);
    let breaker = Breaker {
        failures,
        error_share,
        window: fields.duration("window", LIMIT, default.window),
        min_requests: fields.integer("min_requests", 1..=1_000_000, default.min_requests),
        open,
        max_open: max_open(&mut fields, open, default.max_open),
        trials: fields.integer("trials", 1..=100, default.trials),
        max_ejected: fields
            .take("max_ejected")
            .and_then(|node| node.percent(100))
            .unwrap_or(default.max_ejected),
    };
    fields.finish();
    Some(breaker)
}

fn queue(fields: &mut Fields<'_>) -> Queue {
    let default = Queue::default();
    let node = fields.take("queue");
    let Some(mut fields) = node.and_then(|node| node.fields("queue")) else { return default };
    let max = fields.take("max").and_then(|node| node.integer(0..=100_000));
    let queue = Queue {
        max: max.map_or(default.max, |max: u32| max as usize),
        timeout: fields.duration("timeout", LIMIT, default.timeout),
    };
    fields.finish();
    queue
}

/// An `open` beyond the default is no mistake of whoever wrote it.
fn max_open(fields: &mut Fields<'_>, open: Duration, default: Duration) -> Duration {
    let node = fields.take("max_open");
    let given = node.as_ref().and_then(|node| node.duration(LIMIT));
    if let (Some(node), Some(given)) = (&node, given)
        && given < open
    {
        node.problem("shorter than `open`; allowed: from the value of `open`");
    }
    given.unwrap_or(default.max(open))
}

fn retry(fields: &mut Fields<'_>) -> Retry {
    /// A body is kept in memory for as long as its request may be tried again.
    const MAX_BODY: u64 = 16 * 1024 * 1024;
    let default = Retry::default();
    let Some(node) = fields.take("retry") else { return default };
    if node.is_off() {
        return Retry { attempts: 1, ..default };
    }
    let Some(mut fields) = node.fields("retry") else { return default };
    let attempts = fields.integer("attempts", 1..=10, default.attempts);
    let max_body = fields.take("max_body").and_then(|node| node.size(MAX_BODY));
    let budget = fields.take("budget").and_then(|node| node.percent(100));
    let budget_floor = fields.integer("budget_floor", 0..=1_000_000, default.budget_floor);
    fields.finish();
    Retry {
        attempts,
        max_body: max_body
            .and_then(|bytes| usize::try_from(bytes).ok())
            .unwrap_or(default.max_body),
        budget: budget.unwrap_or(default.budget),
        budget_floor,
    }
}
