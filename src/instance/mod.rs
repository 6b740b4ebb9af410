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
pub mod disturbance;
mod drilled;
mod events;
pub mod http1;
mod in_flight;
pub mod kept;
pub mod lane;
mod life;
pub mod link;
pub mod mirrored;
pub mod moves;
mod outcome;
mod pace;
mod packed;
mod panic;
pub mod pool;
mod presence;
pub mod probes;
pub mod queue;
pub mod rate;
pub mod recent;
mod recently;
pub mod relay;
pub mod roster;
pub mod sessions;
mod share;
pub mod stream;
pub mod tally;
mod trial;
pub mod trunk;
mod verdict;
mod wishes;

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::config::overlay::Key;
use crate::config::types::{self, State};
use crate::health::breaker::{Breaker, Change, Passage};
use crate::health::{self, Admin, Eligibility, Health, Membership, Rehome};
use crate::observe::trend::Trend;
use crate::tls::client::Target;

pub use departure::{Cause, Departure};
pub use http1::answer::Interim;
pub use in_flight::{InFlight, Kind};
pub use lane::Lane;
pub use roster::{Members, Roster};
pub use trial::Trial;

use departure::Departures;
use disturbance::Disturbance;
use life::Life;
use pace::Pace;
use packed::{pack, unpack};
use presence::Presence;
use probes::Probes;
use sessions::Sessions;
use share::Share;

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

impl From<&Identity> for Key {
    /// What an override of it is found by.
    fn from(identity: &Identity) -> Self {
        let Identity { service, version, name } = identity.clone();
        Self { service, version, name }
    }
}

/// Who says that there is an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Namer {
    /// The file.
    File,
    /// The source that its version has.
    Discovery,
    /// Somebody who asked for it at run time.
    Api,
}

impl Namer {
    /// In order.
    pub const ALL: [Self; 3] = [Self::File, Self::Discovery, Self::Api];

    /// A word for it.
    pub const fn label(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Discovery => "discovery",
            Self::Api => "api",
        }
    }
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

/// Who wants something of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// The operator, by the configuration.
    Operator,
    /// The instance itself.
    Agent,
    /// A drill.
    Drill,
}

/// The axes, changed together with what is folded from them.
#[derive(Debug)]
struct Axes {
    membership: Membership,
    admin: Admin,
    /// What is wanted of it, by [`Source`].
    wanted: [State; 3],
    health: Health,
    /// Whether its source says that it can't serve.
    unready: bool,
    /// What a drill wants it to count as.
    drilled: Option<Health>,
    breaker: Breaker,
    limits: Option<types::Breaker>,
    /// Whether too few of its siblings are ready for its own readiness to matter.
    panic: bool,
}

/// One process that serves a version.
#[derive(Debug)]
pub struct Instance {
    identity: Identity,
    address: String,
    /// How new connections to it are secured, if they are.
    target: ArcSwapOption<Target>,
    weight: AtomicU32,
    /// `max_requests`, or less where `concurrency` says so, and `max_tunnels`; 0 for none.
    limits: [AtomicU32; 2],
    pace: Pace,
    share: Share,
    life: Life,
    axes: Mutex<Axes>,
    /// The fold of `axes`, see [`pack`].
    eligibility: AtomicU8,
    distress: AtomicU8,
    /// Whether the breaker is closed and has no failure to forget: the common case, for which a
    /// success takes no lock.
    calm: AtomicBool,
    /// Whether the breaker is other than closed.
    ejected: AtomicBool,
    /// Whether there are `disturbances`.
    disturbed: AtomicBool,
    disturbances: ArcSwapOption<Vec<Arc<Disturbance>>>,
    departures: Departures,
    presence: Presence,
    /// What it has done lately.
    trend: Trend,
    /// What probes found.
    pub probes: Probes,
    /// Those that are bound to it.
    pub sessions: Sessions,
    gone: Notify,
    /// Who named it; a place in [`Namer::ALL`].
    namer: AtomicU8,
    lanes: Box<[Lane]>,
    roster: Weak<Roster>,
}

impl Instance {
    /// An instance that no check has seen yet; `health` is what it counts as until then.
    pub fn new(
        identity: Identity,
        config: &types::Instance,
        health: Health,
        version: &types::Version,
        workers: usize,
        roster: Weak<Roster>,
    ) -> Self {
        let limits = version.breaker;
        let (membership, breaker) = (Membership::Present, Breaker::default());
        let wanted = [State::Active; 3];
        let admin = Admin::Active;
        let (unready, drilled, panic) = (config.unready, None, false);
        let axes =
            Axes { membership, admin, wanted, health, unready, drilled, breaker, limits, panic };
        let eligibility = AtomicU8::new(pack(axes.fold()));
        let new = Self {
            identity,
            address: config.address.clone(),
            target: ArcSwapOption::empty(),
            weight: AtomicU32::new(config.weight),
            limits: limits_of(config).map(AtomicU32::new),
            pace: Pace::new(Instant::now()),
            share: Share::default(),
            life: Life::default(),
            axes: Mutex::new(axes),
            eligibility,
            distress: AtomicU8::new(Distress::Fine as u8),
            calm: AtomicBool::new(true),
            ejected: AtomicBool::new(false),
            disturbed: AtomicBool::new(false),
            disturbances: ArcSwapOption::empty(),
            departures: Departures::default(),
            presence: Presence::default(),
            trend: Trend::new(Instant::now()),
            probes: Probes::default(),
            sessions: Sessions::new(Instant::now()),
            gone: Notify::new(),
            lanes: (0..workers).map(|_| Lane::default()).collect(),
            namer: AtomicU8::new(Namer::File as u8),
            roster,
        };
        new.set_pace(version.concurrency, config.max_requests);
        new
    }

    /// Who it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Where it listens: `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// How new connections to it are secured, if they are.
    pub fn target(&self) -> Option<Arc<Target>> {
        self.target.load_full()
    }

    /// Secures new connections in this way from now on. No older one gets another request.
    pub(crate) fn secure(&self, target: Option<Target>) {
        self.target.store(target.map(Arc::new));
        self.lanes.iter().for_each(|lane| lane.pool.renew());
    }

    /// Its share of new sessions.
    pub fn weight(&self) -> u32 {
        self.weight.load(Ordering::Relaxed)
    }

    /// The same now, in hundredths: less while it ramps up, or where it asks for less.
    pub fn effective_weight(&self) -> u32 {
        self.share.of(self.weight())
    }

    /// Others take new sessions already when it begins to.
    pub(crate) fn joins_others(&self) {
        self.begin_ramp();
        if self.eligibility().new_sessions {
            self.begin_ramp();
        }
    }

    /// Takes the next step of its ramp; whether there are more.
    pub(crate) fn advance_ramp(&self, now: Instant, slow_start: Option<Duration>) -> bool {
        self.share.advance(now, slow_start)
    }

    fn begin_ramp(&self) {
        let slow_start = || self.roster.upgrade().and_then(|roster| roster.begin_ramp());
        self.share.begin(slow_start, Instant::now());
    }

    /// Who named it.
    pub fn namer(&self) -> Namer {
        Namer::ALL[usize::from(self.namer.load(Ordering::Relaxed))]
    }

    /// It is named by this one.
    pub fn set_namer(&self, namer: Namer) {
        self.namer.store(namer as u8, Ordering::Relaxed);
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

    fn set_limit(&self, kind: Kind, limit: u32) {
        self.limits[kind as usize].store(limit, Ordering::Relaxed);
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
        let living = match self.eligibility().bound {
            // What was under way at the end of its drain is answered, and its session lives elsewhere.
            Err(Rehome::Drained) => 0,
            _ => self.sessions.estimate(now),
        };
        living.max(self.lanes.iter().map(Lane::tunnels).sum())
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

    /// What it counts as: what health checks say of it, or its source or a drill if that is worse.
    pub fn health(&self) -> Health {
        self.axes().seen()
    }

    /// Whether the configuration names it.
    pub fn membership(&self) -> Membership {
        self.axes().membership
    }

    /// What is wanted of it.
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
        events::drain_began(self, departure);
    }

    /// This task waits for the end of a departure, and no longer does where another one waits for a new
    /// end. A drain has begun with that.
    pub fn attend(&self, departure: Departure, vigil: AbortHandle) {
        self.departures.attend(departure.cause, vigil);
        if departure.cause == Cause::Draining {
            events::drain_began(self, departure);
        }
    }

    /// Calls a removal off.
    pub(crate) fn stay(&self) {
        if self.removal().is_some() {
            self.departures.call_off(Cause::Removed);
            events::drain_called_off(self);
        }
    }

    /// It has had `app_start_timeout` and is not ready, for this reason.
    pub(crate) fn starts_late(&self, reason: &str) {
        events::starts_late(self, reason);
    }

    /// Whether a request that is bound to none may come here, if there is a place.
    pub(crate) fn takes_new_sessions(&self) -> bool {
        self.effective_weight() > 0 && self.eligibility().new_sessions && self.admits()
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

    /// Whether it counts among those that `panic_threshold` is a share of, and as a ready one.
    pub(crate) fn standing(&self) -> Option<bool> {
        let axes = self.axes();
        let has_verdict = axes.seen() != Health::Unknown;
        let counts = axes.membership == Membership::Present && axes.admin == Admin::Active;
        (counts && has_verdict).then_some(axes.seen() == Health::Ready)
    }

    /// Whether its readiness matters from now on. Whoever says so publishes.
    pub(crate) fn set_panic(&self, panic: bool) {
        let mut axes = self.axes();
        if std::mem::replace(&mut axes.panic, panic) != panic {
            self.fold(&axes);
        }
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
    pub(crate) fn reconfigure(&self, config: &types::Instance, version: &types::Version) {
        let limits = version.breaker;
        self.weight.store(config.weight, Ordering::Relaxed);
        self.set_limit(Kind::Tunnel, config.max_tunnels.unwrap_or_default());
        self.set_pace(version.concurrency, config.max_requests);
        let mut axes = self.axes();
        axes.limits = limits;
        let change = match limits {
            Some(limits) => axes.breaker.relimit(&limits, Instant::now()),
            None => axes.breaker.reset(),
        };
        self.fold(&axes);
        drop(axes);
        self.tell(change);
        self.hear(config.unready);
    }

    fn axes(&self) -> MutexGuard<'_, Axes> {
        self.axes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fold(&self, axes: &Axes) {
        let eligibility = axes.fold();
        let before = unpack(self.eligibility.swap(pack(eligibility), Ordering::AcqRel));
        // In a panic all are as welcome as they can be.
        if eligibility.new_sessions && !before.new_sessions && !axes.panic {
            self.begin_ramp();
        }
        self.calm.store(axes.breaker.is_calm(), Ordering::Relaxed);
        self.ejected.store(axes.breaker.passage() != Passage::Passes, Ordering::Relaxed);
        let distress = match axes.health_that_counts() {
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
            events::breaker_changed(self, change);
            if let Some(roster) = self.roster.upgrade() {
                roster.tally.breaker_changed(change);
            }
        }
    }

    /// The roster it belongs to, while that exists.
    pub fn roster(&self) -> Option<Arc<Roster>> {
        self.roster.upgrade()
    }
}

impl Axes {
    fn fold(&self) -> Eligibility {
        let health = self.health_that_counts();
        health::eligibility(self.membership, self.admin, health, self.breaker.passage())
    }

    fn health_that_counts(&self) -> Health {
        match self.seen() {
            Health::Unready | Health::Unanswered if self.panic => Health::Ready,
            health => health,
        }
    }
}

/// In the order of [`Kind`].
fn limits_of(config: &types::Instance) -> [u32; 2] {
    [config.max_requests, config.max_tunnels].map(Option::unwrap_or_default)
}
