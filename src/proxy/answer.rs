//! The answer on its way to the client: an instance's, passed on as it comes, or Burdock's own.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::affinity::cookie;
use crate::instance::link::Link;
use crate::instance::{Distress, InFlight, Instance};
use crate::proxy::error::Reason;
use crate::proxy::exchange::Exchange;
use crate::proxy::forward::{Answer, Origin};
use crate::proxy::headers;
use crate::proxy::upgrade::Opening;

/// Why an answer broke off; the client's connection is cut, so that it can tell.
#[derive(Debug, thiserror::Error)]
#[error("the answer broke off: {}", .0.label())]
pub struct BrokenOff(Reason);

/// The body of an answer.
#[derive(Debug)]
pub enum AnswerBody {
    /// Burdock's own few words; the account closes with it.
    Own(Option<Bytes>),
    /// What an instance sends.
    Passed(Box<Passed>),
}

/// What to wait for while the instance is silent.
type Patience = Pin<Box<dyn Future<Output = Reason> + Send>>;

/// An instance's body, with the account it is on.
pub struct Passed {
    incoming: Incoming,
    /// What it comes by; `None` once it has all come.
    link: Option<Box<Link>>,
    /// Whether that may take another request.
    reuse: bool,
    exchange: Box<Exchange>,
    idle: Duration,
    /// Runs only while nothing comes.
    patience: Option<Patience>,
    /// Why it breaks off, until the client's connection has been told.
    broken: Option<Reason>,
    finished: bool,
}

impl std::fmt::Debug for Passed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Passed").field("exchange", &self.exchange).finish_non_exhaustive()
    }
}

/// Passes an instance's answer on.
pub fn respond(
    mut exchange: Box<Exchange>,
    answer: Answer,
    set_cookie: Option<HeaderValue>,
) -> Response<AnswerBody> {
    let (mut head, incoming) = answer.response.into_parts();
    exchange.answered(head.status);
    headers::to_client(&mut head.headers, head.status);
    if let Some(set_cookie) = set_cookie {
        cookie::attach(&mut head.headers, set_cookie);
    }
    let body = match answer.origin {
        Origin::Kept(link) => pass(exchange, incoming, link, true),
        Origin::Spent(link) => pass(exchange, incoming, link, false),
        Origin::Raw(raw) => {
            let client = Arc::clone(&exchange.client);
            client.open(Box::new(Opening { raw, exchange }));
            AnswerBody::Own(None)
        }
    };
    let mut response = Response::new(body);
    *response.status_mut() = head.status;
    *response.headers_mut() = head.headers;
    if let Some(phrase) = head.extensions.remove::<hyper::ext::ReasonPhrase>() {
        response.extensions_mut().insert(phrase);
    }
    response
}

fn pass(exchange: Box<Exchange>, incoming: Incoming, link: Box<Link>, reuse: bool) -> AnswerBody {
    let mut passed = Box::new(Passed {
        incoming,
        link: Some(link),
        reuse,
        idle: exchange.idle_timeout,
        exchange,
        patience: None,
        broken: None,
        finished: false,
    });
    if passed.incoming.is_end_stream() {
        passed.finish();
    }
    AnswerBody::Passed(passed)
}

/// Answers with a reason instead of an instance's answer.
pub fn refuse(mut exchange: Box<Exchange>, reason: Reason) -> Response<AnswerBody> {
    exchange.refused(reason);
    // Without a status nobody is there to read the answer.
    let status = reason.outward().1.unwrap_or(StatusCode::BAD_GATEWAY);
    let text = format!("{} {}\n", status.as_u16(), reason.label());
    exchange.sent = text.len() as u64;
    let mut response = Response::new(AnswerBody::Own(Some(Bytes::from(text))));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    // After a request that is not understood, nobody knows where the next one begins.
    let unclear = status.is_client_error() || status == StatusCode::NOT_IMPLEMENTED;
    if unclear && status != StatusCode::NOT_FOUND {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

impl Passed {
    /// The whole body has come: the connection can take the next request.
    fn finish(&mut self) {
        self.finished = true;
        self.patience = None;
        let (Some(mut link), Some(in_flight)) = (self.link.take(), self.exchange.in_flight())
        else {
            return;
        };
        match link.rest() {
            true if self.reuse => in_flight.lane().pool.give(link, Instant::now()),
            true => {}
            // The client may still be sending: its answer came early.
            false => drop(tokio::spawn(link.finish())),
        }
    }

    /// What has come so far goes out first: hyper drops what it holds when a body fails.
    fn break_off(&mut self, reason: Reason, cx: &Context<'_>) {
        self.link = None;
        self.patience = None;
        self.exchange.error = Some(reason);
        self.broken = Some(reason);
        cx.waker().wake_by_ref();
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        if let Some(reason) = self.broken.take() {
            self.finished = true;
            return Poll::Ready(Some(Err(BrokenOff(reason))));
        }
        let Some(link) = &mut self.link else { return Poll::Ready(None) };
        match link.poll_frame(&mut self.incoming, cx) {
            Poll::Ready(Some(Ok(frame))) => {
                self.patience = None;
                self.exchange.sent += frame.data_ref().map_or(0, |data| data.len() as u64);
                if self.incoming.is_end_stream() {
                    self.finish();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(None) => {
                self.finish();
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(_broken))) => {
                self.break_off(Reason::ResponseBroken, cx);
                Poll::Pending
            }
            Poll::Pending => {
                let (idle, exchange) = (self.idle, &self.exchange);
                let patience =
                    self.patience.get_or_insert_with(|| patience(idle, exchange.in_flight()));
                if let Poll::Ready(reason) = patience.as_mut().poll(cx) {
                    self.break_off(reason, cx);
                }
                Poll::Pending
            }
        }
    }
}

/// Ends when the instance has been silent for too long, or is dead.
fn patience(idle: Duration, in_flight: Option<&InFlight>) -> Patience {
    let instance = in_flight.map(|guard| (Arc::clone(guard.instance()), guard.worker()));
    Box::pin(async move {
        let death = async {
            match &instance {
                Some((instance, worker)) => death(instance, *worker).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = pingora_timeout::sleep(idle) => Reason::ResponseIdleTimeout,
            () = death => Reason::InstanceDead,
        }
    })
}

async fn death(instance: &Instance, worker: usize) {
    loop {
        let alarmed = instance.lane(worker).alarmed();
        if instance.distress() == Distress::Dead {
            return;
        }
        alarmed.await;
    }
}

impl Drop for Passed {
    /// Dropped before its end, the client has gone away; the instance's connection goes too.
    fn drop(&mut self) {
        if !self.finished && self.exchange.error.is_none() {
            self.exchange.error = Some(self.exchange.client.gone());
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        match self.get_mut() {
            Self::Own(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Self::Passed(passed) => passed.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(text) => text.is_none(),
            Self::Passed(passed) => passed.finished,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(text) => {
                SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64))
            }
            Self::Passed(passed) => passed.incoming.size_hint(),
        }
    }
}
