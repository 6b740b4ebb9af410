//! The tries of one request: where it has been, what it may still spend, and the answer that it gets
//! if nobody has a better one. What is safe is for [`retry`] to say.

use std::sync::Arc;
use std::time::Instant;

use http::{StatusCode, request};

use crate::config::types::Retry;
use crate::health::Rehome;
use crate::instance::body::Upload;
use crate::instance::roster::count;
use crate::instance::{InFlight, Instance};
use crate::proxy::admission::{self, Found, Search};
use crate::proxy::error::Reason;
use crate::proxy::exchange::Exchange;
use crate::proxy::forward::{Answer, Attempt};
use crate::proxy::retry::{self, Failure};
use crate::proxy::session::Session;
use crate::proxy::stay::Stay;
use crate::proxy_protocol::Introduction;

/// What one request has tried and may try.
#[derive(Debug)]
pub struct Tries<'a> {
    search: Search<'a>,
    /// What instances are told of the client by a connection. Apart, as is all that is rare.
    introduction: Option<Arc<Introduction>>,
    /// Where it has been.
    tried: Vec<Arc<Instance>>,
    /// Tries that count, the first included.
    counted: u32,
    /// Whether two were asked at once already.
    hedged: bool,
    held: Option<Box<Held>>,
}

/// What follows an attempt.
#[derive(Debug)]
pub enum Next {
    /// Another one.
    Try(Found),
    /// Nothing: this answer, of this instance, is passed on.
    Pass(Box<(Arc<Instance>, Answer)>),
}

/// An answer that tells of an error, while another instance is asked. It keeps its place.
#[derive(Debug)]
struct Held {
    answer: Option<(Answer, Stay)>,
    /// Where its session was bound before it was sent elsewhere.
    home: Option<Arc<Instance>>,
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some((answer, stay)) = self.answer.take() {
            answer.discard(stay.place());
        }
    }
}

impl<'a> Tries<'a> {
    /// None yet.
    pub fn new(search: Search<'a>, introduction: Option<Introduction>) -> Self {
        let introduction = introduction.map(Arc::new);
        Self { search, introduction, tried: Vec::new(), counted: 1, hedged: false, held: None }
    }

    /// Waits for a place where it has not been.
    pub async fn wait(&mut self, session: &mut Session<'_>) -> Result<InFlight, Reason> {
        admission::wait(session, self.search, &self.tried).await
    }

    /// Whether an answer is passed on without a thought of another one.
    pub fn contents(
        &self,
        head: &request::Parts,
        status: StatusCode,
        upload: Option<&Upload>,
    ) -> bool {
        // What came before all was sent may be about that; and the rest would go to nobody.
        let is_sent = |upload: &Upload| upload.is_sent() && upload.progress().replayable;
        !retry::gives_up(self.limits(), &head.method, status) || !upload.is_none_or(is_sent)
    }

    /// An answer came that another one would be better than.
    pub fn answered(
        &mut self,
        exchange: &mut Exchange,
        session: &mut Session<'_>,
        instance: Arc<Instance>,
        answer: Answer,
    ) -> Next {
        if !session.may_leave() {
            return Next::Pass(Box::new((instance, answer)));
        }
        let before = self.held.as_mut().and_then(|held| held.home.take());
        let home = session.try_elsewhere().or(before);
        let Some(found) = self.instead(session, &instance) else {
            session.return_home(home);
            return Next::Pass(Box::new((instance, answer)));
        };
        if let Some(stay) = exchange.stay.take() {
            self.hold(answer, stay, home);
        }
        Next::Try(found)
    }

    /// Where another answer may come from, at once.
    fn instead(&mut self, session: &Session<'_>, instance: &Arc<Instance>) -> Option<Found> {
        self.tried.push(Arc::clone(instance));
        let found = admission::look(session, self.search, &self.tried, Reason::NoInstance);
        let Found::Place(place) = &found else { return None };
        if !place.instance().admits() || !self.pay() {
            return None;
        }
        count(&self.search.roster.tally.retried[Rehome::Status as usize]);
        Some(found)
    }

    /// Keeps an answer, in the place of an earlier one.
    fn hold(&mut self, answer: Answer, stay: Stay, home: Option<Arc<Instance>>) {
        self.held = Some(Box::new(Held { answer: Some((answer, stay)), home }));
    }

    /// One of two that were asked has come to nothing better than this.
    pub fn set_aside(
        &mut self,
        instance: Arc<Instance>,
        mut stay: Stay,
        outcome: Result<Answer, Failure>,
    ) {
        self.tried.push(instance);
        match outcome {
            Ok(answer) => {
                stay.succeeded(answer.response.status(), false, None);
                self.hold(answer, stay, None);
            }
            Err(failure) => stay.failed(failure, false),
        }
    }

    /// An attempt failed. An error says that nobody has an answer.
    pub fn failed(
        &mut self,
        exchange: &mut Exchange,
        session: &mut Session<'_>,
        head: &request::Parts,
        instance: Arc<Instance>,
        failure: Failure,
    ) -> Result<Next, Reason> {
        exchange.failed(failure)?;
        let replayable = is_replayable(exchange.upload.as_ref());
        let onward = match retry::allowed(self.limits(), &head.method, failure, replayable) {
            true => self.onward(session, instance, failure),
            false => Err(failure.into()),
        };
        onward.map(Next::Try).or_else(|reason| {
            let mut held = self.held.take().ok_or(reason)?;
            let (answer, stay) = held.answer.take().ok_or(reason)?;
            session.return_home(held.home.take());
            let instance = Arc::clone(stay.instance());
            exchange.stay = Some(stay);
            Ok(Next::Pass(Box::new((instance, answer))))
        })
    }

    fn onward(
        &mut self,
        session: &mut Session<'_>,
        instance: Arc<Instance>,
        failure: Failure,
    ) -> Result<Found, Reason> {
        let reason = session.leave(failure);
        self.tried.push(instance);
        let found = admission::look(session, self.search, &self.tried, failure.into());
        // Who has an answer in hand waits for no place.
        if self.held.is_some() && !matches!(found, Found::Place(_)) {
            return Err(failure.into());
        }
        let Some(admits) = found.admits() else { return Ok(found) };
        let are_many = self.tried.len() > 2 * self.limits().attempts as usize;
        if (retry::counts(failure, admits) || are_many) && !self.pay() {
            return Err(failure.into());
        }
        count(&self.search.roster.tally.retried[reason as usize]);
        Ok(found)
    }

    /// Pays for another try; `false` if it may not be made.
    fn pay(&mut self) -> bool {
        let may = self.counted < self.limits().attempts
            && self.search.roster.budget.pay(self.limits(), Instant::now());
        self.counted += u32::from(may);
        may
    }

    /// What bounds them.
    pub fn limits(&self) -> &'a Retry {
        &self.search.version.retry
    }

    /// An attempt in this place.
    pub fn attempt<'b>(
        &self,
        session: &Session<'_>,
        place: &InFlight,
        exchange: &Exchange,
        upload: Option<&'b Upload>,
    ) -> Attempt<'b>
    where
        'a: 'b,
    {
        let Search { roster, version, .. } = self.search;
        let instance = Arc::clone(place.instance());
        let hurries = self.hurries(session, &instance);
        let introduction = self.introduction.clone();
        let (client, has_host) = (Some(Arc::clone(&exchange.client)), exchange.host.is_some());
        Attempt {
            instance,
            roster,
            version,
            has_host,
            upload,
            introduction,
            hurries,
            traceparent: None,
            client,
        }
    }

    /// Whether a connection to this instance is waited for no longer than a first byte.
    fn hurries(&self, session: &Session<'_>, instance: &Arc<Instance>) -> bool {
        self.limits().per_try_timeout.is_some()
            && self.limits().attempts > 1
            && self.has_untried(session, instance)
    }

    /// Whether the instance is not the last one that could answer.
    fn has_untried(&self, session: &Session<'_>, instance: &Arc<Instance>) -> bool {
        session.may_leave() && self.search.roster.has_untried(instance, session.kind(), &self.tried)
    }

    /// Leaves an instance whose first byte is late, if another may be tried; that one is paid for.
    pub fn leaves(&mut self, session: &Session<'_>, instance: &Arc<Instance>) -> bool {
        self.has_untried(session, instance) && self.pay()
    }

    /// Takes a place for asking a second instance beside the first, once for each request.
    pub fn hedge(&mut self, session: &Session<'_>, first: &Arc<Instance>) -> Option<InFlight> {
        if std::mem::replace(&mut self.hedged, true) {
            return None;
        }
        let taken: Vec<_> = self.tried.iter().chain([first]).cloned().collect();
        let instance = session.beside(&taken)?;
        let place = admission::take(&instance, self.search, session.kind())?;
        if !self.pay() {
            return None;
        }
        count(&self.search.roster.tally.hedges);
        Some(place)
    }

    /// The second instance has won.
    pub fn won(&self) {
        count(&self.search.roster.tally.hedges_won);
    }
}

/// Whether another attempt would see all of a body.
pub fn is_replayable(upload: Option<&Upload>) -> bool {
    upload.is_none_or(|upload| upload.progress().replayable)
}
