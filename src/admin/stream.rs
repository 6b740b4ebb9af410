//! Streams of server-sent events: what they have in common, whatever they tell.
//!
//! Each is written by a task of its own, one message ahead of its client. A client that takes nothing
//! for a while is cut off, and there are only so many streams at once.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;

/// Streams at once: fewer than connections, so that somebody can still ask something.
const MOST: usize = 32;
/// A client that takes nothing for this long is gone.
const PATIENCE: Duration = Duration::from_secs(10);
/// After this much silence a comment says that the stream lives: proxies end silent ones after 30 s.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// What a client does when its stream breaks: it comes back after 2 s.
const OPENING: &str = "retry: 2000\n\n";

/// All streams.
#[derive(Debug)]
pub struct Streams {
    permits: Arc<Semaphore>,
    pace: Pace,
}

/// How long a stream waits.
#[derive(Debug, Clone, Copy)]
struct Pace {
    patience: Duration,
    heartbeat: Duration,
}

impl Default for Streams {
    fn default() -> Self {
        let pace = Pace { patience: PATIENCE, heartbeat: HEARTBEAT };
        Self { permits: Arc::new(Semaphore::new(MOST)), pace }
    }
}

impl Streams {
    /// One more, written by what `tell` makes of its pen; `None` if there are too many. `cut` is
    /// told when its connection is to be closed because nobody reads.
    pub fn open<Telling>(
        &self,
        cut: Arc<Notify>,
        tell: impl FnOnce(Pen) -> Telling,
    ) -> Option<StreamBody>
    where
        Telling: Future<Output = ()> + Send + 'static,
    {
        let permit = Arc::clone(&self.permits).try_acquire_owned().ok()?;
        let (sender, messages) = mpsc::channel(1);
        let telling = tell(Pen { sender, cut, pace: self.pace });
        tokio::spawn(telling);
        Some(StreamBody { messages, opened: false, _permit: permit })
    }
}

/// Writes to a stream.
#[derive(Debug)]
pub struct Pen {
    sender: mpsc::Sender<Bytes>,
    cut: Arc<Notify>,
    pace: Pace,
}

impl Pen {
    /// Writes a message; `None` when there is nobody to read it.
    pub async fn write(&self, message: String) -> Option<()> {
        match timeout(self.pace.patience, self.sender.send(message.into())).await {
            Ok(sent) => sent.ok(),
            Err(_elapsed) => {
                self.cut.notify_one();
                None
            }
        }
    }

    /// Waits for `news`, and says meanwhile that the stream lives; `None` when its client has left.
    pub async fn wait<News>(&self, news: impl Future<Output = News>) -> Option<News> {
        let mut news = std::pin::pin!(news);
        loop {
            tokio::select! {
                biased;
                () = self.sender.closed() => return None,
                news = &mut news => return Some(news),
                () = tokio::time::sleep(self.pace.heartbeat) => self.write(":\n\n".to_owned()).await?,
            }
        }
    }
}

/// The body of a stream.
#[derive(Debug)]
pub struct StreamBody {
    messages: mpsc::Receiver<Bytes>,
    opened: bool,
    _permit: OwnedSemaphorePermit,
}

impl Body for StreamBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if !std::mem::replace(&mut self.opened, true) {
            return Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(OPENING.as_bytes())))));
        }
        self.messages.poll_recv(cx).map(|message| message.map(|it| Ok(Frame::data(it))))
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    /// With little patience.
    fn hasty() -> Streams {
        let pace =
            Pace { patience: Duration::from_millis(20), heartbeat: Duration::from_millis(5) };
        Streams { pace, ..Streams::default() }
    }

    async fn next(body: &mut StreamBody) -> String {
        let frame = body.frame().await.expect("a frame").unwrap();
        String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap()
    }

    #[tokio::test]
    async fn silence_is_filled_with_comments() {
        let news = Arc::<Notify>::default();
        let told = Arc::clone(&news);
        let tell = |pen: Pen| async move {
            pen.wait(told.notified()).await;
            pen.write("data: 1\n\n".to_owned()).await;
        };
        let mut body = hasty().open(Arc::default(), tell).unwrap();
        for expected in [OPENING, ":\n\n", ":\n\n"] {
            assert_eq!(next(&mut body).await, expected);
        }
        news.notify_one();
        while next(&mut body).await != "data: 1\n\n" {}
        assert!(body.frame().await.is_none());
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_is_cut_off() {
        let (streams, cut) = (hasty(), Arc::<Notify>::default());
        let tell =
            |pen: Pen| async move { while pen.write("data: x\n\n".to_owned()).await.is_some() {} };
        let body = streams.open(Arc::clone(&cut), tell).unwrap();
        cut.notified().await;
        drop(body);
    }

    #[tokio::test]
    async fn there_are_only_so_many_and_one_that_is_over_makes_room() {
        let streams = Streams::default();
        let open = || {
            streams.open(Arc::default(), |pen| async move {
                pen.wait(std::future::pending::<()>()).await;
            })
        };
        let mut bodies: Vec<_> = (0..MOST).map(|_| open().unwrap()).collect();
        assert!(open().is_none());
        bodies.pop();
        assert!(open().is_some());
    }
}
