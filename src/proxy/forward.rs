//! One attempt: a request goes to one instance, and the head of an answer comes back.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{HOST, HeaderValue};
use http::{Request, Response, StatusCode, request};
use hyper::body::Incoming;
use tokio::sync::Notify;

use crate::config::types::Version;
use crate::instance::body::{RequestBody, Upload};
use crate::instance::link::Link;
use crate::instance::pool;
use crate::instance::{Distress, Instance, Roster};
use crate::proxy::headers;
use crate::proxy::retry::{self, Failure, Sent};
use crate::proxy::upgrade::Raw;

/// The head of an answer, and what its body comes by.
#[derive(Debug)]
pub struct Answer {
    /// Head and body.
    pub response: Response<Incoming>,
    /// What it comes by.
    pub origin: Origin,
}

/// What an answer comes by.
#[derive(Debug)]
pub enum Origin {
    /// A connection that can take another request when the body has been read.
    Kept(Box<Link>),
    /// One that can't.
    Spent(Box<Link>),
    /// One that switched protocols.
    Raw(Raw),
}

/// What an attempt is made with.
#[derive(Debug, Clone, Copy)]
pub struct Attempt<'a> {
    /// Where to.
    pub instance: &'a Arc<Instance>,
    /// Who else could do it.
    pub roster: &'a Roster,
    /// The limits.
    pub version: &'a Version,
    /// Whether the client named a host.
    pub has_host: bool,
    /// The body.
    pub upload: Option<&'a Upload>,
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
        let replayable = head.method.is_idempotent() && self.replayable();
        let pool = &self.instance.lane(worker).pool;
        if let Some(link) = pool.take(now, replayable) {
            match self.exchange(worker, head, link).await {
                Err(failure @ Failure::Reset(_))
                    if retry::allowed(&head.method, failure, self.replayable()) => {}
                result => return result,
            }
        }
        let link = Box::pin(self.connect(worker)).await?;
        self.exchange(worker, head, link).await
    }

    /// Opens a new connection.
    pub(super) async fn connect(&self, worker: usize) -> Result<Box<Link>, Failure> {
        let opening = pin!(Link::open(self.instance.address()));
        let patience = Patience {
            sent: Sent::Nothing,
            idempotent: false,
            limit: self.version.timeouts.connect,
            late: Failure::ConnectTimeout,
        };
        self.wait(worker, patience, opening).await?.map_err(|error| {
            tracing::debug!(instance = self.instance.address(), %error, "connecting failed");
            if pool::is_own_fault(&error) { Failure::NoSocket } else { Failure::Connect }
        })
    }

    async fn exchange(
        &self,
        worker: usize,
        head: &request::Parts,
        mut link: Box<Link>,
    ) -> Result<Answer, Failure> {
        let response = self.ask(worker, head, &mut link).await?;
        // RFC 9110 section 15.2.2: nobody asked to switch protocols.
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Err(Failure::InvalidResponse);
        }
        Ok(Answer { response, origin: Origin::Kept(link) })
    }

    /// Sends the request on `link` and waits for the head of its answer, but not for ever.
    pub(super) async fn ask(
        &self,
        worker: usize,
        head: &request::Parts,
        link: &mut Link,
    ) -> Result<Response<Incoming>, Failure> {
        let patience = Patience {
            sent: Sent::Something,
            idempotent: head.method.is_idempotent(),
            limit: self.version.timeouts.first_byte,
            late: Failure::FirstByteTimeout,
        };
        let answer = pin!(link.answer(self.request(head)));
        let answered = self.wait(worker, patience, answer).await?;
        let mut response = answered.map_err(|error| match error.message() {
            Some(_) => Failure::Reset(Sent::Nothing),
            None if error.error().is_parse() => Failure::InvalidResponse,
            None => Failure::Reset(Sent::Something),
        })?;
        match headers::settle_length(response.headers_mut()) {
            true => Ok(response),
            false => Err(Failure::InvalidResponse),
        }
    }

    /// The request of this attempt.
    fn request(&self, head: &request::Parts) -> Request<RequestBody> {
        let continued = self.upload.filter(|_| headers::expects_continue(&head.headers));
        let gate = continued.map(|_| Arc::new(Notify::new()));
        let body = match self.upload {
            Some(upload) => upload.attempt(gate.clone()),
            None => RequestBody::Empty,
        };
        let mut request = Request::new(body);
        *request.method_mut() = head.method.clone();
        *request.uri_mut() = head.uri.clone();
        *request.headers_mut() = head.headers.clone();
        // A client of HTTP/1.0 may leave Host out; HTTP/1.1 has none without (RFC 9112 section 3.2).
        if !self.has_host
            && let Ok(address) = HeaderValue::from_str(self.instance.address())
        {
            request.headers_mut().insert(HOST, address);
        }
        if let Some(gate) = gate {
            hyper::ext::on_informational(&mut request, move |answer| {
                if answer.status() == StatusCode::CONTINUE {
                    gate.notify_one();
                }
            });
        }
        request
    }

    fn replayable(&self) -> bool {
        self.upload.is_none_or(|upload| upload.progress().replayable)
    }

    /// Waits for the instance, but not for ever, and no longer when it is found to be out of reach.
    async fn wait<T>(
        &self,
        worker: usize,
        patience: Patience,
        mut answer: Pin<&mut impl Future<Output = T>>,
    ) -> Result<T, Failure> {
        let mut seen = Sent::Nothing;
        let mut timer = pin!(pingora_timeout::sleep(patience.limit));
        loop {
            // Listening begins before looking, so that nothing is missed in between.
            let alarmed = self.instance.lane(worker).alarmed();
            if let Some(failure) = self.distress(seen, patience.idempotent) {
                return Err(failure);
            }
            seen = patience.sent;
            tokio::select! {
                biased;
                answer = answer.as_mut() => return Ok(answer),
                () = alarmed => {}
                () = timer.as_mut() => {
                    let left = patience.limit.saturating_sub(self.waited(patience));
                    if left.is_zero() {
                        return Err(patience.late);
                    }
                    timer.set(pingora_timeout::sleep(left));
                }
            }
        }
    }

    /// Dead ends the wait; unanswered probes do so if the request may go elsewhere, and there is an
    /// elsewhere.
    fn distress(&self, sent: Sent, idempotent: bool) -> Option<Failure> {
        match self.instance.distress() {
            Distress::Dead => Some(Failure::Dead(sent)),
            Distress::Unanswered
                if (idempotent || sent == Sent::Nothing)
                    && self.replayable()
                    && self.roster.has_others(self.instance) =>
            {
                Some(Failure::Unanswered(sent))
            }
            Distress::Unanswered | Distress::Fine => None,
        }
    }

    /// How long the instance has had, when the limit has passed once. Its time runs from when it last
    /// took something of the body, and not while the client is waited for: neither a long upload nor
    /// a slow client is a slow answer.
    fn waited(&self, patience: Patience) -> Duration {
        match (patience.sent, self.upload.map(Upload::progress)) {
            (Sent::Something, Some(progress)) if progress.waiting => Duration::ZERO,
            (Sent::Something, Some(progress)) => progress.asked.elapsed(),
            (Sent::Nothing, _) | (_, None) => patience.limit,
        }
    }
}

/// How long an instance is waited for, and what it is taken for then.
#[derive(Debug, Clone, Copy)]
struct Patience {
    /// What it may have seen of the request.
    sent: Sent,
    /// Whether the request may go elsewhere after that.
    idempotent: bool,
    limit: Duration,
    late: Failure,
}
