//! What a version says of upgraded connections: which there may be, when they end, what their
//! peers are told.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::names::is_token;
use super::{LIMIT, WAIT, window};
use crate::config::node::{Fields, Node};
use crate::config::types::{
    Action, Affinity, Close, Closes, Drain, Exit, Rebalance, RebalanceMode, Websocket,
};

/// Pings are looked after once a second.
const PING: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(365 * 86_400);
/// A Close frame has 125 bytes for its code and its reason (RFC 6455 section 5.5).
const MAX_REASON: usize = 123;

/// The protocols that a client may upgrade to.
pub(super) fn upgrades(fields: &mut Fields<'_>) -> Vec<String> {
    let default = || vec!["websocket".to_owned()];
    let allowed = "protocol names such as websocket";
    let Some(node) = fields.take("upgrades") else { return default() };
    let Some(items) = node.list(allowed) else { return default() };
    let mut names = Vec::with_capacity(items.len());
    for item in items {
        let is_name = |text: &str| text.split('/').all(is_token);
        let name = item.parsed(allowed, |text| is_name(text).then(|| text.to_ascii_lowercase()));
        match name {
            Some(name) if name == "h2c" => item.problem(
                "h2c would carry requests past all that Burdock checks; allowed: other protocols",
            ),
            Some(name) if names.contains(&name) => item.problem("given twice; allowed: once"),
            Some(name) => names.push(name),
            None => {}
        }
    }
    names
}

/// Tunnels.
pub(super) fn websocket(fields: &mut Fields<'_>) -> Websocket {
    let default = Websocket::default();
    let node = fields.take("websocket");
    let Some(mut fields) = node.and_then(|node| node.fields("websocket")) else { return default };
    let limit = |node: &Node<'_>| node.duration(LIMIT);
    let max_lifetime = fields.optional("max_lifetime", default.max_lifetime, limit);
    let lifetime_jitter = fields.take("lifetime_jitter").and_then(|node| node.percent(50));
    let websocket = Websocket {
        max_lifetime,
        lifetime_jitter: lifetime_jitter.unwrap_or(default.lifetime_jitter),
        idle_timeout: fields.optional("idle_timeout", default.idle_timeout, limit),
        ping_interval: fields
            .optional("ping_interval", default.ping_interval, |node| node.duration(PING)),
        close_grace: fields.duration("close_grace", WAIT, default.close_grace),
        max_new_per_second: fields
            .optional("max_new_per_second", None, |node| node.integer(1..=1_000_000)),
        closes: closes(&mut fields, default.closes),
    };
    fields.finish();
    websocket
}

fn closes(fields: &mut Fields<'_>, default: Closes) -> Closes {
    let node = fields.take("closes");
    let Some(mut fields) = node.and_then(|node| node.fields("closes")) else { return default };
    let lifetime = close(&mut fields, "lifetime", default.lifetime);
    let idle = close(&mut fields, "idle", default.idle);
    let ping_timeout = close(&mut fields, "ping_timeout", default.ping_timeout);
    let removed = leaving(&mut fields, "removed", default.removed);
    let draining = leaving(&mut fields, "draining", default.draining);
    let (disabled, disabled_window) =
        exit(&mut fields, "disabled", (default.disabled, default.disabled_window));
    let (unready, unready_window) =
        exit(&mut fields, "unready", (default.unready, default.unready_window));
    let (dead, dead_window) = exit(&mut fields, "dead", (default.dead, default.dead_window));
    let rebalanced = close(&mut fields, "rebalanced", default.rebalanced);
    let shutdown = close(&mut fields, "shutdown", default.shutdown);
    let instance = close(&mut fields, "instance", default.instance);
    fields.finish();
    Closes {
        lifetime,
        idle,
        ping_timeout,
        removed,
        draining,
        disabled,
        disabled_window,
        unready,
        unready_window,
        dead,
        dead_window,
        rebalanced,
        shutdown,
        instance,
    }
}

fn close(fields: &mut Fields<'_>, key: &'static str, default: Close) -> Close {
    let node = fields.take(key);
    let Some(mut fields) = node.and_then(|node| node.fields("close")) else { return default };
    let close = words(&mut fields, default);
    fields.finish();
    close
}

/// When they end is said by the version's `drain`.
fn leaving(fields: &mut Fields<'_>, key: &'static str, default: Exit) -> Exit {
    let node = fields.take(key);
    let Some(mut fields) = node.and_then(|node| node.fields("leaving")) else { return default };
    let action = action(&mut fields, default.action);
    let close = words(&mut fields, default.close);
    fields.finish();
    Exit { action, close }
}

fn exit(fields: &mut Fields<'_>, key: &'static str, default: (Exit, Drain)) -> (Exit, Drain) {
    let node = fields.take(key);
    let Some(mut fields) = node.and_then(|node| node.fields("exit")) else { return default };
    let action = action(&mut fields, default.0.action);
    let close = words(&mut fields, default.0.close);
    let window = window(&mut fields, default.1);
    fields.finish();
    (Exit { action, close }, window)
}

fn action(fields: &mut Fields<'_>, default: Action) -> Action {
    let words = [("keep", Action::Keep), ("close", Action::Close)];
    fields.take("action").and_then(|node| node.word(&words)).unwrap_or(default)
}

fn words(fields: &mut Fields<'_>, default: Close) -> Close {
    let code = fields.take("code").and_then(|node| {
        let code = node.whole("1000 to 1003, 1007 to 1014, 3000 to 4999", is_sendable)?;
        u16::try_from(code).ok()
    });
    let reason = fields.take("reason").and_then(|node| {
        let is_short = |text: &&str| text.len() <= MAX_REASON;
        node.parsed("text of at most 123 bytes", |text| {
            Some(text).filter(is_short).map(str::to_owned)
        })
    });
    Close { code: code.unwrap_or(default.code), reason: reason.unwrap_or(default.reason) }
}

/// RFC 6455 sections 7.4.1 and 7.4.2: 1004 is reserved, 1005, 1006 and 1015 are never sent.
fn is_sendable(code: &u32) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// How tunnels are moved to instances that have too few.
pub(super) fn rebalance(fields: &mut Fields<'_>, affinity: Option<&Affinity>) -> Rebalance {
    let default = Rebalance::default();
    let node = fields.take("rebalance");
    let Some(mut fields) = node.and_then(|node| node.fields("rebalance")) else { return default };
    let words = [("never", RebalanceMode::Never), ("bounded", RebalanceMode::Bounded)];
    let node = fields.take("mode");
    let mode = node.as_ref().and_then(|node| node.word(&words));
    if let (Some(node), Some(RebalanceMode::Bounded)) = (&node, mode)
        && affinity.is_some_and(|affinity| affinity.strict || affinity.by.is_some())
    {
        node.problem("beside affinity.strict or affinity.by tunnels come back; allowed: never");
    }
    let max_per_minute = fields.integer("max_per_minute", 1..=1_000_000, default.max_per_minute);
    let tolerance = fields.take("tolerance").and_then(|node| node.percent(100));
    fields.finish();
    Rebalance {
        mode: mode.unwrap_or(default.mode),
        max_per_minute,
        tolerance: tolerance.unwrap_or(default.tolerance),
    }
}
