//! A request's body on its way to an instance, and to the next one if that fails.
//!
//! What is taken from the client is passed on at once; up to a limit it is also kept, so that
//! another attempt can begin with it. Beyond the limit the kept part is let go and the request can
//! go out only once. The client is read no faster than the instance takes.

use std::any::Any;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::{Notify, oneshot};

use crate::http1::sending::Unsent;
use crate::instance::kept::{Kept, Ledger};
use crate::instance::mirrored::Fate;
use crate::instance::rate::Dawdle;

/// How long a body is held back for an instance's 100 (RFC 9110 section 10.1.1 lets a client wait
/// as long as it likes, and asks that nobody waits for ever).
const CONTINUE_TIMEOUT: Duration = Duration::from_secs(1);

type Sleep = Pin<Box<dyn Future<Output = ()> + Send + Sync>>;

/// Why a body broke off.
#[derive(Debug, Clone, Copy, thiserror::Error)]
pub enum BodyError {
    /// The client's connection failed, or its chunks made no sense.
    #[error("the client's request body broke off")]
    Client,
    /// The client sent nothing for as long as `timeouts.idle` allows.
    #[error("the client's request body stalled")]
    Stalled,
    /// The client sent less than `limits.min_upload` asks for.
    #[error("the client's request body is too slow")]
    Slow,
    /// The client sent more than `limits.max_body` allows.
    #[error("the client's request body is too large")]
    TooLarge,
    /// Another attempt has begun, or the body has failed: nothing more is taken from the client.
    #[error("the request body is no longer sent")]
    Superseded,
}

impl From<BodyError> for Unsent {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::Superseded => Self::Unwanted,
            BodyError::Client | BodyError::Stalled | BodyError::Slow | BodyError::TooLarge => {
                Self::Broken
            }
        }
    }
}

/// How the client failed to send its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// It went away.
    #[error("the client went away")]
    Gone,
    /// It was silent for too long.
    #[error("the client was silent for too long")]
    Stalled,
    /// It broke the rules of chunks (RFC 9112 section 7.1).
    #[error("the client's chunks made no sense")]
    Malformed,
    /// It sent more than it may.
    #[error("the client sent too much")]
    TooLarge,
    /// It sent too few bytes for too long.
    #[error("the client was too slow")]
    Slow,
}

/// What a body has come to so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes taken from the client.
    pub received: u64,
    /// Whether another attempt would see all of it.
    pub replayable: bool,
    /// Whether the client was ever asked for any of it.
    pub begun: bool,
    /// Whether the client has sent all of it.
    pub finished: bool,
    /// Whether the instance would take more and the client has sent nothing.
    pub waiting: bool,
    /// How the client failed.
    pub broken: Option<Broken>,
    /// When the instance last asked for more of it.
    pub asked: Instant,
}

/// What a client sends behind a head, whatever it speaks.
pub type Incoming = Pin<Box<dyn Body<Data = Bytes, Error = Broken> + Send>>;

/// Something that is dropped when nothing more will be taken of a body, or of a tunnel.
pub type Hold = Box<dyn Any + Send + Sync>;

/// Takes out of trailers what they may not say.
pub type Trim = Box<dyn Fn(&mut HeaderMap) + Send + Sync>;

/// What a body may be.
#[expect(missing_debug_implementations, reason = "a function has none")]
pub struct Bounds {
    /// Asked when there are trailers.
    pub trim: Trim,
    /// Bytes that are kept for another attempt.
    pub kept: usize,
    /// Bytes in all.
    pub most: Option<u64>,
    /// Bytes that are kept of all bodies.
    pub kept_in_all: u64,
    /// How long the client may be silent.
    pub idle: Duration,
    /// Bytes that it must send in a second.
    pub slowest: Option<u64>,
}

struct Source {
    /// What is yet to come; nothing where all has.
    incoming: Option<Incoming>,
    trim: Option<Trim>,
    /// Who wants it too, when it is whole.
    tap: Option<Box<Tap>>,
    /// In a buffer of its own: a part of what was read would keep all of it, however small the part.
    kept: Kept,
    /// How much of that the last attempt has taken.
    sent: usize,
    limit: usize,
    most: u64,
    /// How long the client may yet be waited for, and since when it is.
    dawdle: Option<Dawdle>,
    waited_since: Option<Instant>,
    /// Numbers attempts; only the last one may take from the client.
    attempts: u32,
    progress: Progress,
    _hold: Option<Hold>,
}

/// Collects a body beside those that it is for.
struct Tap {
    bytes: Vec<u8>,
    most: usize,
    whole: oneshot::Sender<Result<Vec<u8>, Fate>>,
}

/// A body that is collected as it passes.
#[derive(Debug)]
pub struct Tapped(oneshot::Receiver<Result<Vec<u8>, Fate>>);

impl Tapped {
    /// All of it, when it has come to its end.
    pub async fn whole(self) -> Result<Vec<u8>, Fate> {
        self.0.await.unwrap_or(Err(Fate::Unfinished))
    }
}

/// A body that attempts are made from.
#[derive(Clone)]
pub struct Upload {
    source: Arc<Mutex<Source>>,
    length: SizeHint,
    idle: Duration,
}

impl std::fmt::Debug for Upload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upload").field("progress", &self.progress()).finish_non_exhaustive()
    }
}

impl Upload {
    /// Keeps what it may for another attempt, of a body that can be kept whole; a client that is
    /// silent for too long, or sends too much, breaks it.
    pub fn new(
        incoming: Incoming,
        bounds: Bounds,
        ledger: &Arc<Ledger>,
        now: Instant,
        hold: Hold,
    ) -> Self {
        let Bounds { trim, kept: limit, most, kept_in_all, idle, slowest } = bounds;
        let length = incoming.size_hint();
        let progress = Progress {
            received: 0,
            replayable: true,
            begun: false,
            finished: false,
            waiting: false,
            broken: None,
            asked: now,
        };
        let limit = if length.lower() > limit as u64 { 0 } else { limit };
        let source = Source {
            incoming: Some(incoming),
            trim: Some(trim),
            tap: None,
            kept: Kept::new(kept_in_all, Arc::clone(ledger)),
            sent: 0,
            limit,
            most: most.unwrap_or(u64::MAX),
            dawdle: slowest.map(Dawdle::new),
            waited_since: None,
            attempts: 0,
            progress,
            _hold: Some(hold),
        };
        Self { source: Arc::new(Mutex::new(source)), length, idle }
    }

    /// One that is there already.
    pub fn whole(bytes: Vec<u8>, ledger: &Arc<Ledger>, now: Instant) -> Self {
        let size = bytes.len();
        let progress = Progress {
            received: size as u64,
            replayable: true,
            begun: true,
            finished: true,
            waiting: false,
            broken: None,
            asked: now,
        };
        let source = Source {
            incoming: None,
            trim: None,
            tap: None,
            kept: Kept::whole(bytes, Arc::clone(ledger)),
            sent: 0,
            limit: size,
            most: u64::MAX,
            dawdle: None,
            waited_since: None,
            attempts: 0,
            progress,
            _hold: None,
        };
        let length = SizeHint::with_exact(size as u64);
        Self { source: Arc::new(Mutex::new(source)), length, idle: Duration::MAX }
    }

    /// Collects it as it passes, up to so many bytes; nothing, if it is known to be longer.
    pub fn tap(&self, most: usize) -> Option<Tapped> {
        if self.length.lower() > most as u64 {
            return None;
        }
        let (whole, tapped) = oneshot::channel();
        lock(&self.source).tap = Some(Box::new(Tap { bytes: Vec::new(), most, whole }));
        Some(Tapped(tapped))
    }

    /// How far it has come.
    pub fn progress(&self) -> Progress {
        lock(&self.source).progress
    }

    /// An answer has begun: nothing will be tried again, and nothing more need be kept. What is
    /// kept is let go when the attempt has sent it.
    pub fn settle(&self) {
        let mut source = lock(&self.source);
        source.limit = 0;
        source.progress.replayable = false;
    }

    /// Whether the last attempt has taken all of it.
    pub fn is_sent(&self) -> bool {
        let source = lock(&self.source);
        source.progress.finished && source.sent == source.kept.len()
    }

    /// How long, at most, until it stands still for longer than the client and the instance may let
    /// it; `None` if it does.
    pub fn patience(&self) -> Option<Duration> {
        let progress = self.progress();
        // A client that is waited for has a timer of its own.
        let still = if progress.waiting { Duration::ZERO } else { progress.asked.elapsed() };
        self.idle.checked_sub(still).filter(|left| !left.is_zero())
    }

    /// Nothing more of it is sent.
    pub fn abandon(&self) {
        lock(&self.source).attempts += 1;
    }

    /// The body of one attempt; an earlier one gets nothing more. With a gate, nothing is taken
    /// before it opens.
    pub fn attempt(&self, gate: Option<Arc<Notify>>) -> RequestBody {
        let gate = gate.map(|gate| {
            let opened = async move {
                // Whichever comes first; an instance that never says 100 gets the body too.
                let _ = tokio::time::timeout(CONTINUE_TIMEOUT, gate.notified()).await;
            };
            Box::pin(opened) as Pin<Box<dyn Future<Output = ()> + Send>>
        });
        let number = {
            let mut source = lock(&self.source);
            source.attempts += 1;
            source.progress.waiting = false;
            source.sent = 0;
            source.attempts
        };
        RequestBody::Upload(Box::new(Attempt {
            upload: self.clone(),
            number,
            gate,
            whole: false,
            sleep: None,
        }))
    }
}

fn lock(source: &Mutex<Source>) -> MutexGuard<'_, Source> {
    source.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is sent to an instance behind a head.
#[derive(Debug)]
pub enum RequestBody {
    /// Nothing.
    Empty,
    /// What the client sends. Boxed: most have none.
    Upload(Box<Attempt>),
}

/// One attempt's view of an [`Upload`].
pub struct Attempt {
    upload: Upload,
    number: u32,
    gate: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    /// Whether all of it was given: whatever begins later, this one is whole.
    whole: bool,
    /// Runs only while the client is waited for.
    sleep: Option<Sleep>,
}

impl std::fmt::Debug for Attempt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attempt").field("number", &self.number).finish_non_exhaustive()
    }
}

impl Attempt {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(gate) = &mut self.gate {
            ready!(gate.as_mut().poll(cx));
            self.gate = None;
        }
        if self.whole {
            return Poll::Ready(None);
        }
        let mut source = lock(&self.upload.source);
        // What broke must never be taken for an end.
        if source.attempts != self.number || source.progress.broken.is_some() {
            return Poll::Ready(Some(Err(BodyError::Superseded)));
        }
        if source.sent < source.kept.len() {
            let rest = Bytes::copy_from_slice(&source.kept[source.sent..]);
            source.sent = source.kept.len();
            self.whole = source.progress.finished;
            return Poll::Ready(Some(Ok(Frame::data(rest))));
        }
        if source.progress.finished {
            return Poll::Ready(None);
        }
        source.progress.asked = Instant::now();
        source.progress.begun = true;
        let Some(incoming) = &mut source.incoming else { return Poll::Ready(None) };
        let polled = incoming.as_mut().poll_frame(cx);
        source.progress.waiting = polled.is_pending();
        match polled {
            Poll::Ready(Some(Ok(mut frame))) => {
                self.sleep = None;
                if let (Some(trailers), Some(trim)) = (frame.trailers_mut(), &source.trim) {
                    trim(trailers);
                }
                source.came(&frame);
                source.keep(&frame);
                if source.progress.received > source.most {
                    source.breaks(Broken::TooLarge);
                    return Poll::Ready(Some(Err(BodyError::TooLarge)));
                }
                self.whole = source.progress.finished;
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(None) => {
                source.finish();
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => {
                source.breaks(error);
                Poll::Ready(Some(Err(BodyError::Client)))
            }
            Poll::Pending => {
                let asked = source.progress.asked;
                source.waited_since.get_or_insert(asked);
                let idle = self.upload.idle;
                let slow = source.dawdle.map(Dawdle::left).filter(|left| *left < idle);
                let sleep = self
                    .sleep
                    .get_or_insert_with(|| Box::pin(pingora_timeout::sleep(slow.unwrap_or(idle))));
                ready!(sleep.as_mut().poll(cx));
                let (broken, error) = match slow {
                    Some(_) => (Broken::Slow, BodyError::Slow),
                    None => (Broken::Stalled, BodyError::Stalled),
                };
                source.breaks(broken);
                Poll::Ready(Some(Err(error)))
            }
        }
    }
}

impl Source {
    fn finish(&mut self) {
        self.progress.finished = true;
        if let Some(tap) = self.tap.take() {
            // Nobody may want it any more.
            let _ = tap.whole.send(Ok(tap.bytes));
        }
    }

    fn breaks(&mut self, broken: Broken) {
        self.tap = None;
        self.progress.broken = Some(broken);
        self.progress.replayable = false;
    }

    /// Notes how long a frame was waited for.
    fn came(&mut self, frame: &Frame<Bytes>) {
        let since = self.waited_since.take();
        let Some(dawdle) = &mut self.dawdle else { return };
        let asked = self.progress.asked;
        let waited = since.map_or(Duration::ZERO, |since| asked.saturating_duration_since(since));
        dawdle.came(frame.data_ref().map_or(0, |data| data.len() as u64), waited);
    }

    /// Keeps a copy for whoever wants one.
    fn collect(&mut self, data: &[u8]) {
        let Some(tap) = &mut self.tap else { return };
        if data.len() <= tap.most - tap.bytes.len() {
            tap.bytes.extend_from_slice(data);
        } else if let Some(tap) = self.tap.take() {
            let _ = tap.whole.send(Err(Fate::TooLarge));
        }
    }

    /// Notes a frame that is about to be sent.
    fn keep(&mut self, frame: &Frame<Bytes>) {
        let data = frame.data_ref();
        self.collect(data.map_or(&[], |data| data));
        // Nothing follows trailers, and nobody asks for it.
        if frame.is_trailers() || self.incoming.as_ref().is_none_or(Body::is_end_stream) {
            self.finish();
        }
        self.progress.received += data.map_or(0, |data| data.len() as u64);
        // Trailers are rare enough not to be kept: with them a request goes out once.
        let is_kept = data.is_some_and(|data| {
            self.progress.replayable
                && self.kept.len() + data.len() <= self.limit
                && self.kept.add(data)
        });
        if !is_kept {
            self.progress.replayable = false;
            self.kept.clear();
        }
        self.sent = self.kept.len();
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Upload(attempt) => attempt.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Upload(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Upload(attempt) => attempt.upload.length,
        }
    }
}
