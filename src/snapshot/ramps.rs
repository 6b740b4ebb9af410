//! What is remembered of ramps that are under way from one look to the next, for those who look and those who tell.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::config::overlay::Ramp;
use crate::observe::judged::Judgement;
use crate::route::ramp::{Seen, Watch};
use crate::snapshot::Snapshot;

/// What a version that ramps up has answered, and what the others of its service have.
#[derive(Debug, Clone, Default)]
pub struct Sides {
    /// The version.
    pub own: Judgement,
    /// All others.
    pub others: Judgement,
}

impl Sides {
    /// Since they began to serve.
    pub fn of(snapshot: &Snapshot, service: &str, version: &str) -> Self {
        let of = |is_own: bool| {
            let all = snapshot.services().iter().map(|it| &it.roster);
            let mine = all.filter(|it| it.service() == service);
            let side = mine.filter(|it| (it.version() == version) == is_own);
            Judgement::of(side.flat_map(|it| it.reds()).map(|red| &red.judged))
        };
        Self { own: of(true), others: of(false) }
    }

    /// Since `before`, as it is judged.
    pub fn since(&self, before: &Self, quantile: u32) -> (Seen, Seen) {
        let seen = |judgement: Judgement| Seen {
            requests: judgement.requests,
            faults: judgement.faults,
            latency: judgement.latency(quantile),
        };
        (seen(self.own.since(&before.own)), seen(self.others.since(&before.others)))
    }
}

/// A ramp that is looked at.
#[derive(Debug)]
pub struct Watched {
    /// When it began: another one has another.
    since: u64,
    /// What is remembered.
    pub watch: Watch,
    /// As the window began.
    pub base: Sides,
}

/// All of them, by service.
#[derive(Debug, Default)]
pub struct Ramps(Mutex<BTreeMap<String, Watched>>);

impl Ramps {
    /// Looks at this ramp of a service, which is new where nothing is remembered of it.
    pub fn look<T>(
        &self,
        (service, ramp): (&str, &Ramp),
        fresh: impl FnOnce() -> Sides,
        now: Instant,
        look: impl FnOnce(&mut Watched) -> T,
    ) -> T {
        let mut all = self.lock();
        // Another ramp of the service is another matter.
        all.retain(|known, watched| known != service || watched.since == ramp.since);
        let fresh = || Watched { since: ramp.since, watch: Watch::new(now), base: fresh() };
        look(all.entry(service.to_owned()).or_insert_with(fresh))
    }

    /// What is remembered of this ramp.
    pub fn peek<T>(
        &self,
        service: &str,
        ramp: &Ramp,
        tell: impl FnOnce(&Watched) -> T,
    ) -> Option<T> {
        self.lock().get(service).filter(|known| known.since == ramp.since).map(tell)
    }

    /// Remembers only those of which `keep` says so.
    pub fn retain(&self, keep: impl Fn(&str) -> bool) {
        self.lock().retain(|service, _| keep(service));
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Watched>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
