//! Changes of state that an operator wants to read of, each in one place so that its words stay
//! the same: in the log, and in the journal where it is an event.

use std::sync::Arc;
use std::time::Instant;

use tracing::{info, warn};

use crate::health::Health;
use crate::health::agent::Report;
use crate::health::breaker::Change;
use crate::health::concurrency::Window;
use crate::instance::{Cause, Departure, Identity, Instance, Roster};
use crate::observe::events::{BreakerChange, DrainStage, Event, Whose};

/// Instances that come or go at once and are told of one by one.
const MOST_TOLD: usize = 10;

/// An instance's health changed.
pub(super) fn health_changed(instance: &Instance, from: Health, to: Health, reason: &str) {
    let whose = whose(instance);
    note(instance, Event::Health { whose, from, to, reason: reason.to_owned() });
    let Identity { service, version, name } = instance.identity();
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
pub(super) fn restarted(instance: &Instance, from: &str, to: &str) {
    let whose = whose(instance);
    note(instance, Event::Restart { whose, from: from.to_owned(), to: to.to_owned() });
    let Identity { service, version, name } = instance.identity();
    info!(service, version, instance = name, from, to, "instance restarted");
}

/// Unready instances serve from now on, or no longer.
pub(super) fn panic_changed(roster: &Roster, is_on: bool, ready: usize, instances: usize) {
    let (service, version) = (roster.service(), roster.version());
    let whose = roster.whose();
    roster.journal.note(Event::Panic { whose, is_on, ready, instances });
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
pub(super) fn breaker_changed(instance: &Instance, change: Change) {
    let Identity { service, version, name } = instance.identity();
    let change = match change {
        Change::Opened { until, trigger } => {
            let open_s = until.saturating_duration_since(Instant::now()).as_secs_f64().round();
            let cause = trigger.label();
            warn!(service, version, instance = name, cause, open_s, "breaker opened");
            BreakerChange::Opened(trigger, open_s as u64)
        }
        Change::Held { is_news: true } => {
            warn!(service, version, instance = name, "breaker kept closed by max_ejected");
            BreakerChange::Held
        }
        Change::Held { is_news: false } => return,
        Change::HalfOpen => {
            info!(service, version, instance = name, "breaker half-open");
            BreakerChange::HalfOpen
        }
        Change::Closed => {
            info!(service, version, instance = name, "breaker closed");
            BreakerChange::Closed
        }
    };
    note(instance, Event::Breaker(whose(instance), change));
}

/// An instance is to be left by its sessions, where that is not for its health.
pub(super) fn drain_began(instance: &Instance, departure: Departure) {
    let Some(cause) = word(departure.cause) else { return };
    let left = departure.until.saturating_duration_since(Instant::now()).as_secs_f64();
    let stage = DrainStage::Began(left.ceil() as u64);
    note(instance, Event::Drain(whose(instance), cause, stage));
    let Identity { service, version, name } = instance.identity();
    info!(service, version, instance = name, cause, deadline_s = left.ceil(), "drain began");
}

/// It takes new sessions again.
pub(super) fn drain_called_off(instance: &Instance) {
    note(instance, Event::Drain(whose(instance), "active", DrainStage::CalledOff));
    let Identity { service, version, name } = instance.identity();
    info!(service, version, instance = name, "drain called off");
}

/// No session is bound to it any more.
pub(super) fn drain_ended(instance: &Instance, cause: Cause) {
    note(
        instance,
        Event::Drain(whose(instance), word(cause).unwrap_or_default(), DrainStage::Ended),
    );
    let Identity { service, version, name } = instance.identity();
    info!(service, version, instance = name, "drained");
}

/// An instance has had `app_start_timeout`, and is not ready.
pub(super) fn starts_late(instance: &Instance, reason: &str) {
    let message = format!("not ready within app_start_timeout: {reason}");
    let whose = Some(whose(instance));
    note(instance, Event::Warning { code: "app_start_timeout", whose, message, cure: None });
    let name = &*instance.identity().name;
    warn!(instance = name, reason, "not ready within app_start_timeout");
}

/// Instances that a version has from now on, or no longer. Where many come at once it is one event:
/// a thousand of them would leave nothing else in the journal.
pub(super) fn exchanged(roster: &Roster, added: bool, instances: &[Arc<Instance>]) {
    let names =
        |of: &[Arc<Instance>]| of.iter().map(|it| it.identity().name.clone()).collect::<Vec<_>>();
    if instances.len() > MOST_TOLD {
        let whose = roster.whose();
        roster.journal.note(Event::Instances { whose, added, names: names(instances) });
        return;
    }
    for one in instances.chunks(1) {
        let whose = Whose { instance: names(one).pop(), ..roster.whose() };
        roster.journal.note(Event::Instances { whose, added, names: names(one) });
    }
}

const fn word(cause: Cause) -> Option<&'static str> {
    match cause {
        Cause::Removed => Some("removed"),
        Cause::Draining => Some("draining"),
        Cause::Disabled => Some("disabled"),
        Cause::Dead | Cause::Unready => None,
    }
}

fn whose(instance: &Instance) -> Whose {
    let Identity { service, version, name } = instance.identity().clone();
    Whose { service, version, instance: Some(name) }
}

fn note(instance: &Instance, event: Event) {
    if let Some(roster) = instance.roster() {
        roster.journal.note(event);
    }
}
