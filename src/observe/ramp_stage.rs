//! What becomes of a version's ramp, in an event's words and facts.

use serde_json::{Value, json};

use crate::observe::events::cut;

/// What became of a ramp. Shares are as an operator writes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RampStage {
    /// It began.
    Began {
        /// With this share.
        from: String,
        /// To end with this one.
        to: String,
        /// In this time at the least.
        over: String,
    },
    /// It stays where it is.
    Held {
        /// There.
        at: String,
        /// A word for why.
        cause: &'static str,
        /// Why.
        why: String,
    },
    /// It goes on.
    GoesOn {
        /// From there.
        at: String,
    },
    /// The operator keeps it where it is.
    Paused {
        /// There.
        at: String,
    },
    /// It has come to its end.
    Done {
        /// There.
        at: String,
    },
    /// The operator has ended it, and it keeps what it had come to.
    Cancelled {
        /// That.
        at: String,
    },
    /// Shares are as they were before.
    RolledBack {
        /// It had come so far.
        at: String,
        /// A word for why.
        cause: &'static str,
        /// Why.
        why: String,
        /// Whether Burdock saw that by itself.
        by_itself: bool,
    },
    /// The file leaves no place for it.
    Forgotten {
        /// Why.
        why: String,
    },
}

impl RampStage {
    /// All of it in one line.
    pub(super) fn text(&self, name: &str) -> String {
        match self {
            Self::Began { from, to, over } => {
                format!("the ramp of {name} begins: {from} to {to} in {over}")
            }
            Self::Held { at, why, .. } => format!("the ramp of {name} is held at {at}: {why}"),
            Self::GoesOn { at } => format!("the ramp of {name} goes on at {at}"),
            Self::Paused { at } => format!("the ramp of {name} is paused at {at}"),
            Self::Done { at } => format!("the ramp of {name} is done: {at}"),
            Self::Cancelled { at } => format!("the ramp of {name} is cancelled and stays at {at}"),
            Self::RolledBack { at, why, .. } => {
                format!("the ramp of {name} is rolled back from {at}: {why}")
            }
            Self::Forgotten { why } => format!("the ramp of {name} is over: {why}"),
        }
    }

    /// The facts, by name.
    pub(super) fn fields(&self) -> Value {
        match self {
            Self::Began { from, to, over } => {
                json!({ "stage": "began", "from": from, "to": to, "over": over })
            }
            Self::Held { at, cause, why } => {
                json!({ "stage": "held", "at": at, "cause": cause, "reason": cut(why) })
            }
            Self::GoesOn { at } => json!({ "stage": "goes_on", "at": at }),
            Self::Paused { at } => json!({ "stage": "paused", "at": at }),
            Self::Done { at } => json!({ "stage": "done", "at": at }),
            Self::Cancelled { at } => json!({ "stage": "cancelled", "at": at }),
            Self::RolledBack { at, cause, why, .. } => {
                json!({ "stage": "rolled_back", "at": at, "cause": cause, "reason": cut(why) })
            }
            Self::Forgotten { why } => json!({ "stage": "forgotten", "reason": cut(why) }),
        }
    }
}
