//! What a running balancer counted of its clients, in a report: of sessions and tunnels always, of requests
//! where the drill drove none itself.

use std::collections::BTreeMap;

use super::build::{millis, short};
use super::{Error, Instance, Latency, Report, Second};
use crate::drill::record::Kind;
use crate::drill::verdict::{Evidence, Window};
use crate::drill::watched::{self, Counts, Watched};

/// The report with that.
pub(super) fn put(mut report: Report, evidence: &Evidence<'_>, watched: &[Watched]) -> Report {
    let whole = Window { from: std::time::Duration::ZERO, to: std::time::Duration::MAX };
    let counts = watched::within(watched, whole);
    report.moves.total = counts.moved();
    report.moves.needless = evidence.needless_of_real(watched, whole);
    report.moves.sessions = evidence.real_sessions(watched);
    report.tunnels.opened = counts.opened;
    report.tunnels.ended.clone_from(&counts.closes);
    report.tunnels.causes.clone_from(&counts.ended);
    report.rehomes.clone_from(&counts.rehomes);
    let drives = evidence.scenario.load.is_any();
    let by_second = by_second(watched, report.seconds.len());
    for (second, counts) in report.seconds.iter_mut().zip(&by_second) {
        second.moves = counts.moved();
        if !drives {
            *second = Second {
                answers: counts.requests.saturating_sub(counts.errors),
                errors: counts.errors,
                moves: counts.moved(),
                p50: counts.percentile(50).map(millis),
                p99: counts.percentile(99).map(millis),
            };
        }
    }
    report.instances = instances(evidence, watched, report.seconds.len());
    if !drives {
        requests(&mut report, &counts);
    }
    report
}

fn requests(report: &mut Report, counts: &Counts) {
    let clients = Kind::Real.plural().to_owned();
    report.requests = counts.requests;
    report.error_count = counts.errors;
    if counts.errors > 0 {
        let what = "failed by the balancer or an instance".to_owned();
        report.errors.push(Error { clients: clients.clone(), what, count: counts.errors });
    }
    let at = |percent| counts.percentile(percent).map(millis).unwrap_or_default();
    let (p50, p90, p99, max) = (at(50), at(90), at(99), at(100));
    if counts.requests > 0 {
        report.latency.insert(clients, Latency { count: counts.requests, p50, p90, p99, max });
    }
}

fn by_second(watched: &[Watched], seconds: usize) -> Vec<Counts> {
    let time = |second: usize| std::time::Duration::from_secs(second as u64);
    let end =
        |second| if second + 1 == seconds { std::time::Duration::MAX } else { time(second + 1) };
    let of = |second| watched::within(watched, Window { from: time(second), to: end(second) });
    (0..seconds).map(of).collect()
}

fn instances(evidence: &Evidence<'_>, watched: &[Watched], seconds: usize) -> Vec<Instance> {
    let mut rows: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for second in 1..=seconds {
        let end = std::time::Duration::from_secs(second as u64);
        let look = watched.iter().rfind(|look| look.at <= end).or(watched.first());
        for (name, sessions) in look.iter().flat_map(|look| &look.sessions) {
            let row = rows.entry(name).or_default();
            row.resize(second - 1, 0);
            row.push(*sessions);
        }
    }
    let row = |(name, mut sessions): (&str, Vec<u64>)| {
        sessions.resize(seconds, 0);
        Instance { name: short(evidence, name), sessions }
    };
    rows.into_iter().map(row).collect()
}
