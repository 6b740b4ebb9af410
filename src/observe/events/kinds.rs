//! What events are about, and how much they matter.

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Health checks.
    Health,
    /// Breakers.
    Breaker,
    /// Drains of instances, and of the process.
    Drain,
    /// Configurations.
    Reload,
    /// Instances that come and go.
    Instance,
    /// Too few ready instances.
    Panic,
    /// Instances that restart.
    Restart,
    /// Processes that take over.
    Upgrade,
    /// Shares of versions.
    Split,
    /// Versions that ramp up.
    Ramp,
    /// Tunnels that Burdock closes.
    Tunnels,
    /// Classic mistakes.
    Doctor,
    /// Drills.
    Drill,
    /// What is shared with other balancers.
    Fleet,
    /// All else that is not as it should be.
    Warning,
}

impl Kind {
    /// Every kind, in the order of the metric's rows.
    pub const ALL: [Self; 15] = [
        Self::Health,
        Self::Breaker,
        Self::Drain,
        Self::Reload,
        Self::Instance,
        Self::Panic,
        Self::Restart,
        Self::Upgrade,
        Self::Split,
        Self::Ramp,
        Self::Tunnels,
        Self::Doctor,
        Self::Drill,
        Self::Fleet,
        Self::Warning,
    ];

    /// The word in the API and the metric.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Health => "health",
            Self::Breaker => "breaker",
            Self::Drain => "drain",
            Self::Reload => "reload",
            Self::Instance => "instance",
            Self::Panic => "panic",
            Self::Restart => "restart",
            Self::Upgrade => "upgrade",
            Self::Split => "split",
            Self::Ramp => "ramp",
            Self::Tunnels => "tunnels",
            Self::Doctor => "doctor",
            Self::Drill => "drill",
            Self::Fleet => "fleet",
            Self::Warning => "warning",
        }
    }
}

/// How much an event matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Nothing is wrong.
    Info,
    /// Something is, and Burdock copes.
    Warning,
    /// Somebody should look.
    Error,
}

impl Severity {
    /// The word in the API.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}
