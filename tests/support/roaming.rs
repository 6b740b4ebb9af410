//! Sessions behind something that knows several balancers, such as an L4 balancer: each request goes to
//! the next one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinSet;

use super::client::{Client, Request};
use super::{Burdock, eventually};

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
    alive: Arc<Mutex<Vec<SocketAddr>>>,
    seen: Arc<Mutex<Seen>>,
    done: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    tasks: JoinSet<()>,
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
