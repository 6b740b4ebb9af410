//! A running balancer: workers, listeners, checks, and what a reload changes of them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::mpsc;

use crate::acme::Keeper;
use crate::admin::desk::{Asked, Desk};
use crate::admin::sampler;
use crate::affinity::token::Keyring;
use crate::config::overlay::Overlay;
use crate::config::types::{Config, Service, Version};
use crate::config::{ConfigErrors, Loaded, diff};
use crate::discovery::Sources;
use crate::doctor;
use crate::fleet::{Fleet, Sent};
use crate::health;
use crate::health::prober::Prober;
use crate::listener::Worker;
use crate::observe::access::{self, Prepared};
use crate::observe::events::{Event, UpgradeStage};
use crate::observe::journal::Journal;
use crate::rehearsal::guard;
use crate::run::StartError;
use crate::run::crew;
use crate::run::doors::{Doors, Unserved};
use crate::run::finding::{self, Begun};
use crate::run::handover::{Estate, HandoverError};
use crate::run::inherited::Inherited;
use crate::run::keys::OwnKey;
use crate::run::threads::Threads;
use crate::run::{fleet, privileges, steering};
use crate::snapshot::{self, Layers, Live, Snapshot, drains};
use crate::trace::export;
use crate::tunnel::rebalance;

/// A start waits this long for first verdicts, so that it doesn't greet clients with a 503.
const FIRST_VERDICTS: Duration = Duration::from_secs(1);
/// A process that takes over waits this long for services that the one before it served.
const SUCCESSION: Duration = Duration::from_secs(10);
/// Between two looks at whether an instance has become ready.
pub(super) const START_LOOK: Duration = Duration::from_millis(50);

/// What asked for a reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// SIGHUP: somebody waits for an answer.
    Signal,
    /// A file may have changed.
    File,
    /// The admin API: somebody waits for an answer.
    Api,
    /// What the fleet shares may have changed.
    Fleet,
}

/// What a process leaves to the one after it.
pub(super) struct Before<'a> {
    /// Sockets that are bound already.
    pub(super) inherited: Inherited,
    /// Services that must have a ready instance before this process serves.
    pub(super) served: &'a [String],
    /// What was asked for at run time; `None` where there was no process before.
    pub(super) overlay: Option<Overlay>,
}

impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Signal => "SIGHUP",
            Self::File => "a file changed",
            Self::Api => "the admin API",
            Self::Fleet => "the fleet",
        })
    }
}

/// A running balancer.
pub struct Server {
    pub(super) live: Arc<Live>,
    /// The layers as one.
    pub(super) config: Arc<Config>,
    pub(super) threads: Option<Threads>,
    pub(super) workers: Vec<Worker>,
    pub(super) doors: Doors,
    pub(super) prober: health::prober::Prober,
    pub(super) own_key: OwnKey,
    /// The configuration's file, if there is one.
    pub(super) file: Option<PathBuf>,
    /// What is served by, one over the other.
    pub(super) layers: Layers,
    pub(super) desk: Arc<Desk>,
    /// What is asked of this server at run time.
    pub(super) orders: mpsc::Receiver<Asked>,
    /// Who tells which instances there are.
    pub(super) sources: Sources,
    pub(super) keeper: Keeper,
    /// When ramps were looked at last.
    pub(super) ramps_seen: Instant,
    pub(super) fleet: Fleet,
    /// What others are to hear of the order that is obeyed.
    pub(super) sent: Vec<Sent>,
    /// What is served of what the fleet shares.
    pub(super) shared_text: Option<Arc<str>>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("addresses", &self.addresses()).finish_non_exhaustive()
    }
}

impl Server {
    /// Binds, probes, and only then accepts. `config_file` says where a key may be kept.
    pub async fn start(loaded: Loaded, config_file: Option<&Path>) -> Result<Self, StartError> {
        let before = Before { inherited: Inherited::default(), served: &[], overlay: None };
        let mut server = Self::succeed(loaded, config_file, before).await?;
        server.keep_certificates();
        server.join_fleet();
        Ok(server)
    }

    /// The same where another process served before.
    pub(super) async fn succeed(
        loaded: Loaded,
        config_file: Option<&Path>,
        before: Before<'_>,
    ) -> Result<Self, StartError> {
        let Before { mut inherited, served, overlay } = before;
        let Begun { sources, found, reports } = finding::begin(&loaded.config, config_file).await;
        let filed = Arc::new(loaded.config);
        let (layers, keeps_less) = steering::layers(filed, found, overlay, config_file);
        let config = layers.served();
        for note in &loaded.notes {
            tracing::info!("{note}");
        }
        let count = crew::size(&config);
        let doors = Doors::default();
        let unserved = doors.bind(&config, count, &mut inherited)?;
        for address in inherited.unused() {
            tracing::warn!(%address, "a socket that was passed to this process is not asked for");
        }
        drop(inherited);
        // Before a file is made, so that whoever reads it again made it.
        privileges::give_up(config.user.as_ref(), &loaded.watched)?;
        // By whoever it is opened again by after it was rotated.
        access::follow(access::prepare(config.access_log.as_ref())?);
        let mut own_key = OwnKey::new(config_file);
        let (fleet, layers) = fleet::begin(layers, config_file, &mut own_key).await?;
        let config = layers.served();
        let keyring = fleet::keyring(&mut own_key, &fleet, &config)?;
        warn_unverified(None, &config);
        let automatic = Arc::clone(doors.automatic());
        let keeper = Keeper::new(Arc::clone(&automatic));
        keeper.follow(&config);
        let (live, published) = Live::new(layers.clone(), Arc::new(keyring), count);
        let live = Arc::new(live.with(automatic).telling(Arc::clone(fleet.board())));
        live.findings.locate(loaded.places);
        warn(&live.journal, &loaded.warnings);
        let prober = prober(&live);
        let (threads, workers) = crew::begin(&live, count).map_err(StartError::Workers)?;
        let (file, begun) = (config_file.map(Path::to_owned), SystemTime::now());
        live.counters.reloaded(loaded.warnings);
        let (desk, orders) = Desk::new(Arc::clone(&live), file.clone(), loaded.overrides, begun);
        let mut server = Self {
            live,
            config: Arc::clone(&config),
            threads: Some(threads),
            workers,
            doors,
            prober,
            own_key,
            file,
            layers,
            desk: Arc::new(desk),
            orders,
            sources,
            keeper,
            ramps_seen: Instant::now(),
            fleet,
            sent: Vec::new(),
            shared_text: None,
        };
        server.attend();
        server.retire(&published, &config, None);
        server.prober.follow(published.snapshot.versions());
        if keeps_less {
            server.keep().await;
        }
        server.follow_sources(&Arc::clone(&server.layers.filed));
        for report in reports {
            server.hear(report).await;
        }
        server.prober.first_verdicts(FIRST_VERDICTS).await;
        server.await_served(served).await?;
        server.exchange(&config, unserved);
        // Each has begun to accept after this.
        server.lap().await;
        Ok(server)
    }

    /// Begins what goes on beside the workers for as long as the process lives.
    fn attend(&self) {
        let live = || Arc::clone(&self.live);
        let registries = self.workers.iter().map(|worker| Arc::clone(&worker.registry)).collect();
        tokio::spawn(rebalance::run(live(), registries));
        tokio::spawn(crew::ramp(live()));
        tokio::spawn(sampler::run(live()));
        tokio::spawn(doctor::rounds::run(live()));
        let (spans, known) = (Arc::clone(&self.live.spans), live());
        tokio::spawn(export::run(spans, move || known.snapshot().config.tracing.clone()));
        tokio::spawn(guard::watch(live()));
    }

    /// Gets certificates from now on, where the configuration says so: nobody else does.
    pub(super) fn keep_certificates(&mut self) {
        self.keeper.begin();
    }

    /// Resolves when each of these services has a ready instance, or is not in the configuration.
    async fn await_served(&self, services: &[String]) -> Result<(), StartError> {
        let snapshot = self.live.snapshot();
        let deadline = Instant::now() + SUCCESSION;
        for service in snapshot.services() {
            let name = service.roster.service();
            let is_it =
                |served: &String| *served == served_name(&snapshot, service) || served == name;
            let is_meant = services.iter().any(is_it);
            while is_meant && !service.roster.is_served() {
                if Instant::now() >= deadline {
                    return Err(StartError::Unserved(name.to_owned()));
                }
                tokio::time::sleep(START_LOOK).await;
            }
        }
        Ok(())
    }

    /// What a process that takes over is given.
    pub(super) fn estate(&self) -> Estate {
        let snapshot = self.live.snapshot();
        let served = snapshot.services().iter().filter(|service| service.roster.is_served());
        let served = served.map(|service| served_name(&snapshot, service)).collect();
        let overrides = self.layers.overlay.rows().collect();
        let splits = self.layers.overlay.shares_rows().collect();
        let ramps = self.layers.overlay.ramp_rows().collect();
        Estate { sockets: self.doors.sockets(), served, overrides, splits, ramps }
    }

    /// Another process did not take over.
    pub(super) fn stay(&self, error: &HandoverError) {
        self.live.counters.upgrades_failed.fetch_add(1, Ordering::Relaxed);
        tracing::error!(%error, "the upgrade failed; this process goes on");
        self.note_upgrade(UpgradeStage::Failed(error.to_string()));
    }

    /// Another process is to take over.
    pub(super) fn note_upgrade(&self, stage: UpgradeStage) {
        self.live.journal.note(Event::Upgrade(stage));
    }

    /// The addresses that accept clients.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.doors.addresses()
    }

    /// The address of the admin listener.
    pub fn admin(&self) -> Option<SocketAddr> {
        self.doors.admin()
    }

    /// Takes over a new configuration, whole or not at all. Gives what changed, or why not.
    pub async fn reload(
        &mut self,
        loaded: Loaded,
        cause: Cause,
    ) -> Result<Vec<String>, StartError> {
        let filed = Arc::new(loaded.config);
        let changes = diff(&self.layers.filed, &filed);
        let live = Arc::clone(&self.live);
        if cause != Cause::File {
            self.keeper.nudge();
        }
        if changes.is_empty() && filed == self.layers.filed {
            live.findings.locate(loaded.places);
            let was_rejected = live.counters.reloaded(loaded.warnings);
            if was_rejected || cause != Cause::File {
                let generation = live.snapshot().generation;
                tracing::info!(generation, changes = "none", %cause, "reloaded");
            }
            return Ok(Vec::new());
        }
        let found = self.seeded(&filed);
        let layers = self.layered(filed, found);
        let config = layers.served();
        let (keyring, unserved, log) = match self.prepare(&config) {
            Ok(prepared) => prepared,
            Err(error) => {
                live.rejected(vec![error.to_string()]);
                tracing::error!(%error, %cause, "reload rejected");
                return Err(error);
            }
        };
        warn(&live.journal, &loaded.warnings);
        live.findings.locate(loaded.places);
        access::follow(log);
        guard::heed(&live, &self.config, &config);
        let begun = Instant::now();
        let published = self.live.publish(layers.clone(), Arc::new(keyring));
        let publish_ms = begun.elapsed().as_secs_f64() * 1000.0;
        self.prober.follow(published.snapshot.versions());
        let before = std::mem::replace(&mut self.layers, layers);
        self.follow_sources(&Arc::clone(&self.layers.filed));
        self.reconsider_ramps(&before.overlay);
        let forgotten = self.reconsider_shares(&before.overlay);
        self.follow_fleet();
        self.retire(&published, &config, None);
        self.keeper.follow(&config);
        self.exchange(&config, unserved);
        self.tell_fleet_anew();
        warn_unverified(Some(&self.config), &config);
        let token = |config: &Config| config.admin.as_ref().and_then(|admin| admin.token.clone());
        if token(&self.config) != token(&config) {
            // Whoever follows events by the one before has to bring the new one.
            self.desk.streams.end();
        }
        self.config = config;
        if before.overlay != self.layers.overlay {
            self.keep().await;
        }
        let changes = changes.iter().map(ToString::to_string).chain(forgotten);
        let changes: Vec<_> = changes.collect();
        let generation = published.snapshot.generation;
        let told = changes.join("; ");
        tracing::info!(generation, changes = told, publish_ms, %cause, "reloaded");
        live.reloaded(generation, changes.clone(), loaded.warnings);
        Ok(changes)
    }

    /// Notes a configuration that was refused.
    pub fn reject(&self, errors: &ConfigErrors, cause: Cause) {
        let problems: Vec<_> = errors.problems().iter().map(ToString::to_string).collect();
        self.live.rejected(problems);
        tracing::error!(error = %errors, %cause, "reload rejected");
    }

    /// What can fail in a reload, done before anything is changed.
    fn prepare(&mut self, config: &Config) -> Result<(Keyring, Unserved, Prepared), StartError> {
        let nothing = &mut Inherited::default();
        let unserved = self.doors.bind(config, self.workers.len(), nothing)?;
        let log = access::prepare(config.access_log.as_ref())?;
        // Last, since it may leave a file.
        let keyring = fleet::keyring(&mut self.own_key, &self.fleet, config)?;
        Ok((keyring, unserved, log))
    }

    fn exchange(&mut self, config: &Config, unserved: Unserved) {
        let Some(threads) = &self.threads else { return };
        self.doors.exchange(config, unserved, &self.desk, (threads, &self.workers));
    }
}

/// What one process calls to another what it serves: a service, or one of its versions.
fn served_name(snapshot: &Snapshot, service: &snapshot::Service) -> String {
    let roster = &service.roster;
    match snapshot.branch_of(service).only() {
        Some(_) => roster.service().to_owned(),
        None => format!("{}/{}", roster.service(), roster.version()),
    }
}

fn warn(journal: &Journal, warnings: &[String]) {
    for warning in warnings {
        tracing::warn!("{warning}");
        let message = warning.clone();
        journal.note(Event::Warning { code: "config", whose: None, message, cure: None });
    }
}

/// Who asks instances how they are, and sees to the end of drains that they ask for.
fn prober(live: &Arc<Live>) -> Prober {
    let live = Arc::clone(live);
    Prober::new(Arc::new(move |instance, drain| {
        live.nudge();
        drains::finish(&live, &instance, drain);
    }))
}

/// Whether tokens are issued.
pub(super) fn has_affinity(config: &Config) -> bool {
    let versions = config.services.iter().flat_map(|service| &service.versions);
    let mut affinities = versions.filter_map(|version| version.affinity.as_ref());
    affinities.any(|affinity| affinity.by.is_none())
}

/// Says of which versions nobody verifies the instances' certificates, where that is new.
fn warn_unverified(before: Option<&Config>, config: &Config) {
    let is_unverified = |version: &Version| version.tls.as_ref().is_some_and(|tls| !tls.verify);
    for Service { name: service, versions, .. } in &config.services {
        for version in versions.iter().filter(|version| is_unverified(version)) {
            let known = before.into_iter().flat_map(|before| &before.services);
            let known = known.filter(|it| it.name == *service);
            if !known.filter_map(|it| it.version(&version.name)).any(is_unverified) {
                let version = &version.name;
                tracing::warn!(
                    service,
                    version,
                    "tls.verify is off: anybody may pose as an instance"
                );
            }
        }
    }
}
