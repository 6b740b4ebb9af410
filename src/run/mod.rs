//! The composition root: builds the server, keeps it in step with its files and signals, and takes
//! it down in order. Only this room knows all the others.

mod crew;
mod departures;
mod doors;
mod ending;
mod finding;
mod fleet;
mod fleet_config;
mod fleet_keys;
mod handover;
mod inherited;
mod keys;
mod pid_file;
mod privileges;
mod ramps;
mod server;
mod state_file;
mod steering;
mod systemd;
mod threads;
mod upgrade;

use std::future::pending;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;

use crate::admin::desk::{Done, Order};
use crate::admin::problem::Problem;
use crate::config::overrides::Overrides;
use crate::config::{self, ConfigErrors, Loaded};
use crate::discovery::watch;
use crate::fleet::News;
use crate::fleet::text::TextError;
use crate::listener::{BindError, descriptors};
use crate::observe::access;
use crate::observe::events::UpgradeStage;
use crate::observe::output::{self, OpenError};
use crate::run::handover::{Call, Predecessor};
use crate::run::inherited::Inherited;
use crate::run::pid_file::PidFile;
use crate::run::server::Before;
use crate::run::steering::Word;
use crate::tls::server::TlsError;

pub use ending::Drained;
pub use fleet_config::{FleetConfigError, diff_fleet_config, push_fleet_config, show_fleet_config};
pub use fleet_keys::{FleetKeysError, fleet_keys, push_fleet_keys, rotate_fleet_keys};
pub use handover::HandoverError;
pub use keys::{KeyError, new_key};
pub use privileges::{PrivilegeError, look_up};
pub use server::{Cause, Server};
pub use upgrade::{UpgradeError, upgrade};

/// Where the configuration comes from, at the start and at each reload.
#[derive(Debug, Clone)]
pub enum Source {
    /// A YAML file.
    File(PathBuf),
    /// An App Engine `app.yaml`, with the instances from the command line.
    AppYaml {
        /// The file.
        path: PathBuf,
        /// `HOST:PORT` of each.
        instances: Vec<String>,
    },
}

/// The source, and what the command line puts over it.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The source.
    pub source: Source,
    /// What the command line puts over it.
    pub overrides: Overrides,
    /// The file that names the process which serves.
    pub pid_file: Option<PathBuf>,
}

impl Settings {
    /// Reads the configuration anew.
    pub fn load(&self) -> Result<Loaded, ConfigErrors> {
        let mut loaded = match &self.source {
            Source::File(path) => config::load(path)?,
            Source::AppYaml { path, instances } => config::from_app_yaml(path, instances)?,
        };
        self.overrides.apply(&mut loaded, self.path())?;
        Ok(loaded)
    }

    /// The file that the source is named by.
    pub fn path(&self) -> &PathBuf {
        match &self.source {
            Source::File(path) | Source::AppYaml { path, .. } => path,
        }
    }
}

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Nothing was bound.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// A listener or the admin address.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// TLS on a listener.
    #[error("preparing TLS: {0}")]
    Tls(#[from] TlsError),
    /// The key that was to be made.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The threads of the workers.
    #[error("starting the workers: {0}")]
    Workers(#[source] std::io::Error),
    /// The user to become.
    #[error(transparent)]
    Privileges(#[from] PrivilegeError),
    /// The process to take over from.
    #[error("taking over: {0}")]
    Handover(#[from] HandoverError),
    /// Taking over would have interrupted a service.
    #[error("taking over: no instance of {0} is ready, and the process before has one")]
    Unserved(String),
    /// The part of the configuration that is the fleet's.
    #[error("the fleet's configuration: {0}")]
    FleetConfig(#[source] TextError),
    /// The file of the access log.
    #[error(transparent)]
    AccessLog(#[from] OpenError),
    /// What systemd passed.
    #[error("taking the sockets that systemd passed: {0}")]
    Sockets(#[source] std::io::Error),
    /// The signals.
    #[error("installing signal handlers: {0}")]
    Signals(#[source] std::io::Error),
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Everything was finished.
    Clean,
    /// The deadline, or a second signal, cut something.
    Cut,
}

/// Serves until SIGTERM or SIGINT, reloading on SIGHUP and when a file changes, and until another
/// process has taken over on SIGUSR2. SIGUSR1 opens the file of the access log anew.
pub async fn run(settings: Settings) -> Result<Ended, StartError> {
    // First: a signal to all processes of a service must not end one that is about to take over.
    let mut signals = Signals::install().map_err(StartError::Signals)?;
    let call = Call::of_this_process();
    let (predecessor, inherited) = match Predecessor::meet()? {
        Some((predecessor, inherited)) => (Some(predecessor), inherited),
        None => (None, Inherited::from_systemd().map_err(StartError::Sockets)?),
    };
    let (loaded, text) = fleet_config::begin(settings.load()?, settings.path()).await?;
    descriptors::raise();
    let mut watcher = watch::Watcher::new(&loaded.watched);
    let before = Before {
        inherited,
        served: predecessor.as_ref().map_or(&[][..], |before| &before.served),
        overlay: predecessor.as_ref().map(|before| before.overlay.clone()),
    };
    let mut server = Server::succeed(loaded, Some(settings.path()), before).await?;
    server.keep_text(text).await;
    let pid_file = settings.pid_file.as_deref().map(PidFile::at);
    // First, so that the process before this one doesn't find its own id there at its end.
    sign(pid_file.as_ref());
    if let Some(Err(error)) = predecessor.map(Predecessor::relieve) {
        // It is gone, and so nobody else serves.
        tracing::warn!(%error, "the process before this one does not know that it is relieved");
    }
    server.keep_certificates();
    server.join_fleet();
    systemd::ready();
    let mut pulse = systemd::watchdog().map(tokio::time::interval);
    let mut handover: Option<Handover> = None;
    loop {
        let asked = tokio::select! {
            asked = signals.next() => asked,
            () = watcher.changed() => Asked::Reload(Cause::File),
            word = server.word() => {
                let is_leaving = handover.is_some();
                heed(&mut server, word, (&settings, &mut watcher), is_leaving).await;
                continue;
            }
            outcome = Handover::outcome(handover.as_mut()) => {
                handover = None;
                match outcome {
                    Ok(process) => return Ok(withdraw(server, process, &mut signals).await),
                    Err(error) => server.stay(&error),
                }
                sign(pid_file.as_ref());
                continue;
            }
            limit = beat(pulse.as_mut()) => {
                if tokio::time::timeout(limit, server.lap()).await.is_ok() {
                    systemd::alive();
                }
                continue;
            }
        };
        match asked {
            Asked::Stop => break,
            Asked::Reload(cause) => {
                // Whoever asked by a signal reads the log.
                let _ = reload(&mut server, &settings, &mut watcher, cause).await;
            }
            Asked::Upgrade if handover.is_some() => {
                tracing::warn!("an upgrade is under way already");
            }
            Asked::Upgrade => {
                tracing::info!("upgrading");
                server.note_upgrade(UpgradeStage::Began);
                handover = Some(Handover::begin(call.clone(), &server));
            }
        }
    }
    if let Some(handover) = handover {
        handover.stop().await;
    }
    systemd::stopping();
    Ok(server.drain(signals.stop()).await.into())
}

/// Does what is asked, or takes what is told.
async fn heed(
    server: &mut Server,
    word: Word,
    (settings, watcher): (&Settings, &mut watch::Watcher),
    is_leaving: bool,
) {
    let asked = match word {
        Word::Told(report) => return server.hear(report).await,
        // What another process begins with must not change any more.
        Word::Ramps if is_leaving => return server.pass_over_ramps(),
        Word::Ramps => return server.look_at_ramps().await,
        Word::Shared(News::Config) => {
            if server.is_text_new() && !is_leaving {
                // What came of it is told in the log and the status.
                let _ = reload(server, settings, watcher, Cause::Fleet).await;
            }
            return;
        }
        Word::Shared(news) => return server.heed_fleet(news).await,
        Word::Asked(asked) => asked,
    };
    let settled = match &asked.order {
        Order::Reload => reload(server, settings, watcher, Cause::Api).await,
        _ if is_leaving => Err(steering::under_way()),
        other => server.obey(other.clone()).await,
    };
    server.answer(asked.answer, settled);
}

/// Leaves to `process` what is new, and finishes what is old.
async fn withdraw(mut server: Server, process: u32, signals: &mut Signals) -> Ended {
    tracing::info!(process, "another process has taken over");
    output::follow_files();
    server.note_upgrade(UpgradeStage::TakenOver(process));
    systemd::handed_over(process);
    match server.withdraw(signals.stop()).await {
        Some(drained) => drained.into(),
        None => server.drain(signals.stop()).await.into(),
    }
}

fn sign(file: Option<&PidFile>) {
    if let Some(file) = file
        && let Err(error) = file.write()
    {
        tracing::error!(%error, file = %file.path().display(), "writing the pid file failed");
    }
}

/// Resolves when systemd is to be told that this process lives; gives how long it may take to find
/// that out.
async fn beat(pulse: Option<&mut tokio::time::Interval>) -> std::time::Duration {
    match pulse {
        Some(interval) => {
            interval.tick().await;
            interval.period()
        }
        None => pending().await,
    }
}

/// A process that is about to take over, as a thread waits for it.
struct Handover {
    waiting: JoinHandle<Result<u32, HandoverError>>,
    stopping: Arc<AtomicBool>,
}

impl Handover {
    fn begin(call: Call, server: &Server) -> Self {
        let (estate, stopping) = (server.estate(), Arc::new(AtomicBool::new(false)));
        let told = Arc::clone(&stopping);
        let wait = move || handover::hand_over(&call, &estate, &told);
        Self { waiting: tokio::task::spawn_blocking(wait), stopping }
    }

    /// What came of it; never, where there is none.
    async fn outcome(this: Option<&mut Self>) -> Result<u32, HandoverError> {
        match this {
            Some(handover) => (&mut handover.waiting).await.expect("waiting does not panic"),
            None => pending().await,
        }
    }

    /// Ends the other process, unless it serves already.
    async fn stop(self) {
        self.stopping.store(true, Ordering::Relaxed);
        // One that serves already goes on; whoever wants it to stop tells it.
        let _ = self.waiting.await;
    }
}

impl From<Drained> for Ended {
    fn from(drained: Drained) -> Self {
        match drained {
            Drained::Clean => Self::Clean,
            Drained::Cut => Self::Cut,
        }
    }
}

async fn reload(
    server: &mut Server,
    settings: &Settings,
    watcher: &mut watch::Watcher,
    cause: Cause,
) -> Result<Done, Problem> {
    systemd::reloading();
    watcher.renew();
    let read = match settings.load() {
        Ok(loaded) => server.complete(loaded, settings.path(), cause).await,
        Err(errors) => Err(errors),
    };
    let settled = match read {
        Ok((loaded, text)) => {
            watcher.follow(&loaded.watched);
            let warnings = loaded.warnings.clone();
            let reloaded = server.reload(loaded, cause).await;
            if reloaded.is_ok() {
                server.keep_text(text).await;
            }
            reloaded.map_err(|error| steering::rejected(vec![error.to_string()])).map(|changes| {
                Done::Reloaded { generation: server.generation(), changes, warnings }
            })
        }
        Err(errors) => {
            // Where the mistake is, its correction will be.
            watcher.follow_too(errors.problems().iter().map(|problem| &problem.file));
            server.reject(&errors, cause);
            let problems = errors.problems().iter().map(ToString::to_string);
            Err(steering::rejected(problems.collect()))
        }
    };
    systemd::ready();
    settled
}

/// Resolves at SIGTERM or SIGINT, for those who run a [`Server`] of their own.
pub async fn asked_to_stop() {
    // Without handlers the default ones end the process, which is as good.
    match Signals::install() {
        Ok(mut signals) => signals.stop().await,
        Err(_default) => std::future::pending().await,
    }
}

/// The signals that mean something here.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    user_defined1: Signal,
    user_defined2: Signal,
}

impl Signals {
    fn install() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            user_defined1: signal(SignalKind::user_defined1())?,
            user_defined2: signal(SignalKind::user_defined2())?,
        })
    }

    async fn next(&mut self) -> Asked {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return Asked::Stop,
                _ = self.interrupt.recv() => return Asked::Stop,
                _ = self.hang_up.recv() => return Asked::Reload(Cause::Signal),
                _ = self.user_defined2.recv() => return Asked::Upgrade,
                // Whatever else goes on, a drain too.
                _ = self.user_defined1.recv() => access::reopen(),
            }
        }
    }

    async fn stop(&mut self) {
        while self.next().await != Asked::Stop {}
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Stop,
    Reload(Cause),
    Upgrade,
}
