//! The real binary as a child process, seen through its log, its metrics and its admin address.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use super::client::Client;
use super::{DEADLINE, eventually};

/// The binary under test; `BURDOCK_BIN` puts another build (a release, a package) in its place.
pub fn binary() -> PathBuf {
    std::env::var_os("BURDOCK_BIN")
        .map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_burdock")), PathBuf::from)
}

/// A running Burdock; killed when dropped.
#[derive(Debug)]
pub struct Burdock {
    child: Child,
    pub directory: PathBuf,
    pub config: PathBuf,
    lines: Arc<Mutex<Vec<String>>>,
    address: SocketAddr,
    admin: SocketAddr,
}

impl Burdock {
    /// Writes `yaml` to a folder of its own and serves it.
    pub async fn start(yaml: &str) -> Self {
        let directory = scratch();
        let config = directory.join("burdock.yaml");
        std::fs::write(&config, yaml).expect("write the config");
        let path = config.display().to_string();
        Self::spawn(directory, config, &["run", "-c", &path]).await
    }

    /// Any command line that ends up listening; `--log-format json` is added.
    pub async fn spawn(directory: PathBuf, config: PathBuf, arguments: &[&str]) -> Self {
        let mut command = Command::new(binary());
        command.args(arguments).stdin(Stdio::null());
        Self::of(directory, config, command).await
    }

    /// Any command that becomes one and takes its options.
    pub async fn of(directory: PathBuf, config: PathBuf, mut command: Command) -> Self {
        let mut child = command
            .args(["--log-format", "json"])
            .current_dir(&directory)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start the binary");
        let lines = Arc::new(Mutex::new(Vec::new()));
        collect(child.stdout.take().expect("stdout is piped"), Arc::clone(&lines));
        collect(child.stderr.take().expect("stderr is piped"), Arc::clone(&lines));
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut burdock =
            Self { child, directory, config, lines, address: nowhere, admin: nowhere };
        burdock.address = burdock.bound("listening").await;
        burdock.admin = burdock.bound("admin listening").await;
        burdock
    }

    async fn bound(&mut self, message: &str) -> SocketAddr {
        let line = self.wait_log(message, |_| true).await;
        line["address"].as_str().and_then(|a| a.parse().ok()).expect("an address in the line")
    }

    /// The first listener.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// A client that forgets cookies.
    pub fn client(&self) -> Client {
        Client::new(self.address)
    }

    /// A client with a cookie jar.
    pub fn session(&self) -> Client {
        Client::session(self.address)
    }

    /// Everything it printed so far.
    pub fn output(&self) -> String {
        self.lines.lock().unwrap().join("\n")
    }

    /// Log lines with this message, parsed.
    pub fn log(&self, message: &str) -> Vec<Value> {
        let lines = self.lines.lock().unwrap();
        lines
            .iter()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .filter(|line| line["message"] == message)
            .collect()
    }

    /// The access log.
    pub fn access_lines(&self) -> Vec<Value> {
        let mut lines = self.log("request");
        lines.retain(|line| line["target"] == "access");
        lines
    }

    /// The access lines for `path`, once there are `n`.
    pub async fn access(&self, path: &str, n: usize) -> Vec<Value> {
        eventually(&format!("{n} access lines for {path}"), || {
            let mut lines = self.access_lines();
            lines.retain(|line| line["path"] == path);
            (lines.len() >= n).then_some(lines)
        })
        .await
    }

    /// The first line with this message that satisfies `wanted`, past or to come.
    pub async fn wait_log(&mut self, message: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut ended = None;
        let found = eventually(&format!("log line {message:?}\n{}", self.output()), || {
            let found = self.log(message).into_iter().find(|line| wanted(line));
            if found.is_none() {
                ended = ended.or(self.child.try_wait().expect("ask for the exit code"));
            }
            found.map(Some).or(ended.map(|_| None))
        })
        .await;
        let output = self.output();
        found.unwrap_or_else(|| panic!("it ended ({ended:?}) before saying {message:?}\n{output}"))
    }

    /// Replaces the config in one rename, as editors do, and returns the line that tells what
    /// became of it: `reloaded` or `reload rejected`.
    pub async fn reload(&self, yaml: &str) -> Value {
        let before = self.reloads().len();
        let beside = self.directory.join(".burdock.yaml.new");
        std::fs::write(&beside, yaml).expect("write the new config");
        std::fs::rename(&beside, &self.config).expect("move the new config into place");
        self.reload_after(before).await
    }

    /// The outcome that follows the first `before` ones.
    pub async fn reload_after(&self, before: usize) -> Value {
        eventually("the outcome of a reload", || self.reloads().get(before).cloned()).await
    }

    /// Every reload so far, good and bad, in order.
    pub fn reloads(&self) -> Vec<Value> {
        let lines = self.lines.lock().unwrap();
        lines
            .iter()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .filter(|line| line["message"] == "reloaded" || line["message"] == "reload rejected")
            .collect()
    }

    /// The metrics now.
    pub async fn metrics(&self) -> Metrics {
        let response = Client::admin(self.admin).get("/metrics").await;
        assert_eq!(response.status, 200);
        Metrics::parse(&response.text())
    }

    /// Polls until the sum of the series that match satisfies `wanted`.
    pub async fn wait_metric(
        &self,
        name: &str,
        labels: &[(&str, &str)],
        wanted: impl Fn(f64) -> bool,
    ) -> f64 {
        let begin = std::time::Instant::now();
        loop {
            let metrics = self.metrics().await;
            let value = metrics.sum(name, labels);
            if wanted(value) {
                return value;
            }
            assert!(begin.elapsed() < DEADLINE, "{name}{labels:?} is still {value}");
            super::pause().await;
        }
    }

    /// Waits until `instance` is in `state` by the health metric.
    pub async fn wait_health(&self, instance: &str, state: &str) {
        let labels = [("instance", instance), ("state", state)];
        self.wait_metric("burdock_instance_health", &labels, |v| v > 0.0).await;
    }

    /// Sends a signal.
    pub fn signal(&self, signal: i32) {
        send_signal(&self.child, signal);
    }

    /// Waits for the end; a signal's number is returned negative.
    pub async fn exit_code(&mut self) -> i32 {
        let what = format!("the end of the process\n{}", self.output());
        let status =
            eventually(&what, || self.child.try_wait().expect("ask for the exit code")).await;
        status.code().unwrap_or_else(|| -status.signal().unwrap_or_default())
    }

    /// Resident memory in bytes.
    pub fn resident(&self) -> u64 {
        self.memory("VmRSS:")
    }

    /// The part of it that no file backs: heap and stacks, without pages of code.
    pub fn resident_heap(&self) -> u64 {
        self.memory("RssAnon:")
    }

    fn memory(&self, row: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()));
        let status = status.expect("the process is alive");
        let line = status.lines().find(|line| line.starts_with(row)).expect("a row of memory");
        let kib = line.split_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok());
        kib.expect("a number of KiB") * 1024
    }

    /// Open file descriptors.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("the process is alive").count()
    }
}

impl Drop for Burdock {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        let output = self.output();
        drop(std::fs::remove_dir_all(&self.directory));
        if std::thread::panicking() {
            let tail: Vec<_> = output.lines().rev().take(60).collect();
            let tail: Vec<_> = tail.into_iter().rev().collect();
            eprintln!("--- last lines of burdock {}\n{}", self.child.id(), tail.join("\n"));
        } else {
            assert!(!output.contains("panicked at"), "burdock panicked:\n{output}");
        }
    }
}

/// Sends a signal to a child that nobody has waited for.
pub fn send_signal(child: &Child, signal: i32) {
    // SAFETY: kill takes any pid and signal by value; whoever holds the child hasn't reaped it.
    let sent = unsafe { libc::kill(child.id() as i32, signal) };
    assert_eq!(sent, 0, "send signal {signal}");
}

/// Sends a signal to a process that nobody here has started.
pub fn signal_process(pid: i32, signal: i32) {
    // SAFETY: kill takes any pid and signal by value. One that is gone already is as good.
    unsafe { libc::kill(pid, signal) };
}

/// Runs a command to its end, in `directory`; one that does not end is killed and fails the test.
pub fn run_to_end(directory: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(binary());
    command.args(arguments).current_dir(directory).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("run the binary");
    let pid = child.id() as i32;
    let (ended, waiting) = std::sync::mpsc::channel::<()>();
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let watch = std::thread::spawn(move || {
        let late = waiting.recv_timeout(DEADLINE).is_err();
        if late {
            // SAFETY: kill takes any pid by value; the child is reaped only after this thread.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
        late
    });
    let errors = std::thread::spawn(move || read_all(stderr));
    let (stdout, stderr) = (read_all(stdout), errors.join().expect("a reader"));
    ended.send(()).ok();
    let late = watch.join().expect("a watch");
    let status = child.wait().expect("an exit status");
    assert!(!late, "{arguments:?} did not end within {DEADLINE:?}");
    Output { status, stdout, stderr }
}

fn read_all(from: Option<impl Read>) -> Vec<u8> {
    let mut bytes = Vec::new();
    from.expect("output is piped").read_to_end(&mut bytes).expect("read the output");
    bytes
}

/// A new empty folder; the operating system's temporary space is cleaned by whoever owns it.
pub fn scratch() -> PathBuf {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let directory = directory.join(format!("burdock-{}-{n}", std::process::id()));
    drop(std::fs::remove_dir_all(&directory));
    std::fs::create_dir_all(&directory).expect("make a folder");
    directory
}

fn collect(from: impl Read + Send + 'static, lines: Arc<Mutex<Vec<String>>>) {
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            lines.lock().unwrap().push(line);
        }
    });
}

/// Metrics in the Prometheus text format.
#[derive(Debug, Clone)]
pub struct Metrics {
    pub series: Vec<(String, BTreeMap<String, String>, f64)>,
    /// Name to type, as `# TYPE` says.
    pub types: BTreeMap<String, String>,
}

impl Metrics {
    /// Panics on a line that the format does not know.
    pub fn parse(text: &str) -> Self {
        let mut metrics = Self { series: Vec::new(), types: BTreeMap::new() };
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("a name and a type");
                metrics.types.insert(name.to_owned(), kind.to_owned());
            } else if !line.starts_with('#') {
                metrics.series.push(series(line));
            }
        }
        metrics
    }

    /// The sum over every series of this name that has all of `labels`.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let matches = |have: &BTreeMap<String, String>| {
            labels.iter().all(|(key, value)| have.get(*key).is_some_and(|v| v == value))
        };
        self.series.iter().filter(|(n, have, _)| n == name && matches(have)).map(|s| s.2).sum()
    }
}

fn series(line: &str) -> (String, BTreeMap<String, String>, f64) {
    let (key, value) = line.rsplit_once(' ').expect("a value after a space");
    let value = value.parse().unwrap_or_else(|_| panic!("not a number in {line:?}"));
    let Some((name, labels)) = key.split_once('{') else {
        return (key.to_owned(), BTreeMap::new(), value);
    };
    let labels = labels.strip_suffix('}').expect("labels end in a brace");
    let labels = labels.split("\",").filter(|label| !label.is_empty()).map(|label| {
        let (key, value) = label.split_once("=\"").expect("label=\"value\"");
        (key.to_owned(), value.trim_end_matches('"').to_owned())
    });
    (name.to_owned(), labels.collect(), value)
}
