//! The balancer of an embedded drill: this program again, as a process of its own, so that it can
//! be killed, upgraded and given bad files as an operator's would be.
//!
//! Knows its command line, its log's first lines and its metrics; nothing of its inside.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};

use crate::config;
use crate::config::types::{Admin, AffinityKeys, Config, Listener, Protocol, Workers};

/// A start waits a second for first verdicts; the rest is for busy machines.
const START: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(10);
/// Lines of the log that are kept for when something goes wrong.
const KEPT: usize = 200;
/// What it is told instead of its configuration.
const WRONG: &str = "instances: [127.0.0.1:1, and, so: on\n";

/// Why the balancer could not do what a drill needs.
#[derive(Debug, thiserror::Error)]
pub(super) enum BalancerError {
    #[error("{what}: {error}")]
    Io { what: String, error: io::Error },
    #[error("the balancer ended while it started; its last words:\n{0}")]
    Ended(String),
    #[error("the balancer did not serve within {START:?}; its last words:\n{0}")]
    Late(String),
}

fn failed(what: impl Into<String>) -> impl FnOnce(io::Error) -> BalancerError {
    let what = what.into();
    move |error| BalancerError::Io { what, error }
}

/// A running balancer, and where its files are. Dropping it ends its processes.
#[derive(Debug)]
pub(super) struct Balancer {
    folder: PathBuf,
    child: Option<Child>,
    lines: Arc<Mutex<Vec<String>>>,
    address: SocketAddr,
    admin: SocketAddr,
    /// What the file says.
    text: String,
    reloads: u64,
}

impl Balancer {
    /// Serves `config`, whose instances are reached already.
    pub(super) async fn start(folder: PathBuf, config: &Config) -> Result<Self, BalancerError> {
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut balancer = Self {
            folder,
            child: None,
            lines: Arc::default(),
            address: nowhere,
            admin: nowhere,
            text: String::new(),
            reloads: 0,
        };
        balancer.write(config::effective(&fitted(config)))?;
        balancer.launch().await?;
        Ok(balancer)
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn admin(&self) -> SocketAddr {
        self.admin
    }

    fn file(&self) -> PathBuf {
        self.folder.join("burdock.yaml")
    }

    fn pid_file(&self) -> PathBuf {
        self.folder.join("pid")
    }

    /// In one rename, as editors do.
    fn put(&self, text: &str) -> Result<(), BalancerError> {
        let beside = self.folder.join(".burdock.yaml.new");
        let written = std::fs::write(&beside, text);
        let moved = written.and_then(|()| std::fs::rename(&beside, self.file()));
        moved.map_err(failed("writing the balancer's configuration"))
    }

    fn write(&mut self, text: String) -> Result<(), BalancerError> {
        self.put(&text)?;
        self.text = text;
        Ok(())
    }

    async fn launch(&mut self) -> Result<(), BalancerError> {
        let program = std::env::current_exe().map_err(failed("finding this program"))?;
        let (file, pid_file) = (self.file(), self.pid_file());
        drop(std::fs::remove_file(&pid_file));
        let mut command = Command::new(program);
        command.arg("run").arg("-c").arg(file).arg("--pid-file").arg(&pid_file);
        command.arg("--listen").arg(self.address.to_string());
        command.arg("--admin").arg(self.admin.to_string());
        command.args(["--log-format", "json"]).current_dir(&self.folder);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // A Ctrl-C at the terminal is for the drill, which then ends the balancer itself.
        command.process_group(0).kill_on_drop(true);
        let mut child = command.spawn().map_err(failed("starting the balancer"))?;
        self.lines = Arc::default();
        collect(child.stdout.take(), &self.lines);
        collect(child.stderr.take(), &self.lines);
        self.child = Some(child);
        self.address = self.told("listening").await?;
        self.admin = self.told("admin listening").await?;
        self.signed(None).await.map(drop)
    }

    /// The address in the line of the log that says this.
    async fn told(&mut self, message: &str) -> Result<SocketAddr, BalancerError> {
        let begin = Instant::now();
        loop {
            let found = self.lines().iter().find_map(|line| address(line, message));
            if let Some(address) = found {
                return Ok(address);
            }
            self.check(begin)?;
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits until the pid file names a process other than `before`.
    async fn signed(&mut self, before: Option<i32>) -> Result<i32, BalancerError> {
        let begin = Instant::now();
        loop {
            if let Some(pid) = self.pid().filter(|pid| Some(*pid) != before) {
                return Ok(pid);
            }
            if before.is_none() {
                self.check(begin)?;
            } else if begin.elapsed() > START {
                return Err(BalancerError::Late(self.last_words()));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn check(&mut self, begin: Instant) -> Result<(), BalancerError> {
        let child = self.child.as_mut().map(Child::try_wait);
        if let Some(Ok(Some(_))) = child {
            return Err(BalancerError::Ended(self.last_words()));
        }
        if begin.elapsed() > START {
            return Err(BalancerError::Late(self.last_words()));
        }
        Ok(())
    }

    fn lines(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The end of its log.
    pub(super) fn last_words(&self) -> String {
        let lines = self.lines();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }

    fn pid(&self) -> Option<i32> {
        std::fs::read_to_string(self.pid_file()).ok()?.trim().parse().ok()
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = self.pid().and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            // One that is gone needs no signal.
            let _ = rustix::process::kill_process(pid, signal);
        }
    }

    /// Takes over another configuration.
    pub(super) fn reload(&mut self, config: &Config) -> Result<(), BalancerError> {
        self.write(config::effective(&fitted(config)))?;
        self.signal(rustix::process::Signal::HUP);
        Ok(())
    }

    /// Reloads a file that says something else each time, and nothing that matters.
    pub(super) fn reload_anew(&mut self) -> Result<(), BalancerError> {
        self.reloads += 1;
        let other = "keep_alive: 75s";
        let changed = format!("keep_alive: {}ms", 75_000 + self.reloads % 2);
        self.put(&self.text.replacen(other, &changed, 1))?;
        self.signal(rustix::process::Signal::HUP);
        Ok(())
    }

    /// Reloads what is no configuration.
    pub(super) fn reload_wrong(&self) -> Result<(), BalancerError> {
        self.put(WRONG)?;
        self.signal(rustix::process::Signal::HUP);
        Ok(())
    }

    /// The file is again what it was.
    pub(super) fn put_back(&self) -> Result<(), BalancerError> {
        self.put(&self.text)?;
        self.signal(rustix::process::Signal::HUP);
        Ok(())
    }

    pub(super) async fn kill(&mut self) {
        self.signal(rustix::process::Signal::KILL);
        if let Some(mut child) = self.child.take() {
            let _ = child.kill().await;
        }
    }

    /// Starts again where it was.
    pub(super) async fn start_again(&mut self) -> Result<(), BalancerError> {
        match self.child {
            Some(_) => Ok(()),
            None => self.launch().await,
        }
    }

    /// Lets another process take over.
    pub(super) async fn upgrade(&mut self) -> Result<(), BalancerError> {
        let before = self.pid();
        self.signal(rustix::process::Signal::USR2);
        self.signed(before).await.map(drop)
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        // The process that took over is no child of this one.
        self.signal(rustix::process::Signal::KILL);
        drop(std::fs::remove_dir_all(&self.folder));
    }
}

/// A configuration on loopback addresses that nobody else has, small enough to run beside a load.
fn fitted(config: &Config) -> Config {
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut config = config.clone();
    config.listeners = vec![Listener::at(nowhere)];
    config.admin = Some(Admin::at(nowhere, true));
    config.user = None;
    // Real keys are not needed, and the file that holds them is named from elsewhere.
    config.affinity_keys = AffinityKeys::default();
    for version in config.services.iter_mut().flat_map(|service| &mut service.versions) {
        // Embedded instances speak HTTP/1.1 and nothing around it.
        version.tls = None;
        version.protocol = Protocol::Http1;
        version.proxy_protocol = None;
        let checks = [&mut version.readiness_check, &mut version.liveness_check];
        checks.into_iter().flatten().for_each(|check| check.port = None);
    }
    config.access_log = None;
    if config.workers == Workers::Auto {
        config.workers = Workers::Count(2);
    }
    config
}

fn address(line: &str, message: &str) -> Option<SocketAddr> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    let is_meant = line["message"] == message;
    line["address"].as_str().filter(|_| is_meant)?.parse().ok()
}

fn collect(from: Option<impl AsyncRead + Unpin + Send + 'static>, lines: &Arc<Mutex<Vec<String>>>) {
    let Some(from) = from else { return };
    let lines = Arc::clone(lines);
    tokio::spawn(async move {
        let mut from = BufReader::new(from).lines();
        while let Ok(Some(line)) = from.next_line().await {
            let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
            if lines.len() == KEPT {
                lines.remove(0);
            }
            lines.push(line);
        }
    });
}

/// A new empty folder of the system's temporary ones, for the owner only: there will be a key in it.
pub(super) fn folder() -> io::Result<PathBuf> {
    use std::os::unix::fs::DirBuilderExt;
    let name = format!("burdock-drill-{}-{:08x}", std::process::id(), fastrand::u32(..));
    let folder: PathBuf = Path::join(&std::env::temp_dir(), name);
    std::fs::DirBuilder::new().mode(0o700).create(&folder)?;
    Ok(folder)
}
