//! Metrics of the whole process, and of its listeners.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::admin::metrics::rows::{Labels, Rows, latency_bounds};
use crate::fleet::board::Presence;
use crate::listener::descriptors;
use crate::observe::counters::Handshake;
use crate::observe::events::Kind;
use crate::observe::red::{CLASSES, Sums};
use crate::observe::sink;
use crate::proxy::error::Reason;
use crate::rehearsal::fault;
use crate::snapshot::{Live, Snapshot};
use crate::tls::automatic::{Outcome, Subject};
use crate::trace::queue::Dropped;

/// Writes the rows of a metric of the process; whether it is one.
pub(super) fn write(rows: &mut Rows<'_>, live: &Live, snapshot: &Snapshot) -> bool {
    let (counters, none) = (&live.counters, Labels::default());
    let value = match rows.name {
        "burdock_build_info" => {
            rows.count(&none, &Labels::of(&[("version", env!("CARGO_PKG_VERSION"))]), 1);
            return true;
        }
        "burdock_acme_failures" => {
            failures(rows, live, snapshot);
            return true;
        }
        "burdock_tls_certificate_expiry_timestamp_seconds" => {
            expiries(rows, live, snapshot);
            return true;
        }
        name if name.starts_with("burdock_discovery_") => {
            sources(rows, live);
            return true;
        }
        name if name.starts_with("burdock_fleet_") => {
            fleet(rows, live);
            return true;
        }
        "burdock_start_timestamp_seconds" => return instant(rows, live.started),
        "burdock_config_last_reload_timestamp_seconds" => {
            return instant(rows, counters.last_reload().at);
        }
        "burdock_config_last_reload_success_timestamp_seconds" => {
            return instant(rows, counters.last_reload().taken);
        }
        "burdock_workers" => live.workers as u64,
        "burdock_config_generation" => snapshot.generation,
        "burdock_config_last_reload_success" => {
            u64::from(counters.last_reload().problems.is_empty())
        }
        "burdock_upgrades_failed_total" => counters.upgrades_failed.load(Ordering::Relaxed),
        "burdock_client_connections" => counters.connections(),
        "burdock_client_connections_resting" => counters.resting(),
        "burdock_client_connections_total" => counters.accepted.load(Ordering::Relaxed),
        "burdock_descriptors_max" => descriptors::most().unwrap_or(u64::MAX),
        "burdock_descriptors_short" => counters.short(),
        "burdock_descriptors_short_total" => counters.short_total.load(Ordering::Relaxed),
        "burdock_retry_bytes" => live.kept.held(),
        "burdock_retry_bodies_dropped_total" => live.kept.refused(),
        "burdock_accept_errors_total" => counters.accept_errors.load(Ordering::Relaxed),
        "burdock_trace_spans_sent_total" => live.spans.sent(),
        "burdock_log_lines_dropped_total" => sink::LOG.all(),
        _ => return write_several(rows, live),
    };
    rows.count(&none, &none, value);
    true
}

/// Those that have several rows.
fn write_several(rows: &mut Rows<'_>, live: &Live) -> bool {
    let (counters, none) = (&live.counters, Labels::default());
    match rows.name {
        "burdock_errors_total" => {
            let reasons = Labels::each("reason", Reason::ALL.map(Reason::label));
            rows.counts(&none, &reasons, Reason::ALL.map(|reason| counters.errors(reason)));
        }
        "burdock_access_log_lines_dropped_total" => {
            let reasons = Labels::each("reason", ["slow", "failed"]);
            let lost = [&sink::ACCESS.slow, &sink::ACCESS.failed];
            rows.counts(&none, &reasons, lost.map(|it| it.load(Ordering::Relaxed)));
        }
        "burdock_trace_spans_dropped_total" => {
            let reasons = Labels::each("reason", Dropped::ALL.map(Dropped::label));
            rows.counts(&none, &reasons, Dropped::ALL.map(|it| live.spans.dropped(it)));
        }
        "burdock_tls_handshakes_total" => {
            let outcomes = Labels::each("outcome", Handshake::ALL.map(Handshake::label));
            rows.counts(&none, &outcomes, Handshake::ALL.map(|it| counters.handshakes(it)));
        }
        "burdock_drill_active" => {
            if let Some(name) = live.rehearsals.name() {
                rows.count(&none, &Labels::of(&[("drill", &*name)]), 1);
            }
        }
        "burdock_drill_faults_total" => {
            let kinds = Labels::each("kind", fault::Kind::ALL.map(fault::Kind::label));
            let injected = fault::Kind::ALL.map(|kind| live.rehearsals.injected(kind));
            rows.counts(&none, &kinds, injected);
        }
        "burdock_acme_orders_total" => {
            let outcomes = Labels::each("outcome", Outcome::ALL.map(Outcome::label));
            rows.counts(&none, &outcomes, Outcome::ALL.map(|it| live.automatic.orders(it)));
        }
        "burdock_events_total" => {
            let kinds = Labels::each("kind", Kind::ALL.map(Kind::label));
            rows.counts(&none, &kinds, Kind::ALL.map(|kind| live.journal.count(kind)));
        }
        _ => return false,
    }
    true
}

fn instant(rows: &mut Rows<'_>, at: SystemTime) -> bool {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    rows.number(&Labels::default(), format_args!("{:.3}", since.as_secs_f64()));
    true
}

/// What the sources of instances say.
fn sources(rows: &mut Rows<'_>, live: &Live) {
    for (whose, standing) in live.sources.all() {
        let row = [("service", &*whose.service), ("version", &*whose.version)];
        let labels = Labels::of(&row);
        match rows.name {
            "burdock_discovery_instances" => rows.number(&labels, standing.instances),
            "burdock_discovery_ignored" => rows.number(&labels, standing.ignored),
            "burdock_discovery_success" => {
                let is_well = standing.problem.is_none() && standing.heard.is_some();
                rows.number(&labels, u64::from(is_well));
            }
            "burdock_discovery_changes_total" => rows.number(&labels, standing.changes),
            "burdock_discovery_failures_total" => {
                let reasons = Labels::each("reason", ["unheard", "refused"]);
                rows.counts(&labels, &reasons, [standing.failures, standing.refusals]);
            }
            _ => {
                let at = standing.heard.unwrap_or(UNIX_EPOCH);
                let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
                rows.number(&labels, format_args!("{:.3}", since.as_secs_f64()));
            }
        }
    }
}

/// What is shared with other balancers, if anything is.
fn fleet(rows: &mut Rows<'_>, live: &Live) {
    let (none, Some(standing)) = (Labels::default(), live.fleet.standing()) else { return };
    match rows.name {
        "burdock_fleet_connected" => rows.number(&none, u64::from(standing.connected)),
        "burdock_fleet_losses_total" => rows.number(&none, standing.losses),
        "burdock_fleet_orders" => rows.number(&none, standing.orders.rows),
        "burdock_fleet_orders_pending" => rows.number(&none, standing.orders.pending),
        "burdock_fleet_keys_left_out" => rows.number(&none, standing.orders.strange.len()),
        _ => {
            let nodes = live.fleet.nodes();
            let counted = |presence| nodes.iter().filter(|it| it.presence == presence).count();
            let states = Labels::each("state", Presence::ALL.map(Presence::label));
            rows.counts(&none, &states, Presence::ALL.map(|it| counted(it) as u64));
        }
    }
}

/// Two listeners may have one host in common.
fn failures(rows: &mut Rows<'_>, live: &Live, snapshot: &Snapshot) {
    let listeners = &snapshot.config.listeners;
    let acmes = listeners.iter().filter_map(|it| it.tls.as_ref()?.acme.as_ref());
    for subject in acmes.flat_map(Subject::all).collect::<BTreeSet<_>>() {
        let labels = [("domain", &*subject.domain), ("directory", &*subject.directory)];
        rows.number(&Labels::of(&labels), live.automatic.place(&subject).failures());
    }
}

fn expiries(rows: &mut Rows<'_>, live: &Live, snapshot: &Snapshot) {
    for listener in &snapshot.config.listeners {
        let address = listener.address.to_string();
        for certificate in listener.tls.iter().flat_map(|tls| &tls.certificates) {
            let host = certificate.names.first().map_or("", String::as_str);
            let labels = Labels::of(&[("listener", &*address), ("certificate", host)]);
            rows.number(&labels, certificate.not_after);
        }
        let acme = listener.tls.iter().filter_map(|tls| tls.acme.as_ref());
        for subject in acme.flat_map(Subject::all) {
            let labels = [("listener", &*address), ("certificate", &*subject.domain)];
            if let Some(in_use) = live.automatic.place(&subject).in_use() {
                rows.number(&Labels::of(&labels), in_use.not_after);
            }
        }
    }
}

/// What has come in at each listener.
pub(super) fn listeners(live: &Live) -> Vec<(Labels, Sums)> {
    let listeners = live.listeners().into_iter();
    let labelled =
        listeners.map(|(address, sums)| (Labels::of(&[("listener", &*address.to_string())]), sums));
    labelled.collect()
}

/// Writes the rows of a metric of listeners.
pub(super) fn write_listeners(rows: &mut Rows<'_>, listeners: &[(Labels, Sums)]) {
    let (classes, bounds) = (Labels::each("class", CLASSES), latency_bounds());
    for (labels, sums) in listeners {
        match rows.name {
            "burdock_listener_requests_total" => rows.counts(labels, &classes, sums.answers),
            "burdock_listener_errors_total" => {
                rows.count(labels, &Labels::default(), sums.errors);
            }
            "burdock_listener_request_duration_seconds" => {
                rows.spread(labels, &bounds, &sums.duration);
            }
            _ => {}
        }
    }
}
