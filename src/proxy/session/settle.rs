//! What a session comes to when an instance has answered: what is counted, what its client is told.

use std::sync::Arc;
use std::time::Instant;

use http::header::HeaderMap;

use super::{Session, State, nonces, wall_clock};
use crate::affinity::cookie;
use crate::affinity::order::{self, Fate, Order};
use crate::affinity::token::{self, Claim};
use crate::config::types::Affinity;
use crate::instance::Instance;
use crate::instance::roster::count;
use crate::proxy::notice::{Listener, Notice};

/// What to do for an instance's order.
#[derive(Debug)]
enum Obeyed {
    Release,
    Rebind(Arc<Instance>),
}

impl Session<'_> {
    /// `instance` answered: counts the outcome. Gives what the client is to be told, if anything, and
    /// what the token is remembered by that the client holds then.
    pub fn settle(
        self,
        instance: &Arc<Instance>,
        worker: usize,
        answer: &mut HeaderMap,
    ) -> (Option<Box<Notice>>, Option<u64>) {
        let Some(affinity) = &self.service.version().affinity else { return (None, None) };
        let is_due = self.count(instance, worker);
        self.note_visitor();
        // What an instance says there is no token.
        if let Some(name) = &affinity.header {
            answer.remove(name);
        }
        if affinity.by.is_none() && !affinity.pass_cookie {
            cookie::unset(answer, &affinity.cookie.name);
        }
        let home = match self.obey(affinity, answer) {
            None => is_due.then(|| Arc::clone(self.bound().unwrap_or(instance))),
            Some(Obeyed::Release) => {
                return (Some(Box::new(Notice::release(affinity, self.https))), None);
            }
            Some(Obeyed::Rebind(to)) => Some(to),
        };
        let token = home.and_then(|home| self.seal(&home));
        let mark = match (&token, &self.state) {
            (Some((_, mark)), _) => Some(*mark),
            (None, State::Bound(bond, kept)) => {
                kept.sessions.seen(bond.mark);
                bond.issued.map(|_| bond.mark)
            }
            (None, _) => None,
        };
        let notice = token.map(|(token, _)| Notice::token(affinity, &token, self.https));
        if !self.opens {
            return (notice.map(Box::new), mark);
        }
        let mut notice = notice.unwrap_or_default();
        notice.listen(Listener::new(Arc::clone(&self.service.roster), Arc::clone(instance)));
        (Some(Box::new(notice)), mark)
    }

    /// The doctor looks at who comes again without the token that it was given.
    fn note_visitor(&self) {
        let Some(visitor) = self.visitor.filter(|_| matches!(self.state, State::Absent)) else {
            return;
        };
        let evidence = &self.service.roster.evidence;
        evidence.tokenless.came(visitor, evidence.second(Instant::now()));
    }

    /// Takes the instance's order out of its answer. Gives what is to be done, if that can be.
    fn obey(&self, affinity: &Affinity, answer: &mut HeaderMap) -> Option<Obeyed> {
        let name = affinity.instance_header.as_deref()?;
        let mut lines = answer.get_all(name).iter();
        let first = lines.next()?.clone();
        let is_alone = lines.next().is_none();
        answer.remove(name);
        let roster = &self.service.roster;
        let obeyed = match order::parse(first.as_bytes()).filter(|_| is_alone) {
            Some(Order::Release) => Some(Obeyed::Release),
            Some(Order::Rebind(to)) => roster.bound(to, wall_clock()).ok().map(Obeyed::Rebind),
            None => None,
        };
        let fate = match obeyed {
            Some(Obeyed::Release) => Fate::Released,
            Some(Obeyed::Rebind(_)) => Fate::Rebound,
            None => Fate::Ignored,
        };
        count(&roster.tally.orders[fate as usize]);
        obeyed
    }

    /// Counts what became of the session. Gives whether the client needs a fresh token.
    fn count(&self, instance: &Instance, worker: usize) -> bool {
        let tally = &self.service.roster.tally;
        if let Some(reason) = self.rejected {
            count(&tally.rejected[reason as usize]);
        }
        match &self.state {
            State::Off | State::Refused(_) => return false,
            State::Keyed => {
                count(&tally.keyed);
                return false;
            }
            State::Keyless => {
                count(&tally.keyless);
                return false;
            }
            State::Absent => count(&tally.new),
            State::Rejected(_) => count(&tally.unhonoured),
            State::Moving(_, reason) => count(&tally.rehomed[*reason as usize]),
            State::Bound(bond, _) => {
                instance.lane(worker).keep();
                // One carrier's token was honoured and another's wasn't: both get a fresh one.
                return bond.wants_token || self.rejected.is_some();
            }
        }
        true
    }

    /// A token for `instance`, and its mark. The session counts there from now on.
    fn seal(&self, instance: &Instance) -> Option<(String, u64)> {
        let (issued, kept) = match &self.state {
            State::Bound(bond, home) => {
                (bond.issued, std::ptr::eq(&raw const **home, instance).then_some(bond.mark))
            }
            State::Moving(bond, _) => (bond.issued, None),
            State::Off | State::Keyed | State::Keyless | State::Absent => (None, None),
            State::Rejected(_) | State::Refused(_) => (None, None),
        };
        let now = wall_clock();
        let claim = Claim {
            service: self.service.roster.service(),
            version: self.service.roster.version(),
            instance: &instance.identity().name,
            issued: issued.unwrap_or(now),
            renewed: now,
            mark: 0,
        };
        // Without randomness a token would not be safe; a session without one is merely not sticky.
        let mut nonce = nonces::draw().ok()?;
        match kept.filter(|_| issued.is_some()) {
            // The same session as before, so that it counts as one.
            Some(mark) => {
                token::keep_mark(&mut nonce, mark);
                instance.sessions.seen(mark);
            }
            None => instance.sessions.began(token::mark(&nonce)),
        }
        let mark = token::mark(&nonce);
        Some((self.snapshot.keyring.seal(&claim, nonce), mark))
    }
}
