//! The path of a request, in one function: [`handle`].
//!
//! Checked, routed, bound or spread, sent, tried again elsewhere where that is safe, answered. The
//! pieces are next door: [`headers`] and [`retry`] decide, [`forward`], [`streams`] and [`upgrade`]
//! talk to an instance, [`tries`] says where to next, [`race`] asks two, [`session`] knows the token,
//! [`mirror`] sends copies elsewhere, [`notice`] tells the client of it, [`exchange`] keeps the account, `spans` tells collectors, [`answer`] is the body. On a
//! listener that sends its clients to https, [`redirect`] answers instead; a CA that looks whether a
//! host is ours hears from [`challenge`].

pub mod admission;
pub mod answer;
pub mod burst;
pub mod challenge;
pub mod client;
pub mod coming;
mod disturbed;
pub mod error;
pub mod exchange;
pub mod explain;
pub mod forward;
pub mod grpc;
pub mod headers;
pub mod http2;
pub mod interim;
pub mod key;
pub mod mirror;
pub mod notice;
pub mod pace;
pub mod part;
pub mod race;
pub mod redirect;
pub mod retry;
pub mod session;
mod spans;
pub mod stay;
pub mod streams;
pub mod tries;
pub mod upgrade;

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{EXPECT, HOST, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version, request};

use crate::config::types::{self, Protocol};
use crate::http1::spare;
use crate::instance::Kind;
use crate::instance::body::{Bounds, Incoming, Upload};
use crate::instance::roster::count;
use crate::memory::apart;
use crate::proxy::admission::{Found, Search};
use crate::proxy::answer::AnswerBody;
use crate::proxy::client::Came;
use crate::proxy::error::Reason;
use crate::proxy::exchange::Exchange;
use crate::proxy::forward::Answer;
use crate::proxy::headers::{BadRequest, Fields, hops};
use crate::proxy::notice::Notice;
use crate::proxy::race::Question;
use crate::proxy::session::{Session, Visit};
use crate::proxy::tries::{Next, Tries};
use crate::proxy::upgrade::Upgrade;
use crate::snapshot::{Branch, Service, Snapshot};
use crate::turn;

/// Answers one request. Whatever happens, the client gets an answer and the log a line.
pub fn handle(
    came: Came,
    request: Request<Option<Incoming>>,
) -> impl Future<Output = Response<AnswerBody>> + Send {
    let mut exchange = Exchange::begin(came, &request);
    let (mut head, incoming) = request.into_parts();
    // Lent, since a future keeps what it is given twice: as it came, and as it is used.
    async move {
        let response = match pass(&mut exchange, &mut head, incoming).await {
            Ok((answer, notice)) => answer::respond(exchange, answer, notice),
            Err(Stop::Refused(reason)) => {
                answer::refuse(exchange, reason, grpc::asks(&head.headers))
            }
            Err(Stop::Last(echo)) => answer::last(exchange, echo),
            Err(Stop::Elsewhere(to)) => {
                answer::redirect(exchange, to.status, to.location, "redirect")
            }
        };
        spare::give(head.headers);
        response
    }
}

/// What an answer came from, and what the client must be told of its session.
type Passed = (Answer, Option<Box<Notice>>);

/// Why Burdock answers by itself.
enum Stop {
    Refused(Reason),
    /// The request may go no further (RFC 9110 section 7.6.2): this is its echo, if it is a TRACE.
    Last(Bytes),
    /// The client is to ask there.
    Elsewhere(Box<Elsewhere>),
}

/// Where a client is sent.
struct Elsewhere {
    status: StatusCode,
    location: HeaderValue,
}

impl<Why: Into<Reason>> From<Why> for Stop {
    fn from(why: Why) -> Self {
        Self::Refused(why.into())
    }
}

async fn pass(
    exchange: &mut Exchange,
    head: &mut request::Parts,
    incoming: Option<Incoming>,
) -> Result<Passed, Stop> {
    let snapshot = exchange.client.live.snapshot();
    let (service, fields, upgrade) = examine(exchange, &snapshot, head, incoming.is_some())?;
    let (version, roster) = (service.version(), &service.roster);
    turn::next().await;
    let mut session = recognise(exchange, &snapshot, service, head, fields, upgrade.as_ref());
    let kept_in_all = snapshot.config.client_limits.retry_memory;
    let upload = upload(exchange, head, fields, incoming, (version, kept_in_all))?;
    exchange.upload.clone_from(&upload);
    mirror::reflect(exchange, &snapshot, service, head, upload.as_ref());

    let upload = upload.as_ref();
    let (worker, came) = (exchange.client.worker, exchange.started);
    let search = Search { roster, version, worker, came };
    let mut found = admission::look(&session, search, &[], Reason::NoInstance);
    let introduction = version.proxy_protocol.map(|it| exchange.introduction(it));
    let mut tries = Tries::new(search, introduction);
    let (instance, mut answer) = loop {
        let place = match found {
            Found::Place(place) => Ok(place),
            Found::Full => {
                exchange.has_waited = true;
                apart(|| tries.wait(&mut session)).await
            }
            Found::Nobody(reason) => Err(reason),
        };
        let place = place.inspect_err(|_| exchange.affinity = session.unserved())?;
        let mut attempt = tries.attempt(&session, &place, exchange, upload);
        let began = exchange.began();
        attempt.traceparent = exchange.attempt(place, began);
        let question = Question::watched(worker, head, upgrade.as_ref(), &tries, &attempt);
        // What is rare and large is apart: the future of every request carries the rest.
        let (instance, result) = match (question, &upgrade) {
            (Some(question), _) => {
                apart(|| race::run(question, attempt, exchange, &mut tries, &session)).await
            }
            (None, Some(to)) => {
                let result = apart(|| attempt.upgrade(worker, head, to)).await;
                (attempt.instance, result)
            }
            (None, None) => {
                let result = attempt.send(worker, head, began).await;
                (attempt.instance, result)
            }
        };
        let next = match result {
            Ok(answer) => {
                let status = answer.response.status();
                exchange.succeeded(status);
                if tries.contents(head, status, upload) {
                    break (instance, answer);
                }
                tries.answered(exchange, &mut session, instance, answer)
            }
            Err(failure) => tries.failed(exchange, &mut session, head, instance, failure)?,
        };
        match next {
            Next::Try(next) => found = next,
            Next::Pass(passed) => break *passed,
        }
    };
    exchange.affinity = session.outcome();
    let (notice, mark) = session.settle(&instance, worker, answer.response.headers_mut());
    exchange.session = mark;
    let notice = notice.or_else(|| notice::of_sid(service, &instance, head, &answer.response));
    Ok(finish(exchange, service, answer, notice))
}

/// Whose request it is and what it asks for, if it may.
fn examine<'a>(
    exchange: &mut Exchange,
    snapshot: &'a Snapshot,
    head: &mut request::Parts,
    has_body: bool,
) -> Result<(&'a Service, Fields, Option<Upgrade>), Stop> {
    exchange.connect = http2::translate(head);
    let fields = Fields::of(&head.headers);
    tell_as(exchange, snapshot, head);
    vet(snapshot, head, fields)?;
    let service = prepare(exchange, snapshot, head)?;
    let (version, roster) = (service.version(), &service.roster);
    roster.budget.earn(&version.retry);
    if let Some(limit) = &version.rate_limit {
        admission::restrain(exchange, snapshot, head, roster, limit)?;
    }
    check_hops(head, has_body)?;
    let upgrade = asked_upgrade(exchange, head, fields, service, has_body)?;
    Ok((service, fields, upgrade))
}

/// Does to an answer what its route says, and tells the client of its number in a split.
fn finish(
    exchange: &Exchange,
    service: &Service,
    mut answer: Answer,
    mut notice: Option<Box<Notice>>,
) -> Passed {
    if let Some(part) = exchange.part {
        let route = &service.settings().routes[usize::from(part)];
        let status = answer.response.status();
        let headers = answer.response.headers_mut();
        // What the instance's `Connection` names may be set here all the same.
        headers::to_client(headers, status);
        part::edit(headers, &route.response_headers);
    }
    if let Some((_, Some(number))) = exchange.lot {
        notice.get_or_insert_default().number(service.settings(), number, exchange.https);
    }
    (answer, notice)
}

/// Takes over what a configuration says of logs and traces.
fn tell_as(exchange: &mut Exchange, snapshot: &Snapshot, head: &mut request::Parts) {
    exchange.log_as(snapshot, Some(&head.headers));
    spans::trace(exchange, snapshot, head);
}

/// Refuses what has more than one meaning, or more than clients may send.
fn vet(snapshot: &Snapshot, head: &request::Parts, fields: Fields) -> Result<(), Reason> {
    let config = &snapshot.config;
    headers::check(head, fields, config.forwarding.via.as_ref())?;
    admission::bound(head, &config.client_limits)
}

/// Reads the session of a request, and gives its head the fields that instances get.
fn recognise<'a>(
    exchange: &mut Exchange,
    snapshot: &'a Snapshot,
    service: &'a Service,
    head: &mut request::Parts,
    fields: Fields,
    upgrade: Option<&Upgrade>,
) -> Session<'a> {
    mirror::unmark(service, head);
    let origin = exchange.client.origin(snapshot, head.version);
    let kind = if upgrade.is_some() { Kind::Tunnel } else { Kind::Request };
    let of_one_client = exchange.client.is_stream() && !origin.trusted;
    let stream = of_one_client.then(|| Arc::clone(&exchange.client));
    let (https, client) = (exchange.https, exchange.address());
    let visit = Visit { https, kind, client, stream, fields, only_asks: false };
    let session = Session::read(snapshot, service, head, visit);
    if exchange.lot.is_some() {
        session::take_others(snapshot.branch_of(service), service, head, fields);
    }
    let forwarding = &snapshot.config.forwarding;
    let new_id = exchange::new_request_id;
    let protocol = upgrade.map(Upgrade::name);
    exchange.request_id =
        headers::to_instance(&mut head.headers, fields, forwarding, origin, protocol, new_id);
    if let Some(part) = exchange.part {
        let route = &service.settings().routes[usize::from(part)];
        part::edit(&mut head.headers, &route.request_headers);
    }
    // `Connection` may have named what was told of it.
    vouch(exchange, head);
    session
}

/// Holds a request to how far it may go.
fn check_hops(head: &mut request::Parts, has_body: bool) -> Result<(), Stop> {
    let traces = head.method == Method::TRACE;
    // RFC 9110 section 9.3.8: a TRACE has no content.
    if traces && has_body {
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
    has_body: bool,
) -> Result<Option<Upgrade>, Reason> {
    // With a body it is no opening handshake that anybody knows, but a request like any other.
    let upgrade = match has_body {
        false => {
            let allowed = &service.version().upgrades;
            Upgrade::asked(head, fields, allowed, exchange.connect.is_some())
        }
        true => None,
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
    incoming: Option<Incoming>,
    (version, kept_in_all): (&types::Version, u64),
) -> Result<Option<Upload>, Reason> {
    // RFC 9110 section 10.1.1: without a body, and in HTTP/1.0, nobody waits for a 100. hyper sends none
    // on a stream, and what a client sends without one is taken all the same.
    let waits = incoming.is_some() && head.version == Version::HTTP_11;
    if fields.has(Fields::EXPECT) && !waits {
        head.headers.remove(EXPECT);
    }
    let Some(incoming) = incoming else { return Ok(None) };
    let most = version.limits.max_body;
    // A length that is told before need not be waited for.
    if most.is_some_and(|most| incoming.size_hint().lower() > most) {
        return Err(Reason::BodyTooLarge);
    }
    // Once some of its body was sent, only an idempotent request is ever tried again.
    // On a stream any may be: an instance can say that it has not looked at it.
    let is_kept = head.method.is_idempotent() || version.protocol == Protocol::Http2;
    let limit = if is_kept { version.retry.max_body } else { 0 };
    let hold = Box::new(exchange.client.stay_busy());
    let live = Arc::clone(&exchange.client.live);
    // By the configuration as it is when they come, which is hardly ever.
    let trim = move |trailers: &mut HeaderMap| {
        headers::trim_trailers(trailers, &live.snapshot().certificate_fields);
    };
    let bounds = Bounds {
        trim: Box::new(trim),
        kept: limit,
        most,
        kept_in_all,
        idle: version.timeouts.idle,
        slowest: version.limits.min_upload,
    };
    let ledger = &exchange.client.live.kept;
    Ok(Some(Upload::new(incoming, bounds, ledger, exchange.started, hold)))
}

/// Routes a request and gives its head the form in which instances get it.
fn prepare<'a>(
    exchange: &mut Exchange,
    snapshot: &'a Snapshot,
    head: &mut request::Parts,
) -> Result<&'a Service, Stop> {
    let origin = exchange.client.origin(snapshot, head.version);
    let trusted = &snapshot.config.trusted_proxies;
    let address = headers::client_address(&head.headers, origin, trusted);
    exchange.told = (address != origin.peer).then(|| address.to_string().into());
    exchange.https = headers::is_https(&head.headers, origin);
    headers::check_scheme(head, exchange.https)?;
    if !snapshot.certificate_fields.is_empty() {
        headers::remove_alike(&mut head.headers, &snapshot.certificate_fields);
    }
    vouch(exchange, head);
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
    // RFC 9113 section 8.3.1: it begins with a slash, though a query may be all there is. Written as
    // text it has one, but HTTP/2 takes it as it is.
    if let Some(query) = head.uri.path_and_query().filter(|it| it.as_str().starts_with('?')) {
        let whole = Uri::try_from(query.to_string());
        head.uri = whole.map_err(|_unclear| Reason::BadRequest)?;
    }
    exchange.host = head.headers.get(HOST).cloned();
    let host = exchange.host.as_ref().and_then(|host| host.to_str().ok()).unwrap_or_default();
    let found = snapshot.service(host, head.uri.path()).map_err(Reason::from)?;
    let (branch, part) = (found.branch, found.part);
    let service = match branch.only() {
        Some(service) => service,
        None => draw(exchange, snapshot, branch, head, (address, origin.trusted)),
    };
    exchange.roster = Some(Arc::clone(&service.roster));
    if !service.access().admits(address) {
        return Err(Reason::Denied.into());
    }
    if let Some((index, prefix)) = part {
        let route = &service.settings().routes[usize::from(index)];
        treat(exchange, head, (route, prefix))?;
        exchange.part = Some(index);
    }
    if let Some((by, _)) = exchange.lot {
        count(&service.roster.tally.split[by as usize]);
    }
    exchange.idle_timeout = service.version().timeouts.idle;
    let slowest = service.version().limits.min_download;
    exchange.client.allow_idle(exchange.idle_timeout, slowest);
    Ok(service)
}

/// Sends its client elsewhere, or gives it the path that instances get, as the route says by which it came.
fn treat(
    exchange: &Exchange,
    head: &mut request::Parts,
    (route, prefix): (&types::Route, &str),
) -> Result<(), Stop> {
    if let Some(redirect) = &route.redirect {
        let host = exchange.host.as_ref().and_then(|host| host.to_str().ok()).unwrap_or_default();
        let came = (exchange.https, host);
        let (status, location) = part::elsewhere(redirect, prefix, head, came)?;
        return Err(Stop::Elsewhere(Box::new(Elsewhere { status, location })));
    }
    match &route.rewrite_prefix {
        Some(to) => Ok(part::rewrite(head, prefix, to)?),
        None => Ok(()),
    }
}

/// To which version it goes.
fn draw<'a>(
    exchange: &mut Exchange,
    snapshot: &'a Snapshot,
    branch: Branch<'a>,
    head: &request::Parts,
    (address, is_shared): (IpAddr, bool),
) -> &'a Service {
    let stream = (exchange.client.is_stream() && !is_shared).then_some(&**exchange.client);
    let lot = session::draw(snapshot, branch, head, address, stream);
    exchange.lot = Some((lot.by, lot.number));
    lot.service
}

/// Tells of the client's certificate.
fn vouch(exchange: &Exchange, head: &mut request::Parts) {
    if let Some(session) = &exchange.client.arrival.session {
        for (name, value) in &session.certificate {
            head.headers.insert(name, value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each request in flight has one: what is rare is boxed.
    #[test]
    fn the_future_of_a_request_stays_small() {
        fn size<F: Future>(_: fn(Came, Request<Option<Incoming>>) -> F) -> usize {
            size_of::<F>()
        }
        assert!(size(handle) <= 1152, "{} bytes", size(handle));
    }
}
