//! What an instance may receive: four independent axes, folded once.
//!
//! The machines that move the axes are pure ([`check`], [`breaker`], [`concurrency`]); only [`prober`] and
//! its probes open sockets. There is deliberately no single status: an instance can be draining, unready and
//! ejected at once, and each axis recovers by itself.

pub mod agent;
pub mod breaker;
pub mod check;
pub mod concurrency;
pub mod grpc;
mod probe;
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

/// What the operator says, or the instance itself where that is stricter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admin {
    /// It serves.
    Active,
    /// It serves bound sessions until its deadline.
    Draining,
    /// That deadline has passed.
    Drained,
    /// It serves nobody.
    Disabled,
}

impl Admin {
    /// Every value, in the order of the metric's rows.
    pub const ALL: [Self; 4] = [Self::Active, Self::Draining, Self::Drained, Self::Disabled];

    /// The label in metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Draining => "draining",
            Self::Drained => "drained",
            Self::Disabled => "disabled",
        }
    }
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
    /// Draining, and past its deadline.
    Drained,
    /// The operator has disabled it.
    Disabled,
    /// The connection to it could not be opened.
    ConnectFailed,
    /// It broke the connection before the first byte of its answer.
    Reset,
    /// It was asked and gave no answer in time.
    NoAnswer,
    /// Its answer has one of `retry.statuses`.
    Status,
    /// It has too many tunnels, and another too few.
    Rebalanced,
    /// It was restarted, and its sessions are lost there.
    Restarted,
    /// Its version has no share of the requests any more.
    Split,
}

impl Rehome {
    /// Every reason, in the order of the metric's rows.
    pub const ALL: [Self; 13] = [
        Self::Unready,
        Self::Dead,
        Self::BreakerOpen,
        Self::Removed,
        Self::Drained,
        Self::Disabled,
        Self::ConnectFailed,
        Self::Reset,
        Self::NoAnswer,
        Self::Status,
        Self::Rebalanced,
        Self::Restarted,
        Self::Split,
    ];

    /// The label in logs and metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Unready => "unready",
            Self::Dead => "dead",
            Self::BreakerOpen => "breaker_open",
            Self::Removed => "removed",
            Self::Drained => "drained",
            Self::Disabled => "disabled",
            Self::ConnectFailed => "connect_failed",
            Self::Reset => "reset",
            Self::NoAnswer => "no_answer",
            Self::Status => "status",
            Self::Rebalanced => "rebalanced",
            Self::Restarted => "restarted",
            Self::Split => "traffic_split",
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
    admin: Admin,
    health: Health,
    breaker: breaker::Passage,
) -> Eligibility {
    let wanted = match (membership, admin) {
        (Membership::Gone, _) => Err(Rehome::Removed),
        (_, Admin::Disabled) => Err(Rehome::Disabled),
        (_, Admin::Drained) => Err(Rehome::Drained),
        (Membership::Present | Membership::Removed, Admin::Active | Admin::Draining) => Ok(()),
    };
    let able = match (health, breaker) {
        (Health::Dead, _) => Err(Rehome::Dead),
        (Health::Unready | Health::Unanswered | Health::Unknown, _) => Err(Rehome::Unready),
        (Health::Ready, breaker::Passage::Refuses) => Err(Rehome::BreakerOpen),
        (Health::Ready, breaker::Passage::Passes | breaker::Passage::Trial) => Ok(()),
    };
    let bound = wanted.and(able);
    let is_wanted = membership == Membership::Present && admin == Admin::Active;
    Eligibility { new_sessions: bound.is_ok() && is_wanted, bound }
}

#[cfg(test)]
mod tests {
    use super::breaker::Passage;
    use super::*;

    #[test]
    fn the_fold_follows_the_table_of_causes() {
        use Admin::{Active, Disabled, Drained, Draining};
        use Health::{Dead, Ready, Unanswered, Unknown, Unready};
        use Membership::{Gone, Present, Removed};
        use Passage::{Passes, Refuses, Trial};
        let table = [
            (Present, Active, Ready, Passes, true, Ok(())),
            (Present, Active, Ready, Trial, true, Ok(())),
            (Removed, Active, Ready, Passes, false, Ok(())),
            (Present, Active, Unknown, Passes, false, Err(Rehome::Unready)),
            (Present, Active, Unready, Passes, false, Err(Rehome::Unready)),
            (Present, Active, Unanswered, Passes, false, Err(Rehome::Unready)),
            (Present, Active, Dead, Refuses, false, Err(Rehome::Dead)),
            (Present, Active, Ready, Refuses, false, Err(Rehome::BreakerOpen)),
            (Removed, Active, Dead, Passes, false, Err(Rehome::Dead)),
            (Gone, Active, Ready, Passes, false, Err(Rehome::Removed)),
            (Present, Draining, Ready, Passes, false, Ok(())),
            (Removed, Draining, Ready, Passes, false, Ok(())),
            (Present, Draining, Unready, Passes, false, Err(Rehome::Unready)),
            (Present, Drained, Ready, Passes, false, Err(Rehome::Drained)),
            (Present, Disabled, Ready, Passes, false, Err(Rehome::Disabled)),
            (Present, Disabled, Dead, Passes, false, Err(Rehome::Disabled)),
        ];
        for (membership, admin, health, breaker, new_sessions, bound) in table {
            assert_eq!(
                eligibility(membership, admin, health, breaker),
                Eligibility { new_sessions, bound },
                "{membership:?} {admin:?} {health:?} {breaker:?}"
            );
        }
    }
}
