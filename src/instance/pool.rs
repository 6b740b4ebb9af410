//! Connections to an instance: opened, kept while idle, given out again.
//!
//! A pool belongs to one worker, so its lock is never contended. It goes with its instance: when
//! the last handle drops, so do the connections.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::instance::body::RequestBody;

/// Idle connections kept per worker and instance; more are closed.
const MAX_IDLE: usize = 256;
/// An idle connection is closed after this long.
const MAX_IDLE_TIME: Duration = Duration::from_secs(30);
/// A request that can't be tried again gets no connection that idled longer than this: the
/// instance may be about to close it. Node.js closes after 5 s, many others after 5 to 75.
const FRESH: Duration = Duration::from_secs(1);
/// The most that is read ahead of the client, and so the longest head of an answer.
const MAX_BUFFER: usize = 64 * 1024;

/// A connection that can take one request at a time.
pub type Sender = SendRequest<RequestBody>;

#[derive(Debug)]
struct Idle {
    sender: Sender,
    since: Instant,
}

/// Idle connections of one worker to one instance, the last used on top.
#[derive(Debug, Default)]
pub struct Pool(Mutex<Vec<Idle>>);

impl Pool {
    /// The connection used last that still stands. `replayable` says that a request which finds
    /// it dead could go out again.
    pub fn take(&self, now: Instant, replayable: bool) -> Option<Sender> {
        let mut idle = self.lock();
        while let Some(connection) = idle.pop() {
            let age = now.saturating_duration_since(connection.since);
            if !replayable && age > FRESH {
                idle.push(connection);
                return None;
            }
            if connection.sender.is_ready() && age < MAX_IDLE_TIME {
                return Some(connection.sender);
            }
        }
        None
    }

    /// Keeps a connection whose answer has been read to its end.
    pub fn give(&self, sender: Sender, now: Instant) {
        if sender.is_closed() {
            return;
        }
        let mut idle = self.lock();
        if idle.len() < MAX_IDLE {
            idle.push(Idle { sender, since: now });
        }
    }

    /// Closes what has idled too long.
    pub fn sweep(&self, now: Instant) {
        self.lock().retain(|connection| {
            !connection.sender.is_closed()
                && now.saturating_duration_since(connection.since) < MAX_IDLE_TIME
        });
    }

    /// Closes all that is idle.
    pub fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens a TCP connection. A name is looked up each time, so that a moved instance is found.
pub async fn open(address: &str) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Whether opening failed for want of something of Burdock's own, which says nothing of the
/// instance: descriptors, ports or memory.
pub fn is_own_fault(error: &io::Error) -> bool {
    let own = [libc::EMFILE, libc::ENFILE, libc::EADDRNOTAVAIL, libc::ENOBUFS, libc::ENOMEM];
    error.raw_os_error().is_some_and(|code| own.contains(&code))
}

/// The two halves of a connection: one sends requests, the other does the work when polled.
pub type Halves = (Sender, http1::Connection<TokioIo<TcpStream>, RequestBody>);

/// Speaks HTTP/1.1 over `stream`.
pub async fn handshake(stream: TcpStream) -> hyper::Result<Halves> {
    http1::Builder::new().max_buf_size(MAX_BUFFER).handshake(TokioIo::new(stream)).await
}
