//! A bounded memory of what was decided for a client a moment ago: by its engine.io session, by what
//! is alike in its first requests, or by the token that it came with when its session moved.
//!
//! Of two generations the older is forgotten when the younger is full, so that memory is bounded
//! and each step takes constant time; what is looked up moves to the younger one. All workers share
//! it, in shards. Keys are hashed with a random seed: nobody can aim at another's entry.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Two workers seldom want the same one.
const SHARDS: usize = 16;
/// Entries that both generations of all shards hold together, at most. An entry takes 33 bytes, and
/// tables are up to half empty: 4.3 MB.
pub const MOST: usize = 114_688;
/// Seven eighths of a power of two: as many as a table of 4096 places takes.
const GENERATION: usize = MOST / SHARDS / 2;

#[derive(Debug)]
struct Shard<V> {
    young: HashMap<u64, (V, Instant)>,
    old: HashMap<u64, (V, Instant)>,
}

impl<V> Default for Shard<V> {
    fn default() -> Self {
        Self { young: HashMap::new(), old: HashMap::new() }
    }
}

/// What was noted a while ago, by the hash of a key.
#[derive(Debug)]
pub struct Recent<V> {
    seed: RandomState,
    lifetime: Duration,
    shards: [Mutex<Shard<V>>; SHARDS],
}

impl<V: Clone> Recent<V> {
    /// Remembers what was noted or found again less than `lifetime` ago.
    pub fn new(lifetime: Duration) -> Self {
        let shards = std::array::from_fn(|_| Mutex::default());
        Self { seed: RandomState::new(), lifetime, shards }
    }

    /// What stands for a key.
    pub fn key(&self, of: impl Hash) -> u64 {
        self.seed.hash_one(of)
    }

    /// What was noted for `key`; it is remembered anew.
    pub fn find(&self, key: u64, now: Instant) -> Option<V> {
        let mut shard = self.shard(key);
        let known = shard.young.remove(&key).or_else(|| shard.old.remove(&key));
        let (value, _) = known.filter(|(_, at)| self.is_fresh(*at, now))?;
        shard.note(key, value.clone(), now);
        Some(value)
    }

    /// The same, and it is forgotten no later for it.
    pub fn peek(&self, key: u64, now: Instant) -> Option<V> {
        let shard = self.shard(key);
        let (value, at) = shard.young.get(&key).or_else(|| shard.old.get(&key))?;
        self.is_fresh(*at, now).then(|| value.clone())
    }

    /// Notes what `change` makes of what was noted for `key`, and says what else that gives.
    pub fn update<T>(&self, key: u64, now: Instant, change: impl FnOnce(Option<V>) -> (V, T)) -> T {
        let mut shard = self.shard(key);
        let known = shard.young.remove(&key).or_else(|| shard.old.remove(&key));
        let known = known.filter(|(_, at)| self.is_fresh(*at, now)).map(|(value, _)| value);
        let (value, rest) = change(known);
        shard.note(key, value, now);
        rest
    }

    /// What was noted for `key` and `fits`, else what `make` gives, which is noted. Of several who ask
    /// at the same time only one makes it. To be found does not make it last longer.
    pub fn share(
        &self,
        key: u64,
        now: Instant,
        fits: impl FnOnce(&V) -> bool,
        make: impl FnOnce() -> Option<V>,
    ) -> Option<V> {
        let mut shard = self.shard(key);
        if let Some((value, at)) = shard.young.get(&key).or_else(|| shard.old.get(&key))
            && self.is_fresh(*at, now)
            && fits(value)
        {
            return Some(value.clone());
        }
        let value = make()?;
        shard.note(key, value.clone(), now);
        Some(value)
    }

    /// Notes `value` for `key`.
    pub fn note(&self, key: u64, value: V, now: Instant) {
        self.shard(key).note(key, value, now);
    }

    /// Lets go of what is too old, so that removed instances can go.
    pub fn sweep(&self, now: Instant) {
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            let Shard { young, old } = &mut *shard;
            for generation in [young, old] {
                generation.retain(|_, (_, at)| self.is_fresh(*at, now));
                if generation.is_empty() {
                    *generation = HashMap::new();
                }
            }
        }
    }

    fn is_fresh(&self, at: Instant, now: Instant) -> bool {
        now.saturating_duration_since(at) < self.lifetime
    }

    fn shard(&self, key: u64) -> MutexGuard<'_, Shard<V>> {
        let shard = &self.shards[key as usize % SHARDS];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<V> Shard<V> {
    fn note(&mut self, key: u64, value: V, now: Instant) {
        self.young.insert(key, (value, now));
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_is_used_is_remembered_and_what_is_not_is_forgotten_in_time() {
        let recent = Recent::new(10 * SECOND);
        let begin = Instant::now();
        recent.note(1, 'a', begin);
        recent.note(2, 'b', begin);
        assert_eq!(recent.peek(2, begin + 9 * SECOND), Some('b'), "which does not help it");
        assert_eq!(recent.find(1, begin + 9 * SECOND), Some('a'));
        assert_eq!(recent.find(1, begin + 18 * SECOND), Some('a'));
        assert_eq!(recent.find(2, begin + 10 * SECOND), None);
        assert_eq!(recent.find(1, begin + 28 * SECOND), None);
        recent.note(1, 'c', begin);
        recent.sweep(begin + 10 * SECOND);
        assert!(recent.shards.iter().all(|shard| shard.lock().unwrap().young.is_empty()));
    }

    #[test]
    fn it_is_bounded_and_forgets_what_was_longest_unused() {
        let recent = Recent::new(10 * SECOND);
        let now = Instant::now();
        for key in 0..3 * MOST as u64 {
            recent.note(key, (), now);
            if key % 1000 == 0 {
                assert_eq!(recent.find(5, now).is_some(), key >= 5, "in use, so never forgotten");
            }
        }
        let held = |shard: &Mutex<Shard<()>>| {
            let shard = shard.lock().unwrap();
            shard.young.len() + shard.old.len()
        };
        let held: usize = recent.shards.iter().map(held).sum();
        assert!((MOST / 2..=MOST).contains(&held), "{held}");
        assert_eq!(recent.find(100, now), None);
        assert!(recent.find(3 * MOST as u64 - 1, now).is_some());
    }

    #[test]
    fn what_is_shared_lasts_for_its_lifetime_and_while_it_fits() {
        let recent = Recent::new(SECOND);
        let begin = Instant::now();
        let share = |value, after: u32, fits: bool| {
            recent.share(1, begin + after * SECOND / 10, |_| fits, || Some(value))
        };
        assert_eq!(share('a', 0, true), Some('a'));
        assert_eq!(share('b', 9, true), Some('a'));
        assert_eq!(share('c', 10, true), Some('c'), "counted from the first");
        assert_eq!(share('d', 11, false), Some('d'));
        assert_eq!(share('e', 12, true), Some('d'));
        assert_eq!(recent.share(2, begin, |_| true, || None), None);
    }

    #[test]
    fn of_two_who_ask_at_once_one_decides() {
        let recent = Recent::new(SECOND);
        let (now, start) = (Instant::now(), std::sync::Barrier::new(2));
        let share = |mine: char| -> String {
            let share = |key: u64| {
                start.wait();
                recent.share(key, now, |_| true, || Some(mine)).unwrap()
            };
            (0..1000).map(share).collect()
        };
        let (one, other) = std::thread::scope(|scope| {
            let other = scope.spawn(|| share('b'));
            (share('a'), other.join().unwrap())
        });
        assert_eq!(one, other);
    }

    #[test]
    fn keys_are_seeded() {
        let [one, other] = [0; 2].map(|_| Recent::<()>::new(SECOND));
        assert_eq!(one.key("a"), one.key("a"));
        assert_ne!(one.key("a"), other.key("a"));
    }
}
