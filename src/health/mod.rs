//! What an instance may receive: four independent axes, folded once.
//!
//! The machines that move the axes are pure ([`check`], [`breaker`]); only [`prober`] opens
//! sockets. There is deliberately no single status: an instance can be draining, unready and
//! ejected at once, and each axis recovers by itself.

pub mod breaker;
pub mod check;
pub mod prober;

/// Whether the configuration, or discovery, still names the instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Membership {
    /// It does.
    Present,
    /// It doesn't; bound sessions are served until the drain deadline.
    Removed,
    /// It doesn't, and its drain is over. There is no way back: named again, it is a new instance.
    Gone,
}

/// What health checks say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// No verdict yet.
    Unknown,
    /// It may get traffic.
    Ready,
    /// It answered a readiness probe with "not ready".
    Unready,
    /// Its readiness probes got no answer: refused, reset or timed out.
    Unanswered,
    /// Its liveness check failed.
    Dead,
}

impl Health {
    /// Every value, in the order of the metric's rows.
    pub const ALL: [Self; 5] =
        [Self::Unknown, Self::Ready, Self::Unready, Self::Unanswered, Self::Dead];

    /// The label in logs and metrics. Why an instance is unready is told in the log's `reason`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Ready => "ready",
            Self::Unready | Self::Unanswered => "unready",
            Self::Dead => "dead",
        }
    }
}

/// Why a session leaves its bound instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rehome {
    /// Readiness.
    Unready,
    /// Liveness.
    Dead,
    /// The breaker is open.
    BreakerOpen,
    /// Not in the configuration any more, and past its drain deadline.
    Removed,
    /// The connection to it could not be opened.
    ConnectFailed,
    /// It broke the connection before the first byte of its answer.
    Reset,
    /// It was asked and gave no answer in time.
    NoAnswer,
    /// It has too many tunnels, and another too few.
    Rebalanced,
}

impl Rehome {
    /// Every reason, in the order of the metric's rows.
    pub const ALL: [Self; 8] = [
        Self::Unready,
        Self::Dead,
        Self::BreakerOpen,
        Self::Removed,
        Self::ConnectFailed,
        Self::Reset,
        Self::NoAnswer,
        Self::Rebalanced,
    ];

    /// The label in logs and metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Unready => "unready",
            Self::Dead => "dead",
            Self::BreakerOpen => "breaker_open",
            Self::Removed => "removed",
            Self::ConnectFailed => "connect_failed",
            Self::Reset => "reset",
            Self::NoAnswer => "no_answer",
            Self::Rebalanced => "rebalanced",
        }
    }
}

/// What an instance may receive now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Eligibility {
    /// Whether it takes requests that are bound to no instance.
    pub new_sessions: bool,
    /// Whether it serves the sessions bound to it, or why they leave.
    pub bound: Result<(), Rehome>,
}

/// Folds the axes. Whatever refuses bound sessions refuses new ones too.
pub fn eligibility(
    membership: Membership,
    health: Health,
    breaker: breaker::Passage,
) -> Eligibility {
    let bound = match (membership, health, breaker) {
        (Membership::Gone, _, _) => Err(Rehome::Removed),
        (_, Health::Dead, _) => Err(Rehome::Dead),
        (_, Health::Unready | Health::Unanswered | Health::Unknown, _) => Err(Rehome::Unready),
        (_, Health::Ready, breaker::Passage::Refuses) => Err(Rehome::BreakerOpen),
        (_, Health::Ready, breaker::Passage::Passes | breaker::Passage::Trial) => Ok(()),
    };
    Eligibility { new_sessions: bound.is_ok() && membership == Membership::Present, bound }
}

#[cfg(test)]
mod tests {
    use super::breaker::Passage;
    use super::*;

    #[test]
    fn the_fold_follows_the_table_of_causes() {
        use Health::{Dead, Ready, Unanswered, Unknown, Unready};
        use Membership::{Gone, Present, Removed};
        let table = [
            (Present, Ready, Passage::Passes, true, Ok(())),
            (Present, Ready, Passage::Trial, true, Ok(())),
            (Removed, Ready, Passage::Passes, false, Ok(())),
            (Present, Unknown, Passage::Passes, false, Err(Rehome::Unready)),
            (Present, Unready, Passage::Passes, false, Err(Rehome::Unready)),
            (Present, Unanswered, Passage::Passes, false, Err(Rehome::Unready)),
            (Present, Dead, Passage::Refuses, false, Err(Rehome::Dead)),
            (Present, Ready, Passage::Refuses, false, Err(Rehome::BreakerOpen)),
            (Removed, Dead, Passage::Passes, false, Err(Rehome::Dead)),
            (Gone, Ready, Passage::Passes, false, Err(Rehome::Removed)),
        ];
        for (membership, health, breaker, new_sessions, bound) in table {
            assert_eq!(
                eligibility(membership, health, breaker),
                Eligibility { new_sessions, bound },
                "{membership:?} {health:?} {breaker:?}"
            );
        }
    }
}
