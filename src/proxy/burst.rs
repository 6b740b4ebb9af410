//! The first streams of one HTTP/2 connection.
//!
//! A browser asks for several things at once before it has its cookie, and each would begin a session
//! of its own. Streams that are in flight at once on one connection and bring no token land together.
//! Nothing that comes later is bound by that: only its token binds a request.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::instance::{Instance, Roster};

/// Versions that streams of one connection which bring no token land together in at the same time.
const MOST: usize = 8;

/// Where the streams of a connection go that are in flight and brought no token, by version.
#[derive(Debug, Default)]
pub struct Burst(Mutex<Vec<Together>>);

#[derive(Debug)]
struct Together {
    instance: Arc<Instance>,
    /// Of whom the instance is.
    roster: usize,
    streams: usize,
}

/// Of which version's streams one is; 0 for none.
#[derive(Debug, Default)]
pub struct Joined(AtomicUsize);

fn place(roster: &Roster) -> usize {
    std::ptr::from_ref(roster).addr()
}

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
        let of = place(roster);
        let mut all = self.all();
        let Some(known) = all.iter_mut().find(|it| it.roster == of) else {
            let instance = make()?;
            if all.len() < MOST && stream.0.swap(of, Ordering::Relaxed) == 0 {
                all.push(Together { instance: Arc::clone(&instance), roster: of, streams: 1 });
            }
            return Some(instance);
        };
        if !fits(&known.instance) {
            known.instance = make()?;
        }
        if stream.0.load(Ordering::Relaxed) == 0 {
            stream.0.store(of, Ordering::Relaxed);
            known.streams += 1;
        }
        Some(Arc::clone(&known.instance))
    }

    /// Where the others of a service went.
    pub fn instance(&self, service: &str) -> Option<Arc<Instance>> {
        let all = self.all();
        let together = all.iter().find(|it| it.instance.identity().service == service);
        together.map(|it| Arc::clone(&it.instance))
    }

    /// The stream is in flight no longer.
    pub fn leave(&self, stream: &Joined) {
        let of = stream.0.swap(0, Ordering::Relaxed);
        if of == 0 {
            return;
        }
        let mut all = self.all();
        if let Some(known) = all.iter_mut().find(|it| it.roster == of) {
            known.streams -= 1;
        }
        all.retain(|it| it.streams > 0);
    }

    fn all(&self) -> MutexGuard<'_, Vec<Together>> {
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
        // Each version has streams of its own, and all are forgotten at their end.
        let four = Joined::default();
        let joined = burst.share(&four, &other, |_| true, || None);
        assert!(Arc::ptr_eq(&joined.unwrap(), &c));
        assert!(burst.instance("t").is_none());
        [&one, &two, &three, &four].into_iter().for_each(|stream| burst.leave(stream));
        assert!(burst.instance("s").is_none());
    }
}
