//! The account of one request, from its head to the last byte of its answer.
//!
//! Dropping it closes the account: the log line is written, counters are moved. That is the only
//! place where a request is counted, however it ends.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use http::header::HeaderValue;
use http::{HeaderMap, Method, Request, StatusCode, Uri, Version};
use hyper::upgrade::OnUpgrade;

use crate::affinity::query;
use crate::config::types::{LineFormat, ProxyVersion};
use crate::instance::body::{Broken, Hold, Incoming, Upload};
use crate::instance::{InFlight, Roster};
use crate::observe::access::{self, Agent};
use crate::observe::counters::TunnelEnd;
use crate::observe::judged::Verdict;
use crate::observe::red::Ended;
use crate::proxy::client::{Busy, Came, Client};
use crate::proxy::error::Reason;
use crate::proxy::retry::Failure;
use crate::proxy::session::Outcome;
use crate::proxy::spans;
use crate::proxy::stay::Stay;
use crate::proxy_protocol::Introduction;
use crate::route::split::By;
use crate::snapshot::Snapshot;
use crate::trace::span::Trace;
use crate::tunnel;
use crate::tunnel::registry::Entry;

/// One request.
#[derive(Debug)]
pub struct Exchange {
    /// The connection it came by, which is busy with it.
    pub client: Busy,
    /// When its head was complete.
    pub started: Instant,
    method: Method,
    target: Uri,
    version: Version,
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
    /// Which of the service's `routes` it came by.
    pub part: Option<u16>,
    /// By what it came to its version, where there are several, and what its cookie is to hold.
    pub lot: Option<(By, Option<u32>)>,
    /// Where the last attempt was made.
    pub stay: Option<Stay>,
    /// Whether it asks for a tunnel.
    pub upgrade: bool,
    /// Attempts made.
    pub attempts: u32,
    /// Whether it had to wait for a place.
    pub has_waited: bool,
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
    /// Whether a line is written, once it is known.
    logged: Option<bool>,
    /// What a line says of the client's program, if that is asked for.
    agent: Option<Box<Agent>>,
    /// Its place in a trace, if it has one.
    pub trace: Option<Box<Trace>>,
    /// How long an answer that has begun may be silent.
    pub idle_timeout: Duration,
    status: Option<StatusCode>,
    first_byte: Option<Duration>,
    /// The same without what its client took for its body, where versions are compared.
    took: Option<Duration>,
    /// Bytes of the answer's body so far.
    pub sent: u64,
    /// When it makes sense to ask again, where Burdock refuses, in seconds.
    pub retry_after: u32,
}

impl Exchange {
    /// Opens the account.
    pub fn begin(came: Came, request: &Request<Option<Incoming>>) -> Box<Self> {
        Box::new(Self {
            client: came.busy,
            started: came.at,
            method: request.method().clone(),
            target: request.uri().clone(),
            version: request.version(),
            told: None,
            https: false,
            host: None,
            request_id: None,
            roster: None,
            part: None,
            lot: None,
            stay: None,
            upgrade: false,
            attempts: 0,
            has_waited: false,
            affinity: Outcome::Off,
            session: None,
            upload: None,
            connect: None,
            ended: None,
            error: None,
            logged: None,
            agent: None,
            trace: None,
            idle_timeout: Duration::MAX,
            status: None,
            first_byte: None,
            took: None,
            sent: 0,
            retry_after: 1,
        })
    }

    /// The client's address, as trusted proxies tell it.
    pub fn address(&self) -> &str {
        self.told.as_deref().unwrap_or_else(|| self.client.peer_text())
    }

    /// What instances are told of its client by their connections.
    pub fn introduction(&self, version: ProxyVersion) -> Introduction {
        let told = self.told.as_deref().and_then(|text| text.parse().ok());
        Introduction { header: self.client.introduced(told), version }
    }

    /// Takes over what a configuration says of the log: whether there is a line, and which query
    /// parameters hold tokens, which are kept out of it. `fields` are those of the request.
    pub fn log_as(&mut self, snapshot: &Snapshot, fields: Option<&HeaderMap>) {
        let log = snapshot.config.access_log.as_ref();
        self.logged = Some(log.is_some());
        if log.is_some_and(|log| log.format == LineFormat::Combined) {
            self.agent = fields.map(|fields| Box::new(Agent::of(fields)));
        }
        let queries = &snapshot.token_queries;
        if !queries.is_empty()
            && let Some(target) = query::concealed(&self.target, queries)
        {
            self.target = target;
        }
    }

    /// Roughly now, when an attempt begins: the first begins with the request, if it need not wait.
    pub fn began(&self) -> Instant {
        let is_first = self.attempts == 0 && !self.has_waited;
        if is_first { self.started } else { Instant::now() }
    }

    /// An attempt begins. Gives what the instance is told of the trace.
    pub fn attempt(&mut self, place: InFlight, began: Instant) -> Option<Box<HeaderValue>> {
        self.attempts += 1;
        let (stay, traceparent) = self.stay(place, began);
        self.stay = Some(stay);
        traceparent
    }

    /// The stay of the attempt that is the last one counted; and the same.
    pub fn stay(&self, place: InFlight, began: Instant) -> (Stay, Option<Box<HeaderValue>>) {
        let stay = Stay::begin(place, began);
        match &self.trace {
            None => (stay, None),
            Some(trace) => spans::attempt(self, trace, stay),
        }
    }

    /// An attempt brought an answer.
    pub fn succeeded(&mut self, status: StatusCode) {
        if let Some(stay) = &mut self.stay {
            stay.succeeded(status, self.upgrade, self.upload.as_ref());
        }
    }

    /// An attempt failed. An error says that it was the client's doing.
    pub fn failed(&mut self, failure: Failure) -> Result<(), Reason> {
        match self.upload.as_ref().and_then(|upload| upload.progress().broken) {
            Some(Broken::Gone) => return Err(self.client.gone()),
            Some(Broken::Stalled) => return Err(Reason::RequestIdleTimeout),
            Some(Broken::Malformed) => return Err(Reason::BadRequest),
            Some(Broken::TooLarge) => return Err(Reason::BodyTooLarge),
            Some(Broken::Slow) => return Err(Reason::RequestTooSlow),
            None => {}
        }
        tracing::debug!(
            reason = Reason::from(failure).label(),
            attempt = self.attempts,
            "an attempt failed"
        );
        if let Some(stay) = &mut self.stay {
            stay.failed(failure, self.upgrade);
        }
        Ok(())
    }

    /// The answer's head is there.
    pub fn answered(&mut self, status: StatusCode) {
        let now = Instant::now();
        self.status = Some(status);
        self.first_byte = Some(now.saturating_duration_since(self.started));
        if self.lot.is_some() {
            let asked = self.upload.as_ref().map(|upload| upload.progress().asked);
            let began = asked.map_or(self.started, |asked| asked.max(self.started));
            self.took = Some(now.saturating_duration_since(began));
        }
        // With an error it is Burdock's own words that are counted elsewhere.
        if let Some(stay) = self.stay.as_ref().filter(|_| self.error.is_none()) {
            stay.passed_on(now, self.upload.as_ref());
        }
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
        let instance = Arc::clone(self.stay.as_ref()?.instance());
        Some(self.client.registry.enter_stream(instance, self.started))
    }

    /// The instance of the last attempt.
    pub fn in_flight(&self) -> Option<&InFlight> {
        self.stay.as_ref().map(Stay::place)
    }

    fn end(&self, now: Instant) -> Ended {
        let is_bad = || self.status.is_some_and(|status| status.is_server_error());
        Ended {
            status: self.status,
            is_error: self.error.map_or_else(is_bad, Reason::is_failure),
            attempts: self.attempts,
            first_byte: self.first_byte,
            duration: Some(now.saturating_duration_since(self.started)),
        }
    }

    /// What it says of its version.
    fn verdict(&self) -> Verdict {
        match (self.error, self.status) {
            (Some(reason), _) if reason.speaks_against_version() => Verdict::Fault,
            (Some(_), _) | (None, None) => Verdict::Nothing,
            (None, Some(status)) if status.is_server_error() => Verdict::Fault,
            (None, Some(status)) if status.is_client_error() => Verdict::Nothing,
            (None, Some(_)) => Verdict::Good(self.took),
        }
    }

    /// Whether it failed, or nothing could be sent.
    fn has_failed(&self) -> bool {
        let is_bad = || self.status.is_none_or(|status| status.is_server_error());
        self.error.map_or_else(is_bad, |error| error.is_failure() || self.status.is_none())
    }

    fn line(&self, now: Instant) -> access::Line<'_> {
        let (affinity, affinity_reason) = self.affinity.labels();
        let roster = self.roster.as_deref();
        let instance = self.stay.as_ref().map(|stay| &*stay.instance().identity().name);
        access::Line {
            message: "request",
            client: self.address(),
            method: self.method.as_str(),
            protocol: protocol(self.version),
            path: self.target.path_and_query().map_or("", |path| path.as_str()),
            host: visible(self.host.as_ref()),
            status: self.status.map_or(0, |status| status.as_u16()),
            service: roster.map_or("", Roster::service),
            version: roster.map_or("", Roster::version),
            instance: instance.unwrap_or_default(),
            affinity,
            affinity_reason,
            split: self.lot.map(|(by, _)| by.label()),
            attempts: self.attempts,
            request_bytes: self.upload.as_ref().map_or(0, |upload| upload.progress().received),
            response_bytes: self.sent,
            first_byte: self.first_byte,
            duration: now.saturating_duration_since(self.started),
            request_id: visible(self.request_id.as_ref()),
            error: self.error.map(Reason::label).or(self.ended.map(TunnelEnd::label)),
            tls: self.client.arrival.session.as_deref(),
            tunnel: None,
            agent: self.agent.as_deref().map_or_else(Default::default, Agent::bytes),
            must: self.has_failed(),
            trace: self.trace.as_ref().map(|trace| trace.ids()),
        }
    }

    /// Its method.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// Its target, without tokens.
    pub fn target(&self) -> &Uri {
        &self.target
    }

    /// Hands over what a tunnel needs to know of the request that opened it. Text is copied: what
    /// came from the client's head would keep all of its read buffer.
    pub fn into_tunnel(mut self: Box<Self>) -> Option<tunnel::Account> {
        let in_flight = self.in_flight()?.become_tunnel();
        let line = self.line(self.started);
        let is_logged = self.logged.unwrap_or(true);
        let told = is_logged.then(|| {
            Box::new(tunnel::Told {
                method: self.method.clone(),
                words: tunnel::Words::of([line.client, line.path, line.host, line.request_id]),
                affinity: self.affinity.labels(),
                split: line.split,
                attempts: self.attempts,
                protocol: line.protocol,
                agent: self.agent.as_deref().map(Agent::copied),
                trace: line.trace,
                tls: self.client.arrival.session.clone(),
            })
        });
        let account = tunnel::Account {
            roster: self.roster.clone()?,
            started: Instant::now(),
            told,
            session: self.session,
            in_flight,
            hold: match self.client.is_stream() {
                true => Some(Box::new(self.client.stay_busy()) as Hold),
                false => self.client.hand_over(),
            },
        };
        self.client.part();
        self.error = None;
        Some(account)
    }
}

/// As a request line names it (RFC 9112 section 2.3).
fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2.0",
        _ => "HTTP/1.1",
    }
}

fn visible(value: Option<&HeaderValue>) -> &str {
    value.and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// Closes the account of a request whose head could not be read.
pub fn unread(client: &Client, reason: Reason) {
    client.live.counters.error(reason);
    let status = reason.outward().1;
    let is_error = reason.is_failure();
    let ended = Ended { status, is_error, attempts: 0, first_byte: None, duration: None };
    client.arrival.red.count(&ended);
    let Some(status) = status else { return };
    if client.live.snapshot().config.access_log.is_none() {
        return;
    }
    access::write(&access::Line {
        message: "request",
        must: is_error,
        client: client.peer_text(),
        status: status.as_u16(),
        error: Some(reason.label()),
        affinity: Outcome::Off.labels().0,
        tls: client.arrival.session.as_deref(),
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
        let ended = self.end(now);
        self.client.arrival.red.count(&ended);
        if let Some(red) = self.roster.as_ref().and_then(|it| it.red(self.client.worker)) {
            red.count(&ended);
            if self.lot.is_some() {
                red.judged.count(self.verdict());
            }
        }
        if self.logged.is_none() {
            // Its client left before anybody looked at it.
            let snapshot = self.client.live.snapshot();
            self.log_as(&snapshot, None);
        }
        if let Some(trace) = self.trace.as_ref().filter(|trace| trace.is_sampled()) {
            self.client.live.spans.push(spans::request(trace, &self.line(now), (self, now)));
        }
        if self.logged == Some(true) {
            access::write(&self.line(now));
        }
        self.client.end(now);
    }
}
