//! When too few instances of a version are ready, those that aren't serve too.
//!
//! What fails for most of them is rarely theirs: a shared database, the check itself. Sending
//! everything to the few that are left would bring those down as well.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::instance::{Instance, Roster, events};

/// Whether a version is in a panic, and below which share of ready instances it is.
#[derive(Debug, Default)]
pub(super) struct Panic {
    threshold: AtomicU32,
    is_on: AtomicBool,
}

/// Whether `ready` of `all` are below a share in basis points.
fn is_due(ready: usize, all: usize, threshold: u32) -> bool {
    (ready as u64) * 10_000 < all as u64 * u64::from(threshold)
}

impl Panic {
    /// Takes over the share that the configuration says.
    pub(super) fn limit(&self, threshold: u32) {
        self.threshold.store(threshold, Ordering::Relaxed);
    }

    pub(super) fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Relaxed)
    }

    /// Looks at the instances, and lets each know. Called while nobody else publishes.
    pub(super) fn look(&self, roster: &Roster, instances: &[Arc<Instance>]) {
        let threshold = self.threshold.load(Ordering::Relaxed);
        if threshold == 0 && !self.is_on() {
            return;
        }
        let standings: Vec<_> =
            instances.iter().filter_map(|instance| instance.standing()).collect();
        let ready = standings.iter().filter(|is_ready| **is_ready).count();
        let is_due = is_due(ready, standings.len(), threshold);
        if self.is_on.swap(is_due, Ordering::Relaxed) != is_due {
            events::panic_changed(roster, is_due, ready, standings.len());
        } else if !is_due {
            return;
        }
        instances.iter().for_each(|instance| instance.set_panic(is_due));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_due_below_the_share_and_never_without_instances() {
        for (ready, all, threshold, expected) in [
            (1, 2, 5000, false),
            (0, 2, 5000, true),
            (1, 3, 3334, true),
            (0, 0, 10_000, false),
            (0, 5, 0, false),
            (4, 5, 10_000, true),
        ] {
            assert_eq!(is_due(ready, all, threshold), expected, "{ready} of {all}, {threshold}");
        }
    }
}
