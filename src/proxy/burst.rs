//! The first streams of one HTTP/2 connection.
//!
//! A browser asks for several things at once before it has its cookie, and each would begin a session
//! of its own. Streams that are in flight at once on one connection and bring no token land together.
//! Nothing that comes later is bound by that: only its token binds a request.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::instance::{Instance, Roster};

/// Where the streams of a connection go that are in flight and brought no token.
#[derive(Debug, Default)]
pub struct Burst(Mutex<Option<Together>>);

#[derive(Debug)]
struct Together {
    instance: Arc<Instance>,
    streams: usize,
}

/// Whether a stream is one of those.
#[derive(Debug, Default)]
pub struct Joined(AtomicBool);

impl Burst {
    /// Where the others went, if that `fits`, else what `make` gives, where the others will go. Counts
    /// the stream that asks.
    pub fn share(
        &self,
        stream: &Joined,
        roster: &Roster,
        fits: impl FnOnce(&Arc<Instance>) -> bool,
        make: impl FnOnce() -> Option<Arc<Instance>>,
    ) -> Option<Arc<Instance>> {
        let mut slot = self.slot();
        let is_ours = |known: &Arc<Instance>| {
            known.roster().is_some_and(|of| std::ptr::eq(Arc::as_ptr(&of), roster))
        };
        if let Some(together) = &mut *slot {
            if !is_ours(&together.instance) {
                // One connection may lead to several versions; the first of them has the place.
                return make();
            }
            if !fits(&together.instance) {
                together.instance = make()?;
            }
            together.streams += usize::from(!stream.0.swap(true, Ordering::Relaxed));
            return Some(Arc::clone(&together.instance));
        }
        let instance = make()?;
        stream.0.store(true, Ordering::Relaxed);
        *slot = Some(Together { instance: Arc::clone(&instance), streams: 1 });
        Some(instance)
    }

    /// Where the others went.
    pub fn instance(&self) -> Option<Arc<Instance>> {
        self.slot().as_ref().map(|together| Arc::clone(&together.instance))
    }

    /// The stream is in flight no longer.
    pub fn leave(&self, stream: &Joined) {
        if !stream.0.swap(false, Ordering::Relaxed) {
            return;
        }
        let mut slot = self.slot();
        if let Some(together) = &mut *slot {
            together.streams -= 1;
        }
        slot.take_if(|together| together.streams == 0);
    }

    fn slot(&self) -> MutexGuard<'_, Option<Together>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn roster(text: &str) -> Arc<Roster> {
        let config = crate::config::parse(text, std::path::Path::new("c.yaml")).unwrap().config;
        let roster = Arc::new(Roster::new("s", "v", Instant::now()));
        roster.reconcile(&config.services[0].versions[0], 1);
        roster
    }

    #[test]
    fn streams_land_together_for_as_long_as_one_is_in_flight() {
        let roster = roster("instances: [a:1, b:1]");
        let [a, b] = [0, 1].map(|place| Arc::clone(&roster.members().all()[place]));
        let burst = Burst::default();
        let [one, two, three] = [(); 3].map(|()| Joined::default());
        let go = |stream: &Joined, to: &Arc<Instance>| {
            burst.share(stream, &roster, |_| true, || Some(Arc::clone(to))).unwrap()
        };
        assert!(Arc::ptr_eq(&go(&one, &a), &a));
        assert!(Arc::ptr_eq(&go(&two, &b), &a), "together");
        assert!(Arc::ptr_eq(&go(&two, &b), &a), "asking again counts once");
        burst.leave(&one);
        burst.leave(&one);
        assert!(Arc::ptr_eq(&go(&three, &b), &a), "the second is still in flight");
        burst.leave(&two);
        burst.leave(&three);
        assert!(Arc::ptr_eq(&go(&one, &b), &b), "nobody was");
    }

    #[test]
    fn all_follow_when_the_instance_no_longer_fits_and_other_versions_are_let_alone() {
        let (ours, other) = (roster("instances: [a:1, b:1]"), roster("instances: [c:1]"));
        let [a, b] = [0, 1].map(|place| Arc::clone(&ours.members().all()[place]));
        let c = Arc::clone(&other.members().all()[0]);
        let burst = Burst::default();
        let [one, two, three] = [(); 3].map(|()| Joined::default());
        burst.share(&one, &ours, |_| true, || Some(Arc::clone(&a)));
        let moved = burst.share(&two, &ours, |_| false, || Some(Arc::clone(&b)));
        assert!(Arc::ptr_eq(&moved.unwrap(), &b));
        let foreign = burst.share(&three, &other, |_| true, || Some(Arc::clone(&c)));
        assert!(Arc::ptr_eq(&foreign.unwrap(), &c));
        let again = burst.share(&one, &ours, |_| true, || None);
        assert!(Arc::ptr_eq(&again.unwrap(), &b));
    }
}
