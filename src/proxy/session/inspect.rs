//! Where a request would go, for somebody who only asks: what `Session::choose` would say next,
//! with no turn taken and nothing noted.

use std::sync::Arc;
use std::time::Instant;

use super::{Session, State, wall_clock};
use crate::affinity::Rejection;
use crate::affinity::carriers::{self, Carrier};
use crate::affinity::cookie::Values;
use crate::affinity::token::{Claim, Opened};
use crate::balance::Draw;
use crate::instance::{Instance, Kind};
use crate::proxy::error::Reason;
use crate::snapshot::{Service, Snapshot};

/// A token that a request brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Where.
    pub carrier: Carrier,
    /// Why it isn't honoured, if it isn't.
    pub verdict: Result<(), Rejection>,
    /// Which of the keys it is sealed with, from 1.
    pub key: Option<usize>,
    /// What it says, if it could be opened.
    pub says: Option<Said>,
}

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// The service it was issued for.
    pub service: String,
    /// The version it binds to.
    pub version: String,
    /// The bound instance.
    pub instance: String,
    /// When the session began, in seconds since the epoch.
    pub issued: u64,
    /// When it was last renewed.
    pub renewed: u64,
}

impl Said {
    fn of(claim: &Claim<'_>) -> Self {
        Self {
            service: claim.service.to_owned(),
            version: claim.version.to_owned(),
            instance: claim.instance.to_owned(),
            issued: claim.issued,
            renewed: claim.renewed,
        }
    }
}

impl Session<'_> {
    /// Where it would go next, or why nowhere. By the same rules as [`Session::choose`], whose memories it
    /// looks into without a trace.
    pub fn foresee(&self, now: Instant) -> Result<Arc<Instance>, Reason> {
        let roster = &self.service.roster;
        let draw = Draw { key: self.key.as_deref(), random: self.random };
        let beside = || roster.choose_beside(draw, self.kind, &[]);
        let has_place = |to: &Arc<Instance>| !to.is_full(self.kind) && to.admits();
        let chosen = match &self.state {
            State::Refused(_) => return Err(Reason::SessionUnavailable),
            State::Bound(_, instance) => return Ok(Arc::clone(instance)),
            State::Keyed => beside(),
            State::Off | State::Keyless | State::Absent | State::Rejected(_) => {
                let tunnel = self.kind == Kind::Tunnel;
                let awaited = || tunnel.then(|| roster.moves.awaited(now)).flatten();
                let fits = |to: &Arc<Instance>| to.eligibility().new_sessions && has_place(to);
                let along =
                    || self.burst().and_then(|key| roster.bursts.peek(key, now)).filter(fits);
                awaited().filter(|to| !to.is_full(self.kind)).or_else(along).or_else(beside)
            }
            State::Moving(bond, _) => {
                let serves = |to: &Arc<Instance>| to.eligibility().bound.is_ok() && has_place(to);
                let sent = roster.moves.sent(bond.mark);
                let followed = sent.or_else(|| roster.rehomes.peek(bond.mark, now));
                followed.filter(serves).or_else(beside)
            }
        };
        chosen.ok_or(Reason::NoInstance)
    }

    /// Whether it brings what a ring is asked with.
    pub fn has_key(&self) -> bool {
        self.key.is_some()
    }

    /// Whether a client's first requests, or its engine.io id, decide where it goes.
    pub fn is_known_by_memory(&self, now: Instant) -> bool {
        let roster = &self.service.roster;
        match &self.state {
            State::Bound(bond, _) => bond.issued.is_none(),
            State::Moving(bond, _) => roster.rehomes.peek(bond.mark, now).is_some(),
            State::Absent | State::Rejected(_) => {
                self.burst().is_some_and(|key| roster.bursts.peek(key, now).is_some())
            }
            State::Off | State::Keyed | State::Keyless | State::Refused(_) => false,
        }
    }
}

/// The tokens that a request brings, in the order in which they are believed, up to the first that is
/// honoured.
pub fn tokens(snapshot: &Snapshot, service: &Service, head: &http::request::Parts) -> Vec<Seen> {
    let mut seen = Vec::new();
    let affinity = service.version().affinity.as_ref().filter(|affinity| affinity.by.is_none());
    let Some(affinity) = affinity else { return seen };
    let (mut headers, mut target) = (head.headers.clone(), head.uri.clone());
    carriers::take(affinity, &mut headers, &mut target, true, |carrier, values| {
        let found = judged(snapshot, service, carrier, values);
        let honoured = found.verdict.is_ok();
        seen.push(found);
        honoured
    });
    seen
}

/// What a carrier's value comes to; of several that of the one which would be honoured and was renewed
/// last, as in [`Session::read`].
fn judged(
    snapshot: &Snapshot,
    service: &Service,
    carrier: Carrier,
    values: Result<Values, Rejection>,
) -> Seen {
    let now = wall_clock();
    let keyring = &snapshot.keyring;
    let rejected = |reason| Seen { carrier, verdict: Err(reason), key: None, says: None };
    let values = match values {
        Ok(values) => values,
        Err(reason) => return rejected(reason),
    };
    let open = |text: &[u8]| {
        let mut buffer = Opened::default();
        let key = keyring.key_of(text);
        match keyring.open(text, &mut buffer) {
            Ok(claim) => {
                let verdict = Session::heed(service, &claim, now);
                Seen { carrier, verdict, key, says: Some(Said::of(&claim)) }
            }
            Err(reason) => Seen { key, ..rejected(reason) },
        }
    };
    if let Some(value) = values.single() {
        return open(value.as_bytes());
    }
    let opened = values.iter().map(|value| open(value.as_bytes()));
    let honoured = opened.filter(|seen| seen.verdict.is_ok());
    let newest = honoured.max_by_key(|seen| seen.says.as_ref().map(|said| said.renewed));
    newest.unwrap_or_else(|| rejected(Rejection::Duplicated))
}
