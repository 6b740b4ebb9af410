//! The answer on its way to the client: an instance's, passed on as it comes, or Burdock's own.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER,
    STRICT_TRANSPORT_SECURITY,
};
use http::{Response, StatusCode, response};
use http_body::{Body, Frame, SizeHint};
use tokio::task::AbortHandle;

use crate::instance::body::Upload;
use crate::instance::http1::dialog::BrokenOff;
use crate::instance::relay;
use crate::instance::trunk::Sending;
use crate::instance::{Distress, InFlight, Instance};
use crate::observe::counters::TunnelEnd;
use crate::proxy::coming::Coming;
use crate::proxy::error::Reason;
use crate::proxy::exchange::Exchange;
use crate::proxy::forward::{Answer, Origin};
use crate::proxy::grpc;
use crate::proxy::headers;
use crate::proxy::http2;
use crate::proxy::notice::{Listener, Notice};
use crate::proxy::upgrade::Opening;
use crate::tunnel::registry::Entry;

/// Why an answer broke off; the client's connection is cut, so that it can tell.
#[derive(Debug, thiserror::Error)]
#[error("the answer broke off: {}", .0.label())]
pub struct Broken(Reason);

/// The body of an answer.
#[derive(Debug)]
pub enum AnswerBody {
    /// Burdock's own few words; the account closes with it.
    Own(Option<Bytes>),
    /// What an instance sends.
    Passed(Box<Passed>),
}

/// What drives the connection that an answer comes by.
#[derive(Debug)]
enum Way {
    /// Whoever takes the answer; whether another request may follow.
    Here(bool),
    /// The task of the connection, which others share.
    Shared,
    /// A task of its own: a client that takes none of an early answer may still be sending.
    Apart(AbortHandle),
    /// Nothing any more.
    Over,
}

/// What to wait for while the instance is silent.
type Patience = Pin<Box<dyn Future<Output = Reason> + Send>>;

/// An instance's body, with the account it is on.
pub struct Passed {
    incoming: Coming,
    way: Way,
    exchange: Box<Exchange>,
    idle: Duration,
    /// Says when a stream of events must end, which nothing else would.
    stream: Option<Arc<Entry>>,
    /// Hears its beginning.
    listener: Option<Box<Listener>>,
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
    notice: Option<Box<Notice>>,
) -> Response<AnswerBody> {
    let (mut head, mut incoming) = answer.response.into_parts();
    if exchange.connect.is_some() && head.status == StatusCode::SWITCHING_PROTOCOLS {
        http2::granted(&mut head);
    }
    exchange.answered(head.status);
    headers::to_client(&mut head.headers, head.status);
    insist(&exchange, &mut head.headers);
    let listener = notice.and_then(|notice| notice.put(&mut head.headers, head.status));
    let unsent = exchange.unsent();
    // RFC 9110 section 10.1.1: the client waits for a 100 that no longer comes, and must not be
    // taken at its word about a body that it may or may not send.
    if let Some(upload) = unsent.as_ref().filter(|upload| !upload.progress().begun) {
        upload.abandon();
        head.headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if head.status != StatusCode::SWITCHING_PROTOCOLS && exchange.client.is_leaving() {
        head.headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    let way = match (answer.origin, unsent) {
        (Origin::Kept | Origin::Spent, Some(upload)) => part(&mut incoming, upload),
        (Origin::Stream(Some(sending)), _) => {
            let upload = exchange.upload.clone();
            Way::Apart(tokio::spawn(send_on(sending, upload)).abort_handle())
        }
        (Origin::Stream(None), _) => Way::Shared,
        (Origin::Kept, None) => Way::Here(true),
        (Origin::Spent, None) => Way::Here(false),
        (Origin::Raw(raw), _) => {
            Box::new(Opening { raw, exchange }).begin();
            return assemble(head, AnswerBody::Own(None));
        }
    };
    let stream = headers::is_event_stream(&head.headers).then(|| exchange.enter_stream()).flatten();
    assemble(head, pass(exchange, incoming, way, (stream, listener)))
}

/// RFC 6797 section 7.1: an answer by https says that the next request must be, too. What the
/// instance says of it goes first.
fn insist(exchange: &Exchange, headers: &mut HeaderMap) {
    let session = exchange.client.arrival.session.as_ref();
    if let Some(hsts) = session.and_then(|session| session.hsts.as_ref()) {
        headers.entry(STRICT_TRANSPORT_SECURITY).or_insert_with(|| hsts.clone());
    }
}

fn assemble(mut head: response::Parts, body: AnswerBody) -> Response<AnswerBody> {
    let mut response = Response::new(body);
    *response.status_mut() = head.status;
    *response.headers_mut() = head.headers;
    if let Some(phrase) = head.extensions.remove::<hyper::ext::ReasonPhrase>() {
        response.extensions_mut().insert(phrase);
    }
    response
}

/// Leaves the connection of an answer to a task, which sends what is left of the request.
fn part(incoming: &mut Coming, upload: Upload) -> Way {
    let Coming::Http1(link) = std::mem::replace(incoming, Coming::Own(None)) else {
        return Way::Over;
    };
    let (relay, going) = relay::part(link);
    *incoming = Coming::Relayed(Box::new(relay));
    Way::Apart(tokio::spawn(send_rest(going, upload)).abort_handle())
}

/// Sends what is left of a body whose answer has begun, for as long as it moves.
async fn send_rest(going: impl Future<Output = ()>, upload: Upload) {
    let stuck = async {
        while !upload.is_sent() {
            let Some(left) = upload.patience() else { return };
            pingora_timeout::sleep(left).await;
        }
        std::future::pending().await
    };
    tokio::select! {
        () = going => {}
        () = stuck => {}
    }
}

/// The same on a stream, which is reset when it stands still for too long.
async fn send_on(sending: Box<Sending>, upload: Option<Upload>) {
    let stuck = async {
        while let Some(left) = upload.as_ref().and_then(Upload::patience) {
            pingora_timeout::sleep(left).await;
        }
    };
    tokio::select! {
        _ = sending => {}
        () = stuck => {}
    }
}

fn pass(
    exchange: Box<Exchange>,
    incoming: Coming,
    way: Way,
    (stream, listener): (Option<Arc<Entry>>, Option<Box<Listener>>),
) -> AnswerBody {
    let mut passed = Box::new(Passed {
        incoming,
        way,
        idle: exchange.idle_timeout,
        exchange,
        stream,
        listener,
        patience: None,
        broken: None,
        finished: false,
    });
    if passed.incoming.is_end_stream() {
        passed.finish();
    }
    AnswerBody::Passed(passed)
}

/// Answers in the place of an instance to a request that may go no further, with its echo if it is to
/// have one.
pub fn last(mut exchange: Box<Exchange>, echo: Bytes) -> Response<AnswerBody> {
    exchange.answered(StatusCode::OK);
    exchange.sent = echo.len() as u64;
    let kind = (!echo.is_empty()).then(|| HeaderValue::from_static("message/http"));
    let mut response = Response::new(AnswerBody::Own(Some(echo)));
    let headers = response.headers_mut();
    headers.extend(kind.map(|kind| (CONTENT_TYPE, kind)));
    insist(&exchange, headers);
    if exchange.client.is_leaving() {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Answers with a reason instead of an instance's answer.
pub fn refuse(mut exchange: Box<Exchange>, reason: Reason, is_grpc: bool) -> Response<AnswerBody> {
    exchange.refused(reason);
    let unread = exchange.unsent().is_some();
    let leaving = exchange.client.is_leaving();
    // Without a status nobody is there to read the answer, but for a client that only sends no more.
    let status = reason.outward().1.unwrap_or(StatusCode::BAD_REQUEST);
    let retry_after = exchange.retry_after;
    let mut response = match is_grpc {
        true => {
            exchange.answered(StatusCode::OK);
            let mut response = Response::new(AnswerBody::Own(None));
            grpc::refuse(response.headers_mut(), reason);
            insist(&exchange, response.headers_mut());
            response
        }
        false => own(&mut exchange, status, reason.label()),
    };
    let headers = response.headers_mut();
    // After a request that is not understood, or not read to its end, nobody knows where the next
    // one begins.
    let unclear = status.is_client_error() || status == StatusCode::NOT_IMPLEMENTED;
    let is_understood = matches!(
        reason,
        Reason::NoService | Reason::Denied | Reason::UriTooLong | Reason::RateLimited
    );
    if unread || leaving || (unclear && !is_understood) {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
        headers.insert(RETRY_AFTER, HeaderValue::from(retry_after));
    }
    response
}

/// Sends the client elsewhere.
pub fn redirect(
    mut exchange: Box<Exchange>,
    status: StatusCode,
    location: HeaderValue,
    label: &str,
) -> Response<AnswerBody> {
    exchange.answered(status);
    let mut response = own(&mut exchange, status, label);
    response.headers_mut().insert(LOCATION, location);
    response
}

/// What a CA asks for, to the byte.
pub fn proof(mut exchange: Box<Exchange>, proof: String) -> Response<AnswerBody> {
    exchange.answered(StatusCode::OK);
    exchange.sent = proof.len() as u64;
    let mut response = Response::new(AnswerBody::Own(Some(Bytes::from(proof))));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    insist(&exchange, headers);
    response
}

/// A few words of Burdock's own.
fn own(exchange: &mut Exchange, status: StatusCode, label: &str) -> Response<AnswerBody> {
    let text = format!("{} {label}\n", status.as_u16());
    exchange.sent = text.len() as u64;
    let mut response = Response::new(AnswerBody::Own(Some(Bytes::from(text))));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    insist(exchange, headers);
    response
}

impl Passed {
    /// The whole body has come: the connection can take the next request. A body that is still on
    /// its way to the instance goes on by itself.
    fn finish(&mut self) {
        self.finished = true;
        self.patience = None;
        self.stream = None;
        let Way::Here(reuse) = std::mem::replace(&mut self.way, Way::Over) else { return };
        let Coming::Http1(mut link) = std::mem::replace(&mut self.incoming, Coming::Own(None))
        else {
            return;
        };
        let rests = link.rests();
        if let Some(in_flight) = self.exchange.in_flight().filter(|_| rests && reuse) {
            in_flight.lane().pool.give(link, Instant::now());
        } else if !rests && self.exchange.upload.is_some() {
            // Its last part may not be written yet.
            let sent = async move { poll_fn(|cx| link.poll_send(cx)).await };
            tokio::spawn(tokio::time::timeout(self.idle, sent));
        }
    }

    /// Lets the connection go, whatever is still on its way.
    fn leave(&mut self) {
        self.stream = None;
        if let Way::Apart(task) = std::mem::replace(&mut self.way, Way::Over) {
            task.abort();
        }
    }

    /// Ends a stream of events between two of its chunks, as its instance would: the client's
    /// library connects anew by itself.
    fn end_stream(&mut self, end: TunnelEnd) {
        self.leave();
        self.finished = true;
        self.patience = None;
        self.exchange.ended = Some(end);
    }

    /// What has come so far goes out first: hyper drops what it holds when a body fails.
    fn break_off(&mut self, reason: Reason, cx: &Context<'_>) {
        self.leave();
        self.patience = None;
        self.exchange.error = Some(reason);
        self.broken = Some(reason);
        cx.waker().wake_by_ref();
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if let Some(reason) = self.broken.take() {
            self.finished = true;
            return Poll::Ready(Some(Err(Broken(reason))));
        }
        if let Some(end) = self.stream.as_ref().and_then(|entry| entry.order(cx.waker())) {
            self.end_stream(end);
            return Poll::Ready(None);
        }
        self.exchange.client.keeps_up(None);
        if let Way::Over = self.way {
            return Poll::Ready(None);
        }
        match self.incoming.poll_frame(cx) {
            Poll::Ready(Some(Ok(mut frame))) => {
                self.patience = None;
                if let Some(trailers) = frame.trailers_mut() {
                    headers::trim_trailers(trailers, &[]);
                }
                let size = frame.data_ref().map_or(0, |data| data.len() as u64);
                self.exchange.client.keeps_up(Some(size));
                self.exchange.sent += size;
                if let (Some(listener), Some(data)) = (&mut self.listener, frame.data_ref())
                    && !listener.hear(data)
                {
                    self.listener = None;
                }
                // Nobody asks what follows trailers: nothing can.
                if frame.is_trailers() || self.incoming.is_end_stream() {
                    self.finish();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(None) => {
                self.finish();
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(BrokenOff))) => {
                self.break_off(Reason::ResponseBroken, cx);
                Poll::Pending
            }
            Poll::Pending => {
                let (idle, exchange) = (self.idle, &self.exchange);
                let patience = self
                    .patience
                    .get_or_insert_with(|| patience(idle, exchange.in_flight(), exchange.unsent()));
                if let Poll::Ready(reason) = patience.as_mut().poll(cx) {
                    self.break_off(reason, cx);
                }
                Poll::Pending
            }
        }
    }
}

/// Ends when the instance has been silent for too long, or is dead. It may be silent for as long as
/// it takes in a body.
fn patience(idle: Duration, in_flight: Option<&InFlight>, unsent: Option<Upload>) -> Patience {
    let instance = in_flight.map(|guard| (Arc::clone(guard.instance()), guard.worker()));
    Box::pin(async move {
        let death = async {
            match &instance {
                Some((instance, worker)) => death(instance, *worker).await,
                None => std::future::pending().await,
            }
        };
        let silence = async {
            let mut left = Some(idle);
            while let Some(rest) = left {
                pingora_timeout::sleep(rest).await;
                left = unsent.as_ref().and_then(Upload::patience);
            }
        };
        tokio::select! {
            () = silence => Reason::ResponseIdleTimeout,
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
        if !self.finished {
            self.leave();
            self.exchange.error.get_or_insert_with(|| self.exchange.client.gone());
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
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
