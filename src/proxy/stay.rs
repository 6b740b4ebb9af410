//! A request's stay at an instance: the place that it takes there, and what became of it.

use std::sync::Arc;
use std::time::Instant;

use http::StatusCode;

use crate::instance::{InFlight, Instance, Trial};
use crate::proxy::retry::Failure;

/// A place at an instance, with the permit if its breaker is half-open. Dropped without an outcome
/// it says nothing of the instance: the place is free again and the permit given back.
#[derive(Debug)]
pub struct Stay {
    place: InFlight,
    /// Until there is an outcome.
    trial: Option<Trial>,
}

impl Stay {
    /// An attempt begins.
    ///
    /// Another worker may have taken the last permit since the instance was chosen. Then this
    /// attempt goes through without one: at most one for each worker does, its outcome changes
    /// nothing, and to choose again would cost every request a loop for that.
    pub fn begin(place: InFlight) -> Self {
        let trial = Trial::begin(place.instance());
        Self { place, trial }
    }

    /// The place.
    pub fn place(&self) -> &InFlight {
        &self.place
    }

    /// Where it is.
    pub fn instance(&self) -> &Arc<Instance> {
        self.place.instance()
    }

    /// It brought an answer; `upgrade` says that a tunnel was asked for.
    pub fn succeeded(&mut self, status: StatusCode, upgrade: bool) {
        self.place.lane().answered(status);
        let (instance, trial) = (self.place.instance(), self.trial.take());
        // What an upgrade is refused with is the application's business.
        if status.is_server_error() && !upgrade {
            let due = instance.erred(self.place.worker(), trial, Instant::now());
            tick_when_due(instance, due);
        } else {
            instance.succeeded(trial);
        }
    }

    /// It brought none.
    pub fn failed(&mut self, failure: Failure, upgrade: bool) {
        let trial = self.trial.take();
        if !failure.is_own() {
            self.place.lane().failed();
            if failure.is_blamed(upgrade) {
                let instance = self.place.instance();
                let due = instance.failed(self.place.worker(), trial, Instant::now());
                tick_when_due(instance, due);
            }
        }
        // Whether or not another attempt follows, nothing is under way here any more.
        self.place.vacate();
    }
}

/// Lets a breaker that has opened begin its trials in time.
fn tick_when_due(instance: &Arc<Instance>, due: Option<Instant>) {
    let Some(due) = due else { return };
    let instance = Arc::clone(instance);
    tokio::spawn(async move {
        tokio::time::sleep_until(due.into()).await;
        instance.tick(Instant::now());
    });
}
