//! The body of a message as it comes (RFC 9112 section 6.3).

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use crate::http1::Malformed;
use crate::http1::chunks::{Chunks, Step};

/// How the end of a body is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// So many bytes.
    Exactly(u64),
    /// By a chunk of no bytes.
    Chunked,
    /// By the end of the connection.
    UntilClose,
}

/// What is still to come of a body.
#[derive(Debug)]
pub enum Content {
    /// All has come.
    Nothing,
    /// So many bytes.
    Data(u64),
    /// Chunks.
    Chunks(Chunks),
    /// Whatever comes before the end of the connection.
    All,
    /// It broke off, or made no sense.
    Broken(Break),
}

/// How a body broke off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Break {
    /// No more of it comes.
    Cut,
    /// It makes no sense.
    Malformed,
}

/// What comes next of a body.
#[derive(Debug)]
pub enum Next {
    /// A part of it.
    Frame(Frame<Bytes>),
    /// Nothing: that was all.
    Over,
    /// Nothing, before more has come.
    More,
    /// Nothing any more.
    Broken(Break),
}

impl Content {
    /// A body of which nothing has come yet.
    pub fn new(length: Length) -> Self {
        match length {
            Length::Exactly(0) => Self::Nothing,
            Length::Exactly(size) => Self::Data(size),
            Length::Chunked => Self::Chunks(Chunks::default()),
            Length::UntilClose => Self::All,
        }
    }

    /// The same from somebody who may want to keep others busy.
    pub fn bounded(length: Length) -> Self {
        match length {
            Length::Chunked => Self::Chunks(Chunks::bounded()),
            Length::Exactly(_) | Length::UntilClose => Self::new(length),
        }
    }

    /// Takes its next part off the front of what came.
    pub fn next(&mut self, input: &mut Bytes) -> Next {
        match self {
            Self::Nothing => Next::Over,
            Self::Broken(how) => Next::Broken(*how),
            Self::Chunks(chunks) => match chunks.step(input) {
                Ok(Step::Data(data)) => Next::Frame(Frame::data(data)),
                Ok(Step::More) => Next::More,
                Ok(Step::Trailers(trailers)) => {
                    *self = Self::Nothing;
                    Next::Frame(Frame::trailers(trailers))
                }
                Ok(Step::Over) => {
                    *self = Self::Nothing;
                    Next::Over
                }
                Err(Malformed) => self.breaks(Break::Malformed),
            },
            Self::Data(_) | Self::All if input.is_empty() => Next::More,
            Self::Data(left) => {
                let part = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                let data = input.split_to(part);
                match *left - part as u64 {
                    0 => *self = Self::Nothing,
                    rest => *left = rest,
                }
                Next::Frame(Frame::data(data))
            }
            Self::All => Next::Frame(Frame::data(std::mem::take(input))),
        }
    }

    /// The connection has ended, well or not.
    pub fn end(&mut self, well: bool) {
        match self {
            Self::Nothing | Self::Broken(_) => {}
            Self::All if well => *self = Self::Nothing,
            Self::All | Self::Data(_) | Self::Chunks(_) => drop(self.breaks(Break::Cut)),
        }
    }

    /// Nobody is to take it for a whole one any more.
    pub fn breaks(&mut self, how: Break) -> Next {
        *self = Self::Broken(how);
        Next::Broken(how)
    }

    /// Whether nothing more comes.
    pub fn is_over(&self) -> bool {
        matches!(self, Self::Nothing)
    }

    /// What is known of how much comes.
    pub fn size_hint(&self) -> SizeHint {
        match self {
            Self::Nothing => SizeHint::with_exact(0),
            Self::Data(left) => SizeHint::with_exact(*left),
            Self::Chunks(_) | Self::All | Self::Broken(_) => SizeHint::default(),
        }
    }
}
