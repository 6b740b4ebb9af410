//! One attempt: a request goes to one instance, and the head of an answer comes back.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::HeaderValue;
use http::{Response, StatusCode, Version, request};
use tokio::sync::Notify;

use crate::config::types::{self, Condition, Protocol};
use crate::instance::body::{RequestBody, Upload};
use crate::instance::http1::dialog::Failed;
use crate::instance::http1::request::Outgoing;
use crate::instance::link::Link;
use crate::instance::pool;
use crate::instance::stream::OpenError;
use crate::instance::trunk::Sending;
use crate::instance::{Distress, InFlight, Instance, Interim, Roster};
use crate::memory::apart;
use crate::proxy::client::Client;
use crate::proxy::coming::Coming;
use crate::proxy::headers;
use crate::proxy::retry::{self, Failure, Sent};
use crate::proxy::upgrade::Raw;
use crate::proxy_protocol::Introduction;
use crate::turn;

/// The head of an answer, and what its body comes by.
#[derive(Debug)]
pub struct Answer {
    /// Head and body.
    pub response: Response<Coming>,
    /// What it comes by.
    pub origin: Origin,
}

/// What an answer comes by.
#[derive(Debug)]
pub enum Origin {
    /// A connection of its own, which can take another request when the body has been read.
    Kept,
    /// One that can't.
    Spent,
    /// A stream of one that takes many, and what is still to be sent on it.
    Stream(Option<Box<Sending>>),
    /// One that switched protocols.
    Raw(Raw),
}

/// The most that is read of an answer that nobody wants, so that its connection can be kept.
const MAX_UNWANTED: usize = 16 * 1024;

impl Answer {
    /// Another one is passed on. What it came by goes back to the pool of `place` if its body is
    /// small and here already; else it is closed.
    pub fn discard(self, place: &InFlight) {
        let Origin::Kept = self.origin else { return };
        let Coming::Http1(mut link) = self.response.into_body() else { return };
        let mut left = MAX_UNWANTED;
        let mut nobody = Context::from_waker(Waker::noop());
        while !link.is_end_stream() {
            let Poll::Ready(polled) = link.poll_frame(&mut nobody) else { return };
            let size = match polled {
                Some(Ok(frame)) => frame.data_ref().map_or(0, Bytes::len),
                Some(Err(_broken)) => return,
                None => break,
            };
            match left.checked_sub(size) {
                Some(rest) => left = rest,
                None => return,
            }
        }
        if link.rests() {
            place.lane().pool.give(link, Instant::now());
        }
    }
}

/// What an attempt is made with.
#[derive(Debug, Clone)]
pub struct Attempt<'a> {
    /// Where to.
    pub instance: Arc<Instance>,
    /// Who else could do it.
    pub roster: &'a Roster,
    /// The limits.
    pub version: &'a types::Version,
    /// Whether the client named a host.
    pub has_host: bool,
    /// The body.
    pub upload: Option<&'a Upload>,
    /// Whether `retry.per_try_timeout` bounds the wait for a connection too.
    pub hurries: bool,
    /// What the instance is told of the client by its connection.
    pub introduction: Option<Arc<Introduction>>,
    /// What the instance is told of the trace, if there is one.
    pub traceparent: Option<Box<HeaderValue>>,
    /// Who gets interim answers, if anybody does.
    pub client: Option<Arc<Client>>,
}

impl Attempt<'_> {
    /// Sends the request and waits for the head of an answer.
    ///
    /// A kept connection that turns out to be closed says nothing of the instance: the request
    /// goes out once more on a new connection to the same one, where that is safe.
    pub async fn send(
        &self,
        worker: usize,
        head: &request::Parts,
        now: Instant,
    ) -> Result<Answer, Failure> {
        match self.version.protocol {
            Protocol::Http1 => {}
            Protocol::Http2 => return apart(|| self.send_stream(worker, head)).await,
        }
        // Before a kept connection is looked at, not after: it stands when the request goes out.
        turn::next().await;
        let replayable = head.method.is_idempotent() && self.replayable();
        let pool = &self.instance.lane(worker).pool;
        if let Some(link) = pool.take(now, replayable, self.introduction.as_deref()) {
            match self.exchange(head, link, now).await {
                Err(failure @ Failure::Reset(_))
                    if retry::is_safe(&head.method, failure, self.replayable()) => {}
                result => return result,
            }
        }
        let link = apart(|| self.connect(worker)).await?;
        self.exchange(head, link, Instant::now()).await
    }

    /// Opens a new connection.
    pub(super) async fn connect(&self, worker: usize) -> Result<Box<Link>, Failure> {
        let introduction = self.introduction.as_deref().copied();
        let opening = Link::open(&self.instance, worker, introduction);
        self.opened(worker, pin!(opening)).await
    }

    /// Waits for a connection that is being opened.
    pub(super) async fn opened<T>(
        &self,
        worker: usize,
        opening: Pin<&mut impl Future<Output = Result<T, OpenError>>>,
    ) -> Result<T, Failure> {
        self.wait(worker, opening).await?.map_err(|error| {
            tracing::debug!(instance = self.instance.address(), %error, "opening a connection failed");
            match error {
                OpenError::Connect(error) if pool::is_own_fault(&error) => Failure::NoSocket,
                OpenError::Connect(_) => Failure::Connect,
                OpenError::Tls(_) => Failure::Tls,
            }
        })
    }

    async fn exchange(
        &self,
        head: &request::Parts,
        mut link: Box<Link>,
        now: Instant,
    ) -> Result<Answer, Failure> {
        let response = self.ask(head, &mut link, now).await?;
        // RFC 9110 section 15.2.2: nobody asked to switch protocols.
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Err(Failure::InvalidResponse);
        }
        Ok(Answer { response: response.map(|()| Coming::Http1(link)), origin: Origin::Kept })
    }

    /// Sends the request on `link` and waits for the head of its answer, but not for ever.
    pub(super) async fn ask(
        &self,
        head: &request::Parts,
        link: &mut Link,
        now: Instant,
    ) -> Result<Response<()>, Failure> {
        let idempotent = head.method.is_idempotent();
        if let Some(failure) = self.distress(Sent::Nothing, idempotent) {
            return Err(failure);
        }
        let gate = self.gate(head);
        let body = match self.upload {
            Some(upload) => upload.attempt(gate.clone()),
            None => RequestBody::Empty,
        };
        // RFC 9110 section 15.2: HTTP/1.0 knows no interim answers. On a stream hyper sends none.
        let is_told = head.version == Version::HTTP_11;
        let interim = move |(status, fields): Interim| match &gate {
            // Its connection sends the client its own 100 when its body is asked for.
            Some(gate) if status == StatusCode::CONTINUE => gate.notify_one(),
            Some(_) | None => {
                if let Some(client) = self.client.as_ref().filter(|_| is_told) {
                    client.interim.put(status, fields);
                }
            }
        };
        let patience = self.patience(idempotent, now);
        link.begin(&self.outgoing(head), body);
        let answered = link.answer(interim, patience).await?;
        answered.map_err(|failed| match failed {
            Failed::Unsent => Failure::Reset(Sent::Nothing),
            Failed::Malformed => Failure::InvalidResponse,
            Failed::Refused => Failure::Tls,
            Failed::Cut => Failure::Reset(Sent::Something),
        })
    }

    /// Until when to wait for an answer to what is sent `now`, or why no longer; told whether that
    /// has passed.
    pub(super) fn patience(
        &self,
        idempotent: bool,
        now: Instant,
    ) -> impl FnMut(bool) -> Result<Instant, Failure> {
        let mut until = now + self.version.timeouts.first_byte;
        move |is_due| {
            if let Some(failure) = self.distress(Sent::Something, idempotent) {
                return Err(failure);
            }
            if is_due {
                let left = self.version.timeouts.first_byte.saturating_sub(waited(self.upload));
                if left.is_zero() {
                    return Err(Failure::FirstByteTimeout);
                }
                until = Instant::now() + left;
            }
            Ok(until)
        }
    }

    /// What opens when the instance asks for the body, if the client waits for that.
    fn gate(&self, head: &request::Parts) -> Option<Arc<Notify>> {
        let continued = self.upload.filter(|_| headers::expects_continue(&head.headers));
        continued.map(|_| Arc::new(Notify::new()))
    }

    /// The request of this attempt.
    fn outgoing<'a>(&'a self, head: &'a request::Parts) -> Outgoing<'a> {
        Outgoing {
            method: &head.method,
            target: &head.uri,
            fields: &head.headers,
            // A client of HTTP/1.0 may leave Host out.
            host: (!self.has_host).then(|| self.instance.address()),
            traceparent: self.traceparent.as_deref(),
        }
    }

    pub(super) fn replayable(&self) -> bool {
        self.upload.is_none_or(|upload| upload.progress().replayable)
    }

    /// Waits for a connection, but not for ever, and no longer when the instance is found to be out
    /// of reach.
    async fn wait<T>(
        &self,
        worker: usize,
        mut opening: Pin<&mut impl Future<Output = T>>,
    ) -> Result<T, Failure> {
        // Not one of pingora's: where nothing streams, their clock need not run.
        let mut timer = pin!(tokio::time::sleep(self.connect_timeout()));
        loop {
            // Listening begins before looking, so that nothing is missed in between.
            let alarmed = self.instance.lane(worker).alarmed();
            if let Some(failure) = self.distress(Sent::Nothing, false) {
                return Err(failure);
            }
            tokio::select! {
                biased;
                opened = opening.as_mut() => return Ok(opened),
                () = alarmed => {}
                () = timer.as_mut() => return Err(Failure::ConnectTimeout),
            }
        }
    }

    fn connect_timeout(&self) -> Duration {
        let connect = self.version.timeouts.connect;
        let per_try = self.version.retry.per_try_timeout.filter(|_| self.hurries);
        per_try.map_or(connect, |per_try| per_try.min(connect))
    }

    /// Dead ends the wait; unanswered probes do so if the request may go elsewhere, and there is an
    /// elsewhere.
    pub(super) fn distress(&self, sent: Sent, idempotent: bool) -> Option<Failure> {
        match self.instance.distress() {
            Distress::Dead => Some(Failure::Dead(sent)),
            Distress::Unanswered
                if (idempotent || sent == Sent::Nothing)
                    && self.replayable()
                    && retry::has_say(&self.version.retry, Condition::Unanswered)
                    && self.roster.has_others(&self.instance) =>
            {
                Some(Failure::Unanswered(sent))
            }
            Distress::Unanswered | Distress::Fine => None,
        }
    }
}

/// How long the instance has had, when the limit has passed once. Its time runs from when it last
/// took something of the body, and not while the client is waited for: neither a long upload nor a
/// slow client is a slow answer.
pub(super) fn waited(upload: Option<&Upload>) -> Duration {
    match upload.map(Upload::progress) {
        Some(progress) if progress.waiting => Duration::ZERO,
        Some(progress) => progress.asked.elapsed(),
        None => Duration::MAX,
    }
}
