//! An etcd, by its JSON gateway (`/v3/...`, etcd 3.4 and later): keys, leases, watches. Knows
//! nothing of what stands in the keys.
//!
//! [`Client`] asks one question after the other, of another member when one fails. A [`Watch`] is a
//! stream of changes; [`Follower`] is a watch that lasts, with all that stood there before it. `wire` is
//! the form of questions and answers.

mod client;
mod follow;
mod watch;
mod wire;

pub use client::{Client, Listing, Swapped};
pub use follow::{Change, Follower};
pub use watch::{Batch, Event, Watch};
pub use wire::{Pair, Refusal};

use crate::outward::Unanswered;

/// Why an etcd was of no use.
#[derive(Debug, thiserror::Error)]
pub enum EtcdError {
    /// A member did not answer.
    #[error("asking etcd at {0}: {1}")]
    Unanswered(String, #[source] Unanswered),
    /// A member doesn't do what it was asked for.
    #[error("etcd at {0} refuses: {1}")]
    Refused(String, Refusal),
    /// A member says something else than an etcd would.
    #[error("etcd at {0} makes no sense: {1}")]
    Nonsense(String, String),
    /// What a watch was to begin with is forgotten: only a look at what there is helps.
    #[error("etcd at {0} has forgotten the changes until revision {1}")]
    Compacted(String, i64),
    /// Changes are told of no more.
    #[error("etcd at {0} has ended the watch: {1}")]
    Ended(String, String),
    /// More than anybody wants to hold.
    #[error("more than {0} keys under {1:?}")]
    TooMany(usize, String),
    /// Longer than anybody wants to hold.
    #[error("the keys and values under {1:?} have more than {0} bytes")]
    TooLong(usize, String),
}

impl EtcdError {
    /// Whether a lease that was named is no more.
    pub fn is_without_lease(&self) -> bool {
        matches!(self, Self::Refused(_, refusal) if refusal.is_without_lease())
    }

    /// Whether another member may do better.
    fn is_of_the_member(&self) -> bool {
        match self {
            Self::Unanswered(_, error) => !matches!(error, Unanswered::Long(_)),
            Self::Refused(_, refusal) => refusal.is_of_the_member(),
            Self::Nonsense(..) | Self::Ended(..) => true,
            Self::Compacted(..) | Self::TooMany(..) | Self::TooLong(..) => false,
        }
    }

    /// Whether the question has certainly not arrived.
    fn is_unsent(&self) -> bool {
        match self {
            Self::Unanswered(_, error) => is_unsent(error),
            Self::Refused(..)
            | Self::Nonsense(..)
            | Self::Compacted(..)
            | Self::Ended(..)
            | Self::TooMany(..)
            | Self::TooLong(..) => false,
        }
    }

    /// Whether a token that is not known any more is the reason.
    fn wants_token(&self) -> bool {
        matches!(self, Self::Refused(_, refusal) if refusal.wants_token())
    }

    /// Whether less of it at a time would be answered.
    fn is_too_long(&self) -> bool {
        match self {
            Self::Unanswered(_, error) => matches!(error, Unanswered::Long(_)),
            Self::Refused(_, refusal) => refusal.is_too_long(),
            Self::Nonsense(..)
            | Self::Compacted(..)
            | Self::Ended(..)
            | Self::TooMany(..)
            | Self::TooLong(..) => false,
        }
    }

    /// Whether what it was asked about at one revision is forgotten.
    fn is_compacted(&self) -> bool {
        match self {
            Self::Compacted(..) => true,
            Self::Refused(_, refusal) => refusal.is_compacted(),
            Self::Unanswered(..)
            | Self::Nonsense(..)
            | Self::Ended(..)
            | Self::TooMany(..)
            | Self::TooLong(..) => false,
        }
    }
}

fn is_unsent(error: &Unanswered) -> bool {
    match error {
        Unanswered::Url(_) | Unanswered::Connect(..) | Unanswered::Tls(..) => true,
        Unanswered::Http(_, error) => error.is_canceled() || error.is_closed(),
        Unanswered::Body(_) | Unanswered::Long(_) | Unanswered::Late(_) => false,
    }
}
