//! Changes of state that an operator wants to read of, each in one place so that its words stay
//! the same.

use std::time::Instant;

use tracing::{info, warn};

use crate::health::Health;
use crate::health::agent::Report;
use crate::health::breaker::Change;
use crate::health::concurrency::Window;
use crate::instance::{Identity, Roster};

/// An instance's health changed.
pub(super) fn health_changed(instance: &Identity, from: Health, to: Health, reason: &str) {
    let Identity { service, version, name } = instance;
    let (from, to) = (from.label(), to.label());
    match to {
        "ready" => info!(service, version, instance = name, from, to, reason, "health changed"),
        _ => warn!(service, version, instance = name, from, to, reason, "health changed"),
    }
}

/// An instance says something else of itself than before.
pub(super) fn report_changed(instance: &Identity, report: Report) {
    let Identity { service, version, name } = instance;
    let (state, weight) = (report.state.word(), report.percent);
    info!(service, version, instance = name, state, weight, "the instance reports");
}

/// An instance says that it is in another life.
pub(super) fn restarted(instance: &Identity, from: &str, to: &str) {
    let Identity { service, version, name } = instance;
    info!(service, version, instance = name, from, to, "instance restarted");
}

/// Unready instances serve from now on, or no longer.
pub(super) fn panic_changed(roster: &Roster, is_on: bool, ready: usize, instances: usize) {
    let (service, version) = (roster.service(), roster.version());
    if is_on {
        warn!(service, version, ready, instances, "panic: too few are ready, unready ones serve");
    } else {
        info!(service, version, ready, instances, "panic over");
    }
}

/// The limit that an instance's answers set is half or twice what it was.
pub(super) fn limit_changed(instance: &Identity, from: u32, to: u32, window: &Window) {
    let Identity { service, version, name } = instance;
    let (answers, failures) = (window.answers, window.failures);
    let reason = match (to > from, failures * 10 > answers) {
        (true, _) => "room",
        (false, true) => "failures",
        (false, false) => "slower",
    };
    info!(service, version, instance = name, from, to, reason, "concurrency limit changed");
}

/// An instance's breaker changed.
pub(super) fn breaker_changed(instance: &Identity, change: Change) {
    let Identity { service, version, name } = instance;
    match change {
        Change::Opened { until, trigger } => {
            let open_s = until.saturating_duration_since(Instant::now()).as_secs_f64().round();
            let cause = trigger.label();
            warn!(service, version, instance = name, cause, open_s, "breaker opened");
        }
        Change::Held { is_news: true } => {
            warn!(service, version, instance = name, "breaker kept closed by max_ejected");
        }
        Change::Held { is_news: false } => {}
        Change::HalfOpen => info!(service, version, instance = name, "breaker half-open"),
        Change::Closed => info!(service, version, instance = name, "breaker closed"),
    }
}
