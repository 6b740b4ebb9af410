//! One connection: a request goes out, an answer comes in, and then perhaps the next.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http::{Method, Response};
use http_body::{Frame, SizeHint};
use tokio::io::{AsyncRead, ReadBuf};

use crate::http1::Malformed;
use crate::http1::content::{Break, Content, Next};
use crate::http1::input::{Input, read};
use crate::http1::sending::{Sending, Unsent};
use crate::instance::body::RequestBody;
use crate::instance::http1::answer::{self, Interim, LONGEST, Parsed};
use crate::instance::http1::request::Outgoing;
use crate::instance::stream::Wire;
use crate::tls::client::is_refusal;
use crate::turn;

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failed {
    /// Nothing of the request went out.
    Unsent,
    /// What came is no answer.
    Malformed,
    /// The instance refused what Burdock showed of itself, and looked at nothing.
    Refused,
    /// The connection ended, or the client's body broke off.
    Cut,
}

/// The answer's body broke off, or made no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BrokenOff;

/// What is done about a request.
#[derive(Debug)]
enum Out {
    /// All of it was sent, or there is none.
    Done,
    /// Some of it is still to be sent.
    Going(Box<Sending<RequestBody>>),
    /// The rest never will be.
    Ended(Unsent),
}

/// A connection and what is said on it.
#[derive(Debug)]
pub(in crate::instance) struct Dialog {
    wire: Wire,
    /// The method of the request.
    method: Method,
    output: Out,
    body: Content,
    input: Input,
    /// Whether another request may follow.
    persists: bool,
}

impl Dialog {
    pub(in crate::instance) fn new(wire: Wire) -> Self {
        Self {
            wire,
            method: Method::GET,
            output: Out::Done,
            body: Content::Nothing,
            input: Input::default(),
            persists: true,
        }
    }

    /// Sends a request as far as that goes at once.
    pub(in crate::instance) fn begin(
        &mut self,
        head: &Outgoing<'_>,
        body: RequestBody,
        cx: &mut Context<'_>,
    ) {
        self.method = head.method.clone();
        let write = |text: &mut Vec<u8>, body: &RequestBody| head.write(body, text);
        let (sending, polled) = Sending::begin(write, body, &mut self.wire, cx);
        self.output = match polled {
            Poll::Ready(Ok(())) => Out::Done,
            Poll::Ready(Err(unsent)) => Out::Ended(unsent),
            Poll::Pending => Out::Going(Box::new(sending)),
        };
    }

    /// Sends what can be sent; ready when nothing more will be.
    pub(in crate::instance) fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Out::Going(sending) = &mut self.output {
            self.output = match ready!(sending.poll(&mut self.wire, cx)) {
                Ok(()) => Out::Done,
                Err(unsent) => Out::Ended(unsent),
            };
        }
        Poll::Ready(())
    }

    /// The head of the answer; `interim` gets what comes before it.
    ///
    /// A request that can't be sent is no reason not to read: an instance may have answered early, and
    /// closed.
    pub(in crate::instance) fn poll_head(
        &mut self,
        interim: &mut impl FnMut(Interim),
        cx: &mut Context<'_>,
    ) -> Poll<Result<Response<()>, Failed>> {
        let _sent = self.poll_send(cx);
        if let Out::Ended(Unsent::Broken) = self.output {
            return Poll::Ready(Err(Failed::Cut));
        }
        loop {
            let parsed = self.input.head(|input| answer::parse(input, &self.method));
            match parsed.map_err(|Malformed| Failed::Malformed)? {
                Some(Parsed::Interim(told)) => interim(told),
                Some(Parsed::Final(head)) => {
                    self.persists = head.persists;
                    self.body = Content::new(head.length);
                    return Poll::Ready(Ok(head.response));
                }
                None if self.input.started() > LONGEST => {
                    return Poll::Ready(Err(Failed::Malformed));
                }
                None => {
                    let came = ready!(read(&mut self.wire, cx));
                    self.input.came = came.map_err(|error| self.failed(&error))?;
                    if self.input.came.is_empty() {
                        return Poll::Ready(Err(self.failed(&io::ErrorKind::UnexpectedEof.into())));
                    }
                    return turn::end(cx);
                }
            }
        }
    }

    fn failed(&self, error: &io::Error) -> Failed {
        match self.output {
            _ if is_refusal(error) => Failed::Refused,
            Out::Ended(Unsent::Whole) => Failed::Unsent,
            Out::Ended(_) | Out::Going(_) | Out::Done => Failed::Cut,
        }
    }

    /// The next part of the answer's body.
    pub(in crate::instance) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        let _sent = self.poll_send(cx);
        if matches!(self.output, Out::Ended(Unsent::Broken)) && !self.is_over() {
            self.body.breaks(Break::Cut);
        }
        loop {
            match self.body.next(&mut self.input.came) {
                Next::Frame(frame) => return Poll::Ready(Some(Ok(frame))),
                Next::Over => return Poll::Ready(None),
                Next::Broken(_) => return Poll::Ready(Some(Err(BrokenOff))),
                Next::More => match ready!(read(&mut self.wire, cx)) {
                    Ok(came) if !came.is_empty() => self.input.came = came,
                    ended => self.body.end(ended.is_ok()),
                },
            }
        }
    }

    /// Whether nothing more comes of the answer's body.
    pub(in crate::instance) fn is_over(&self) -> bool {
        self.body.is_over()
    }

    /// What is known of how much comes.
    pub(in crate::instance) fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }

    /// Whether all was said, nothing came beyond, and another request may follow.
    pub(in crate::instance) fn is_at_rest(&self) -> bool {
        let is_over = matches!(self.output, Out::Done) && self.is_over();
        is_over && self.persists && self.input.is_empty()
    }

    /// Whether the instance has kept to that since, and has not closed. What comes unasked belongs to
    /// no request.
    pub(in crate::instance) fn stands(&mut self) -> bool {
        let mut byte = [0];
        match &mut self.wire {
            // Asks the system only when something has come.
            Wire::Plain(stream) => stream
                .get_ref()
                .try_read(&mut byte)
                .is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock),
            Wire::Tls(stream) => {
                let mut nobody = Context::from_waker(Waker::noop());
                Pin::new(stream).poll_read(&mut nobody, &mut ReadBuf::new(&mut byte)).is_pending()
            }
        }
    }

    /// The connection itself, and what was read of it beyond the answer.
    pub(in crate::instance) fn into_raw(self) -> (Wire, Bytes) {
        (self.wire, self.input.into_bytes())
    }
}
