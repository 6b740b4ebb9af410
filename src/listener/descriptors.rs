//! File descriptors: when they run short, nobody new is let in until there are some again.
//!
//! Clients wait where the kernel has greeted them, and those who are in are served: each of them may
//! need a connection to an instance, and some are kept back for the admin address and for reloads. Those
//! who rest make room, the longest resting first.

use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::listener::Worker;

/// This part of all is kept back for what is not a client's,
const RESERVE: u64 = 16;
/// and no fewer than this: listeners, the log, the runtime's own, the admin address, probes.
const LEAST_RESERVE: u64 = 64;
/// Between two looks at whether there is room again.
const LOOK: Duration = Duration::from_millis(50);

/// How many this process may have; `None` for any number.
pub fn most() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// Asks for as many as the system lets this process have.
pub fn raise() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => tracing::debug!(?current, ?maximum, "descriptors"),
        Err(error) => tracing::warn!(?current, ?maximum, %error, "asking for descriptors failed"),
    }
}

/// Whether they run short for so many clients, or by the number of the latest: the kernel gives the
/// lowest that is free, so that all below it are taken.
pub(super) fn are_short(clients: u64, latest: &impl AsRawFd) -> bool {
    let number = u64::try_from(latest.as_raw_fd()).unwrap_or_default();
    most().is_some_and(|most| {
        let rest = most.saturating_sub(LEAST_RESERVE.max(most / RESERVE));
        number >= rest || 2 * clients >= rest
    })
}

/// Resolves when they no longer run short.
pub(super) async fn room(worker: &Worker, listener: &impl AsFd) {
    let live = &worker.live;
    let short = live.counters.run_short(&live.journal);
    loop {
        live.room.make();
        tokio::time::sleep(LOOK).await;
        let latest = listener.as_fd().try_clone_to_owned();
        if latest.is_ok_and(|latest| !are_short(worker.seats.taken(), &latest)) {
            break;
        }
    }
    drop(short);
    if !live.counters.are_short() {
        live.room.suffices();
    }
}
