//! Balancers that share an etcd.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::task::JoinSet;

use super::burdock::run_in;
use super::client::Request;
use super::etcd::Etcd;
use super::{Api, Backend, Burdock, Client, DEADLINE, eventually, pause, yaml};

pub const REST: &str = "session_affinity: true\ndrain: { timeout: 120s, spread: 1s }\n\
    affinity_keys: [q83vq83vq83vq83vq83vq83vq83vq83vq83vq83vq80=]\n";

pub fn config(name: &str, backends: &[&Backend], etcd: &str) -> String {
    let fleet = format!(
        "fleet: {{ name: {name}, etcd: {{ endpoints: [\"{etcd}\"], prefix: /burdock/test }} }}\n"
    );
    yaml(backends, &format!("{REST}{fleet}"))
}

pub async fn balancer(name: &str, backends: &[&Backend], etcd: &Etcd) -> Burdock {
    let burdock = Burdock::start(&config(name, backends, &etcd.url())).await;
    heard(&burdock, true).await;
    burdock
}

/// A new process over the same files.
pub async fn again(burdock: &Burdock) -> Burdock {
    let (directory, config) = (burdock.directory.clone(), burdock.config.clone());
    Burdock::spawn(directory, config, &["run", "-c", "burdock.yaml"]).await
}

pub async fn fleet(burdock: &Burdock) -> Value {
    let (status, told) = Api::of(burdock).get("fleet").await;
    assert_eq!(status, 200, "{told}");
    told
}

/// Polls what a balancer says of its fleet.
pub async fn wait_fleet(burdock: &Burdock, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let begun = Instant::now();
    loop {
        let told = fleet(burdock).await;
        if wanted(&told) {
            return told;
        }
        assert!(begun.elapsed() < DEADLINE, "never {what}, at last: {told}");
        pause().await;
    }
}

pub async fn heard(burdock: &Burdock, is_heard: bool) {
    wait_fleet(burdock, "heard as it should be", |it| it["connected"] == is_heard).await;
}

/// What a command prints that asks this balancer.
pub async fn command(burdock: &Burdock, arguments: &[&str]) -> String {
    let (folder, admin): (PathBuf, _) = (burdock.directory.clone(), burdock.admin().to_string());
    let arguments: Vec<String> = arguments.iter().map(|it| (*it).to_owned()).collect();
    let run = move || {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let url = format!("http://{admin}");
        run_in(Path::new(&folder), &arguments, &[("BURDOCK_ADMIN", &url)])
    };
    let output = tokio::task::spawn_blocking(run).await.expect("a command");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

/// What sessions saw that ask one balancer after the other.
#[derive(Debug, Default)]
pub struct Seen {
    /// By session.
    pub instances: Vec<BTreeSet<String>>,
    /// Of balancers that live.
    pub errors: Vec<String>,
    /// Of those that were killed a moment before.
    pub cut: usize,
}

/// Sessions with one cookie jar each, behind something that knows the balancers: each request goes to
/// the next one.
pub struct Roaming {
    pub alive: Arc<Mutex<Vec<SocketAddr>>>,
    pub seen: Arc<Mutex<Seen>>,
    pub done: Arc<AtomicUsize>,
    pub stop: Arc<AtomicBool>,
    pub tasks: JoinSet<()>,
}

impl Roaming {
    pub fn start(balancers: &[&Burdock], sessions: usize, period: Duration) -> Self {
        let alive = balancers.iter().map(|it| it.address()).collect();
        let seen = Seen { instances: vec![BTreeSet::new(); sessions], ..Seen::default() };
        let mut roaming = Self {
            alive: Arc::new(Mutex::new(alive)),
            seen: Arc::new(Mutex::new(seen)),
            done: Arc::default(),
            stop: Arc::default(),
            tasks: JoinSet::new(),
        };
        for session in 0..sessions {
            let (alive, seen) = (Arc::clone(&roaming.alive), Arc::clone(&roaming.seen));
            let (done, stop) = (Arc::clone(&roaming.done), Arc::clone(&roaming.stop));
            roaming.tasks.spawn(async move {
                let mut clients: BTreeMap<SocketAddr, Client> = BTreeMap::new();
                let mut jar = Some(BTreeMap::new());
                let mut ticks = tokio::time::interval(period);
                let mut turn = session;
                while !stop.load(Ordering::Acquire) {
                    ticks.tick().await;
                    // Whoever was cut off asks somebody else at once.
                    loop {
                        let at = {
                            let alive = alive.lock().unwrap();
                            alive[turn % alive.len()]
                        };
                        turn += 1;
                        let client = clients.entry(at).or_insert_with(|| Client::session(at));
                        client.jar = jar.take();
                        let answer = client.try_send(&Request::get("/")).await;
                        jar = client.jar.take();
                        let is_alive = alive.lock().unwrap().contains(&at);
                        let mut seen = seen.lock().unwrap();
                        match answer {
                            Ok(answer) if answer.status == 200 => {
                                seen.instances[session].insert(answer.instance().to_owned());
                                break;
                            }
                            Ok(answer) => seen.errors.push(format!("{at}: {}", answer.status)),
                            Err(error) if is_alive => seen.errors.push(format!("{at}: {error}")),
                            Err(_) => seen.cut += 1,
                        }
                        clients.remove(&at);
                    }
                    done.fetch_add(1, Ordering::AcqRel);
                }
            });
        }
        roaming
    }

    pub async fn passes(&self, n: usize) {
        let goal = self.done.load(Ordering::Acquire) + n;
        let has_passed = || (self.done.load(Ordering::Acquire) >= goal).then_some(());
        eventually("more answers under load", has_passed).await;
    }

    /// Nobody is sent there any more: it is about to be killed.
    pub fn without(&self, burdock: &Burdock) {
        self.alive.lock().unwrap().retain(|at| *at != burdock.address());
    }

    pub fn with(&self, burdock: &Burdock) {
        self.alive.lock().unwrap().push(burdock.address());
    }

    pub async fn stop(mut self) -> Seen {
        self.stop.store(true, Ordering::Release);
        while let Some(ended) = self.tasks.join_next().await {
            ended.expect("a session panicked");
        }
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}
