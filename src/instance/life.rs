//! Which of its lives an instance is in, as it tells in its answers, and when that began.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::config::types::OnRestart;
use crate::instance::{Instance, events};

/// The life of an instance.
#[derive(Debug, Default)]
pub(super) struct Life {
    incarnation: Mutex<Option<String>>,
    restarts: AtomicU64,
    /// Sessions bound before this are lost there: seconds since the epoch, 0 for none.
    lost_before: AtomicU64,
}

impl Life {
    /// What it was before, if this is another life. The first that is seen is none.
    fn replace(&self, incarnation: &str) -> Option<String> {
        let mut known = self.incarnation.lock().unwrap_or_else(PoisonError::into_inner);
        if known.as_deref() == Some(incarnation) {
            return None;
        }
        known.replace(incarnation.to_owned())
    }
}

impl Instance {
    /// It tells which of its lives it is in, at `now` in seconds since the epoch.
    pub fn lives(&self, incarnation: &str, on_restart: OnRestart, now: u64) {
        let Some(before) = self.life.replace(incarnation) else { return };
        self.life.restarts.fetch_add(1, Ordering::Relaxed);
        if on_restart == OnRestart::Rehome {
            self.life.lost_before.store(now, Ordering::Relaxed);
        }
        events::restarted(self, &before, incarnation);
    }

    /// Restarts that it told of.
    pub fn restarts(&self) -> u64 {
        self.life.restarts.load(Ordering::Relaxed)
    }

    /// Whether a session that was bound to it, or last renewed, at `renewed` is lost there. A session
    /// bound in the second in which the restart was noticed is not: it may be the new life's.
    pub fn has_lost(&self, renewed: u64) -> bool {
        renewed < self.life.lost_before.load(Ordering::Relaxed)
    }
}
