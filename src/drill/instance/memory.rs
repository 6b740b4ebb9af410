//! What an instance remembers of its sessions, and what all instances together did only once.
//! Pure; knows no wire.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

/// The memory of one instance; gone when it crashes.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Requests by session.
    pub(super) seen: HashMap<String, u64>,
    pub(super) polls: HashMap<String, Poll>,
}

/// A long-polling session.
#[derive(Debug, Clone, Default)]
pub(super) struct Poll {
    pub(super) unread: Arc<Mutex<VecDeque<String>>>,
    pub(super) bell: Arc<Notify>,
}

impl Poll {
    pub(super) fn push(&self, message: String) {
        self.unread.lock().unwrap_or_else(PoisonError::into_inner).push_back(message);
        self.bell.notify_one();
    }

    pub(super) fn take(&self) -> Vec<String> {
        self.unread.lock().unwrap_or_else(PoisonError::into_inner).drain(..).collect()
    }
}

/// What must be done once, and how often it was: shared by all instances of a drill.
#[derive(Debug, Default)]
pub(in crate::drill) struct Ledger(Mutex<HashMap<String, u32>>);

impl Ledger {
    pub(super) fn note(&self, id: &str) {
        let mut done = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *done.entry(id.to_owned()).or_default() += 1;
    }

    /// How many things were done more than once.
    pub(in crate::drill) fn repeated(&self) -> u64 {
        let done = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        done.values().filter(|times| **times > 1).count() as u64
    }
}
