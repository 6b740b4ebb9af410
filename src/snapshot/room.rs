//! How long kept connections may rest while descriptors run short: less and less, until there is room
//! for whoever waits to be let in. So those go first that have rested longest.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// Any time, in milliseconds.
const ANY: u64 = u64::MAX;
/// The first that must go have rested so long, in milliseconds,
const FIRST: u64 = 32_000;
/// and the last so long: somebody may be about to ask for the next thing of a page.
const LAST: u64 = 1_000;

/// See the module.
#[derive(Debug)]
pub struct Room {
    most: AtomicU64,
    called: Notify,
}

impl Default for Room {
    fn default() -> Self {
        Self { most: AtomicU64::new(ANY), called: Notify::new() }
    }
}

impl Room {
    /// How long a connection may rest now.
    pub fn most(&self) -> Duration {
        Duration::from_millis(self.most.load(Ordering::Relaxed))
    }

    /// Asks for more room: who has rested half as long must go as well.
    pub fn make(&self) {
        let less = |most: u64| Some(if most == ANY { FIRST } else { (most / 2).max(LAST) });
        // It always has an answer.
        let _ = self.most.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        self.called.notify_waiters();
    }

    /// There is room enough.
    pub fn suffices(&self) {
        self.most.store(ANY, Ordering::Relaxed);
    }

    /// Resolves when more room is asked for, from when this is called.
    pub fn called(&self) -> Notified<'_> {
        self.called.notified()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn less_and_less_until_it_suffices() {
        let room = Room::default();
        assert_eq!(room.most(), Duration::from_millis(ANY));
        let called = room.called();
        room.make();
        called.await;
        let seconds: Vec<_> = std::iter::repeat_with(|| {
            let now = room.most().as_secs();
            room.make();
            now
        })
        .take(8)
        .collect();
        assert_eq!(seconds, [32, 16, 8, 4, 2, 1, 1, 1]);
        room.suffices();
        assert_eq!(room.most(), Duration::from_millis(ANY));
    }
}
