//! What ends the wait for an answer, and what rings all links of an instance at once.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Wake, Waker};

use futures_util::task::AtomicWaker;

/// Wakes the task that waits for an answer, whether its time is over or its instance was given up.
#[derive(Debug, Default)]
pub(super) struct Bell(AtomicWaker);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.wake();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.wake();
    }
}

impl Bell {
    /// Whom to wake from now on.
    pub(super) fn call(&self, task: &Waker) {
        self.0.register(task);
    }

    /// Wakes nobody from now on.
    pub(super) fn rest(&self) {
        drop(self.0.take());
    }
}

/// The bells of an instance's links.
///
/// A link is told of an alarm by the bell that its timer rings, so that a request waits for one of them
/// and hears of both.
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

    /// Rings them all.
    pub(super) fn ring(&self) {
        let bells = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        bells.iter().filter_map(Weak::upgrade).for_each(|bell| bell.wake());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[derive(Default)]
    struct Task(AtomicU32);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn bells_ring_while_they_live_and_leave_no_trace() {
        let bells = Bells::default();
        let kept = Arc::new(Bell::default());
        bells.hang(&kept);
        for _ in 0..1000 {
            bells.hang(&Arc::new(Bell::default()));
        }
        assert!(bells.0.lock().unwrap().len() < 10);
        let task = Arc::new(Task::default());
        let waker = Waker::from(Arc::clone(&task));
        kept.call(&waker);
        bells.ring();
        bells.ring();
        assert_eq!(task.0.load(Ordering::Relaxed), 1);
        kept.call(&waker);
        kept.rest();
        bells.ring();
        assert_eq!(task.0.load(Ordering::Relaxed), 1);
    }
}
