//! What a version says: its instances, and how they are treated.
//!
//! Knows no services. Where an app.yaml describes the version, its values stand in the place of
//! the defaults, so that Burdock's own keys win.

use std::time::Duration;

use super::names::is_token;
use super::{
    LIMIT, affinity, checks, clients, discovery, drain, instance_tls, instances, retry, tunnels,
};
use crate::config::app_yaml::{self, AppYaml};
use crate::config::node::{Fields, Node};
use crate::config::types::{
    Affinity, Balance, Breaker, Check, Concurrency, HashKey, Limits, Protocol, ProxyVersion, Queue,
    Timeouts, Version,
};

/// What a version has of what the whole file may say, unless it says otherwise.
#[derive(Clone, Copy)]
pub(super) struct Defaults {
    pub(super) timeouts: Timeouts,
    pub(super) limits: Limits,
}

/// The keys of a version but `timeouts` and `limits`, which the whole file has too.
pub(in crate::config) const VERSION_KEYS: [&str; 24] = [
    "instances",
    "discovery",
    "tls",
    "protocol",
    "session_affinity",
    "network",
    "affinity",
    "balance",
    "hash_by",
    "readiness_check",
    "liveness_check",
    "proxy_protocol",
    "breaker",
    "panic_threshold",
    "slow_start",
    "retry",
    "queue",
    "concurrency",
    "upgrades",
    "websocket",
    "rebalance",
    "drain",
    "rate_limit",
    "app_yaml",
];

/// Reads the keys of a version that has `timeouts` and `limits` of its own.
pub(super) fn version_with_limits(
    fields: &mut Fields<'_>,
    name: &str,
    defaults: Defaults,
) -> Version {
    let node = fields.take("timeouts");
    let timeouts = node.and_then(|node| node.fields("version timeouts")).map(|mut fields| {
        let timeouts = timeouts(&mut fields, defaults.timeouts);
        fields.finish();
        timeouts
    });
    let node = fields.take("limits");
    let limits = node.and_then(|node| node.fields("version limits")).map(|mut fields| {
        let limits = clients::limits(&mut fields, defaults.limits);
        fields.finish();
        limits
    });
    let defaults = Defaults {
        timeouts: timeouts.unwrap_or(defaults.timeouts),
        limits: limits.unwrap_or(defaults.limits),
    };
    version(fields, name, defaults)
}

/// Reads the keys of a version but `timeouts` and `limits`.
pub(super) fn version(fields: &mut Fields<'_>, name: &str, defaults: Defaults) -> Version {
    let app = fields.take("app_yaml").and_then(|node| app_yaml::beside(&node)).unwrap_or_default();
    let AppYaml { session_affinity, readiness_check, liveness_check } = app;
    let affinity = affinity::affinity(fields, session_affinity);
    let balance = balance(fields, affinity.as_ref());
    let discovery = fields.take("discovery").filter(|node| !node.is_off());
    let instances = instances::instances(fields, discovery.is_some());
    let discovery = discovery.and_then(|node| discovery::discovery(&node));
    let tls = instance_tls::of_version(fields);
    let protocol = fields.take("protocol").and_then(|node| node.word(&Protocol::WORDS));
    let protocol = protocol.unwrap_or_default();
    Version {
        name: name.to_owned(),
        balance,
        instances,
        discovery,
        tls,
        protocol,
        readiness_check: check(fields, "readiness_check", &checks::READINESS, readiness_check),
        liveness_check: check(fields, "liveness_check", &checks::LIVENESS, liveness_check),
        proxy_protocol: fields.switched("proxy_protocol", |node| proxy_version(node, protocol)),
        breaker: breaker(fields),
        panic_threshold: fields
            .take("panic_threshold")
            .and_then(|node| node.percent(100))
            .unwrap_or_default(),
        slow_start: fields.optional("slow_start", None, |node| node.duration(LIMIT)),
        retry: retry::retry(fields),
        queue: queue(fields),
        concurrency: concurrency(fields),
        upgrades: tunnels::upgrades(fields),
        websocket: tunnels::websocket(fields),
        rebalance: tunnels::rebalance(fields, affinity.as_ref()),
        drain: drain(fields, "drain"),
        rate_limit: fields.switched("rate_limit", clients::rate_limit),
        timeouts: defaults.timeouts,
        limits: defaults.limits,
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

pub(super) fn hash_key(node: &Node<'_>) -> Option<HashKey> {
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

fn proxy_version(node: &Node<'_>, protocol: Protocol) -> Option<ProxyVersion> {
    // A connection of HTTP/2 carries requests of many clients, and its header would name one.
    if protocol == Protocol::Http2 {
        node.problem("not with `protocol: http2`; allowed: with http1");
        return None;
    }
    let words = [("off", None), ("v1", Some(ProxyVersion::V1)), ("v2", Some(ProxyVersion::V2))];
    node.word(&words).flatten()
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

fn concurrency(fields: &mut Fields<'_>) -> Option<Concurrency> {
    const MOST: u32 = 1_000_000;
    let default = Concurrency::default();
    let node = fields.take("concurrency").filter(|node| !node.is_off())?;
    let mut fields = node.fields("concurrency")?;
    let min = fields.integer("min", 1..=MOST, default.min);
    let within = |fields: &mut Fields<'_>, key, default: u32, to: u32| {
        let node = fields.take(key);
        let given = node.as_ref().and_then(|node| node.integer(1..=MOST));
        if let (Some(node), Some(given)) = (&node, given)
            && !(min..=to).contains(&given)
        {
            node.problem(format_args!("out of range; allowed: from the value of `min` to {to}"));
        }
        given.unwrap_or(default.clamp(min, to.max(min)))
    };
    let max = within(&mut fields, "max", default.max, MOST);
    let initial = within(&mut fields, "initial", default.initial, max);
    let tolerance = fields.take("tolerance").and_then(|node| {
        let tolerance = node.percent(1000)?;
        if tolerance == 0 {
            node.problem("no answer takes always as long; allowed: above 0% to 1000%");
        }
        Some(tolerance)
    });
    fields.finish();
    Some(Concurrency { initial, min, max, tolerance: tolerance.unwrap_or(default.tolerance) })
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
