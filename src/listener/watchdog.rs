//! Runs a client's connection, or one stream of it, with a limit on each thing that it may wait for.
//!
//! One lazy timer: it fires now and then, looks at the pace, and sleeps on; a request costs it
//! nothing.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::task::unconstrained;

use crate::listener::connection::LINGER;
use crate::proxy::client::Client;
use crate::proxy::error::Reason;
use crate::proxy::pace::Waits;
use crate::snapshot::{Phase, Snapshot};
use crate::turn;

/// Who has asked for nothing for this long rests. Sooner, many would be taken apart and
/// put together again for each request, which costs about a tenth of one; later, clients that come
/// together would take the memory of all of them first.
const REST_AFTER: Duration = Duration::from_millis(100);
/// Who is found in the middle of something is looked at half as often from then on, down to this: a long
/// poll should cost no more for it.
const SELDOM: Duration = Duration::from_millis(3200);

/// How HTTP ended on a connection.
pub(super) enum Over {
    /// In order: closed, or switched to another protocol.
    Finished,
    /// In order, by a client that said it would send nothing more.
    Parted,
    /// A limit of time was passed.
    Late(Reason),
    /// The client sent no request of HTTP/1, and has been told so.
    Unreadable(Reason),
    /// The client sent what HTTP/2 begins with.
    Http2,
    /// The socket failed, or the client broke the protocol.
    Broken,
    /// Nothing is over: it has been idle for a while, and little need be kept until the next request.
    Rests,
}

/// How far a connection came that has something to do.
pub(super) enum Step {
    /// To where others go first that are ready now ([`turn`]).
    Turn,
    /// To its end.
    Over(Over),
}

impl From<Over> for Step {
    fn from(over: Over) -> Self {
        Self::Over(over)
    }
}

/// How far a connection is with a drain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaving {
    /// There is none.
    No,
    /// It may rest for a while.
    Resting,
    /// It has been told.
    Told,
}

/// What happens next.
enum Event {
    Over(Over),
    /// Of a drain.
    News(Phase),
    /// The end of a rest, or of patience with whoever was told to leave.
    Late,
}

/// Runs `connection`, the watchdog beside it, and the drain when it comes: `leave` is called then,
/// or after the rest that it `may_rest`, and says whether that is the end. What may rest is also given
/// back when it does.
pub(super) async fn attend<Connection>(
    connection: &mut Connection,
    client: &Client,
    may_rest: bool,
    poll: impl Fn(&mut Connection, &mut Context<'_>) -> Poll<Step>,
    leave: impl Fn(&mut Connection) -> bool,
) -> Over {
    let mut phase = client.live.phase();
    let mut known = Phase::Serving;
    let mut watchdog = Watchdog::new(client, may_rest);
    let mut leaving = Leaving::No;
    // The end of its rest; then, whoever has nothing under way any more need not agree that it is
    // over.
    let mut patience = std::pin::pin!(tokio::time::sleep(Duration::MAX));
    loop {
        let before = known;
        let mut news = pin!(phase.wait_for(|phase| *phase != before));
        let mut is_heard = false;
        let event = poll_fn(|cx| {
            let over = match poll(connection, cx) {
                Poll::Ready(Step::Over(over)) => Poll::Ready(over),
                Poll::Ready(Step::Turn) => turn::end(cx),
                Poll::Pending => watchdog.poll(client, cx),
            };
            if let Poll::Ready(over) = over {
                return Poll::Ready(Event::Over(over));
            }
            // One task polls this all the time, and what was asked once wakes it: until there are news,
            // to ask again would only cost each of its turns something.
            if (!std::mem::replace(&mut is_heard, true) || client.live.is_leaving())
                && leaving != Leaving::Told
                && let Poll::Ready(Ok(now)) = news.as_mut().poll(cx)
            {
                return Poll::Ready(Event::News(*now));
            }
            match leaving {
                Leaving::No => Poll::Pending,
                Leaving::Resting | Leaving::Told => {
                    patience.as_mut().poll(cx).map(|()| Event::Late)
                }
            }
        });
        match event.await {
            Event::Over(over) => return over,
            // Somebody who takes over may himself be told to stop before the rest is over.
            Event::News(now) => {
                known = now;
                leaving = Leaving::Resting;
                let rest = known.rest().filter(|_| may_rest).unwrap_or_else(Instant::now);
                patience.as_mut().reset(rest.into());
            }
            Event::Late => {
                let is_over = match leaving {
                    Leaving::Told => !client.pace.is_busy(),
                    Leaving::No | Leaving::Resting => leave(connection),
                };
                if is_over {
                    return Over::Finished;
                }
                leaving = Leaving::Told;
                patience.as_mut().reset(tokio::time::Instant::now() + LINGER);
            }
        }
    }
}

/// Ends what takes too long, and tells when a connection rests.
pub(super) struct Watchdog {
    sleep: Pin<Box<tokio::time::Sleep>>,
    /// Whether it will wake the task, which stays the same.
    set: bool,
    may_rest: bool,
    /// When to look again whether it rests, if it is in the middle of something.
    again: Duration,
    /// When something may have taken too long.
    due: Instant,
}

impl Watchdog {
    pub(super) fn new(client: &Client, may_rest: bool) -> Self {
        let now = Instant::now();
        let due = now + shortest(client, &client.live.snapshot());
        let first = if may_rest { due.min(now + REST_AFTER) } else { due };
        let sleep = Box::pin(tokio::time::sleep_until(first.into()));
        Self { sleep, set: false, may_rest, again: REST_AFTER, due }
    }

    /// Ready with what has taken too long, or a rest.
    pub(super) fn poll(&mut self, client: &Client, cx: &mut Context<'_>) -> Poll<Over> {
        if self.set && !self.sleep.is_elapsed() {
            return Poll::Pending;
        }
        // Whoever has used up his budget would be asked to come back, and nothing would bring him.
        while pin!(unconstrained(self.sleep.as_mut())).poll(cx).is_ready() {
            let now = Instant::now();
            let rests = self.rests(client);
            if rests.is_some_and(|from| from <= now) {
                return Poll::Ready(Over::Rests);
            }
            if now >= self.due {
                match look(client, now) {
                    Ok(next) => self.due = now + next,
                    Err(late) => return Poll::Ready(Over::Late(late)),
                }
            }
            let next = match (self.may_rest, rests) {
                (false, _) => self.due,
                (true, Some(from)) => {
                    self.again = REST_AFTER;
                    from.min(self.due)
                }
                (true, None) => {
                    self.again = (self.again * 2).min(SELDOM);
                    (now + self.again).min(self.due)
                }
            };
            self.sleep.as_mut().reset(next.into());
        }
        self.set = true;
        Poll::Pending
    }

    /// From when it rests, if it is between two requests. Whoever is asked to leave is not held up.
    fn rests(&self, client: &Client) -> Option<Instant> {
        match client.pace.waits() {
            Waits::Request(since) if self.may_rest && !client.live.is_leaving() => {
                Some(since + REST_AFTER)
            }
            Waits::Request(_) | Waits::Head(..) | Waits::Answer(_) => None,
        }
    }
}

/// For how long nothing can have taken too long, or what has.
fn look(client: &Client, now: Instant) -> Result<Duration, Reason> {
    let snapshot = client.live.snapshot();
    let (limits, idle) = (snapshot.config.client_timeouts, client.pace.idle());
    let (since, limit, reason) = match client.pace.waits() {
        Waits::Head(since, _) => (since, limits.header_read, Reason::HeaderReadTimeout),
        Waits::Request(since) => (since, rest(client, limits.keep_alive), Reason::KeepAliveTimeout),
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
        return Err(reason);
    }
    // What it waits for may change before then, to something with a shorter limit.
    Ok((limit - waited).min(shortest(client, &snapshot)))
}

/// How long a connection may rest in all.
pub(super) fn may_rest_for(client: &Client) -> Duration {
    rest(client, client.live.snapshot().config.client_timeouts.keep_alive)
}

/// How long a connection may rest: where descriptors run short, others need its own.
fn rest(client: &Client, keep_alive: Duration) -> Duration {
    keep_alive.min(client.live.room.most())
}

/// The shortest limit that a connection may come under: whose idle timeout that is changes with
/// each request.
fn shortest(client: &Client, snapshot: &Snapshot) -> Duration {
    let limits = snapshot.config.client_timeouts;
    let idle = snapshot.services().iter().map(|service| service.version().timeouts.idle).min();
    let idle = idle.unwrap_or(Duration::MAX).min(client.pace.idle());
    limits.header_read.min(limits.keep_alive).min(idle)
}
