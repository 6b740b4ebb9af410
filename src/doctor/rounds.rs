//! The doctor's rounds: takes the evidence of every version, and tells of what is found and of what is no
//! longer so, each once.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use super::evidence::{Voted, WINDOW};
use super::findings::News;
use super::{Finding, Symptoms, diagnose};
use crate::affinity::Rejection;
use crate::config::places::Places;
use crate::config::types::{Affinity, AffinityKeys, Balance};
use crate::observe::events::{Event, Whose};
use crate::snapshot::{Live, Service, Snapshot};

/// Between two rounds.
const INTERVAL: Duration = Duration::from_secs(2);
/// Between two counts that others are compared with.
const MARK: Duration = Duration::from_secs(30);
/// Requests that a vote takes.
const VOTERS: u64 = 200;
/// A client that came without its token in so many seconds is one that never brings it.
const AGAIN: u64 = 3;

/// Makes rounds for as long as the process runs.
pub async fn run(live: Arc<Live>) {
    let mut rounds = Rounds::default();
    loop {
        tokio::time::sleep(INTERVAL).await;
        let News { raised, cleared } = rounds.look(&live, Instant::now());
        for finding in raised {
            let Finding { code, message, cure, .. } = &finding;
            tracing::warn!(code, cure, "{message}");
            live.journal.note(event(finding, true));
        }
        for finding in cleared {
            let Finding { code, service, version, .. } = &finding;
            tracing::info!(code, service, version, "no longer so");
            live.journal.note(event(finding, false));
        }
    }
}

fn event(finding: Finding, raised: bool) -> Event {
    let Finding { code, service, version, message, cure, .. } = finding;
    let whose = Whose { service, version, instance: None };
    Event::Doctor { whose, code, raised, message, cure }
}

/// What was seen of every version.
#[derive(Debug, Default)]
pub struct Rounds(HashMap<(String, String), Ward>);

/// What a cure would change.
#[derive(Debug, Clone, PartialEq)]
struct Treatment {
    affinity: Option<Affinity>,
    balance: Balance,
    https: bool,
    trusted: usize,
    keys: AffinityKeys,
}

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    begun: u64,
    kept: u64,
    moved: u64,
    unknown_key: u64,
    misled: u64,
}

/// One version.
#[derive(Debug)]
struct Ward {
    treatment: Treatment,
    /// The second since which it has it.
    since: u64,
    /// What had been counted, the oldest first.
    marks: VecDeque<(Instant, Counts)>,
    voted: Option<Voted>,
    is_as_it_was: bool,
}

impl Rounds {
    /// One round; gives what has changed by it.
    pub fn look(&mut self, live: &Live, now: Instant) -> News {
        let (snapshot, places) = (live.snapshot(), live.findings.places());
        let name = |service: &Service| {
            (service.roster.service().to_owned(), service.roster.version().to_owned())
        };
        self.0.retain(|known, _| snapshot.roster(&known.0, &known.1).is_some());
        let mut found = Vec::new();
        for service in snapshot.services() {
            let treatment = treatment(&snapshot, service);
            let fresh = || Ward::new(treatment.clone(), service, now);
            let ward = self.0.entry(name(service)).or_insert_with(fresh);
            ward.is_as_it_was = ward.treatment == treatment;
            if !ward.is_as_it_was {
                *ward = Ward { is_as_it_was: false, ..Ward::new(treatment.clone(), service, now) };
            }
            found.extend(ward.look(service, &places, now));
        }
        let is_as_it_was = |finding: &Finding| {
            let ward = self.0.get(&(finding.service.clone(), finding.version.clone()));
            ward.is_some_and(|ward| ward.is_as_it_was)
        };
        live.findings.take(found, is_as_it_was, (now, SystemTime::now()))
    }
}

fn treatment(snapshot: &Snapshot, service: &Service) -> Treatment {
    let (config, version) = (&snapshot.config, service.version());
    let trusted = config.trusted_proxies.len();
    Treatment {
        affinity: version.affinity.clone(),
        balance: version.balance.clone(),
        https: trusted > 0 || config.listeners.iter().any(|listener| listener.tls.is_some()),
        trusted,
        keys: config.affinity_keys.clone(),
    }
}

impl Ward {
    fn new(treatment: Treatment, service: &Service, now: Instant) -> Self {
        let evidence = &service.roster.evidence;
        let since = evidence.second(now);
        // What voted before is not to be counted.
        evidence.addresses.begin(since);
        Self {
            treatment,
            since,
            marks: VecDeque::from([(now, count(service))]),
            voted: None,
            is_as_it_was: true,
        }
    }

    fn look(&mut self, service: &Service, places: &Places, now: Instant) -> Vec<Finding> {
        let (evidence, counts) = (&service.roster.evidence, count(service));
        let age = |at: Instant| now.saturating_duration_since(at);
        if self.marks.back().is_none_or(|(at, _)| age(*at) >= MARK) {
            self.marks.push_back((now, counts));
        }
        while self.marks.len() > 1 && self.marks.front().is_some_and(|(at, _)| age(*at) > WINDOW) {
            self.marks.pop_front();
        }
        let second = evidence.second(now);
        if let Some(voted) = evidence.addresses.close(VOTERS, second) {
            self.voted = Some(voted);
        }
        let before = self.marks.front().map_or(counts, |(_, counts)| *counts);
        let takes = |it: &&Arc<crate::instance::Instance>| it.eligibility().new_sessions;
        diagnose(
            &Symptoms {
                service: service.roster.service(),
                version: service.roster.version(),
                affinity: self.treatment.affinity.as_ref(),
                balance: &self.treatment.balance,
                https: self.treatment.https,
                trusts: self.treatment.trusted > 0,
                begun: counts.begun.saturating_sub(before.begun),
                kept: counts.kept.saturating_sub(before.kept),
                moved: counts.moved.saturating_sub(before.moved),
                forgetful: evidence.tokenless.count(AGAIN, self.since, second),
                unknown_key: counts.unknown_key.saturating_sub(before.unknown_key),
                strangers: evidence.strangers.count(1, self.since, second),
                misled: counts.misled.saturating_sub(before.misled),
                voted: self.voted.as_ref(),
                ready: service.roster.members().present().iter().filter(takes).count(),
            },
            places,
        )
    }
}

fn count(service: &Service) -> Counts {
    let roster = &service.roster;
    let tally = &roster.tally;
    let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
    Counts {
        begun: read(&tally.new),
        kept: roster.kept(),
        moved: tally.rehomed.iter().map(read).sum(),
        unknown_key: read(&tally.rejected[Rejection::UnknownKey as usize]),
        misled: read(&roster.evidence.misled),
    }
}
