//! What a drill makes of an instance: it counts as unready or dead, is drained or disabled, and requests to
//! it are disturbed. A layer over what checks, the operator and the instance itself say, which goes on
//! beneath and is all there is when the drill is over.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::HeaderMap;

use crate::config::types::{Drain, State};
use crate::health::breaker::Passage;
use crate::health::{Health, Membership};
use crate::instance::disturbance::{Blow, Disturbance};
use crate::instance::{Axes, Departure, Instance, Source};

impl Instance {
    /// What its checks say, whatever a drill makes of it.
    pub fn checked(&self) -> Health {
        self.axes().health
    }

    /// It counts as this, or no longer.
    pub fn count_as(&self, health: Option<Health>, reason: &str) {
        let mut axes = self.axes();
        let before = axes.seen();
        if std::mem::replace(&mut axes.drilled, health) != health {
            self.see(axes, before, reason);
        }
    }

    /// A drill wants this state of it; one that drains has `timeout`, or what its version says. Gives the
    /// drain that begins, if one does: whoever says so waits for its end.
    pub fn rehearse(&self, state: State, timeout: Option<Duration>) -> Option<Departure> {
        if self.axes().wanted[Source::Drill as usize] == state {
            return None;
        }
        let roster = self.roster.upgrade()?;
        let drain = roster.care().drain;
        let drain =
            timeout.map_or(drain, |timeout| Drain { timeout, spread: drain.spread.min(timeout) });
        let closes = &roster.websocket().closes;
        let departure = self.administer(Source::Drill, state, closes, drain);
        roster.refresh();
        departure
    }

    /// These are done to requests that are sent to it from now on.
    pub fn disturb(&self, disturbances: Vec<Arc<Disturbance>>) {
        let are_any = !disturbances.is_empty();
        self.disturbances.store(are_any.then(|| Arc::new(disturbances)));
        self.disturbed.store(are_any, Ordering::Relaxed);
    }

    /// Whether anything is done to requests that are sent to it.
    pub fn is_disturbed(&self) -> bool {
        self.disturbed.load(Ordering::Relaxed)
    }

    /// What is done to a request with these fields.
    pub fn blow(&self, headers: &HeaderMap) -> Blow {
        match &*self.disturbances.load() {
            Some(all) => Blow::of(all.iter().map(|it| &**it), headers),
            None => Blow::default(),
        }
    }

    /// Whether it would take new sessions if there were no drill.
    pub fn is_sound(&self) -> bool {
        let axes = self.axes();
        axes.membership == Membership::Present
            && axes.wanted_beneath() == State::Active
            && axes.undrilled() == Health::Ready
            && axes.breaker.passage() != Passage::Refuses
            && self.weight() > 0
    }

    /// What the operator and the instance itself want, the stricter.
    pub fn wanted(&self) -> State {
        self.axes().wanted_beneath()
    }
}

impl Axes {
    /// The same, whatever a drill wants.
    pub(super) fn wanted_beneath(&self) -> State {
        self.wanted[Source::Operator as usize].max(self.wanted[Source::Agent as usize])
    }
}
