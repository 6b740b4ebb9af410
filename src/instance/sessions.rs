//! About how many sessions live on an instance, in constant memory.
//!
//! Nobody says when a session is over, so one counts for as long as requests of it come, and a while
//! longer. To tell how many different ones came without remembering each, a register keeps the rarest
//! pattern among the marks that fell to it (HyperLogLog, Flajolet et al. 2007). Of two windows one
//! is filled and both are counted; then the older is emptied and filled in its turn.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A session counts until its last request is one to two windows ago.
const WINDOW: Duration = Duration::from_secs(150);
/// For a standard error of 4.6 % where they are many, and next to none where they are few.
const REGISTERS: usize = 512;
/// Counting looks at every register; what begins meanwhile is added.
const FRESH: Duration = Duration::from_secs(1);

type Window = [AtomicU8; REGISTERS];

/// The sessions of an instance; a kilobyte once there is one.
#[derive(Debug)]
pub struct Sessions {
    start: Instant,
    windows: OnceLock<Box<[Window; 2]>>,
    /// Windows since the start.
    window: AtomicU64,
    /// When they were counted, in microseconds since the start.
    counted: AtomicU64,
    count: AtomicU64,
    /// Those that began since.
    begun: AtomicU64,
}

impl Sessions {
    pub(super) fn new(now: Instant) -> Self {
        let zero = || AtomicU64::new(0);
        let windows = OnceLock::new();
        Self { start: now, windows, window: zero(), counted: zero(), count: zero(), begun: zero() }
    }

    /// A request of the session with this mark, which is random, was answered.
    pub fn seen(&self, mark: u64) {
        let make = || Box::new(std::array::from_fn(|_| std::array::from_fn(|_| AtomicU8::new(0))));
        let window = self.window.load(Ordering::Relaxed) as usize % 2;
        let register = &self.windows.get_or_init(make)[window][mark as usize % REGISTERS];
        let rank = (mark / REGISTERS as u64).trailing_zeros().min(54) as u8 + 1;
        // Mostly read: workers then share the line without passing it around.
        if register.load(Ordering::Relaxed) < rank {
            register.fetch_max(rank, Ordering::Relaxed);
        }
    }

    /// Likewise, and it began here or came from elsewhere.
    pub fn began(&self, mark: u64) {
        self.seen(mark);
        self.begun.fetch_add(1, Ordering::Relaxed);
    }

    /// Forgets all of them.
    pub fn clear(&self) {
        for register in self.windows.get().into_iter().flat_map(|windows| windows.as_flattened()) {
            register.store(0, Ordering::Relaxed);
        }
        self.begun.store(0, Ordering::Relaxed);
        self.count.store(0, Ordering::Relaxed);
    }

    /// Forgets what is too old.
    pub fn turn(&self, now: Instant) {
        let since = now.saturating_duration_since(self.start);
        let current = (since.as_micros() / WINDOW.as_micros()) as u64;
        let before = self.window.fetch_max(current, Ordering::Relaxed);
        let Some(windows) = self.windows.get() else { return };
        for passed in (before + 1..=current).rev().take(2) {
            windows[passed as usize % 2].iter().for_each(|at| at.store(0, Ordering::Relaxed));
        }
    }

    /// About how many there are.
    pub fn estimate(&self, now: Instant) -> u64 {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let at = micros(now.saturating_duration_since(self.start)).max(1);
        let counted = self.counted.load(Ordering::Acquire);
        let is_due = counted == 0 || at.saturating_sub(counted) >= micros(FRESH);
        let mine = is_due
            && self
                .counted
                .compare_exchange(counted, at, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok();
        if mine {
            self.turn(now);
            self.begun.store(0, Ordering::Relaxed);
            self.count.store(self.count(), Ordering::Relaxed);
        }
        self.count.load(Ordering::Relaxed) + self.begun.load(Ordering::Relaxed)
    }

    fn count(&self) -> u64 {
        let Some(windows) = self.windows.get() else { return 0 };
        let [one, other] = &**windows;
        let (mut sum, mut empty) = (0.0, 0.0);
        for (one, other) in one.iter().zip(other) {
            let rank = one.load(Ordering::Relaxed).max(other.load(Ordering::Relaxed));
            sum += (-f64::from(rank)).exp2();
            empty += f64::from(u8::from(rank == 0));
        }
        let all = REGISTERS as f64;
        let many = 0.7213 / (1.0 + 1.079 / all) * all * all / sum;
        // Where some registers are empty, how many are says more than the ranks.
        let few = all * (all / empty).ln();
        (if many <= 2.5 * all && empty > 0.0 { few } else { many }).round() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Marks as random as a token's, the same in every run.
    fn mark(n: u64) -> u64 {
        let mut mixed = n.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    #[test]
    fn different_sessions_are_counted_and_their_requests_are_not() {
        for (sessions, error) in
            [(0, 0), (1, 0), (10, 1), (100, 12), (1000, 150), (100_000, 15_000)]
        {
            let begin = Instant::now();
            let counted = Sessions::new(begin);
            for session in 0..sessions {
                counted.seen(mark(session));
                counted.seen(mark(session));
            }
            let estimate = counted.estimate(begin);
            assert!(estimate.abs_diff(sessions) <= error, "{estimate} for {sessions}");
        }
    }

    #[test]
    fn a_session_is_forgotten_one_to_two_windows_after_its_last_request() {
        let begin = Instant::now();
        let sessions = Sessions::new(begin);
        for session in 0..20 {
            sessions.seen(mark(session));
        }
        let late = begin + WINDOW + FRESH;
        sessions.turn(late);
        (0..5).for_each(|session| sessions.seen(mark(session)));
        assert!(sessions.estimate(late).abs_diff(20) <= 1, "in their second window");
        let later = begin + 2 * WINDOW + 2 * FRESH;
        assert!(sessions.estimate(later).abs_diff(5) <= 1, "{}", sessions.estimate(later));
        assert_eq!(sessions.estimate(begin + 9 * WINDOW), 0);
    }

    #[test]
    fn what_begins_counts_at_once() {
        let begin = Instant::now();
        let sessions = Sessions::new(begin);
        assert_eq!(sessions.estimate(begin), 0);
        (0..3).for_each(|session| sessions.began(mark(session)));
        sessions.seen(mark(0));
        assert_eq!(sessions.estimate(begin), 3);
        assert_eq!(sessions.estimate(begin + FRESH), 3, "and once");
        sessions.clear();
        assert_eq!(sessions.estimate(begin + FRESH), 0);
        sessions.began(mark(7));
        assert_eq!(sessions.estimate(begin + 2 * FRESH), 1);
    }
}
