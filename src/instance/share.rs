//! How much of its weight an instance gets: less while it ramps up, or where it asks for less.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Percent of its weight that an instance begins with.
const FLOOR: u32 = 10;
/// All of it.
const WHOLE: u32 = 100;

/// Percent that an instance gets which has been taking new sessions for so long.
fn ramped(since: Duration, slow_start: Duration) -> u32 {
    let progress = since.as_secs_f64() / slow_start.as_secs_f64();
    FLOOR + (f64::from(WHOLE - FLOOR) * progress.min(1.0)) as u32
}

/// An instance's share of its weight.
#[derive(Debug)]
pub(super) struct Share {
    percent: AtomicU32,
    /// Percent that it asks for.
    asked: AtomicU32,
    /// Whether its next beginning is everybody's, as at the start of the process.
    is_spared: AtomicBool,
    /// When its ramp began.
    ramp: Mutex<Option<Instant>>,
}

impl Default for Share {
    fn default() -> Self {
        Self {
            percent: AtomicU32::new(WHOLE),
            asked: AtomicU32::new(WHOLE),
            is_spared: AtomicBool::new(true),
            ramp: Mutex::new(None),
        }
    }
}

impl Share {
    /// Its share of a weight, in hundredths; above 0 unless it asks for nothing.
    pub(super) fn of(&self, weight: u32) -> u32 {
        let asked = self.asked.load(Ordering::Relaxed);
        let percent = self.percent.load(Ordering::Relaxed);
        let share = u64::from(weight) * u64::from(percent) * u64::from(asked) / u64::from(WHOLE);
        let share = u32::try_from(share).unwrap_or(u32::MAX);
        share.max(u32::from(weight > 0 && asked > 0))
    }

    /// It asks for so many percent; what it asked for before.
    pub(super) fn asked(&self, percent: u32) -> u32 {
        self.asked.swap(percent, Ordering::Relaxed)
    }

    /// It begins to take new sessions.
    pub(super) fn begin(&self, slow_start: impl FnOnce() -> Option<Duration>, now: Instant) {
        if self.is_spared.swap(false, Ordering::Relaxed) {
            return;
        }
        let ramp = slow_start().map(|_| now);
        *self.ramp.lock().unwrap_or_else(PoisonError::into_inner) = ramp;
        self.percent.store(if ramp.is_some() { FLOOR } else { WHOLE }, Ordering::Relaxed);
    }

    /// Takes the next step of a ramp that is to be this long by now; whether there are more.
    pub(super) fn advance(&self, now: Instant, slow_start: Option<Duration>) -> bool {
        let mut ramp = self.ramp.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(began) = *ramp else { return false };
        let since = now.saturating_duration_since(began);
        let percent = slow_start.map_or(WHOLE, |slow_start| ramped(since, slow_start));
        if percent == WHOLE {
            *ramp = None;
        }
        self.percent.store(percent, Ordering::Relaxed);
        percent < WHOLE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_beginning_is_spared_and_later_ones_ramp_up() {
        let (share, now) = (Share::default(), Instant::now());
        let slow_start = || Some(Duration::from_secs(30));
        share.begin(slow_start, now);
        assert_eq!((share.of(1), share.advance(now, slow_start())), (100, false));
        share.begin(slow_start, now);
        let after = |seconds| {
            let more = share.advance(now + Duration::from_secs(seconds), slow_start());
            (share.of(1), more)
        };
        assert_eq!(share.of(1), 10);
        assert_eq!(
            [0, 10, 29, 30, 31].map(after),
            [(10, true), (40, true), (97, true), (100, false), (100, false)]
        );
        share.asked(50);
        assert_eq!((share.of(1), share.of(3)), (50, 150));
        share.asked(0);
        assert_eq!(share.of(1000), 0);
        share.asked(100);
        share.begin(slow_start, now);
        assert_eq!((share.advance(now, None), share.of(1)), (false, 100), "switched off meanwhile");
    }
}
