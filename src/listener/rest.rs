//! A kept connection between two requests: what a conversation holds is a multiple of its socket, and most
//! connections rest most of the time. A byte of the next request ends the rest.

use std::time::{Duration, Instant};

use tokio::time::sleep_until;

use crate::listener::transport::Transport;
use crate::listener::watchdog::{Over, may_rest_for};
use crate::proxy::client::Client;
use crate::proxy::error::Reason;
use crate::proxy::pace::Waits;

/// Between two looks at limits that a reload may change.
const LOOK: Duration = Duration::from_secs(5);

/// Rests until there is something to read, or until it is over: that is told then.
pub(super) async fn rest(stream: &Transport, client: &Client) -> Option<Over> {
    let _resting = client.live.counters.rest();
    let mut phase = client.live.phase();
    loop {
        // Marked as seen before it is looked at, so that no change is missed.
        let leaves = phase.borrow_and_update().rest();
        let called = client.live.room.called();
        let Waits::Request(since) = client.pace.waits() else { return None };
        let now = Instant::now();
        let until = since + may_rest_for(client);
        if now >= until {
            return Some(Over::Late(Reason::KeepAliveTimeout));
        }
        if leaves.is_some_and(|leaves| now >= leaves) {
            return Some(Over::Finished);
        }
        let next = until.min(now + LOOK).min(leaves.unwrap_or(until));
        tokio::select! {
            biased;
            // What is wrong with it shows when it is read.
            _ = stream.readable() => return None,
            Ok(()) = phase.changed() => {}
            () = called => {}
            () = sleep_until(next.into()) => {}
        }
    }
}
