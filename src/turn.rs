//! Turns: a task that could go on lets others go first that are ready now.
//!
//! A request read, examined, sent on, answered and written by one go meets cold code at each step: all of
//! it together is larger than the cache of instructions. By turns whoever is ready together does the same
//! step together, with warm code, and whoever is at the other ends is woken once for many
//! (`benches/README.md`). Each step is as much as fits, and system calls stand at the edges of them.

use std::future::poll_fn;
use std::task::{Context, Poll};

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
    cx.waker().wake_by_ref();
    Poll::Pending
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use super::*;

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
