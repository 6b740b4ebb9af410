//! When tunnels must end: one table per worker, looked through by one task.
//!
//! A tunnel has no timer of its own. The table is swept each second, and at once when somebody
//! nudges; while closes are due, in short steps, so that they come spread over their window.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

use crate::config::types::Websocket;
use crate::instance::{Cause, Departure, Instance};
use crate::observe::counters::TunnelEnd;
use crate::snapshot::{Live, Phase};

/// Between two looks while nothing is due.
const CALM: Duration = Duration::from_secs(1);
/// Between two looks while closes are due within [`CALM`].
const STEP: Duration = Duration::from_millis(20);

/// A tunnel of which one side has ended its direction may be silent for this many seconds: a peer
/// that is gone for good says nothing more either.
const HALF_CLOSED_IDLE: u32 = 60;

/// A tunnel's side of its row: whether it has been told to end.
#[derive(Debug)]
pub struct Entry {
    registry: Arc<Registry>,
    /// 0 while it may go on, else the place of the cause in [`TunnelEnd::ALL`] plus one.
    order: AtomicU8,
    /// Whether one side has ended its direction.
    half_closed: AtomicBool,
    /// The registry's second in which a byte last passed.
    active: AtomicU32,
    waker: Mutex<Option<Waker>>,
}

impl Entry {
    /// Why it must end, if it must; else `waker` is called when that changes.
    pub fn order(&self, waker: &Waker) -> Option<TunnelEnd> {
        let read = || match self.order.load(Ordering::Acquire) {
            0 => None,
            place => Some(TunnelEnd::ALL[usize::from(place) - 1]),
        };
        if let Some(end) = read() {
            return Some(end);
        }
        let mut kept = self.waker.lock().unwrap_or_else(PoisonError::into_inner);
        if !kept.as_ref().is_some_and(|kept| kept.will_wake(waker)) {
            *kept = Some(waker.clone());
        }
        read()
    }

    /// Bytes passed.
    pub fn touch(&self) {
        self.active.store(self.registry.second.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// One side has ended its direction: what is left must not be silent for long.
    pub fn half_close(&self) {
        self.half_closed.store(true, Ordering::Relaxed);
    }

    fn tell(&self, end: TunnelEnd) {
        self.order.store(end as u8 + 1, Ordering::Release);
        let waker = self.waker.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

#[derive(Debug)]
struct Row {
    /// The end of its lifetime.
    expires: Option<Instant>,
    /// When it leaves, and why, if its instance or the process does.
    leaves: Option<(Instant, TunnelEnd)>,
    /// In whole seconds; `u32::MAX` for none.
    idle_timeout: u32,
    instance: Arc<Instance>,
    entry: Arc<Entry>,
}

/// The tunnels of one worker.
#[derive(Debug)]
pub struct Registry {
    start: Instant,
    second: AtomicU32,
    rows: Mutex<Vec<Row>>,
}

impl Registry {
    /// An empty table.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            start: Instant::now(),
            second: AtomicU32::new(0),
            rows: Mutex::new(Vec::new()),
        })
    }

    /// Enters a tunnel; it leaves the table when its entry is dropped.
    pub fn enter(
        self: &Arc<Self>,
        instance: Arc<Instance>,
        limits: &Websocket,
        now: Instant,
    ) -> Arc<Entry> {
        let expires = limits.max_lifetime.map(|lifetime| {
            let jitter = f64::from(limits.lifetime_jitter) / 10_000.0 * fastrand::f64();
            now + lifetime.mul_f64(1.0 - jitter)
        });
        let idle = limits.idle_timeout.map_or(u64::MAX, |limit| limit.as_secs().max(1));
        let entry = Arc::new(Entry {
            registry: Arc::clone(self),
            order: AtomicU8::new(0),
            half_closed: AtomicBool::new(false),
            active: AtomicU32::new(self.second.load(Ordering::Relaxed)),
            waker: Mutex::new(None),
        });
        let idle_timeout = u32::try_from(idle).unwrap_or(u32::MAX);
        let row = Row { expires, leaves: None, idle_timeout, instance, entry: Arc::clone(&entry) };
        self.rows.lock().unwrap_or_else(PoisonError::into_inner).push(row);
        entry
    }

    /// Tunnels in the table.
    pub fn count(&self) -> usize {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Ends tunnels when they are due, for as long as the process runs.
    pub async fn watch(self: Arc<Self>, live: Arc<Live>, worker: usize) {
        let phase = live.phase();
        loop {
            let next = self.sweep(*phase.borrow(), Instant::now());
            tokio::select! {
                () = tokio::time::sleep(next) => {}
                () = live.nudged(worker) => {}
            }
        }
    }

    /// Closes what is due; how long nothing else will be.
    fn sweep(&self, phase: Phase, now: Instant) -> Duration {
        let second = now.saturating_duration_since(self.start).as_secs();
        let second = u32::try_from(second).unwrap_or(u32::MAX);
        self.second.store(second, Ordering::Relaxed);
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        // The tunnel itself holds the other handle.
        rows.retain(|row| Arc::strong_count(&row.entry) > 1);
        schedule(&mut rows, phase);
        let mut soon = false;
        for row in rows.iter_mut() {
            match row.due() {
                Some((due, end)) if due <= now => row.entry.tell(end),
                _ if row.is_idle(second) => row.entry.tell(TunnelEnd::Idle),
                Some((due, _)) => soon |= due < now + CALM,
                None => {}
            }
        }
        if soon { STEP } else { CALM }
    }
}

impl Row {
    /// Its next end, and why.
    fn due(&self) -> Option<(Instant, TunnelEnd)> {
        let expires = self.expires.map(|expires| (expires, TunnelEnd::Lifetime));
        match (self.leaves, expires) {
            (Some(leaves), Some(expires)) => {
                Some(if leaves.0 <= expires.0 { leaves } else { expires })
            }
            (leaves, expires) => leaves.or(expires),
        }
    }

    fn is_idle(&self, second: u32) -> bool {
        let silent = second.saturating_sub(self.entry.active.load(Ordering::Relaxed));
        let limit = match self.entry.half_closed.load(Ordering::Relaxed) {
            true => self.idle_timeout.min(HALF_CLOSED_IDLE),
            false => self.idle_timeout,
        };
        silent > limit
    }

    /// The window in which it must leave, and why.
    fn departure(&self, phase: Phase) -> Option<(Instant, Instant, TunnelEnd)> {
        let leaving =
            self.instance.departure().map(|Departure { cause, from, until }| match cause {
                Cause::Dead => (from, until, TunnelEnd::Dead),
                Cause::Removed => (from, until, TunnelEnd::Removed),
            });
        let draining = match phase {
            Phase::Serving => None,
            Phase::Draining { from, until } => Some((from, until, TunnelEnd::Shutdown)),
        };
        match (leaving, draining) {
            (Some(leaving), Some(draining)) => {
                Some(if leaving.1 < draining.1 { leaving } else { draining })
            }
            (leaving, draining) => leaving.or(draining),
        }
    }
}

/// Gives each tunnel that must leave its moment: those that leave together get theirs evenly over
/// the window, so that their clients don't come back all at once.
fn schedule(rows: &mut [Row], phase: Phase) {
    let mut fresh = Vec::new();
    for (place, row) in rows.iter_mut().enumerate() {
        match row.departure(phase) {
            // An instance that came back keeps its tunnels.
            None => row.leaves = None,
            Some(window) if row.leaves.is_none_or(|(_, end)| end != window.2) => {
                fresh.push((place, window));
            }
            Some(_known) => {}
        }
    }
    let count = fresh.len() as f64;
    for (turn, (place, (from, until, end))) in fresh.into_iter().enumerate() {
        let share = (turn as f64 + fastrand::f64()) / count;
        let moment = from + until.saturating_duration_since(from).mul_f64(share);
        rows[place].leaves = Some((moment, end));
    }
}
