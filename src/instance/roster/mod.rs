//! The instances of one version: who they are, whose turn it is, what the version as a whole may
//! still spend.
//!
//! [`Members`] is published whole whenever an instance joins, leaves or changes what it may
//! receive; a request loads it once and needs no lock.

mod members;
#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Guard};

use crate::balance::{self, Bound, Draw};
use crate::config::types::{self, Balance, Drain};
use crate::doctor::evidence::Evidence;
use crate::health::breaker::Passage;
use crate::health::{Health, Membership, Rehome};
use crate::instance::budget::Budget;
use crate::instance::crowd::Crowd;
use crate::instance::moves::Moves;
use crate::instance::panic::Panic;
use crate::instance::queue::{Full, Queue, Ticket, Want};
use crate::instance::rate::Rate;
use crate::instance::recent::Recent;
use crate::instance::tally::Tally;
use crate::instance::{Cause, Departure, Identity, Instance, Kind, Lane, Source, events};
use crate::observe::events::Whose;
use crate::observe::journal::Journal;
use crate::observe::red::Red;
use crate::observe::trend::Trend;
use crate::tls::client::Connector;

pub use crate::instance::tally::count;
pub use members::Members;

use members::Manner;

/// An engine.io session that made no request for this long is forgotten. A client makes one each
/// `pingInterval`, 25 s by default, for as long as it polls.
const SID_LIFETIME: Duration = Duration::from_secs(300);
/// How long it is remembered where the session of an old token went: longer than any client takes to
/// use the new one.
const REHOME_LIFETIME: Duration = Duration::from_secs(10);
/// Whoever has not asked for so long has all of its quota again, whatever `burst` would say.
const QUOTA_LIFETIME: Duration = Duration::from_secs(3600);
/// How far apart the requests are that count as one client's first ones.
const BURST: Duration = Duration::from_secs(1);

/// The live side of a version.
#[derive(Debug)]
pub struct Roster {
    service: String,
    version: String,
    members: ArcSwap<Members>,
    /// Held while [`Members`] is made anew, so that no change is lost.
    remake: Mutex<()>,
    /// Held while one asks whether its breaker may open.
    ejecting: Mutex<()>,
    turn: AtomicU64,
    crowd: Crowd,
    websocket: ArcSwap<types::Websocket>,
    /// How connections to its instances are secured today.
    tls: Mutex<Option<types::InstanceTls>>,
    care: Mutex<Care>,
    panic: Panic,
    /// Whether an instance may be ramping up.
    ramping: AtomicBool,
    /// Whether a configuration has been taken over: before that, everything is new.
    is_set_up: AtomicBool,
    /// Credit for retries.
    pub budget: Budget,
    /// Of tunnels that are opened.
    upgrades: Rate,
    /// Where sessions went a moment ago, by the mark of the token that they came with. A client has
    /// several requests under way when its instance fails: the first decides, the others follow.
    pub rehomes: Recent<Arc<Instance>>,
    /// Clients that are to come back to another instance.
    pub moves: Moves,
    /// Requests that wait for a place.
    pub queue: Queue,
    /// Which instance issued an engine.io session id.
    pub sids: Recent<Arc<Instance>>,
    /// Where clients without a token went a moment ago.
    pub bursts: Recent<Arc<Instance>>,
    /// What clients have left of `rate_limit`.
    pub asked: Recent<Instant>,
    /// Takes note of what happens to it.
    pub journal: Arc<Journal>,
    /// What became of sessions.
    pub tally: Tally,
    /// What looks like a mistake.
    pub evidence: Evidence,
    /// What it has done lately.
    pub(super) trend: Trend,
    /// Its requests, by worker, once there are workers.
    reds: OnceLock<Box<[Red]>>,
}

/// How instances are treated that come, go or say something of themselves.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Care {
    pub(super) slow_start: Option<Duration>,
    pub(super) drain: Drain,
    pub(super) first_byte: Duration,
    /// Whether what they say of themselves counts.
    pub(super) heeds: bool,
}

impl Roster {
    /// A version without instances yet.
    pub fn new(service: &str, version: &str, now: Instant) -> Self {
        Self {
            service: service.to_owned(),
            version: version.to_owned(),
            members: ArcSwap::from_pointee(Members::default()),
            remake: Mutex::new(()),
            ejecting: Mutex::new(()),
            turn: AtomicU64::new(0),
            crowd: Crowd::new(now),
            websocket: ArcSwap::default(),
            tls: Mutex::default(),
            care: Mutex::default(),
            panic: Panic::default(),
            ramping: AtomicBool::new(false),
            is_set_up: AtomicBool::new(false),
            budget: Budget::new(now),
            upgrades: Rate::new(now),
            rehomes: Recent::new(REHOME_LIFETIME),
            moves: Moves::default(),
            queue: Queue::default(),
            sids: Recent::new(SID_LIFETIME),
            bursts: Recent::new(BURST),
            asked: Recent::new(QUOTA_LIFETIME),
            journal: Arc::default(),
            tally: Tally::default(),
            evidence: Evidence::new(now),
            trend: Trend::new(now),
            reds: OnceLock::new(),
        }
    }

    /// The same with a journal that it shares.
    pub fn noting(self, journal: &Arc<Journal>) -> Self {
        Self { journal: Arc::clone(journal), ..self }
    }

    /// Its name in events.
    pub fn whose(&self) -> Whose {
        Whose { service: self.service.clone(), version: self.version.clone(), instance: None }
    }

    /// Its service.
    pub fn service(&self) -> &str {
        &self.service
    }

    /// Its version.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// What this worker counts of its requests.
    pub fn red(&self, worker: usize) -> Option<&Red> {
        self.reds().get(worker)
    }

    /// What each worker has counted of its requests.
    pub fn reds(&self) -> &[Red] {
        self.reds.get().map_or(&[], |reds| reds)
    }

    /// What the configuration says of its tunnels today, however old they are.
    pub fn websocket(&self) -> Guard<Arc<types::Websocket>> {
        self.websocket.load()
    }

    /// What the configuration says of its instances today.
    pub(super) fn care(&self) -> Care {
        *self.care.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long they have for the first byte of an answer.
    pub fn first_byte(&self) -> Duration {
        self.care().first_byte
    }

    /// Whether unready instances serve, because too few are ready.
    pub fn is_in_panic(&self) -> bool {
        self.panic.is_on()
    }

    /// Whether an instance that the configuration names takes new sessions.
    pub fn is_served(&self) -> bool {
        let takes = |instance: &Arc<Instance>| {
            instance.eligibility().new_sessions && instance.effective_weight() > 0
        };
        self.members().present().iter().any(takes)
    }

    /// Whether one more tunnel may be opened now.
    pub fn admit_tunnel(&self, now: Instant) -> Option<()> {
        let limit = self.websocket().max_new_per_second;
        limit.is_none_or(|limit| self.upgrades.take(limit, now)).then_some(())
    }

    /// The instances as they stand; hold it no longer than it takes to choose.
    pub fn members(&self) -> Guard<Arc<Members>> {
        self.members.load()
    }

    /// Chooses for a request that is bound to none; never one of `tried`, nor one without a place.
    pub fn choose(
        &self,
        draw: Draw<'_>,
        kind: Kind,
        tried: &[Arc<Instance>],
    ) -> Option<Arc<Instance>> {
        self.choose_by(&self.turn, draw, kind, tried)
    }

    /// The same for a second instance beside the first of `tried`. It takes nobody's turn: else who
    /// is slow would be first again and again, where there are two.
    pub fn choose_beside(
        &self,
        draw: Draw<'_>,
        kind: Kind,
        tried: &[Arc<Instance>],
    ) -> Option<Arc<Instance>> {
        let turn = AtomicU64::new(self.turn.load(Ordering::Relaxed));
        self.choose_by(&turn, draw, kind, tried)
    }

    /// The same by turns of somebody's own.
    pub fn choose_by(
        &self,
        turn: &AtomicU64,
        draw: Draw<'_>,
        kind: Kind,
        tried: &[Arc<Instance>],
    ) -> Option<Arc<Instance>> {
        let members = self.members();
        let (balance, field) = (&members.manner.balance, &members.field);
        // Asking for it costs as much as choosing does.
        let now = OnceCell::new();
        let load = |index: usize| {
            let instance = &members.all[index];
            let carried = match balance {
                Balance::LeastSessions => instance.session_count(*now.get_or_init(Instant::now)),
                Balance::Even | Balance::LeastRequests | Balance::Random | Balance::Hash(_) => {
                    instance.load()
                }
            };
            carried * 100_000 / u64::from(instance.effective_weight().max(1))
        };
        let refused = |index: usize| {
            let instance = &members.all[index];
            tried.iter().any(|tried| Arc::ptr_eq(tried, instance))
                || !instance.admits()
                || instance.is_full(kind)
        };
        let choose = |bound: Option<Bound>| {
            let full = |index: usize| {
                let instance = &members.all[index];
                bound.is_some_and(|bound| bound.is_full(instance.load(), instance.weight()))
            };
            let refused = |index| refused(index) || full(index);
            balance::choose(balance, field, turn, draw, load, refused)
        };
        let bound = draw.key.and(members.manner.load_factor);
        let bound = bound.map(|factor| self.crowd.bound(&members, factor));
        let chosen = choose(bound).or_else(|| bound.and_then(|_| choose(None)));
        chosen
            .map(|index| Arc::clone(&members.all[index]))
            .or_else(|| members.last_resort(draw.random, kind, tried))
    }

    /// Whether somebody who is bound to none would only have to wait for a place.
    pub fn is_full(&self, kind: Kind, tried: &[Arc<Instance>]) -> bool {
        let is_fresh = |it: &Arc<Instance>| !tried.iter().any(|tried| Arc::ptr_eq(tried, it));
        let members = self.members();
        let welcomes = |it: &Arc<Instance>| members.welcomes(it);
        members.all.iter().any(|it| it.is_full(kind) && is_fresh(it) && welcomes(it))
    }

    /// Waits for a place at the instance that `want` is bound to, or at any.
    pub fn wait(&self, want: Want, max: usize) -> Result<Ticket<'_>, Full> {
        let (kind, bound) = (want.kind, want.bound.clone());
        let ticket = self.queue.join(want, max)?;
        match bound {
            // It may have been let down since it was last looked at.
            Some(bound) if !self.keeps_waiters(&bound) => self.queue.evict(&bound),
            Some(bound) => self.serve(&bound, kind),
            None => {
                let members = self.members();
                let vacant = members.all.iter().filter(|instance| !instance.is_full(kind));
                vacant.for_each(|instance| self.serve(instance, kind));
            }
        }
        Ok(ticket)
    }

    /// Lets those in that `instance` has a place for now.
    pub fn serve(&self, instance: &Arc<Instance>, kind: Kind) {
        if !self.queue.is_empty() {
            // On trial one follows the other.
            let most = if instance.passage() == Passage::Passes { usize::MAX } else { 1 };
            self.queue.serve(instance, kind, self.members().welcomes(instance), most);
        }
    }

    /// Whether those who are bound to it do well to wait for a place there.
    fn keeps_waiters(&self, instance: &Arc<Instance>) -> bool {
        match instance.eligibility().bound {
            Ok(()) => true,
            Err(Rehome::BreakerOpen) => !self.has_others(instance),
            Err(_) => false,
        }
    }

    /// Whether an instance other than this one could serve what this one can't.
    pub fn has_others(&self, instance: &Arc<Instance>) -> bool {
        let others = self.members();
        others.all.iter().any(|other| !Arc::ptr_eq(other, instance) && other.could_help())
    }

    /// Whether an instance that is none of `tried` has a place for what `instance` is late with.
    pub fn has_untried(
        &self,
        instance: &Arc<Instance>,
        kind: Kind,
        tried: &[Arc<Instance>],
    ) -> bool {
        let is_fresh = |other: &Arc<Instance>| {
            !Arc::ptr_eq(other, instance) && !tried.iter().any(|tried| Arc::ptr_eq(tried, other))
        };
        let members = self.members();
        members.all.iter().any(|it| is_fresh(it) && !it.is_full(kind) && it.could_help())
    }

    /// The instance of this name, if it may serve a session bound to it, or renewed, at `renewed` in
    /// seconds since the epoch.
    pub fn bound(&self, name: &str, renewed: u64) -> Result<Arc<Instance>, Rehome> {
        let members = self.members();
        let instance = members.named(name).ok_or(Rehome::Removed)?;
        self.serves(instance, renewed)?;
        Ok(Arc::clone(instance))
    }

    /// Whether this instance may serve a session bound to it, or renewed, at `renewed`.
    pub fn serves(&self, instance: &Arc<Instance>, renewed: u64) -> Result<(), Rehome> {
        let verdict = match instance.eligibility().bound {
            Ok(()) if instance.has_lost(renewed) => Err(Rehome::Restarted),
            Ok(()) if !instance.admits() => Err(Rehome::BreakerOpen),
            verdict => verdict,
        };
        match verdict {
            // Nobody else could do better: see `Members::last_resort`.
            Err(Rehome::BreakerOpen) if !self.has_others(instance) => Ok(()),
            verdict => verdict,
        }
    }

    /// Whether the breaker of `instance` may open; then it counts as open from now on. `share` is
    /// `max_ejected`.
    pub(super) fn eject(&self, instance: &Instance, share: u32) -> bool {
        let _guard = self.ejecting.lock().unwrap_or_else(PoisonError::into_inner);
        let members = self.members();
        let present = members.present();
        let ejected = present.iter().filter(|instance| instance.is_ejected()).count();
        let most = (present.len() as u64 * u64::from(share) / 10_000).max(1);
        let may = (ejected as u64) < most;
        if may {
            instance.eject();
        }
        may
    }

    /// Takes over what the configuration says. Gives the instances that are new and those that it
    /// no longer names.
    pub fn reconcile(self: &Arc<Self>, config: &types::Version, workers: usize) -> Reconciled {
        let _guard = self.remake.lock().unwrap_or_else(PoisonError::into_inner);
        self.websocket.store(Arc::new(config.websocket.clone()));
        let heeds = config.readiness_check.as_ref().is_some_and(|check| check.agent);
        let (slow_start, first_byte) = (config.slow_start, config.timeouts.first_byte);
        let care = Care { slow_start, drain: config.drain, first_byte, heeds };
        *self.care.lock().unwrap_or_else(PoisonError::into_inner) = care;
        self.panic.limit(config.panic_threshold);
        let before = self.members.load_full();
        self.reds.get_or_init(|| (0..workers).map(|_| Red::default()).collect());
        let mut reconciled = Reconciled::default();
        let mut all = Vec::with_capacity(config.instances.len());
        let known = before.all.iter();
        let known: HashMap<_, _> =
            known.map(|known| ((&*known.identity().name, known.address()), known)).collect();
        for instance in &config.instances {
            match known.get(&(&*instance.name, &*instance.address)).copied() {
                Some(known) => {
                    known.reconfigure(instance, config);
                    known.set_membership(Membership::Present);
                    known.stay();
                    all.push(Arc::clone(known));
                }
                None => {
                    let added = Arc::new(self.admit(config, instance, workers));
                    reconciled.added.push(Arc::clone(&added));
                    all.push(added);
                }
            }
            let Some(here) = all.last() else { continue };
            if !heeds {
                here.ignore_report();
            }
            let closes = &config.websocket.closes;
            if let Some(drain) =
                here.administer(Source::Operator, instance.state, closes, config.drain)
            {
                reconciled.draining.push((Arc::clone(here), drain));
            }
        }
        let kept: HashSet<_> = all.iter().map(Arc::as_ptr).collect();
        for known in before.all.iter().filter(|known| !kept.contains(&Arc::as_ptr(known))) {
            if known.membership() == Membership::Present {
                reconciled.removed.push(Arc::clone(known));
            }
            known.set_membership(Membership::Removed);
            all.push(Arc::clone(known));
        }
        self.secure(config.tls.as_ref(), &before.all, &reconciled.added);
        self.is_set_up.store(true, Ordering::Relaxed);
        self.publish(Manner::of(config), all);
        reconciled
    }

    /// Has connections to new instances secured, and if that is to be done in another way than
    /// before, those to all others too.
    fn secure(
        &self,
        tls: Option<&types::InstanceTls>,
        before: &[Arc<Instance>],
        added: &[Arc<Instance>],
    ) {
        let mut today = self.tls.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = today.as_ref() != tls;
        let connector = tls.map(Connector::new);
        let others = before.iter().filter(|_| changed);
        for instance in others.chain(added.iter().filter(|_| tls.is_some())) {
            let target = |it: &Connector| it.target(instance.address());
            instance.secure(connector.as_ref().map(target));
        }
        if changed {
            *today = tls.cloned();
        }
    }

    /// Forgets an instance whose drain is over, unless it was named again meanwhile.
    pub fn forget(&self, instance: &Arc<Instance>) {
        let _guard = self.remake.lock().unwrap_or_else(PoisonError::into_inner);
        if instance.membership() == Membership::Present {
            return;
        }
        instance.set_membership(Membership::Gone);
        events::drain_ended(instance, Cause::Removed);
        self.queue.evict(instance);
        instance.lanes().iter().for_each(|lane| lane.pool.clear());
        let before = self.members.load_full();
        let kept = instance.lanes().iter().map(Lane::kept).sum();
        self.tally.kept.fetch_add(kept, Ordering::Relaxed);
        let all =
            before.all.iter().filter(|known| !Arc::ptr_eq(known, instance)).cloned().collect();
        self.publish(before.manner.clone(), all);
    }

    /// How long an instance that begins to take new sessions takes fewer; from now on one does.
    pub(super) fn begin_ramp(&self) -> Option<Duration> {
        let slow_start = self.care().slow_start;
        if slow_start.is_some() {
            self.ramping.store(true, Ordering::Relaxed);
        }
        slow_start
    }

    /// Lets instances that ramp up take what they may by now.
    pub fn advance_ramps(&self, now: Instant) {
        if !self.ramping.swap(false, Ordering::Relaxed) {
            return;
        }
        let (members, slow_start) = (self.members(), self.care().slow_start);
        // All of them, not any of them.
        let ramping =
            members.everyone().iter().filter(|instance| instance.advance_ramp(now, slow_start));
        if ramping.count() > 0 {
            self.ramping.store(true, Ordering::Relaxed);
        }
        self.refresh();
    }

    /// Publishes what the instances may receive now.
    pub(super) fn refresh(&self) {
        let _guard = self.remake.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.members.load_full();
        self.panic.look(self, before.everyone());
        self.members.store(Arc::new(before.anew()));
        self.call_waiters(before.everyone());
    }

    /// Lets those who wait see what the instances may receive now.
    fn call_waiters(&self, all: &[Arc<Instance>]) {
        if self.queue.is_empty() {
            return;
        }
        for instance in all {
            if self.keeps_waiters(instance) {
                self.serve(instance, Kind::Request);
                self.serve(instance, Kind::Tunnel);
            } else {
                self.queue.evict(instance);
            }
        }
    }

    /// Publishes these. Of several with one name the first takes over its sessions at once.
    fn publish(&self, manner: Manner, instances: Vec<Arc<Instance>>) {
        self.panic.look(self, &instances);
        let members = Arc::new(Members::of(manner, instances, &self.members()));
        self.members.store(Arc::clone(&members));
        self.call_waiters(members.everyone());
    }

    fn admit(
        self: &Arc<Self>,
        config: &types::Version,
        instance: &types::Instance,
        workers: usize,
    ) -> Instance {
        let identity = Identity {
            service: self.service.clone(),
            version: self.version.clone(),
            name: instance.name.clone(),
        };
        let unseen = config.readiness_check.as_ref().map(|check| check.initial_state);
        let health = match unseen {
            Some(types::InitialState::Unknown) => Health::Unknown,
            Some(types::InitialState::Ready) | None => Health::Ready,
        };
        let roster = Arc::downgrade(self);
        let admitted = Instance::new(identity, instance, health, config, workers, roster);
        if self.is_set_up.load(Ordering::Relaxed) {
            admitted.joins_others();
        }
        admitted
    }
}

impl Roster {
    /// Requests that reached their bound instance.
    pub fn kept(&self) -> u64 {
        let members = self.members();
        let here = members.everyone().iter().flat_map(|instance| instance.lanes()).map(Lane::kept);
        here.sum::<u64>() + self.tally.kept.load(Ordering::Relaxed)
    }
}

impl Reconciled {
    /// Takes note of who came and went.
    pub(crate) fn tell(&self) {
        for (added, instances) in [(true, &self.added), (false, &self.removed)] {
            if let Some(roster) = instances.first().and_then(|first| first.roster()) {
                events::exchanged(&roster, added, instances);
            }
        }
    }
}

/// What a reload did to a version's instances.
#[derive(Debug, Default)]
pub struct Reconciled {
    /// Not known before.
    pub added: Vec<Arc<Instance>>,
    /// No longer named.
    pub removed: Vec<Arc<Instance>>,
    /// The operator drains them from now on.
    pub draining: Vec<(Arc<Instance>, Departure)>,
}
