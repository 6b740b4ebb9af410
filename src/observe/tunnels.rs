//! What is counted of the tunnels of a version when they end.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the lifetimes' buckets, in seconds.
pub const LIFETIMES: [u64; 9] = [1, 10, 60, 300, 900, 1800, 3600, 14_400, 86_400];

/// Rows of close codes. Peers choose from thousands, so those that mean nothing to everybody share
/// a row.
pub const CODES: [&str; 17] = [
    "1000", "1001", "1002", "1003", "1005", "1007", "1008", "1009", "1010", "1011", "1012", "1013",
    "1014", "3xxx", "4xxx", "other", "none",
];
const OTHER: usize = 15;
const NONE: usize = 16;

/// Who sent a Close.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closer {
    /// The client.
    Client,
    /// The instance.
    Instance,
    /// Burdock.
    Burdock,
}

impl Closer {
    /// Everybody, in the order of the metric's rows.
    pub const ALL: [Self; 3] = [Self::Client, Self::Instance, Self::Burdock];

    /// The label in metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Instance => "instance",
            Self::Burdock => "burdock",
        }
    }
}

/// How long tunnels lived.
#[derive(Debug, Default)]
pub struct Lifetimes {
    /// One more than there are bounds.
    buckets: [AtomicU64; LIFETIMES.len() + 1],
    millis: AtomicU64,
}

impl Lifetimes {
    /// Counts a tunnel.
    pub fn count(&self, lifetime: Duration) {
        let fits = |bound: &u64| lifetime <= Duration::from_secs(*bound);
        let bucket = LIFETIMES.iter().position(fits).unwrap_or(LIFETIMES.len());
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        let millis = u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX);
        self.millis.fetch_add(millis, Ordering::Relaxed);
    }

    /// Tunnels by bucket, each without those below it; the last lived longer than any bound.
    pub fn counts(&self) -> [u64; LIFETIMES.len() + 1] {
        self.buckets.each_ref().map(|bucket| bucket.load(Ordering::Relaxed))
    }

    /// All lifetimes together.
    pub fn sum(&self) -> Duration {
        Duration::from_millis(self.millis.load(Ordering::Relaxed))
    }
}

/// Close codes by who sent them.
#[derive(Debug, Default)]
pub struct Closes([[AtomicU64; CODES.len()]; Closer::ALL.len()]);

impl Closes {
    /// Counts the Close that somebody sent, or that none was sent.
    pub fn count(&self, closer: Closer, code: Option<u16>) {
        self.0[closer as usize][row(code)].fetch_add(1, Ordering::Relaxed);
    }

    /// How often it was sent.
    pub fn sent(&self, closer: Closer, row: usize) -> u64 {
        self.0[closer as usize][row].load(Ordering::Relaxed)
    }
}

fn row(code: Option<u16>) -> usize {
    let Some(code) = code else { return NONE };
    let label = match code {
        3000..=3999 => "3xxx".to_owned(),
        4000..=4999 => "4xxx".to_owned(),
        code => code.to_string(),
    };
    CODES.iter().position(|row| *row == label).unwrap_or(OTHER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_row() {
        let label = |code| CODES[row(code)];
        assert_eq!(label(None), "none");
        for (code, expected) in [
            (1000, "1000"),
            (1005, "1005"),
            (1006, "other"),
            (1014, "1014"),
            (2000, "other"),
            (3000, "3xxx"),
            (4999, "4xxx"),
            (5000, "other"),
            (0, "other"),
        ] {
            assert_eq!(label(Some(code)), expected);
        }
    }

    #[test]
    fn lifetimes_fall_into_the_first_bucket_that_holds_them() {
        let lifetimes = Lifetimes::default();
        for seconds in [1, 2, 100_000] {
            lifetimes.count(Duration::from_secs(seconds));
        }
        assert_eq!(lifetimes.counts(), [1, 1, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(lifetimes.sum(), Duration::from_secs(100_003));
    }
}
