//! Connections to an instance, kept while idle and given out again.
//!
//! A pool belongs to one worker, so its lock is never contended. It goes with its instance: when
//! the last handle drops, so do the connections.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::instance::link::Link;

/// Idle connections kept per worker and instance; more are closed.
const MAX_IDLE: usize = 256;
/// An idle connection is closed after this long.
const MAX_IDLE_TIME: Duration = Duration::from_secs(30);
/// A request that can't be tried again gets no connection that idled longer than this: the
/// instance may be about to close it. Node.js closes after 5 s, many others after 5 to 75.
const FRESH: Duration = Duration::from_secs(1);
#[derive(Debug)]
struct Idle {
    link: Box<Link>,
    since: Instant,
}

/// Idle connections of one worker to one instance, the last used on top.
#[derive(Debug, Default)]
pub struct Pool {
    idle: Mutex<Vec<Idle>>,
    /// Counts the times that connections were made in another way from then on.
    epoch: AtomicU64,
}

impl Pool {
    /// The connection used last that still stands. `replayable` says that a request which finds
    /// it dead could go out again.
    pub fn take(&self, now: Instant, replayable: bool) -> Option<Box<Link>> {
        let mut idle = self.lock();
        while let Some(mut connection) = idle.pop() {
            let age = now.saturating_duration_since(connection.since);
            if !replayable && age > FRESH {
                idle.push(connection);
                return None;
            }
            if age < MAX_IDLE_TIME && connection.link.stands() {
                return Some(connection.link);
            }
        }
        None
    }

    /// Keeps a connection that is at rest, unless it was made as none is any more.
    pub fn give(&self, link: Box<Link>, now: Instant) {
        let mut idle = self.lock();
        if idle.len() < MAX_IDLE && link.epoch == self.epoch() {
            idle.push(Idle { link, since: now });
        }
    }

    /// Closes what has idled too long, and lets go of what the instance has closed.
    pub fn sweep(&self, now: Instant) {
        self.lock().retain_mut(|connection| {
            now.saturating_duration_since(connection.since) < MAX_IDLE_TIME
                && connection.link.stands()
        });
    }

    /// Closes all that is idle.
    pub fn clear(&self) {
        self.lock().clear();
    }

    /// What a connection that is opened now belongs to.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Connections are made in another way from now on: keeps none that was made before.
    pub(super) fn renew(&self) {
        let mut idle = self.lock();
        self.epoch.fetch_add(1, Ordering::AcqRel);
        idle.clear();
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether opening failed for want of something of Burdock's own, which says nothing of the
/// instance: descriptors, ports or memory.
pub fn is_own_fault(error: &io::Error) -> bool {
    let own = [libc::EMFILE, libc::ENFILE, libc::EADDRNOTAVAIL, libc::ENOBUFS, libc::ENOMEM];
    error.raw_os_error().is_some_and(|code| own.contains(&code))
}
