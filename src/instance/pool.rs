//! Connections to an instance, kept while idle and given out again.
//!
//! A pool belongs to one worker, so its lock is never contended. It goes with its instance: when
//! the last handle drops, so do the connections.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::instance::link::Link;
use crate::proxy_protocol::Introduction;

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
pub struct Pool(Mutex<Vec<Idle>>);

impl Pool {
    /// The connection used last that still stands, of those that began as `introduced` says.
    /// `replayable` says that a request which finds it dead could go out again.
    pub fn take(
        &self,
        now: Instant,
        replayable: bool,
        introduced: Option<Introduction>,
    ) -> Option<Box<Link>> {
        let mut idle = self.lock();
        let fits = |connection: &Idle| connection.link.introduction() == introduced;
        while let Some(place) = idle.iter().rposition(fits) {
            let age = now.saturating_duration_since(idle[place].since);
            if !replayable && age > FRESH {
                return None;
            }
            let mut connection = idle.remove(place);
            if age < MAX_IDLE_TIME && connection.link.stands() {
                return Some(connection.link);
            }
        }
        None
    }

    /// Keeps a connection that is at rest.
    pub fn give(&self, link: Box<Link>, now: Instant) {
        let mut idle = self.lock();
        // Those of clients that are gone must not keep out those of the others.
        if idle.len() >= MAX_IDLE && link.introduction().is_some() {
            idle.remove(0);
        }
        if idle.len() < MAX_IDLE {
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

    fn lock(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether opening failed for want of something of Burdock's own, which says nothing of the
/// instance: descriptors, ports or memory.
pub fn is_own_fault(error: &io::Error) -> bool {
    let own = [libc::EMFILE, libc::ENFILE, libc::EADDRNOTAVAIL, libc::ENOBUFS, libc::ENOMEM];
    error.raw_os_error().is_some_and(|code| own.contains(&code))
}
