//! The live state of instances, which outlives every configuration.
//!
//! An [`Instance`] is found by its identity; a reload changes its weight or its membership, never
//! its counters, and a new address makes a new instance. What is touched on each request lies in
//! one [`Lane`] per worker, so that workers share no cache line. A change of any axis folds
//! eligibility once and lets the [`Roster`] publish anew. Read [`Instance`] first.

mod bell;
pub mod body;
pub mod budget;
mod crowd;
pub mod departure;
mod events;
mod in_flight;
pub mod lane;
pub mod link;
pub mod moves;
pub mod pool;
mod presence;
pub mod queue;
pub mod rate;
pub mod recent;
pub mod rehomes;
pub mod roster;
pub mod sessions;
pub mod stream;
mod trial;

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use tokio::sync::Notify;

use crate::config::types::{self, Drain, State};
use crate::health::breaker::{Breaker, Change, Passage, Permit};
use crate::health::{self, Admin, Eligibility, Health, Membership, Rehome};

pub use departure::{Cause, Departure};
pub use in_flight::{InFlight, Kind};
pub use lane::Lane;
pub use roster::{Members, Roster};
pub use trial::Trial;

use departure::Departures;
use presence::Presence;
use sessions::Sessions;

/// Who an instance is, on every replica of Burdock and across restarts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Its service.
    pub service: String,
    /// Its version.
    pub version: String,
    /// Its name: what a token says.
    pub name: String,
}

/// Why requests that wait for this instance should not wait any longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Distress {
    /// None.
    Fine,
    /// Its readiness probes get no answer.
    Unanswered,
    /// Its liveness check failed.
    Dead,
}

/// The axes, changed together with what is folded from them.
#[derive(Debug)]
struct Axes {
    membership: Membership,
    admin: Admin,
    health: Health,
    breaker: Breaker,
    limits: Option<types::Breaker>,
}

/// One process that serves a version.
#[derive(Debug)]
pub struct Instance {
    identity: Identity,
    address: String,
    weight: AtomicU32,
    /// `max_requests` and `max_tunnels`; 0 for none.
    limits: [AtomicU32; 2],
    axes: Mutex<Axes>,
    /// The fold of `axes`, see [`pack`].
    eligibility: AtomicU8,
    distress: AtomicU8,
    /// Whether the breaker is closed and has no failure to forget: the common case, for which a
    /// success takes no lock.
    calm: AtomicBool,
    departures: Departures,
    presence: Presence,
    /// Those that are bound to it.
    pub sessions: Sessions,
    gone: Notify,
    lanes: Box<[Lane]>,
    roster: Weak<Roster>,
}

impl Instance {
    /// An instance that no check has seen yet; `health` is what it counts as until then.
    pub fn new(
        identity: Identity,
        config: &types::Instance,
        health: Health,
        limits: Option<types::Breaker>,
        workers: usize,
        roster: Weak<Roster>,
    ) -> Self {
        let (membership, breaker) = (Membership::Present, Breaker::default());
        let axes = Axes { membership, admin: Admin::Active, health, breaker, limits };
        let eligibility = AtomicU8::new(pack(axes.fold()));
        Self {
            identity,
            address: config.address.clone(),
            weight: AtomicU32::new(config.weight),
            limits: limits_of(config).map(AtomicU32::new),
            axes: Mutex::new(axes),
            eligibility,
            distress: AtomicU8::new(Distress::Fine as u8),
            calm: AtomicBool::new(true),
            departures: Departures::default(),
            presence: Presence::default(),
            sessions: Sessions::new(Instant::now()),
            gone: Notify::new(),
            lanes: (0..workers).map(|_| Lane::default()).collect(),
            roster,
        }
    }

    /// Who it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Where it listens: `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Its share of new sessions.
    pub fn weight(&self) -> u32 {
        self.weight.load(Ordering::Relaxed)
    }

    /// The part that belongs to one worker.
    pub fn lane(&self, worker: usize) -> &Lane {
        &self.lanes[worker]
    }

    /// All parts, for sums.
    pub fn lanes(&self) -> &[Lane] {
        &self.lanes
    }

    /// Requests and tunnels in flight, over all workers.
    pub fn load(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.requests() + lane.tunnels()).sum()
    }

    /// The most that it may have in flight of this kind; 0 for no limit.
    pub fn limit(&self, kind: Kind) -> u32 {
        self.limits[kind as usize].load(Ordering::Relaxed)
    }

    /// What counts against that limit now.
    fn taken(&self, kind: Kind) -> u64 {
        self.lanes.iter().map(|lane| lane.taken(kind)).sum()
    }

    /// Whether it has as much in flight of this kind as it may.
    pub fn is_full(&self, kind: Kind) -> bool {
        let limit = self.limit(kind);
        limit > 0 && self.taken(kind) >= u64::from(limit)
    }

    /// About how many sessions are bound to it and live. One in a tunnel makes no requests.
    pub fn session_count(&self, now: Instant) -> u64 {
        self.sessions.estimate(now).max(self.lanes.iter().map(Lane::tunnels).sum())
    }

    /// What it may receive now.
    pub fn eligibility(&self) -> Eligibility {
        unpack(self.eligibility.load(Ordering::Acquire))
    }

    /// Whether requests should stop waiting for it.
    pub fn distress(&self) -> Distress {
        match self.distress.load(Ordering::Acquire) {
            0 => Distress::Fine,
            1 => Distress::Unanswered,
            _ => Distress::Dead,
        }
    }

    /// What health checks say of it.
    pub fn health(&self) -> Health {
        self.axes().health
    }

    /// Whether the configuration names it.
    pub fn membership(&self) -> Membership {
        self.axes().membership
    }

    /// What the operator says of it.
    pub fn admin(&self) -> Admin {
        self.axes().admin
    }

    /// What its breaker lets through.
    pub fn passage(&self) -> Passage {
        self.axes().breaker.passage()
    }

    /// When its tunnels end, and why, if they must.
    pub fn departure(&self) -> Option<Departure> {
        if !self.departures.any() {
            return None;
        }
        let websocket = self.roster.upgrade()?.websocket();
        let ends = |cause: Cause| cause.exit(&websocket.closes).action == types::Action::Close;
        self.departures.next(ends)
    }

    /// When its drain ends, if it was removed, dead or not.
    pub fn removal(&self) -> Option<Departure> {
        self.departures.of(Cause::Removed)
    }

    /// Says when its tunnels end.
    pub fn depart(&self, departure: Departure) {
        self.departures.begin(departure);
    }

    /// Calls a removal off.
    pub(crate) fn stay(&self) {
        self.departures.call_off(Cause::Removed);
    }

    /// Whether its breaker would let an attempt begin now. Takes nothing: the permit that a
    /// half-open breaker asks for is taken by [`Trial::begin`].
    pub fn admits(&self) -> bool {
        if self.calm.load(Ordering::Relaxed) {
            return true;
        }
        let axes = self.axes();
        axes.limits.is_none_or(|limits| axes.breaker.admits(&limits))
    }

    /// Whether a request that is bound to none may come here, if there is a place.
    pub(crate) fn takes_new_sessions(&self) -> bool {
        self.weight() > 0 && self.eligibility().new_sessions && self.admits()
    }

    /// Whether a request may come here that has nowhere else to go.
    fn could_help(&self) -> bool {
        self.weight() > 0 && self.eligibility().bound.is_ok() && self.admits()
    }

    /// Whether only its breaker keeps requests from it that have nowhere else to go.
    fn is_held_back(&self) -> bool {
        self.membership() == Membership::Present
            && matches!(self.eligibility().bound, Ok(()) | Err(Rehome::BreakerOpen))
    }

    fn permit(&self) -> Option<Permit> {
        if self.calm.load(Ordering::Relaxed) {
            return None;
        }
        let mut axes = self.axes();
        let limits = axes.limits?;
        axes.breaker.permit(&limits)
    }

    fn give_back(&self, permit: Permit) {
        self.axes().breaker.give_back(permit);
    }

    /// A verdict of health checks.
    pub fn set_health(&self, health: Health, reason: &str) {
        let mut axes = self.axes();
        let before = std::mem::replace(&mut axes.health, health);
        if before == health {
            return;
        }
        // What the breaker learnt is older than a check that has just passed.
        let change = if health == Health::Ready { axes.breaker.reset() } else { None };
        self.publish(axes);
        self.departs(Cause::Dead, before == Health::Dead, health == Health::Dead);
        self.departs(Cause::Unready, is_unready(before), is_unready(health));
        events::health_changed(&self.identity, before, health, reason);
        self.tell(change);
    }

    fn departs(&self, cause: Cause, did: bool, does: bool) {
        if did && !does {
            self.departures.call_off(cause);
        } else if does
            && !did
            && let Some(roster) = self.roster.upgrade()
        {
            let window = cause.window(&roster.websocket().closes, Drain::default());
            self.depart(Departure::begin(cause, window, Instant::now()));
        }
    }

    /// Takes over what the operator wants of it. Gives the drain that begins, if one does: whoever
    /// reloads waits for its end.
    pub(crate) fn administer(&self, wanted: State, config: &types::Version) -> Option<Departure> {
        let mut axes = self.axes();
        let (admin, cause) = match (wanted, axes.admin) {
            (State::Active, Admin::Active)
            | (State::Draining, Admin::Draining | Admin::Drained)
            | (State::Disabled, Admin::Disabled) => return None,
            (State::Active, _) => (Admin::Active, None),
            (State::Draining, _) => (Admin::Draining, Some(Cause::Draining)),
            (State::Disabled, _) => (Admin::Disabled, Some(Cause::Disabled)),
        };
        axes.admin = admin;
        self.fold(&axes);
        drop(axes);
        self.departures.call_off(Cause::Draining);
        self.departures.call_off(Cause::Disabled);
        let window = cause?.window(&config.websocket.closes, config.drain);
        let departure = Departure::begin(cause?, window, Instant::now());
        self.depart(departure);
        (departure.cause == Cause::Draining).then_some(departure)
    }

    /// Its drain has come to its end, if that is still the drain that it is in; whether it was.
    pub fn finish_drain(&self, drain: Departure) -> bool {
        let mut axes = self.axes();
        let is_it =
            axes.admin == Admin::Draining && self.departures.of(Cause::Draining) == Some(drain);
        if is_it {
            axes.admin = Admin::Drained;
            self.publish(axes);
        }
        is_it
    }

    /// The configuration names it again, or no longer, or its drain is over.
    pub(crate) fn set_membership(&self, membership: Membership) {
        let mut axes = self.axes();
        axes.membership = membership;
        self.fold(&axes);
        drop(axes);
        if membership == Membership::Gone {
            self.gone.notify_waiters();
        }
    }

    /// Whether it accepts connections now; `false` only for certain.
    pub async fn listens(&self) -> bool {
        self.presence.look(&self.address).await
    }

    /// Resolves when it is gone for good.
    pub async fn gone(&self) {
        let gone = self.gone.notified();
        if self.membership() != Membership::Gone {
            gone.await;
        }
    }

    /// What a reload may change in place.
    pub(crate) fn reconfigure(&self, config: &types::Instance, limits: Option<types::Breaker>) {
        self.weight.store(config.weight, Ordering::Relaxed);
        for (known, limit) in self.limits.iter().zip(limits_of(config)) {
            known.store(limit, Ordering::Relaxed);
        }
        let mut axes = self.axes();
        axes.limits = limits;
        let change = match limits {
            Some(limits) => axes.breaker.relimit(&limits),
            None => axes.breaker.reset(),
        };
        self.fold(&axes);
        drop(axes);
        self.tell(change);
    }

    /// It answered a request.
    pub fn succeeded(&self, trial: Option<Trial>) {
        if self.calm.load(Ordering::Relaxed) {
            return;
        }
        let permit = trial.and_then(Trial::end);
        let mut axes = self.axes();
        let Some(limits) = axes.limits else { return };
        let change = axes.breaker.succeeded(permit, &limits);
        self.calm.store(axes.breaker.is_calm(), Ordering::Relaxed);
        if change.is_some() {
            self.publish(axes);
            self.tell(change);
        }
    }

    /// A request to it failed without an answer. Gives the instant when an opened breaker is due.
    pub fn failed(&self, trial: Option<Trial>, now: Instant) -> Option<Instant> {
        let permit = trial.and_then(Trial::end);
        let mut axes = self.axes();
        let limits = axes.limits?;
        let change = axes.breaker.failed(permit, &limits, now);
        self.calm.store(axes.breaker.is_calm(), Ordering::Relaxed);
        let Some(Change::Opened { until }) = change else { return None };
        self.publish(axes);
        self.tell(change);
        Some(until)
    }

    /// Lets an open breaker begin its trials when it is time.
    pub fn tick(&self, now: Instant) {
        let mut axes = self.axes();
        let change = axes.breaker.tick(now);
        if change.is_some() {
            self.publish(axes);
            self.tell(change);
        }
    }

    fn axes(&self) -> MutexGuard<'_, Axes> {
        self.axes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fold(&self, axes: &Axes) {
        self.eligibility.store(pack(axes.fold()), Ordering::Release);
        self.calm.store(axes.breaker.is_calm(), Ordering::Relaxed);
        let distress = match axes.health {
            Health::Dead => Distress::Dead,
            Health::Unanswered => Distress::Unanswered,
            Health::Unknown | Health::Ready | Health::Unready => Distress::Fine,
        };
        self.distress.store(distress as u8, Ordering::Release);
    }

    /// Folds, then lets everybody see it: the roster first, so that what is woken chooses anew.
    fn publish(&self, axes: MutexGuard<'_, Axes>) {
        self.fold(&axes);
        drop(axes);
        if let Some(roster) = self.roster.upgrade() {
            roster.refresh();
        }
        if self.distress() != Distress::Fine {
            self.lanes.iter().for_each(Lane::alarm);
        }
    }

    fn tell(&self, change: Option<Change>) {
        if let Some(change) = change {
            events::breaker_changed(&self.identity, change);
        }
    }

    /// The roster it belongs to, while that exists.
    pub fn roster(&self) -> Option<Arc<Roster>> {
        self.roster.upgrade()
    }
}

impl Axes {
    fn fold(&self) -> Eligibility {
        health::eligibility(self.membership, self.admin, self.health, self.breaker.passage())
    }
}

/// In the order of [`Kind`].
fn limits_of(config: &types::Instance) -> [u32; 2] {
    [config.max_requests, config.max_tunnels].map(Option::unwrap_or_default)
}

fn is_unready(health: Health) -> bool {
    matches!(health, Health::Unready | Health::Unanswered)
}

const NEW_SESSIONS: u8 = 0x80;

/// One byte: bit 7 for new sessions, below it 0 or the reason's place in [`Rehome::ALL`] plus one.
fn pack(eligibility: Eligibility) -> u8 {
    let reason = match eligibility.bound {
        Ok(()) => 0,
        Err(reason) => {
            let place = Rehome::ALL.iter().position(|known| *known == reason);
            place.expect("ALL lists every reason") as u8 + 1
        }
    };
    reason | if eligibility.new_sessions { NEW_SESSIONS } else { 0 }
}

fn unpack(byte: u8) -> Eligibility {
    let bound = match byte & !NEW_SESSIONS {
        0 => Ok(()),
        place => Err(Rehome::ALL[usize::from(place) - 1]),
    };
    Eligibility { new_sessions: byte & NEW_SESSIONS != 0, bound }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eligibility_survives_packing() {
        for bound in Rehome::ALL.into_iter().map(Err).chain([Ok(())]) {
            for new_sessions in [true, false] {
                let eligibility = Eligibility { new_sessions, bound };
                assert_eq!(unpack(pack(eligibility)), eligibility);
            }
        }
    }
}
