//! A short memory of where sessions were re-homed to.
//!
//! A client has several requests under way when its instance fails, all with the same old token.
//! Each would be spread elsewhere; instead the first one decides and the others follow, until the
//! client has its fresh token. Touched only when a session moves.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::instance::Instance;

/// How long an old token is remembered: longer than any client takes to use the new one.
const MEMORY: Duration = Duration::from_secs(10);
/// Sessions remembered at once; beyond it the memory starts anew rather than grow.
const MOST: usize = 100_000;

/// Where sessions went, by the mark of the token they came with.
#[derive(Debug, Default)]
pub struct Rehomes {
    moved: Mutex<Moved>,
}

type Moved = HashMap<u64, (Arc<Instance>, Instant)>;

impl Rehomes {
    /// Where the session with this token went a moment ago.
    pub fn find(&self, mark: u64, now: Instant) -> Option<Arc<Instance>> {
        let moved = self.moved.lock().unwrap_or_else(PoisonError::into_inner);
        let (instance, at) = moved.get(&mark)?;
        (now.saturating_duration_since(*at) < MEMORY).then(|| Arc::clone(instance))
    }

    /// Where the session with this token went a moment ago, if it `fits`, else where `make` says, which is
    /// noted. Of several that ask at the same time, whatever their workers, only one has it made.
    pub fn share(
        &self,
        mark: u64,
        now: Instant,
        fits: impl FnOnce(&Arc<Instance>) -> bool,
        make: impl FnOnce() -> Option<Arc<Instance>>,
    ) -> Option<Arc<Instance>> {
        let mut moved = self.moved.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((instance, at)) = moved.get(&mark)
            && now.saturating_duration_since(*at) < MEMORY
            && fits(instance)
        {
            return Some(Arc::clone(instance));
        }
        let made = make()?;
        insert(&mut moved, mark, Arc::clone(&made), now);
        Some(made)
    }

    /// Notes where the session with this token goes.
    pub fn note(&self, mark: u64, instance: Arc<Instance>, now: Instant) {
        let mut moved = self.moved.lock().unwrap_or_else(PoisonError::into_inner);
        insert(&mut moved, mark, instance, now);
    }

    /// Lets go of what is older than the memory, so that removed instances can go.
    pub fn sweep(&self, now: Instant) {
        let mut moved = self.moved.lock().unwrap_or_else(PoisonError::into_inner);
        moved.retain(|_, (_, at)| now.saturating_duration_since(*at) < MEMORY);
        moved.shrink_to(1024);
    }
}

fn insert(moved: &mut Moved, mark: u64, instance: Arc<Instance>, now: Instant) {
    if moved.len() >= MOST {
        moved.retain(|_, (_, at)| now.saturating_duration_since(*at) < MEMORY);
    }
    if moved.len() >= MOST {
        moved.clear();
    }
    moved.insert(mark, (instance, now));
}
