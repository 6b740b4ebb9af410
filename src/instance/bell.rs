//! What wakes the task that drives a link, and what rings all links of an instance at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Wake, Waker};

use futures_util::task::AtomicWaker;

/// Wakes the task that drives a link.
#[derive(Debug, Default)]
pub(super) struct Bell {
    task: AtomicWaker,
    /// While that task itself moves things along, it need not be told.
    muted: AtomicBool,
    /// What rang meanwhile: a timer may, from a thread of its own.
    missed: AtomicBool,
    /// Whether something came since this was last looked at.
    rung: AtomicBool,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.muted.load(Ordering::Acquire) {
            self.missed.store(true, Ordering::Release);
        } else {
            self.ring();
        }
    }
}

impl Bell {
    fn ring(&self) {
        self.rung.store(true, Ordering::Release);
        self.task.wake();
    }

    /// Whom to wake from now on.
    pub(super) fn call(&self, task: &Waker) {
        self.task.register(task);
    }

    /// Wakes nobody from now on, and forgets what rang.
    pub(super) fn rest(&self) {
        drop(self.task.take());
        self.rung.store(false, Ordering::Release);
    }

    /// Whether it rang since it was last asked.
    pub(super) fn rang(&self) -> bool {
        self.rung.swap(false, Ordering::Acquire)
    }

    /// Does what the task need not be told of.
    pub(super) fn muted<T>(&self, work: impl FnOnce() -> T) -> T {
        self.muted.store(true, Ordering::Release);
        let done = work();
        self.muted.store(false, Ordering::Release);
        done
    }

    /// What rings from now on while it is muted will count as missed.
    pub(super) fn heed(&self) {
        self.missed.store(false, Ordering::Release);
    }

    /// Whether it rang while it was muted.
    pub(super) fn missed(&self) -> bool {
        self.missed.load(Ordering::Acquire)
    }
}

/// The bells of an instance's links.
///
/// A link is told of an alarm by the bell that its task waits for anyway, so that waiting for both
/// costs a request nothing.
#[derive(Debug, Default)]
pub(super) struct Bells(Mutex<Vec<Weak<Bell>>>);

impl Bells {
    /// Adds one, for as long as it lives.
    pub(super) fn hang(&self, bell: &Arc<Bell>) {
        let mut bells = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if bells.len() == bells.capacity() {
            bells.retain(|bell| bell.strong_count() > 0);
        }
        bells.push(Arc::downgrade(bell));
    }

    /// Rings them all. One that is muted rings too: what it is muted against is not this.
    pub(super) fn ring(&self) {
        let bells = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        bells.iter().filter_map(Weak::upgrade).for_each(|bell| bell.ring());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bells_ring_while_they_live_and_leave_no_trace() {
        let bells = Bells::default();
        let kept = Arc::new(Bell::default());
        bells.hang(&kept);
        for _ in 0..1000 {
            bells.hang(&Arc::new(Bell::default()));
        }
        assert!(bells.0.lock().unwrap().len() < 10);
        assert!(!kept.rang());
        kept.muted(|| bells.ring());
        assert!(kept.rang());
        assert!(!kept.rang());
    }
}
