//! The doctor's rounds: takes the counts of every version, and tells of what is found, once.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use super::{Finding, Symptoms, diagnose};
use crate::affinity::Rejection;
use crate::instance::{Instance, lane};
use crate::snapshot::{Live, Service, Snapshot};

/// Between two rounds.
const INTERVAL: Duration = Duration::from_secs(5);

/// Makes rounds for as long as the process runs.
pub async fn run(live: Arc<Live>) {
    loop {
        tokio::time::sleep(INTERVAL).await;
        for Finding { code, message, cure, .. } in round(&live) {
            tracing::warn!(code, cure, "{message}");
        }
    }
}

/// One round; gives what was not known.
pub fn round(live: &Live) -> Vec<Finding> {
    let snapshot = live.snapshot();
    let found = snapshot.services().iter().flat_map(|service| look(&snapshot, service)).collect();
    live.findings.take(found, SystemTime::now())
}

fn look(snapshot: &Snapshot, service: &Service) -> Vec<Finding> {
    let (version, roster) = (service.version(), &service.roster);
    let config = &snapshot.config;
    let is_tls = config.listeners.iter().any(|listener| listener.tls.is_some());
    let tally = &roster.tally;
    let members = roster.members();
    let present = members.present();
    let answers: Vec<u64> = present.iter().map(|instance| answered(instance)).collect();
    let busiest = answers.iter().copied().max().unwrap_or(0);
    let all: u64 = answers.iter().sum();
    let name = format!("{}/{}", roster.service(), roster.version());
    diagnose(&Symptoms {
        version: &name,
        affinity: version.affinity.as_ref(),
        balance: &version.balance,
        https: is_tls || !config.trusted_proxies.is_empty(),
        begun: tally.new.load(Ordering::Relaxed),
        kept: roster.kept(),
        unknown_key: tally.rejected[Rejection::UnknownKey as usize].load(Ordering::Relaxed),
        sid_unknown: tally.sid_unknown.load(Ordering::Relaxed),
        busiest,
        others: all - busiest,
        ready: present.iter().filter(|it| it.eligibility().new_sessions).count(),
    })
}

fn answered(instance: &Instance) -> u64 {
    let of_lane =
        |lane: &lane::Lane| (0..lane::CLASSES).map(|class| lane.answers(class)).sum::<u64>();
    instance.lanes().iter().map(of_lane).sum()
}
