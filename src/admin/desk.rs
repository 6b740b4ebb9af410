//! What the admin API knows and whom it asks: it reads the live state itself, and hands every change
//! to whoever runs the server, one at a time.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use http::StatusCode;
use tokio::sync::{mpsc, oneshot};

use crate::admin::problem::Problem;
use crate::admin::stream::Streams;
use crate::config::overlay::{Key, Plan};
use crate::config::overrides::Overrides;
use crate::config::types::State;
use crate::snapshot::Live;

/// Changes that may wait for their turn.
const QUEUE: usize = 64;
/// Whoever asks for a change is told by then that nothing came of it.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is asked of whoever runs the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Read the file again.
    Reload,
    /// Want something else of an instance.
    Steer {
        /// Which.
        key: Key,
        /// What.
        wish: Wish,
    },
    /// Add an instance.
    Add {
        /// Who it is to be.
        key: Key,
        /// Where it listens.
        address: String,
        /// Its share of new sessions.
        weight: u32,
    },
    /// Remove one that was added.
    Remove {
        /// Which.
        key: Key,
        /// How long it drains.
        deadline: Option<Duration>,
    },
    /// Share a service's requests otherwise among its versions.
    Split {
        /// The service.
        service: String,
        /// Weights in ten-thousandths; nothing goes back to the file's.
        allocations: Option<BTreeMap<String, u32>>,
    },
    /// Let the share of a version grow, or end that.
    Ramp {
        /// The service.
        service: String,
        /// What is wanted.
        wish: RampWish,
    },
    /// Move tunnels to instances of this version that have too few.
    Rebalance {
        /// The service.
        service: String,
        /// The version.
        version: String,
    },
}

/// What is wanted of an instance. `None` leaves it, an inner `None` goes back to the file's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wish {
    /// Its state.
    pub state: Option<Option<State>>,
    /// How long it drains.
    pub deadline: Option<Duration>,
    /// Its weight.
    pub weight: Option<Option<u32>>,
}

/// What is wanted of a ramp.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RampWish {
    /// It is to begin.
    Begin {
        /// Of this version.
        version: String,
        /// Where to; `from` may be 0 for what the version has, or a little.
        plan: Box<Plan>,
    },
    /// To stay where it is.
    Pause,
    /// To go on.
    Resume,
    /// To end, and keep what it has come to.
    Cancel,
    /// To end, and take back what it did.
    RollBack,
}

/// What came of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    /// The file was read.
    Reloaded {
        /// The generation since.
        generation: u64,
        /// What changed.
        changes: Vec<String>,
        /// What will trouble clients.
        warnings: Vec<String>,
    },
    /// An instance was steered; whether it is a new one.
    Steered {
        /// Whether it was added by this.
        is_new: bool,
        /// Why other balancers of the fleet have not heard it yet, if they have not.
        untold: Option<String>,
    },
    /// Requests are shared otherwise.
    Split {
        /// The same.
        untold: Option<String>,
    },
    /// The ramp is as it is wanted.
    Ramp,
    /// So many tunnels are to be moved.
    Rebalancing {
        /// How many.
        tunnels: usize,
    },
}

impl Done {
    /// An instance that is known was steered.
    pub fn steered() -> Self {
        Self::Steered { is_new: false, untold: None }
    }

    /// The same, which other balancers have not heard yet for this reason.
    #[must_use]
    pub fn without_others(self, why: String) -> Self {
        match self {
            Self::Steered { is_new, .. } => Self::Steered { is_new, untold: Some(why) },
            Self::Split { .. } => Self::Split { untold: Some(why) },
            Self::Reloaded { .. } | Self::Ramp | Self::Rebalancing { .. } => self,
        }
    }

    /// A sentence for whoever asked, if others have not heard it.
    pub fn warning(&self) -> Option<String> {
        let (Self::Steered { untold: Some(why), .. } | Self::Split { untold: Some(why) }) = self
        else {
            return None;
        };
        Some(format!("done here; the other balancers of the fleet have not heard it yet: {why}"))
    }
}

/// An order, and who waits for what comes of it.
#[derive(Debug)]
pub struct Asked {
    /// What is asked.
    pub order: Order,
    /// Whom to tell.
    pub answer: oneshot::Sender<Result<Done, Problem>>,
}

/// What everybody who answers knows.
#[derive(Debug)]
pub struct Desk {
    /// What all workers share.
    pub live: Arc<Live>,
    /// The configuration's file.
    pub file: Option<PathBuf>,
    /// What the command line puts over it.
    pub overrides: Overrides,
    /// When this process began.
    pub started: SystemTime,
    /// Open streams.
    pub streams: Streams,
    /// Why what is changed does not outlive the process, and since when.
    unkept: Mutex<Option<(String, SystemTime)>>,
    orders: mpsc::Sender<Asked>,
}

impl Desk {
    /// A desk, and where its orders arrive.
    pub fn new(
        live: Arc<Live>,
        file: Option<PathBuf>,
        overrides: Overrides,
        now: SystemTime,
    ) -> (Self, mpsc::Receiver<Asked>) {
        let (orders, arriving) = mpsc::channel(QUEUE);
        let unkept = Mutex::default();
        let streams = Streams::default();
        (Self { live, file, overrides, started: now, streams, unkept, orders }, arriving)
    }

    /// Has something done.
    pub async fn ask(&self, order: Order) -> Result<Done, Problem> {
        let (answer, told) = oneshot::channel();
        let asked = async {
            self.orders.send(Asked { order, answer }).await.ok()?;
            told.await.ok()
        };
        let busy = |detail| Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail);
        match tokio::time::timeout(PATIENCE, asked).await {
            Ok(Some(answer)) => answer,
            Ok(None) => Err(busy("this process is stopping, and takes no changes any more")),
            Err(_late) => Err(busy("nothing came of it in time; see whether it was done")),
        }
    }

    /// Whether what was changed is kept, and if not, why.
    pub fn kept(&self, problem: Option<String>, now: SystemTime) {
        let mut unkept = self.unkept.lock().unwrap_or_else(PoisonError::into_inner);
        let since = unkept.as_ref().map_or(now, |(_, since)| *since);
        *unkept = problem.map(|problem| (problem, since));
    }

    /// Why what is changed does not outlive the process, and since when.
    pub fn unkept(&self) -> Option<(String, SystemTime)> {
        self.unkept.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
