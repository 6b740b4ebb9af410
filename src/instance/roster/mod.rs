//! The instances of one version: who they are, whose turn it is, what the version as a whole may
//! still spend.
//!
//! [`Members`] is published whole whenever an instance joins, leaves or changes what it may
//! receive; a request loads it once and needs no lock.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Guard};

use crate::balance::{self, Bound, Draw, Field, Ring, Rotation};
use crate::config::types::{self, Balance, Drain};
use crate::health::{Health, Membership, Rehome};
use crate::instance::budget::Budget;
use crate::instance::crowd::Crowd;
use crate::instance::moves::Moves;
use crate::instance::panic::Panic;
use crate::instance::queue::{Full, Queue, Ticket, Want};
use crate::instance::rate::Rate;
use crate::instance::recent::Recent;
use crate::instance::rehomes::Rehomes;
use crate::instance::tally::Tally;
pub use crate::instance::tally::count;
use crate::instance::{Departure, Identity, Instance, Kind, Lane, Source};

/// An engine.io session that made no request for this long is forgotten. A client makes one each
/// `pingInterval`, 25 s by default, for as long as it polls.
const SID_LIFETIME: Duration = Duration::from_secs(300);

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
    /// Where sessions went.
    pub rehomes: Rehomes,
    /// Clients that are to come back to another instance.
    pub moves: Moves,
    /// Requests that wait for a place.
    pub queue: Queue,
    /// Which instance issued an engine.io session id.
    pub sids: Recent<Arc<Instance>>,
    /// Where clients without a token went a moment ago.
    pub bursts: Recent<Arc<Instance>>,
    /// What became of sessions.
    pub tally: Tally,
}

/// How instances are treated that come, go or say something of themselves.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Care {
    pub(super) slow_start: Option<Duration>,
    pub(super) drain: Drain,
    /// Whether what they say of themselves counts.
    pub(super) heeds: bool,
}

/// The instances of a version as they stand.
#[derive(Debug)]
pub struct Members {
    manner: Manner,
    /// Present ones in the order of the configuration, then removed ones that still drain; last of
    /// all removed ones whose name is another's now.
    all: Arc<[Arc<Instance>]>,
    /// So many of them are present.
    present: usize,
    /// So many of them have their name for themselves.
    named: usize,
    by_name: Arc<HashMap<String, Arc<Instance>>>,
    field: Field,
    /// Of those in the rotation.
    weight: u64,
}

/// How a version chooses.
#[derive(Debug, Clone, Default)]
struct Manner {
    balance: Balance,
    /// Whether requests may bring a key whatever `balance` is.
    keyed: bool,
    load_factor: Option<u32>,
}

impl Manner {
    fn of(config: &types::Version) -> Self {
        let affinity = config.affinity.as_ref();
        Self {
            balance: config.balance.clone(),
            keyed: affinity.is_some_and(|affinity| affinity.by.is_some()),
            load_factor: affinity.and_then(|affinity| affinity.load_factor),
        }
    }

    fn has_ring(&self) -> bool {
        self.keyed
            || match self.balance {
                Balance::Hash(_) => true,
                Balance::Even | Balance::LeastRequests | Balance::LeastSessions => false,
                Balance::Random => false,
            }
    }
}

impl Roster {
    /// A version without instances yet.
    pub fn new(service: &str, version: &str, now: Instant) -> Self {
        let empty = Members {
            manner: Manner::default(),
            all: Arc::default(),
            present: 0,
            named: 0,
            by_name: Arc::default(),
            field: Field { rotation: Rotation::default(), ring: None },
            weight: 0,
        };
        Self {
            service: service.to_owned(),
            version: version.to_owned(),
            members: ArcSwap::from_pointee(empty),
            remake: Mutex::new(()),
            ejecting: Mutex::new(()),
            turn: AtomicU64::new(0),
            crowd: Crowd::new(now),
            websocket: ArcSwap::default(),
            care: Mutex::default(),
            panic: Panic::default(),
            ramping: AtomicBool::new(false),
            is_set_up: AtomicBool::new(false),
            budget: Budget::new(now),
            upgrades: Rate::new(now),
            rehomes: Rehomes::default(),
            moves: Moves::default(),
            queue: Queue::default(),
            sids: Recent::new(SID_LIFETIME),
            bursts: Recent::new(BURST),
            tally: Tally::default(),
        }
    }

    /// Its service.
    pub fn service(&self) -> &str {
        &self.service
    }

    /// Its version.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// What the configuration says of its tunnels today, however old they are.
    pub fn websocket(&self) -> Guard<Arc<types::Websocket>> {
        self.websocket.load()
    }

    /// What the configuration says of its instances today.
    pub(super) fn care(&self) -> Care {
        *self.care.lock().unwrap_or_else(PoisonError::into_inner)
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
        let members = self.members();
        let (balance, field) = (&members.manner.balance, &members.field);
        let load = |index: usize| {
            let instance = &members.all[index];
            let carried = match balance {
                Balance::LeastSessions => instance.session_count(Instant::now()),
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
            balance::choose(balance, field, &self.turn, draw, load, refused)
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
        let kind = want.kind;
        let ticket = self.queue.join(want, max)?;
        let members = self.members();
        members.all.iter().for_each(|instance| self.serve(instance, kind));
        Ok(ticket)
    }

    /// Lets those in that `instance` has a place for now.
    pub(super) fn serve(&self, instance: &Arc<Instance>, kind: Kind) {
        if !self.queue.is_empty() {
            self.queue.serve(instance, kind, self.members().welcomes(instance));
        }
    }

    /// Whether an instance other than this one could serve what this one can't.
    pub fn has_others(&self, instance: &Arc<Instance>) -> bool {
        let others = self.members();
        others.all.iter().any(|other| !Arc::ptr_eq(other, instance) && other.could_help())
    }

    /// The instance of this name, if it may serve a session bound to it, or renewed, at `renewed` in
    /// seconds since the epoch.
    pub fn bound(&self, name: &str, renewed: u64) -> Result<Arc<Instance>, Rehome> {
        let members = self.members();
        let instance = members.by_name.get(name).ok_or(Rehome::Removed)?;
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
        let care = Care { slow_start: config.slow_start, drain: config.drain, heeds };
        *self.care.lock().unwrap_or_else(PoisonError::into_inner) = care;
        self.panic.limit(config.panic_threshold);
        let before = self.members.load_full();
        let mut reconciled = Reconciled::default();
        let mut all = Vec::with_capacity(config.instances.len());
        let known = before.all.iter();
        let known: HashMap<_, _> =
            known.map(|known| ((&*known.identity().name, known.address()), known)).collect();
        for instance in &config.instances {
            match known.get(&(&*instance.name, &*instance.address)).copied() {
                Some(known) => {
                    known.reconfigure(instance, config.breaker);
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
        self.is_set_up.store(true, Ordering::Relaxed);
        self.publish(Manner::of(config), all);
        reconciled
    }

    /// Forgets an instance whose drain is over, unless it was named again meanwhile.
    pub fn forget(&self, instance: &Arc<Instance>) {
        let _guard = self.remake.lock().unwrap_or_else(PoisonError::into_inner);
        if instance.membership() == Membership::Present {
            return;
        }
        instance.set_membership(Membership::Gone);
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
        let members = self.members();
        // All of them, not any of them.
        let ramping = members.everyone().iter().filter(|instance| instance.advance_ramp(now));
        if ramping.count() > 0 {
            self.ramping.store(true, Ordering::Relaxed);
        }
        self.refresh();
    }

    /// Publishes what the instances may receive now.
    pub(super) fn refresh(&self) {
        let _guard = self.remake.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.members.load_full();
        self.panic.look(self, &before.all);
        let (rotation, weight) = rotation(&before.all);
        let field = Field { rotation, ring: before.field.ring.clone() };
        self.members.store(Arc::new(Members {
            manner: before.manner.clone(),
            all: Arc::clone(&before.all),
            present: before.present,
            named: before.named,
            by_name: Arc::clone(&before.by_name),
            field,
            weight,
        }));
        self.call_waiters(&before.all);
    }

    /// Lets those who wait see what the instances may receive now.
    fn call_waiters(&self, all: &[Arc<Instance>]) {
        if self.queue.is_empty() {
            return;
        }
        for instance in all {
            let bound = instance.eligibility().bound;
            let stays = bound == Err(Rehome::BreakerOpen) && !self.has_others(instance);
            if bound.is_ok() || stays {
                self.serve(instance, Kind::Request);
                self.serve(instance, Kind::Tunnel);
            } else {
                self.queue.evict(instance);
            }
        }
    }

    /// Publishes these. Of several with one name the first takes over its sessions at once.
    fn publish(&self, manner: Manner, instances: Vec<Arc<Instance>>) {
        let mut by_name = HashMap::with_capacity(instances.len());
        let (mut all, mut nameless) = (Vec::with_capacity(instances.len()), Vec::new());
        for instance in instances {
            match by_name.entry(instance.identity().name.clone()) {
                Entry::Vacant(free) => {
                    free.insert(Arc::clone(&instance));
                    all.push(instance);
                }
                Entry::Occupied(_) => nameless.push(instance),
            }
        }
        let named = all.len();
        let is_present = |instance: &&Arc<Instance>| instance.membership() == Membership::Present;
        let present = all.iter().take_while(is_present).count();
        all.append(&mut nameless);
        self.panic.look(self, &all);
        let before = self.members();
        let ring = manner.has_ring().then(|| ring(&all, before.field.ring.as_deref())).flatten();
        let (rotation, weight) = rotation(&all);
        let field = Field { rotation, ring: ring.map(Arc::new) };
        let (all, by_name): (Arc<[_]>, _) = (all.into(), Arc::new(by_name));
        let shared = Arc::clone(&all);
        let members = Members { manner, all: shared, present, named, by_name, field, weight };
        self.members.store(Arc::new(members));
        self.call_waiters(&all);
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
        let admitted = Instance::new(identity, instance, health, config.breaker, workers, roster);
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

impl Members {
    /// Instances that may be chosen, the sum of their weights, and of what is in flight there.
    pub(super) fn crowd(&self) -> (usize, u64, impl FnOnce() -> u64) {
        let loads = || {
            let all = self.all.iter().enumerate();
            let open = all.filter(|(index, _)| self.field.rotation.has(*index));
            open.map(|(_, instance)| instance.load()).sum()
        };
        (self.all.len(), self.weight, loads)
    }

    /// The instance of each name, draining ones last.
    pub fn all(&self) -> &[Arc<Instance>] {
        &self.all[..self.named]
    }

    /// Those that the configuration names.
    pub fn present(&self) -> &[Arc<Instance>] {
        &self.all[..self.present]
    }

    /// [`Self::all`], and the draining ones whose name is another's now.
    pub fn everyone(&self) -> &[Arc<Instance>] {
        &self.all
    }

    /// Whether a request that is bound to none may go to this instance, if there is a place: it
    /// takes new sessions, or nobody does and it would be a last resort.
    fn welcomes(&self, instance: &Instance) -> bool {
        let is_last = || {
            let takes = |it: &Arc<Instance>| it.takes_new_sessions();
            instance.weight() > 0
                && (instance.could_help() || instance.is_held_back())
                && !self.all.iter().any(takes)
        };
        instance.takes_new_sessions() || is_last()
    }

    /// Where a request goes that no present instance takes: after a reload that replaced them all,
    /// to one that is removed and still serves its sessions; else to one that only its breaker
    /// keeps from new sessions, be it open or without a permit for a trial. The breaker spares
    /// clients a detour; where there is nowhere else to go, a try is better than an error for
    /// certain.
    fn last_resort(
        &self,
        random: u64,
        kind: Kind,
        tried: &[Arc<Instance>],
    ) -> Option<Arc<Instance>> {
        let is_fresh = |instance: &Arc<Instance>| {
            instance.weight() > 0
                && !instance.is_full(kind)
                && !tried.iter().any(|tried| Arc::ptr_eq(tried, instance))
        };
        let fresh = || self.all.iter().filter(|instance| is_fresh(instance));
        let mut left: Vec<_> = fresh().filter(|instance| instance.could_help()).collect();
        if left.is_empty() {
            left = fresh().filter(|instance| instance.is_held_back()).collect();
        }
        let place = random.checked_rem(left.len() as u64)? as usize;
        Some(Arc::clone(left[place]))
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

/// Who may be chosen, and the sum of their weights.
fn rotation(all: &[Arc<Instance>]) -> (Rotation, u64) {
    let weighted = all.iter().enumerate();
    let open = weighted.filter(|(_, instance)| instance.eligibility().new_sessions);
    let open: Vec<_> = open.map(|(index, instance)| (index, instance.effective_weight())).collect();
    let weight = open.iter().map(|(index, _)| u64::from(all[*index].weight())).sum();
    (Rotation::build(&open), weight)
}

/// Every present instance, whatever its health: see [`Ring`].
fn ring<'a>(all: &'a [Arc<Instance>], before: Option<&Ring>) -> Option<Ring> {
    let present = all.iter().enumerate();
    let present = present.filter(|(_, instance)| instance.membership() == Membership::Present);
    let on_ring = |(index, instance): (usize, &'a Arc<Instance>)| {
        (index, instance.identity().name.as_str(), instance.weight())
    };
    Ring::build(present.map(on_ring), before)
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
