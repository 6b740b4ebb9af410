//! Active checks: a task for each check of each instance. It outlives reloads that don't change
//! that check, and ends when the instance is gone.
//!
//! The prober feeds what `super::probe` learns to the pure machines of [`super::check`]; what they
//! say goes to the instance, and so does what it says of itself. First probes are spread, so that a start or a reload is no burst; each later one
//! is a little early or late, so that balancers don't fall into step.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::{Notify, Semaphore};
use tokio::task::{AbortHandle, JoinSet};

use crate::config::types::{self, CheckTls, InitialState, InstanceTls, Protocol, ProxyVersion};
use crate::health::Health;
use crate::health::check::{Check, Kind, Verdict};
use crate::health::probe::{self, Answer, Place};
use crate::instance::probes;
use crate::instance::{Departure, Instance, Roster};
use crate::tls::client::{Connector, Target};

/// First probes of many instances are spread this far apart, but never beyond one interval.
const SPREAD: Duration = Duration::from_millis(2);
/// Probes under way at once: each holds a socket, for as long as its timeout where nobody answers.
const MOST_AT_ONCE: usize = 512;
/// An interval is up to this share longer or shorter, in percent.
const JITTER: f64 = 5.0;
/// Probes go out together that are due in the same one of so many parts of an interval: to wake up
/// for each of many would cost as much as half of it.
const PARTS: u32 = 200;
/// The longest such part.
const LONGEST_PART: Duration = Duration::from_millis(100);

/// The two checks of one instance, kept through changes of their settings.
#[derive(Debug)]
struct Vitals {
    readiness: Check,
    liveness: Check,
}

/// What a version asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Settings {
    readiness: Option<types::Check>,
    liveness: Option<types::Check>,
    proxy_protocol: Option<ProxyVersion>,
    tls: Option<InstanceTls>,
    protocol: Protocol,
}

#[derive(Debug)]
struct Watched {
    /// Also keeps the key, which is its address, from being given to another instance.
    instance: Weak<Instance>,
    added: Instant,
    settings: Settings,
    vitals: Arc<Mutex<Vitals>>,
    readiness: Option<AbortHandle>,
    liveness: Option<AbortHandle>,
}

/// Sees to the end of a drain that an instance has asked for.
pub type OnDrain = Arc<dyn Fn(Arc<Instance>, Departure) + Send + Sync>;

/// Probes every instance of every version.
pub struct Prober {
    tasks: JoinSet<()>,
    watched: HashMap<usize, Watched>,
    verdict: Arc<Notify>,
    turns: Arc<Semaphore>,
    on_drain: OnDrain,
    begin: Instant,
}

impl std::fmt::Debug for Prober {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prober").field("watched", &self.watched).finish_non_exhaustive()
    }
}

impl Prober {
    /// One that probes nothing yet.
    pub fn new(on_drain: OnDrain) -> Self {
        let (tasks, watched, verdict) = Default::default();
        let turns = Arc::new(Semaphore::new(MOST_AT_ONCE));
        Self { tasks, watched, verdict, turns, on_drain, begin: Instant::now() }
    }

    /// Probes what these versions name, drained instances included, and nothing else. A check that
    /// didn't change is not disturbed.
    pub fn follow<'a>(&mut self, versions: impl Iterator<Item = (&'a types::Version, &'a Roster)>) {
        let mut before = std::mem::take(&mut self.watched);
        for (version, roster) in versions {
            let settings = Settings {
                readiness: version.readiness_check.clone(),
                liveness: version.liveness_check.clone(),
                proxy_protocol: version.proxy_protocol,
                tls: version.tls.clone(),
                protocol: version.protocol,
            };
            let connectors = Kind::ALL.map(|kind| settings.tls(kind).map(Connector::new));
            let members = roster.members();
            let window = |check: &types::Check| {
                let count = u32::try_from(members.everyone().len()).unwrap_or(u32::MAX);
                check.interval.min(SPREAD * count)
            };
            for instance in members.everyone() {
                let key = Arc::as_ptr(instance).addr();
                let mut watched = before
                    .remove(&key)
                    .unwrap_or_else(|| Watched::new(instance, &settings, Instant::now()));
                self.watch(instance, (&settings, &connectors), &mut watched, &window);
                self.watched.insert(key, watched);
            }
        }
        for watched in before.into_values() {
            watched.readiness.iter().chain(&watched.liveness).for_each(AbortHandle::abort);
        }
        while self.tasks.try_join_next().is_some() {}
    }

    /// Waits until every instance has its first verdict, but no longer than `limit`.
    pub async fn first_verdicts(&self, limit: Duration) {
        let unknown = || {
            let mut instances =
                self.watched.values().filter_map(|watched| watched.instance.upgrade());
            instances.any(|instance| instance.health() == Health::Unknown)
        };
        let known = async {
            loop {
                let verdict = self.verdict.notified();
                if !unknown() {
                    return;
                }
                verdict.await;
            }
        };
        let _ = tokio::time::timeout(limit, known).await;
    }

    fn watch(
        &mut self,
        instance: &Arc<Instance>,
        (settings, connectors): (&Settings, &[Option<Connector>; 2]),
        watched: &mut Watched,
        window: &dyn Fn(&types::Check) -> Duration,
    ) {
        let before = std::mem::replace(&mut watched.settings, settings.clone());
        if before != *settings {
            let mut vitals = watched.vitals.lock().unwrap_or_else(PoisonError::into_inner);
            vitals.drop_unasked(settings);
            instance.set_health(vitals.health(), "its checks changed");
        }
        for kind in Kind::ALL {
            let check = settings.of(kind);
            if watched.task(kind).is_some()
                && before.of(kind) == check
                && before.tls(kind) == settings.tls(kind)
                && before.protocol == settings.protocol
                && before.proxy_protocol == settings.proxy_protocol
            {
                continue;
            }
            let started = check.as_ref().map(|check| {
                let due = Instant::now().max(watched.added + check.initial_delay);
                let probe = Probe {
                    kind,
                    check: check.clone(),
                    proxy_protocol: settings.proxy_protocol,
                    target: connectors[kind as usize]
                        .as_ref()
                        .map(|it| it.stranger(instance.address())),
                    protocol: settings.protocol,
                    instance: Arc::clone(instance),
                    vitals: Arc::clone(&watched.vitals),
                    verdict: Arc::clone(&self.verdict),
                    turns: Arc::clone(&self.turns),
                    on_drain: Arc::clone(&self.on_drain),
                    added: watched.added,
                    begin: self.begin,
                    start: due + window(check).mul_f64(fastrand::f64()),
                };
                self.tasks.spawn(probe.run())
            });
            if started.is_none() {
                instance.probes.forget(kind);
            }
            if let Some(task) = std::mem::replace(watched.task(kind), started) {
                task.abort();
            }
        }
    }
}

impl Settings {
    fn of(&self, kind: Kind) -> &Option<types::Check> {
        match kind {
            Kind::Readiness => &self.readiness,
            Kind::Liveness => &self.liveness,
        }
    }

    /// How probes are secured, if they are.
    fn tls(&self, kind: Kind) -> Option<&InstanceTls> {
        match &self.of(kind).as_ref()?.tls {
            CheckTls::Auto => self.tls.as_ref(),
            CheckTls::Off => None,
            CheckTls::On(tls) => Some(tls),
        }
    }
}

impl Watched {
    fn new(instance: &Arc<Instance>, settings: &Settings, now: Instant) -> Self {
        Self {
            instance: Arc::downgrade(instance),
            added: now,
            settings: settings.clone(),
            vitals: Arc::new(Mutex::new(Vitals::new(settings))),
            readiness: None,
            liveness: None,
        }
    }

    fn task(&mut self, kind: Kind) -> &mut Option<AbortHandle> {
        match kind {
            Kind::Readiness => &mut self.readiness,
            Kind::Liveness => &mut self.liveness,
        }
    }
}

impl Vitals {
    fn new(settings: &Settings) -> Self {
        let unseen = settings.readiness.as_ref().map(|check| check.initial_state);
        let readiness = match unseen {
            Some(InitialState::Unknown) => Verdict::Unknown,
            Some(InitialState::Ready) | None => Verdict::Pass,
        };
        // Alive until shown otherwise.
        Self { readiness: Check::starting(readiness), liveness: Check::starting(Verdict::Pass) }
    }

    /// A check that is no longer asked for must not go on counting; a new one starts afresh.
    fn drop_unasked(&mut self, settings: &Settings) {
        let fresh = Self::new(settings);
        if settings.readiness.is_none() {
            self.readiness = fresh.readiness;
        }
        if settings.liveness.is_none() {
            self.liveness = fresh.liveness;
        }
    }

    fn health(&self) -> Health {
        match (self.liveness.verdict(), self.readiness.verdict()) {
            (Verdict::Refused | Verdict::NoAnswer, _) => Health::Dead,
            (_, Verdict::Unknown) => Health::Unknown,
            (_, Verdict::Pass) => Health::Ready,
            (_, Verdict::Refused) => Health::Unready,
            (_, Verdict::NoAnswer) => Health::Unanswered,
        }
    }
}

/// One check of one instance.
struct Probe {
    kind: Kind,
    check: types::Check,
    proxy_protocol: Option<ProxyVersion>,
    target: Option<Target>,
    protocol: Protocol,
    instance: Arc<Instance>,
    vitals: Arc<Mutex<Vitals>>,
    verdict: Arc<Notify>,
    turns: Arc<Semaphore>,
    on_drain: OnDrain,
    added: Instant,
    /// Where the parts of all intervals begin.
    begin: Instant,
    start: Instant,
}

impl Probe {
    async fn run(self) {
        tokio::select! {
            () = self.repeat() => {}
            () = self.instance.gone() => {}
        }
    }

    async fn repeat(&self) {
        let mut warned = self.kind == Kind::Liveness;
        tokio::time::sleep_until(self.start.into()).await;
        loop {
            // Nobody closes the semaphore.
            let turn = self.turns.acquire().await;
            let began = Instant::now();
            let (address, target) = (self.instance.address(), self.target.as_ref());
            let (protocol, proxy_protocol) = (self.protocol, self.proxy_protocol);
            let place = Place { address, target, protocol, proxy_protocol };
            let answer = probe::probe(&self.check, place).await;
            drop(turn);
            let reason = answer.reason(self.kind);
            self.record(answer, began.elapsed(), &reason);
            let ready = self.instance.checked() == Health::Ready;
            if !warned && !ready && self.added.elapsed() > self.check.app_start_timeout {
                warned = true;
                self.instance.starts_late(&reason);
            }
            warned |= ready;
            let jitter = 1.0 + (fastrand::f64() * 2.0 - 1.0) * JITTER / 100.0;
            let due = began + self.check.interval.mul_f64(jitter);
            let next = together(due.saturating_duration_since(self.begin), self.check.interval);
            tokio::time::sleep_until((self.begin + next).into()).await;
        }
    }

    fn record(&self, answer: Answer, took: Duration, reason: &str) {
        let at = SystemTime::now();
        if let Some(incarnation) = &answer.incarnation {
            let now = at.duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
            self.instance.lives(incarnation, self.check.on_restart, now);
        }
        if let Some(drain) = answer.report.and_then(|report| self.instance.heed(report)) {
            (self.on_drain)(Arc::clone(&self.instance), drain);
        }
        let outcome = answer.outcome;
        let said = answer.said.into_boxed_str();
        self.instance.probes.note(self.kind, probes::Probe { at, outcome, took, said });
        if let Some(roster) = self.instance.roster() {
            roster.tally.probes[self.kind as usize].count(took);
        }
        let mut vitals = self.vitals.lock().unwrap_or_else(PoisonError::into_inner);
        let check = match self.kind {
            Kind::Readiness => &mut vitals.readiness,
            Kind::Liveness => &mut vitals.liveness,
        };
        check.record(outcome, (&self.check).into());
        let health = vitals.health();
        drop(vitals);
        self.instance.set_health(health, reason);
        self.verdict.notify_waiters();
    }
}

/// The end of the part of an interval that `due` is in.
fn together(due: Duration, interval: Duration) -> Duration {
    let part = (interval / PARTS).min(LONGEST_PART).as_nanos().max(1);
    let rest = Duration::from_nanos((due.as_nanos() % part) as u64);
    if rest.is_zero() { due } else { due - rest + Duration::from_nanos(part as u64) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_that_are_due_at_about_the_same_time_go_out_together() {
        let at = |due: u64, interval: u64| {
            together(Duration::from_micros(due), Duration::from_millis(interval)).as_micros()
        };
        assert_eq!(
            [0, 1, 24_999, 25_000, 25_001].map(|due| at(due, 5000)),
            [0, 25_000, 25_000, 25_000, 50_000]
        );
        assert_eq!(at(1, 10), 50, "the shortest interval");
        assert_eq!(at(1, 300_000), 100_000, "the longest");
    }
}
