//! What a version asks of its instances' health: active checks and the breaker.

use std::time::Duration;

/// An active health check with App Engine's keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Request target of the probe; without it and `grpc` the probe is a TCP connect.
    pub path: Option<String>,
    /// Asks for this service by the gRPC health protocol instead; empty is the whole server.
    pub grpc: Option<String>,
    /// Where probes go; the instance's own port when absent.
    pub port: Option<u16>,
    /// `Host` of the probe; the instance's address when absent.
    pub host: Option<String>,
    /// How long one probe may take.
    pub timeout: Duration,
    /// Time between the starts of two probes.
    pub interval: Duration,
    /// Consecutive failures that change the verdict to bad, 1 to 10.
    pub failure_threshold: u32,
    /// Consecutive successes that change the verdict to good, 1 to 10.
    pub success_threshold: u32,
    /// Liveness only: probes begin this long after the instance was added.
    pub initial_delay: Duration,
    /// Readiness only: how long an instance may take to become ready before a warning says so.
    pub app_start_timeout: Duration,
    /// Readiness only: what an instance counts as before its first verdict.
    pub initial_state: InitialState,
    /// Readiness only: whether the instance may say in its answer what state it wants to be in, see
    /// `health::agent`.
    pub agent: bool,
    /// Readiness only: the field of its answer, in lower case, by which an instance tells one of its
    /// lives from another.
    pub incarnation_header: Option<String>,
    /// Readiness only: what becomes of its sessions when that changes.
    pub on_restart: OnRestart,
    /// Inclusive ranges of statuses that pass; only 200 by default.
    pub expected_statuses: Vec<(u16, u16)>,
}

impl Check {
    /// App Engine's defaults for `readiness_check`.
    pub fn readiness() -> Self {
        Self {
            path: None,
            grpc: None,
            port: None,
            host: None,
            timeout: Duration::from_secs(4),
            interval: Duration::from_secs(5),
            failure_threshold: 2,
            success_threshold: 2,
            initial_delay: Duration::ZERO,
            app_start_timeout: Duration::from_secs(300),
            initial_state: InitialState::Unknown,
            agent: false,
            incarnation_header: None,
            on_restart: OnRestart::Keep,
            expected_statuses: vec![(200, 200)],
        }
    }

    /// App Engine's defaults for `liveness_check`.
    pub fn liveness() -> Self {
        Self {
            interval: Duration::from_secs(30),
            failure_threshold: 4,
            initial_delay: Duration::from_secs(300),
            app_start_timeout: Duration::ZERO,
            ..Self::readiness()
        }
    }
}

/// What becomes of the sessions of an instance that has restarted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnRestart {
    /// They stay.
    Keep,
    /// They are bound anew, to whichever instance.
    Rehome,
}

/// What an instance counts as before its first readiness verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InitialState {
    /// It gets no traffic.
    Unknown,
    /// It gets traffic.
    Ready,
}

/// The range of a limit that follows how long answers take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Concurrency {
    /// Requests in flight where it begins, `min` to `max`.
    pub initial: u32,
    /// The least that it falls to, 1 to 1000000.
    pub min: u32,
    /// The most that it rises to, `min` to 1000000.
    pub max: u32,
    /// How much longer than with little in flight answers may take, in basis points, above 0.
    pub tolerance: u32,
}

impl Default for Concurrency {
    fn default() -> Self {
        Self { initial: 20, min: 4, max: 1000, tolerance: 2500 }
    }
}

/// Passive ejection from live traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Breaker {
    /// Consecutive failures that open it, 1 to 1000.
    pub failures: u32,
    /// Share of attempts in `window` that failed or were answered with a 5xx which opens it, in
    /// basis points above 0; `None` lets no 5xx count.
    pub error_share: Option<u32>,
    /// How far back `error_share` looks.
    pub window: Duration,
    /// Attempts in `window` below which `error_share` says nothing, 1 to 1000000.
    pub min_requests: u32,
    /// How long it stays open before it lets trial requests pass; doubled each time that it opens
    /// again before it has been closed for `max_open`.
    pub open: Duration,
    /// The longest that it stays open; at least `open`.
    pub max_open: Duration,
    /// Trial requests that must succeed in a row to close it, 1 to 100.
    pub trials: u32,
    /// Share of a version's instances whose breakers may be other than closed at once, in basis
    /// points, rounded down; one always may.
    pub max_ejected: u32,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            failures: 5,
            error_share: None,
            window: Duration::from_secs(10),
            min_requests: 20,
            open: Duration::from_secs(5),
            max_open: Duration::from_secs(60),
            trials: 1,
            max_ejected: 5000,
        }
    }
}
