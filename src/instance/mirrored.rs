//! What becomes of copies of requests that a version gets beside its own, and how many are under way.
//!
//! They are in no other count of the version, nor of its instances.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::StatusCode;

use crate::instance::Roster;

/// What became of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// An answer of this class of statuses; 1xx are none.
    Answered2xx,
    /// See above.
    Answered3xx,
    /// See above.
    Answered4xx,
    /// See above.
    Answered5xx,
    /// No answer: the connection failed, or it was late.
    Failed,
    /// As many as may be were under way.
    Full,
    /// No instance had a place for it.
    NoInstance,
    /// The body was too long to be held.
    TooLarge,
    /// The body did not come to its end.
    Unfinished,
}

impl Fate {
    /// Every fate, in the order of the metric's rows.
    pub const ALL: [Self; 9] = [
        Self::Answered2xx,
        Self::Answered3xx,
        Self::Answered4xx,
        Self::Answered5xx,
        Self::Failed,
        Self::Full,
        Self::NoInstance,
        Self::TooLarge,
        Self::Unfinished,
    ];

    /// Of an answer.
    pub fn of(status: StatusCode) -> Self {
        match status.as_u16() {
            ..300 => Self::Answered2xx,
            300..400 => Self::Answered3xx,
            400..500 => Self::Answered4xx,
            500.. => Self::Answered5xx,
        }
    }

    /// The label in metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Answered2xx => "2xx",
            Self::Answered3xx => "3xx",
            Self::Answered4xx => "4xx",
            Self::Answered5xx => "5xx",
            Self::Failed => "failed",
            Self::Full => "full",
            Self::NoInstance => "no_instance",
            Self::TooLarge => "too_large",
            Self::Unfinished => "unfinished",
        }
    }
}

/// Counts of one version.
#[derive(Debug, Default)]
pub struct Copies {
    under_way: AtomicU64,
    fates: [AtomicU64; Fate::ALL.len()],
    /// Whose turn it is among its instances: copies take nobody's else.
    pub turn: AtomicU64,
}

impl Copies {
    /// Copies under way.
    pub fn under_way(&self) -> u64 {
        self.under_way.load(Ordering::Relaxed)
    }

    /// Copies of this fate so far.
    pub fn of(&self, fate: Fate) -> u64 {
        self.fates[fate as usize].load(Ordering::Relaxed)
    }

    fn count(&self, fate: Fate) {
        self.fates[fate as usize].fetch_add(1, Ordering::Relaxed);
    }
}

/// A copy for a version, under way until it is dropped.
#[derive(Debug)]
pub struct Copy(Arc<Roster>);

impl Copy {
    /// One more, unless there are `most`.
    pub fn begin(roster: &Arc<Roster>, most: u32) -> Option<Self> {
        let copies = &roster.tally.copies;
        // Counted before it is looked at, so that of two that come at once one sees the other.
        let copy = Self(Arc::clone(roster));
        if copies.under_way.fetch_add(1, Ordering::Relaxed) >= u64::from(most) {
            copies.count(Fate::Full);
            return None;
        }
        Some(copy)
    }

    /// Whose it is.
    pub fn roster(&self) -> &Arc<Roster> {
        &self.0
    }

    /// It came to this.
    pub fn came_to(&self, fate: Fate) {
        self.0.tally.copies.count(fate);
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        self.0.tally.copies.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_are_under_way_than_may_be() {
        let roster = Arc::new(Roster::new("s", "v", std::time::Instant::now()));
        let begun: Vec<_> = (0..5).filter_map(|_| Copy::begin(&roster, 3)).collect();
        let copies = &roster.tally.copies;
        assert_eq!((begun.len(), copies.under_way(), copies.of(Fate::Full)), (3, 3, 2));
        drop(begun);
        assert_eq!(copies.under_way(), 0);
    }

    #[test]
    fn fates_stand_at_their_places() {
        for (place, fate) in Fate::ALL.into_iter().enumerate() {
            assert_eq!(fate as usize, place);
        }
        let of = |status| Fate::of(StatusCode::from_u16(status).unwrap()).label();
        assert_eq!([200, 304, 404, 503, 999].map(of), ["2xx", "3xx", "4xx", "5xx", "5xx"]);
    }
}
