//! A connection to an instance, driven by whoever waits for its answer.
//!
//! hyper gives a connection in two halves: one takes requests, the other does the work when it is
//! polled. A task for the latter would cost each request three more turns of the scheduler and the
//! wake-ups between them. So the task of the request polls both; idle in the pool, nobody does.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http::{Request, Response};
use http_body::{Body, Frame};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{self, Connection, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::instance::body::RequestBody;
use crate::instance::stream::Outbound;

/// The most that is read ahead of the client, and so the longest head of an answer.
const MAX_BUFFER: usize = 64 * 1024;

/// What hyper gives for a request: an answer, or the request itself if it was not sent.
pub type Answered = Result<Response<Incoming>, TrySendError<Request<RequestBody>>>;

/// Wakes the task that drives a link.
#[derive(Debug, Default)]
struct Bell {
    task: AtomicWaker,
    /// While that task itself moves things along, it need not be told.
    muted: AtomicBool,
    /// What rang meanwhile: a timer may, from a thread of its own.
    missed: AtomicBool,
    /// Whether something came since this was last looked at.
    rung: AtomicBool,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.muted.load(Ordering::Acquire) {
            self.missed.store(true, Ordering::Release);
        } else {
            self.rung.store(true, Ordering::Release);
            self.task.wake();
        }
    }
}

/// A connection that takes one request at a time.
pub struct Link {
    sender: SendRequest<RequestBody>,
    connection: Option<Connection<TokioIo<Outbound>, RequestBody>>,
    /// Whether the connection has nothing more to do.
    over: bool,
    bell: Arc<Bell>,
    waker: Waker,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("over", &self.over).finish_non_exhaustive()
    }
}

impl Link {
    /// Opens a connection. A name is looked up each time, so that a moved instance is found.
    pub async fn open(address: &str) -> io::Result<Box<Self>> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let io = TokioIo::new(Outbound::new(stream));
        let handshake = http1::Builder::new().max_buf_size(MAX_BUFFER).handshake(io);
        let (sender, connection) = handshake.await.map_err(io::Error::other)?;
        let bell = Arc::new(Bell::default());
        let waker = Waker::from(Arc::clone(&bell));
        Ok(Box::new(Self { sender, connection: Some(connection), over: false, bell, waker }))
    }

    /// Sends a request and waits for the head of its answer, or of an upgrade.
    pub async fn answer(&mut self, request: Request<RequestBody>) -> Answered {
        self.bell.muted.store(true, Ordering::Release);
        let mut answer = pin!(self.sender.try_send_request(request));
        self.bell.muted.store(false, Ordering::Release);
        poll_fn(|cx| {
            self.drive(cx);
            // It can only come out of `drive`, so nobody has to be woken for it.
            let mut nobody = Context::from_waker(Waker::noop());
            match answer.as_mut().poll(&mut nobody) {
                Poll::Pending if self.ends() => answer.as_mut().poll(&mut nobody),
                polled => polled,
            }
        })
        .await
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
        self.bell.missed.store(false, Ordering::Release);
        self.drive(cx);
        let taken = match self.take_frame(incoming) {
            Poll::Pending if self.ends() => self.take_frame(incoming),
            taken => taken,
        };
        if taken.is_pending() && self.bell.missed.load(Ordering::Acquire) {
            cx.waker().wake_by_ref();
        }
        taken
    }

    fn take_frame(
        &self,
        incoming: &mut Incoming,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.bell.muted.store(true, Ordering::Release);
        let frame = Pin::new(incoming).poll_frame(&mut Context::from_waker(Waker::noop()));
        self.bell.muted.store(false, Ordering::Release);
        frame
    }

    /// Moves everything as far as it goes; the task is woken when it goes further.
    fn drive(&mut self, cx: &Context<'_>) {
        let Some(connection) = self.connection.as_mut().filter(|_| !self.over) else { return };
        self.bell.task.register(cx.waker());
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
        drop(self.bell.task.take());
        self.bell.rung.store(false, Ordering::Release);
        self.is_open()
    }

    /// Whether it still stands after a rest.
    pub fn stands(&mut self) -> bool {
        if self.bell.rung.swap(false, Ordering::Acquire) {
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

    /// The bare socket of an upgraded connection, and what was read of it beyond the answer.
    pub async fn into_raw(mut self: Box<Self>) -> Option<(TcpStream, Bytes)> {
        let parts = self.connection.take()?.without_shutdown().await.ok()?;
        Some((parts.io.into_inner().into_inner(), parts.read_buf))
    }
}
