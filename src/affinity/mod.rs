//! Which instance a request is bound to, and how a client is told.
//!
//! A session is recognised by a sealed [`token`], which comes by one of several [`carriers`].
//! Everything here is pure: the time is an argument, nothing is logged or counted. Read
//! [`token::Keyring`] first.

pub mod cache;
pub mod carriers;
pub mod cookie;
pub mod engine_io;
pub mod memory;
pub mod order;
pub mod query;
pub mod token;

use std::fmt;

/// Why a token that a client brought is not honoured.
///
/// A rejected token routes as an absent one: a key that was rotated away or a cookie that another
/// product set is no attack, and no client may see an error for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejection {
    /// Not base64url, or too short to be a token, or of another format version.
    Malformed,
    /// Longer than any token.
    Oversized,
    /// The carrier came more than once in one request, and which one counts is not clear: it isn't a
    /// cookie, there are more than [`cookie::MAX_VALUES`], or none of them is honoured.
    Duplicated,
    /// Sealed with a key that the keyring doesn't hold.
    UnknownKey,
    /// Sealed with a known key, but not as it was issued.
    Tampered,
    /// Issued for another service.
    Foreign,
    /// Older than `affinity.ttl`.
    Expired,
    /// Not renewed for `affinity.idle_ttl`.
    IdleExpired,
    /// Issued later than now, beyond [`token::CLOCK_SKEW_SECONDS`].
    FromFuture,
}

impl Rejection {
    /// Every reason, in the order of the metric's rows.
    pub const ALL: [Self; 9] = [
        Self::Malformed,
        Self::Oversized,
        Self::Duplicated,
        Self::UnknownKey,
        Self::Tampered,
        Self::Foreign,
        Self::Expired,
        Self::IdleExpired,
        Self::FromFuture,
    ];

    /// The label in logs and metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Oversized => "oversized",
            Self::Duplicated => "duplicated",
            Self::UnknownKey => "unknown_key",
            Self::Tampered => "tampered",
            Self::Foreign => "foreign",
            Self::Expired => "expired",
            Self::IdleExpired => "idle_expired",
            Self::FromFuture => "from_future",
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}
