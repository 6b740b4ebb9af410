//! The body of an instance's answer, whichever way it comes.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::instance::http1::dialog::BrokenOff;
use crate::instance::link::Link;
use crate::instance::relay::Relay;
use crate::instance::trunk::Received;

/// The body of an answer.
#[derive(Debug)]
pub enum Coming {
    /// By a connection of its own.
    Http1(Box<Link>),
    /// By one that its request is still on, moved by another task.
    Relayed(Box<Relay>),
    /// By a stream of one that others share.
    Http2(Box<Received>),
    /// By nothing: these are Burdock's own few words in an instance's place.
    Own(Option<Bytes>),
}

impl Coming {
    /// Its next part.
    pub fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        match self {
            Self::Http1(link) => link.poll_frame(cx),
            Self::Relayed(relay) => relay.poll_frame(cx),
            Self::Http2(body) => Pin::new(&mut **body).poll_frame(cx).map_err(|_broken| BrokenOff),
            Self::Own(words) => Poll::Ready(words.take().map(|words| Ok(Frame::data(words)))),
        }
    }

    /// Whether nothing more comes.
    pub fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(link) => link.is_end_stream(),
            Self::Relayed(relay) => relay.is_end_stream(),
            Self::Http2(body) => body.is_end_stream(),
            Self::Own(words) => words.is_none(),
        }
    }

    /// How much comes.
    pub fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(link) => link.size_hint(),
            Self::Relayed(relay) => relay.size_hint(),
            Self::Http2(body) => body.size_hint(),
            Self::Own(words) => {
                SizeHint::with_exact(words.as_ref().map_or(0, |words| words.len() as u64))
            }
        }
    }
}
