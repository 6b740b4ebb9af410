//! The last thousand events, and whoever follows them.
//!
//! Each has a number, counted from 1 since the process began. A follower keeps the number that it has
//! seen last and asks for what came since; one that was too slow is told how many it has missed.
//! Nothing is kept for followers, so that none of them costs anything.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use serde_json::{Value, json};
use tokio::sync::watch;

use crate::observe::events::{Event, Kind};

/// How many are kept.
pub const KEPT: usize = 1000;

/// An event that has happened.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its number.
    pub id: u64,
    /// When it happened.
    pub at: SystemTime,
    /// What happened.
    pub event: Event,
}

impl Entry {
    /// As the API tells of it.
    pub fn to_json(&self) -> Value {
        json!({
            "id": self.id,
            "at": humantime::format_rfc3339_millis(self.at).to_string(),
            "kind": self.event.kind().label(),
            "severity": self.event.severity().label(),
            "instance": self.event.instance(),
            "text": self.event.text(),
            "fields": self.event.fields(),
        })
    }
}

/// What came since a follower last asked.
#[derive(Debug, Default)]
pub struct Page {
    /// So many came that are kept no longer.
    pub missed: u64,
    /// The others, the oldest first.
    pub entries: Vec<Arc<Entry>>,
}

#[derive(Debug, Default)]
struct Ring {
    last: u64,
    entries: VecDeque<Arc<Entry>>,
    counts: [u64; Kind::ALL.len()],
}

/// See the module.
#[derive(Debug, Default)]
pub struct Journal {
    ring: Mutex<Ring>,
    last: watch::Sender<u64>,
}

impl Journal {
    /// Takes note of what has just happened.
    pub fn note(&self, event: Event) {
        let at = SystemTime::now();
        let mut ring = self.ring();
        ring.last += 1;
        ring.counts[event.kind() as usize] += 1;
        let id = ring.last;
        if ring.entries.len() == KEPT {
            ring.entries.pop_front();
        }
        ring.entries.push_back(Arc::new(Entry { id, at, event }));
        // In the order of their numbers.
        self.last.send_replace(id);
    }

    /// Up to `most` that came after number `seen`. One that was never given is of a process before
    /// this one, and all came after it.
    pub fn since(&self, seen: u64, most: usize) -> Page {
        let ring = self.ring();
        let seen = if seen > ring.last { 0 } else { seen };
        let oldest = ring.entries.front().map_or(ring.last + 1, |entry| entry.id);
        let missed = oldest.saturating_sub(seen + 1);
        let skipped = (seen + 1).saturating_sub(oldest) as usize;
        let entries = ring.entries.iter().skip(skipped).take(most).cloned().collect();
        Page { missed, entries }
    }

    /// The number of the last one, 0 if there is none.
    pub fn last(&self) -> u64 {
        *self.last.borrow()
    }

    /// Tells of each new number.
    pub fn follow(&self) -> watch::Receiver<u64> {
        self.last.subscribe()
    }

    /// How many there were of this kind.
    pub fn count(&self, kind: Kind) -> u64 {
        self.ring().counts[kind as usize]
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(page: &Page) -> Vec<u64> {
        page.entries.iter().map(|entry| entry.id).collect()
    }

    fn noted(events: u64) -> Journal {
        let journal = Journal::default();
        for count in 0..events {
            journal.note(Event::Stopping { connections: count, tunnels: 0 });
        }
        journal
    }

    #[test]
    fn a_follower_gets_what_came_since_it_last_asked() {
        let journal = noted(5);
        assert_eq!(ids(&journal.since(0, 10)), [1, 2, 3, 4, 5]);
        assert_eq!(ids(&journal.since(3, 10)), [4, 5]);
        assert_eq!(ids(&journal.since(1, 2)), [2, 3], "a page at a time");
        let page = journal.since(5, 10);
        assert_eq!((page.entries.len(), page.missed, journal.last()), (0, 0, 5));
        assert_eq!(journal.count(Kind::Drain), 5);
    }

    #[test]
    fn a_slow_follower_is_told_how_many_it_has_missed() {
        let journal = noted(KEPT as u64 + 50);
        let page = journal.since(10, KEPT * 2);
        assert_eq!((page.missed, page.entries.len(), page.entries[0].id), (40, KEPT, 51));
        assert_eq!(journal.since(50, 1).missed, 0, "exactly what is kept");
    }

    #[test]
    fn a_number_of_another_process_brings_everything() {
        let journal = noted(3);
        assert_eq!(ids(&journal.since(400, 10)), [1, 2, 3]);
        assert_eq!(ids(&noted(0).since(400, 10)), [0; 0]);
    }

    #[test]
    fn followers_wake_up_and_see_it() {
        let journal = noted(0);
        let mut follower = journal.follow();
        assert!(!follower.has_changed().unwrap());
        journal.note(Event::Stopping { connections: 1, tunnels: 2 });
        assert_eq!(*follower.borrow_and_update(), 1);
        let told = journal.since(0, 1).entries[0].to_json();
        assert_eq!((&told["id"], &told["kind"]), (&json!(1), &json!("drain")));
        assert!(told["at"].as_str().unwrap().ends_with('Z'), "{told}");
    }
}
