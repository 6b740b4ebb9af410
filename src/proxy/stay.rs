//! A request's stay at an instance: the place that it takes there, and what became of it.

use std::sync::Arc;
use std::time::Instant;

use http::StatusCode;

use crate::instance::body::Upload;
use crate::instance::{InFlight, Instance, Trial};
use crate::proxy::error::Reason;
use crate::proxy::retry::Failure;
use crate::trace::span::Attempt;

/// A place at an instance, with the permit if its breaker is half-open. Dropped without an outcome
/// it says nothing of the instance: the place is free again and the permit given back.
#[derive(Debug)]
pub struct Stay {
    place: InFlight,
    /// When it was asked.
    began: Instant,
    /// Until there is an outcome.
    trial: Option<Trial>,
    /// What is told of it, if the request is recorded.
    span: Option<Box<Attempt>>,
}

impl Stay {
    /// An attempt begins.
    ///
    /// Another worker may have taken the last permit since the instance was chosen. Then this
    /// attempt goes through without one: at most one for each worker does, its outcome changes
    /// nothing, and to choose again would cost every request a loop for that.
    pub fn begin(place: InFlight, began: Instant) -> Self {
        let trial = Trial::begin(place.instance());
        Self { place, began, trial, span: None }
    }

    /// The same, told of by a span.
    #[must_use]
    pub fn told_by(self, span: Attempt) -> Self {
        Self { span: Some(Box::new(span)), ..self }
    }

    /// The place.
    pub fn place(&self) -> &InFlight {
        &self.place
    }

    /// Where it is.
    pub fn instance(&self) -> &Arc<Instance> {
        self.place.instance()
    }

    /// It brought an answer to a request with this body; `upgrade` says that a tunnel was asked for.
    pub fn succeeded(&mut self, status: StatusCode, upgrade: bool, upload: Option<&Upload>) {
        self.place.lane().answered(status);
        if let Some(span) = &mut self.span {
            span.answered(status);
        }
        let (instance, trial) = (self.place.instance(), self.trial.take());
        // Tunnels have a limit of their own.
        if instance.is_paced() && !upgrade {
            self.observe(status, upload);
        }
        // What an upgrade is refused with is the application's business.
        if status.is_server_error() && !upgrade {
            let due = instance.erred(self.place.worker(), trial, Instant::now());
            tick_when_due(instance, due);
        } else {
            instance.succeeded(trial);
        }
    }

    /// The answer is passed on, at `now`: how long its head took counts, since that is the instance's
    /// doing. How long the rest takes is as much its client's, and an event stream has no end.
    pub fn passed_on(&self, now: Instant, upload: Option<&Upload>) {
        // Until it last asked for more of the body it has been waiting for the client.
        let asked = upload.map(|upload| upload.progress().asked);
        let began = asked.map_or(self.began, |asked| self.began.max(asked));
        self.place.lane().took(now.saturating_duration_since(began));
    }

    /// Lets an instance that sets its limit by its answers learn from this one.
    fn observe(&self, status: StatusCode, upload: Option<&Upload>) {
        let (instance, now) = (self.place.instance(), Instant::now());
        match upload.map(Upload::progress) {
            // RFC 9110 section 15.6.4: it has too much to do.
            _ if status == StatusCode::SERVICE_UNAVAILABLE => instance.gave_up(now),
            // It has been waiting for the client.
            Some(progress) if progress.waiting => {}
            Some(progress) => {
                let began = self.began.max(progress.asked);
                instance.took(now.saturating_duration_since(began), now);
            }
            None => instance.took(now.saturating_duration_since(self.began), now),
        }
    }

    /// It brought none.
    pub fn failed(&mut self, failure: Failure, upgrade: bool) {
        if let Some(span) = &mut self.span {
            span.failed(Reason::from(failure).label());
        }
        let trial = self.trial.take();
        if !failure.is_own() {
            self.place.lane().failed();
            if failure.is_blamed(upgrade) {
                let (instance, now) = (self.place.instance(), Instant::now());
                if instance.is_paced() && !upgrade {
                    instance.gave_up(now);
                }
                let due = instance.failed(self.place.worker(), trial, now);
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
