//! A steady load of sessions, and what each of them saw.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinSet;

use super::client::{Client, Request};
use super::eventually;

/// What one session saw: the instance of each answer, in order, and each failure.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    pub instances: Vec<String>,
    pub errors: Vec<String>,
    pub reconnects: usize,
}

impl Seen {
    /// Where it is now.
    pub fn last(&self) -> &str {
        self.instances.last().map_or("", String::as_str)
    }

    /// How often two answers in a row came from different instances.
    pub fn moves(&self) -> usize {
        self.instances.windows(2).filter(|pair| pair[0] != pair[1]).count()
    }
}

/// Sessions that keep asking until stopped.
#[derive(Debug)]
pub struct Load {
    seen: Vec<Arc<Mutex<Seen>>>,
    done: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    tasks: JoinSet<()>,
}

impl Load {
    /// `sessions` cookie-jar clients that together send `rate` requests a second for `path`.
    pub fn start(address: SocketAddr, sessions: usize, rate: usize, path: &str) -> Self {
        Self::sending(address, sessions, rate, Request::get(path))
    }

    /// Like [`Load::start`] with any request.
    pub fn sending(address: SocketAddr, sessions: usize, rate: usize, request: Request) -> Self {
        let (done, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let period = Duration::from_secs(1) * sessions as u32 / rate as u32;
        let mut load = Self { seen: Vec::new(), done, stop, tasks: JoinSet::new() };
        for n in 0..sessions {
            let seen = Arc::new(Mutex::new(Seen::default()));
            load.seen.push(Arc::clone(&seen));
            let (done, stop) = (Arc::clone(&load.done), Arc::clone(&load.stop));
            let (offset, request) = (period * n as u32 / sessions as u32, request.clone());
            load.tasks.spawn(async move {
                let mut client = Client::session(address);
                let begin = tokio::time::Instant::now() + offset;
                let mut ticks = tokio::time::interval_at(begin, period);
                while !stop.load(Ordering::Acquire) {
                    ticks.tick().await;
                    ask(&mut client, &request, &seen).await;
                    done.fetch_add(1, Ordering::AcqRel);
                }
            });
        }
        load
    }

    /// Waits for `n` more answers.
    pub async fn passes(&self, n: usize) {
        let goal = self.done.load(Ordering::Acquire) + n;
        eventually("more answers under load", || {
            (self.done.load(Ordering::Acquire) >= goal).then_some(())
        })
        .await;
    }

    /// Waits until every session has had an answer.
    pub async fn settles(&self) {
        eventually("a first answer for every session", || {
            let waiting = self.seen.iter().any(|s| s.lock().unwrap().instances.is_empty());
            (!waiting).then_some(())
        })
        .await;
    }

    /// What the sessions saw so far.
    pub fn so_far(&self) -> Vec<Seen> {
        self.seen.iter().map(|seen| seen.lock().unwrap().clone()).collect()
    }

    /// The instances that sessions are on now.
    pub fn in_use(&self) -> BTreeSet<String> {
        self.so_far().iter().map(|seen| seen.last().to_owned()).collect()
    }

    /// Waits until no session's last answer came from `instance`.
    pub async fn leaves(&self, instance: &str) {
        eventually("every session has left", || (!self.in_use().contains(instance)).then_some(()))
            .await;
    }

    /// Ends the load; a panic in a session is the test's.
    pub async fn stop(mut self) -> Vec<Seen> {
        self.stop.store(true, Ordering::Release);
        while let Some(ended) = self.tasks.join_next().await {
            ended.expect("a session panicked");
        }
        self.so_far()
    }
}

async fn ask(client: &mut Client, request: &Request, seen: &Mutex<Seen>) {
    let answer = client.try_send(request).await;
    let mut seen = seen.lock().unwrap();
    seen.reconnects = client.reconnects;
    match answer {
        Ok(answer) if answer.status == 200 => seen.instances.push(answer.instance().to_owned()),
        Ok(answer) => seen.errors.push(format!("{} {}", answer.status, answer.text())),
        Err(error) => seen.errors.push(error.to_string()),
    }
}

/// Every error of every session.
pub fn errors(seen: &[Seen]) -> Vec<String> {
    seen.iter().flat_map(|seen| seen.errors.clone()).collect()
}
