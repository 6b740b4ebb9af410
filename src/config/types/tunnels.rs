//! What a version says of tunnels: when they end, what their peers are told, and when they move.

use std::time::Duration;

use super::Drain;

/// Upgraded connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Websocket {
    /// Longest life of a tunnel; `None` for no limit.
    pub max_lifetime: Option<Duration>,
    /// Random share of `max_lifetime` that is taken off, in basis points (500 is 5 %).
    pub lifetime_jitter: u32,
    /// A tunnel without a byte in either direction for this long is ended; `None` for no limit.
    pub idle_timeout: Option<Duration>,
    /// A side that was silent for this long is sent a Ping, and has as long again to say anything;
    /// `None` for no pings.
    pub ping_interval: Option<Duration>,
    /// How long a peer's Close is waited for after Burdock sent its own.
    pub close_grace: Duration,
    /// Tunnels opened in a second, at most; `None` for no limit.
    pub max_new_per_second: Option<u32>,
    /// When Burdock ends tunnels, and what their peers are told.
    pub closes: Closes,
}

impl Default for Websocket {
    fn default() -> Self {
        Self {
            max_lifetime: Some(Duration::from_secs(3600)),
            lifetime_jitter: 500,
            idle_timeout: None,
            ping_interval: None,
            close_grace: Duration::from_secs(5),
            max_new_per_second: None,
            closes: Closes::default(),
        }
    }
}

/// What the peers of a tunnel are told when Burdock ends it, by cause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closes {
    /// `max_lifetime`.
    pub lifetime: Close,
    /// `idle_timeout`.
    pub idle: Close,
    /// A side that was pinged said nothing.
    pub ping_timeout: Close,
    /// The instance is no longer named. When they end, its version's drain says.
    pub removed: Exit,
    /// The operator drains it. When they end, its version's drain says.
    pub draining: Exit,
    /// The operator has disabled it.
    pub disabled: Exit,
    /// When they end then.
    pub disabled_window: Drain,
    /// Its readiness check fails.
    pub unready: Exit,
    /// When they end then.
    pub unready_window: Drain,
    /// Its liveness check fails.
    pub dead: Exit,
    /// When they end then.
    pub dead_window: Drain,
    /// Another instance has too few tunnels.
    pub rebalanced: Close,
    /// Burdock stops.
    pub shutdown: Close,
    /// The instance broke off without a Close; only the client is told.
    pub instance: Close,
}

impl Default for Closes {
    fn default() -> Self {
        let close = |code, reason: &str| Close { code, reason: reason.to_owned() };
        let exit = |action, close| Exit { action, close };
        let second = Duration::from_secs(1);
        let out = || close(1012, "the instance is being taken out");
        let gone = || close(1014, "the instance is gone");
        Self {
            lifetime: close(1001, "the connection reached its lifetime"),
            idle: close(1001, "the connection was idle"),
            ping_timeout: close(1011, "a ping was not answered"),
            removed: exit(Action::Close, out()),
            draining: exit(Action::Close, out()),
            disabled: exit(Action::Close, out()),
            disabled_window: Drain { timeout: second, spread: second },
            unready: exit(Action::Keep, out()),
            unready_window: Drain::default(),
            dead: exit(Action::Close, gone()),
            dead_window: Drain { timeout: second, spread: second },
            rebalanced: close(1012, "the connection is being moved"),
            shutdown: close(1012, "the balancer is restarting"),
            instance: gone(),
        }
    }
}

/// A Close frame (RFC 6455 section 7.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Close {
    /// 1000 to 1014 but those that are never sent, or 3000 to 4999.
    pub code: u16,
    /// At most 123 bytes.
    pub reason: String,
}

/// What becomes of the tunnels of an instance that can no longer be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// Whether they end.
    pub action: Action,
    /// What their peers are told.
    pub close: Close,
}

/// What to do with tunnels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Leave them alone.
    Keep,
    /// Close them, spread over a window.
    Close,
}

/// How long-lived connections are moved to instances that have too few.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rebalance {
    /// Whether they are.
    pub mode: RebalanceMode,
    /// Tunnels closed for it in a minute, at most.
    pub max_per_minute: u32,
    /// How far above its fair share an instance may be, in basis points of the share.
    pub tolerance: u32,
}

impl Default for Rebalance {
    fn default() -> Self {
        Self { mode: RebalanceMode::Never, max_per_minute: 60, tolerance: 1000 }
    }
}

/// Whether long-lived connections are moved to instances that have too few.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RebalanceMode {
    /// They stay until they end by themselves.
    Never,
    /// Slowly, and no more of them than needed.
    Bounded,
}
