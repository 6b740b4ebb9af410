//! Requests that wait for a place at an instance.
//!
//! One queue for each version. Whoever leaves a full instance lets the next one in: of those that
//! are bound to it the one that came first, else of those that are bound to none. A place is handed
//! over with its guard, so that nobody can slip in between.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::instance::in_flight::Kind;
use crate::instance::{InFlight, Instance};

/// Why nobody may wait any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

/// What somebody waits for.
#[derive(Debug)]
pub struct Want {
    /// A request or a tunnel.
    pub kind: Kind,
    /// The instance that it is bound to.
    pub bound: Option<Arc<Instance>>,
    /// Those that it has tried in vain.
    pub tried: Vec<Arc<Instance>>,
    /// The worker that will count it.
    pub worker: usize,
}

impl Want {
    /// `welcome` says whether requests that are bound to none may go there.
    fn would_take(&self, instance: &Arc<Instance>, kind: Kind, welcome: bool) -> bool {
        let is_it = |other: &Arc<Instance>| Arc::ptr_eq(other, instance);
        let suits = match &self.bound {
            Some(bound) => is_it(bound),
            None => welcome && !self.tried.iter().any(is_it),
        };
        self.kind == kind && suits
    }
}

#[derive(Debug)]
struct Waiter {
    want: Want,
    /// Gets the place, or nothing if it should choose anew.
    sender: oneshot::Sender<Option<InFlight>>,
}

/// Those who wait, by class (bound ones first) and by when they came.
type Line = BTreeMap<(bool, u64), Waiter>;

/// The queue of a version.
#[derive(Debug, Default)]
pub struct Queue {
    /// Looked at whenever a place is vacated.
    waiting: AtomicUsize,
    line: Mutex<(u64, Line)>,
}

/// A place in the queue, which is left when this drops.
#[derive(Debug)]
pub struct Ticket<'a> {
    queue: &'a Queue,
    number: (bool, u64),
    receiver: oneshot::Receiver<Option<InFlight>>,
}

impl Queue {
    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Joins, behind at most `max` others. A place may have been vacated since it was looked for, by
    /// somebody who saw nobody wait: so every instance is to be served after that.
    pub(super) fn join(&self, want: Want, max: usize) -> Result<Ticket<'_>, Full> {
        let (sender, receiver) = oneshot::channel();
        let mut line = self.line();
        if line.1.len() >= max {
            return Err(Full);
        }
        line.0 += 1;
        let number = (want.bound.is_none(), line.0);
        line.1.insert(number, Waiter { want, sender });
        self.waiting.store(line.1.len(), Ordering::SeqCst);
        Ok(Ticket { queue: self, number, receiver })
    }

    /// Lets those in that `instance` has a place for, of those that are bound to none only if
    /// they are `welcome`, and not more than `most`.
    pub(super) fn serve(&self, instance: &Arc<Instance>, kind: Kind, welcome: bool, most: usize) {
        let mut line = self.line();
        for _ in 0..most {
            let next =
                line.1.iter().find(|(_, waiter)| waiter.want.would_take(instance, kind, welcome));
            let Some((number, waiter)) = next else { break };
            let (number, worker) = (*number, waiter.want.worker);
            let Some(place) = InFlight::begin(instance, worker, kind) else { break };
            let waiter = line.1.remove(&number);
            if let Some(Err(place)) = waiter.map(|waiter| waiter.sender.send(Some(place))) {
                // It left this moment. Its place is not to be vacated under the lock.
                place.into_iter().for_each(InFlight::forgo);
            }
        }
        self.waiting.store(line.1.len(), Ordering::SeqCst);
    }

    /// Lets those choose anew that are bound to an instance which can't serve them any more.
    pub(super) fn evict(&self, instance: &Arc<Instance>) {
        let mut line = self.line();
        let leaves = |waiter: &Waiter| {
            waiter.want.bound.as_ref().is_some_and(|bound| Arc::ptr_eq(bound, instance))
        };
        let numbers: Vec<_> =
            line.1.iter().filter(|(_, waiter)| leaves(waiter)).map(|(number, _)| *number).collect();
        for waiter in numbers.iter().filter_map(|number| line.1.remove(number)).collect::<Vec<_>>()
        {
            // Whoever has left needs no answer.
            let _ = waiter.sender.send(None);
        }
        self.waiting.store(line.1.len(), Ordering::SeqCst);
    }

    fn line(&self) -> MutexGuard<'_, (u64, Line)> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ticket<'_> {
    /// The place, when it is there; nothing if another instance should be chosen.
    pub async fn called(&mut self) -> Option<InFlight> {
        (&mut self.receiver).await.ok().flatten()
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let mut line = self.queue.line();
        if line.1.remove(&self.number).is_some() {
            self.queue.waiting.store(line.1.len(), Ordering::SeqCst);
        }
        drop(line);
        // A place that was handed over and not taken is vacated, which lets the next one in.
        self.receiver.close();
        drop(self.receiver.try_recv());
    }
}
