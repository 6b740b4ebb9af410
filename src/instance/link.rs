//! A connection to an instance, driven by whoever waits for its answer.
//!
//! A task of its own would cost each request three more turns of the scheduler and the wake-ups between
//! them. So the task of the request moves it along; idle in the pool, nobody does.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use http::Response;
use http_body::{Frame, SizeHint};
use tokio::task::unconstrained;
use tokio::time::Sleep;

use crate::instance::Instance;
use crate::instance::bell::Bell;
use crate::instance::body::RequestBody;
use crate::instance::http1::answer::Interim;
use crate::instance::http1::dialog::{BrokenOff, Dialog, Failed};
use crate::instance::http1::request::Outgoing;
use crate::instance::stream::{OpenError, Wire};
use crate::proxy_protocol::Introduction;
use crate::tls::client::Alpn;
use crate::turn::{self, Polled};

/// A connection that takes one request at a time.
pub struct Link {
    introduction: Option<Introduction>,
    dialog: Dialog,
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
        // Whoever has used up his budget would be asked to come back, and nothing would bring him.
        pin!(unconstrained(sleep.as_mut())).poll(&mut Context::from_waker(waker)).is_ready()
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("dialog", &self.dialog).finish_non_exhaustive()
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
        let bell = Arc::new(Bell::default());
        lane.bells.hang(&bell);
        let waker = Waker::from(Arc::clone(&bell));
        let (dialog, timer) = (Dialog::new(wire), Timer::default());
        Ok(Box::new(Self { introduction, dialog, bell, waker, timer, epoch }))
    }

    /// What it began with: whose it is.
    pub fn introduction(&self) -> Option<&Introduction> {
        self.introduction.as_ref()
    }

    /// Begins a request: as much of it goes out as does so at once.
    pub fn begin(&mut self, request: &Outgoing<'_>, body: RequestBody) {
        // What can't be done at once is asked for again by whoever waits for the answer.
        self.dialog.begin(request, body, &mut Context::from_waker(Waker::noop()));
    }

    /// Goes on with it, and waits for the head of its answer, or of an upgrade.
    ///
    /// `patience` gives the instant until which to wait, or why not to wait any longer. It is asked
    /// again whenever something came that was no answer, and told whether that instant has passed.
    /// `interim` gets what comes before the answer.
    pub fn answer<E>(
        &mut self,
        mut interim: impl FnMut(Interim),
        mut patience: impl FnMut(bool) -> Result<Instant, E>,
    ) -> impl Future<Output = Result<Result<Response<()>, Failed>, E>> {
        let mut is_heard = false;
        poll_fn(move |cx| {
            match turn::watch(|| self.dialog.poll_head(&mut interim, cx)) {
                Polled::Ready(answered) => {
                    if is_heard {
                        self.bell.rest();
                    }
                    return Poll::Ready(Ok(answered));
                }
                // What has come may be the answer, and nothing ends the wait for it any more.
                Polled::Turn => return Poll::Pending,
                Polled::Pending => {}
            }
            // Before patience is asked, so that nothing is missed in between.
            self.bell.call(cx.waker());
            is_heard = true;
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

    /// The next part of an answer's body. What is left of the request is sent meanwhile.
    pub fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        self.dialog.poll_frame(cx)
    }

    /// Whether nothing more comes of an answer's body.
    pub fn is_end_stream(&self) -> bool {
        self.dialog.is_over()
    }

    /// How much comes of an answer's body, as far as that is known.
    pub fn size_hint(&self) -> SizeHint {
        self.dialog.size_hint()
    }

    /// Sends what can be sent of a request; ready when nothing more will be.
    pub fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.dialog.poll_send(cx)
    }

    /// Whether it could take a request now.
    pub fn rests(&self) -> bool {
        self.dialog.is_at_rest()
    }

    /// Whether it still stands after a rest.
    pub fn stands(&mut self) -> bool {
        self.dialog.stands()
    }

    /// What an upgraded connection was made on, and what was read of it beyond the answer.
    pub fn into_raw(self) -> (Wire, Bytes) {
        self.dialog.into_raw()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::time::Duration;

    use http::{HeaderMap, Method, Uri};
    use tokio::io::AsyncWriteExt;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::instance::stream::Stream;

    #[tokio::test]
    async fn an_answer_that_has_come_is_not_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let here = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut instance = listener.accept().await.unwrap().0;
        let bell = Arc::new(Bell::default());
        let waker = Waker::from(Arc::clone(&bell));
        let dialog = Dialog::new(Wire::Plain(Stream::new(here)));
        let timer = Timer::default();
        let mut link = Link { introduction: None, dialog, bell, waker, timer, epoch: 0 };
        let (method, target, fields) = (Method::GET, Uri::from_static("/"), HeaderMap::new());
        let (host, traceparent) = (None, None);
        let request =
            Outgoing { method: &method, target: &target, fields: &fields, host, traceparent };
        link.begin(&request, RequestBody::Empty);

        let asked = Cell::new(0);
        let patience = |_| {
            asked.set(asked.get() + 1);
            Ok::<_, ()>(Instant::now() + Duration::from_secs(60))
        };
        let mut turns = 0;
        let answer = async {
            let mut answer = pin!(link.answer(drop, patience));
            instance.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
            loop {
                let before = asked.get();
                let mut polled = |cx: &mut Context<'_>| turn::watch(|| answer.as_mut().poll(cx));
                match poll_fn(|cx| Poll::Ready(polled(cx))).await {
                    Polled::Ready(answered) => return answered,
                    Polled::Pending => tokio::task::yield_now().await,
                    Polled::Turn => {
                        turns += 1;
                        assert_eq!(asked.get(), before, "the answer may be here");
                    }
                }
            }
        };
        let answer = tokio::time::timeout(Duration::from_secs(15), answer).await.unwrap();
        assert_eq!(turns, 1);
        assert_eq!(answer.unwrap().unwrap().status(), 204);
    }
}
