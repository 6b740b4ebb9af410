//! Runs a client's connection, or one stream of it, with a limit on each thing that it may wait for.
//!
//! One lazy timer: it fires now and then, looks at the pace, and sleeps on; a request costs it
//! nothing.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::listener::connection::LINGER;
use crate::proxy::client::{Client, Waits};
use crate::proxy::error::Reason;
use crate::snapshot::{Phase, Snapshot};

/// How long a connection may rest between two requests while descriptors run short.
const SHORT_REST: Duration = Duration::from_secs(1);

/// How HTTP ended on a connection.
pub(super) enum Over {
    /// In order: closed, or switched to another protocol.
    Finished,
    /// A limit of time was passed.
    Late(Reason),
    /// The client sent no request of HTTP/1, and has been told so.
    Unreadable(Reason),
    /// The client sent what HTTP/2 begins with.
    Http2,
    /// The socket failed, or the client broke the protocol.
    Broken,
}

/// Runs `connection`, the watchdog beside it, and the drain when it comes: `leave` is called then,
/// and says whether that is the end.
pub(super) async fn attend<Connection>(
    connection: &mut Connection,
    client: &Client,
    poll: impl Fn(&mut Connection, &mut Context<'_>) -> Poll<Over>,
    leave: impl Fn(&mut Connection) -> bool,
) -> Over {
    let mut phase = client.live.phase();
    let mut watchdog = Watchdog::new(client);
    let mut draining = false;
    // Whoever has nothing under way any more need not agree that it is over.
    let mut patience = std::pin::pin!(tokio::time::sleep(Duration::MAX));
    let mut both = |connection: &mut Connection, cx: &mut Context<'_>| match poll(connection, cx) {
        Poll::Ready(over) => Poll::Ready(over),
        Poll::Pending => watchdog.poll(client, cx).map(Over::Late),
    };
    loop {
        tokio::select! {
            biased;
            over = poll_fn(|cx| both(connection, cx)) => return over,
            _ = phase.wait_for(|phase| *phase != Phase::Serving), if !draining => {
                draining = true;
                if leave(connection) {
                    return Over::Finished;
                }
                patience.as_mut().reset(tokio::time::Instant::now() + LINGER);
            }
            () = patience.as_mut(), if draining => {
                if !client.pace.is_busy() {
                    return Over::Finished;
                }
                patience.as_mut().reset(tokio::time::Instant::now() + LINGER);
            }
        }
    }
}

/// Ends what takes too long.
pub(super) struct Watchdog {
    sleep: Pin<Box<tokio::time::Sleep>>,
    /// Whether it will wake the task, which stays the same.
    set: bool,
}

impl Watchdog {
    pub(super) fn new(client: &Client) -> Self {
        let first = Instant::now() + shortest(client, &client.live.snapshot());
        Self { sleep: Box::pin(tokio::time::sleep_until(first.into())), set: false }
    }

    /// Ready with what has taken too long.
    pub(super) fn poll(&mut self, client: &Client, cx: &mut Context<'_>) -> Poll<Reason> {
        if self.set && !self.sleep.is_elapsed() {
            return Poll::Pending;
        }
        while self.sleep.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            let snapshot = client.live.snapshot();
            let (limits, idle) = (snapshot.config.client_timeouts, client.pace.idle());
            let (since, limit, reason) = match client.pace.waits() {
                Waits::Head(since, _) => (since, limits.header_read, Reason::HeaderReadTimeout),
                Waits::Request(since) => {
                    (since, rest(client, limits.keep_alive), Reason::KeepAliveTimeout)
                }
                Waits::Answer(since) => {
                    let since = since.unwrap_or(now);
                    match client.pace.left().filter(|left| *left < idle) {
                        Some(left) => (since, left, Reason::ClientTooSlow),
                        None => (since, idle, Reason::ClientIdleTimeout),
                    }
                }
            };
            let waited = now.saturating_duration_since(since);
            if waited >= limit {
                return Poll::Ready(reason);
            }
            // What it waits for may change before then, to something with a shorter limit.
            let next = (limit - waited).min(shortest(client, &snapshot));
            self.sleep.as_mut().reset((now + next).into());
        }
        self.set = true;
        Poll::Pending
    }
}

/// How long a connection may rest: where descriptors run short, others need its own.
fn rest(client: &Client, keep_alive: Duration) -> Duration {
    match client.live.counters.are_short() {
        true => keep_alive.min(SHORT_REST),
        false => keep_alive,
    }
}

/// The shortest limit that a connection may come under: whose idle timeout that is changes with
/// each request.
fn shortest(client: &Client, snapshot: &Snapshot) -> Duration {
    let limits = snapshot.config.client_timeouts;
    let idle = snapshot.services().iter().map(|service| service.version().timeouts.idle).min();
    let idle = idle.unwrap_or(Duration::MAX).min(client.pace.idle());
    limits.header_read.min(limits.keep_alive).min(idle)
}
