//! Metrics of versions, whatever instance it happens at.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::admin::metrics::rows::{Labels, Rows, latency_bounds};
use crate::admin::ramp::{self, STAGES};
use crate::affinity::Rejection;
use crate::affinity::order::Fate;
use crate::config::overlay::WHOLE;
use crate::health::Rehome;
use crate::health::breaker::Trigger;
use crate::health::check::Kind;
use crate::instance::Roster;
use crate::instance::mirrored;
use crate::observe::counters::TunnelEnd;
use crate::observe::latency::Spread;
use crate::observe::red::{CLASSES, Sums};
use crate::observe::tunnels::{CODES, Closer, LIFETIMES};
use crate::route::ramp::Cause;
use crate::route::split::By;
use crate::snapshot::ramps::Watched;
use crate::snapshot::{Live, Snapshot};

/// A version, and what its workers have counted.
pub(super) struct Version<'a> {
    roster: &'a Roster,
    labels: Labels,
    sums: Sums,
    /// Where its service has several.
    share: Option<f64>,
    /// Of it, under way or the last one: its share and how it stands.
    ramp: Option<(f64, &'static str)>,
}

/// Reads every version.
pub(super) fn read<'a>(live: &Live, snapshot: &'a Snapshot) -> Vec<Version<'a>> {
    let mut versions = Vec::with_capacity(snapshot.services().len());
    for branch in snapshot.branches() {
        for service in branch.versions() {
            let roster = &*service.roster;
            let labels = [("service", roster.service()), ("version", roster.version())];
            versions.push(Version {
                roster,
                labels: Labels::of(&labels),
                sums: Sums::of(roster.reds()),
                share: branch.only().is_none().then(|| service.share()),
                ramp: ramp(live, snapshot, roster),
            });
        }
    }
    versions
}

fn ramp(live: &Live, snapshot: &Snapshot, roster: &Roster) -> Option<(f64, &'static str)> {
    let ramp = snapshot.overlay.ramp(roster.service())?;
    let held = |watched: &Watched| watched.watch.held().map(|reason| reason.cause);
    let held = live.ramps.peek(roster.service(), ramp, held).flatten();
    let share = f64::from(ramp.share()) / f64::from(WHOLE);
    (ramp.version == roster.version()).then(|| (share, ramp::stage(ramp.stage, held)))
}

/// Writes the rows of one version.
pub(super) fn write(rows: &mut Rows<'_>, version: &Version<'_>) {
    if write_shares(rows, version) {
        return;
    }
    let Version { roster, labels, sums, .. } = version;
    let (tally, none) = (&roster.tally, Labels::default());
    let value = match rows.name {
        "burdock_client_requests_total" => {
            return rows.counts(labels, &Labels::each("class", CLASSES), sums.answers);
        }
        "burdock_client_first_byte_seconds" => {
            return rows.spread(labels, &latency_bounds(), &sums.first_byte);
        }
        "burdock_client_request_duration_seconds" => {
            return rows.spread(labels, &latency_bounds(), &sums.duration);
        }
        "burdock_client_errors_total" => sums.errors,
        "burdock_attempts_total" => sums.attempts,
        "burdock_hedges_total" => read_one(&tally.hedges),
        "burdock_hedges_won_total" => read_one(&tally.hedges_won),
        "burdock_queue_length" => roster.queue.len() as u64,
        "burdock_queued_total" => read_one(&tally.queued),
        "burdock_panic" => u64::from(roster.is_in_panic()),
        "burdock_breaker_held_total" => read_one(&tally.held),
        "burdock_tunnels_opened_total" => read_one(&tally.tunnels),
        _ => return write_several(rows, roster, labels),
    };
    rows.count(labels, &none, value);
}

/// Those of versions that share a service; whether it is one.
fn write_shares(rows: &mut Rows<'_>, version: &Version<'_>) -> bool {
    let Version { roster, labels, share, ramp, .. } = version;
    let tally = &roster.tally;
    match (rows.name, share, ramp) {
        ("burdock_split_share", Some(share), _) => rows.number(labels, share),
        ("burdock_ramp_share", _, Some((share, _))) => rows.number(labels, share),
        ("burdock_ramp_stage", _, Some((_, stage))) => {
            let which = Labels::each("stage", STAGES);
            rows.counts(labels, &which, STAGES.map(|it| u64::from(it == *stage)));
        }
        ("burdock_ramp_roll_backs_total", Some(_), _) => {
            let causes = Labels::each("cause", Cause::BACK.map(Cause::label));
            rows.counts(labels, &causes, tally.rolled_back.iter().map(read_one));
        }
        ("burdock_mirrored_total", Some(_), _) => {
            let fates = mirrored::Fate::ALL;
            let outcomes = Labels::each("outcome", fates.map(mirrored::Fate::label));
            rows.counts(labels, &outcomes, fates.map(|fate| tally.copies.of(fate)));
        }
        ("burdock_mirror_in_flight", Some(_), _) => {
            rows.number(labels, tally.copies.under_way());
        }
        ("burdock_split_requests_total", Some(_), _) => {
            let by = Labels::each("by", By::ALL.map(By::label));
            rows.counts(labels, &by, tally.split.iter().map(read_one));
        }
        (name, ..) => {
            let own = ["burdock_split_", "burdock_ramp_", "burdock_mirror"];
            return own.iter().any(|prefix| name.starts_with(prefix));
        }
    }
    true
}

/// Those that have several rows for a version.
fn write_several(rows: &mut Rows<'_>, roster: &Roster, labels: &Labels) {
    let (tally, name) = (&roster.tally, rows.name);
    let mut by = |key: &str, values: &[&str], counters: &[AtomicU64]| {
        let which = Labels::each(key, values.iter().copied());
        rows.counts(labels, &which, counters.iter().map(read_one));
    };
    match name {
        "burdock_retries_total" => by("reason", &Rehome::ALL.map(Rehome::label), &tally.retried),
        "burdock_rehomes_total" => by("reason", &Rehome::ALL.map(Rehome::label), &tally.rehomed),
        "burdock_affinity_rejected_total" => {
            by("reason", &Rejection::ALL.map(Rejection::label), &tally.rejected);
        }
        "burdock_affinity_orders_total" => by("fate", &Fate::ALL.map(Fate::label), &tally.orders),
        "burdock_breaker_opened_total" => {
            by("cause", &Trigger::ALL.map(Trigger::label), &tally.opened);
        }
        "burdock_tunnels_ended_total" => {
            by("cause", &TunnelEnd::ALL.map(TunnelEnd::label), &tally.ended);
        }
        "burdock_affinity_total" => {
            let outcomes = ["new", "kept", "rehomed", "rejected", "keyed", "keyless"];
            let rehomed = tally.rehomed.iter().map(read_one).sum();
            let [new, rejected, keyed, keyless] =
                [&tally.new, &tally.unhonoured, &tally.keyed, &tally.keyless].map(read_one);
            let values = [new, roster.kept(), rehomed, rejected, keyed, keyless];
            rows.counts(labels, &Labels::each("outcome", outcomes), values);
        }
        "burdock_tunnel_closes_total" => {
            let codes = Labels::each("code", CODES);
            for closer in Closer::ALL {
                let labels = labels.clone().and("from", closer.label());
                let sent = (0..CODES.len()).map(|place| tally.tunnel_closes.sent(closer, place));
                rows.counts(&labels, &codes, sent);
            }
        }
        "burdock_tunnel_duration_seconds" => {
            let bounds: Vec<_> = LIFETIMES.iter().map(u64::to_string).collect();
            let bounds = bounds.iter().map(String::as_str).chain(["+Inf"]);
            let lifetimes = &tally.tunnel_lifetimes;
            let bounds = Labels::each("le", bounds);
            rows.histogram(labels, &bounds, &lifetimes.counts(), lifetimes.sum().as_secs_f64());
        }
        "burdock_probe_duration_seconds" => {
            let bounds = latency_bounds();
            for kind in Kind::ALL {
                let labels = labels.clone().and("check", kind.label());
                let mut spread = Spread::default();
                spread.add(&tally.probes[kind as usize]);
                rows.spread(&labels, &bounds, &spread);
            }
        }
        _ => {}
    }
}

fn read_one(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
