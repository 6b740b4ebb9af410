//! A connection to an instance that carries many requests at once, each on a stream of HTTP/2
//! (RFC 9113).
//!
//! A task of its own drives it; a request's task moves its own stream: what is sent, by [`Sending`],
//! and what comes, by [`Received`]. A stream of which both are dropped early is reset, and no other.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use h2::client::{Builder, ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};

use crate::instance::Instance;
use crate::instance::body::{BodyError, RequestBody};
use crate::instance::stream::{OpenError, Wire};
use crate::tls::client::Alpn;

/// Streams on one connection, if its instance takes as many: what RFC 9113 section 6.5.2 asks it to.
const MAX_STREAMS: usize = 100;
/// Bytes of one answer that are read ahead of its client, at most.
const STREAM_WINDOW: u32 = 128 * 1024;
/// Bytes of all answers of a connection: so many that clients which take nothing hold up no other.
const CONNECTION_WINDOW: u32 = MAX_STREAMS as u32 * STREAM_WINDOW;
/// Bytes of one upload that are taken ahead of the instance.
const MAX_SEND_BUFFER: usize = 64 * 1024;
/// The longest head of an answer.
const MAX_HEAD: u32 = 64 * 1024;

/// A connection that takes as many requests at once as its instance lets it.
#[derive(Debug)]
pub struct Trunk {
    requests: SendRequest<Bytes>,
    /// Streams that are open.
    taken: AtomicUsize,
    /// Whether it is given no further request.
    retired: AtomicBool,
    /// What its pool was when it was opened.
    pub(super) epoch: u64,
}

/// A place on a trunk, for one stream.
#[derive(Debug)]
pub struct Seat(Arc<Trunk>);

impl Trunk {
    /// A place on a connection to `instance`, and whether that is a new one. Those who find none
    /// wait for the one that somebody else has begun to open.
    pub async fn board(instance: &Instance, worker: usize) -> Result<(Seat, bool), OpenError> {
        let pool = &instance.lane(worker).pool;
        if let Some(seat) = pool.seat() {
            return Ok((seat, false));
        }
        let _turn = pool.opening.lock().await;
        if let Some(seat) = pool.seat() {
            return Ok((seat, false));
        }
        let trunk = Self::open(instance, worker).await?;
        Ok((pool.add(&trunk), true))
    }

    async fn open(instance: &Instance, worker: usize) -> Result<Arc<Self>, OpenError> {
        // Before it is known how it is to be secured: what changes after that makes it old.
        let epoch = instance.lane(worker).pool.epoch();
        let target = instance.target();
        let wire = Wire::open(instance.address(), None, target.as_deref(), Alpn::Http2).await?;
        let handshake = Builder::new()
            .enable_push(false)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buffer_size(MAX_SEND_BUFFER)
            .max_header_list_size(MAX_HEAD)
            .handshake(wire);
        let (requests, connection) =
            handshake.await.map_err(|error| OpenError::Connect(std::io::Error::other(error)))?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection of streams ended");
            }
        });
        let (taken, retired) = (AtomicUsize::new(0), AtomicBool::new(false));
        Ok(Arc::new(Self { requests, taken, retired, epoch }))
    }

    /// A place, if there is one.
    pub(super) fn seat(self: &Arc<Self>) -> Option<Seat> {
        // Only the worker that it belongs to takes places.
        let most = self.requests.current_max_send_streams().min(MAX_STREAMS);
        let is_free = self.taken.load(Ordering::Acquire) < most;
        (is_free && self.stands()).then(|| self.next_seat())
    }

    fn next_seat(self: &Arc<Self>) -> Seat {
        self.taken.fetch_add(1, Ordering::AcqRel);
        Seat(Arc::clone(self))
    }

    /// Whether requests may still begin on it.
    pub(super) fn stands(&self) -> bool {
        let mut nobody = Context::from_waker(Waker::noop());
        let polled = self.requests.clone().poll_ready(&mut nobody);
        !self.retired.load(Ordering::Acquire) && !matches!(polled, Poll::Ready(Err(_)))
    }

    /// Whether no stream is open.
    pub(super) fn is_idle(&self) -> bool {
        self.taken.load(Ordering::Acquire) == 0
    }
}

impl Seat {
    /// The first place on a new trunk, which there is whatever its instance says.
    pub(super) fn first(trunk: &Arc<Trunk>) -> Self {
        trunk.next_seat()
    }

    /// Gives the connection no further request; what is under way goes on. An instance that has not
    /// answered may be out of reach, and so would be whatever is sent the same way.
    pub fn retire(&self) {
        self.0.retired.store(true, Ordering::Release);
    }

    /// Begins a request. An error says that nothing of it was sent.
    pub fn begin(self, request: Request<RequestBody>) -> Result<Answering, h2::Error> {
        let (head, body) = request.into_parts();
        let ends = body.is_end_stream();
        let head = Request::from_parts(head, ());
        let (response, stream) = self.0.requests.clone().send_request(head, ends)?;
        let seat = Arc::new(self);
        let sending = (!ends).then(|| {
            Box::new(Sending { body, stream, rest: Bytes::new(), _seat: Arc::clone(&seat) })
        });
        Ok(Answering { response, sending, seat })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A request whose answer is waited for.
#[derive(Debug)]
pub struct Answering {
    response: ResponseFuture,
    sending: Option<Box<Sending>>,
    seat: Arc<Seat>,
}

/// What came of a request: the head of its answer, and what is still to be sent of its body.
pub type Begun = (Response<Received>, Option<Box<Sending>>);

impl Answering {
    /// The place of its stream.
    pub fn seat(&self) -> &Seat {
        &self.seat
    }

    /// Sends what can be sent; ready with the head of an answer.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Begun, h2::Error>> {
        if let Some(sending) = &mut self.sending
            && let Poll::Ready(sent) = Pin::new(&mut **sending).poll(cx)
        {
            if !sent {
                return Poll::Ready(Err(Reason::CANCEL.into()));
            }
            self.sending = None;
        }
        let (head, stream) = ready!(Pin::new(&mut self.response).poll(cx))?.into_parts();
        let received = Received { stream, trailers: false, _seat: Arc::clone(&self.seat) };
        Poll::Ready(Ok((Response::from_parts(head, received), self.sending.take())))
    }
}

/// The body of a request on its way.
#[derive(Debug)]
pub struct Sending {
    body: RequestBody,
    stream: SendStream<Bytes>,
    /// What the instance has made no room for yet.
    rest: Bytes,
    _seat: Arc<Seat>,
}

impl Future for Sending {
    /// Whether there is nothing left to say: all is sent, or the instance wants no more.
    type Output = bool;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<bool> {
        let Self { body, stream, rest, .. } = self.get_mut();
        loop {
            // RFC 9113 section 8.1: an instance that has answered may ask for no more.
            if stream.poll_reset(cx).is_ready() {
                return Poll::Ready(true);
            }
            if !rest.is_empty() {
                let room = match stream.capacity() {
                    0 => match ready!(stream.poll_capacity(cx)) {
                        Some(Ok(room)) => room,
                        Some(Err(_)) | None => return Poll::Ready(true),
                    },
                    room => room,
                };
                let part = rest.split_to(room.min(rest.len()));
                if stream.send_data(part, false).is_err() {
                    return Poll::Ready(true);
                }
                continue;
            }
            let sent = match ready!(Pin::new(&mut *body).poll_frame(cx)) {
                None => stream.send_data(Bytes::new(), true),
                // The answer has come early, and has no use for a body that was not begun.
                Some(Err(BodyError::Superseded)) => return Poll::Ready(true),
                // It must not look like a whole one.
                Some(Err(
                    BodyError::Client | BodyError::Stalled | BodyError::Slow | BodyError::TooLarge,
                )) => {
                    stream.send_reset(Reason::CANCEL);
                    return Poll::Ready(false);
                }
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        stream.reserve_capacity(data.len());
                        *rest = data;
                        continue;
                    }
                    Err(frame) => {
                        let sent = stream.send_trailers(frame.into_trailers().unwrap_or_default());
                        // Without its end the instance would wait for the rest.
                        if sent.is_err() {
                            stream.send_reset(Reason::CANCEL);
                        }
                        sent
                    }
                },
            };
            // Otherwise the stream is over, and the answer says why.
            let _ = sent;
            return Poll::Ready(true);
        }
    }
}

/// The body of an answer.
#[derive(Debug)]
pub struct Received {
    stream: RecvStream,
    /// Whether only trailers can follow.
    trailers: bool,
    _seat: Arc<Seat>,
}

impl Body for Received {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        while !self.trailers {
            let Some(data) = ready!(self.stream.poll_data(cx)).transpose()? else {
                self.trailers = true;
                break;
            };
            // It is on its way to the client, who makes room for the next.
            let _ = self.stream.flow_control().release_capacity(data.len());
            // The last one often has nothing but its flag.
            if !data.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
        }
        let trailers = ready!(self.stream.poll_trailers(cx))?;
        Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.is_end_stream() { SizeHint::with_exact(0) } else { SizeHint::default() }
    }
}

/// Whether an error says that the instance has not acted on the request: it refused the stream (RFC
/// 9113 section 8.7), or is going away and named an earlier one as its last (section 6.8).
pub fn is_untouched(error: &h2::Error) -> bool {
    let refused = error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
    error.is_remote() && (refused || error.is_go_away())
}
