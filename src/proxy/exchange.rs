//! The account of one request, from its head to the last byte of its answer.
//!
//! Dropping it closes the account: the log line is written, counters are moved. That is the only
//! place where a request is counted, however it ends.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use http::header::HeaderValue;
use http::{Method, Request, StatusCode, Uri};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;

use crate::affinity::query;
use crate::instance::body::{Broken, Hold, Upload};
use crate::instance::{InFlight, Instance, Roster, Trial};
use crate::observe::access;
use crate::observe::counters::TunnelEnd;
use crate::proxy::client::{Busy, Client};
use crate::proxy::error::Reason;
use crate::proxy::retry::Failure;
use crate::proxy::session::Outcome;
use crate::tunnel;
use crate::tunnel::registry::Entry;

/// One request.
#[derive(Debug)]
pub struct Exchange {
    /// The connection it came by.
    pub client: Arc<Client>,
    _busy: Busy,
    /// When its head was complete.
    pub started: Instant,
    method: Method,
    target: Uri,
    /// The client's address, as a trusted proxy tells it, where that isn't the peer.
    pub told: Option<Box<str>>,
    /// Whether the client came by https.
    pub https: bool,
    /// The Host field, or what stands for it.
    pub host: Option<HeaderValue>,
    /// Kept or made.
    pub request_id: Option<HeaderValue>,
    /// The version it was routed to.
    pub roster: Option<Arc<Roster>>,
    /// The instance of the last attempt.
    in_flight: Option<InFlight>,
    /// Its permit until there is an outcome, if its instance's breaker is half-open.
    trial: Option<Trial>,
    /// Whether it asks for a tunnel.
    pub upgrade: bool,
    /// Attempts made.
    pub attempts: u32,
    /// What became of its session.
    pub affinity: Outcome,
    /// What the token is remembered by that the client holds after this, if it does.
    pub session: Option<u64>,
    /// Its body, if it has one.
    pub upload: Option<Upload>,
    /// What becomes of its stream, if that is to be a tunnel.
    pub connect: Option<OnUpgrade>,
    /// Why Burdock ended an answer that has no end of its own.
    pub ended: Option<TunnelEnd>,
    /// Why it ended badly; without an answer and without a reason, the client left.
    pub error: Option<Reason>,
    /// Whether a line is written.
    pub logged: bool,
    /// How long an answer that has begun may be silent.
    pub idle_timeout: Duration,
    status: Option<StatusCode>,
    first_byte: Option<Duration>,
    /// Bytes of the answer's body so far.
    pub sent: u64,
}

impl Exchange {
    /// Opens the account.
    pub fn begin(client: Arc<Client>, request: &Request<Incoming>) -> Box<Self> {
        Box::new(Self {
            _busy: client.stay_busy(),
            client,
            started: Instant::now(),
            method: request.method().clone(),
            target: request.uri().clone(),
            told: None,
            https: false,
            host: None,
            request_id: None,
            roster: None,
            in_flight: None,
            trial: None,
            upgrade: false,
            attempts: 0,
            affinity: Outcome::Off,
            session: None,
            upload: None,
            connect: None,
            ended: None,
            error: None,
            logged: true,
            idle_timeout: Duration::MAX,
            status: None,
            first_byte: None,
            sent: 0,
        })
    }

    /// The client's address, as trusted proxies tell it.
    pub fn address(&self) -> &str {
        self.told.as_deref().unwrap_or_else(|| self.client.peer_text())
    }

    /// Keeps tokens in these query parameters out of the log.
    pub fn conceal(&mut self, queries: &[String]) {
        if !queries.is_empty()
            && let Some(target) = query::concealed(&self.target, queries)
        {
            self.target = target;
        }
    }

    /// Roughly now, when an attempt begins: the first begins with the request.
    pub fn began(&self) -> Instant {
        if self.attempts == 0 { self.started } else { Instant::now() }
    }

    /// An attempt begins.
    ///
    /// Another worker may have taken the last permit since the instance was chosen. Then this
    /// attempt goes through without one: at most one for each worker does, its outcome changes
    /// nothing, and to choose again would cost every request a loop for that.
    pub fn attempt(&mut self, in_flight: InFlight) {
        self.attempts += 1;
        self.trial = Trial::begin(in_flight.instance());
        self.in_flight = Some(in_flight);
    }

    /// An attempt brought an answer.
    pub fn succeeded(&mut self, status: StatusCode) {
        let Some(in_flight) = &self.in_flight else { return };
        in_flight.lane().answered(status);
        let (instance, trial) = (in_flight.instance(), self.trial.take());
        // What an upgrade is refused with is the application's business.
        if status.is_server_error() && !self.upgrade {
            let due = instance.erred(in_flight.worker(), trial, Instant::now());
            tick_when_due(instance, due);
        } else {
            instance.succeeded(trial);
        }
    }

    /// An attempt failed. An error says that it was the client's doing.
    pub fn failed(&mut self, failure: Failure) -> Result<(), Reason> {
        match self.upload.as_ref().and_then(|upload| upload.progress().broken) {
            Some(Broken::Gone) => return Err(self.client.gone()),
            Some(Broken::Stalled) => return Err(Reason::RequestIdleTimeout),
            Some(Broken::Malformed) => return Err(Reason::BadRequest),
            None => {}
        }
        tracing::debug!(
            reason = Reason::from(failure).label(),
            attempt = self.attempts,
            "an attempt failed"
        );
        let trial = self.trial.take();
        let Some(in_flight) = &mut self.in_flight else { return Ok(()) };
        if !failure.is_own() {
            in_flight.lane().failed();
            if failure.is_blamed(self.upgrade) {
                let instance = in_flight.instance();
                let due = instance.failed(in_flight.worker(), trial, Instant::now());
                tick_when_due(instance, due);
            }
        }
        // Whether or not another attempt follows, nothing is under way here any more.
        in_flight.vacate();
        Ok(())
    }

    /// The answer's head is there.
    pub fn answered(&mut self, status: StatusCode) {
        self.status = Some(status);
        self.first_byte = Some(self.started.elapsed());
        if let Some(upload) = &self.upload {
            upload.settle();
        }
    }

    /// Burdock answers by itself.
    pub fn refused(&mut self, reason: Reason) {
        self.error = Some(reason);
        self.status = reason.outward().1;
    }

    /// The body, if it is not all on its way to the instance.
    pub fn unsent(&self) -> Option<Upload> {
        self.upload.clone().filter(|upload| !upload.is_sent())
    }

    /// The answer has no end: whoever passes it on is told when it must have one.
    pub fn enter_stream(&self) -> Option<Arc<Entry>> {
        let instance = Arc::clone(self.in_flight.as_ref()?.instance());
        Some(self.client.registry.enter_stream(instance, self.started))
    }

    /// The instance of the last attempt.
    pub fn in_flight(&self) -> Option<&InFlight> {
        self.in_flight.as_ref()
    }

    fn line(&self, now: Instant) -> access::Line<'_> {
        let (affinity, affinity_reason) = self.affinity.labels();
        let roster = self.roster.as_deref();
        let instance = self.in_flight.as_ref().map(|guard| &*guard.instance().identity().name);
        access::Line {
            message: "request",
            client: self.address(),
            method: self.method.as_str(),
            path: self.target.path_and_query().map_or("", |path| path.as_str()),
            host: visible(self.host.as_ref()),
            status: self.status.map_or(0, |status| status.as_u16()),
            service: roster.map_or("", Roster::service),
            version: roster.map_or("", Roster::version),
            instance: instance.unwrap_or_default(),
            affinity,
            affinity_reason,
            attempts: self.attempts,
            request_bytes: self.upload.as_ref().map_or(0, |upload| upload.progress().received),
            response_bytes: self.sent,
            first_byte: self.first_byte,
            duration: now.saturating_duration_since(self.started),
            request_id: visible(self.request_id.as_ref()),
            error: self.error.map(Reason::label).or(self.ended.map(TunnelEnd::label)),
            tunnel: None,
        }
    }

    /// Hands over what a tunnel needs to know of the request that opened it. Text is copied: what
    /// came from the client's head would keep all of its read buffer.
    pub fn into_tunnel(mut self: Box<Self>) -> Option<tunnel::Account> {
        let in_flight = self.in_flight.as_ref()?.become_tunnel();
        let line = self.line(self.started);
        let account = tunnel::Account {
            roster: self.roster.clone()?,
            address: self.address().into(),
            started: Instant::now(),
            method: self.method.clone(),
            path: line.path.into(),
            host: line.host.into(),
            request_id: line.request_id.into(),
            affinity: self.affinity.labels(),
            session: self.session,
            attempts: self.attempts,
            logged: self.logged,
            in_flight,
            hold: self.client.is_stream().then(|| Box::new(self.client.stay_busy()) as Hold),
        };
        self.client.part();
        self.error = None;
        Some(account)
    }
}

/// Lets a breaker that has opened begin its trials in time.
fn tick_when_due(instance: &Arc<Instance>, due: Option<Instant>) {
    let Some(due) = due else { return };
    let instance = Arc::clone(instance);
    tokio::spawn(async move {
        tokio::time::sleep_until(due.into()).await;
        instance.tick(Instant::now());
    });
}

fn visible(value: Option<&HeaderValue>) -> &str {
    value.and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// Closes the account of a request whose head could not be read.
pub fn unread(client: &Client, reason: Reason) {
    client.live.counters.error(reason);
    let Some(status) = reason.outward().1 else { return };
    if !client.live.snapshot().config.access_log {
        return;
    }
    access::write(&access::Line {
        message: "request",
        client: client.peer_text(),
        status: status.as_u16(),
        error: Some(reason.label()),
        affinity: Outcome::Off.labels().0,
        ..access::Line::default()
    });
}

/// 128 random bits in hexadecimal.
pub fn new_request_id() -> HeaderValue {
    thread_local! {
        /// Many ids share an allocation: one of its own, and a count of its holders, would cost
        /// each more than all the rest.
        static SHARED: RefCell<BytesMut> = RefCell::new(BytesMut::with_capacity(2048));
    }
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let random = fastrand::u128(..);
    let text: [u8; 32] = std::array::from_fn(|at| DIGITS[(random >> (at * 4)) as usize & 15]);
    let id = SHARED.with_borrow_mut(|shared| {
        shared.extend_from_slice(&text);
        shared.split().freeze()
    });
    HeaderValue::from_maybe_shared(id).expect("hexadecimal digits are header-safe")
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let now = Instant::now();
        if self.status.is_none() && self.error.is_none() {
            self.error = Some(self.client.gone());
        }
        if let Some(reason) = self.error {
            self.client.live.counters.error(reason);
        }
        if self.logged {
            access::write(&self.line(now));
        }
    }
}
