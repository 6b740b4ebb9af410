//! The composition root: builds the server, keeps it in step with its files and signals, and takes
//! it down in order. Only this room knows all the others.

mod doors;
mod keys;
mod server;
mod watch;

use std::net::SocketAddr;
use std::path::PathBuf;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::config::types::{Admin, Listener};
use crate::config::{self, ConfigErrors, Loaded};
use crate::listener::{BindError, descriptors};

pub use keys::{KeyError, new_key};
pub use server::{Cause, Drained, Server};

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
    /// Instead of the configured listeners, if any are given.
    pub listen: Vec<SocketAddr>,
    /// Instead of the configured admin address.
    pub admin: Option<SocketAddr>,
}

impl Settings {
    /// Reads the configuration anew.
    pub fn load(&self) -> Result<Loaded, ConfigErrors> {
        let mut loaded = match &self.source {
            Source::File(path) => config::load(path)?,
            Source::AppYaml { path, instances } => config::from_app_yaml(path, instances)?,
        };
        if !self.listen.is_empty() {
            loaded.config.listeners = self.listen.iter().copied().map(Listener::at).collect();
        }
        if let Some(address) = self.admin {
            loaded.config.admin = Some(Admin { address, explicit: true });
        }
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
    /// The key that was to be made.
    #[error(transparent)]
    Key(#[from] KeyError),
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

/// Serves until SIGTERM or SIGINT, reloading on SIGHUP and when a file changes.
pub async fn run(settings: Settings) -> Result<Ended, StartError> {
    let loaded = settings.load()?;
    descriptors::raise();
    let mut signals = Signals::install().map_err(StartError::Signals)?;
    let mut watcher = watch::Watcher::new(&loaded.watched);
    let mut server = Server::start(loaded, Some(settings.path())).await?;
    loop {
        let cause = tokio::select! {
            asked = signals.next() => match asked {
                Asked::Stop => break,
                Asked::Reload => Cause::Signal,
            },
            () = watcher.changed() => Cause::File,
        };
        reload(&mut server, &settings, &mut watcher, cause);
    }
    Ok(match server.drain(signals.stop()).await {
        Drained::Clean => Ended::Clean,
        Drained::Cut => Ended::Cut,
    })
}

fn reload(server: &mut Server, settings: &Settings, watcher: &mut watch::Watcher, cause: Cause) {
    watcher.renew();
    match settings.load() {
        Ok(loaded) => {
            watcher.follow(&loaded.watched);
            server.reload(loaded, cause);
        }
        Err(errors) => {
            // Where the mistake is, its correction will be.
            watcher.follow_too(errors.problems().iter().map(|problem| &problem.file));
            server.reject(&errors, cause);
        }
    }
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
}

impl Signals {
    fn install() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::Stop,
            _ = self.interrupt.recv() => Asked::Stop,
            _ = self.hang_up.recv() => Asked::Reload,
        }
    }

    async fn stop(&mut self) {
        while self.next().await != Asked::Stop {}
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Stop,
    Reload,
}
