//! Reads what comes into memory that is warm, and keeps what was not used of it.
//!
//! A worker reads all its connections by one buffer. What is small is copied from there to a block that
//! many messages share; what is large is lent out where it was read.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, ready};

use bytes::{BufMut, Bytes, BytesMut};
use memchr::memchr;
use tokio::io::{AsyncRead, AsyncReadExt};

/// The most that is read at once. On a stream of HTTP/2 hyper takes two such parts ahead of its client,
/// and with the last of them a client that takes nothing is no longer told from one that has it all.
const MOST: usize = 32 * 1024;
/// With less room than this left, it is made anew.
const LEAST: usize = 16 * 1024;
/// What is no larger is copied: who takes it slowly holds a block, not the buffer.
const SMALL: usize = 2 * 1024;
/// The size of a block.
const BLOCK: usize = 16 * 1024;

thread_local! {
    /// The buffer and the block.
    static MEMORY: RefCell<[BytesMut; 2]> = RefCell::default();
}

/// What comes next; nothing at the end of the connection.
pub fn read(wire: &mut (impl AsyncRead + Unpin), cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
    MEMORY.with_borrow_mut(|[buffer, block]| {
        if buffer.capacity() < LEAST {
            buffer.reserve(MOST);
        }
        // It may have been given more room than it asked for.
        let mut room = (&mut *buffer).limit(MOST);
        let size = ready!(pin!(wire.read_buf(&mut room)).poll(cx))?;
        if size > SMALL {
            return Poll::Ready(Ok(buffer.split().freeze()));
        }
        if block.capacity() < size {
            block.reserve(BLOCK);
        }
        block.extend_from_slice(buffer);
        buffer.clear();
        Poll::Ready(Ok(block.split().freeze()))
    })
}

/// What came and was not used yet.
#[derive(Debug, Default)]
pub struct Input {
    /// What a body may be taken off.
    pub came: Bytes,
    /// The beginning of a head whose end has not come.
    started: BytesMut,
}

impl Input {
    /// What came before anybody looked at it.
    pub fn new(came: Bytes) -> Self {
        Self { came, started: BytesMut::new() }
    }

    /// Whether nothing came.
    pub fn is_empty(&self) -> bool {
        self.came.is_empty() && self.started.is_empty()
    }

    /// Bytes of a head whose end has not come.
    pub fn started(&self) -> usize {
        self.started.len()
    }

    /// All of it.
    pub fn into_bytes(self) -> Bytes {
        if self.started.is_empty() {
            return self.came;
        }
        let mut all = self.started;
        all.extend_from_slice(&self.came);
        all.freeze()
    }

    /// Takes a head off its front as `parse` does, if all of it is there. Most come whole; of one that
    /// does not, what came is kept.
    pub fn head<Head, Problem>(
        &mut self,
        parse: impl FnOnce(&mut Bytes) -> Result<Option<Head>, Problem>,
    ) -> Result<Option<Head>, Problem> {
        if self.came.is_empty() {
            return Ok(None);
        }
        if self.started.is_empty() {
            let head = parse(&mut self.came)?;
            if head.is_none() {
                self.started.extend_from_slice(&std::mem::take(&mut self.came));
            }
            return Ok(head);
        }
        // Looking again at each byte that comes alone would be the square of the work.
        let ends_line = memchr(b'\n', &self.came).is_some();
        self.started.extend_from_slice(&std::mem::take(&mut self.came));
        if !ends_line {
            return Ok(None);
        }
        let mut whole = std::mem::take(&mut self.started).freeze();
        let head = parse(&mut whole);
        match head {
            Ok(None) => {
                self.started = whole.try_into_mut().unwrap_or_else(|it| BytesMut::from(&it[..]));
            }
            Ok(Some(_)) | Err(_) => self.came = whole,
        }
        head
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What ends with a full stop.
    fn sentence(bytes: &mut Bytes) -> Result<Option<Bytes>, ()> {
        Ok(memchr(b'.', bytes).map(|end| bytes.split_to(end + 1)))
    }

    #[test]
    fn a_head_is_taken_when_its_last_line_has_come() {
        let mut input = Input::new(Bytes::from_static(b"a.b"));
        assert_eq!(input.head(sentence), Ok(Some(Bytes::from_static(b"a."))));
        for (more, expected) in [("c", None), (".d", None), ("\n", Some("bc."))] {
            assert_eq!(input.head(sentence), Ok(None));
            input.came = Bytes::from_static(more.as_bytes());
            let head = input.head(sentence).unwrap();
            assert_eq!(head.as_deref(), expected.map(str::as_bytes));
        }
        assert_eq!((input.started(), input.is_empty()), (0, false));
        assert_eq!(input.into_bytes(), "d\n");
    }
}
