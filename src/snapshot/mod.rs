//! What a request may read: one immutable value, published whole.
//!
//! A [`Snapshot`] is built from a validated configuration and the live rosters; a request loads it
//! once and keeps it to its end. [`Live`] is what all workers share. There is one publish point,
//! [`Live::publish`].

mod branch;
pub mod drains;
pub mod plan;
pub mod ramps;
pub mod room;

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use http::header::HeaderName;
use tokio::sync::{Notify, watch};

use crate::affinity::token::{Keyring, Lifetimes};
use crate::config::found::Found;
use crate::config::overlay::{Key, Overlay};
use crate::config::types::{self, Config};
use crate::discovery::board::Board;
use crate::doctor::findings::Findings;
use crate::fleet::board::Board as Fleet;
use crate::instance::Namer;
use crate::instance::kept::Ledger;
use crate::instance::roster::{Reconciled, Roster};
use crate::observe::counters::Counters;
use crate::observe::events::Event;
use crate::observe::journal::Journal;
use crate::observe::red::{Red, Sums};
use crate::observe::telemetry::Telemetry;
use crate::rehearsal::Rehearsals;
use crate::route::{Route, Router, Unrouted};
use crate::snapshot::branch::Place;
use crate::snapshot::ramps::Ramps;
use crate::snapshot::room::Room;
use crate::tls::automatic::Automatic;
use crate::trace::queue::Spans;

pub use branch::Branch;

/// One configuration, ready to serve.
#[derive(Debug)]
pub struct Snapshot {
    /// Counts configurations that were read, from 1.
    pub generation: u64,
    /// What it was built from: the file with the overlay over it.
    pub config: Arc<Config>,
    /// What the file says.
    pub filed: Arc<Config>,
    /// The same with what was found.
    pub named: Arc<Config>,
    /// What is to differ from that.
    pub overlay: Arc<Overlay>,
    /// Seals and opens tokens.
    pub keyring: Arc<Keyring>,
    /// Query parameters that carry tokens, of all services.
    pub token_queries: Box<[String]>,
    /// Fields that tell instances of clients' certificates, of all listeners: what a client puts there
    /// itself is never passed on, wherever it comes in.
    pub certificate_fields: Box<[HeaderName]>,
    router: Router,
    /// The versions of each service, one service after the other.
    services: Vec<Service>,
    places: Vec<Place>,
}

/// Where a request goes.
#[derive(Debug, Clone, Copy)]
pub struct Destination<'a> {
    /// The versions of its service.
    pub branch: Branch<'a>,
    /// Which of the service's `routes` takes it, if one does, and the prefix by which.
    pub part: Option<(u16, &'a str)>,
}

/// What a snapshot is built from.
#[derive(Debug, Clone)]
pub struct Layers {
    /// What the file says.
    pub filed: Arc<Config>,
    /// Instances that were found besides.
    pub found: Arc<Found>,
    /// What is to differ from both.
    pub overlay: Arc<Overlay>,
}

impl From<Arc<Config>> for Layers {
    fn from(filed: Arc<Config>) -> Self {
        Self { filed, found: Arc::default(), overlay: Arc::default() }
    }
}

impl Layers {
    /// What the file says, with what was found.
    pub fn named(&self) -> Arc<Config> {
        match self.found.is_empty() {
            true => Arc::clone(&self.filed),
            false => Arc::new(self.found.apply(&self.filed)),
        }
    }

    /// All of them, one over the other.
    pub fn served(&self) -> Arc<Config> {
        self.over(&self.named())
    }

    fn over(&self, named: &Arc<Config>) -> Arc<Config> {
        match self.overlay.is_empty() {
            true => Arc::clone(named),
            false => Arc::new(self.overlay.apply(named)),
        }
    }
}

/// A version of a service with its live side.
#[derive(Debug)]
pub struct Service {
    place: usize,
    /// Which of the service's versions.
    nth: usize,
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

    /// What the configuration says of the service.
    pub fn settings(&self) -> &types::Service {
        &self.config.services[self.place]
    }

    /// What the configuration says of its version.
    pub fn version(&self) -> &types::Version {
        &self.config.services[self.place].versions[self.nth]
    }

    /// The part of the service's requests that the version gets which are bound to none, from 0 to 1.
    pub fn share(&self) -> f64 {
        self.settings().share(&self.version().name)
    }
}

impl Snapshot {
    /// The service for a request: its versions, of which there is at least one.
    pub fn service(&self, authority: &str, path: &str) -> Result<Destination<'_>, Unrouted> {
        self.route(authority, path).map(|(branch, route)| {
            // No file has as many.
            let index = route.part.and_then(|part| u16::try_from(part).ok());
            Destination { branch, part: index.map(|index| (index, route.path)) }
        })
    }

    /// The same, and what leads there.
    pub fn route(&self, authority: &str, path: &str) -> Result<(Branch<'_>, Route<'_>), Unrouted> {
        let route = self.router.route(authority, path)?;
        Ok((self.places[route.service].of(&self.services), route))
    }

    /// The service that this is a version of.
    pub fn branch_of(&self, version: &Service) -> Branch<'_> {
        self.places[version.place].of(&self.services)
    }

    /// Each service with its versions.
    pub fn branches(&self) -> impl Iterator<Item = Branch<'_>> {
        self.places.iter().map(|place| place.of(&self.services))
    }

    /// Every version with its instances.
    pub fn versions(&self) -> impl Iterator<Item = (&types::Version, &Roster)> {
        self.services.iter().map(|service| (service.version(), &*service.roster))
    }

    /// Every version of every service.
    pub fn services(&self) -> &[Service] {
        &self.services
    }

    /// The instances of a version.
    pub fn roster(&self, service: &str, version: &str) -> Option<&Arc<Roster>> {
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

/// An address that accepts clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    /// As the configuration says, maybe with port 0.
    pub asked: SocketAddr,
    /// Where that is.
    pub address: SocketAddr,
}

/// What all workers share.
#[derive(Debug)]
pub struct Live {
    snapshot: ArcSwap<Snapshot>,
    /// When the process began to serve.
    pub started: SystemTime,
    /// What the sampler has found.
    pub telemetry: Telemetry,
    /// What has happened.
    pub journal: Arc<Journal>,
    /// Counts of the whole process.
    pub counters: Counters,
    listeners: Mutex<BTreeMap<SocketAddr, Box<[Arc<Red>]>>>,
    bound: Mutex<Vec<Bound>>,
    /// What is probably wrong.
    pub findings: Findings,
    /// Who tells which instances there are.
    pub sources: Board,
    /// How this balancer stands in its fleet.
    pub fleet: Arc<Fleet>,
    /// How long connections may rest.
    pub room: Room,
    /// Bodies that are held for another attempt.
    pub kept: Arc<Ledger>,
    /// What is told of requests to a collector.
    pub spans: Arc<Spans>,
    /// The drill that runs.
    pub rehearsals: Rehearsals,
    /// Versions that ramp up.
    pub ramps: Ramps,
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
    pub fn new(
        layers: impl Into<Layers>,
        keyring: Arc<Keyring>,
        workers: usize,
    ) -> (Self, Published) {
        let journal = Arc::default();
        let (snapshot, changes) = build(layers.into(), keyring, (workers, &journal), None);
        let snapshot = Arc::new(snapshot);
        let live = Self {
            snapshot: ArcSwap::new(Arc::clone(&snapshot)),
            started: SystemTime::now(),
            telemetry: Telemetry::default(),
            journal,
            counters: Counters::default(),
            listeners: Mutex::default(),
            bound: Mutex::default(),
            findings: Findings::default(),
            sources: Board::default(),
            fleet: Arc::default(),
            room: Room::default(),
            kept: Arc::default(),
            spans: Arc::default(),
            rehearsals: Rehearsals::default(),
            ramps: Ramps::default(),
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

    /// The same, which tells of this fleet.
    #[must_use]
    pub fn telling(self, fleet: Arc<Fleet>) -> Self {
        Self { fleet, ..self }
    }

    /// What this worker counts of the requests that come in at `address`. Kept for as long as it is
    /// held by somebody who accepts there, or by a connection that was accepted.
    pub fn listener(&self, address: SocketAddr, worker: usize) -> Arc<Red> {
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = || (0..self.workers).map(|_| Arc::default()).collect();
        Arc::clone(&listeners.entry(address).or_insert_with(fresh)[worker])
    }

    /// Clients are accepted at these addresses from now on.
    pub fn accepts_at(&self, bound: Vec<Bound>) {
        *self.bound.lock().unwrap_or_else(PoisonError::into_inner) = bound;
    }

    /// Where clients are accepted.
    pub fn bound(&self) -> Vec<Bound> {
        self.bound.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What has come in at each address that accepts, or has connections that it accepted before.
    pub fn listeners(&self) -> Vec<(SocketAddr, Sums)> {
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.retain(|_, reds| reds.iter().any(|red| Arc::strong_count(red) > 1));
        let sums = |reds: &[Arc<Red>]| Sums::of(reds.iter().map(|red| &**red));
        listeners.iter().map(|(address, reds)| (*address, sums(reds))).collect()
    }

    /// What to serve by, for the length of one request.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Takes over a new configuration; live state is kept by identity.
    pub fn publish(&self, layers: impl Into<Layers>, keyring: Arc<Keyring>) -> Published {
        let before = self.snapshot.load_full();
        let crew = (self.workers, &self.journal);
        let (snapshot, mut changes) = build(layers.into(), keyring, crew, Some(&before));
        changes.extend(retire(&before, &snapshot, self.workers));
        let snapshot = Arc::new(snapshot);
        self.snapshot.store(Arc::clone(&snapshot));
        changes.iter().for_each(Reconciled::tell);
        Published { snapshot, changes }
    }

    /// A configuration was taken over, whole, that changes this; its reader had these warnings.
    pub fn reloaded(&self, generation: u64, changes: Vec<String>, warnings: Vec<String>) {
        self.counters.reloaded(warnings);
        self.journal.note(Event::Reloaded { generation, changes });
    }

    /// A configuration was rejected, for these reasons.
    pub fn rejected(&self, problems: Vec<String>) {
        self.counters.rejected(problems.clone());
        self.journal.note(Event::Rejected { problems });
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
    layers: Layers,
    keyring: Arc<Keyring>,
    (workers, journal): (usize, &Arc<Journal>),
    before: Option<&Snapshot>,
) -> (Snapshot, Vec<Reconciled>) {
    let named = layers.named();
    let config = layers.over(&named);
    let mut changes = Vec::new();
    let mut services = Vec::with_capacity(config.services.len());
    let mut places = Vec::with_capacity(config.services.len());
    for (place, service) in config.services.iter().enumerate() {
        places.push(Place::new(service, services.len()));
        for (nth, version) in service.versions.iter().enumerate() {
            let known = before.and_then(|before| before.roster(&service.name, &version.name));
            let fresh = || {
                let fresh = Roster::new(&service.name, &version.name, Instant::now());
                Arc::new(fresh.noting(journal))
            };
            let roster = known.cloned().unwrap_or_else(fresh);
            changes.push(roster.reconcile(version, workers));
            mark_named(&roster, &layers, &layers.filed.services[place].versions[nth], before);
            let (config, lifetimes) = (Arc::clone(&config), lifetimes(version));
            services.push(Service { place, nth, config, roster, lifetimes });
        }
    }
    let router = Router::build(config.services.iter());
    let Layers { filed, found: _, overlay } = layers;
    // It counts what was read, not what was steered since.
    let is_new = |before: &Snapshot| u64::from(!Arc::ptr_eq(&before.filed, &filed));
    let generation = before.map_or(1, |before| before.generation + is_new(before));
    let versions = config.services.iter().flat_map(|service| &service.versions);
    let queries = versions.filter_map(|version| version.affinity.as_ref());
    let token_queries = queries.filter_map(|affinity| affinity.query.clone()).collect();
    let certificate_fields = certificate_fields(&config);
    let snapshot = Snapshot {
        generation,
        config,
        filed,
        named,
        overlay,
        keyring,
        token_queries,
        certificate_fields,
        router,
        services,
        places,
    };
    (snapshot, changes)
}

/// Says who named which instances: of one that is removed again nobody else remembers it.
fn mark_named(roster: &Roster, layers: &Layers, filed: &types::Version, before: Option<&Snapshot>) {
    let had_any = before.is_some_and(|before| before.overlay.added() > 0);
    if layers.overlay.added() == 0 && !had_any && filed.discovery.is_none() {
        return;
    }
    let by_file: HashSet<&str> = filed.instances.iter().map(|it| &*it.name).collect();
    for instance in roster.members().present() {
        let wanted = layers.overlay.of(&Key::from(instance.identity()));
        let is_added = wanted.is_some_and(|wanted| wanted.added.is_some());
        instance.set_namer(match by_file.contains(&*instance.identity().name) {
            true => Namer::File,
            false if is_added => Namer::Api,
            false => Namer::Discovery,
        });
    }
}

fn lifetimes(version: &types::Version) -> Lifetimes {
    let seconds = |limit: Option<Duration>| limit.map(|limit| limit.as_secs().max(1));
    let affinity = version.affinity.as_ref();
    Lifetimes {
        ttl: seconds(affinity.and_then(|affinity| affinity.ttl)),
        idle_ttl: seconds(affinity.and_then(|affinity| affinity.idle_ttl)),
    }
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
