//! What a version says of requests that are tried again.

use std::time::Duration;

/// What is tried again, and how often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// Tries of one request, failed connects aside, 1 to 10; 1 means no retry at all.
    pub attempts: u32,
    /// Bytes of a request body that are kept for another try.
    pub max_body: usize,
    /// Retries allowed as a share of requests, in basis points (2000 is 20 %). Those that follow a
    /// failed connect are free.
    pub budget: u32,
    /// Retries always allowed per second, whatever the share.
    pub budget_floor: u32,
    /// After which failures there is another try.
    pub on: Vec<Condition>,
    /// Inclusive ranges of statuses after which there is another try; none by default.
    pub statuses: Vec<(u16, u16)>,
    /// How long a try may take until its first byte, where another is possible.
    pub per_try_timeout: Option<Duration>,
    /// After how long without a first byte another instance is asked as well.
    pub hedge_after: Option<Duration>,
}

/// A way for a try to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// The connection could not be opened.
    Connect,
    /// It broke before the first byte of an answer.
    Reset,
    /// Probes of the instance went unanswered meanwhile, or it was found dead.
    Unanswered,
    /// `timeouts.first_byte`.
    Timeout,
    /// The answer is not HTTP.
    InvalidResponse,
}

impl Condition {
    /// Every condition.
    pub const ALL: [Self; 5] =
        [Self::Connect, Self::Reset, Self::Unanswered, Self::Timeout, Self::InvalidResponse];

    /// Its word in the configuration.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Reset => "reset",
            Self::Unanswered => "unanswered",
            Self::Timeout => "timeout",
            Self::InvalidResponse => "invalid_response",
        }
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: 3,
            max_body: 64 * 1024,
            budget: 2000,
            budget_floor: 100,
            // A slow or broken answer is more often the request's doing than the instance's.
            on: vec![Condition::Connect, Condition::Reset, Condition::Unanswered],
            statuses: Vec::new(),
            per_try_timeout: None,
            hedge_after: None,
        }
    }
}
