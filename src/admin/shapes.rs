//! How live state looks in JSON: the shapes of `/api/v1`. Reads, and changes nothing.
//!
//! A field keeps its name and its meaning for as long as the path says `v1`; more may come.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Instant, SystemTime};

use serde::Serialize;

use crate::config::{overlay, types};
use crate::discovery::board::Standing;
use crate::health::breaker::Passage;
use crate::health::check::{Kind as Check, Outcome};
use crate::health::{Admin, Membership, Rehome};
use crate::instance::{self, Identity, Kind, Lane};
use crate::observe::trend::Rates;
use crate::snapshot::Service;

/// An instance with its four axes.
#[derive(Debug, Serialize)]
pub struct Instance {
    id: String,
    name: String,
    address: String,
    source: &'static str,
    weight: u32,
    effective_weight: f64,
    membership: &'static str,
    admin: &'static str,
    health: &'static str,
    breaker: &'static str,
    takes: Takes,
    drain: Option<Drain>,
    sessions: u64,
    requests: u64,
    tunnels: u64,
    rates: Rates,
    probes: Probes,
    restarts: u64,
}

#[derive(Debug, Serialize)]
struct Takes {
    new: bool,
    bound: bool,
    /// Why not, where it doesn't.
    reason: Option<&'static str>,
}

/// What is left of what is to go.
#[derive(Debug, Serialize)]
struct Drain {
    cause: &'static str,
    /// Nothing as long as no instance has taken over from one that was removed.
    deadline_seconds: Option<f64>,
    /// When tunnels begin to be closed.
    closing_seconds: Option<f64>,
    sessions: u64,
    tunnels: u64,
    requests: u64,
    done: bool,
}

#[derive(Debug, Serialize)]
struct Probes {
    readiness: Option<Probe>,
    liveness: Option<Probe>,
}

/// The last probe of a check.
#[derive(Debug, Serialize)]
pub struct Probe {
    at: String,
    ok: bool,
    detail: String,
}

impl Instance {
    pub(super) fn of(instance: &instance::Instance, now: Instant) -> Self {
        let identity = instance.identity();
        let sum = |of: fn(&Lane) -> u64| instance.lanes().iter().map(of).sum::<u64>();
        let (requests, tunnels) = (sum(Lane::requests), sum(Lane::tunnels));
        let sessions = instance.session_count(now);
        let membership = instance.membership();
        Self {
            id: id(identity),
            name: identity.name.clone(),
            address: instance.address().to_owned(),
            source: instance.namer().label(),
            weight: instance.weight(),
            effective_weight: f64::from(instance.effective_weight()) / 100.0,
            membership: match membership {
                Membership::Present => "present",
                Membership::Removed | Membership::Gone => "removed",
            },
            admin: admin(instance.admin()),
            health: instance.health().label(),
            breaker: breaker(instance.passage()),
            takes: Takes::of(instance),
            drain: Drain::of(instance, (sessions, tunnels, requests), now),
            sessions,
            requests,
            tunnels,
            rates: instance.rates(now),
            probes: Probes {
                readiness: Probe::of(instance, Check::Readiness),
                liveness: Probe::of(instance, Check::Liveness),
            },
            restarts: instance.restarts(),
        }
    }
}

impl Probe {
    fn of(instance: &instance::Instance, check: Check) -> Option<Self> {
        let probe = instance.probes.last(check)?;
        let (at, detail) = (instant(probe.at), probe.detail());
        Some(Self { at, ok: probe.outcome == Outcome::Pass, detail })
    }
}

/// What is wanted of an instance. Its drain says whether it is over.
pub(super) const fn admin(admin: Admin) -> &'static str {
    match admin {
        Admin::Active => "active",
        Admin::Draining | Admin::Drained => "draining",
        Admin::Disabled => "disabled",
    }
}

/// What its breaker does.
pub(super) const fn breaker(passage: Passage) -> &'static str {
    match passage {
        Passage::Passes => "closed",
        Passage::Trial => "half-open",
        Passage::Refuses => "open",
    }
}

impl Takes {
    fn of(instance: &instance::Instance) -> Self {
        let eligibility = instance.eligibility();
        let new = eligibility.new_sessions && instance.effective_weight() > 0 && instance.admits();
        let reason = match eligibility.bound {
            Err(reason) => Some(reason.label()),
            Ok(()) if instance.membership() != Membership::Present => Some("removed"),
            Ok(()) if instance.admin() != Admin::Active => Some("draining"),
            Ok(()) if instance.effective_weight() == 0 => Some("weight"),
            Ok(()) if !instance.admits() => Some(Rehome::BreakerOpen.label()),
            Ok(()) if instance.is_full(Kind::Request) => Some("full"),
            Ok(()) => None,
        };
        Self { new: new && reason.is_none(), bound: eligibility.bound.is_ok(), reason }
    }
}

impl Drain {
    fn of(
        instance: &instance::Instance,
        (sessions, tunnels, requests): (u64, u64, u64),
        now: Instant,
    ) -> Option<Self> {
        let cause = match (instance.membership(), instance.admin()) {
            (Membership::Removed | Membership::Gone, _) => "removed",
            (Membership::Present, Admin::Draining | Admin::Drained) => "draining",
            (Membership::Present, Admin::Disabled) => "disabled",
            (Membership::Present, Admin::Active) => return None,
        };
        let ends = match cause {
            "disabled" => instance.departure(),
            _ => instance.drain_departure(),
        };
        // After its deadline nobody is bound to it, whoever asked there lately.
        let serves = instance.eligibility().bound.is_ok();
        let sessions = if serves { sessions } else { 0 };
        let left = |at: Instant| at.saturating_duration_since(now).as_secs_f64();
        Some(Self {
            cause,
            deadline_seconds: ends.map(|ends| left(ends.until)),
            closing_seconds: ends.map(|ends| left(ends.from)),
            sessions,
            tunnels,
            requests,
            done: sessions == 0 && tunnels == 0 && requests == 0,
        })
    }
}

/// How requests are shared among versions.
#[derive(Debug, Serialize)]
pub struct TrafficSplit {
    shard_by: &'static str,
    sessions_at_zero: &'static str,
    pub(super) allocations: BTreeMap<String, f64>,
}

impl TrafficSplit {
    pub(super) fn of(split: &types::Split) -> Self {
        let plain = |weight: &u32| f64::from(*weight) / f64::from(types::SHARE_UNIT);
        let allocations = split.allocations.iter();
        Self {
            shard_by: split.shard_by.word(),
            sessions_at_zero: split.at_zero.word(),
            allocations: allocations.map(|(name, weight)| (name.clone(), plain(weight))).collect(),
        }
    }
}

/// A version with its instances.
#[derive(Debug, Serialize)]
pub struct Version {
    name: String,
    /// Of the requests that are bound to none, from 0 to 1.
    share: f64,
    session_affinity: bool,
    balance: &'static str,
    panic: bool,
    queue: usize,
    rates: Rates,
    affinity: Affinity,
    pub(super) rehomes: BTreeMap<&'static str, u64>,
    checks: Checks,
    /// Nothing where the file alone names its instances.
    discovery: Option<Discovery>,
    #[serde(skip_serializing_if = "Option::is_none")]
    instances: Option<Vec<Instance>>,
}

/// What the source of a version's instances says.
#[derive(Debug, Serialize)]
struct Discovery {
    source: &'static str,
    instances: usize,
    /// Nothing before it has said something that was believed.
    heard: Option<String>,
    problem: Option<String>,
    /// Named in a way that makes no sense.
    ignored: usize,
}

impl From<Standing> for Discovery {
    fn from(standing: Standing) -> Self {
        let Standing { source, instances, heard, problem, ignored, .. } = standing;
        Self { source, instances, heard: heard.map(instant), problem, ignored }
    }
}

#[derive(Debug, Serialize)]
struct Affinity {
    kept: u64,
    assigned: u64,
    rehomed: u64,
    rejected: u64,
}

#[derive(Debug, Serialize)]
struct Checks {
    readiness: bool,
    liveness: bool,
}

impl Version {
    pub(super) fn of(
        service: &Service,
        discovery: Option<Standing>,
        (with_instances, now): (bool, Instant),
    ) -> Self {
        use crate::config::types::Balance;
        let (config, roster) = (service.version(), &service.roster);
        let tally = &roster.tally;
        let members = roster.members();
        let labels = Rehome::ALL.iter().map(|reason| reason.label());
        let counts = tally.rehomed.iter().map(|count| count.load(Ordering::Relaxed));
        let rehomes: BTreeMap<_, _> = labels.zip(counts).collect();
        Self {
            name: config.name.clone(),
            share: service.share(),
            session_affinity: config.affinity.is_some(),
            balance: match config.balance {
                Balance::Even => "even",
                Balance::LeastRequests => "least_requests",
                Balance::LeastSessions => "least_sessions",
                Balance::Random => "random",
                Balance::Hash(_) => "hash",
            },
            panic: roster.is_in_panic(),
            queue: roster.queue.len(),
            rates: roster.rates(now),
            affinity: Affinity {
                kept: roster.kept(),
                assigned: tally.new.load(Ordering::Relaxed),
                rehomed: rehomes.values().sum(),
                rejected: tally.unhonoured.load(Ordering::Relaxed),
            },
            rehomes,
            checks: Checks {
                readiness: config.readiness_check.is_some(),
                liveness: config.liveness_check.is_some(),
            },
            discovery: discovery.map(Discovery::from),
            instances: with_instances.then(|| {
                let all = members.everyone().iter();
                all.map(|instance| Instance::of(instance, now)).collect()
            }),
        }
    }
}

/// Something that differs from the file.
#[derive(Debug, Serialize)]
pub struct Difference {
    id: String,
    what: &'static str,
    file: Option<String>,
    now: String,
    since: String,
    by: &'static str,
}

impl From<overlay::Difference> for Difference {
    fn from(it: overlay::Difference) -> Self {
        let since = SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(it.since);
        let since = instant(since);
        Self { id: it.id, what: it.what, file: it.file, now: it.now, since, by: "api" }
    }
}

/// `SERVICE/VERSION/NAME`.
pub fn id(identity: &Identity) -> String {
    format!("{}/{}/{}", identity.service, identity.version, identity.name)
}

/// RFC 3339, with milliseconds.
pub fn instant(at: SystemTime) -> String {
    humantime::format_rfc3339_millis(at).to_string()
}
