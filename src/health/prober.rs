//! Active checks: a task for each check of each instance. It outlives reloads that don't change
//! that check, and ends when the instance is gone.
//!
//! The prober opens sockets and feeds the pure machines of [`super::check`]; what they say goes to
//! the instance. First probes are spread, so that a start or a reload is no burst; each later one
//! is a little early or late, so that balancers don't fall into step.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONNECTION, HOST, HeaderValue, USER_AGENT};
use http::{Request, StatusCode, Uri};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinSet};

use crate::config::types::{self, InitialState};
use crate::health::Health;
use crate::health::check::{Check, Outcome, Verdict};
use crate::instance::{Instance, Roster};

/// What probes call themselves.
const PROBE: &str = concat!("burdock-probe/", env!("CARGO_PKG_VERSION"));
/// First probes of many instances are spread this far apart, but never beyond one interval.
const SPREAD: Duration = Duration::from_millis(2);
/// An interval is up to this share longer or shorter, in percent.
const JITTER: f64 = 5.0;

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

/// Probes every instance of every version.
#[derive(Debug, Default)]
pub struct Prober {
    tasks: JoinSet<()>,
    watched: HashMap<usize, Watched>,
    verdict: Arc<Notify>,
}

impl Prober {
    /// Probes what these versions name, drained instances included, and nothing else. A check that
    /// didn't change is not disturbed.
    pub fn follow<'a>(&mut self, versions: impl Iterator<Item = (&'a types::Version, &'a Roster)>) {
        let mut before = std::mem::take(&mut self.watched);
        for (version, roster) in versions {
            let settings = Settings {
                readiness: version.readiness_check.clone(),
                liveness: version.liveness_check.clone(),
            };
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
                self.watch(instance, &settings, &mut watched, &window);
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
        settings: &Settings,
        watched: &mut Watched,
        window: &dyn Fn(&types::Check) -> Duration,
    ) {
        let before = std::mem::replace(&mut watched.settings, settings.clone());
        if before != *settings {
            let mut vitals = watched.vitals.lock().unwrap_or_else(PoisonError::into_inner);
            vitals.drop_unasked(settings);
            instance.set_health(vitals.health(), "its checks changed");
        }
        for kind in [Kind::Readiness, Kind::Liveness] {
            let check = settings.of(kind);
            if watched.task(kind).is_some() && before.of(kind) == check {
                continue;
            }
            let started = check.as_ref().map(|check| {
                let due = Instant::now().max(watched.added + check.initial_delay);
                let probe = Probe {
                    kind,
                    check: check.clone(),
                    instance: Arc::clone(instance),
                    vitals: Arc::clone(&watched.vitals),
                    verdict: Arc::clone(&self.verdict),
                    added: watched.added,
                    start: due + window(check).mul_f64(fastrand::f64()),
                };
                self.tasks.spawn(probe.run())
            });
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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Readiness,
    Liveness,
}

/// One check of one instance.
struct Probe {
    kind: Kind,
    check: types::Check,
    instance: Arc<Instance>,
    vitals: Arc<Mutex<Vitals>>,
    verdict: Arc<Notify>,
    added: Instant,
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
            let began = Instant::now();
            let (outcome, reason) = self.probe().await;
            self.record(outcome, &reason);
            let ready = self.instance.health() == Health::Ready;
            if !warned && !ready && self.added.elapsed() > self.check.app_start_timeout {
                warned = true;
                let instance = &*self.instance.identity().name;
                tracing::warn!(instance, reason, "not ready within app_start_timeout");
            }
            warned |= ready;
            let jitter = 1.0 + (fastrand::f64() * 2.0 - 1.0) * JITTER / 100.0;
            let next = began + self.check.interval.mul_f64(jitter);
            tokio::time::sleep_until(next.into()).await;
        }
    }

    fn record(&self, outcome: Outcome, reason: &str) {
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

    /// One probe, and in words what came of it.
    async fn probe(&self) -> (Outcome, String) {
        let kind = match self.kind {
            Kind::Readiness => "readiness",
            Kind::Liveness => "liveness",
        };
        let result = tokio::time::timeout(self.check.timeout, self.ask()).await;
        match result {
            Ok(Ok(status)) if self.passes(status) => {
                (Outcome::Pass, format!("{kind} check passed"))
            }
            Ok(Ok(status)) => (Outcome::Refused, format!("{kind} check answered {status}")),
            Ok(Err(error)) => (Outcome::NoAnswer, format!("{kind} check: {error}")),
            Err(_elapsed) => {
                (Outcome::NoAnswer, format!("{kind} check: no answer in {:?}", self.check.timeout))
            }
        }
    }

    fn passes(&self, status: StatusCode) -> bool {
        let expected = &self.check.expected_statuses;
        expected.iter().any(|(from, to)| (*from..=*to).contains(&status.as_u16()))
    }

    /// A connection of its own for each probe: a kept one would tell nothing about new ones.
    async fn ask(&self) -> Result<StatusCode, ProbeError> {
        let stream =
            TcpStream::connect(self.instance.address()).await.map_err(ProbeError::Connect)?;
        let Some(path) = &self.check.path else { return Ok(StatusCode::OK) };
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let host = self.check.host.as_deref().unwrap_or(self.instance.address());
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.uri_mut() = Uri::try_from(path.as_str()).map_err(|_bad| ProbeError::Target)?;
        let headers = request.headers_mut();
        headers.insert(HOST, HeaderValue::from_str(host).map_err(|_bad| ProbeError::Target)?);
        headers.insert(USER_AGENT, HeaderValue::from_static(PROBE));
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        let answer = sender.send_request(request);
        tokio::pin!(answer);
        tokio::select! {
            biased;
            answer = &mut answer => return Ok(answer?.status()),
            over = connection => over?,
        }
        // The connection is over; what came of the request is known.
        Ok(answer.await?.status())
    }
}

/// Why a probe got no answer.
#[derive(Debug, thiserror::Error)]
enum ProbeError {
    #[error("connecting: {0}")]
    Connect(#[source] std::io::Error),
    #[error("{0}")]
    Http(#[from] hyper::Error),
    #[error("path or host is no valid request target")]
    Target,
}
