//! When the tunnels of an instance end, and why.
//!
//! A removal and a death have a window each: either can be called off without the other. The one
//! that ends first counts.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

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
    /// The configuration no longer names it.
    Removed,
}

/// The departures of one instance.
#[derive(Debug, Default)]
pub(super) struct Departures {
    /// Whether there is one: read for every tunnel at every sweep.
    any: AtomicBool,
    windows: Mutex<Windows>,
}

#[derive(Debug, Default)]
struct Windows {
    death: Option<Departure>,
    removal: Option<Departure>,
}

impl Departures {
    /// The one that ends first.
    pub(super) fn next(&self) -> Option<Departure> {
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        let windows = self.windows();
        windows.death.into_iter().chain(windows.removal).min_by_key(|window| window.until)
    }

    /// The one for this cause, whether or not another ends before it.
    pub(super) fn of(&self, cause: Cause) -> Option<Departure> {
        *self.windows().of(cause)
    }

    /// Begins a departure.
    pub(super) fn begin(&self, departure: Departure) {
        *self.windows().of(departure.cause) = Some(departure);
        self.any.store(true, Ordering::Release);
    }

    /// Calls the departure for this cause off.
    pub(super) fn call_off(&self, cause: Cause) {
        let mut windows = self.windows();
        *windows.of(cause) = None;
        let any = windows.death.is_some() || windows.removal.is_some();
        self.any.store(any, Ordering::Release);
    }

    fn windows(&self) -> MutexGuard<'_, Windows> {
        self.windows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Windows {
    fn of(&mut self, cause: Cause) -> &mut Option<Departure> {
        match cause {
            Cause::Dead => &mut self.death,
            Cause::Removed => &mut self.removal,
        }
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
            let until = now + Duration::from_secs(seconds);
            Departure { cause, from: now, until }
        };
        let (removal, death) = (within(Cause::Removed, 30), within(Cause::Dead, 1));
        assert_eq!(departures.next(), None);
        departures.begin(removal);
        departures.begin(death);
        assert_eq!(departures.next(), Some(death));
        assert_eq!(departures.of(Cause::Removed), Some(removal));
        departures.call_off(Cause::Dead);
        assert_eq!(departures.next(), Some(removal));
        departures.call_off(Cause::Removed);
        assert_eq!((departures.next(), departures.of(Cause::Removed)), (None, None));
        departures.begin(within(Cause::Removed, 60));
        assert_eq!(departures.next(), Some(within(Cause::Removed, 60)));
    }
}
