//! One connection: a request goes out, an answer comes in, and then perhaps the next.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};
use http::{Method, Response};
use http_body::{Frame, SizeHint};
use tokio::io::{AsyncRead, ReadBuf};

use crate::instance::body::RequestBody;
use crate::instance::http1::Malformed;
use crate::instance::http1::answer::{self, Interim, LONGEST, Length, Parsed};
use crate::instance::http1::chunks::{Chunks, Step};
use crate::instance::http1::input::read;
use crate::instance::http1::request::Outgoing;
use crate::instance::http1::sending::{Sending, Unsent};
use crate::instance::stream::Wire;
use crate::tls::client::is_refusal;

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
    Going(Box<Sending>),
    /// The rest never will be.
    Ended(Unsent),
}

/// What is still to come of an answer's body.
#[derive(Debug)]
enum In {
    Nothing,
    /// So many bytes.
    Data(u64),
    Chunks(Chunks),
    /// Whatever comes before the end of the connection.
    All,
    /// It broke off.
    Broken,
}

/// A connection and what is said on it.
#[derive(Debug)]
pub(in crate::instance) struct Dialog {
    wire: Wire,
    /// The method of the request.
    method: Method,
    output: Out,
    body: In,
    /// What came and was not used yet.
    input: Bytes,
    /// The beginning of a head whose end has not come.
    started: BytesMut,
    /// Whether another request may follow.
    persists: bool,
}

impl Dialog {
    pub(in crate::instance) fn new(wire: Wire) -> Self {
        Self {
            wire,
            method: Method::GET,
            output: Out::Done,
            body: In::Nothing,
            input: Bytes::new(),
            started: BytesMut::new(),
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
        let (sending, polled) = Sending::begin(head, body, &mut self.wire, cx);
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
            match self.parse().map_err(|Malformed| Failed::Malformed)? {
                Parsed::Interim(told) => interim(told),
                Parsed::Final(head) => {
                    self.persists = head.persists;
                    self.body = match head.length {
                        Length::Exactly(0) => In::Nothing,
                        Length::Exactly(size) => In::Data(size),
                        Length::Chunked => In::Chunks(Chunks::default()),
                        Length::UntilClose => In::All,
                    };
                    return Poll::Ready(Ok(head.response));
                }
                Parsed::Partial => {
                    let came = ready!(read(&mut self.wire, cx));
                    self.input = came.map_err(|error| self.failed(&error))?;
                    if self.input.is_empty() {
                        return Poll::Ready(Err(self.failed(&io::ErrorKind::UnexpectedEof.into())));
                    }
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

    /// The next head of what came. Most come whole; of one that does not, what came is kept.
    fn parse(&mut self) -> Result<Parsed, Malformed> {
        if self.input.is_empty() {
            return Ok(Parsed::Partial);
        }
        if self.started.is_empty() {
            let parsed = answer::parse(&mut self.input, &self.method)?;
            if let Parsed::Partial = parsed {
                self.started.extend_from_slice(&std::mem::take(&mut self.input));
            }
            return Ok(parsed);
        }
        let came = std::mem::take(&mut self.input);
        self.started.extend_from_slice(&came);
        // Looking again at each byte that comes alone would be the square of the work.
        if memchr::memchr(b'\n', &came).is_some() && answer::is_whole(&self.started)? {
            self.input = std::mem::take(&mut self.started).freeze();
            return answer::parse(&mut self.input, &self.method);
        }
        if self.started.len() > LONGEST { Err(Malformed) } else { Ok(Parsed::Partial) }
    }

    /// The next part of the answer's body.
    pub(in crate::instance) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        let _sent = self.poll_send(cx);
        if matches!(self.output, Out::Ended(Unsent::Broken)) && !self.is_over() {
            self.body = In::Broken;
        }
        loop {
            let found = match &mut self.body {
                In::Nothing => return Poll::Ready(None),
                In::Broken => return Poll::Ready(Some(Err(BrokenOff))),
                In::Chunks(chunks) => match chunks.step(&mut self.input) {
                    Ok(Step::Data(data)) => Some(Frame::data(data)),
                    Ok(Step::More) => None,
                    Ok(Step::Trailers(trailers)) => {
                        self.body = In::Nothing;
                        Some(Frame::trailers(trailers))
                    }
                    Ok(Step::Over) => {
                        self.body = In::Nothing;
                        return Poll::Ready(None);
                    }
                    Err(Malformed) => {
                        self.body = In::Broken;
                        continue;
                    }
                },
                In::Data(left) if !self.input.is_empty() => {
                    let part = usize::try_from(*left).unwrap_or(usize::MAX).min(self.input.len());
                    let data = self.input.split_to(part);
                    match *left - part as u64 {
                        0 => self.body = In::Nothing,
                        rest => *left = rest,
                    }
                    Some(Frame::data(data))
                }
                In::All if !self.input.is_empty() => {
                    Some(Frame::data(std::mem::take(&mut self.input)))
                }
                In::Data(_) | In::All => None,
            };
            if let Some(frame) = found {
                return Poll::Ready(Some(Ok(frame)));
            }
            match ready!(read(&mut self.wire, cx)) {
                Ok(came) if !came.is_empty() => self.input = came,
                Ok(_end) if matches!(self.body, In::All) => self.body = In::Nothing,
                Ok(_) | Err(_) => self.body = In::Broken,
            }
        }
    }

    /// Whether nothing more comes of the answer's body.
    pub(in crate::instance) fn is_over(&self) -> bool {
        matches!(self.body, In::Nothing)
    }

    /// What is known of how much comes.
    pub(in crate::instance) fn size_hint(&self) -> SizeHint {
        match &self.body {
            In::Nothing => SizeHint::with_exact(0),
            In::Data(left) => SizeHint::with_exact(*left),
            In::Chunks(_) | In::All | In::Broken => SizeHint::default(),
        }
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
        (self.wire, self.input)
    }
}
