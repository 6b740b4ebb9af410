//! The Prometheus exposition: every name, type and help text in one table.
//!
//! Values are read when somebody asks; nothing is summed on a request's path.

use std::collections::BTreeSet;
use std::fmt::{Display, Write};
use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::affinity::Rejection;
use crate::affinity::order::Fate;
use crate::health::breaker::{Passage, Trigger};
use crate::health::{Admin, Health, Rehome};
use crate::instance::lane::CLASSES;
use crate::instance::{Instance, Kind, Lane, Roster};
use crate::listener::descriptors;
use crate::observe::counters::{Handshake, TunnelEnd};
use crate::observe::sink::sink;
use crate::observe::tunnels::{CODES, Closer, LIFETIMES, Lifetimes};
use crate::proxy::error::Reason;
use crate::snapshot::{Live, Snapshot};
use crate::tls::automatic::{Outcome, Subject};

/// Everything that is exposed: name, type, help.
pub const NAMES: &[(&str, &str, &str)] = &[
    ("burdock_build_info", "gauge", "1, with the version."),
    ("burdock_workers", "gauge", "Worker threads."),
    ("burdock_config_generation", "gauge", "Configurations taken over since the start."),
    ("burdock_config_last_reload_success", "gauge", "0 if the last reload was rejected."),
    ("burdock_upgrades_failed_total", "counter", "Upgrades in which no process took over."),
    ("burdock_client_connections", "gauge", "Open client connections, tunnels not counted."),
    ("burdock_client_connections_total", "counter", "Client connections accepted."),
    ("burdock_descriptors_max", "gauge", "File descriptors that this process may have."),
    (
        "burdock_descriptors_short",
        "gauge",
        "Workers that let nobody new in because descriptors run short.",
    ),
    ("burdock_descriptors_short_total", "counter", "Times that a worker had to do so."),
    ("burdock_retry_bytes", "gauge", "Bytes of request bodies kept for another try."),
    (
        "burdock_retry_bodies_dropped_total",
        "counter",
        "Request bodies not kept because all of them took retry_memory.",
    ),
    ("burdock_accept_errors_total", "counter", "Accepts that failed."),
    ("burdock_tls_handshakes_total", "counter", "TLS handshakes with clients, by outcome."),
    (
        "burdock_tls_certificate_expiry_timestamp_seconds",
        "gauge",
        "When a certificate of a listener expires, since the Unix epoch, by the first host in it.",
    ),
    ("burdock_acme_orders_total", "counter", "Certificates ordered from a CA by ACME, by outcome."),
    (
        "burdock_acme_failures",
        "gauge",
        "Orders for a host that failed since the last one that did not.",
    ),
    (
        "burdock_log_lines_dropped_total",
        "counter",
        "Log lines dropped because the output was slow.",
    ),
    ("burdock_errors_total", "counter", "What went wrong for clients, by reason."),
    ("burdock_requests_total", "counter", "Answers of instances, by class of status."),
    ("burdock_failures_total", "counter", "Attempts at an instance that brought no answer."),
    ("burdock_retries_total", "counter", "Requests tried again on another instance, by reason."),
    ("burdock_hedges_total", "counter", "Requests that a second instance was asked for as well."),
    ("burdock_hedges_won_total", "counter", "Those that the second instance won."),
    ("burdock_queue_length", "gauge", "Requests that wait for a place at an instance."),
    ("burdock_queued_total", "counter", "Requests that had to wait for a place."),
    ("burdock_affinity_total", "counter", "Requests by what became of their session."),
    ("burdock_affinity_rejected_total", "counter", "Affinity tokens rejected, by reason."),
    (
        "burdock_affinity_orders_total",
        "counter",
        "What instances ordered about sessions, by what became of it.",
    ),
    ("burdock_rehomes_total", "counter", "Requests whose session moved, by reason."),
    ("burdock_panic", "gauge", "1 while unready instances serve because too few are ready."),
    ("burdock_breaker_opened_total", "counter", "Breakers that opened, by cause."),
    (
        "burdock_breaker_held_total",
        "counter",
        "Times that max_ejected kept a breaker from opening.",
    ),
    ("burdock_tunnels_opened_total", "counter", "Tunnels opened."),
    ("burdock_tunnels_ended_total", "counter", "Tunnels ended, by cause."),
    (
        "burdock_tunnel_closes_total",
        "counter",
        "Tunnels ended, by who sent which Close; none for who sent none.",
    ),
    ("burdock_tunnel_duration_seconds", "histogram", "How long tunnels lived."),
    (
        "burdock_instance_admin",
        "gauge",
        "1 for the state that the operator wants, or the instance if that is stricter.",
    ),
    ("burdock_instance_health", "gauge", "1 for the state that health checks say."),
    ("burdock_instance_breaker", "gauge", "0 closed, 1 half-open, 2 open."),
    ("burdock_instance_weight", "gauge", "Share of new sessions."),
    (
        "burdock_instance_sessions",
        "gauge",
        "Sessions by token that had a request in the last 150 to 300 s, or tunnels if more; estimated.",
    ),
    (
        "burdock_instance_effective_weight",
        "gauge",
        "The weight now; less during slow_start, or if the instance asks for less.",
    ),
    ("burdock_instance_restarts_total", "counter", "Restarts that the instance told of."),
    ("burdock_instance_requests_in_flight", "gauge", "Requests in flight."),
    (
        "burdock_instance_concurrency_limit",
        "gauge",
        "Requests that it may have in flight now; 0 for no limit.",
    ),
    ("burdock_instance_tunnels", "gauge", "Open tunnels."),
    ("burdock_instance_tunnels_opened_total", "counter", "Tunnels opened."),
    ("burdock_instance_tunnels_ended_total", "counter", "Tunnels ended, by cause."),
    ("burdock_instance_tunnel_bytes_total", "counter", "Bytes in tunnels, by who sent them."),
    (
        "burdock_instance_tunnel_messages_total",
        "counter",
        "Complete WebSocket messages, by who sent them.",
    ),
];

/// One scrape.
pub fn render(live: &Live) -> String {
    let snapshot = live.snapshot();
    let mut text = String::with_capacity(16 * 1024);
    for (name, kind, help) in NAMES {
        let mut rows = Rows { text: &mut text, name };
        rows.head(kind, help);
        if name.starts_with("burdock_instance_")
            || matches!(*name, "burdock_requests_total" | "burdock_failures_total")
        {
            instance_rows(&mut rows, &snapshot);
        } else if !process_rows(&mut rows, live, &snapshot) {
            for service in snapshot.services() {
                version_rows(&mut rows, &service.roster);
            }
        }
    }
    text
}

/// Writes the samples of one name.
struct Rows<'a> {
    text: &'a mut String,
    name: &'a str,
}

impl Rows<'_> {
    fn head(&mut self, kind: &str, help: &str) {
        let name = self.name;
        // Writing to a string fails for nobody.
        let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    /// Label values come from enums and from the configuration, whose names need no escaping.
    fn row(&mut self, labels: &[(&str, &str)], value: impl Display) {
        self.text.push_str(self.name);
        for (place, (key, label)) in labels.iter().enumerate() {
            let open = if place == 0 { '{' } else { ',' };
            let _ = write!(self.text, "{open}{key}=\"{label}\"");
        }
        let close = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.text, "{close} {value}");
    }

    /// The samples of a histogram.
    fn lifetimes(&mut self, labels: &[(&str, &str)], lifetimes: &Lifetimes) {
        let (name, counts) = (self.name, lifetimes.cumulated());
        let mut of = |suffix: &str, extra: &[(&str, &str)], value: &str| {
            let _ = write!(self.text, "{name}{suffix}");
            for (place, (key, label)) in labels.iter().chain(extra).enumerate() {
                let open = if place == 0 { '{' } else { ',' };
                let _ = write!(self.text, "{open}{key}=\"{label}\"");
            }
            let _ = writeln!(self.text, "}} {value}");
        };
        let bounds = LIFETIMES.iter().map(u64::to_string).chain(["+Inf".to_owned()]);
        for (bound, count) in bounds.zip(counts) {
            of("_bucket", &[("le", &bound)], &count.to_string());
        }
        of("_sum", &[], &lifetimes.sum().as_secs_f64().to_string());
        of("_count", &[], &counts[LIFETIMES.len()].to_string());
    }
}

/// Whether `rows.name` is one of the whole process.
fn process_rows(rows: &mut Rows<'_>, live: &Live, snapshot: &Snapshot) -> bool {
    let counters = &live.counters;
    let value = match rows.name {
        "burdock_build_info" => {
            rows.row(&[("version", env!("CARGO_PKG_VERSION"))], 1);
            return true;
        }
        "burdock_errors_total" => {
            for reason in Reason::ALL {
                rows.row(&[("reason", reason.label())], counters.errors(reason));
            }
            return true;
        }
        "burdock_tls_handshakes_total" => {
            for outcome in Handshake::ALL {
                rows.row(&[("outcome", outcome.label())], counters.handshakes(outcome));
            }
            return true;
        }
        "burdock_acme_orders_total" => {
            for outcome in Outcome::ALL {
                rows.row(&[("outcome", outcome.label())], live.automatic.orders(outcome));
            }
            return true;
        }
        "burdock_acme_failures" => {
            failure_rows(rows, live, snapshot);
            return true;
        }
        "burdock_tls_certificate_expiry_timestamp_seconds" => {
            expiry_rows(rows, live, snapshot);
            return true;
        }
        "burdock_workers" => live.workers as u64,
        "burdock_config_generation" => snapshot.generation,
        "burdock_config_last_reload_success" => {
            1 - counters.reload_failed.load(Ordering::Relaxed).min(1)
        }
        "burdock_upgrades_failed_total" => counters.upgrades_failed.load(Ordering::Relaxed),
        "burdock_client_connections" => counters.connections(),
        "burdock_client_connections_total" => counters.accepted.load(Ordering::Relaxed),
        "burdock_descriptors_max" => descriptors::most().unwrap_or(u64::MAX),
        "burdock_descriptors_short" => counters.short(),
        "burdock_descriptors_short_total" => counters.short_total.load(Ordering::Relaxed),
        "burdock_retry_bytes" => live.kept.held(),
        "burdock_retry_bodies_dropped_total" => live.kept.refused(),
        "burdock_accept_errors_total" => counters.accept_errors.load(Ordering::Relaxed),
        "burdock_log_lines_dropped_total" => sink().dropped(),
        _ => return false,
    };
    rows.row(&[], value);
    true
}

/// Two listeners may have one host in common.
fn failure_rows(rows: &mut Rows<'_>, live: &Live, snapshot: &Snapshot) {
    let listeners = &snapshot.config.listeners;
    let acmes = listeners.iter().filter_map(|it| it.tls.as_ref()?.acme.as_ref());
    for subject in acmes.flat_map(Subject::all).collect::<BTreeSet<_>>() {
        let labels = [("domain", &*subject.domain), ("directory", &*subject.directory)];
        rows.row(&labels, live.automatic.place(&subject).failures());
    }
}

fn expiry_rows(rows: &mut Rows<'_>, live: &Live, snapshot: &Snapshot) {
    for listener in &snapshot.config.listeners {
        let address = listener.address.to_string();
        for certificate in listener.tls.iter().flat_map(|tls| &tls.certificates) {
            let host = certificate.names.first().map_or("", String::as_str);
            let labels = [("listener", &*address), ("certificate", host)];
            rows.row(&labels, certificate.not_after);
        }
        let acme = listener.tls.iter().filter_map(|tls| tls.acme.as_ref());
        for subject in acme.flat_map(Subject::all) {
            let labels = [("listener", &*address), ("certificate", &*subject.domain)];
            if let Some(in_use) = live.automatic.place(&subject).in_use() {
                rows.row(&labels, in_use.not_after);
            }
        }
    }
}

fn version_rows(rows: &mut Rows<'_>, roster: &Roster) {
    let labels = [("service", roster.service()), ("version", roster.version())];
    let tally = &roster.tally;
    let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    let sum = |counters: &[std::sync::atomic::AtomicU64]| counters.iter().map(load).sum::<u64>();
    let name = rows.name;
    let mut row = |extra: &[(&str, &str)], value| rows.row(&[&labels[..], extra].concat(), value);
    match name {
        "burdock_retries_total" | "burdock_rehomes_total" => {
            let retries = name == "burdock_retries_total";
            let counters = if retries { &tally.retried } else { &tally.rehomed };
            for (reason, counter) in Rehome::ALL.iter().zip(counters) {
                row(&[("reason", reason.label())], load(counter));
            }
        }
        "burdock_hedges_total" => row(&[], load(&tally.hedges)),
        "burdock_hedges_won_total" => row(&[], load(&tally.hedges_won)),
        "burdock_queue_length" => row(&[], roster.queue.len() as u64),
        "burdock_queued_total" => row(&[], load(&tally.queued)),
        "burdock_affinity_rejected_total" => {
            for (reason, counter) in Rejection::ALL.iter().zip(&tally.rejected) {
                row(&[("reason", reason.label())], load(counter));
            }
        }
        "burdock_affinity_orders_total" => {
            for (fate, counter) in Fate::ALL.iter().zip(&tally.orders) {
                row(&[("fate", fate.label())], load(counter));
            }
        }
        "burdock_affinity_total" => {
            row(&[("outcome", "new")], load(&tally.new));
            row(&[("outcome", "kept")], roster.kept());
            row(&[("outcome", "rehomed")], sum(&tally.rehomed));
            row(&[("outcome", "rejected")], load(&tally.unhonoured));
            row(&[("outcome", "keyed")], load(&tally.keyed));
            row(&[("outcome", "keyless")], load(&tally.keyless));
        }
        "burdock_panic" => row(&[], u64::from(roster.is_in_panic())),
        "burdock_breaker_opened_total" => {
            for (trigger, counter) in Trigger::ALL.iter().zip(&tally.opened) {
                row(&[("cause", trigger.label())], load(counter));
            }
        }
        "burdock_breaker_held_total" => row(&[], load(&tally.held)),
        "burdock_tunnels_opened_total" => row(&[], load(&tally.tunnels)),
        "burdock_tunnels_ended_total" => {
            for (end, counter) in TunnelEnd::ALL.iter().zip(&tally.ended) {
                row(&[("cause", end.label())], load(counter));
            }
        }
        "burdock_tunnel_closes_total" => {
            for closer in Closer::ALL {
                for (place, code) in CODES.into_iter().enumerate() {
                    let sent = tally.tunnel_closes.sent(closer, place);
                    row(&[("from", closer.label()), ("code", code)], sent);
                }
            }
        }
        "burdock_tunnel_duration_seconds" => rows.lifetimes(&labels, &tally.tunnel_lifetimes),
        _ => {}
    }
}

fn instance_rows(rows: &mut Rows<'_>, snapshot: &Snapshot) {
    for service in snapshot.services() {
        for instance in service.roster.members().all() {
            rows_of_instance(rows, instance);
        }
    }
}

fn rows_of_instance(rows: &mut Rows<'_>, instance: &Instance) {
    let identity = instance.identity();
    let labels = [
        ("service", &*identity.service),
        ("version", &*identity.version),
        ("instance", &*identity.name),
    ];
    let sum = |of: &dyn Fn(&Lane) -> u64| instance.lanes().iter().map(of).sum::<u64>();
    let name = rows.name;
    if name == "burdock_instance_effective_weight" {
        return rows.row(&labels, f64::from(instance.effective_weight()) / 100.0);
    }
    let mut row = |extra: &[(&str, &str)], value| rows.row(&[&labels[..], extra].concat(), value);
    match name {
        "burdock_requests_total" => {
            let classes: [_; CLASSES] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
            for (class, label) in classes.into_iter().enumerate() {
                row(&[("class", label)], sum(&|lane| lane.answers(class)));
            }
        }
        "burdock_failures_total" => row(&[], sum(&Lane::failures)),
        "burdock_instance_admin" => {
            for admin in Admin::ALL {
                row(&[("state", admin.label())], u64::from(instance.admin() == admin));
            }
        }
        "burdock_instance_health" => {
            let mut labels: Vec<_> = Health::ALL.iter().map(|health| health.label()).collect();
            labels.dedup();
            for label in labels {
                row(&[("state", label)], u64::from(instance.health().label() == label));
            }
        }
        "burdock_instance_breaker" => row(
            &[],
            match instance.passage() {
                Passage::Passes => 0,
                Passage::Trial => 1,
                Passage::Refuses => 2,
            },
        ),
        "burdock_instance_weight" => row(&[], u64::from(instance.weight())),
        "burdock_instance_sessions" => row(&[], instance.session_count(Instant::now())),
        "burdock_instance_restarts_total" => row(&[], instance.restarts()),
        "burdock_instance_requests_in_flight" => row(&[], sum(&Lane::requests)),
        "burdock_instance_concurrency_limit" => row(&[], instance.limit(Kind::Request).into()),
        "burdock_instance_tunnels" => row(&[], sum(&Lane::tunnels)),
        "burdock_instance_tunnels_opened_total" => row(&[], sum(&Lane::opened)),
        "burdock_instance_tunnels_ended_total" => {
            for end in TunnelEnd::ALL {
                row(&[("cause", end.label())], sum(&|lane| lane.ended(end)));
            }
        }
        "burdock_instance_tunnel_bytes_total" | "burdock_instance_tunnel_messages_total" => {
            let bytes = name == "burdock_instance_tunnel_bytes_total";
            for (place, from) in [Closer::Client, Closer::Instance].into_iter().enumerate() {
                let of = |lane: &Lane| {
                    if bytes { lane.bytes(place) } else { lane.messages(place) }
                };
                row(&[("from", from.label())], sum(&of));
            }
        }
        _ => {}
    }
}
