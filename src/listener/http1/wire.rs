//! A client's connection, of which a request's body is read by whoever sends it on, and answers are
//! written by the conversation.
//!
//! Both may be tasks of their own: an answer may begin before its request has ended. So with a body the
//! connection is behind a lock, which nobody holds while anybody else is polled. Only one of them reads:
//! the body's reader until that is over, else the conversation. Most requests have none, and a lock for
//! each look at the connection would be a seventh of all that is atomic about them.

use std::io::{self, IoSlice};
use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::io::AsyncWrite;

use crate::http1::content::{Break, Content, Length, Next};
use crate::http1::input::{Input, read};
use crate::instance::body::{Broken, Incoming};
use crate::listener::paced::Paced;
use crate::listener::transport::Transport;

/// See the module.
#[derive(Debug)]
pub(super) struct Wire {
    /// Until it is taken away.
    stream: Option<Paced>,
    pub(super) input: Input,
    body: Content,
    /// Whether somebody may yet ask for more of the body.
    is_read: bool,
    /// Who waits for more of the body.
    reader: Option<Waker>,
    /// Who waits for what is made of the body.
    watcher: Option<Waker>,
    expects: Expects,
}

/// Whether a 100 is to be sent (RFC 9110 section 10.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expects {
    Nothing,
    /// When somebody asks for the body.
    OnceAsked,
    Now,
}

/// What becomes of a connection whose request is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Settled {
    /// The next request begins where this one has ended.
    Clear,
    /// Nobody has read this one to its end.
    Unread,
}

impl Wire {
    /// What is left of one that was taken away.
    fn gone() -> Self {
        Self {
            stream: None,
            input: Input::default(),
            body: Content::Nothing,
            is_read: false,
            reader: None,
            watcher: None,
            expects: Expects::Nothing,
        }
    }

    /// Reads on where a request's head is. Nothing at the end of the connection.
    pub(super) fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.input.came = match &mut self.stream {
            Some(stream) => ready!(read(stream, cx))?,
            None => Bytes::new(),
        };
        Poll::Ready(Ok(()))
    }

    /// Ready when the client has gone. What it sends beyond its request is kept, and then it is no longer
    /// known whether it is there.
    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.body.is_over() {
            // Whoever reads it sees that; but nobody else does when it is over.
            self.watcher = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let Some(stream) = &mut self.stream else { return Poll::Pending };
        if !self.input.is_empty() {
            return Poll::Pending;
        }
        match ready!(read(stream, cx)) {
            Ok(came) if !came.is_empty() => {
                self.input.came = came;
                Poll::Pending
            }
            Ok(_) | Err(_) => Poll::Ready(()),
        }
    }

    /// Whether a 100 is to be sent now; if not, `waker` hears when it is.
    pub(super) fn continues(&mut self, waker: &Waker) -> bool {
        match self.expects {
            Expects::Nothing => false,
            Expects::OnceAsked => {
                self.watcher = Some(waker.clone());
                false
            }
            Expects::Now => {
                self.expects = Expects::Nothing;
                true
            }
        }
    }

    /// The answer begins: it is too late for a 100, unless one is to be sent now.
    pub(super) fn answered(&mut self) -> bool {
        std::mem::replace(&mut self.expects, Expects::Nothing) == Expects::Now
    }

    /// Whether nobody takes the rest of the body, and it has not come: then the next request can't be
    /// found, and its client should be told.
    pub(super) fn is_left(&mut self) -> bool {
        !self.is_read && !self.passes_over()
    }

    fn poll_settled(&mut self, cx: &mut Context<'_>) -> Poll<Settled> {
        if self.is_read && !self.body.is_over() {
            self.watcher = Some(cx.waker().clone());
            return Poll::Pending;
        }
        if self.passes_over() {
            return Poll::Ready(Settled::Clear);
        }
        // Nobody wants the rest: if that has come, the next request can be found all the same.
        let came = self.stream.as_mut().map(|stream| read(stream, cx));
        if let Some(Poll::Ready(Ok(came))) = came {
            self.input.came = came;
        }
        Poll::Ready(if self.passes_over() { Settled::Clear } else { Settled::Unread })
    }

    /// Whether what came holds the rest of the body, which is left out.
    fn passes_over(&mut self) -> bool {
        loop {
            match self.body.next(&mut self.input.came) {
                Next::Frame(_unwanted) => {}
                Next::Over => return true,
                Next::More | Next::Broken(_) => return false,
            }
        }
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        // What has come of it without is no reason to say nothing: a client may wait for that all the same.
        if self.expects == Expects::OnceAsked {
            self.expects = Expects::Now;
            wake(&mut self.watcher);
        }
        loop {
            match self.body.next(&mut self.input.came) {
                Next::Frame(frame) => return Poll::Ready(Some(Ok(frame))),
                Next::Over => return Poll::Ready(None),
                Next::Broken(Break::Cut) => return Poll::Ready(Some(Err(Broken::Gone))),
                Next::Broken(Break::Malformed) => return Poll::Ready(Some(Err(Broken::Malformed))),
                Next::More => {}
            }
            let Some(stream) = &mut self.stream else {
                self.body.breaks(Break::Cut);
                continue;
            };
            match read(stream, cx) {
                Poll::Ready(Ok(came)) if !came.is_empty() => self.input.came = came,
                Poll::Ready(ended) => self.body.end(ended.is_ok()),
                Poll::Pending => {
                    self.reader = Some(cx.waker().clone());
                    return Poll::Pending;
                }
            }
        }
    }

    /// Nobody reads the body any more.
    fn left(&mut self) {
        self.is_read = false;
        wake(&mut self.watcher);
    }

    fn stream(&mut self) -> io::Result<Pin<&mut Paced>> {
        self.stream.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

fn wake(waiting: &mut Option<Waker>) {
    if let Some(waker) = waiting.take() {
        waker.wake();
    }
}

/// The same, shared with the body's reader.
type Shared = Arc<Mutex<Wire>>;

fn lock(shared: &Shared) -> MutexGuard<'_, Wire> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How the conversation comes at its connection.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "it nearly always is the large one")]
pub(super) enum Access {
    /// It is the only one.
    Sole(Wire),
    /// There is a reader of a body, or was one until lately.
    Shared(Shared),
}

/// Access to the connection: nobody may be polled meanwhile.
pub(super) enum Guard<'a> {
    Sole(&'a mut Wire),
    Shared(MutexGuard<'a, Wire>),
}

impl Deref for Guard<'_> {
    type Target = Wire;

    fn deref(&self) -> &Wire {
        match self {
            Self::Sole(wire) => wire,
            Self::Shared(wire) => wire,
        }
    }
}

impl DerefMut for Guard<'_> {
    fn deref_mut(&mut self) -> &mut Wire {
        match self {
            Self::Sole(wire) => wire,
            Self::Shared(wire) => wire,
        }
    }
}

impl Access {
    /// To a connection between two requests, of which this was read already.
    pub(super) fn new(stream: Paced, read: Bytes) -> Self {
        Self::Sole(Wire { stream: Some(stream), input: Input::new(read), ..Wire::gone() })
    }

    /// See [`Guard`].
    pub(super) fn lock(&mut self) -> Guard<'_> {
        match self {
            Self::Sole(wire) => Guard::Sole(wire),
            Self::Shared(shared) => Guard::Shared(lock(shared)),
        }
    }

    /// The body of the request whose head was just taken, if it has one.
    pub(super) fn body(&mut self, length: Length, expects: bool) -> Option<Incoming> {
        if length == Length::Exactly(0) {
            return None;
        }
        let shared = self.share();
        let mut wire = lock(&shared);
        wire.body = Content::bounded(length);
        wire.is_read = true;
        wire.expects = if expects { Expects::OnceAsked } else { Expects::Nothing };
        drop(wire);
        Some(Box::pin(Received(Some(shared))))
    }

    fn share(&mut self) -> Shared {
        match self {
            Self::Sole(wire) => {
                let shared = Arc::new(Mutex::new(std::mem::replace(wire, Wire::gone())));
                *self = Self::Shared(Arc::clone(&shared));
                shared
            }
            Self::Shared(shared) => Arc::clone(shared),
        }
    }

    /// What is left of a request after its answer, as soon as somebody knows.
    pub(super) fn poll_settled(&mut self, cx: &mut Context<'_>) -> Poll<Settled> {
        let settled = ready!(self.lock().poll_settled(cx));
        if let Self::Shared(shared) = self
            && let Some(wire) = Arc::get_mut(shared)
        {
            let wire = wire.get_mut().unwrap_or_else(PoisonError::into_inner);
            *self = Self::Sole(std::mem::replace(wire, Wire::gone()));
        }
        Poll::Ready(settled)
    }

    /// The connection, and what was read of it and not made use of. Whoever still reads a body gets no
    /// more of it.
    pub(super) fn into_parts(mut self) -> Option<(Transport, Bytes)> {
        let mut wire = self.lock();
        wake(&mut wire.reader);
        let stream = wire.stream.take()?;
        Some((stream.into_inner(), std::mem::take(&mut wire.input).into_bytes()))
    }
}

impl AsyncWrite for Access {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.lock().stream()?.poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.lock().stream()?.poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        let is_vectored = |wire: &Wire| wire.stream.as_ref().is_some_and(Paced::is_write_vectored);
        match self {
            Self::Sole(wire) => is_vectored(wire),
            Self::Shared(shared) => is_vectored(&lock(shared)),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.lock().stream()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.lock().stream()?.poll_shutdown(cx)
    }
}

/// The body of a request, until all of it was taken: what comes then belongs to the next. Dropped before,
/// the rest is of no use to anybody.
struct Received(Option<Shared>);

impl Body for Received {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let Some(shared) = &self.0 else { return Poll::Ready(None) };
        let mut wire = lock(shared);
        let polled = wire.poll_body(cx);
        if polled.is_ready() && wire.body.is_over() {
            wire.left();
            drop(wire);
            self.0 = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Some(shared) => lock(shared).body.size_hint(),
            None => SizeHint::with_exact(0),
        }
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        if let Some(shared) = &self.0 {
            lock(shared).left();
        }
    }
}
