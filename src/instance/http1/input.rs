//! Reads an instance's bytes into memory that is warm.
//!
//! A worker reads all its instances by one buffer. What is small is copied from there to a block that
//! many answers share; what is large is lent out where it was read.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, ready};

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::AsyncReadExt;

use crate::instance::stream::Wire;

/// The most that is read at once. On a stream of HTTP/2 hyper takes two such parts ahead of its client,
/// and with the last of them a client that takes nothing is no longer told from one that has it all.
const MOST: usize = 32 * 1024;
/// With less room than this left, it is made anew.
const LEAST: usize = 16 * 1024;
/// What is no larger is copied: a client that takes its answer slowly holds a block, not the buffer.
const SMALL: usize = 2 * 1024;
/// The size of a block.
const BLOCK: usize = 16 * 1024;

thread_local! {
    /// The buffer and the block.
    static MEMORY: RefCell<[BytesMut; 2]> = RefCell::default();
}

/// What comes next; nothing at the end of the connection.
pub(in crate::instance) fn read(wire: &mut Wire, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
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
