//! An attempt that is not simply waited for: it is left for another instance when its first byte is
//! late (`retry.per_try_timeout`), or a second instance is asked beside it (`retry.hedge_after`).
//!
//! All in the task of the request, as everywhere: each run polls its own link. A run that is
//! dropped closes its connection; its place is free again and says nothing of its instance.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use http::request;

use crate::instance::Instance;
use crate::proxy::exchange::Exchange;
use crate::proxy::forward::{self, Answer, Attempt};
use crate::proxy::retry::{self, Failure};
use crate::proxy::session::Session;
use crate::proxy::stay::Stay;
use crate::proxy::tries::{self, Tries};
use crate::proxy::upgrade::Upgrade;

/// What is asked, whoever is.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The worker that asks.
    pub worker: usize,
    /// The head of the request.
    pub head: &'a request::Parts,
    /// What to switch to.
    pub upgrade: Option<&'a Upgrade>,
    /// Until when a first byte is in time, after the beginning of a try.
    late_after: Option<Duration>,
    /// When a second instance is asked, after the same.
    hedge_after: Option<Duration>,
}

type Outcome = Result<Answer, Failure>;

/// One instance that was asked.
struct Run<'a> {
    instance: Arc<Instance>,
    /// When it is late.
    late_at: Option<Instant>,
    outcome: Pin<Box<dyn Future<Output = Outcome> + Send + 'a>>,
}

/// What happens next.
enum Event {
    First(Outcome),
    Second(Outcome),
    /// It is time for something.
    Due,
}

impl<'a> Question<'a> {
    /// What is asked by an attempt that has to be watched; `None` where it is simply waited for.
    pub fn watched(
        worker: usize,
        head: &'a request::Parts,
        upgrade: Option<&'a Upgrade>,
        tries: &Tries<'_>,
        attempt: &Attempt<'_>,
    ) -> Option<Self> {
        let (limits, has_body) = (tries.limits(), attempt.upload.is_some());
        let is_disturbed = attempt.instance.is_disturbed();
        if limits.per_try_timeout.is_none() && limits.hedge_after.is_none() && !is_disturbed {
            return None;
        }
        let may_leave = limits.attempts > 1 && head.method.is_idempotent();
        let may_hedge = retry::may_hedge(limits, &head.method) && !has_body && upgrade.is_none();
        let late_after = limits.per_try_timeout.filter(|_| may_leave);
        let hedge_after = limits.hedge_after.filter(|_| may_hedge);
        let is_watched = late_after.is_some() || hedge_after.is_some() || is_disturbed;
        is_watched.then_some(Self { worker, head, upgrade, late_after, hedge_after })
    }

    fn ask(self, attempt: Attempt<'a>, stay: Option<&mut Stay>, began: Instant) -> Run<'a> {
        let instance = &attempt.instance;
        let blow = instance.is_disturbed().then(|| instance.blow(&self.head.headers));
        if let Some(stay) = stay.filter(|_| blow.is_some_and(|blow| blow.is_marked)) {
            stay.excuse();
        }
        Run {
            instance: Arc::clone(&attempt.instance),
            late_at: self.late_after.map(|late_after| began + late_after),
            outcome: Box::pin(async move {
                // Here and not further in, where it would be a part of every request's future.
                if let Some(blow) = blow
                    && let Some(answer) = attempt.disturbed(self.worker, self.head, blow).await?
                {
                    return Ok(answer);
                }
                match self.upgrade {
                    Some(to) => attempt.upgrade(self.worker, self.head, to).await,
                    None => attempt.send(self.worker, self.head, began).await,
                }
            }),
        }
    }
}

/// Who is asked for one answer.
struct Race<'r, 'a> {
    question: Question<'r>,
    /// What the second is asked with as well.
    attempt: Attempt<'r>,
    exchange: &'r mut Exchange,
    tries: &'r mut Tries<'a>,
    session: &'r Session<'a>,
    /// The account has its place.
    first: Run<'r>,
    second: Option<(Run<'r>, Stay)>,
    hedge_at: Option<Instant>,
    /// Whether the first is the one that was asked second.
    changed: bool,
}

/// Makes an attempt, or two at once. Gives the instance that the outcome is of; the account has its
/// place then.
pub async fn run<'r, 'a>(
    question: Question<'r>,
    attempt: Attempt<'r>,
    exchange: &'r mut Exchange,
    tries: &'r mut Tries<'a>,
    session: &'r Session<'a>,
) -> (Arc<Instance>, Outcome) {
    // Not when the request came: it may have waited for its place.
    let began = Instant::now();
    let hedge_at = question.hedge_after.map(|hedge_after| began + hedge_after);
    let first = question.ask(attempt.clone(), exchange.stay.as_mut(), began);
    let (second, changed) = (None, false);
    let mut race =
        Race { question, attempt, exchange, tries, session, first, second, hedge_at, changed };
    loop {
        match race.event().await {
            Event::First(outcome) => match race.second.take() {
                Some(second) if !race.is_won_by(&outcome) => race.fall_behind(second, outcome),
                Some(_) | None => return race.end(outcome),
            },
            Event::Second(outcome) => {
                let Some((run, stay)) = race.second.take() else { continue };
                if race.is_won_by(&outcome) {
                    race.first = run;
                    race.exchange.stay = Some(stay);
                    race.changed = true;
                    return race.end(outcome);
                }
                race.tries.set_aside(run.instance, stay, outcome);
            }
            Event::Due => {
                if let Some(failure) = race.due(Instant::now()) {
                    return race.end(Err(failure));
                }
            }
        }
    }
}

impl<'r> Race<'r, '_> {
    async fn event(&mut self) -> Event {
        let second_late_at = self.second.as_ref().and_then(|(run, _)| run.late_at);
        let due = [self.first.late_at, second_late_at, self.hedge_at].into_iter().flatten().min();
        let (first, second) = (&mut self.first, &mut self.second);
        let mut timer = pin!(due.map(|due| tokio::time::sleep_until(due.into())));
        poll_fn(|cx| {
            if let Poll::Ready(outcome) = first.outcome.as_mut().poll(cx) {
                return Poll::Ready(Event::First(outcome));
            }
            if let Some((run, _)) = second
                && let Poll::Ready(outcome) = run.outcome.as_mut().poll(cx)
            {
                return Poll::Ready(Event::Second(outcome));
            }
            match timer.as_mut().as_pin_mut() {
                Some(timer) => timer.poll(cx).map(|()| Event::Due),
                None => Poll::Pending,
            }
        })
        .await
    }

    /// Does what it is time for. Gives a failure if the only run is left.
    fn due(&mut self, now: Instant) -> Option<Failure> {
        if self.hedge_at.is_some_and(|at| at <= now) {
            self.hedge_at = None;
            self.hedge(now);
        }
        let is_late = |run: &Run<'_>| run.late_at.is_some_and(|at| at <= now);
        if let Some((run, stay)) = self.second.take_if(|(run, _)| is_late(run)) {
            self.tries.set_aside(run.instance, stay, Err(Failure::TryTimeout));
        }
        if !is_late(&self.first) {
            return None;
        }
        let late_after = self.question.late_after.unwrap_or_default();
        let left = late_after.saturating_sub(forward::waited(self.attempt.upload));
        if !left.is_zero() {
            self.first.late_at = Some(now + left);
        } else if let Some(second) = self.second.take() {
            self.fall_behind(second, Err(Failure::TryTimeout));
        } else if tries::is_replayable(self.attempt.upload)
            && self.tries.leaves(self.session, &self.first.instance)
        {
            return Some(Failure::TryTimeout);
        } else {
            // There is nobody else: `timeouts.first_byte` counts.
            self.first.late_at = None;
        }
        None
    }

    /// Asks a second instance, if there is one and it has a place.
    fn hedge(&mut self, now: Instant) {
        let Some(place) = self.tries.hedge(self.session, &self.first.instance) else { return };
        self.exchange.attempts += 1;
        let instance = Arc::clone(place.instance());
        let (mut stay, traceparent) = self.exchange.stay(place, now);
        let attempt = Attempt { instance, traceparent, ..self.attempt.clone() };
        let run = self.question.ask(attempt, Some(&mut stay), now);
        self.second = Some((run, stay));
    }

    fn is_won_by(&self, outcome: &Outcome) -> bool {
        let limits = self.tries.limits();
        outcome.as_ref().is_ok_and(|answer| retry::wins(limits, answer.response.status()))
    }

    /// The first is out of it, and the second stands in its place.
    fn fall_behind(&mut self, (run, stay): (Run<'r>, Stay), outcome: Outcome) {
        let before = std::mem::replace(&mut self.first, run);
        self.changed = true;
        if let Some(stay) = self.exchange.stay.replace(stay) {
            self.tries.set_aside(before.instance, stay, outcome);
        }
    }

    fn end(self, outcome: Outcome) -> (Arc<Instance>, Outcome) {
        if self.changed && outcome.is_ok() {
            self.tries.won();
        }
        (self.first.instance, outcome)
    }
}
