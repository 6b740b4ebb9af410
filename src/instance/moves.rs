//! Clients whose tunnel was ended so that they come back to another instance.
//!
//! One with a session is recognised by its old token, and so are its other requests; of those
//! without, the next that opens a tunnel is taken for it. Touched only while a version rebalances.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::instance::Instance;

/// Who has not come back by then does not count as on its way any more.
const RETURN: Duration = Duration::from_secs(30);
/// An old token is remembered for this long.
const MEMORY: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Move {
    to: Arc<Instance>,
    /// What its session's token is remembered by.
    session: Option<u64>,
    at: Instant,
    came: bool,
}

/// The moves of a version.
#[derive(Debug, Default)]
pub struct Moves {
    any: AtomicBool,
    list: Mutex<Vec<Move>>,
    /// How many somebody asked for that have not begun.
    asked: AtomicUsize,
}

impl Moves {
    /// So many are asked for from now on.
    pub fn ask(&self, moves: usize) {
        self.asked.store(moves, Ordering::Relaxed);
    }

    /// Whether some are.
    pub fn are_asked_for(&self) -> bool {
        self.asked.load(Ordering::Relaxed) > 0
    }

    /// One that may have been asked for has begun.
    pub fn made_one(&self) {
        let less = |asked: usize| asked.checked_sub(1);
        // None were: one that the version itself asks for.
        let _ = self.asked.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// A client is on its way to `to`.
    pub fn begin(&self, to: Arc<Instance>, session: Option<u64>, now: Instant) {
        self.list().push(Move { to, session, at: now, came: false });
        self.any.store(true, Ordering::Release);
    }

    /// Where the session of this token is to go, if it is to move.
    pub fn follow(&self, session: u64) -> Option<Arc<Instance>> {
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        let mut list = self.list();
        let of_session = |known: &&mut Move| known.session == Some(session) && takes(&known.to);
        let known = list.iter_mut().rev().find(of_session)?;
        known.came = true;
        Some(Arc::clone(&known.to))
    }

    /// Where a tunnel of no session is to be opened, if somebody is expected.
    pub fn welcome(&self, now: Instant) -> Option<Arc<Instance>> {
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        let mut list = self.list();
        let is_expected =
            |known: &Move| known.session.is_none() && known.is_away(now) && takes(&known.to);
        let place = list.iter().position(is_expected)?;
        Some(list.swap_remove(place).to)
    }

    /// What [`Self::follow`] would give; nobody counts as come for it.
    pub fn sent(&self, session: u64) -> Option<Arc<Instance>> {
        let list = self.list();
        let known = list.iter().rev();
        let mut to = known.filter(|it| it.session == Some(session) && takes(&it.to));
        to.next().map(|known| Arc::clone(&known.to))
    }

    /// What [`Self::welcome`] would give; whoever is expected still is.
    pub fn awaited(&self, now: Instant) -> Option<Arc<Instance>> {
        let list = self.list();
        let is_expected =
            |known: &&Move| known.session.is_none() && known.is_away(now) && takes(&known.to);
        list.iter().find(is_expected).map(|known| Arc::clone(&known.to))
    }

    /// How many are on their way to `instance`.
    pub fn expected(&self, instance: &Arc<Instance>, now: Instant) -> usize {
        let list = self.list();
        list.iter().filter(|known| Arc::ptr_eq(&known.to, instance) && known.is_away(now)).count()
    }

    /// Forgets what is over.
    pub fn sweep(&self, now: Instant) {
        if !self.any.load(Ordering::Acquire) {
            return;
        }
        let mut list = self.list();
        list.retain(|known| now.saturating_duration_since(known.at) < MEMORY);
        self.any.store(!list.is_empty(), Ordering::Release);
    }

    fn list(&self) -> MutexGuard<'_, Vec<Move>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Move {
    fn is_away(&self, now: Instant) -> bool {
        !self.came && now.saturating_duration_since(self.at) < RETURN
    }
}

fn takes(instance: &Instance) -> bool {
    instance.eligibility().new_sessions && instance.admits()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instance::Roster;

    #[test]
    fn who_was_sent_away_is_expected_until_it_came() {
        let now = Instant::now();
        let roster = Arc::new(Roster::new("s", "v", now));
        let text = "instances: [a:1, b:1]";
        let config = crate::config::parse(text, std::path::Path::new("c.yaml")).unwrap().config;
        roster.reconcile(&config.services[0].versions[0], 1);
        let [a, b] = [0, 1].map(|place| Arc::clone(&roster.members().all()[place]));
        let moves = Moves::default();
        assert!(moves.follow(7).is_none() && moves.welcome(now).is_none());
        moves.begin(Arc::clone(&a), Some(7), now);
        moves.begin(Arc::clone(&b), None, now);
        assert_eq!((moves.expected(&a, now), moves.expected(&b, now)), (1, 1));
        assert!(moves.follow(8).is_none());
        assert!(moves.sent(8).is_none() && Arc::ptr_eq(&moves.sent(7).unwrap(), &a));
        assert_eq!(moves.expected(&a, now), 1, "somebody only looked");
        assert!(Arc::ptr_eq(&moves.follow(7).unwrap(), &a));
        assert_eq!(moves.expected(&a, now), 0, "it came");
        assert!(moves.follow(7).is_some(), "so do its other requests");
        assert!(Arc::ptr_eq(&moves.awaited(now).unwrap(), &b), "and is still expected");
        assert!(Arc::ptr_eq(&moves.welcome(now).unwrap(), &b));
        assert!(moves.welcome(now).is_none(), "only one was sent away");
        moves.begin(Arc::clone(&b), None, now);
        let late = now + RETURN;
        assert_eq!((moves.expected(&b, late), moves.welcome(late).is_none()), (0, true));
        moves.sweep(now + MEMORY);
        assert!(moves.follow(7).is_none());
    }

    #[test]
    fn nobody_is_sent_to_an_instance_that_takes_no_new_sessions() {
        let now = Instant::now();
        let roster = Arc::new(Roster::new("s", "v", now));
        let text = "instances: [a:1]";
        let config = crate::config::parse(text, std::path::Path::new("c.yaml")).unwrap().config;
        roster.reconcile(&config.services[0].versions[0], 1);
        let a = Arc::clone(&roster.members().all()[0]);
        let moves = Moves::default();
        moves.begin(Arc::clone(&a), Some(7), now);
        moves.begin(Arc::clone(&a), None, now);
        a.set_health(crate::health::Health::Unready, "a test");
        assert!(moves.follow(7).is_none() && moves.welcome(now).is_none());
    }
}
