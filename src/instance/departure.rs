//! When the tunnels of an instance end, and why.
//!
//! Each cause has a window of its own, which can be called off without the others. The one that ends
//! first counts.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::task::AbortHandle;

use crate::config::types::{Closes, Drain, Exit};

/// The end of an instance's tunnels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Departure {
    /// Why they end.
    pub cause: Cause,
    /// When the first of them may be closed.
    pub from: Instant,
    /// When the last of them must be.
    pub until: Instant,
}

/// Why an instance's tunnels end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Its liveness check failed.
    Dead,
    /// Its readiness check failed.
    Unready,
    /// The configuration no longer names it.
    Removed,
    /// The operator drains it.
    Draining,
    /// The operator has disabled it.
    Disabled,
}

impl Cause {
    /// What the configuration says of it.
    pub fn exit(self, closes: &Closes) -> &Exit {
        match self {
            Self::Dead => &closes.dead,
            Self::Unready => &closes.unready,
            Self::Removed => &closes.removed,
            Self::Draining => &closes.draining,
            Self::Disabled => &closes.disabled,
        }
    }

    /// When tunnels end for it.
    pub fn window(self, closes: &Closes, drain: Drain) -> Drain {
        match self {
            Self::Dead => closes.dead_window,
            Self::Unready => closes.unready_window,
            Self::Disabled => closes.disabled_window,
            Self::Removed | Self::Draining => drain,
        }
    }
}

impl Departure {
    /// One that begins now.
    pub fn begin(cause: Cause, window: Drain, now: Instant) -> Self {
        let until = now + window.timeout;
        let from = until.checked_sub(window.spread).unwrap_or(until);
        Self { cause, from, until }
    }
}

/// The departures of one instance.
#[derive(Debug, Default)]
pub(super) struct Departures {
    /// Whether there is one: read for every tunnel at every sweep.
    any: AtomicBool,
    windows: Mutex<Windows>,
    /// Who waits for the end of each.
    vigils: Mutex<[Option<AbortHandle>; 5]>,
}

/// In the order of [`Cause`].
type Windows = [Option<Departure>; 5];

impl Departures {
    /// Whether there is one.
    pub(super) fn any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    /// The one that ends first of those that `counts` is true for.
    pub(super) fn next(&self, counts: impl Fn(Cause) -> bool) -> Option<Departure> {
        let windows = self.windows();
        let due = windows.iter().flatten().filter(|window| counts(window.cause));
        due.min_by_key(|window| window.until).copied()
    }

    /// The one for this cause, whether or not another ends before it.
    pub(super) fn of(&self, cause: Cause) -> Option<Departure> {
        self.windows()[cause as usize]
    }

    /// Begins a departure.
    pub(super) fn begin(&self, departure: Departure) {
        self.windows()[departure.cause as usize] = Some(departure);
        self.any.store(true, Ordering::Release);
    }

    /// Calls the departure for this cause off.
    pub(super) fn call_off(&self, cause: Cause) {
        let mut windows = self.windows();
        windows[cause as usize] = None;
        let any = windows.iter().any(Option::is_some);
        self.any.store(any, Ordering::Release);
        drop(windows);
        self.wait_no_longer(cause, None);
    }

    /// This task waits for the end of the one for this cause, and nobody else does any more.
    pub(super) fn attend(&self, cause: Cause, vigil: AbortHandle) {
        self.wait_no_longer(cause, Some(vigil));
    }

    fn wait_no_longer(&self, cause: Cause, next: Option<AbortHandle>) {
        let mut vigils = self.vigils.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = std::mem::replace(&mut vigils[cause as usize], next) {
            before.abort();
        }
    }

    fn windows(&self) -> MutexGuard<'_, Windows> {
        self.windows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_death_during_a_removal_comes_first_and_leaves_it_standing() {
        let departures = Departures::default();
        let now = Instant::now();
        let within = |cause, seconds| {
            let timeout = Duration::from_secs(seconds);
            Departure::begin(cause, Drain { timeout, spread: timeout }, now)
        };
        let next = |departures: &Departures| departures.next(|_| true);
        let (removal, death) = (within(Cause::Removed, 30), within(Cause::Dead, 1));
        assert_eq!(next(&departures), None);
        departures.begin(removal);
        departures.begin(death);
        assert_eq!(next(&departures), Some(death));
        assert_eq!(departures.of(Cause::Removed), Some(removal));
        departures.call_off(Cause::Dead);
        assert_eq!(next(&departures), Some(removal));
        departures.call_off(Cause::Removed);
        assert_eq!((next(&departures), departures.of(Cause::Removed)), (None, None));
        departures.begin(within(Cause::Unready, 20));
        departures.begin(within(Cause::Removed, 60));
        assert_eq!(next(&departures), Some(within(Cause::Unready, 20)));
        let kept = |cause| cause != Cause::Unready;
        assert_eq!(departures.next(kept), Some(within(Cause::Removed, 60)));
        departures.call_off(Cause::Unready);
        assert_eq!(next(&departures), Some(within(Cause::Removed, 60)));
    }
}
