//! Where the requests of a session go, and when it leaves its instance.

use std::sync::Arc;
use std::time::Instant;

use super::{Session, State};
use crate::balance::Draw;
use crate::health::Rehome;
use crate::instance::{Instance, Kind};
use crate::proxy::error::Reason;
use crate::proxy::retry::Failure;

impl Session<'_> {
    /// Where to try next, or why there is nowhere: `otherwise`, unless it is the session's fault.
    pub fn choose(
        &self,
        tried: &[Arc<Instance>],
        now: Instant,
        otherwise: Reason,
    ) -> Result<Arc<Instance>, Reason> {
        let roster = &self.service.roster;
        let draw = Draw { key: self.key.as_deref(), random: self.random };
        let untried = |to: &Arc<Instance>| {
            !to.is_full(self.kind) && !tried.iter().any(|tried| Arc::ptr_eq(tried, to))
        };
        let chosen = match &self.state {
            State::Refused(_) => return Err(Reason::SessionUnavailable),
            State::Bound(_, instance) => return Ok(Arc::clone(instance)),
            State::Keyed => roster.choose(draw, self.kind, tried),
            State::Off | State::Keyless | State::Absent | State::Rejected(_) => {
                let tunnel = self.kind == Kind::Tunnel;
                let welcomed = tunnel.then(|| roster.moves.welcome(now)).flatten();
                let choose = || roster.choose(draw, self.kind, tried);
                let fits = |to: &Arc<Instance>| {
                    to.eligibility().new_sessions && to.admits() && untried(to)
                };
                let along = || match self.burst() {
                    None => choose(),
                    Some(key) => roster.bursts.share(key, now, fits, choose),
                };
                welcomed.filter(untried).or_else(|| match &self.stream {
                    None => along(),
                    Some(stream) => stream.together(roster, fits, along),
                })
            }
            State::Moving(bond, _) => {
                let fits = |to: &Arc<Instance>| {
                    to.eligibility().bound.is_ok() && to.admits() && untried(to)
                };
                let choose = || roster.choose(draw, self.kind, tried);
                roster.rehomes.share(bond.mark, now, fits, choose)
            }
        };
        chosen.ok_or(otherwise)
    }

    /// The instance that it is bound to.
    pub fn bound(&self) -> Option<&Arc<Instance>> {
        match &self.state {
            State::Bound(_, instance) => Some(instance),
            State::Off | State::Keyed | State::Keyless | State::Absent => None,
            State::Rejected(_) | State::Moving(..) | State::Refused(_) => None,
        }
    }

    /// A session that is bound to an instance which can't serve it any more is so no longer.
    pub fn look_again(&mut self) {
        if let State::Bound(bond, instance) = &self.state
            && let Err(reason) = instance.eligibility().bound
        {
            self.state = State::Moving(*bond, reason);
            self.refuse_move(reason);
        }
    }

    /// Whether it asks for a place as a request or as a tunnel.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// An attempt failed and another follows: a bound session leaves its instance.
    pub fn leave(&mut self, failure: Failure) -> Rehome {
        let reason = match failure {
            Failure::Connect | Failure::ConnectTimeout | Failure::Tls | Failure::NoSocket => {
                Rehome::ConnectFailed
            }
            Failure::Reset(_) | Failure::InvalidResponse => Rehome::Reset,
            Failure::FirstByteTimeout | Failure::TryTimeout | Failure::Unanswered(_) => {
                Rehome::NoAnswer
            }
            Failure::Dead(_) => Rehome::Dead,
        };
        if let State::Bound(bond, _) = self.state {
            self.state = State::Moving(bond, reason);
            self.refuse_move(reason);
        }
        reason
    }

    /// Whether a request may go elsewhere though its instance could still answer it, or has.
    pub fn may_leave(&self) -> bool {
        let affinity = self.service.version().affinity.as_ref();
        self.bound().is_none() || affinity.is_none_or(|affinity| !affinity.strict)
    }

    /// Another instance is asked since an answer told of an error: a bound session leaves, for as
    /// long as it takes to see whether somebody does better. Gives where it was.
    pub fn try_elsewhere(&mut self) -> Option<Arc<Instance>> {
        let State::Bound(bond, home) = &self.state else { return None };
        let (bond, home) = (*bond, Arc::clone(home));
        self.state = State::Moving(bond, Rehome::Status);
        Some(home)
    }

    /// Nobody does better: it is bound to `home` again, if it was.
    pub fn return_home(&mut self, home: Option<Arc<Instance>>) {
        if let State::Moving(bond, Rehome::Status) = self.state
            && let Some(home) = home
        {
            self.state = State::Bound(bond, home);
        }
    }

    /// Where a request that is bound to none could go as well as to where it is. Not where the first
    /// requests of its client are kept together.
    pub fn beside(&self, tried: &[Arc<Instance>]) -> Option<Arc<Instance>> {
        let is_free = match self.state {
            State::Off | State::Keyless => true,
            State::Absent | State::Rejected(_) => self.burst().is_none() && self.stream.is_none(),
            State::Keyed | State::Bound(..) | State::Moving(..) | State::Refused(_) => false,
        };
        let roster = is_free.then_some(&self.service.roster)?;
        let draw = Draw { key: self.key.as_deref(), random: self.random };
        let chosen = roster.choose_beside(draw, self.kind, tried)?;
        chosen.takes_new_sessions().then_some(chosen)
    }
}
