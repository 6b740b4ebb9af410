//! What a request may read: one immutable value, published whole.
//!
//! A [`Snapshot`] is built from a validated configuration and the live rosters; a request loads it
//! once and keeps it to its end. [`Live`] is what all workers share. There is one publish point,
//! [`Live::publish`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use arc_swap::ArcSwap;
use http::header::HeaderName;
use tokio::sync::{Notify, watch};

use crate::affinity::token::{Keyring, Lifetimes};
use crate::config::types::{self, Config};
use crate::instance::kept::Ledger;
use crate::instance::roster::{Reconciled, Roster};
use crate::observe::counters::Counters;
use crate::route::Router;
use crate::tls::automatic::Automatic;

/// One configuration, ready to serve.
#[derive(Debug)]
pub struct Snapshot {
    /// Counts configurations from 1.
    pub generation: u64,
    /// What it was built from.
    pub config: Arc<Config>,
    /// Seals and opens tokens.
    pub keyring: Arc<Keyring>,
    /// Query parameters that carry tokens, of all services.
    pub token_queries: Box<[String]>,
    /// Fields that tell instances of clients' certificates, of all listeners: what a client puts there
    /// itself is never passed on, wherever it comes in.
    pub certificate_fields: Box<[HeaderName]>,
    router: Router,
    services: Vec<Service>,
}

/// A service with the live side of its version.
#[derive(Debug)]
pub struct Service {
    place: usize,
    config: Arc<Config>,
    /// The instances.
    pub roster: Arc<Roster>,
    /// Of affinity tokens.
    pub lifetimes: Lifetimes,
}

impl Service {
    /// Whose requests it takes.
    pub fn access(&self) -> &types::Access {
        &self.config.services[self.place].access
    }

    /// What the configuration says of its version.
    pub fn version(&self) -> &types::Version {
        &self.config.services[self.place].version
    }
}

impl Snapshot {
    /// The service for a request.
    pub fn service(&self, authority: &str, path: &str) -> Option<&Service> {
        self.router.find(authority, path).map(|place| &self.services[place])
    }

    /// Every version with its instances.
    pub fn versions(&self) -> impl Iterator<Item = (&types::Version, &Roster)> {
        self.services.iter().map(|service| (service.version(), &*service.roster))
    }

    /// Every service.
    pub fn services(&self) -> &[Service] {
        &self.services
    }

    fn roster(&self, service: &str, version: &str) -> Option<&Arc<Roster>> {
        self.services
            .iter()
            .map(|known| &known.roster)
            .find(|roster| roster.service() == service && roster.version() == version)
    }
}

/// Whether the process takes new work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It does.
    Serving,
    /// It finishes what it has; tunnels are closed spread from one instant to the other.
    Draining {
        /// The first may be closed.
        from: Instant,
        /// All must be.
        until: Instant,
        /// Kept connections without a request may stay until then: another process has taken over,
        /// and a client that was about to ask need not notice.
        rest: Instant,
    },
}

impl Phase {
    /// Until when kept connections may rest; `None` as long as nothing asks them to go.
    pub fn rest(self) -> Option<Instant> {
        match self {
            Self::Serving => None,
            Self::Draining { rest, .. } => Some(rest),
        }
    }
}

/// What all workers share.
#[derive(Debug)]
pub struct Live {
    snapshot: ArcSwap<Snapshot>,
    /// Counts of the whole process.
    pub counters: Counters,
    /// Bodies that are held for another attempt.
    pub kept: Arc<Ledger>,
    /// Worker threads.
    pub workers: usize,
    /// Certificates that Burdock gets for itself.
    pub automatic: Arc<Automatic>,
    phase: watch::Sender<Phase>,
    /// Whether the phase is another than `Serving`, for those who look at each request.
    leaving: AtomicBool,
    /// Whether what is left is being dropped.
    cut: AtomicBool,
    /// One per worker, so that a nudge that finds nobody waiting is kept.
    nudges: Box<[Notify]>,
}

/// What the new configuration did, for the prober and the drains.
#[derive(Debug)]
pub struct Published {
    /// What was published.
    pub snapshot: Arc<Snapshot>,
    /// Instances that came and went.
    pub changes: Vec<Reconciled>,
}

impl Live {
    /// The first configuration.
    pub fn new(config: Arc<Config>, keyring: Arc<Keyring>, workers: usize) -> (Self, Published) {
        let (snapshot, changes) = build(config, keyring, workers, None);
        let snapshot = Arc::new(snapshot);
        let live = Self {
            snapshot: ArcSwap::new(Arc::clone(&snapshot)),
            counters: Counters::default(),
            kept: Arc::default(),
            workers,
            automatic: Arc::default(),
            phase: watch::Sender::new(Phase::Serving),
            leaving: AtomicBool::new(false),
            cut: AtomicBool::new(false),
            nudges: (0..workers).map(|_| Notify::new()).collect(),
        };
        (live, Published { snapshot, changes })
    }

    /// The same, where handshakes find the certificates that Burdock gets for itself.
    #[must_use]
    pub fn with(self, automatic: Arc<Automatic>) -> Self {
        Self { automatic, ..self }
    }

    /// What to serve by, for the length of one request.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Takes over a new configuration; live state is kept by identity.
    pub fn publish(&self, config: Arc<Config>, keyring: Arc<Keyring>) -> Published {
        let before = self.snapshot.load_full();
        let (snapshot, mut changes) = build(config, keyring, self.workers, Some(&before));
        changes.extend(retire(&before, &snapshot, self.workers));
        let snapshot = Arc::new(snapshot);
        self.snapshot.store(Arc::clone(&snapshot));
        Published { snapshot, changes }
    }

    /// Follows the phase.
    pub fn phase(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// Begins the end: tunnels are closed in `window`, kept connections may rest until `rest`.
    pub fn drain(&self, (from, until): (Instant, Instant), rest: Instant) {
        self.leaving.store(true, Ordering::Relaxed);
        self.phase.send_replace(Phase::Draining { from, until, rest });
        self.nudge();
    }

    /// Whether clients are to come back by another connection.
    pub fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }

    /// What is left is about to be dropped.
    pub fn cut(&self) {
        self.cut.store(true, Ordering::Relaxed);
    }

    /// Whether what is dropped now is dropped by Burdock.
    pub fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Relaxed)
    }

    /// Lets every worker look at its tunnels now.
    pub fn nudge(&self) {
        self.nudges.iter().for_each(Notify::notify_one);
    }

    /// Resolves when a worker should look at its tunnels.
    pub async fn nudged(&self, worker: usize) {
        self.nudges[worker].notified().await;
    }
}

fn build(
    config: Arc<Config>,
    keyring: Arc<Keyring>,
    workers: usize,
    before: Option<&Snapshot>,
) -> (Snapshot, Vec<Reconciled>) {
    let mut changes = Vec::new();
    let mut services = Vec::with_capacity(config.services.len());
    for (place, service) in config.services.iter().enumerate() {
        let version = &service.version;
        let known = before.and_then(|before| before.roster(&service.name, &version.name));
        let roster = known
            .cloned()
            .unwrap_or_else(|| Arc::new(Roster::new(&service.name, &version.name, Instant::now())));
        changes.push(roster.reconcile(version, workers));
        let seconds =
            |limit: Option<std::time::Duration>| limit.map(|limit| limit.as_secs().max(1));
        let affinity = version.affinity.as_ref();
        let lifetimes = Lifetimes {
            ttl: seconds(affinity.and_then(|affinity| affinity.ttl)),
            idle_ttl: seconds(affinity.and_then(|affinity| affinity.idle_ttl)),
        };
        services.push(Service { place, config: Arc::clone(&config), roster, lifetimes });
    }
    let router = Router::build(config.services.iter());
    let generation = before.map_or(1, |before| before.generation + 1);
    let queries = config.services.iter().filter_map(|service| service.version.affinity.as_ref());
    let token_queries = queries.filter_map(|affinity| affinity.query.clone()).collect();
    let certificate_fields = certificate_fields(&config);
    let snapshot = Snapshot {
        generation,
        config,
        keyring,
        token_queries,
        certificate_fields,
        router,
        services,
    };
    (snapshot, changes)
}

fn certificate_fields(config: &Config) -> Box<[HeaderName]> {
    let listeners = config.listeners.iter().filter_map(|listener| listener.tls.as_ref());
    let asked = listeners.filter_map(|tls| tls.client_certificates.as_ref());
    let names = asked.flat_map(|asked| asked.headers());
    names.filter_map(|name| HeaderName::try_from(name).ok()).collect()
}

/// Versions that are gone take all their instances with them.
fn retire(before: &Snapshot, after: &Snapshot, workers: usize) -> Vec<Reconciled> {
    let gone = before.services.iter().filter(|service| {
        after.roster(service.roster.service(), service.roster.version()).is_none()
    });
    gone.map(|service| {
        let mut nothing = service.version().clone();
        nothing.instances.clear();
        service.roster.reconcile(&nothing, workers)
    })
    .collect()
}
