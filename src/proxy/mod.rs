//! The path of a request, in one function: [`handle`].
//!
//! Checked, routed, bound or spread, sent, tried again elsewhere where that is safe, answered. The
//! pieces are next door: [`headers`] and [`retry`] decide, [`forward`] and [`upgrade`] talk to an
//! instance, [`session`] knows the token, [`notice`] tells the client of it, [`exchange`] keeps the
//! account, [`answer`] is the body.

pub mod admission;
pub mod answer;
pub mod burst;
pub mod client;
pub mod error;
pub mod exchange;
pub mod forward;
pub mod headers;
pub mod http2;
pub mod interim;
pub mod key;
pub mod notice;
pub mod retry;
pub mod session;
pub mod upgrade;

use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, EXPECT, HOST, HeaderValue, TRANSFER_ENCODING};
use http::{Method, Request, Response, Uri, Version, request};
use hyper::body::{Body, Incoming};

use crate::config::types;
use crate::instance::body::Upload;
use crate::instance::{Instance, Kind, roster};
use crate::proxy::admission::{Found, Search};
use crate::proxy::answer::AnswerBody;
use crate::proxy::client::Client;
use crate::proxy::error::Reason;
use crate::proxy::exchange::Exchange;
use crate::proxy::forward::{Answer, Attempt};
use crate::proxy::headers::{BadRequest, Fields, hops};
use crate::proxy::notice::Notice;
use crate::proxy::session::{Session, Visit};
use crate::proxy::upgrade::Upgrade;
use crate::snapshot::{Service, Snapshot};

/// Answers one request. Whatever happens, the client gets an answer and the log a line.
pub fn handle(
    client: Arc<Client>,
    request: Request<Incoming>,
) -> impl Future<Output = Response<AnswerBody>> + Send {
    let mut exchange = Exchange::begin(client, &request);
    let (mut head, incoming) = request.into_parts();
    // Lent, since a future keeps what it is given twice: as it came, and as it is used.
    async move {
        match pass(&mut exchange, &mut head, incoming).await {
            Ok((answer, notice)) => answer::respond(exchange, answer, notice),
            Err(Stop::Refused(reason)) => answer::refuse(exchange, reason),
            Err(Stop::Last(echo)) => answer::own(exchange, echo),
        }
    }
}

/// What an answer came from, and what the client must be told of its session.
type Passed = (Answer, Option<Box<Notice>>);

/// Why Burdock answers by itself.
enum Stop {
    Refused(Reason),
    /// The request may go no further (RFC 9110 section 7.6.2): this is its echo, if it is a TRACE.
    Last(Bytes),
}

impl<Why: Into<Reason>> From<Why> for Stop {
    fn from(why: Why) -> Self {
        Self::Refused(why.into())
    }
}

async fn pass(
    exchange: &mut Exchange,
    head: &mut request::Parts,
    incoming: Incoming,
) -> Result<Passed, Stop> {
    exchange.connect = http2::translate(head);
    let fields = Fields::of(&head.headers);
    let snapshot = exchange.client.live.snapshot();
    exchange.conceal(&snapshot.token_queries);
    let forwarding = &snapshot.config.forwarding;
    let framed_twice = exchange.client.is_framed_twice();
    headers::check(head, fields, framed_twice, forwarding.via.as_ref())?;
    let service = prepare(exchange, &snapshot, head)?;
    check_hops(head, &incoming)?;
    let version = service.version();
    let roster = &service.roster;
    roster.budget.earn(&version.retry);

    let upgrade = asked_upgrade(exchange, head, fields, service, &incoming)?;
    let origin = exchange.client.origin(&snapshot, head.version);
    let kind = if upgrade.is_some() { Kind::Tunnel } else { Kind::Request };
    let of_one_client = exchange.client.is_stream() && !origin.trusted;
    let stream = of_one_client.then(|| Arc::clone(&exchange.client));
    let (https, client) = (exchange.https, exchange.address());
    let visit = Visit { https, kind, client, stream, fields };
    let mut session = Session::read(&snapshot, service, head, visit);
    let new_id = exchange::new_request_id;
    let protocol = upgrade.as_ref().map(Upgrade::name);
    exchange.request_id =
        headers::to_instance(&mut head.headers, fields, forwarding, origin, protocol, new_id);
    let upload = upload(exchange, head, fields, incoming, version);
    exchange.upload.clone_from(&upload);

    let has_host = exchange.host.is_some();
    // RFC 9110 section 15.2: HTTP/1.0 knows no interim answers. On a stream hyper sends none.
    let interim = Some(&exchange.client).filter(|_| head.version == Version::HTTP_11).cloned();
    let interim = interim.as_ref();
    let mut tried: Vec<Arc<Instance>> = Vec::new();
    let mut counted = 1;
    let (worker, came) = (exchange.client.worker, exchange.started);
    let search = Search { roster, queue: &version.queue, worker, came };
    let mut found = admission::look(&session, search, &tried, Reason::NoInstance);
    loop {
        let place = match found {
            Found::Place(place) => Ok(place),
            Found::Full => Box::pin(admission::wait(&mut session, search, &tried)).await,
            Found::Nobody(reason) => Err(reason),
        };
        let place = place.inspect_err(|_| exchange.affinity = session.unserved())?;
        let instance = Arc::clone(place.instance());
        let began = exchange.began();
        exchange.attempt(place);
        let upload = upload.as_ref();
        let attempt = Attempt { instance: &instance, roster, version, has_host, upload, interim };
        let result = match &upgrade {
            // Boxed, as is all that is rare and large: the future of every request carries the rest.
            Some(to) => Box::pin(attempt.upgrade(worker, head, to)).await,
            None => attempt.send(worker, head, began).await,
        };
        let failure = match result {
            Ok(mut answer) => {
                exchange.succeeded(answer.response.status());
                exchange.affinity = session.outcome();
                let headers = answer.response.headers_mut();
                let (notice, mark) = session.settle(&instance, worker, headers);
                exchange.session = mark;
                return Ok((answer, notice));
            }
            Err(failure) => failure,
        };
        exchange.failed(failure)?;
        let replayable = upload.is_none_or(|upload| upload.progress().replayable);
        let limits = &version.retry;
        if limits.attempts == 1 || !retry::allowed(&head.method, failure, replayable) {
            return Err(failure.into());
        }
        let reason = session.leave(failure);
        tried.push(instance);
        found = admission::look(&session, search, &tried, failure.into());
        let Some(admits) = found.admits() else { continue };
        if retry::counts(failure, admits) || tried.len() > 2 * limits.attempts as usize {
            counted += 1;
            if counted > limits.attempts || !roster.budget.pay(limits, Instant::now()) {
                return Err(failure.into());
            }
        }
        roster::count(&roster.tally.retried[reason as usize]);
    }
}

/// Holds a request to how far it may go.
fn check_hops(head: &mut request::Parts, incoming: &Incoming) -> Result<(), Stop> {
    let traces = head.method == Method::TRACE;
    // RFC 9110 section 9.3.8: a TRACE has no content.
    if traces && !incoming.is_end_stream() {
        return Err(BadRequest::Trace.into());
    }
    match hops::is_last(head)? {
        true => Err(Stop::Last(if traces { hops::echo(head) } else { Bytes::new() })),
        false => Ok(()),
    }
}

/// What the request wants to switch to, if it may.
fn asked_upgrade(
    exchange: &mut Exchange,
    head: &request::Parts,
    fields: Fields,
    service: &Service,
    incoming: &Incoming,
) -> Result<Option<Upgrade>, Reason> {
    // With a body it is no opening handshake that anybody knows, but a request like any other.
    let upgrade = match incoming.is_end_stream() {
        true => {
            let allowed = &service.version().upgrades;
            Upgrade::asked(head, fields, allowed, exchange.connect.is_some())
        }
        false => None,
    };
    // Passed on as a plain request its answer would look like an open tunnel.
    if exchange.connect.is_some() && upgrade.is_none() {
        return Err(Reason::ConnectUnsupported);
    }
    exchange.upgrade = upgrade.is_some();
    if exchange.upgrade {
        service.roster.admit_tunnel(exchange.started).ok_or(Reason::UpgradeLimit)?;
    }
    Ok(upgrade)
}

/// The request's body, if it has one.
fn upload(
    exchange: &Exchange,
    head: &mut request::Parts,
    fields: Fields,
    incoming: Incoming,
    version: &types::Version,
) -> Option<Upload> {
    // RFC 9110 section 10.1.1: without a body, and in HTTP/1.0, nobody waits for a 100. hyper sends none
    // on a stream, and what a client sends without one is taken all the same.
    let waits = !incoming.is_end_stream() && head.version == Version::HTTP_11;
    if fields.has(Fields::EXPECT) && !waits {
        head.headers.remove(EXPECT);
    }
    if incoming.is_end_stream() {
        return None;
    }
    frame(head);
    // Once some of its body was sent, only an idempotent request is ever tried again.
    let limit = if head.method.is_idempotent() { version.retry.max_body } else { 0 };
    let hold = Box::new(exchange.client.stay_busy());
    Some(Upload::new(incoming, limit, version.timeouts.idle, exchange.started, hold))
}

/// Routes a request and gives its head the form in which instances get it.
fn prepare<'a>(
    exchange: &mut Exchange,
    snapshot: &'a Snapshot,
    head: &mut request::Parts,
) -> Result<&'a Service, Reason> {
    let origin = exchange.client.origin(snapshot, head.version);
    let trusted = &snapshot.config.trusted_proxies;
    let address = headers::client_address(&head.headers, origin, trusted);
    exchange.told = (address != origin.peer).then(|| address.to_string().into());
    exchange.https = headers::is_https(&head.headers, origin.trusted);
    exchange.logged = snapshot.config.access_log;
    headers::check_scheme(head, exchange.https)?;
    // RFC 9112 section 3.2.2: the host of an absolute target overrides the field.
    if let Some(authority) = head.uri.authority() {
        let host = headers::host_of(authority)?;
        head.headers.insert(HOST, host);
        let path = head.uri.path_and_query().cloned();
        head.uri = path.map_or_else(|| Uri::from_static("/"), Uri::from);
    }
    // A target that is nothing but a fragment is empty without it.
    if head.uri.path().is_empty() {
        head.uri = Uri::from_static("/");
    }
    exchange.host = head.headers.get(HOST).cloned();
    let host = exchange.host.as_ref().and_then(|host| host.to_str().ok()).unwrap_or_default();
    let service = snapshot.service(host, head.uri.path()).ok_or(Reason::NoService)?;
    exchange.roster = Some(Arc::clone(&service.roster));
    exchange.idle_timeout = service.version().timeouts.idle;
    exchange.client.allow_idle(exchange.idle_timeout);
    Ok(service)
}

/// Says how the body is framed: as the client did, since hyper would leave a GET's body out.
fn frame(head: &mut request::Parts) {
    if !head.headers.contains_key(CONTENT_LENGTH) {
        head.headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
}
