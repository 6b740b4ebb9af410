//! What is said on a connection: a request, its answer, and then perhaps the next.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use http::Response;
use tokio::io::AsyncWrite;

use super::answer;
use super::head::{self, Head, Limits, Said};
use super::wire::{Access, Settled};
use crate::config::types::ClientLimits;
use crate::http1::sending::{Sending, Unsent};
use crate::http1::spare;
use crate::listener::connection::{Answering, answering};
use crate::listener::paced::Paced;
use crate::listener::transport::Transport;
use crate::listener::watchdog::{Over, Step};
use crate::proxy::answer::AnswerBody;
use crate::proxy::client::{Came, Client};
use crate::proxy::error::Reason;
use crate::proxy::pace::{HeadBytes, Waits};
use crate::turn::{self, Polled};

/// What a client begins HTTP/2 with (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// See the module.
pub(in crate::listener) struct Conversation {
    wire: Access,
    client: Arc<Client>,
    limits: Limits,
    state: State,
    /// Whether it ends with the answer that is under way.
    leaves: bool,
}

enum State {
    /// For a request.
    Waits,
    /// For its turn to be asked.
    Heard(Heard),
    /// For its answer.
    Asked(Asked),
    /// For its turn to write that.
    Ready(Ready),
    /// For the client to take it.
    Answered(Sending<AnswerBody>, Said),
    /// For the end of a request that was answered early.
    Settles(Said),
}

/// A request that has come.
struct Heard {
    head: Head,
    came: Came,
}

/// A request whose answer has not begun.
struct Asked {
    answering: Answering,
    said: Said,
    /// What is being written of interim answers; with nothing left it is to be flushed.
    told: Option<Bytes>,
}

/// An answer that has come.
struct Ready {
    response: Response<AnswerBody>,
    said: Said,
    /// What goes before it.
    told: Option<Bytes>,
}

/// Why what came is no head.
enum Stop {
    Http2,
    Unreadable(Reason),
}

impl Conversation {
    /// Begins on a connection of which `read` was read already.
    pub(in crate::listener) fn new(
        stream: Transport,
        client: &Arc<Client>,
        limits: &ClientLimits,
        read: Bytes,
    ) -> Self {
        Self {
            wire: Access::new(Paced::new(stream, Arc::clone(client)), read),
            client: Arc::clone(client),
            limits: Limits { bytes: limits.head, fields: limits.fields },
            state: State::Waits,
            leaves: false,
        }
    }

    /// Goes on; ready when nothing more is said, or others go first.
    pub(in crate::listener) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        loop {
            let went_on = match &mut self.state {
                State::Waits => self.poll_request(cx),
                State::Heard(_) => Poll::Ready(self.ask()),
                State::Asked(_) => self.poll_answer(cx),
                State::Ready(_) => Poll::Ready(self.answer(cx)),
                State::Answered(sending, said) => match sending.poll(&mut self.wire, cx) {
                    Poll::Ready(sent) => {
                        let said = *said;
                        Poll::Ready(self.sent(sent, said))
                    }
                    Poll::Pending => self.poll_gone(cx),
                },
                State::Settles(said) => {
                    let said = *said;
                    self.poll_settled(said, cx)
                }
            };
            if let Err(step) = ready!(went_on) {
                return Poll::Ready(step);
            }
        }
    }

    /// Ends it with the answer that is under way. Gives whether there is nothing to wait for: browsers
    /// connect before they know what to ask.
    pub(in crate::listener) fn leave(&mut self) -> bool {
        self.leaves = true;
        // What was read before this turn may be a request.
        matches!(self.client.pace.waits(), Waits::Head(_, HeadBytes::None))
            && self.wire.lock().input.is_empty()
    }

    /// The connection, and what was read of it and not made use of.
    pub(in crate::listener) fn into_parts(self) -> Option<(Transport, Bytes)> {
        self.wire.into_parts()
    }

    fn poll_request(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Step>> {
        let mut wire = self.wire.lock();
        let (client, limits) = (&self.client, self.limits);
        match wire.input.head(|input| parse(input, client, limits)) {
            Ok(None) if wire.input.started() > limits.bytes => {
                return Poll::Ready(Err(Over::Unreadable(Reason::HeadTooLarge).into()));
            }
            Ok(None) => {}
            Ok(Some(head)) => {
                drop(wire);
                let came = Came::now(&self.client);
                self.state = State::Heard(Heard { head, came });
                return Poll::Ready(Err(Step::Turn));
            }
            Err(Stop::Http2) => return Poll::Ready(Err(Over::Http2.into())),
            Err(Stop::Unreadable(reason)) => {
                return Poll::Ready(Err(Over::Unreadable(reason).into()));
            }
        }
        let has_begun = !wire.input.is_empty();
        // A head that comes whole has not been waited for.
        if has_begun {
            self.client.pace.read();
        } else if self.leaves {
            return Poll::Ready(Err(Over::Finished.into()));
        }
        let came = ready!(wire.poll_head(cx));
        Poll::Ready(Err(match (came, wire.input.came.is_empty()) {
            (Ok(()), false) => Step::Turn,
            (Ok(()), true) if !has_begun => Over::Finished.into(),
            (Ok(()) | Err(_), _) => Over::Broken.into(),
        }))
    }

    fn ask(&mut self) -> Result<(), Step> {
        if let State::Heard(Heard { head, came }) = std::mem::replace(&mut self.state, State::Waits)
        {
            let Head { request, length, expects, said } = head;
            let body = self.wire.body(length, expects);
            let answering = answering(came, request.map(|()| body));
            self.state = State::Asked(Asked { answering, said, told: None });
        }
        Ok(())
    }

    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Step>> {
        let State::Asked(asked) = &mut self.state else { return Poll::Ready(Ok(())) };
        match turn::watch(|| asked.answering.as_mut().poll(cx)) {
            Polled::Ready(response) => {
                let (told, said) = (asked.told.take(), asked.said);
                self.state = State::Ready(Ready { response, said, told });
                Poll::Ready(Err(Step::Turn))
            }
            // What else there is to do is asked when it waits.
            Polled::Turn => Poll::Pending,
            Polled::Pending => {
                if let Poll::Ready(Err(step)) = asked.tell(&mut self.wire, &self.client, cx) {
                    return Poll::Ready(Err(step));
                }
                self.poll_gone(cx)
            }
        }
    }

    /// Begins to answer, behind what is left of interim answers.
    fn answer(&mut self, cx: &mut Context<'_>) -> Result<(), Step> {
        let State::Ready(ready) = std::mem::replace(&mut self.state, State::Waits) else {
            return Ok(());
        };
        let Ready { response, mut said, told } = ready;
        let (continues, is_left) = {
            let mut wire = self.wire.lock();
            (wire.answered(), wire.is_left())
        };
        let (head, body) = response.into_parts();
        said.persists &= !self.leaves && !is_left;
        let interim = &self.client.interim;
        let write = |text: &mut Vec<u8>, body: &AnswerBody| {
            text.extend_from_slice(&told.unwrap_or_default());
            // Its body was asked for: it would be waited for.
            text.extend_from_slice(if continues { CONTINUE } else { b"" });
            if interim.is_waiting() {
                text.extend_from_slice(&interim.take());
            }
            answer::write(&head, body, &mut said, text)
        };
        let (sending, polled) = Sending::begin(write, body, &mut self.wire, cx);
        spare::give(head.headers);
        match polled {
            Poll::Ready(sent) => {
                drop(sending);
                self.sent(sent, said)
            }
            Poll::Pending => {
                self.state = State::Answered(sending, said);
                Ok(())
            }
        }
    }

    /// An answer was sent, or it broke off.
    fn sent(&mut self, sent: Result<(), Unsent>, said: Said) -> Result<(), Step> {
        // With the state before, the account of the request is closed.
        self.state = State::Settles(said);
        sent.map_err(|_unsent| Over::Broken.into())
    }

    /// Whatever comes next, an instance may have answered before it has all of its request, and want it.
    fn poll_settled(&mut self, said: Said, cx: &mut Context<'_>) -> Poll<Result<(), Step>> {
        let settled = self.wire.poll_settled(cx);
        if settled.is_pending() && said.ends_by_close {
            // Nothing else tells the client that it has all of its answer. With TLS it may take a while.
            let _ended = Pin::new(&mut self.wire).poll_shutdown(cx);
        }
        match ready!(settled) {
            Settled::Clear if said.persists => {
                self.state = State::Waits;
                Poll::Ready(Ok(()))
            }
            Settled::Clear if said.is_last && self.wire.lock().input.is_empty() => {
                Poll::Ready(Err(Over::Parted.into()))
            }
            Settled::Clear | Settled::Unread => Poll::Ready(Err(Over::Finished.into())),
        }
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Step>> {
        self.wire.lock().poll_gone(cx).map(|()| Err(Over::Broken.into()))
    }
}

impl Asked {
    /// Writes what goes before the answer (RFC 9110 section 15.2).
    fn tell(
        &mut self,
        wire: &mut Access,
        client: &Client,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Step>> {
        loop {
            let Some(told) = &mut self.told else {
                let continues = wire.lock().continues(cx.waker());
                if !continues && !client.interim.is_waiting() {
                    return Poll::Ready(Ok(()));
                }
                let mut text = BytesMut::from(if continues { CONTINUE } else { b"" });
                text.extend_from_slice(&client.interim.take());
                self.told = Some(text.freeze());
                continue;
            };
            let wire = Pin::new(&mut *wire);
            if told.is_empty() {
                ready!(wire.poll_flush(cx)).map_err(|_failed| Over::Broken)?;
                self.told = None;
                continue;
            }
            match ready!(wire.poll_write(cx, told)) {
                Ok(size @ 1..) => told.advance(size),
                Ok(0) | Err(_) => return Poll::Ready(Err(Over::Broken.into())),
            }
        }
    }
}

/// What comes next, where it may be anything.
fn parse(input: &mut Bytes, client: &Client, limits: Limits) -> Result<Option<Head>, Stop> {
    if input.starts_with(b"P") && client.pace.is_fresh() {
        // Whoever begins so has said nothing else; with TLS the handshake told what is spoken (RFC 9113
        // section 3.2), and it is refused.
        if input.starts_with(PREFACE) {
            return Err(Stop::Http2);
        }
        if PREFACE.starts_with(input) {
            return Ok(None);
        }
    }
    head::parse(input, limits).map_err(Stop::Unreadable)
}
