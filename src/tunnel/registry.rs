//! When tunnels and event streams must end: one table per worker, looked through by one task.
//!
//! Neither has a timer of its own. The table is swept each second, when the next end is due, and at
//! once when somebody nudges. Limits are those of the version as it is configured today.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

use crate::config::types::Websocket;
use crate::instance::{Cause, Departure, Instance};
use crate::observe::counters::TunnelEnd;
use crate::snapshot::{Live, Phase};
use crate::tunnel::frames::Sender;

/// Between two looks, at most.
const CALM: Duration = Duration::from_secs(1);
/// Between two looks, at least.
const STEP: Duration = Duration::from_millis(20);

/// Instances whose limits are kept during a look; among more, looking them up would cost as much.
const KNOWN: usize = 16;

/// A tunnel of which one side has ended its direction may be silent for this many seconds: a peer
/// that is gone for good says nothing more either.
const HALF_CLOSED_IDLE: u32 = 60;

/// The part of a row that its tunnel or stream holds: whether it has been told to end.
///
/// Instants are seconds of the registry.
#[derive(Debug)]
pub struct Entry {
    registry: Arc<Registry>,
    /// 0 while it may go on, else the place of the cause in [`TunnelEnd::ALL`] plus one.
    order: AtomicU8,
    /// Whether one side has ended its direction.
    half_closed: AtomicBool,
    /// Which sides to ping: one bit each.
    to_ping: AtomicU8,
    /// When each side last said anything.
    heard: [AtomicU32; 2],
    /// When each side was sent a Ping that it has not answered; 0 for none.
    pinged: [AtomicU32; 2],
    waker: Mutex<Option<Waker>>,
}

impl Entry {
    /// Why it must end, if it must; else `waker` is called when that changes, or a ping is due.
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

    /// One side said something.
    pub fn touch(&self, sender: Sender) {
        self.heard[sender as usize].store(self.second(), Ordering::Relaxed);
        self.pinged[sender as usize].store(0, Ordering::Relaxed);
    }

    /// Whether this side is to be pinged. Asking takes the order.
    pub fn take_ping(&self, side: Sender) -> bool {
        let bit = 1 << side as u8;
        // Looked at first: a tunnel asks whenever anything happens on it.
        self.to_ping.load(Ordering::Relaxed) & bit != 0
            && self.to_ping.fetch_and(!bit, Ordering::Relaxed) & bit != 0
    }

    /// A Ping is on its way to this side.
    pub fn pinged(&self, side: Sender) {
        self.pinged[side as usize].store(self.second().max(1), Ordering::Relaxed);
    }

    /// One side has ended its direction: what is left must not be silent for long.
    pub fn half_close(&self) {
        self.half_closed.store(true, Ordering::Relaxed);
    }

    fn second(&self) -> u32 {
        self.registry.second.load(Ordering::Relaxed)
    }

    fn tell(&self, end: TunnelEnd) {
        let told = |order: u8| (order == 0).then_some(end as u8 + 1);
        if self.order.fetch_update(Ordering::AcqRel, Ordering::Acquire, told).is_ok() {
            self.wake();
        }
    }

    fn ask_for_ping(&self, side: Sender) {
        self.to_ping.fetch_or(1 << side as u8, Ordering::Relaxed);
        self.wake();
    }

    fn wake(&self) {
        let waker = self.waker.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// What a row is about.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    /// A tunnel, which gets this share of the jitter taken off its lifetime.
    Tunnel(f32),
    /// An answer without an end. It is bounded by the idle limits of answers, and its client's
    /// library comes back by itself; only its instance's end is its end.
    Stream,
}

#[derive(Debug)]
struct Row {
    kind: Kind,
    started: Instant,
    /// When it leaves, and why, if its instance or the process does.
    leaves: Option<(Instant, TunnelEnd)>,
    /// What the session's token is remembered by, if it has one.
    session: Option<u64>,
    instance: Arc<Instance>,
    entry: Arc<Entry>,
}

/// The tunnels and streams of one worker.
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
    pub fn enter_tunnel(
        self: &Arc<Self>,
        instance: Arc<Instance>,
        session: Option<u64>,
        now: Instant,
    ) -> Arc<Entry> {
        self.enter(Kind::Tunnel(fastrand::f32()), instance, session, now)
    }

    /// Enters an answer without an end; it leaves the table when its entry is dropped.
    pub fn enter_stream(self: &Arc<Self>, instance: Arc<Instance>, now: Instant) -> Arc<Entry> {
        self.enter(Kind::Stream, instance, None, now)
    }

    fn enter(
        self: &Arc<Self>,
        kind: Kind,
        instance: Arc<Instance>,
        session: Option<u64>,
        now: Instant,
    ) -> Arc<Entry> {
        let second = self.second.load(Ordering::Relaxed);
        let entry = Arc::new(Entry {
            registry: Arc::clone(self),
            order: AtomicU8::new(0),
            half_closed: AtomicBool::new(false),
            to_ping: AtomicU8::new(0),
            heard: [AtomicU32::new(second), AtomicU32::new(second)],
            pinged: [AtomicU32::new(0), AtomicU32::new(0)],
            waker: Mutex::new(None),
        });
        let held = Arc::clone(&entry);
        let row = Row { kind, started: now, leaves: None, session, instance, entry: held };
        self.rows().push(row);
        entry
    }

    /// Tunnels in the table.
    pub fn count(&self) -> usize {
        self.rows().iter().filter(|row| row.kind != Kind::Stream).count()
    }

    /// Tells one tunnel of `instance` to end, so that its client goes elsewhere; whether there was
    /// one. `expect` is called before, with what its session's token is remembered by, if it has one:
    /// its client may be back at once.
    pub fn shed(&self, instance: &Arc<Instance>, expect: impl FnOnce(Option<u64>)) -> bool {
        let rows = self.rows();
        let may_go = |row: &&Row| {
            Arc::ptr_eq(&row.instance, instance) && row.kind != Kind::Stream && row.is_open()
        };
        let open = rows.iter().filter(may_go);
        let Some(row) = fastrand::choice(open.collect::<Vec<_>>()) else { return false };
        expect(row.session);
        row.entry.tell(TunnelEnd::Rebalanced);
        true
    }

    /// Tunnels of `instance` that have not been told to end.
    pub fn open(&self, instance: &Arc<Instance>) -> usize {
        let rows = self.rows();
        let here = rows.iter().filter(|row| Arc::ptr_eq(&row.instance, instance));
        here.filter(|row| row.kind != Kind::Stream && row.is_open()).count()
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
        let mut rows = self.rows();
        rows.retain(Row::is_held);
        schedule(&mut rows, phase, now);
        let mut next = CALM;
        let mut known = Limits::default();
        for row in rows.iter().filter(|row| row.is_open()) {
            let limits = known.of(row);
            match row.due(limits) {
                Some((due, end)) if due <= now => row.entry.tell(end),
                Some((due, _)) => next = next.min(due - now),
                None => {}
            }
            if let Some(limits) = limits {
                row.mind_silence(limits, second);
            }
        }
        next.max(STEP)
    }

    fn rows(&self) -> MutexGuard<'_, Vec<Row>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The limits of instances that were just looked at: many tunnels share few.
#[derive(Default)]
struct Limits(Vec<(*const Instance, Option<Arc<Websocket>>)>);

impl Limits {
    /// A tunnel's own limits; streams have none here.
    fn of(&mut self, row: &Row) -> Option<&Websocket> {
        if row.kind == Kind::Stream {
            return None;
        }
        let instance = Arc::as_ptr(&row.instance);
        let place = self.0.iter().position(|(known, _)| *known == instance);
        let place = place.unwrap_or_else(|| {
            if self.0.len() == KNOWN {
                self.0.clear();
            }
            let roster = row.instance.roster();
            self.0.push((instance, roster.map(|roster| Arc::clone(&roster.websocket()))));
            self.0.len() - 1
        });
        self.0[place].1.as_deref()
    }
}

impl Row {
    /// The tunnel or stream itself holds the other handle.
    fn is_held(&self) -> bool {
        Arc::strong_count(&self.entry) > 1
    }

    fn is_open(&self) -> bool {
        self.entry.order.load(Ordering::Relaxed) == 0 && self.is_held()
    }

    /// Its next end, and why.
    fn due(&self, limits: Option<&Websocket>) -> Option<(Instant, TunnelEnd)> {
        let lifetime = match (self.kind, limits) {
            (Kind::Tunnel(share), Some(limits)) => limits.max_lifetime.map(|lifetime| {
                let jitter = f64::from(limits.lifetime_jitter) / 10_000.0 * f64::from(share);
                (self.started + lifetime.mul_f64(1.0 - jitter), TunnelEnd::Lifetime)
            }),
            _ => None,
        };
        match (self.leaves, lifetime) {
            (Some(leaves), Some(expires)) => {
                Some(if leaves.0 <= expires.0 { leaves } else { expires })
            }
            (leaves, expires) => leaves.or(expires),
        }
    }

    /// Ends what says nothing, and pings a side that has said nothing for a while.
    fn mind_silence(&self, limits: &Websocket, second: u32) {
        let since = |instant: &AtomicU32| second.saturating_sub(instant.load(Ordering::Relaxed));
        let seconds = |limit: Duration| u32::try_from(limit.as_secs().max(1)).unwrap_or(u32::MAX);
        let silent = self.entry.heard.each_ref().map(since);
        let half_closed = self.entry.half_closed.load(Ordering::Relaxed);
        let limit = limits.idle_timeout.map_or(u32::MAX, seconds);
        let limit = if half_closed { limit.min(HALF_CLOSED_IDLE) } else { limit };
        if silent[0].min(silent[1]) > limit {
            return self.entry.tell(TunnelEnd::Idle);
        }
        let Some(interval) = limits.ping_interval.map(seconds) else { return };
        for side in [Sender::Client, Sender::Instance] {
            let pinged = &self.entry.pinged[side as usize];
            if pinged.load(Ordering::Relaxed) != 0 {
                if since(pinged) > interval {
                    self.entry.tell(TunnelEnd::PingTimeout);
                }
            } else if silent[side as usize] >= interval {
                self.entry.ask_for_ping(side);
            }
        }
    }

    /// The window in which it must leave, and why.
    fn departure(&self, phase: Phase) -> Option<(Instant, Instant, TunnelEnd)> {
        let leaving =
            self.instance.departure().map(|Departure { cause, from, until }| match cause {
                Cause::Dead => (from, until, TunnelEnd::Dead),
                Cause::Unready => (from, until, TunnelEnd::Unready),
                Cause::Removed => (from, until, TunnelEnd::Removed),
                Cause::Draining => (from, until, TunnelEnd::Draining),
                Cause::Disabled => (from, until, TunnelEnd::Disabled),
            });
        let draining = match phase {
            Phase::Serving => None,
            Phase::Draining { from, until, rest: _ } => Some((from, until, TunnelEnd::Shutdown)),
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
fn schedule(rows: &mut [Row], phase: Phase, now: Instant) {
    let mut fresh = Vec::new();
    for (place, row) in rows.iter_mut().enumerate() {
        match row.departure(phase) {
            // An instance that came back keeps its tunnels.
            None => row.leaves = None,
            // Another cause, or the same with less time than there was.
            Some(window)
                if row.leaves.is_none_or(|(at, end)| end != window.2 || at > window.1.max(now)) =>
            {
                fresh.push((place, window));
            }
            Some(_known) => {}
        }
    }
    let count = fresh.len() as f64;
    for (turn, (place, (from, until, end))) in fresh.into_iter().enumerate() {
        let share = (turn as f64 + fastrand::f64()) / count;
        // A tunnel that was opened since then has missed a part of it.
        let from = from.max(now);
        let moment = from + until.saturating_duration_since(from).mul_f64(share);
        rows[place].leaves = Some((moment, end));
    }
}
