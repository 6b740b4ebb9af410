//! A request's body on its way to an instance, and to the next one if that fails.
//!
//! What is taken from the client is passed on at once; up to a limit it is also kept, so that
//! another attempt can begin with it. Beyond the limit the kept part is let go and the request can
//! go out only once. The client is read no faster than the instance takes.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::Notify;

/// How long a body is held back for an instance's 100 (RFC 9110 section 10.1.1 lets a client wait
/// as long as it likes, and asks that nobody waits for ever).
const CONTINUE_TIMEOUT: Duration = Duration::from_secs(1);

type Sleep = Pin<Box<dyn Future<Output = ()> + Send + Sync>>;

/// Why a body broke off.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The client's connection failed.
    #[error("reading the client's request body: {0}")]
    Client(#[source] hyper::Error),
    /// The client sent nothing for as long as `timeouts.idle` allows.
    #[error("the client's request body stalled")]
    Stalled,
}

/// What a body has come to so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes taken from the client.
    pub received: u64,
    /// Whether another attempt would see all of it.
    pub replayable: bool,
    /// Whether the client has sent all of it.
    pub finished: bool,
    /// Whether the client let it stall.
    pub stalled: bool,
    /// Whether the client's connection broke.
    pub broken: bool,
    /// When the instance last asked for more of it.
    pub asked: Instant,
}

#[derive(Debug)]
struct Source {
    incoming: Incoming,
    kept: Vec<Bytes>,
    kept_bytes: usize,
    limit: usize,
    progress: Progress,
}

/// A body that attempts are made from.
#[derive(Debug, Clone)]
pub struct Upload {
    source: Arc<Mutex<Source>>,
    length: SizeHint,
    idle: Duration,
}

impl Upload {
    /// Keeps up to `limit` bytes for another attempt; a client that is silent for `idle` breaks it.
    pub fn new(incoming: Incoming, limit: usize, idle: Duration, now: Instant) -> Self {
        let length = incoming.size_hint();
        let progress = Progress {
            received: 0,
            replayable: true,
            finished: false,
            stalled: false,
            broken: false,
            asked: now,
        };
        let source = Source { incoming, kept: Vec::new(), kept_bytes: 0, limit, progress };
        Self { source: Arc::new(Mutex::new(source)), length, idle }
    }

    /// How far it has come.
    pub fn progress(&self) -> Progress {
        lock(&self.source).progress
    }

    /// Lets go of what is kept: an answer has begun, and nothing will be tried again.
    pub fn settle(&self) {
        let mut source = lock(&self.source);
        source.limit = 0;
        source.progress.replayable = false;
        source.kept = Vec::new();
    }

    /// The body of one attempt. With a gate, nothing is taken before it opens.
    pub fn attempt(&self, gate: Option<Arc<Notify>>) -> RequestBody {
        let gate = gate.map(|gate| {
            let opened = async move {
                // Whichever comes first; an instance that never says 100 gets the body too.
                let _ = pingora_timeout::timeout(CONTINUE_TIMEOUT, gate.notified()).await;
            };
            Box::pin(opened) as Pin<Box<dyn Future<Output = ()> + Send>>
        });
        RequestBody::Upload(Attempt { upload: self.clone(), next: 0, gate, sleep: None })
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
    /// What the client sends.
    Upload(Attempt),
}

/// One attempt's view of an [`Upload`].
pub struct Attempt {
    upload: Upload,
    /// The next kept part to send.
    next: usize,
    gate: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    /// Runs only while the client is waited for.
    sleep: Option<Sleep>,
}

impl std::fmt::Debug for Attempt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attempt").field("next", &self.next).finish_non_exhaustive()
    }
}

impl Attempt {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(gate) = &mut self.gate {
            ready!(gate.as_mut().poll(cx));
            self.gate = None;
        }
        let upload = self.upload.clone();
        let mut source = lock(&upload.source);
        if let Some(part) = source.kept.get(self.next) {
            self.next += 1;
            return Poll::Ready(Some(Ok(Frame::data(part.clone()))));
        }
        if source.progress.finished {
            return Poll::Ready(None);
        }
        source.progress.asked = Instant::now();
        match Pin::new(&mut source.incoming).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                self.sleep = None;
                self.next += source.keep(&frame);
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(None) => {
                source.progress.finished = true;
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => {
                source.progress.broken = true;
                Poll::Ready(Some(Err(BodyError::Client(error))))
            }
            Poll::Pending => {
                let idle = upload.idle;
                let sleep =
                    self.sleep.get_or_insert_with(|| Box::pin(pingora_timeout::sleep(idle)));
                ready!(sleep.as_mut().poll(cx));
                source.progress.stalled = true;
                Poll::Ready(Some(Err(BodyError::Stalled)))
            }
        }
    }
}

impl Source {
    /// Notes a frame; how many parts were kept of it.
    fn keep(&mut self, frame: &Frame<Bytes>) -> usize {
        if self.incoming.is_end_stream() {
            self.progress.finished = true;
        }
        let Some(data) = frame.data_ref() else {
            // Trailers are rare enough not to be kept: with them a request goes out once.
            self.progress.replayable = false;
            return 0;
        };
        self.progress.received += data.len() as u64;
        if !self.progress.replayable {
            return 0;
        }
        if self.kept_bytes + data.len() > self.limit {
            self.progress.replayable = false;
            self.kept = Vec::new();
            return 0;
        }
        self.kept_bytes += data.len();
        self.kept.push(data.clone());
        1
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
