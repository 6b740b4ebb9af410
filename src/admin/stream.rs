//! Streams of server-sent events: what they have in common, whatever they tell.
//!
//! Each is written by a task of its own, one message ahead of its client; whoever takes nothing for a
//! while loses its connection, and the stream with it. There are only so many streams at once.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};

/// Streams at once: fewer than connections, so that somebody can still ask something.
const MOST: usize = 32;
/// After this much silence a comment says that the stream lives: proxies end silent ones after 30 s.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// What a client does when its stream breaks: it comes back after 2 s.
const OPENING: &str = "retry: 2000\n\n";

/// All streams.
#[derive(Debug)]
pub struct Streams {
    permits: Arc<Semaphore>,
    heartbeat: Duration,
    /// Tells all of them to end.
    end: watch::Sender<()>,
}

impl Default for Streams {
    fn default() -> Self {
        let (permits, end) = (Arc::new(Semaphore::new(MOST)), watch::Sender::new(()));
        Self { permits, heartbeat: HEARTBEAT, end }
    }
}

impl Streams {
    /// One more, written by what `tell` makes of its pen; `None` if there are too many.
    pub fn open<Telling>(&self, tell: impl FnOnce(Pen) -> Telling) -> Option<StreamBody>
    where
        Telling: Future<Output = ()> + Send + 'static,
    {
        let permit = Arc::clone(&self.permits).try_acquire_owned().ok()?;
        let (sender, messages) = mpsc::channel(1);
        let (heartbeat, end) = (self.heartbeat, self.end.subscribe());
        let telling = tell(Pen { sender, heartbeat, end });
        tokio::spawn(telling);
        Some(StreamBody { messages, opened: false, _permit: permit })
    }

    /// Ends all of them: the address is given up, and their clients come back to whoever has it then.
    pub fn end(&self) {
        self.end.send_replace(());
    }
}

/// Writes to a stream.
#[derive(Debug)]
pub struct Pen {
    sender: mpsc::Sender<Bytes>,
    heartbeat: Duration,
    end: watch::Receiver<()>,
}

impl Pen {
    /// Writes a message; `None` when there is nobody to read it.
    pub async fn write(&self, message: String) -> Option<()> {
        self.sender.send(message.into()).await.ok()
    }

    /// Waits for `news`, and says meanwhile that the stream lives; `None` when its client has left.
    pub async fn wait<News>(&mut self, news: impl Future<Output = News>) -> Option<News> {
        let mut news = std::pin::pin!(news);
        loop {
            tokio::select! {
                biased;
                () = self.sender.closed() => return None,
                _ = self.end.changed() => return None,
                news = &mut news => return Some(news),
                () = tokio::time::sleep(self.heartbeat) => self.write(":\n\n".to_owned()).await?,
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
    use tokio::sync::Notify;

    use super::*;

    fn hasty() -> Streams {
        Streams { heartbeat: Duration::from_millis(5), ..Streams::default() }
    }

    async fn next(body: &mut StreamBody) -> String {
        let frame = body.frame().await.expect("a frame").unwrap();
        String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap()
    }

    #[tokio::test]
    async fn silence_is_filled_with_comments() {
        let news = Arc::<Notify>::default();
        let told = Arc::clone(&news);
        let tell = |mut pen: Pen| async move {
            pen.wait(told.notified()).await;
            pen.write("data: 1\n\n".to_owned()).await;
        };
        let streams = hasty();
        let mut body = streams.open(tell).unwrap();
        for expected in [OPENING, ":\n\n", ":\n\n"] {
            assert_eq!(next(&mut body).await, expected);
        }
        news.notify_one();
        while next(&mut body).await != "data: 1\n\n" {}
        assert!(body.frame().await.is_none());
    }

    #[tokio::test]
    async fn a_client_that_leaves_ends_what_writes_to_it() {
        let over = Arc::<Notify>::default();
        let told = Arc::clone(&over);
        let tell = |pen: Pen| async move {
            while pen.write("data: x\n\n".to_owned()).await.is_some() {}
            told.notify_one();
        };
        let streams = Streams::default();
        drop(streams.open(tell).unwrap());
        over.notified().await;
    }

    #[tokio::test]
    async fn all_end_when_the_address_is_given_up() {
        let streams = Streams::default();
        let tell = |mut pen: Pen| async move {
            pen.wait(std::future::pending::<()>()).await;
        };
        let mut body = streams.open(tell).unwrap();
        assert_eq!(next(&mut body).await, OPENING);
        streams.end();
        assert!(body.frame().await.is_none());
    }

    #[tokio::test]
    async fn there_are_only_so_many_and_one_that_is_over_makes_room() {
        let streams = Streams::default();
        let open = || {
            streams.open(|mut pen| async move {
                pen.wait(std::future::pending::<()>()).await;
            })
        };
        let mut bodies: Vec<_> = (0..MOST).map(|_| open().unwrap()).collect();
        assert!(open().is_none());
        bodies.pop();
        assert!(open().is_some());
    }
}
