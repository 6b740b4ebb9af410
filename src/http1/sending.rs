//! A message on its way: its head, then its body as it comes, framed as its head says.
//!
//! What is ready together goes out together. Nothing is taken of a body before what was taken last
//! is written, so that whoever takes it slowly holds back whoever sends it.

use std::cell::RefCell;
use std::io::{IoSlice, Write as _};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::Body;
use tokio::io::AsyncWrite;

use crate::http1::fields::line;

/// Data of no more than this is copied, to go out with what is before and behind it.
const SMALL: usize = 4 * 1024;
/// No more is put together.
const ENOUGH: usize = 16 * 1024;

thread_local! {
    /// Where text is put together. Most of it is written at once, and then nothing of it is kept.
    static TEXT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// How a body is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    Nothing,
    /// So many bytes are still to come.
    Length(u64),
    /// By chunks (RFC 9112 section 7.1).
    Chunks,
    /// By chunks, for somebody who wants no trailers (RFC 9110 section 6.5.1).
    BareChunks,
    /// By the end of the connection.
    UntilClose,
}

/// Why no more of a message goes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsent {
    /// The connection takes nothing, and never took any of it.
    Whole,
    /// It takes no more.
    Rest,
    /// Its body broke off: it must not look like a whole one.
    Broken,
    /// Nobody wants the rest: an answer came that does without.
    Unwanted,
}

/// What is still to be sent.
#[derive(Debug)]
pub struct Sending<Content> {
    /// What is to be written before more is taken of the body: text, data, and the end of a chunk.
    text: Bytes,
    data: Bytes,
    end: &'static [u8],
    body: Content,
    framing: Framing,
    /// Whether all of the body was taken.
    taken: bool,
    /// Whether anything was written.
    begun: bool,
}

/// Puts text together. Whoever does may come to another message that is put together meanwhile.
fn put_together<T>(work: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    let mut text = TEXT.take();
    text.clear();
    let done = work(&mut text);
    TEXT.set(text);
    done
}

impl<Content> Sending<Content>
where
    Content: Body<Data = Bytes, Error: Into<Unsent>> + Unpin,
{
    /// Begins with the head that `write` writes, and goes as far as it can.
    pub fn begin(
        write: impl FnOnce(&mut Vec<u8>, &Content) -> Framing,
        body: Content,
        wire: &mut (impl AsyncWrite + Unpin),
        cx: &mut Context<'_>,
    ) -> (Self, Poll<Result<(), Unsent>>) {
        put_together(|text| {
            let framing = write(text, &body);
            let mut new = Self {
                text: Bytes::new(),
                data: Bytes::new(),
                end: b"",
                body,
                framing,
                taken: framing == Framing::Nothing,
                begun: false,
            };
            let polled = match new.take(text, cx) {
                Ok(()) => new.write_on(text, wire, cx),
                Err(unsent) => Poll::Ready(Err(unsent)),
            };
            (new, polled)
        })
    }

    /// Goes on; ready when all is written.
    pub fn poll(
        &mut self,
        wire: &mut (impl AsyncWrite + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Unsent>> {
        put_together(|text| {
            text.extend_from_slice(&std::mem::take(&mut self.text));
            self.write_on(text, wire, cx)
        })
    }

    /// `text` is what comes first, and is empty or kept afterwards.
    fn write_on(
        &mut self,
        text: &mut Vec<u8>,
        wire: &mut (impl AsyncWrite + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Unsent>> {
        loop {
            if self.is_written(text) {
                self.take(text, cx)?;
            }
            if self.is_written(text) {
                // What TLS has made of it may wait for room in the socket.
                let flushed = ready!(Pin::new(&mut *wire).poll_flush(cx));
                flushed.map_err(|_| self.cut())?;
                return if self.taken { Poll::Ready(Ok(())) } else { Poll::Pending };
            }
            ready!(self.write(text, wire, cx))?;
            text.clear();
        }
    }

    /// Whether nothing is left of what was taken, `text` being the first of it.
    fn is_written(&self, text: &[u8]) -> bool {
        text.is_empty() && self.data.is_empty() && self.end.is_empty()
    }

    fn cut(&self) -> Unsent {
        if self.begun { Unsent::Rest } else { Unsent::Whole }
    }

    /// Writes all that was taken. What is left of `text` is kept.
    fn write(
        &mut self,
        text: &[u8],
        wire: &mut (impl AsyncWrite + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Unsent>> {
        let mut text = text;
        while !self.is_written(text) {
            let wire = Pin::new(&mut *wire);
            let polled = match self.data.is_empty() && self.end.is_empty() {
                true => wire.poll_write(cx, text),
                false => {
                    let parts = [text, &self.data, self.end].map(IoSlice::new);
                    wire.poll_write_vectored(cx, &parts)
                }
            };
            let mut size = match polled {
                Poll::Ready(Ok(size)) if size > 0 => size,
                Poll::Ready(Ok(_) | Err(_)) => return Poll::Ready(Err(self.cut())),
                Poll::Pending => {
                    self.text = Bytes::copy_from_slice(text);
                    return Poll::Pending;
                }
            };
            self.begun = true;
            let part = size.min(text.len());
            text = &text[part..];
            size -= part;
            let part = size.min(self.data.len());
            self.data.advance(part);
            self.end = &self.end[size - part..];
        }
        Poll::Ready(Ok(()))
    }

    /// Takes of the body what there is, up to what is enough at once.
    fn take(&mut self, text: &mut Vec<u8>, cx: &mut Context<'_>) -> Result<(), Unsent> {
        while !self.taken && text.len() < ENOUGH && self.data.is_empty() {
            let frame = match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(None) => return self.finish(None, text),
                Poll::Ready(Some(Err(broken))) => return Err(broken.into()),
                Poll::Ready(Some(Ok(frame))) => frame,
            };
            match frame.into_data() {
                Ok(data) => self.put(data, text)?,
                Err(frame) => return self.finish(frame.into_trailers().ok().as_ref(), text),
            }
            if self.data.is_empty() && self.body.is_end_stream() {
                return self.finish(None, text);
            }
        }
        Ok(())
    }

    fn put(&mut self, data: Bytes, text: &mut Vec<u8>) -> Result<(), Unsent> {
        // A chunk of no bytes would be the last one.
        if data.is_empty() {
            return Ok(());
        }
        let end: &[u8] = match &mut self.framing {
            Framing::Length(left) => {
                *left = left.checked_sub(data.len() as u64).ok_or(Unsent::Broken)?;
                b""
            }
            Framing::UntilClose | Framing::Nothing => b"",
            Framing::Chunks | Framing::BareChunks => {
                // Nothing that is written to memory fails.
                let _ = write!(text, "{:x}\r\n", data.len());
                b"\r\n"
            }
        };
        if data.len() <= SMALL {
            text.extend_from_slice(&data);
            text.extend_from_slice(end);
        } else {
            (self.data, self.end) = (data, end);
        }
        Ok(())
    }

    fn finish(&mut self, trailers: Option<&HeaderMap>, text: &mut Vec<u8>) -> Result<(), Unsent> {
        self.taken = true;
        match self.framing {
            Framing::Nothing | Framing::UntilClose | Framing::Length(0) => Ok(()),
            Framing::Length(_) => Err(Unsent::Broken),
            Framing::Chunks | Framing::BareChunks => {
                text.extend_from_slice(b"0\r\n");
                let trailers = trailers.filter(|_| self.framing == Framing::Chunks);
                for (name, value) in trailers.into_iter().flatten() {
                    line(text, name, value.as_bytes());
                }
                text.extend_from_slice(b"\r\n");
                Ok(())
            }
        }
    }
}
