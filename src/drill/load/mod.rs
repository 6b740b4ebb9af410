//! The clients of a drill: each asks at its own times whether or not it was answered in time, and
//! checks what it is told. Knows the balancer's address and nothing else of it.
//!
//! Start at [`drive`].

mod browser;
mod frames;
mod polling;
mod sessions;
mod websocket;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::record::{Flaw, Kind, Move, Name, Record, Sample, Trouble};
use super::scenario::{Crowd, Scenario};

/// What is common to all clients.
#[derive(Debug)]
struct Common {
    address: SocketAddr,
    host: String,
    /// What they ask for where the instances are not the drill's own.
    path: Option<String>,
    /// By which the balancer knows them, there.
    mark: String,
    patience: Duration,
    /// No request is due after this.
    duration: Duration,
    record: Arc<Record>,
    stop: watch::Receiver<bool>,
}

/// Begins all clients. Each ends at the first request that would be due after `duration`, or when
/// `stop` says so.
pub(super) fn drive(
    scenario: &Scenario,
    address: SocketAddr,
    record: &Arc<Record>,
    stop: &watch::Receiver<bool>,
) -> JoinSet<()> {
    let Scenario { load, duration, seed, .. } = scenario;
    let (duration, seed) = (*duration, *seed);
    let named = load.url.as_ref().map(|url| url.authority.clone());
    let host = load.host.clone().or(named);
    let common = Arc::new(Common {
        address,
        host: host.unwrap_or_else(|| address.to_string()),
        path: load.url.as_ref().map(|url| url.path.clone()),
        mark: scenario.mark.clone(),
        patience: load.patience,
        duration,
        record: Arc::clone(record),
        stop: stop.clone(),
    });
    let mut rng = fastrand::Rng::with_seed(seed);
    let (mut clients, mut number) = (JoinSet::new(), 0);
    let crowds = [
        (Kind::Session, load.sessions),
        (Kind::Visitor, load.visitors),
        (Kind::Polling, load.polling),
        (Kind::Websocket, load.websockets),
        (Kind::Download, load.downloads),
        (Kind::Upload, load.uploads),
    ];
    for (kind, crowd) in crowds {
        let Some(crowd) = crowd else { continue };
        for _ in 0..crowd.clients {
            let client = Client::new(Arc::clone(&common), kind, number, crowd, rng.fork());
            number += 1;
            match kind {
                Kind::Polling => clients.spawn(polling::run(client)),
                Kind::Websocket => clients.spawn(websocket::run(client)),
                _ => clients.spawn(sessions::run(client)),
            };
        }
    }
    clients
}

/// One client: who it is, when it asks, and where it was answered last.
#[derive(Debug)]
struct Client {
    common: Arc<Common>,
    kind: Kind,
    number: usize,
    crowd: Crowd,
    rng: fastrand::Rng,
    /// When the next request is to begin.
    due: Duration,
    home: Option<(Name, Duration)>,
}

impl Client {
    fn new(
        common: Arc<Common>,
        kind: Kind,
        number: usize,
        crowd: Crowd,
        mut rng: fastrand::Rng,
    ) -> Self {
        let due = crowd.every.mul_f64(rng.f64());
        Self { common, kind, number, crowd, rng, due, home: None }
    }

    /// Waits until the next request is due, and says when that was; `None` at the end.
    async fn next(&mut self) -> Option<Duration> {
        let due = self.upcoming()?;
        let goes_on = self.sleep(due).await;
        self.advance();
        goes_on.then_some(due)
    }

    /// When the next request is due; `None` at the end.
    fn upcoming(&self) -> Option<Duration> {
        (self.due < self.common.duration && !*self.common.stop.borrow()).then_some(self.due)
    }

    /// The next one is another, whatever became of this one: time does not wait for answers.
    fn advance(&mut self) {
        self.due += self.crowd.every.mul_f64(0.5 + self.rng.f64());
    }

    /// Sleeps until then; false where the drill stops meanwhile.
    async fn sleep(&self, until: Duration) -> bool {
        let mut stop = self.common.stop.clone();
        let until = Instant::from_std(self.common.record.begin() + until);
        tokio::select! {
            // A drill that is gone wants no more either.
            _ = stop.wait_for(|stop| *stop) => false,
            () = sleep_until(until) => true,
        }
    }

    /// Notes what became of a request.
    fn note(&self, due: Duration, trouble: Option<Trouble>) {
        let record = &self.common.record;
        let sample =
            Sample { kind: self.kind, due, at: record.now(), trouble, home: self.home.clone() };
        record.notes().samples.push(sample);
    }

    fn flaw(&self, flaw: Flaw) {
        let record = &self.common.record;
        record.notes().flaws.push((record.now(), self.kind, flaw));
    }

    /// Notes who answered, and whether that is another one than before.
    fn answered_by(&mut self, name: &Name) {
        let at = self.common.record.now();
        self.common.record.answered(at, name);
        let before = self.home.replace((Arc::clone(name), at));
        let mut notes = self.common.record.notes();
        match before {
            Some((from, _)) if from == *name => return,
            Some((from, since)) => {
                notes.moves.push(Move { at, client: self.number, from, since });
            }
            None => notes.begun.push((at, Arc::clone(name))),
        }
        // Who asks only once is bound to nobody.
        if self.kind != Kind::Visitor {
            notes.bound.push((at, self.number, Arc::clone(name)));
        }
    }

    /// Becomes somebody whom nobody knows.
    fn forget(&mut self) {
        self.home = None;
    }
}
