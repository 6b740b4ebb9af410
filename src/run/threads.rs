//! The threads of the workers: each has a runtime of its own, and what is spawned there stays there.

use std::io;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// How many sockets one look finds ready, at most: so many go through their turns together
/// ([`crate::turn`]), and what is known of them stays in the cache meanwhile (`benches/README.md`).
const EVENTS: usize = 64;
/// How many tasks are run, at most, before the sockets are looked at again. By tokio's own 61 turns
/// would be cut in pieces.
const EVENT_INTERVAL: u32 = 512;

/// See the module. Dropped, they end with what they are doing now.
#[derive(Debug)]
pub(super) struct Threads(Vec<Worker>);

#[derive(Debug)]
struct Worker {
    handle: Handle,
    /// Ends it; what it has begun on other threads may take so long.
    stop: oneshot::Sender<Duration>,
    thread: JoinHandle<()>,
}

impl Threads {
    /// Starts so many.
    pub(super) fn start(count: usize) -> io::Result<Self> {
        (0..count).map(|_| Worker::start()).collect::<io::Result<_>>().map(Self)
    }

    /// By what tasks are spawned on one of them.
    pub(super) fn of(&self, index: usize) -> &Handle {
        &self.0[index].handle
    }

    /// Drops all tasks, and waits for all threads.
    pub(super) fn stop(self, timeout: Duration) {
        let ending: Vec<_> = self.0.into_iter().map(|worker| worker.end(timeout)).collect();
        for thread in ending {
            // A panic has been told of where it was.
            let _ = thread.join();
        }
    }
}

impl Worker {
    fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .max_io_events_per_tick(EVENTS)
            .event_interval(EVENT_INTERVAL)
            .build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let run = move || {
            if let Ok(timeout) = runtime.block_on(stopped) {
                runtime.shutdown_timeout(timeout);
            }
        };
        let thread = std::thread::Builder::new().name("worker".into()).spawn(run)?;
        Ok(Self { handle, stop, thread })
    }

    fn end(self, timeout: Duration) -> JoinHandle<()> {
        // It may have panicked.
        let _ = self.stop.send(timeout);
        self.thread
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_spawned_on_a_thread_stays_there_and_ends_with_it() {
        let threads = Threads::start(2).unwrap();
        let here = |index: usize| {
            let (told, tell) = std::sync::mpsc::channel();
            threads.of(index).spawn(async move {
                let first = std::thread::current().id();
                tokio::task::yield_now().await;
                told.send((first, std::thread::current().id())).unwrap();
                std::future::pending::<()>().await;
                drop(told);
            });
            let (before, after) = tell.recv().unwrap();
            assert_eq!(before, after);
            (before, tell)
        };
        let ((first, ended), (second, _)) = (here(0), here(1));
        assert_ne!(first, second);
        threads.stop(Duration::from_secs(1));
        assert!(ended.recv().is_err(), "the task is gone");
    }
}
