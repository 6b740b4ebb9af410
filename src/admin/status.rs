//! `GET /api/v1/status`: everything at one look.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Instant, SystemTime};

use http::StatusCode;
use serde::Serialize;
use serde_json::Value;

use crate::admin::desk::Desk;
use crate::admin::drill;
use crate::admin::fleet;
use crate::admin::problem::Problem;
use crate::admin::ramp;
use crate::admin::reply::{self, Reply};
use crate::admin::router::Question;
use crate::admin::shapes::{Difference, TrafficSplit, Version, instant};
use crate::config::found::Whose;
use crate::config::types::{Acceptance, Config};
use crate::listener::descriptors;
use crate::observe::counters::LastReload;
use crate::observe::trend::Rates;
use crate::snapshot::{Live, Phase, Snapshot};

#[derive(Serialize)]
struct Status {
    burdock: Burdock,
    config: Configuration,
    connections: Connections,
    descriptors: Descriptors,
    totals: Rates,
    listeners: Vec<Listener>,
    services: Vec<Service>,
    /// How this balancer stands in its fleet.
    fleet: Option<Fleet>,
    /// The drill that runs.
    drill: Option<Value>,
    differences: Vec<Difference>,
    warnings: Vec<Warning>,
}

#[derive(Serialize)]
struct Burdock {
    version: &'static str,
    pid: u32,
    started: String,
    uptime_seconds: f64,
    workers: usize,
    phase: &'static str,
}

#[derive(Serialize)]
struct Configuration {
    generation: u64,
    file: Option<String>,
    last_reload: Reloaded,
}

#[derive(Serialize)]
struct Reloaded {
    ok: bool,
    at: String,
    problems: Vec<String>,
}

#[derive(Serialize)]
struct Connections {
    open: u64,
    total: u64,
}

#[derive(Serialize)]
struct Fleet {
    name: String,
    connected: bool,
}

#[derive(Serialize)]
struct Descriptors {
    /// Nothing where there is no limit.
    max: Option<u64>,
    short: bool,
}

#[derive(Serialize)]
struct Listener {
    /// Where it is bound.
    address: String,
    /// As the configuration says, maybe with port 0.
    configured: String,
    tls: bool,
    http2: bool,
    proxy_protocol: &'static str,
}

#[derive(Serialize)]
struct Service {
    name: String,
    hosts: Vec<String>,
    paths: Vec<String>,
    /// Nothing where there is one version and no word of it.
    traffic_split: Option<TrafficSplit>,
    /// Under way, or the last one.
    ramp: Option<ramp::Shown>,
    versions: Vec<Version>,
}

#[derive(Serialize)]
struct Warning {
    code: &'static str,
    message: String,
    cure: Option<String>,
    since: String,
    count: u64,
}

pub(super) async fn answer(desk: &Arc<Desk>, question: &Question) -> Result<Reply, Problem> {
    let wanted = question.query.all("services").flat_map(|names| names.split(','));
    let wanted: Vec<String> = wanted.map(str::to_owned).collect();
    let with_instances = match question.query.one("instances")? {
        None | Some("true") => true,
        Some("false") => false,
        Some(_) => return Err(Problem::wrong("instances: allowed: true, false")),
    };
    let snapshot = desk.live.snapshot();
    if let Some(name) = wanted.iter().find(|name| !has(&snapshot, name)) {
        return Err(Problem::unknown(format!("no service {name}; there are {}", named(&snapshot))));
    }
    let desk = Arc::clone(desk);
    let tell = move || {
        let status = status(&desk, &snapshot, &wanted, with_instances);
        reply::json(StatusCode::OK, &status)
    };
    reply::aside("reading the state", tell).await
}

fn status(desk: &Desk, snapshot: &Snapshot, wanted: &[String], with_instances: bool) -> Status {
    let (live, now, last) = (&desk.live, Instant::now(), desk.live.counters.last_reload());
    let mut services = Vec::new();
    for (branch, config) in snapshot.branches().zip(&snapshot.config.services) {
        if wanted.is_empty() || wanted.contains(&config.name) {
            let look = (with_instances, now);
            let version = |it: &crate::snapshot::Service| {
                let source = live.sources.of(&Whose::of(&config.name, &it.version().name));
                Version::of(it, source, look)
            };
            services.push(Service {
                name: config.name.clone(),
                hosts: or_any(&config.hosts),
                paths: config.paths.clone(),
                traffic_split: config.split.as_ref().map(TrafficSplit::of),
                ramp: ramp::of(desk, snapshot, &config.name),
                versions: branch.versions().iter().map(version).collect(),
            });
        }
    }
    Status {
        burdock: burdock(desk),
        config: Configuration {
            generation: snapshot.generation,
            file: desk.file.as_ref().map(|file| file.display().to_string()),
            last_reload: Reloaded {
                ok: last.problems.is_empty(),
                at: instant(last.at),
                problems: last.problems.clone(),
            },
        },
        connections: Connections {
            open: live.counters.connections(),
            total: live.counters.accepted.load(Ordering::Relaxed),
        },
        descriptors: Descriptors { max: descriptors::most(), short: live.counters.are_short() },
        totals: totals(live),
        listeners: listeners(live, &snapshot.config),
        services,
        fleet: live.fleet.standing().map(|it| Fleet { name: it.name, connected: it.connected }),
        drill: live.rehearsals.look(|running, _| running.map(drill::running)),
        differences: differences(snapshot),
        warnings: warnings(desk, &last),
    }
}

/// Lately, and as it is now: the sampler may not have come by yet.
fn totals(live: &Live) -> Rates {
    let rates = live.telemetry.totals().rates;
    let (mut requests, mut failures) = (0, 0);
    for (_, sums) in live.listeners() {
        requests += sums.requests();
        failures += sums.errors;
    }
    Rates {
        requests_total: requests.max(rates.requests_total),
        failures_total: failures.max(rates.failures_total),
        ..rates
    }
}

/// What differs from the file.
pub(super) fn differences(snapshot: &Snapshot) -> Vec<Difference> {
    snapshot.overlay.differences(&snapshot.named).into_iter().map(Difference::from).collect()
}

fn burdock(desk: &Desk) -> Burdock {
    let uptime = SystemTime::now().duration_since(desk.started).unwrap_or_default();
    Burdock {
        version: env!("CARGO_PKG_VERSION"),
        pid: std::process::id(),
        started: instant(desk.started),
        uptime_seconds: uptime.as_secs_f64(),
        workers: desk.live.workers,
        phase: phase(&desk.live),
    }
}

fn phase(live: &Live) -> &'static str {
    match *live.phase().borrow() {
        Phase::Serving => "serving",
        Phase::Draining { .. } => "draining",
    }
}

fn listeners(live: &Live, config: &Config) -> Vec<Listener> {
    let mut bound = live.bound();
    // Of several with port 0 each has another one.
    let mut bound_at = |asked: SocketAddr| {
        let found = bound.iter().position(|it| it.asked == asked || it.address == asked);
        found.map_or(asked, |place| bound.remove(place).address)
    };
    let row = |it: &crate::config::types::Listener| Listener {
        address: bound_at(it.address).to_string(),
        configured: it.address.to_string(),
        tls: it.tls.is_some(),
        http2: it.http2,
        proxy_protocol: match it.proxy_protocol {
            Acceptance::Off => "off",
            Acceptance::Accept => "accept",
            Acceptance::Require => "require",
        },
    };
    config.listeners.iter().map(row).collect()
}

fn warnings(desk: &Desk, last: &LastReload) -> Vec<Warning> {
    let of_file = last.warnings.iter().map(|message| Warning {
        code: "config",
        message: message.clone(),
        cure: None,
        since: instant(last.taken),
        count: 1,
    });
    let unkept = desk.unkept().map(|(problem, since)| Warning {
        code: "state_not_kept",
        message: format!("a restart would forget what was changed at run time: {problem}"),
        cure: Some("admin: { state_file: PATH }".to_owned()),
        since: instant(since),
        count: 1,
    });
    let found = desk.live.findings.all().into_iter().map(|(finding, since)| Warning {
        code: finding.code,
        message: finding.message,
        cure: Some(finding.cure),
        since: instant(since),
        count: finding.count,
    });
    let standing = desk.live.fleet.standing();
    let of_fleet = standing.iter().flat_map(|standing| {
        let since = instant(standing.since.unwrap_or(desk.started));
        let told = fleet::warnings(standing, &desk.live.fleet.nodes()).into_iter();
        told.map(move |message| Warning {
            code: "fleet",
            message,
            cure: None,
            since: since.clone(),
            count: 1,
        })
    });
    of_file.chain(unkept).chain(of_fleet).chain(found).collect()
}

fn or_any(hosts: &[String]) -> Vec<String> {
    if hosts.is_empty() { vec!["*".to_owned()] } else { hosts.to_vec() }
}

fn has(snapshot: &Snapshot, name: &str) -> bool {
    snapshot.services().iter().any(|service| service.roster.service() == name)
}

fn named(snapshot: &Snapshot) -> String {
    let names = snapshot.services().iter().map(|service| service.roster.service());
    names.take(10).collect::<Vec<_>>().join(", ")
}
