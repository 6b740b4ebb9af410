//! From evidence to a [`Report`]: sums for each second, names made short, times in seconds.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use super::real;
use super::{
    Error, Event, FORMAT, Fault, Instance, Judged, Latency, Moves, Report, Second, Tunnels,
};
use crate::drill::Played;
use crate::drill::diary::{Done, Impaired};
use crate::drill::record::Sample;
use crate::drill::scenario::{Action, Limit, Measure, Step};
use crate::drill::verdict::{self, Evidence, Finding};

/// What is known of a drill beside its evidence.
#[derive(Debug)]
pub(in crate::drill) struct Rehearsed<'a> {
    pub(in crate::drill) began: SystemTime,
    pub(in crate::drill) target: String,
    pub(in crate::drill) done: &'a [Done],
    pub(in crate::drill) ended: Played,
    /// How long it really was.
    pub(in crate::drill) lasted: Duration,
}

/// The report of a drill that is over.
pub(in crate::drill) fn build(evidence: &Evidence<'_>, rehearsed: &Rehearsed<'_>) -> Report {
    let (scenario, notes) = (evidence.scenario, evidence.notes);
    let findings = evidence.judge();
    let errors = evidence.troubles().into_iter().map(|((kind, trouble), count)| Error {
        clients: kind.plural().to_owned(),
        what: trouble.to_string(),
        count,
    });
    let errors: Vec<_> = errors.collect();
    let seconds = seconds(evidence, rehearsed.lasted);
    let is_whole = rehearsed.ended == Played::Whole;
    let report = Report {
        format: FORMAT,
        name: scenario.name.clone(),
        about: scenario.about.clone(),
        burdock: env!("CARGO_PKG_VERSION").to_owned(),
        began: humantime::format_rfc3339_seconds(rehearsed.began).to_string(),
        target: rehearsed.target.clone(),
        seed: scenario.seed,
        duration_seconds: rehearsed.lasted.as_secs_f64(),
        passed: is_whole && findings.iter().all(|finding| finding.is_met),
        interrupted: rehearsed.ended == Played::Interrupted,
        aborted: match &rehearsed.ended {
            Played::Lost(reason) => Some(reason.clone()),
            Played::Whole | Played::Interrupted => None,
        },
        limits: findings.iter().map(|finding| judged(&scenario.steps, finding)).collect(),
        requests: notes.samples.len() as u64,
        error_count: errors.iter().map(|error| error.count).sum(),
        errors,
        moves: Moves {
            total: notes.moves.len() as u64,
            needless: notes.moves.iter().filter(|it| evidence.is_needless(it)).count() as u64,
            sessions: {
                let mut clients: Vec<_> = notes.bound.iter().map(|(_, client, _)| client).collect();
                clients.sort_unstable();
                clients.dedup();
                clients.len() as u64
            },
        },
        latency: latencies(&notes.samples),
        faults: faults(evidence),
        events: events(evidence, rehearsed.done),
        instances: instances(evidence, seconds.len()),
        seconds,
        tunnels: tunnels(evidence),
        rehomes: BTreeMap::new(),
    };
    match evidence.watched {
        Some(watched) => real::put(report, evidence, watched),
        None => report,
    }
}

fn judged(steps: &[Step], finding: &Finding) -> Judged {
    let of = finding.step.map_or("whole drill".to_owned(), |index| {
        let step = &steps[index];
        format!("{} from {:.1} s", told(&step.action), step.at.as_secs_f64())
    });
    let measured = finding.measured.map_or("nothing".to_owned(), |value| value.to_string());
    let measure = match finding.limit.measure {
        Measure::Closed(code) => format!("closed with {code}"),
        other => other.key().to_owned(),
    };
    Judged { of, measure, allowed: allowed(&finding.limit), measured, met: finding.is_met }
}

fn allowed(limit: &Limit) -> String {
    match (limit.least, limit.most) {
        (Some(least), Some(most)) => format!("{least} to {most}"),
        (Some(least), None) => format!("at least {least}"),
        (None, Some(most)) => format!("at most {most}"),
        (None, None) => String::new(),
    }
}

/// What a step does, in a word.
fn told(action: &Action) -> String {
    match action {
        Action::Fault(_, fault) => fault.word().to_owned(),
        Action::Restore(_) => "restore".to_owned(),
        Action::Admin(_, state) => state.word().to_owned(),
        Action::Reload(_) => "reload".to_owned(),
        Action::Balancer(upset) => format!("{} of the balancer", upset.word()),
        Action::Exec { .. } => "exec".to_owned(),
        Action::Strike(_, strike) => strike.kind.to_owned(),
        Action::Watch => "watching".to_owned(),
    }
}

pub(super) fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 10_000.0).round() / 10.0
}

fn seconds_of(time: Duration) -> f64 {
    (time.as_secs_f64() * 1000.0).round() / 1000.0
}

fn latencies(samples: &[Sample]) -> BTreeMap<String, Latency> {
    let mut by_kind: BTreeMap<&str, Vec<Duration>> = BTreeMap::new();
    for sample in samples.iter().filter(|sample| sample.trouble.is_none()) {
        by_kind.entry(sample.kind.plural()).or_default().push(verdict::latency(sample));
    }
    let summed = |(kind, times): (&str, Vec<Duration>)| {
        let at = |percent| {
            verdict::percentile(times.iter().copied(), percent).map(millis).unwrap_or_default()
        };
        let (p50, p90, p99, max) = (at(50), at(90), at(99), at(100));
        (kind.to_owned(), Latency { count: times.len() as u64, p50, p90, p99, max })
    };
    by_kind.into_iter().map(summed).collect()
}

/// The name without what all have in common.
pub(super) fn short(evidence: &Evidence<'_>, name: &str) -> String {
    let prefix = |name: &str| name.rsplit_once('/').map(|(prefix, _)| prefix.to_owned());
    let mut prefixes: Vec<_> = evidence.weights.keys().map(|name| prefix(name)).collect();
    prefixes.dedup();
    let last = name.rsplit('/').next().unwrap_or(name);
    if prefixes.len() <= 1 { last.to_owned() } else { name.to_owned() }
}

fn faults(evidence: &Evidence<'_>) -> Vec<Fault> {
    let fault = |it: &Impaired| Fault {
        instance: it.instance.as_ref().map_or("balancer".to_owned(), |id| short(evidence, id)),
        what: it.what.clone(),
        from: seconds_of(it.from),
        until: it.until.map(seconds_of),
    };
    evidence.impaired.iter().map(fault).collect()
}

fn events(evidence: &Evidence<'_>, done: &[Done]) -> Vec<Event> {
    let acts = done.iter().map(|done| Event {
        at: seconds_of(done.at),
        planned: Some(seconds_of(done.planned)),
        by: "drill".to_owned(),
        what: done.what.clone(),
    });
    let states = evidence.seen.iter().map(|seen| Event {
        at: seconds_of(seen.at),
        planned: None,
        by: "balancer".to_owned(),
        what: format!("{} is {}", short(evidence, &seen.instance), seen.state),
    });
    let mut events: Vec<_> = acts.chain(states).collect();
    events.sort_by(|a, b| a.at.total_cmp(&b.at));
    events
}

fn place(at: Duration, last: usize) -> usize {
    usize::try_from(at.as_secs()).unwrap_or(usize::MAX).min(last)
}

fn seconds(evidence: &Evidence<'_>, lasted: Duration) -> Vec<Second> {
    // The little that a drill takes longer than its duration is no second of its own.
    let count = usize::try_from(lasted.as_secs_f64().round() as u64).unwrap_or(1).max(1);
    let mut seconds = vec![Second::default(); count];
    let mut times: Vec<Vec<Duration>> = vec![Vec::new(); count];
    for sample in &evidence.notes.samples {
        let place = place(sample.at, count - 1);
        if evidence.is_error(sample) {
            seconds[place].errors += 1;
        } else if sample.trouble.is_none() {
            seconds[place].answers += 1;
            times[place].push(verdict::latency(sample));
        }
    }
    for it in &evidence.notes.moves {
        seconds[place(it.at, count - 1)].moves += 1;
    }
    for (second, times) in seconds.iter_mut().zip(times) {
        second.p50 = verdict::percentile(times.iter().copied(), 50).map(millis);
        second.p99 = verdict::percentile(times.iter().copied(), 99).map(millis);
    }
    seconds
}

/// Who has how many sessions at the end of each second.
fn instances(evidence: &Evidence<'_>, seconds: usize) -> Vec<Instance> {
    let mut names: Vec<&str> = evidence.weights.keys().map(String::as_str).collect();
    for (_, _, name) in &evidence.notes.bound {
        if !names.contains(&&**name) {
            names.push(name);
        }
    }
    let mut rows: Vec<Vec<u64>> = vec![Vec::with_capacity(seconds); names.len()];
    let mut homes: BTreeMap<usize, &str> = BTreeMap::new();
    let mut bound = evidence.notes.bound.iter().peekable();
    for second in 1..=seconds {
        let end = Duration::from_secs(second as u64);
        while let Some((_, client, name)) = bound.next_if(|(at, ..)| *at < end) {
            homes.insert(*client, name);
        }
        for (row, name) in rows.iter_mut().zip(&names) {
            row.push(homes.values().filter(|home| *home == name).count() as u64);
        }
    }
    let row =
        |(name, sessions): (&str, Vec<u64>)| Instance { name: short(evidence, name), sessions };
    names.into_iter().zip(rows).map(row).collect()
}

fn tunnels(evidence: &Evidence<'_>) -> Tunnels {
    let mut ended: BTreeMap<String, u64> = BTreeMap::new();
    for end in &evidence.notes.ends {
        let code = end.code.map_or("none".to_owned(), |code| code.to_string());
        *ended.entry(code).or_default() += 1;
    }
    let opened = evidence.notes.opened.len() as u64;
    Tunnels { opened, ended, causes: BTreeMap::new() }
}
