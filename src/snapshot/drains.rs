//! The ends of drains: each is waited for by a task of its own.

use std::sync::Arc;

use crate::instance::{Departure, Instance};
use crate::snapshot::Live;

/// Ends a drain in time, unless it is another one by then.
pub fn finish(live: &Arc<Live>, instance: Arc<Instance>, drain: Departure) {
    let live = Arc::clone(live);
    tokio::spawn(async move {
        tokio::time::sleep_until(drain.until.into()).await;
        if instance.finish_drain(drain) {
            live.nudge();
        }
    });
}
