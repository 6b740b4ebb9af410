//! An answer that began before its request was all sent: a task of its own moves both, each at the
//! pace of whom it is for. A client that takes none of the answer may still be sending.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::sync::mpsc::{self, Receiver, Sender};

use crate::instance::http1::dialog::BrokenOff;
use crate::instance::link::Link;

/// The answer's body.
#[derive(Debug)]
pub struct Relay {
    /// Its parts, then nothing. Without that nothing it broke off.
    frames: Receiver<Option<Frame<Bytes>>>,
    /// How much comes, where that is known.
    left: Option<u64>,
    over: bool,
}

/// Parts an answer's body from its connection, and gives what moves both.
pub fn part(link: Box<Link>) -> (Relay, impl Future<Output = ()> + Send) {
    let (sender, frames) = mpsc::channel(1);
    let (left, over) = (link.size_hint().exact(), link.is_end_stream());
    (Relay { frames, left, over }, go_on(link, sender))
}

async fn go_on(mut link: Box<Link>, sender: Sender<Option<Frame<Bytes>>>) {
    loop {
        let mut room = pin!(sender.reserve());
        let room = poll_fn(|cx| {
            let _sent = link.poll_send(cx);
            room.as_mut().poll(cx)
        });
        // Otherwise whoever took the answer has all of it.
        let Ok(room) = room.await else { break };
        match poll_fn(|cx| link.poll_frame(cx)).await {
            Some(Ok(frame)) => room.send(Some(frame)),
            Some(Err(BrokenOff)) => return,
            None => {
                room.send(None);
                break;
            }
        }
    }
    poll_fn(|cx| link.poll_send(cx)).await;
}

impl Relay {
    /// Its next part.
    pub fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        if self.over {
            return Poll::Ready(None);
        }
        let Some(came) = ready!(self.frames.poll_recv(cx)) else {
            return Poll::Ready(Some(Err(BrokenOff)));
        };
        if let (Some(left), Some(data)) = (&mut self.left, came.as_ref().and_then(Frame::data_ref))
        {
            *left = left.saturating_sub(data.len() as u64);
        }
        self.over = came.is_none() || self.left == Some(0);
        Poll::Ready(came.map(Ok))
    }

    /// Whether nothing more comes.
    pub fn is_end_stream(&self) -> bool {
        self.over
    }

    /// How much comes.
    pub fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
