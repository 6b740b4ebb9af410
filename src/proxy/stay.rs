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
    /// Whether what becomes of it says nothing of the instance.
    excused: bool,
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
        Self { place, began, trial, excused: false, span: None }
    }

    /// The same, told of by a span.
    #[must_use]
    pub fn told_by(self, span: Attempt) -> Self {
        Self { span: Some(Box::new(span)), ..self }
    }

    /// A drill does something to it because of its mark, which anybody may send: whatever becomes of it
    /// counts, but neither for the breaker nor for a limit that others feel.
    pub fn excuse(&mut self) {
        self.excused = true;
        // At once: others wait for the permit.
        self.trial = None;
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
        if self.excused {
            self.place.lane().excused();
            return;
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
            if self.excused {
                self.place.lane().excused();
            } else if failure.is_blamed(upgrade) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::breaker::Passage;
    use crate::instance::{Kind, Roster};

    const TEXT: &str = "instances: [{ address: a:1 }]\nconcurrency: { min: 2, initial: 20 }\n\
        breaker: { failures: 5, error_share: 50%, min_requests: 20, window: 1m }\n";

    /// What comes of a hundred attempts that end badly, and of one more failure long after.
    fn after(excused: bool, end: impl Fn(&mut Stay)) -> (Passage, u32) {
        let roster = Arc::new(Roster::new("s", "v", Instant::now()));
        let config = crate::config::parse(TEXT, std::path::Path::new("c.yaml")).unwrap().config;
        roster.reconcile(&config.services[0].versions[0], 1);
        let instance = Arc::clone(&roster.members().all()[0]);
        for _ in 0..100 {
            let place = InFlight::begin(&instance, 0, Kind::Request).unwrap();
            let mut stay = Stay::begin(place, Instant::now());
            if excused {
                stay.excuse();
            }
            end(&mut stay);
        }
        instance.gave_up(Instant::now() + std::time::Duration::from_secs(60));
        let lane = instance.lane(0);
        assert_eq!(lane.answers(4) + lane.failures(), 100, "all are counted");
        (instance.passage(), instance.limit(Kind::Request))
    }

    #[tokio::test]
    async fn what_a_mark_is_to_blame_for_changes_nothing_for_others() {
        let answered =
            |stay: &mut Stay| stay.succeeded(StatusCode::SERVICE_UNAVAILABLE, false, None);
        let late = |stay: &mut Stay| stay.failed(Failure::FirstByteTimeout, false);
        for excused in [true, false] {
            for (passage, limit) in [after(excused, answered), after(excused, late)] {
                assert_eq!(
                    (passage == Passage::Passes, limit == 20),
                    (excused, excused),
                    "{limit}"
                );
            }
        }
    }
}
