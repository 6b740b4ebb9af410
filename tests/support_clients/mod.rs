//! Starts what the tests with real clients are made of: servers, the balancer, client programs.
//! Everything speaks lines on its standard output and dies with its handle. Knows the command line
//! of `burdock` and nothing of its inside.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "the test files next door are the public, each uses a part, and a test may panic"
)]

pub mod process;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use process::Process;

/// Enough for a busy machine with two cores; nothing waits that long when all is well.
const START_TIMEOUT: Duration = Duration::from_secs(20);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
const READY_INTERVAL: Duration = Duration::from_millis(20);

const BROWSERS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

const SERVER_NAMES: [&str; 3] = ["a", "b", "c"];

static MACHINE: Mutex<()> = Mutex::new(());

/// Fifty clients fill a small machine: the tests of one file take turns, so that a measured outage
/// is the balancer's and not another test's.
pub fn whole_machine() -> MutexGuard<'static, ()> {
    MACHINE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Three servers named `a`, `b`, `c` behind one balancer.
pub struct Site {
    servers: Vec<(&'static str, Process)>,
    balancer: Process,
    authority: String,
    admin: String,
    instances: Vec<String>,
    directory: PathBuf,
}

impl Site {
    pub fn start(server_script: &str, session_affinity: bool) -> Self {
        Self::configured(server_script, &format!("session_affinity: {session_affinity}\n"))
    }

    /// With these lines in the balancer's configuration.
    pub fn configured(server_script: &str, lines: &str) -> Self {
        let mut servers: Vec<_> = SERVER_NAMES
            .iter()
            .map(|name| (*name, program(server_script, &["--name", name])))
            .collect();
        let ports: Vec<String> = servers.iter_mut().map(|(_, server)| listening(server)).collect();

        let directory = temporary_directory();
        let config = directory.join("burdock.yaml");
        fs::write(&config, configuration(&ports, lines)).unwrap();
        let mut balancer = balancer(&config);
        let (mut authority, mut admin) = (None, None);
        let (authority, admin) = balancer.wait_for("where it listens", START_TIMEOUT, |line| {
            authority = authority.take().or_else(|| listener(line, "listening"));
            admin = admin.take().or_else(|| listener(line, "admin listening"));
            authority.clone().zip(admin.clone())
        });
        let instances = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        let mut site = Self { servers, balancer, authority, admin, instances, directory };
        site.wait_until_all_serve();
        site
    }

    pub fn run_clients(&self, script: &str, arguments: &[&str]) -> Process {
        let url = format!("http://{}", self.authority);
        let arguments: Vec<&str> = ["--url", &url].iter().chain(arguments).copied().collect();
        program(script, &arguments)
    }

    /// The next line that the balancer prints with these words.
    pub fn wait_for_line(&mut self, words: &str) -> String {
        let is_it = |line: &str| line.contains(words).then(|| line.to_owned());
        self.balancer.wait_for(words, START_TIMEOUT, is_it)
    }

    /// SIGKILL: the server gets no chance to say goodbye.
    pub fn kill(&mut self, name: &str) {
        let (_, server) = self.servers.iter_mut().find(|(known, _)| *known == name).unwrap();
        server.kill();
    }

    /// The process id of a server, and its name at the balancer.
    pub fn server(&self, name: &str) -> (u32, &str) {
        let place = self.servers.iter().position(|(known, _)| *known == name).unwrap();
        (self.servers[place].1.id(), &self.instances[place])
    }

    /// A file in the folder of this site.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Where the balancer is asked and steered.
    pub fn admin(&self) -> &str {
        &self.admin
    }

    /// What the balancer logged, for a failure message.
    pub fn log(&self) -> String {
        self.balancer.log()
    }

    /// An instance gets no session before its first probe, so an even spread starts here.
    fn wait_until_all_serve(&mut self) {
        let deadline = Instant::now() + START_TIMEOUT;
        let mut silent = SERVER_NAMES.to_vec();
        while !silent.is_empty() {
            assert!(
                Instant::now() < deadline,
                "no answer from {silent:?} through the balancer; it said:\n{}",
                self.log()
            );
            let answer = whoami(&self.authority).unwrap_or_default();
            let before = silent.len();
            silent.retain(|name| !answer.ends_with(&format!("{name}\n")));
            if silent.len() == before {
                std::thread::sleep(READY_INTERVAL);
            }
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.balancer.kill();
        if std::thread::panicking() {
            eprintln!("the balancer said:\n{}", self.log());
        }
        // A directory that stays behind lies in target/ and disturbs nobody.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// The probe timeout is generous: a killed server refuses at once, and a slow machine must not look
/// like a failed server.
fn configuration(ports: &[String], lines: &str) -> String {
    let instances: String =
        ports.iter().map(|port| format!("  - 127.0.0.1:{port}\n")).collect::<Vec<_>>().concat();
    format!(
        "listeners: [{{ address: \"127.0.0.1:0\" }}]\n\
         admin: {{ address: \"127.0.0.1:0\" }}\n\
         {lines}\
         readiness_check: {{ path: /readyz, check_interval: 200ms, timeout: 2s, failure_threshold: 2 }}\n\
         instances:\n{instances}"
    )
}

/// `BURDOCK_BIN` puts another build (a release, a package) under test.
pub fn binary() -> PathBuf {
    std::env::var_os("BURDOCK_BIN")
        .map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_burdock")), PathBuf::from)
}

fn balancer(config: &Path) -> Process {
    let config = config.to_str().unwrap();
    Process::start(&binary(), &["run", "-c", config, "--log-format", "json"])
}

/// A program of `tests/clients` by the interpreter of its kind.
pub fn program(script: &str, arguments: &[&str]) -> Process {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let clients = root.join("tests/clients");
    let interpreter = if script.ends_with(".mjs") {
        installed(&clients.join("node_modules/socket.io"));
        PathBuf::from("node")
    } else {
        installed(&root.join(".venv/bin/python"))
    };
    let script = clients.join(script);
    let arguments: Vec<&str> =
        std::iter::once(script.to_str().unwrap()).chain(arguments.iter().copied()).collect();
    Process::start(&interpreter, &arguments)
}

/// A command of the python environment.
pub fn environment(command: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin").join(command);
    installed(&path);
    path
}

/// Chromium, by the first of its names that this machine has.
pub fn browser() -> String {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let found = BROWSERS.iter().find_map(|name| {
        folders.iter().map(|folder| folder.join(name)).find(|file| file.is_file())
    });
    let found = found.unwrap_or_else(|| {
        panic!("none of {BROWSERS:?} is installed: run tests/clients/install once")
    });
    found.display().to_string()
}

fn installed(path: &Path) -> PathBuf {
    assert!(
        path.exists(),
        "{} is missing: run tests/clients/install once (tests/run does so by itself)",
        path.display()
    );
    path.to_owned()
}

/// The port of a server that was just started.
pub fn listening(server: &mut Process) -> String {
    server.wait_for("`listening PORT NAME`", START_TIMEOUT, |line| {
        line.strip_prefix("listening ")?.split(' ').next().map(str::to_owned)
    })
}

fn listener(line: &str, message: &str) -> Option<String> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    (line["message"] == message).then(|| line["address"].as_str().map(str::to_owned))?
}

/// One request of a client that nobody knows.
fn whoami(authority: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(authority)?;
    stream.set_read_timeout(Some(REQUEST_TIMEOUT))?;
    write!(stream, "GET /whoami HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn temporary_directory() -> PathBuf {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("clients-{}-{number}", std::process::id());
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&directory).unwrap();
    directory
}
