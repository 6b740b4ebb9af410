//! What a balancer says of itself to the others of its fleet. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The longest text of a summary.
const LONGEST: usize = 64 * 1024;
/// Services that a summary tells of.
pub const MOST_SERVICES: usize = 200;

/// A balancer at one look. What an older or a newer one leaves out is nothing, and what it says more is
/// passed over.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Summary {
    /// No other process has it.
    pub id: String,
    /// Of the program.
    pub version: String,
    /// When it began.
    pub started: String,
    /// `serving` or `draining`.
    pub phase: String,
    /// Where its admin API is served.
    pub admin: Option<String>,
    /// Where it accepts clients.
    pub listeners: Vec<String>,
    /// Client connections that are open, without tunnels.
    pub connections: u64,
    /// Open tunnels.
    pub tunnels: u64,
    /// Sessions of which it had requests lately.
    pub sessions: u64,
    /// Lately.
    pub requests_per_second: f64,
    /// Of them.
    pub errors_per_second: f64,
    /// Counts its configurations.
    pub generation: u64,
    /// Those who serve by the same services have the same.
    pub config: String,
    /// The ids of its affinity keys, the one that seals first.
    pub keys: Vec<String>,
    /// By name.
    pub services: BTreeMap<String, Service>,
}

/// A service of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Service {
    /// Those that are named.
    pub instances: u64,
    /// Those of them that take new sessions.
    pub ready: u64,
    /// Sessions of which they had requests lately.
    pub sessions: u64,
    /// Requests in flight.
    pub requests: u64,
    /// Open tunnels.
    pub tunnels: u64,
}

impl Summary {
    /// As it stands at a key.
    pub(super) fn to_text(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("maps with keys of text and finite numbers have a text")
    }

    /// From such text.
    pub(super) fn of_text(text: &[u8]) -> Option<Self> {
        let summary: Self =
            (text.len() <= LONGEST).then(|| serde_json::from_slice(text).ok()).flatten()?;
        (summary.services.len() <= MOST_SERVICES).then_some(summary)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_nothing_and_what_is_no_summary_is_none() {
        let told = Summary::of_text(b"{\"version\":\"9\",\"mood\":\"blue\"}").unwrap();
        assert_eq!(told, Summary { version: "9".to_owned(), ..Summary::default() });
        assert_eq!(Summary::of_text(&told.to_text()), Some(told));
        for text in [&b"[]x"[..], b"{\"tunnels\":-1}", b"7", &vec![b' '; LONGEST + 1]] {
            assert_eq!(Summary::of_text(text), None);
        }
    }
}
