//! Another process takes over, and nobody notices; where it can't, the old one goes on.

use std::path::Path;

use serde_json::json;

use crate::support::burdock::{scratch, signal_process};
use crate::support::client::Request;
use crate::support::steady::failures;
use crate::support::ws::WebSocket;
use crate::support::{
    self, Api, Backend, Burdock, Client, FAST_CHECKS, Steady, eventually, raw, run_to_end,
};
use crate::support::{within, yaml};

const SOON: &str = "upgrade: { timeout: 800ms, spread: 500ms }\n";
const NEVER: &str = "upgrade: { timeout: 1d, spread: 0s }\n";

async fn start(text: &str) -> Burdock {
    let directory = scratch();
    let config = directory.join("burdock.yaml");
    std::fs::write(&config, text).expect("write the config");
    let arguments = ["run", "-c", "burdock.yaml", "--pid-file", "pid"];
    let burdock = Burdock::spawn(directory, config, &arguments).await;
    eventually("a pid file", || named(&burdock)).await;
    burdock
}

/// Whom the pid file names.
fn named(burdock: &Burdock) -> Option<i32> {
    std::fs::read_to_string(burdock.directory.join("pid")).ok()?.trim().parse().ok()
}

/// A process that nobody here has started, ended when dropped.
struct Heir(i32);

impl Heir {
    async fn of(burdock: &Burdock) -> Self {
        let other = || named(burdock).filter(|pid| *pid != burdock.pid());
        Self(eventually(&format!("an heir\n{}", burdock.output()), other).await)
    }

    fn signal(&self, signal: i32) {
        signal_process(self.0, signal);
    }

    async fn ends(&self) {
        let alive = Path::new("/proc").join(self.0.to_string());
        eventually("the end of the heir", || (!alive.exists()).then_some(())).await;
    }
}

impl Drop for Heir {
    fn drop(&mut self) {
        self.signal(libc::SIGKILL);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_process_knows_of_no_drill() {
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    let mut burdock = start(&yaml(&[&a, &b], SOON)).await;
    let mut api = Api::of(&burdock);
    let terms = json!({ "name": "x", "max_duration": "60s", "lease": "60s" });
    let (_, told) = api.post("drill", terms).await;
    let path = format!("drill/{}", told["id"].as_str().unwrap());
    let fault = json!({ "kind": "disable", "instances": ["default/default/a"] });
    assert_eq!(api.post(&format!("{path}/faults"), fault).await.0, 201);
    burdock.signal(libc::SIGUSR2);
    let heir = Heir::of(&burdock).await;
    let said = "the drill x was ended: another process has taken over";
    eventually("its end in the log", || burdock.output().contains(said).then_some(())).await;
    assert_eq!(burdock.exit_code().await, 0, "{}", burdock.output());
    let mut api = Api::of(&burdock);
    assert_eq!(api.post(&format!("{path}/heartbeat"), json!({})).await.0, 404);
    assert_eq!(api.instance("a").await["admin"], "active");
    heir.signal(libc::SIGTERM);
    heir.ends().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_process_takes_over_and_nobody_notices() {
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    let rest = format!("session_affinity: true\n{SOON}");
    let mut burdock = start(&yaml(&[&a, &b], &rest)).await;
    let load = Steady::start(burdock.address(), 20, 200).await;
    let mut tunnels = Vec::new();
    for _ in 0..20 {
        tunnels.push(WebSocket::open(burdock.address(), "/ws", "").await);
    }
    load.passes(50).await;
    burdock.signal(libc::SIGUSR2);
    let heir = Heir::of(&burdock).await;
    tunnels[0].echo("it lives on in the old process").await;
    let closes = tunnels.into_iter().map(|mut tunnel| async move { tunnel.closed().await });
    let closes: Vec<_> = closes.map(tokio::spawn).collect();
    load.passes(50).await;
    assert_eq!(burdock.exit_code().await, 0, "{}", burdock.output());
    load.passes(50).await;
    for close in closes {
        let reason = "the balancer is restarting".to_owned();
        assert_eq!(close.await.unwrap(), Some((1012, reason)));
    }
    let answers = load.stop().await;
    assert_eq!(failures(&answers), Vec::<String>::new());
    let lost: usize = answers.iter().map(|answer| answer.reconnects).sum();
    assert_eq!(lost, 0, "a kept connection was closed under a request");
    assert!(support::steady::stays(&answers).values().all(|homes| homes.len() == 1));
    // The heir has the pid file, the admin address, and an heir of its own when asked.
    assert_eq!(burdock.metrics().await.sum("burdock_config_generation", &[]), 1.0);
    heir.signal(libc::SIGTERM);
    heir.ends().await;
    assert_eq!(named(&burdock), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_connection_is_answered_once_more_by_the_old_process() {
    let a = Backend::start("a").await;
    let mut burdock = start(&yaml(&[&a], NEVER)).await;
    let mut kept = burdock.client();
    assert!(!kept.get("/").await.head.wants_close());
    burdock.signal(libc::SIGUSR2);
    let heir = Heir::of(&burdock).await;
    burdock.wait_log("draining", |_| true).await;
    let answer = kept.get("/again").await;
    assert!(answer.head.wants_close(), "{:?}", answer.head);
    assert_eq!(kept.reconnects, 0);
    assert_eq!(burdock.exit_code().await, 0, "nothing keeps it any more");
    drop(heir);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_reaches_a_process_that_has_been_taken_over_from() {
    let a = Backend::start("a").await;
    let rest = format!("{NEVER}shutdown: {{ timeout: 1d, spread: 0s }}\n");
    let mut burdock = start(&yaml(&[&a], &rest)).await;
    let mut tunnel = WebSocket::open(burdock.address(), "/ws", "").await;
    let mut idle = raw::open(burdock.address(), "GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let head = within("an answer", idle.head()).await.unwrap().unwrap();
    within("its body", idle.body(head.response_framing("GET"))).await.unwrap();
    burdock.signal(libc::SIGUSR2);
    let _heir = Heir::of(&burdock).await;
    burdock.wait_log("draining", |_| true).await;
    burdock.signal(libc::SIGTERM);
    assert_eq!(tunnel.closed().await.map(|(code, _)| code), Some(1012));
    assert!(within("the end of an idle one", idle.closed_without_a_byte()).await);
    assert_eq!(burdock.exit_code().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_cannot_take_over_changes_nothing() {
    let a = Backend::start("a").await;
    let good = yaml(&[&a], FAST_CHECKS);
    let burdock = start(&good).await;
    let mut kept = burdock.client();
    assert_eq!(kept.get("/").await.status, 200);
    let before = burdock.reloads().len();
    std::fs::write(&burdock.config, "instances: nonsense\n").unwrap();
    burdock.reload_after(before).await;
    let failed = run_to_end(&burdock.directory, &["upgrade", "--pid-file", "pid"]);
    assert_eq!(failed.status.code(), Some(1));
    let pid = burdock.pid();
    let said = String::from_utf8_lossy(&failed.stderr).into_owned();
    assert_eq!(said, format!("burdock: process {pid} goes on; its log says why\n"));
    assert!(burdock.output().contains("burdock.yaml:1: instances"), "the new one says why");
    let line = burdock.log("the upgrade failed; this process goes on");
    let error = line[0]["error"].as_str().unwrap();
    assert_eq!(error, "the new process ended before it served (exit status: 3)");
    assert_eq!(burdock.metrics().await.sum("burdock_upgrades_failed_total", &[]), 1.0);
    assert_eq!((kept.get("/").await.status, kept.reconnects), (200, 0));
    assert_eq!(Client::new(burdock.address()).get("/").await.status, 200);
    // And with the mistake mended it goes through.
    std::fs::write(&burdock.config, &good).unwrap();
    burdock.reload_after(before + 1).await;
    let done = run_to_end(&burdock.directory, &["upgrade", "--pid-file", "pid"]);
    let heir = Heir::of(&burdock).await;
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert_eq!(said, format!("process {} has taken over from {pid}\n", heir.0));
    assert_eq!(done.status.code(), Some(0));
    assert_eq!(Client::new(burdock.address()).get("/").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_the_process_that_is_about_to_take_over() {
    let a = Backend::start("a").await;
    let mut burdock = start(&yaml(&[&a], FAST_CHECKS)).await;
    burdock.wait_health("a", "ready").await;
    // The heir waits for what the old one still believes to be ready.
    a.ready(false);
    burdock.signal(libc::SIGUSR2);
    burdock.wait_log("upgrading", |_| true).await;
    burdock.signal(libc::SIGTERM);
    assert_eq!(burdock.exit_code().await, 0);
    let address = burdock.address();
    let refused = || std::net::TcpStream::connect(address).is_err().then_some(());
    eventually("nobody listens", refused).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_number_of_workers_may_change_with_the_process() {
    let a = Backend::start("a").await;
    let text = yaml(&[&a], "");
    let burdock = start(&text).await;
    let address = burdock.address();
    for workers in [1, 3] {
        let text = text.replace("workers: 2", &format!("workers: {workers}"));
        std::fs::write(&burdock.config, text).unwrap();
        let done = run_to_end(&burdock.directory, &["upgrade", "--pid-file", "pid"]);
        assert_eq!(done.status.code(), Some(0), "{}", burdock.output());
        for _ in 0..20 {
            assert_eq!(Client::new(address).send(&Request::get("/")).await.status, 200);
        }
    }
    let heir = Heir::of(&burdock).await;
    let workers = burdock.metrics().await.sum("burdock_workers", &[]);
    assert_eq!(workers, 3.0);
    drop(heir);
}

#[test]
fn there_must_be_a_process_to_take_over_from() {
    let directory = scratch();
    // This process, which has no idea of upgrades.
    let ours = std::process::id();
    std::fs::write(directory.join("stale"), format!("{ours}\n")).unwrap();
    let failed = run_to_end(&directory, &["upgrade", "--pid-file", "stale"]);
    assert_eq!(failed.status.code(), Some(1));
    let said = String::from_utf8_lossy(&failed.stderr).into_owned();
    let expected = format!("process {ours} does not take upgrades; the pid file is stale");
    assert_eq!(said, format!("burdock: {expected}\n"));
    let failed = run_to_end(&directory, &["upgrade", "--pid-file", "none"]);
    assert_eq!(failed.status.code(), Some(1));
    let said = String::from_utf8_lossy(&failed.stderr).into_owned();
    assert_eq!(said, "burdock: none names no process; run --pid-file writes it\n");
}
