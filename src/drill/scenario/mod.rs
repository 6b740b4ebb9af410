//! What a drill is to do and what its clients may notice, validated. Only `read` builds a
//! [`Scenario`]. Knows configuration types, and neither time nor sockets.

mod limits;
mod live;
mod read;
mod steps;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use crate::config::types::{Config, State};

pub(super) use limits::{Limit, Measure, Value};
pub(super) use live::{Safety, Strike};
pub(super) use read::{Mode, read, url};

/// A scenario file.
#[derive(Debug, Clone)]
pub(super) struct Scenario {
    pub(super) name: String,
    /// A sentence for whoever reads the report.
    pub(super) about: String,
    pub(super) seed: u64,
    pub(super) duration: Duration,
    /// How long after its end a fault still explains what sessions of its instance meet.
    pub(super) settle: Duration,
    /// Where it is played.
    pub(super) setting: Setting,
    pub(super) load: Load,
    /// What the clients send on a running balancer, so that nobody else is taken for them.
    pub(super) mark: String,
    pub(super) steps: Vec<Step>,
    pub(super) limits: Vec<Limit>,
}

/// Where a scenario is played.
#[derive(Debug, Clone)]
pub(super) enum Setting {
    /// Among instances of its own, behind a balancer that runs this.
    Embedded(Arc<Config>),
    /// On a running balancer, within these limits.
    Running(Safety),
}

/// The clients. Each kind has so many of them, and each asks so often.
#[derive(Debug, Clone, Default)]
pub(super) struct Load {
    /// Browsers with a cookie jar.
    pub(super) sessions: Option<Crowd>,
    /// Browsers that come without a cookie, ask once and leave; `clients` of them at a time.
    pub(super) visitors: Option<Crowd>,
    /// engine.io by long polling.
    pub(super) polling: Option<Crowd>,
    /// WebSockets that get each numbered message back.
    pub(super) websockets: Option<Crowd>,
    pub(super) downloads: Option<Crowd>,
    pub(super) uploads: Option<Crowd>,
    /// A request that takes longer has failed.
    pub(super) patience: Duration,
    /// What clients call the host, for services that are told apart by it.
    pub(super) host: Option<String>,
    /// What they ask for on a running balancer.
    pub(super) url: Option<Url>,
}

/// What clients of a running balancer ask for, by HTTP without TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Url {
    /// `HOST:PORT`.
    pub(super) authority: String,
    /// With the query.
    pub(super) path: String,
}

impl Load {
    /// Whether there are any clients.
    pub(super) fn is_any(&self) -> bool {
        let crowds = [
            self.sessions,
            self.visitors,
            self.polling,
            self.websockets,
            self.downloads,
            self.uploads,
        ];
        crowds.iter().any(Option::is_some)
    }
}

/// Clients of one kind.
#[derive(Debug, Clone, Copy)]
pub(super) struct Crowd {
    pub(super) clients: u32,
    /// Between the beginnings of two requests of one client, on average.
    pub(super) every: Duration,
    /// Bytes of a download or an upload.
    pub(super) size: u64,
}

/// Something that happens at a time.
#[derive(Debug, Clone)]
pub(super) struct Step {
    pub(super) line: usize,
    pub(super) at: Duration,
    pub(super) action: Action,
    /// Undone after so long; `None` leaves it until it is restored, or to the end.
    pub(super) lasts: Option<Duration>,
    pub(super) repeat: Option<Repeat>,
    /// The end of what `limits` look at; `None` for the next step's beginning.
    pub(super) until: Option<Duration>,
    pub(super) limits: Vec<Limit>,
}

/// How often a step happens again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Repeat {
    pub(super) every: Duration,
    /// The first one included.
    pub(super) times: u32,
}

/// What a step does.
#[derive(Debug, Clone)]
pub(super) enum Action {
    Fault(Who, Fault),
    /// Ends every fault of these.
    Restore(Who),
    /// As an operator would.
    Admin(Who, State),
    /// Another configuration, whole.
    Reload(Arc<Config>),
    Balancer(Upset),
    /// A command of the operator's own, the one that undoes it, and whom it hits.
    Exec {
        run: Vec<String>,
        undo: Vec<String>,
        who: Option<Who>,
    },
    /// A fault on a running balancer.
    Strike(Who, Strike),
    /// Nothing but what `limits` look at.
    Watch,
}

/// Which instances.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Who {
    pub(super) which: Which,
    /// Service and version; `None` where there is only one.
    pub(super) of: Option<(String, String)>,
}

/// Which instances of a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Which {
    /// So many, drawn from those without a fault.
    Any(u32),
    /// Half of all, rounded up, drawn the same way.
    Half,
    All,
    /// One after the other, each time the step happens.
    Next,
    Named(Vec<String>),
}

/// How an embedded instance, or the path to it, misbehaves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Fault {
    /// Its connections are reset, its port is closed, what it remembered is gone.
    Crash,
    /// It accepts, and then nothing moves.
    Hang,
    /// Its port is closed; connections that stand go on.
    Refuse,
    /// This share of answers, in basis points, breaks off after a part.
    Reset {
        share: u32,
    },
    /// This share of answers takes longer, evenly between the two.
    Slow {
        from: Duration,
        to: Duration,
        share: u32,
    },
    /// This share of answers is an error.
    Fail {
        share: u32,
        status: u16,
    },
    Unready,
    Dead,
    /// Ready and unready in turn.
    Flap {
        every: Duration,
    },
    /// Sessions in its memory are gone.
    Forget,
    /// Whatever is sent to it arrives later.
    Delay {
        by: Duration,
    },
    /// Its connections are reset, once.
    Cut,
    /// So many bytes a second come back on each connection.
    Throttle {
        rate: u64,
    },
}

impl Fault {
    /// The word in the file.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Crash => "crash",
            Self::Hang => "hang",
            Self::Refuse => "refuse",
            Self::Reset { .. } => "reset",
            Self::Slow { .. } => "slow",
            Self::Fail { .. } => "fail",
            Self::Unready => "unready",
            Self::Dead => "dead",
            Self::Flap { .. } => "flap",
            Self::Forget => "forget",
            Self::Delay { .. } => "delay",
            Self::Cut => "cut",
            Self::Throttle { .. } => "throttle",
        }
    }

    /// Whether it is over as soon as it has happened.
    pub(super) const fn is_instant(self) -> bool {
        matches!(self, Self::Forget | Self::Cut)
    }
}

/// What happens to the balancer itself.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Upset {
    /// SIGKILL; `lasts` later it is started again.
    Kill,
    /// Another process takes over.
    Upgrade,
    /// A reload of a file that is wrong.
    BadConfig,
    /// Reload after reload, with something else in the file each time.
    ReloadStorm { every: Duration },
}

impl Upset {
    /// The word in the file.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Upgrade => "upgrade",
            Self::BadConfig => "bad_config",
            Self::ReloadStorm { .. } => "reload_storm",
        }
    }
}
