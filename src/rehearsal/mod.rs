//! A drill on this balancer: what it may do, what it does, and how long it lasts. The balancer itself
//! enforces that, so that a drill whose operator is gone leaves nothing behind.
//!
//! ```text
//! begin ─ inject, undo, inject .. ─ end      the operator's, by the admin API
//!      └─ lease, max_duration, min_healthy   [`guard`] looks, and undoes everything
//! ```
//!
//! One at a time. Nothing of it is written anywhere: a restart or an upgrade ends it. Read [`Rehearsals`]
//! first; [`guard`] has the verbs.

pub mod fault;
pub mod guard;
mod safety;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::Notify;

use crate::instance::Roster;
use fault::{Fault, Hits, Kind};

pub use safety::Least;

/// What whoever begins a drill promises.
#[derive(Debug, Clone)]
pub struct Terms {
    /// What it is called.
    pub name: String,
    /// Who holds it.
    pub holder: String,
    /// What each version that it touches keeps.
    pub min_healthy: Least,
    /// It is over by then.
    pub max_duration: Duration,
    /// It is over when nothing is heard of its holder for so long.
    pub lease: Duration,
}

/// The drill that runs.
#[derive(Debug)]
pub struct Running {
    /// By which its holder speaks of it.
    pub id: String,
    /// What was promised.
    pub terms: Terms,
    /// When it began.
    pub started: SystemTime,
    /// When it began.
    pub began: Instant,
    /// When something was last heard of its holder.
    heard: Instant,
    /// What is wrong on purpose now.
    pub faults: Vec<Fault>,
    /// The same, by whom it hits.
    hits: Hits,
    /// How many there were.
    pub injected: u64,
    /// Versions that it has touched.
    touched: Vec<Arc<Roster>>,
}

/// A drill that is over.
#[derive(Debug, Clone)]
pub struct Last {
    /// By which its holder spoke of it.
    pub id: String,
    /// What it was called.
    pub name: String,
    /// When it began.
    pub started: SystemTime,
    /// When it ended.
    pub ended: SystemTime,
    /// How many faults there were.
    pub injected: u64,
    /// How it ended.
    pub end: End,
}

/// How a drill ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// Its holder said so, and how it went.
    Told(String),
    /// It had to, for this reason.
    Aborted(String),
}

#[derive(Debug, Default)]
struct State {
    running: Option<Running>,
    last: Option<Last>,
}

/// The drill of this process, if one runs.
#[derive(Debug, Default)]
pub struct Rehearsals {
    state: Mutex<State>,
    injected: [AtomicU64; Kind::ALL.len()],
    /// Wakes the guard up.
    begun: Notify,
}

impl Rehearsals {
    /// Looks at the drill that runs, and at the one that ran last.
    pub fn look<T>(&self, look: impl FnOnce(Option<&Running>, Option<&Last>) -> T) -> T {
        let state = self.lock();
        look(state.running.as_ref(), state.last.as_ref())
    }

    /// The name of the drill that runs.
    pub fn name(&self) -> Option<String> {
        self.look(|running, _| running.map(|running| running.terms.name.clone()))
    }

    /// Faults of this kind that were injected.
    pub fn injected(&self, kind: Kind) -> u64 {
        self.injected[kind as usize].load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
