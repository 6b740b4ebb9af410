//! The body of an instance's answer, whichever way it comes.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::instance::link::Link;
use crate::instance::trunk::Received;

/// The instance broke it off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Broken;

/// The body of an answer.
#[derive(Debug)]
pub enum Coming {
    /// By a connection of its own.
    Http1(Incoming),
    /// By a stream of one that others share.
    Http2(Box<Received>),
    /// By nothing: these are Burdock's own few words in an instance's place.
    Own(Option<Bytes>),
}

impl Coming {
    /// Its next part; with a `link`, that is driven for it.
    pub fn poll_frame(
        &mut self,
        link: Option<&mut Link>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match self {
            Self::Http1(body) => {
                let polled = match link {
                    Some(link) => link.poll_frame(body, cx),
                    None => Pin::new(body).poll_frame(cx),
                };
                polled.map_err(|_broken| Broken)
            }
            Self::Http2(body) => Pin::new(&mut **body).poll_frame(cx).map_err(|_broken| Broken),
            Self::Own(words) => Poll::Ready(words.take().map(|words| Ok(Frame::data(words)))),
        }
    }

    /// Whether nothing more comes.
    pub fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(body) => body.is_end_stream(),
            Self::Http2(body) => body.is_end_stream(),
            Self::Own(words) => words.is_none(),
        }
    }

    /// How much comes.
    pub fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(body) => body.size_hint(),
            Self::Http2(body) => body.size_hint(),
            Self::Own(words) => {
                SizeHint::with_exact(words.as_ref().map_or(0, |words| words.len() as u64))
            }
        }
    }
}
