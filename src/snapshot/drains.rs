//! The ends of drains: each is waited for by a task of its own.

use std::sync::Arc;

use crate::instance::{Departure, Instance};
use crate::snapshot::Live;

/// Ends this drain in its time, unless it is another by then.
pub fn finish(live: &Arc<Live>, instance: &Arc<Instance>, drain: Departure) {
    at_its_end(live, instance, drain, move |instance| instance.finish_drain(drain));
}

/// Has `end` done when a departure is over, and tunnels looked at if it says so. Whoever waits for
/// another end of the same instance, for the same cause, waits no longer.
pub fn at_its_end(
    live: &Arc<Live>,
    instance: &Arc<Instance>,
    departure: Departure,
    end: impl FnOnce(&Arc<Instance>) -> bool + Send + 'static,
) {
    let (live, known) = (Arc::clone(live), Arc::clone(instance));
    let vigil = tokio::spawn(async move {
        tokio::time::sleep_until(departure.until.into()).await;
        if end(&known) {
            live.nudge();
        }
    });
    instance.attend(departure, vigil.abort_handle());
}
