//! One attempt by HTTP/2: the request goes out on a stream of a connection that others share.

use std::future::poll_fn;
use std::pin::pin;
use std::time::Instant;

use http::header::{CONNECTION, EXPECT, HOST, HeaderValue, TRANSFER_ENCODING};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, StatusCode, Uri, Version, request};

use crate::instance::body::RequestBody;
use crate::instance::trunk::{self, Answering, Begun, Seat, Trunk};
use crate::proxy::coming::Coming;
use crate::proxy::forward::{Answer, Attempt, Origin};
use crate::proxy::headers;
use crate::proxy::retry::{self, Failure, Sent};
use crate::trace::context::TRACEPARENT;

impl Attempt<'_> {
    /// Sends the request on a stream and waits for the head of an answer.
    ///
    /// A connection that turns out to be closed, or closing, says nothing of the instance: the
    /// request goes out once more on another one, where that is safe.
    pub(super) async fn send_stream(
        &self,
        worker: usize,
        head: &request::Parts,
    ) -> Result<Answer, Failure> {
        let (seat, is_new) = self.board(worker).await?;
        match self.exchange_stream(worker, head, seat).await {
            Err(failure @ Failure::Reset(_))
                if !is_new && retry::is_safe(&head.method, failure, self.replayable()) => {}
            result => return result,
        }
        let (seat, _) = self.board(worker).await?;
        self.exchange_stream(worker, head, seat).await
    }

    async fn board(&self, worker: usize) -> Result<(Seat, bool), Failure> {
        self.opened(worker, pin!(Trunk::board(&self.instance, worker))).await
    }

    async fn exchange_stream(
        &self,
        worker: usize,
        head: &request::Parts,
        seat: Seat,
    ) -> Result<Answer, Failure> {
        let idempotent = head.method.is_idempotent();
        if let Some(failure) = self.distress(Sent::Nothing, idempotent) {
            return Err(failure);
        }
        let request = self.stream_request(head);
        let mut answering = seat.begin(request).map_err(|error| {
            tracing::debug!(instance = self.instance.address(), %error, "no stream was opened");
            Failure::Reset(Sent::Nothing)
        })?;
        let begun = self.await_stream(worker, idempotent, &mut answering).await;
        let (mut response, sending) = begun.inspect_err(|failure| match failure {
            Failure::FirstByteTimeout | Failure::Unanswered(_) | Failure::Dead(_) => {
                answering.seat().retire();
            }
            Failure::Connect
            | Failure::ConnectTimeout
            | Failure::Tls
            | Failure::Reset(_)
            | Failure::InvalidResponse
            | Failure::TryTimeout
            | Failure::NoSocket => {}
        })?;
        // RFC 9113 section 8.6: there is no such thing on a stream.
        let is_sane = response.status() != StatusCode::SWITCHING_PROTOCOLS;
        if !is_sane || !headers::settle(&mut response) {
            return Err(Failure::InvalidResponse);
        }
        let response = response.map(|body| Coming::Http2(Box::new(body)));
        Ok(Answer { response, origin: Origin::Stream(sending) })
    }

    async fn await_stream(
        &self,
        worker: usize,
        idempotent: bool,
        answering: &mut Answering,
    ) -> Result<Begun, Failure> {
        let mut patience = self.patience(idempotent, Instant::now());
        let mut is_due = false;
        loop {
            // Listening begins before looking, so that nothing is missed in between.
            let alarmed = self.instance.lane(worker).alarmed();
            let until = patience(is_due)?;
            tokio::select! {
                biased;
                begun = poll_fn(|cx| answering.poll(cx)) => {
                    return begun.map_err(|error| failure(&error));
                }
                () = alarmed => is_due = false,
                () = tokio::time::sleep_until(until.into()) => is_due = true,
            }
        }
    }

    /// The request of this attempt, as a stream has it (RFC 9113 sections 8.2.2 and 8.3.1).
    fn stream_request(&self, head: &request::Parts) -> Request<RequestBody> {
        // Nobody waits for a 100: what the instance has no room for stays with the client.
        let body = self.upload.map_or(RequestBody::Empty, |upload| upload.attempt(None));
        let mut request = Request::new(body);
        *request.method_mut() = head.method.clone();
        *request.version_mut() = Version::HTTP_2;
        let mut fields = head.headers.clone();
        if let Some(traceparent) = &self.traceparent {
            fields.insert(TRACEPARENT, HeaderValue::clone(traceparent));
        }
        let host = fields.remove(HOST).filter(|_| self.has_host);
        for name in [CONNECTION, TRANSFER_ENCODING, EXPECT] {
            fields.remove(name);
        }
        *request.headers_mut() = fields;
        let secured = self.instance.target().is_some();
        *request.uri_mut() = target(head, host.as_ref(), self.instance.address(), secured);
        request
    }
}

fn target(head: &request::Parts, host: Option<&HeaderValue>, address: &str, tls: bool) -> Uri {
    let named = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(if tls { Scheme::HTTPS } else { Scheme::HTTP });
    parts.authority = named.or_else(|| Authority::try_from(address).ok());
    let path = head.uri.path_and_query().cloned();
    parts.path_and_query = Some(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
    Uri::from_parts(parts).unwrap_or_default()
}

fn failure(error: &h2::Error) -> Failure {
    if trunk::is_untouched(error) {
        Failure::Reset(Sent::Nothing)
    } else if error.is_library() {
        Failure::InvalidResponse
    } else {
        Failure::Reset(Sent::Something)
    }
}
