//! The words of an explanation.

use std::net::IpAddr;

use super::{Branch, Instance, Kind, Listener, Lot, Membership, Outcome, Seen, Service};
use crate::config::types::{self, Balance, HashKey};
use crate::health::breaker::Passage;
use crate::health::{Admin, Health};
use crate::proxy::error::Reason;
use crate::route::split::By;
use crate::route::{Host, Route};

/// What is known of a session when its instance is chosen.
#[derive(Debug)]
pub(super) struct Story<'a> {
    pub(super) outcome: Outcome,
    pub(super) tokens: &'a [Seen],
    /// Whether something that was noted a while ago decides.
    pub(super) by_memory: bool,
    /// Whether it brings what a ring is asked with.
    pub(super) has_key: bool,
    /// Whether it would wait for a place.
    pub(super) waits: bool,
}

pub(super) fn no_route(host: &str, path: &str) -> String {
    format!("no service has a host that fits {host:?} and a path that covers {path:?}")
}

pub(super) fn ambiguous(path: &str) -> String {
    format!(
        "instances may read {path:?} in ways that lead to different services or routes: an escaped \
         slash, a backslash, or what stands behind a semicolon"
    )
}

pub(super) fn route(host: &str, route: Route<'_>) -> String {
    let path = route.path;
    match route.host {
        Host::Exact(known) => format!("host {host} is its {known}, path {path} covers it"),
        Host::Wildcard(end) => format!("host {host} fits its *{end}, path {path} covers it"),
        Host::Any => format!("it takes any host, path {path} covers it"),
    }
}

/// What becomes of it by which of the service's routes.
pub(super) fn treated(route: &types::Route, index: usize) -> String {
    match (&route.redirect, &route.rewrite_prefix) {
        (Some(redirect), _) => format!("; routes[{index}] redirects to {}", redirect.to),
        (None, Some(to)) => format!("; routes[{index}] has {to} in its place"),
        (None, None) => format!("; routes[{index}] changes fields"),
    }
}

/// Why it goes to this version of several.
pub(super) fn lot(branch: Branch<'_>, lot: Lot<'_>) -> String {
    let name = lot.service.roster.version();
    let why = match lot.by {
        By::Token => format!("its token names {name}"),
        By::EngineIo => format!("{name} issued its engine.io session id"),
        By::Streams => format!("other streams of its connection went to {name}"),
        By::Cookie => format!("the number in its cookie leads to {name}"),
        By::Drawn => {
            format!("it has no number, and the one drawn leads to {name}; another draw may differ")
        }
        By::Ip => format!("its address leads to {name}"),
        By::Random => format!("{name} was drawn; another draw may differ"),
    };
    let share = |it: &Service| {
        let percent = (it.share() * 1e4).round() / 100.0;
        format!("{} {percent}%", it.roster.version())
    };
    let shares: Vec<_> = branch.versions().iter().map(share).collect();
    format!("{why} (traffic_split: {})", shares.join(", "))
}

/// Why a request gets no further than its listener, if so.
pub(super) fn stopped(at: &Listener, peer: IpAddr, https: bool) -> Option<(&'static str, String)> {
    if !at.access.admits(peer) {
        let why = format!("`access` of the listener keeps {peer} out: its connection is closed");
        return Some(("denied", why));
    }
    let redirect = at.https_redirect.filter(|_| !https)?;
    let (status, port) = (redirect.status, redirect.port);
    let why = format!("answered with {status}: `https_redirect` sends it to https, port {port}");
    Some(("redirected", why))
}

/// Why no new session goes to this instance, if none does.
pub(super) fn out(instance: &Instance, kind: Kind) -> Option<String> {
    let fixed = |text: &str| Some(text.to_owned());
    match instance.membership() {
        Membership::Present => {}
        Membership::Removed => return fixed("removed; serves its sessions until its deadline"),
        Membership::Gone => return fixed("removed"),
    }
    match instance.admin() {
        Admin::Active => {}
        Admin::Draining => return fixed("draining; serves its sessions until its deadline"),
        Admin::Drained => return fixed("drained; its deadline has passed"),
        Admin::Disabled => return fixed("disabled"),
    }
    // In a panic an unready one is eligible nevertheless.
    if !instance.eligibility().new_sessions {
        match instance.health() {
            Health::Ready => {}
            Health::Unknown => return fixed("unknown: no verdict of its readiness check yet"),
            Health::Unready => return fixed("unready: it answered a readiness probe with no"),
            Health::Unanswered => return fixed("unready: its readiness probes got no answer"),
            Health::Dead => return fixed("dead: its liveness check failed"),
        }
    }
    match instance.passage() {
        Passage::Refuses => return fixed("breaker open"),
        Passage::Trial if !instance.admits() => {
            return fixed("breaker half-open, trials under way");
        }
        Passage::Trial | Passage::Passes => {}
    }
    if instance.effective_weight() == 0 {
        return fixed("weight 0");
    }
    let (limit, key) = match kind {
        Kind::Request => (instance.limit(kind), "max_requests"),
        Kind::Tunnel => (instance.limit(kind), "max_tunnels"),
    };
    instance.is_full(kind).then(|| format!("full: {key} is {limit}"))
}

/// How an instance stands that new sessions go to.
pub(super) fn within(instance: &Instance) -> String {
    let health = match instance.health() {
        Health::Ready => "ready",
        // Else it would not be here.
        _ => "unready, but too few are ready for that to matter (panic_threshold)",
    };
    let weight = instance.weight();
    let effective = instance.effective_weight();
    match effective == weight * 100 {
        true if weight == 1 => health.to_owned(),
        true => format!("{health}, weight {weight}"),
        false => format!("{health}, weight {}.{:02} of {weight}", effective / 100, effective % 100),
    }
}

/// Why it goes where it goes.
pub(super) fn why(
    service: &Service,
    story: &Story<'_>,
    chosen: Result<&Instance, &Reason>,
) -> String {
    let came = came(story);
    if story.waits {
        return format!("{came}; all that may take it are full: it waits for `queue.timeout`");
    }
    let chosen = match chosen {
        Ok(instance) => instance.identity().name.as_str(),
        Err(reason) => return nowhere(&came, story.outcome, *reason),
    };
    match story.outcome {
        Outcome::Kept => format!("{came}, and {chosen} serves it"),
        Outcome::Rehomed(_) if story.by_memory => {
            format!("{came}; its session went to {chosen} a moment ago")
        }
        Outcome::New | Outcome::Rejected(_) if story.by_memory => {
            format!("{came}; others of its client went to {chosen} a moment ago (first_burst)")
        }
        Outcome::Off | Outcome::Keyed | Outcome::Keyless | Outcome::New => {
            format!("{came}; {}", turn(service, story, chosen))
        }
        Outcome::Rejected(_) | Outcome::Rehomed(_) | Outcome::Refused(_) => {
            format!("{came}; {}", turn(service, story, chosen))
        }
    }
}

/// With what it comes.
fn came(story: &Story<'_>) -> String {
    let honoured = story.tokens.iter().find(|seen| seen.verdict.is_ok());
    let said = honoured.and_then(|seen| seen.says.as_ref());
    let named = said.map_or("its instance", |said| said.instance.as_str());
    match story.outcome {
        Outcome::Off => "session_affinity is off".to_owned(),
        Outcome::Keyed => "bound by the app's own session id".to_owned(),
        Outcome::Keyless => "it brings no session id of the app".to_owned(),
        Outcome::New => "it brings no token".to_owned(),
        Outcome::Kept if said.is_none() => "bound by its engine.io session id".to_owned(),
        Outcome::Kept => format!("bound to {named} by its token"),
        Outcome::Rejected(reason) => {
            format!("its token is rejected ({reason}), so it counts as new")
        }
        Outcome::Rehomed(reason) => {
            format!("bound to {named}, which can't serve it ({})", reason.label())
        }
        Outcome::Refused(reason) => {
            format!("bound to {named}, which can't serve it ({})", reason.label())
        }
    }
}

fn nowhere(came: &str, outcome: Outcome, reason: Reason) -> String {
    match outcome {
        Outcome::Refused(_) => {
            format!("{came}; answered with 503: affinity.strict keeps it from moving")
        }
        _ => format!("{came}; answered with 503 {}: no instance may take it", reason.label()),
    }
}

/// How the instance is found that it is bound to from now on.
fn turn(service: &Service, story: &Story<'_>, chosen: &str) -> String {
    let version = service.version();
    let by = version.affinity.as_ref().and_then(|affinity| affinity.by.as_ref());
    if let (Some(by), true) = (by, story.has_key) {
        return format!("its {} leads to {chosen} on the ring", part(by));
    }
    match &version.balance {
        Balance::Hash(key) if story.has_key => {
            format!("its {} leads to {chosen} on the ring (balance: hash)", part(key))
        }
        Balance::Hash(key) => format!("it has no {}, so {chosen} has the turn", part(key)),
        Balance::Even => format!("{chosen} has the turn (balance: even)"),
        Balance::Random => format!("{chosen} was drawn; another draw may differ (balance: random)"),
        Balance::LeastRequests => {
            format!("{chosen} is the less busy of two drawn (balance: least_requests)")
        }
        Balance::LeastSessions => {
            format!("{chosen} has fewer sessions than another drawn (balance: least_sessions)")
        }
    }
}

fn part(key: &HashKey) -> String {
    match key {
        HashKey::ClientIp => "client address".to_owned(),
        HashKey::Path => "path".to_owned(),
        HashKey::Uri => "URI".to_owned(),
        HashKey::Header(name) => format!("field {name}"),
        HashKey::Cookie(name) => format!("cookie {name}"),
        HashKey::Query(name) => format!("query parameter {name}"),
    }
}
