//! An open-loop load: requests are due by the clock, whether or not earlier ones were answered, so
//! that an instance which hangs is met by as many as real clients would send.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::task::{JoinHandle, JoinSet};

use super::client::{Client, Request};
use super::eventually;

/// One request and what came of it.
#[derive(Debug, Clone)]
pub struct Answered {
    pub session: usize,
    /// When it was to be sent; its wait counts from here.
    pub due: Instant,
    pub done: Instant,
    /// The instance, or what the client saw instead of a 200.
    pub result: Result<String, String>,
    /// Kept connections found closed on the way.
    pub reconnects: usize,
}

/// One cookie jar, and as many kept connections as it had requests at once.
#[derive(Debug, Default)]
struct Browser {
    jar: Mutex<BTreeMap<String, String>>,
    idle: Mutex<Vec<Client>>,
}

/// Sessions that ask in turn until stopped.
#[derive(Debug)]
pub struct Steady {
    answers: Arc<Mutex<Vec<Answered>>>,
    stop: Arc<AtomicBool>,
    driver: JoinHandle<()>,
}

impl Steady {
    /// `sessions` browsers make one request each, one after the other; from then on they ask in
    /// turn, `rate` requests a second in all.
    pub async fn start(address: SocketAddr, sessions: usize, rate: usize) -> Self {
        let browsers: Vec<_> = (0..sessions).map(|_| Arc::new(Browser::default())).collect();
        let answers = Arc::new(Mutex::new(Vec::new()));
        for (session, browser) in browsers.iter().enumerate() {
            let answered = browser.ask(address, session, Instant::now()).await;
            answers.lock().unwrap().push(answered);
        }
        let stop = Arc::new(AtomicBool::new(false));
        let (ended, log) = (Arc::clone(&stop), Arc::clone(&answers));
        let driver = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate as u32);
            let mut requests = JoinSet::new();
            for session in (0..sessions).cycle() {
                let due = ticks.tick().await.into_std();
                if ended.load(Ordering::Acquire) {
                    break;
                }
                let (browser, log) = (Arc::clone(&browsers[session]), Arc::clone(&log));
                requests.spawn(async move {
                    let answered = browser.ask(address, session, due).await;
                    log.lock().unwrap().push(answered);
                });
                while let Some(ended) = requests.try_join_next() {
                    ended.expect("a request panicked");
                }
            }
            while let Some(ended) = requests.join_next().await {
                ended.expect("a request panicked");
            }
        });
        Self { answers, stop, driver }
    }

    /// Waits for `n` more answers.
    pub async fn passes(&self, n: usize) {
        let goal = self.count() + n;
        eventually("more answers under load", || (self.count() >= goal).then_some(())).await;
    }

    /// Waits until no session's latest answer came from `instance`.
    pub async fn leaves(&self, instance: &str) {
        eventually("every session has left", || {
            let last = homes(&self.answers.lock().unwrap());
            (!last.values().any(|home| home == instance)).then_some(())
        })
        .await;
    }

    fn count(&self) -> usize {
        self.answers.lock().unwrap().len()
    }

    /// Everything so far, in the order in which it was due.
    pub fn so_far(&self) -> Vec<Answered> {
        let mut answers = self.answers.lock().unwrap().clone();
        answers.sort_by_key(|answered| answered.due);
        answers
    }

    /// Ends the load, closes its connections and returns everything in the order of being due.
    pub async fn stop(self) -> Vec<Answered> {
        self.stop.store(true, Ordering::Release);
        super::within("the last answers", self.driver).await.expect("the load panicked");
        let mut answers = std::mem::take(&mut *self.answers.lock().unwrap());
        answers.sort_by_key(|answered| answered.due);
        answers
    }
}

impl Browser {
    async fn ask(&self, address: SocketAddr, session: usize, due: Instant) -> Answered {
        let kept = self.idle.lock().unwrap().pop();
        let mut client = kept.unwrap_or_else(|| Client::session(address));
        let before = client.reconnects;
        let jar = Some(self.jar.lock().unwrap().clone());
        client.jar.clone_from(&jar);
        let result = match client.try_send(&Request::get("/")).await {
            Ok(answer) if answer.status == 200 => Ok(answer.instance().to_owned()),
            Ok(answer) => Err(format!("{} {}", answer.status, answer.text())),
            Err(error) => Err(error.to_string()),
        };
        if let Some(cookies) = client.jar.clone().filter(|_| client.jar != jar) {
            // A browser takes what comes, in the order in which it comes.
            self.jar.lock().unwrap().extend(cookies);
        }
        let reconnects = client.reconnects - before;
        self.idle.lock().unwrap().push(client);
        Answered { session, due, done: Instant::now(), result, reconnects }
    }
}

/// Where each session is, by the request that was due last.
pub fn homes(answers: &[Answered]) -> BTreeMap<usize, String> {
    let mut last: BTreeMap<usize, &Answered> = BTreeMap::new();
    for answered in answers.iter().filter(|answered| answered.result.is_ok()) {
        let newest = last.entry(answered.session).or_insert(answered);
        if newest.due <= answered.due {
            *newest = answered;
        }
    }
    last.into_iter().map(|(n, a)| (n, a.result.clone().unwrap_or_default())).collect()
}

/// The instances of each session in order, each named once per stay.
pub fn stays(answers: &[Answered]) -> BTreeMap<usize, Vec<String>> {
    let mut stays: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for answered in answers {
        let Ok(instance) = &answered.result else { continue };
        let stay = stays.entry(answered.session).or_default();
        if stay.last() != Some(instance) {
            stay.push(instance.clone());
        }
    }
    stays
}

/// What clients saw instead of a 200.
pub fn failures(answers: &[Answered]) -> Vec<String> {
    answers.iter().filter_map(|answered| answered.result.clone().err()).collect()
}
