//! Connections to an instance, kept while idle and given out again.
//!
//! A pool belongs to one worker, so its lock is never contended. It goes with its instance: when
//! the last handle drops, so do the connections.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::instance::link::Link;
use crate::instance::trunk::{Seat, Trunk};
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

#[derive(Debug)]
struct Kept {
    trunk: Arc<Trunk>,
    /// Since when no request was found on it.
    idle: Option<Instant>,
}

/// Connections of one worker to one instance: those that take one request at a time while they are
/// idle, the last used on top, and all that take many.
#[derive(Debug, Default)]
pub struct Pool {
    idle: Mutex<Vec<Idle>>,
    trunks: Mutex<Vec<Kept>>,
    /// Held by whoever opens a trunk, so that others wait for that one.
    pub(super) opening: tokio::sync::Mutex<()>,
    /// Counts the times that connections were made in another way from then on.
    epoch: AtomicU64,
}

impl Pool {
    /// The connection used last that still stands, of those that began as `introduced` says.
    /// `replayable` says that a request which finds it dead could go out again.
    pub fn take(
        &self,
        now: Instant,
        replayable: bool,
        introduced: Option<&Introduction>,
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

    /// Keeps a connection that is at rest, unless it was made as none is any more.
    pub fn give(&self, link: Box<Link>, now: Instant) {
        let mut idle = self.lock();
        // What a connection was made as counts, and those of clients that are gone must not keep out
        // those of the others.
        if link.epoch != self.epoch() {
            return;
        }
        if idle.len() >= MAX_IDLE && link.introduction().is_some() {
            idle.remove(0);
        }
        if idle.len() < MAX_IDLE {
            idle.push(Idle { link, since: now });
        }
    }

    /// A place for one more request on a connection that takes many.
    pub(super) fn seat(&self) -> Option<Seat> {
        self.trunks().iter().find_map(|kept| kept.trunk.seat())
    }

    /// Keeps a connection that was just opened, unless it was made as none is any more; its first
    /// place is taken.
    pub(super) fn add(&self, trunk: &Arc<Trunk>) -> Seat {
        let seat = Seat::first(trunk);
        let mut trunks = self.trunks();
        if trunk.epoch == self.epoch() {
            trunks.push(Kept { trunk: Arc::clone(trunk), idle: None });
        }
        seat
    }

    /// Closes what has idled too long, and lets go of what the instance has closed.
    pub fn sweep(&self, now: Instant) {
        self.trunks().retain_mut(|kept| {
            if !kept.trunk.is_idle() {
                kept.idle = None;
                return kept.trunk.stands();
            }
            let since = *kept.idle.get_or_insert(now);
            now.saturating_duration_since(since) < MAX_IDLE_TIME && kept.trunk.stands()
        });
        self.lock().retain_mut(|connection| {
            now.saturating_duration_since(connection.since) < MAX_IDLE_TIME
                && connection.link.stands()
        });
    }

    /// Closes all that is idle.
    pub fn clear(&self) {
        self.lock().clear();
        self.trunks().clear();
    }

    /// What a connection that is opened now belongs to.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Connections are made in another way from now on: keeps none that was made before.
    pub(super) fn renew(&self) {
        let mut idle = self.lock();
        let mut trunks = self.trunks();
        self.epoch.fetch_add(1, Ordering::AcqRel);
        idle.clear();
        trunks.clear();
    }

    fn trunks(&self) -> MutexGuard<'_, Vec<Kept>> {
        self.trunks.lock().unwrap_or_else(PoisonError::into_inner)
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
