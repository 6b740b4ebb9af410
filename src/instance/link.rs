//! A connection to an instance, driven by whoever waits for its answer.
//!
//! hyper gives a connection in two halves: one takes requests, the other does the work when it is
//! polled. A task for the latter would cost each request three more turns of the scheduler and the
//! wake-ups between them. So the task of the request polls both; idle in the pool, nobody does.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{self, Connection, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::time::Sleep;

use crate::instance::Instance;
use crate::instance::bell::Bell;
use crate::instance::body::RequestBody;
use crate::instance::ear::{Ear, Interim};
use crate::instance::stream::{OpenError, Outbound, Wire};
use crate::proxy_protocol::Introduction;
use crate::tls::client::Alpn;

/// The most that is read ahead of the client, and so the longest head of an answer.
const MAX_BUFFER: usize = 64 * 1024;

/// What hyper gives for a request: an answer, or the request itself if it was not sent.
pub type Answered = Result<Response<Incoming>, TrySendError<Request<RequestBody>>>;

/// A connection that takes one request at a time.
pub struct Link {
    introduction: Option<Introduction>,
    sender: SendRequest<RequestBody>,
    connection: Option<Connection<TokioIo<Outbound>, RequestBody>>,
    /// Whether the connection has nothing more to do.
    over: bool,
    ear: Arc<Ear>,
    bell: Arc<Bell>,
    waker: Waker,
    timer: Timer,
    /// What its pool was when it was opened.
    pub(super) epoch: u64,
}

/// Rings a link's bell when its request may have been waited for too long.
///
/// It is set when it isn't already, runs on from request to request, and is looked at only when it
/// has gone off: most requests find it running, and it costs them nothing.
#[derive(Default)]
struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
    /// Whether `until` has passed; if not, the bell behind `waker` rings by then.
    fn is_due(&mut self, until: Instant, waker: &Waker) -> bool {
        let until = until.into();
        if self.0.as_ref().is_some_and(|sleep| !sleep.is_elapsed() && sleep.deadline() <= until) {
            return false;
        }
        let sleep = self.0.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
        sleep.as_mut().reset(until);
        sleep.as_mut().poll(&mut Context::from_waker(waker)).is_ready()
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("over", &self.over).finish_non_exhaustive()
    }
}

impl Link {
    /// Opens a connection to `instance`, whose alarms it hears from then on. An introduction goes
    /// before all else.
    pub async fn open(
        instance: &Instance,
        worker: usize,
        introduction: Option<Introduction>,
    ) -> Result<Box<Self>, OpenError> {
        let lane = instance.lane(worker);
        // Before it is known how it is to be secured: what changes after that makes it old.
        let epoch = lane.pool.epoch();
        let (address, target) = (instance.address(), instance.target());
        let wire = Wire::open(address, introduction, target.as_deref(), Alpn::Http1).await?;
        let ear = Arc::new(Ear::default());
        let io = TokioIo::new(Outbound::new(wire, Arc::clone(&ear)));
        let handshake = http1::Builder::new().max_buf_size(MAX_BUFFER).handshake(io);
        let (sender, connection) =
            handshake.await.map_err(|error| OpenError::Connect(io::Error::other(error)))?;
        let bell = Arc::new(Bell::default());
        lane.bells.hang(&bell);
        let waker = Waker::from(Arc::clone(&bell));
        let (connection, timer) = (Some(connection), Timer::default());
        let over = false;
        Ok(Box::new(Self {
            introduction,
            sender,
            connection,
            over,
            ear,
            bell,
            waker,
            timer,
            epoch,
        }))
    }

    /// What it began with: whose it is.
    pub fn introduction(&self) -> Option<&Introduction> {
        self.introduction.as_ref()
    }

    /// Sends a request and waits for the head of its answer, or of an upgrade.
    ///
    /// `patience` gives the instant until which to wait, or why not to wait any longer. It is asked
    /// again whenever something came that was no answer, and told whether that instant has passed.
    /// `interim` gets what comes before the answer.
    pub fn answer<E>(
        &mut self,
        request: Request<RequestBody>,
        mut interim: impl FnMut(Interim),
        mut patience: impl FnMut(bool) -> Result<Instant, E>,
    ) -> impl Future<Output = Result<Answered, E>> {
        self.ear.listen();
        // Boxed: it has room for the request, should it come back.
        let mut answer = self.bell.muted(|| Box::pin(self.sender.try_send_request(request)));
        poll_fn(move |cx| {
            self.drive(cx);
            self.ear.heard().into_iter().for_each(&mut interim);
            // It can only come out of `drive`, so nobody has to be woken for it.
            let mut nobody = Context::from_waker(Waker::noop());
            let polled = match answer.as_mut().poll(&mut nobody) {
                Poll::Pending if self.ends() => answer.as_mut().poll(&mut nobody),
                polled => polled,
            };
            if let Poll::Ready(answered) = polled {
                return Poll::Ready(Ok(answered));
            }
            let mut is_due = false;
            loop {
                is_due = match patience(is_due) {
                    Ok(until) => self.timer.is_due(until, &self.waker),
                    Err(out_of_it) => return Poll::Ready(Err(out_of_it)),
                };
                if !is_due {
                    return Poll::Pending;
                }
            }
        })
    }

    /// The next part of an answer's body.
    pub fn poll_frame(
        &mut self,
        incoming: &mut Incoming,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let read_already = self.take_frame(incoming);
        if read_already.is_ready() {
            return read_already;
        }
        self.bell.heed();
        self.drive(cx);
        let taken = match self.take_frame(incoming) {
            Poll::Pending if self.ends() => self.take_frame(incoming),
            taken => taken,
        };
        if taken.is_pending() && self.bell.missed() {
            cx.waker().wake_by_ref();
        }
        taken
    }

    fn take_frame(
        &self,
        incoming: &mut Incoming,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let mut nobody = Context::from_waker(Waker::noop());
        self.bell.muted(|| Pin::new(incoming).poll_frame(&mut nobody))
    }

    /// Moves everything as far as it goes; the task is woken when it goes further.
    fn drive(&mut self, cx: &Context<'_>) {
        let Some(connection) = self.connection.as_mut().filter(|_| !self.over) else { return };
        self.bell.call(cx.waker());
        // An error reaches whoever waits for an answer or for its body.
        let driven = connection.poll_without_shutdown(&mut Context::from_waker(&self.waker));
        self.over = driven.is_ready();
    }

    /// Lets go of a connection that is over, which tells whoever still waits on it; whether it was.
    fn ends(&mut self) -> bool {
        self.over && self.connection.take().is_some()
    }

    /// Whether it could take a request now. It keeps no task from then on.
    pub fn rest(&mut self) -> bool {
        if !self.sender.is_ready() {
            self.drive(&Context::from_waker(Waker::noop()));
        }
        self.bell.rest();
        self.is_open()
    }

    /// Whether it still stands after a rest.
    pub fn stands(&mut self) -> bool {
        if self.bell.rang() {
            self.drive(&Context::from_waker(Waker::noop()));
        }
        self.is_open()
    }

    fn is_open(&self) -> bool {
        !self.over && self.sender.is_ready()
    }

    /// Goes on by itself until nothing is left to do: for a request that is not all sent when its
    /// answer begins. A client that takes none of that answer may still be sending.
    pub async fn run(mut self: Box<Self>) {
        poll_fn(|cx| {
            self.drive(cx);
            match self.over || self.sender.is_ready() {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
    }

    /// What an upgraded connection was made on, and what was read of it beyond the answer.
    pub async fn into_raw(mut self: Box<Self>) -> Option<(Wire, Bytes)> {
        let parts = self.connection.take()?.without_shutdown().await.ok()?;
        Some((parts.io.into_inner().into_inner(), parts.read_buf))
    }
}
