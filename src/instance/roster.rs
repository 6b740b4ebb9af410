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

use crate::balance::{self, Draw, Field, Ring, Rotation};
use crate::config::types::{self, Balance, Drain};
use crate::health::{Health, Membership, Rehome};
use crate::instance::budget::Budget;
use crate::instance::moves::Moves;
use crate::instance::panic::Panic;
use crate::instance::rate::Rate;
use crate::instance::rehomes::Rehomes;
use crate::instance::tally::Tally;
pub use crate::instance::tally::count;
use crate::instance::{Departure, Identity, Instance, Lane, Source};

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
    balance: Balance,
    /// Present ones in the order of the configuration, then removed ones that still drain; last of
    /// all removed ones whose name is another's now.
    all: Arc<[Arc<Instance>]>,
    /// So many of them are present.
    present: usize,
    /// So many of them have their name for themselves.
    named: usize,
    by_name: Arc<HashMap<String, Arc<Instance>>>,
    field: Field,
}

impl Roster {
    /// A version without instances yet.
    pub fn new(service: &str, version: &str, now: Instant) -> Self {
        let empty = Members {
            balance: Balance::Even,
            all: Arc::default(),
            present: 0,
            named: 0,
            by_name: Arc::default(),
            field: Field { rotation: Rotation::default(), ring: None },
        };
        Self {
            service: service.to_owned(),
            version: version.to_owned(),
            members: ArcSwap::from_pointee(empty),
            remake: Mutex::new(()),
            ejecting: Mutex::new(()),
            turn: AtomicU64::new(0),
            websocket: ArcSwap::default(),
            care: Mutex::default(),
            panic: Panic::default(),
            ramping: AtomicBool::new(false),
            is_set_up: AtomicBool::new(false),
            budget: Budget::new(now),
            upgrades: Rate::new(now),
            rehomes: Rehomes::default(),
            moves: Moves::default(),
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

    /// Chooses for a request that is bound to none; never one of `tried`.
    pub fn choose(&self, draw: Draw<'_>, tried: &[Arc<Instance>]) -> Option<Arc<Instance>> {
        let members = self.members();
        let load = |index: usize| {
            let instance = &members.all[index];
            instance.load() * 100_000 / u64::from(instance.effective_weight().max(1))
        };
        let refused = |index: usize| {
            let instance = &members.all[index];
            tried.iter().any(|tried| Arc::ptr_eq(tried, instance)) || !instance.admits()
        };
        balance::choose(&members.balance, &members.field, &self.turn, draw, load, refused)
            .map(|index| Arc::clone(&members.all[index]))
            .or_else(|| members.last_resort(draw.random, tried))
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
        let verdict = match instance.eligibility().bound {
            Ok(()) if instance.has_lost(renewed) => Err(Rehome::Restarted),
            Ok(()) if !instance.admits() => Err(Rehome::BreakerOpen),
            verdict => verdict,
        };
        match verdict {
            // Nobody else could do better: see `Members::last_resort`.
            Err(Rehome::BreakerOpen) if !self.has_others(instance) => {}
            verdict => verdict?,
        }
        Ok(Arc::clone(instance))
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
        self.publish(config.balance.clone(), all);
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
        self.publish(before.balance.clone(), all);
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
        self.panic.look(self, &before.all);
        let field = Field { rotation: rotation(&before.all), ring: before.field.ring.clone() };
        self.members.store(Arc::new(Members {
            balance: before.balance.clone(),
            all: Arc::clone(&before.all),
            present: before.present,
            named: before.named,
            by_name: Arc::clone(&before.by_name),
            field,
        }));
    }

    /// Publishes these. Of several with one name the first takes over its sessions at once.
    fn publish(&self, balance: Balance, instances: Vec<Arc<Instance>>) {
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
        let ring = match &balance {
            Balance::Hash(_) => ring(&all, before.field.ring.as_deref()),
            Balance::Even | Balance::LeastRequests | Balance::Random => None,
        };
        let field = Field { rotation: rotation(&all), ring: ring.map(Arc::new) };
        let (all, by_name) = (all.into(), Arc::new(by_name));
        self.members.store(Arc::new(Members { balance, all, present, named, by_name, field }));
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

    /// Where a request goes that no present instance takes: after a reload that replaced them all,
    /// to one that is removed and still serves its sessions; else to one that only its breaker
    /// keeps from new sessions, be it open or without a permit for a trial. The breaker spares
    /// clients a detour; where there is nowhere else to go, a try is better than an error for
    /// certain.
    fn last_resort(&self, random: u64, tried: &[Arc<Instance>]) -> Option<Arc<Instance>> {
        let is_fresh = |instance: &Arc<Instance>| {
            instance.weight() > 0 && !tried.iter().any(|tried| Arc::ptr_eq(tried, instance))
        };
        let is_held_back = |instance: &Arc<Instance>| {
            instance.membership() == Membership::Present
                && matches!(instance.eligibility().bound, Ok(()) | Err(Rehome::BreakerOpen))
        };
        let fresh = || self.all.iter().filter(|instance| is_fresh(instance));
        let mut left: Vec<_> = fresh().filter(|instance| instance.could_help()).collect();
        if left.is_empty() {
            left = fresh().filter(|instance| is_held_back(instance)).collect();
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

fn rotation(all: &[Arc<Instance>]) -> Rotation {
    let weighted = all.iter().enumerate();
    let open = weighted.filter(|(_, instance)| instance.eligibility().new_sessions);
    let open: Vec<_> = open.map(|(index, instance)| (index, instance.effective_weight())).collect();
    Rotation::build(&open)
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
