//! What becomes of a drill on this balancer, in an event's words and facts.

use serde_json::{Value, json};

use crate::observe::events::{cut, few, listed};

/// What became of a drill.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DrillStage {
    /// It began.
    Began {
        /// Who holds it.
        holder: String,
        /// What each version keeps.
        min_healthy: String,
        /// Seconds that it may last.
        max_seconds: u64,
    },
    /// A fault was injected.
    Injected {
        /// Of this kind.
        kind: &'static str,
        /// The rest of what is said of it.
        detail: String,
        /// Into these.
        instances: Vec<String>,
    },
    /// A fault is there no longer.
    Undone {
        /// Of this kind.
        kind: &'static str,
        /// In these.
        instances: Vec<String>,
        /// Why.
        why: &'static str,
    },
    /// Its holder has ended it.
    Ended {
        /// How it went.
        verdict: String,
        /// Faults that were injected.
        faults: u64,
    },
    /// It had to end.
    Aborted {
        /// Why.
        reason: String,
        /// Faults that were injected.
        faults: u64,
    },
}

impl DrillStage {
    /// All of it in one line.
    pub(super) fn text(&self, name: &str) -> String {
        match self {
            Self::Began { holder, min_healthy, max_seconds } => format!(
                "the drill {name} of {holder} begins: {max_seconds} s at most, min_healthy {min_healthy}"
            ),
            Self::Injected { kind, detail, instances } => {
                let detail = if detail.is_empty() { String::new() } else { format!(" {detail}") };
                format!("the drill {name}: {kind} {}{detail}", listed(instances, ", "))
            }
            Self::Undone { kind, instances, why } => {
                format!("the drill {name}: end of {kind} {}: {why}", listed(instances, ", "))
            }
            Self::Ended { verdict, .. } => format!("the drill {name} has ended: {verdict}"),
            Self::Aborted { reason, .. } => format!("the drill {name} was ended: {reason}"),
        }
    }

    /// The facts, by name.
    pub(super) fn fields(&self, name: &str) -> Value {
        let mut fields = match self {
            Self::Began { holder, min_healthy, max_seconds } => json!({
                "stage": "began",
                "holder": cut(holder),
                "min_healthy": min_healthy,
                "max_duration_seconds": max_seconds,
            }),
            Self::Injected { kind, detail, instances } => {
                json!({ "stage": "injected", "fault": kind, "detail": detail, "instances": few(instances) })
            }
            Self::Undone { kind, instances, why } => {
                json!({ "stage": "undone", "fault": kind, "instances": few(instances), "why": why })
            }
            Self::Ended { verdict, faults } => {
                json!({ "stage": "ended", "verdict": cut(verdict), "faults": faults })
            }
            Self::Aborted { reason, faults } => {
                json!({ "stage": "aborted", "reason": cut(reason), "faults": faults })
            }
        };
        fields["drill"] = json!(cut(name));
        fields
    }
}
