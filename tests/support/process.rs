//! A [`Backend`] in a process of its own, which can be killed, stopped, continued and started
//! again on its port. The process is the test binary itself, asked for one test: the file that
//! uses this has an ignored test that calls [`serve`].

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::net::TcpSocket;

use super::backend::{Backend, Fault, claim};
use super::eventually;

/// The ignored test that calls [`serve`].
pub const ENTRY: &str = "an_instance_in_a_process_of_its_own";
/// Its name and address, for the child.
const ROLE: &str = "BURDOCK_TEST_INSTANCE";
/// What the child says when a command has taken effect.
const DONE: &str = "that is done";

/// An instance; killed when dropped.
#[derive(Debug)]
pub struct Process {
    pub name: String,
    pub address: SocketAddr,
    child: Child,
    done: Arc<AtomicUsize>,
    /// Keeps the port between two lives.
    _claim: TcpSocket,
}

impl Process {
    /// Serves under `name` on a port of the kernel's choice: ready, alive, without a fault.
    pub async fn start(name: &str) -> Self {
        let claim = claim(SocketAddr::from(([127, 0, 0, 1], 0)));
        let address = claim.local_addr().expect("a bound address");
        let (child, done) = spawn(name, address);
        let process = Self { name: name.to_owned(), address, child, done, _claim: claim };
        process.heard(1).await;
        process
    }

    /// Instances with these names.
    pub async fn several(names: &[&str]) -> Vec<Self> {
        let mut processes = Vec::new();
        for name in names {
            processes.push(Self::start(name).await);
        }
        processes
    }

    /// As `kill -9` does it; returns when the process is gone.
    pub fn kill(&mut self) {
        self.child.kill().expect("kill the instance");
        self.child.wait().expect("reap the instance");
    }

    /// A new process on the same port.
    pub async fn restart(&mut self) {
        (self.child, self.done) = spawn(&self.name, self.address);
        self.heard(1).await;
    }

    /// SIGSTOP or SIGCONT.
    pub fn signal(&self, signal: i32) {
        // SAFETY: kill takes any pid and signal by value; the child is not reaped before it is
        // replaced or dropped.
        let sent = unsafe { libc::kill(self.child.id() as i32, signal) };
        assert_eq!(sent, 0, "send signal {signal}");
    }

    /// One of the words of [`obey`]; returns when it has taken effect.
    pub async fn told(&mut self, command: &str) {
        let before = self.done.load(Ordering::Acquire);
        let stdin = self.child.stdin.as_mut().expect("stdin is piped");
        writeln!(stdin, "{command}").expect("tell the instance");
        self.heard(before + 1).await;
    }

    async fn heard(&self, n: usize) {
        let what = format!("{} obeys", self.name);
        eventually(&what, || (self.done.load(Ordering::Acquire) >= n).then_some(())).await;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn spawn(name: &str, address: SocketAddr) -> (Child, Arc<AtomicUsize>) {
    let mut child = Command::new(std::env::current_exe().expect("a test binary has a path"))
        .args(["--exact", ENTRY, "--ignored", "--nocapture"])
        .env(ROLE, format!("{name} {address}"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("start an instance");
    let done = Arc::new(AtomicUsize::new(0));
    let stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
    let count = Arc::clone(&done);
    std::thread::spawn(move || {
        // The test runner prints a name of its own before the first.
        for _ in stdout.lines().map_while(Result::ok).filter(|line| line.ends_with(DONE)) {
            count.fetch_add(1, Ordering::AcqRel);
        }
    });
    (child, done)
}

/// Serves until standard input ends, if this process was started to do so; else returns at once.
pub async fn serve() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let (name, address) = role.split_once(' ').expect("a name and an address");
    let backend = Backend::start_at(name, address.parse().expect("an address")).await;
    let (sender, mut commands) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            drop(sender.send(line));
        }
    });
    said();
    while let Some(command) = commands.recv().await {
        obey(&backend, &command).await;
        said();
    }
}

fn said() {
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{DONE}").and_then(|()| stdout.flush()).expect("the parent listens");
}

async fn obey(backend: &Backend, command: &str) {
    match command {
        "ready" => backend.ready(true),
        "unready" => backend.ready(false),
        "alive" => backend.alive(true),
        "dead" => backend.alive(false),
        "hold" => backend.misbehaves(Fault::Gate),
        "refuse" => backend.stops_listening().await,
        "listen" => backend.comes_back(),
        other => panic!("no command: {other}"),
    }
}
