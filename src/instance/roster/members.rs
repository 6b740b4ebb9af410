//! The instances of a version as they stand: made whole, and read without a lock.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use crate::balance::{Field, Ring, Rotation};
use crate::config::types::{self, Balance};
use crate::health::Membership;
use crate::instance::{Instance, Kind};

/// The instances of a version as they stand.
#[derive(Debug, Default)]
pub struct Members {
    pub(super) manner: Manner,
    /// Present ones in the order of the configuration, then removed ones that still drain; last of
    /// all removed ones whose name is another's now.
    pub(super) all: Arc<[Arc<Instance>]>,
    /// So many of them are present.
    present: usize,
    /// So many of them have their name for themselves.
    named: usize,
    by_name: Arc<HashMap<String, Arc<Instance>>>,
    pub(super) field: Field,
    /// Of those in the rotation.
    weight: u64,
}

/// How a version chooses.
#[derive(Debug, Clone, Default)]
pub(super) struct Manner {
    pub(super) balance: Balance,
    /// Whether requests may bring a key whatever `balance` is.
    keyed: bool,
    pub(super) load_factor: Option<u32>,
}

impl Manner {
    pub(super) fn of(config: &types::Version) -> Self {
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

impl Members {
    /// These. Of several with one name the first takes over its sessions at once. `before` may have a
    /// ring to begin with.
    pub(super) fn of(manner: Manner, instances: Vec<Arc<Instance>>, before: &Self) -> Self {
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
        let ring = manner.has_ring().then(|| ring(&all, before.field.ring.as_deref())).flatten();
        let (rotation, weight) = rotation(&all);
        let field = Field { rotation, ring: ring.map(Arc::new) };
        let (all, by_name) = (all.into(), Arc::new(by_name));
        Self { manner, all, present, named, by_name, field, weight }
    }

    /// The same, with what they may receive now.
    pub(super) fn anew(&self) -> Self {
        let (rotation, weight) = rotation(&self.all);
        Self {
            manner: self.manner.clone(),
            all: Arc::clone(&self.all),
            present: self.present,
            named: self.named,
            by_name: Arc::clone(&self.by_name),
            field: Field { rotation, ring: self.field.ring.clone() },
            weight,
        }
    }

    /// The one of this name.
    pub(super) fn named(&self, name: &str) -> Option<&Arc<Instance>> {
        self.by_name.get(name)
    }

    /// Instances that may be chosen, the sum of their weights, and of what is in flight there.
    pub(in crate::instance) fn crowd(&self) -> (usize, u64, impl FnOnce() -> u64) {
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
    pub(super) fn welcomes(&self, instance: &Instance) -> bool {
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
    pub(super) fn last_resort(
        &self,
        random: u64,
        kind: Kind,
        tried: &[Arc<Instance>],
    ) -> Option<Arc<Instance>> {
        let is_untried = |it: &Arc<Instance>| !tried.iter().any(|tried| Arc::ptr_eq(tried, it));
        let is_full =
            |it: &Arc<Instance>| it.is_full(kind) && it.takes_new_sessions() && is_untried(it);
        // A place at one of those is worth waiting for.
        if self.all.iter().any(is_full) {
            return None;
        }
        let is_fresh = |instance: &Arc<Instance>| {
            instance.weight() > 0 && !instance.is_full(kind) && is_untried(instance)
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
