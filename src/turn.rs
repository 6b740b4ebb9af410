//! Turns: a task that could go on lets others go first that are ready now.
//!
//! A request read, examined, sent on, answered and written by one go meets cold code at each step: all of
//! it together is larger than the cache of instructions. By turns whoever is ready together does the same
//! step together, with warm code, and whoever is at the other ends is woken once for many
//! (`benches/README.md`). Each step is as much as fits, and system calls stand at the edges of them.

use std::cell::Cell;
use std::future::poll_fn;
use std::task::{Context, Poll};

thread_local! {
    /// Whether a turn was ended since this was last cleared.
    static HAS_ENDED: Cell<bool> = const { Cell::new(false) };
}

/// What came of a poll.
#[derive(Debug, PartialEq, Eq)]
pub enum Polled<T> {
    /// All of it.
    Ready(T),
    /// It goes on at its next turn, whatever it waits for besides.
    Turn,
    /// It waits.
    Pending,
}

/// Goes on when others have had their turn.
pub async fn next() {
    let mut has_ended = false;
    poll_fn(|cx| match std::mem::replace(&mut has_ended, true) {
        true => Poll::Ready(()),
        false => end(cx),
    })
    .await;
}

/// Ends this turn: pending, and polled again when others have had theirs.
pub fn end<T>(cx: &Context<'_>) -> Poll<T> {
    HAS_ENDED.set(true);
    cx.waker().wake_by_ref();
    Poll::Pending
}

/// Tells a poll that waits from one that is to be repeated at once.
pub fn watch<T>(poll: impl FnOnce() -> Poll<T>) -> Polled<T> {
    HAS_ENDED.set(false);
    match poll() {
        Poll::Ready(value) => Polled::Ready(value),
        Poll::Pending if HAS_ENDED.get() => Polled::Turn,
        Poll::Pending => Polled::Pending,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_poll_that_ended_a_turn_is_told_from_one_that_waits() {
        let cx = &mut Context::from_waker(std::task::Waker::noop());
        assert_eq!(watch(|| end::<()>(cx)), Polled::Turn);
        assert_eq!(watch(|| Poll::<()>::Pending), Polled::Pending);
        assert_eq!(watch(|| Poll::Ready(1)), Polled::Ready(1));
    }

    #[tokio::test]
    async fn who_is_ready_together_takes_each_step_together() {
        let steps = Arc::new(Mutex::new(String::new()));
        let walk = |name: char| {
            let steps = Arc::clone(&steps);
            tokio::spawn(async move {
                for _ in 0..3 {
                    steps.lock().unwrap().push(name);
                    next().await;
                }
            })
        };
        let both = async { tokio::join!(walk('a'), walk('b')) };
        let (a, b) = tokio::time::timeout(Duration::from_secs(15), both).await.unwrap();
        a.and(b).unwrap();
        assert_eq!(*steps.lock().unwrap(), "ababab");
    }
}
