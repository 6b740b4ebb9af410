//! What happened: every answer, move, end of a tunnel and flaw, with its time since the beginning.
//!
//! Only notes; what it means is the verdict's. Read [`Notes`] first.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::watched::Watched;

/// A kind of client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    Session,
    Visitor,
    Polling,
    Websocket,
    Download,
    Upload,
    /// Clients that the drill does not drive but watch.
    Real,
}

impl Kind {
    pub(super) const fn plural(self) -> &'static str {
        match self {
            Self::Session => "sessions",
            Self::Visitor => "visitors",
            Self::Polling => "polling",
            Self::Websocket => "websockets",
            Self::Download => "downloads",
            Self::Upload => "uploads",
            Self::Real => "real clients",
        }
    }
}

/// What became of a request that did not bring its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Trouble {
    /// No connection to the balancer.
    Refused,
    /// The connection ended before an answer.
    Broke,
    /// It ended within the answer.
    Cut,
    /// Patience ran out.
    Late,
    Status(u16),
    /// engine.io's 400: whoever answered knows nothing of the session.
    UnknownSession,
    /// A tunnel ended without a Close.
    Unclosed,
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Refused => "no connection",
            Self::Broke => "ended before the answer",
            Self::Cut => "ended within the answer",
            Self::Late => "too late",
            Self::Status(status) => return write!(f, "status {status}"),
            Self::UnknownSession => "session unknown",
            Self::Unclosed => "tunnel ended without a Close",
        })
    }
}

/// An answer that is not what it must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flaw {
    Lost,
    Duplicated,
    Reordered,
    Wrong,
}

/// Whoever answered, as it named itself.
pub(super) type Name = Arc<str>;

/// One request.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    pub(super) kind: Kind,
    /// When it was to begin, whether or not its client was free by then.
    pub(super) due: Duration,
    /// When what became of it was known.
    pub(super) at: Duration,
    pub(super) trouble: Option<Trouble>,
    /// The instance that its client was at before, and when that last answered.
    pub(super) home: Option<(Name, Duration)>,
}

/// A session that answered from another instance.
#[derive(Debug, Clone)]
pub(super) struct Move {
    pub(super) at: Duration,
    pub(super) client: usize,
    pub(super) from: Name,
    /// When the one before had last answered.
    pub(super) since: Duration,
}

/// The end of a tunnel.
#[derive(Debug, Clone)]
pub(super) struct End {
    pub(super) at: Duration,
    pub(super) from: Name,
    /// `None` where no Close came.
    pub(super) code: Option<u16>,
}

/// Everything that was noted.
#[derive(Debug, Clone, Default)]
pub(super) struct Notes {
    pub(super) samples: Vec<Sample>,
    /// First answers of sessions.
    pub(super) begun: Vec<(Duration, Name)>,
    /// Which client was bound to whom from when on, in the order of time.
    pub(super) bound: Vec<(Duration, usize, Name)>,
    pub(super) moves: Vec<Move>,
    pub(super) opened: Vec<(Duration, Name)>,
    pub(super) ends: Vec<End>,
    pub(super) flaws: Vec<(Duration, Kind, Flaw)>,
    /// What a running balancer counted, look by look.
    pub(super) watched: Vec<Watched>,
    /// What instances answered, for each second.
    pub(super) answers: Vec<std::collections::BTreeMap<Name, u64>>,
}

/// Where clients note what they see.
#[derive(Debug)]
pub(super) struct Record {
    begin: Instant,
    notes: Mutex<Notes>,
}

impl Record {
    pub(super) fn new(begin: Instant) -> Self {
        Self { begin, notes: Mutex::default() }
    }

    pub(super) fn begin(&self) -> Instant {
        self.begin
    }

    /// The time since the beginning.
    pub(super) fn now(&self) -> Duration {
        self.begin.elapsed()
    }

    pub(super) fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that an instance answered in this second.
    pub(super) fn answered(&self, at: Duration, name: &Name) {
        let mut notes = self.notes();
        let second = usize::try_from(at.as_secs()).unwrap_or_default();
        if notes.answers.len() <= second {
            notes.answers.resize_with(second + 1, Default::default);
        }
        *notes.answers[second].entry(Arc::clone(name)).or_default() += 1;
    }
}
