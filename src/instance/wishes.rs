//! What is wanted of an instance: by the operator, by itself, and by a drill. The strictest counts.

use std::time::Instant;

use crate::config::types::{Closes, Drain, State};
use crate::health::Admin;
use crate::health::agent::Report;
use crate::instance::{Cause, Departure, Instance, Source, events};

impl Instance {
    /// Takes over what somebody wants of it. Gives the drain that begins, if one does: whoever
    /// says so waits for its end, and publishes.
    pub(crate) fn administer(
        &self,
        source: Source,
        wanted: State,
        closes: &Closes,
        drain: Drain,
    ) -> Option<Departure> {
        let mut axes = self.axes();
        let before = axes.wanted_beneath();
        axes.wanted[source as usize] = wanted;
        // One that drained for a drill only has a drain of its own from now on, which outlives the drill.
        let is_own = before == State::Active && axes.wanted_beneath() == State::Draining;
        let strictest = axes.wanted.into_iter().max().unwrap_or(State::Active);
        let (admin, cause) = match (strictest, axes.admin) {
            (State::Active, Admin::Active) | (State::Disabled, Admin::Disabled) => return None,
            (State::Draining, Admin::Draining | Admin::Drained) if !is_own => return None,
            (State::Active, _) => (Admin::Active, None),
            (State::Draining, _) => (Admin::Draining, Some(Cause::Draining)),
            (State::Disabled, _) => (Admin::Disabled, Some(Cause::Disabled)),
        };
        axes.admin = admin;
        self.fold(&axes);
        drop(axes);
        self.departures.call_off(Cause::Draining);
        self.departures.call_off(Cause::Disabled);
        if cause.is_none() {
            events::drain_called_off(self);
        }
        let window = cause?.window(closes, drain);
        let departure = Departure::begin(cause?, window, Instant::now());
        if departure.cause == Cause::Draining {
            // Whoever waits for its end may give it another one first, and tells of it.
            self.departures.begin(departure);
            return Some(departure);
        }
        self.depart(departure);
        None
    }

    /// Takes over what it says of itself. Gives the drain that begins, if one does.
    pub fn heed(&self, report: Report) -> Option<Departure> {
        let roster = self.roster.upgrade()?;
        let care = roster.care();
        // A probe may outlive the reload that no longer asks for it by a moment.
        if !care.heeds {
            return None;
        }
        let before = Report {
            state: self.axes().wanted[Source::Agent as usize],
            percent: self.share.asked(report.percent),
        };
        if before == report {
            return None;
        }
        events::report_changed(&self.identity, report);
        let closes = &roster.websocket().closes;
        let drain = self.administer(Source::Agent, report.state, closes, care.drain);
        roster.refresh();
        drain
    }

    /// What it said of itself counts no longer. Whoever says so administers and publishes.
    pub(crate) fn ignore_report(&self) {
        self.axes().wanted[Source::Agent as usize] = State::Active;
        self.share.asked(Report::default().percent);
    }

    /// It has this long from now on, if it drains, whatever it had before. Gives the drain that this
    /// begins: whoever says so waits for its end.
    pub fn drain_by(&self, window: Drain) -> Option<Departure> {
        let mut axes = self.axes();
        match axes.admin {
            Admin::Draining | Admin::Drained => axes.admin = Admin::Draining,
            Admin::Active | Admin::Disabled => return None,
        }
        let departure = Departure::begin(Cause::Draining, window, Instant::now());
        self.departures.begin(departure);
        self.publish(axes);
        Some(departure)
    }

    /// When the drain that it is in ends, be it removed or not; `None` if it is in none.
    pub fn drain_departure(&self) -> Option<Departure> {
        self.removal().or_else(|| self.departures.of(Cause::Draining))
    }

    /// Its drain has come to its end, if that is still the drain that it is in; whether it was.
    pub fn finish_drain(&self, drain: Departure) -> bool {
        let mut axes = self.axes();
        let is_it =
            axes.admin == Admin::Draining && self.departures.of(Cause::Draining) == Some(drain);
        if is_it {
            axes.admin = Admin::Drained;
            self.publish(axes);
            // Those that lived here move with their next request, and are counted there.
            self.sessions.clear();
            events::drain_ended(self, Cause::Draining);
        }
        is_it
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::instance::Roster;

    #[test]
    fn a_drain_of_its_own_has_its_own_deadline_whatever_a_drill_gave_it() {
        let text = "instances: [{ address: a:1 }]\ndrain: { timeout: 60s }\n\
                    readiness_check: { path: /readyz, agent: true }\n";
        let config = crate::config::parse(text, std::path::Path::new("c.yaml")).unwrap().config;
        let roster = Arc::new(Roster::new("s", "v", Instant::now()));
        roster.reconcile(&config.services[0].versions[0], 1);
        let instance = Arc::clone(&roster.members().all()[0]);
        instance.sessions.began(7);
        assert_eq!(instance.session_count(Instant::now()), 1);
        let drilled = instance.rehearse(State::Draining, Some(Duration::from_secs(1))).unwrap();
        assert!(instance.finish_drain(drilled));
        instance.sessions.seen(8);
        let now = Instant::now() + Duration::from_secs(2);
        assert_eq!(instance.session_count(now), 0, "an answer that was under way at the end");
        let report = Report { state: State::Draining, percent: 100 };
        let own = instance.heed(report).expect("a drain of its own");
        assert!(own.until > drilled.until + Duration::from_secs(30));
        assert_eq!((instance.admin(), instance.drain_departure()), (Admin::Draining, Some(own)));
        assert_eq!(instance.heed(report), None, "it says nothing new");
        assert_eq!(instance.rehearse(State::Active, None), None);
        assert_eq!((instance.admin(), instance.drain_departure()), (Admin::Draining, Some(own)));
    }
}
