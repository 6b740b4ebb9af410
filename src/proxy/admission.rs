//! Whether a request is let in, and its place at an instance: taken at once where there is one, else
//! waited for.

use std::sync::Arc;
use std::time::Instant;

use http::request;

use crate::config::types::{ClientLimits, HashKey, RateLimit, Version};
use crate::instance::queue::{Full, Want};
use crate::instance::rate::Quota;
use crate::instance::roster::count;
use crate::instance::{InFlight, Instance, Kind, Roster};
use crate::proxy::error::Reason;
use crate::proxy::exchange::Exchange;
use crate::proxy::key;
use crate::proxy::session::Session;
use crate::snapshot::Snapshot;

/// Between a choice that found all places taken and the question whether they are, one may be vacated:
/// then there is somebody after all.
const LOOKS: usize = 3;

/// What a place is looked for with.
#[derive(Debug, Clone, Copy)]
pub struct Search<'a> {
    /// Where.
    pub roster: &'a Roster,
    /// What bounds it: how long it may last, behind how many others.
    pub version: &'a Version,
    /// The worker that will count it.
    pub worker: usize,
    /// When the request came.
    pub came: Instant,
}

/// What was found at once.
#[derive(Debug)]
pub enum Found {
    /// A place.
    Place(InFlight),
    /// All that may serve the request are full.
    Full,
    /// None may serve it, for this reason.
    Nobody(Reason),
}

impl Found {
    /// Whether the breaker of the instance that was found lets the request through; `None` if none
    /// was found. One that is only full is waited for.
    pub fn admits(&self) -> Option<bool> {
        match self {
            Self::Place(place) => Some(place.instance().admits()),
            Self::Full => Some(true),
            Self::Nobody(_) => None,
        }
    }
}

/// Looks for a place at an instance that is none of `tried`. Where there is none, that is for the
/// reason `otherwise`, unless it is the session's fault.
pub fn look(
    session: &Session<'_>,
    search: Search<'_>,
    tried: &[Arc<Instance>],
    otherwise: Reason,
) -> Found {
    let Search { roster, came, .. } = search;
    let kind = session.kind();
    for _ in 0..LOOKS {
        match session.choose(tried, came, otherwise) {
            Ok(instance) => return take(&instance, search, kind).map_or(Found::Full, Found::Place),
            Err(reason) if reason != otherwise => return Found::Nobody(reason),
            Err(_) if roster.is_full(kind, tried) => return Found::Full,
            Err(_) => {}
        }
    }
    Found::Nobody(otherwise)
}

/// Takes a place at this instance, if it has one.
pub fn take(instance: &Arc<Instance>, search: Search<'_>, kind: Kind) -> Option<InFlight> {
    let place = InFlight::begin(instance, search.worker, kind);
    if place.is_none() {
        // For a moment this one counted too, and may have kept another from a vacated place.
        search.roster.serve(instance, kind);
    }
    place
}

/// Waits until there is a place.
pub async fn wait(
    session: &mut Session<'_>,
    search: Search<'_>,
    tried: &[Arc<Instance>],
) -> Result<InFlight, Reason> {
    let Search { roster, version, worker, .. } = search;
    let queue = &version.queue;
    count(&roster.tally.queued);
    let deadline = tokio::time::Instant::now() + queue.timeout;
    loop {
        let want = Want {
            kind: session.kind(),
            bound: session.bound().cloned(),
            tried: tried.to_vec(),
            worker,
        };
        let mut ticket = roster.wait(want, queue.max).map_err(|Full| Reason::QueueFull)?;
        match tokio::time::timeout_at(deadline, ticket.called()).await {
            Ok(Some(place)) => return Ok(place),
            Ok(None) => session.look_again(),
            Err(_late) => return Err(Reason::QueueTimeout),
        }
        match look(session, search, tried, Reason::NoInstance) {
            Found::Place(place) => return Ok(place),
            Found::Full => {}
            Found::Nobody(reason) => return Err(reason),
        }
    }
}

/// Holds a request's head to what the parsers don't: targets of any length, and fields of HTTP/2.
pub fn bound(head: &request::Parts, limits: &ClientLimits) -> Result<(), Reason> {
    let length = head.uri.path_and_query().map_or(0, |target| target.as_str().len());
    if length > limits.uri {
        return Err(Reason::UriTooLong);
    }
    if head.headers.len() > limits.fields {
        return Err(Reason::HeadTooLarge);
    }
    Ok(())
}

/// Refuses a client that asks too often. One that hides what it is known by is known by its address.
pub fn restrain(
    exchange: &mut Exchange,
    snapshot: &Snapshot,
    head: &request::Parts,
    roster: &Roster,
    limit: &RateLimit,
) -> Result<(), Reason> {
    let value = match limit.by {
        HashKey::ClientIp => None,
        _ => key::of(&limit.by, exchange.address(), head),
    };
    let address = || exchange.address().parse().ok();
    let client = || address().map(|it| snapshot.config.client_limits.client_of(it));
    let key = match value {
        Some(value) => roster.asked.key(value),
        None => roster.asked.key(client()),
    };
    let quota = Quota::new(limit.requests, limit.per, limit.burst);
    let now = exchange.started;
    let taken = roster.asked.update(key, now, |even| quota.take(even, now));
    taken.map_err(|wait| {
        // Whole seconds (RFC 9110 section 10.2.3), and not too few.
        let seconds = u32::try_from(wait.as_secs()).unwrap_or(u32::MAX);
        exchange.retry_after = seconds.saturating_add(1);
        Reason::RateLimited
    })
}
