//! What becomes of attempts at an instance, and what its breaker makes of that.
//!
//! In the calm case (closed, no failure on record) a success takes no lock.

use std::sync::MutexGuard;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::health::breaker::{Breaker, Change, Counts, Moment, Permit};
use crate::instance::{Axes, Instance, Lane, Trial};

impl Instance {
    /// Whether its breaker would let an attempt begin now. Takes nothing: the permit that a
    /// half-open breaker asks for is taken by [`Trial::begin`].
    pub fn admits(&self) -> bool {
        if self.calm.load(Ordering::Relaxed) {
            return true;
        }
        let axes = self.axes();
        axes.limits.is_none_or(|limits| axes.breaker.admits(&limits))
    }

    pub(super) fn permit(&self) -> Option<Permit> {
        if self.calm.load(Ordering::Relaxed) {
            return None;
        }
        let mut axes = self.axes();
        let limits = axes.limits?;
        axes.breaker.permit(&limits)
    }

    pub(super) fn give_back(&self, permit: Permit) {
        self.axes().breaker.give_back(permit);
    }

    /// It answered a request.
    pub fn succeeded(&self, trial: Option<Trial>) {
        if self.calm.load(Ordering::Relaxed) {
            return;
        }
        let permit = trial.and_then(Trial::end);
        let mut axes = self.axes();
        let Some(limits) = axes.limits else { return };
        let change = axes.breaker.succeeded(permit, &limits, Instant::now());
        self.settle(axes, change);
    }

    /// It answered a request with a 5xx. Gives the instant when an opened breaker is due.
    pub fn erred(&self, worker: usize, trial: Option<Trial>, now: Instant) -> Option<Instant> {
        self.lane(worker).spoiled();
        self.judge(trial, now, Breaker::erred)
    }

    /// A request to it failed without an answer. Gives the instant when an opened breaker is due.
    pub fn failed(&self, worker: usize, trial: Option<Trial>, now: Instant) -> Option<Instant> {
        self.lane(worker).spoiled();
        self.judge(trial, now, Breaker::failed)
    }

    fn judge(
        &self,
        trial: Option<Trial>,
        now: Instant,
        judgement: impl FnOnce(&mut Breaker, Option<Permit>, Moment<'_>) -> Option<Change>,
    ) -> Option<Instant> {
        let permit = trial.and_then(Trial::end);
        let mut axes = self.axes();
        let limits = axes.limits?;
        let counts = self.lanes.iter().map(Lane::outcomes).fold(Counts::default(), |sum, lane| {
            Counts { attempts: sum.attempts + lane.attempts, bad: sum.bad + lane.bad }
        });
        let roster = self.roster.upgrade();
        let may_open =
            || roster.as_ref().is_none_or(|roster| roster.eject(self, limits.max_ejected));
        let moment = Moment { limits: &limits, now, counts, may_open: &may_open };
        let change = judgement(&mut axes.breaker, permit, moment);
        self.settle(axes, change);
        match change? {
            Change::Opened { until, .. } => Some(until),
            Change::Held { .. } | Change::HalfOpen | Change::Closed => None,
        }
    }

    fn settle(&self, axes: MutexGuard<'_, Axes>, change: Option<Change>) {
        match change {
            None | Some(Change::Held { .. }) => {
                self.calm.store(axes.breaker.is_calm(), Ordering::Relaxed);
                drop(axes);
            }
            Some(Change::Opened { .. } | Change::HalfOpen | Change::Closed) => self.publish(axes),
        }
        self.tell(change);
    }

    /// Whether its breaker is other than closed.
    pub(super) fn is_ejected(&self) -> bool {
        self.ejected.load(Ordering::Relaxed)
    }

    /// Its breaker is about to open.
    pub(super) fn eject(&self) {
        self.ejected.store(true, Ordering::Relaxed);
    }

    /// Lets an open breaker begin its trials when it is time.
    pub fn tick(&self, now: Instant) {
        let mut axes = self.axes();
        let change = axes.breaker.tick(now);
        if change.is_some() {
            self.settle(axes, change);
        }
    }
}
