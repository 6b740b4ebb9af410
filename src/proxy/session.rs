//! The session of a request: what its token says, where it goes, what the client is told.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use http::header::{COOKIE, HeaderMap, HeaderValue};

use crate::affinity::memory::Memory;
use crate::affinity::token::{self, Claim};
use crate::affinity::{Rejection, cookie as carrier};
use crate::balance::Draw;
use crate::config::types::Affinity;
use crate::health::Rehome;
use crate::instance::roster::count;
use crate::instance::{Instance, Roster};
use crate::proxy::headers::Fields;
use crate::proxy::retry::Failure;
use crate::snapshot::{Service, Snapshot};

/// What became of a request's session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Affinity is off, or the request came to no instance.
    Off,
    /// It brought no token.
    New,
    /// It reached its bound instance.
    Kept,
    /// It was bound to another instance.
    Rehomed(Rehome),
    /// Its token wasn't honoured.
    Rejected(Rejection),
}

impl Outcome {
    /// The labels in the log: outcome and reason.
    pub const fn labels(self) -> (&'static str, Option<&'static str>) {
        match self {
            Self::Off => ("off", None),
            Self::New => ("new", None),
            Self::Kept => ("kept", None),
            Self::Rehomed(reason) => ("rehomed", Some(reason.label())),
            Self::Rejected(reason) => ("rejected", Some(reason.label())),
        }
    }
}

/// A token that was honoured.
#[derive(Debug, Clone, Copy)]
struct Token {
    issued: u64,
    mark: u64,
    wants_renewal: bool,
}

#[derive(Debug)]
enum State {
    Off,
    Absent,
    Rejected(Rejection),
    Bound(Token, Arc<Instance>),
    Moving(Token, Rehome),
}

/// A request's session on its way through.
#[derive(Debug)]
pub struct Session<'a> {
    snapshot: &'a Snapshot,
    service: &'a Service,
    https: bool,
    tunnel: bool,
    state: State,
}

thread_local! {
    static MEMORY: RefCell<Memory> = RefCell::default();
}

/// Seconds since the Unix epoch.
fn wall_clock() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl<'a> Session<'a> {
    /// Reads the token, and takes its carrier out of what the instance will see. The request came by
    /// https or not, and asks for a tunnel or doesn't.
    pub fn read(
        snapshot: &'a Snapshot,
        service: &'a Service,
        headers: &mut HeaderMap,
        fields: Fields,
        (https, tunnel): (bool, bool),
    ) -> Self {
        let state = match &service.version().affinity {
            None => State::Off,
            Some(_) if !fields.has(Fields::COOKIE) => State::Absent,
            Some(affinity) => {
                Self::open(snapshot, service, affinity, headers).unwrap_or_else(State::Rejected)
            }
        };
        Self { snapshot, service, https, tunnel, state }
    }

    fn open(
        snapshot: &Snapshot,
        service: &Service,
        affinity: &Affinity,
        headers: &mut HeaderMap,
    ) -> Result<State, Rejection> {
        let Some(value) = carrier::find(headers, &affinity.cookie.name, !affinity.pass_cookie)?
        else {
            return Ok(State::Absent);
        };
        MEMORY.with_borrow_mut(|memory| {
            let claim = memory.open(&snapshot.keyring, value.as_bytes())?;
            Self::bind(service, &claim, wall_clock())
        })
    }

    fn bind(service: &Service, claim: &Claim<'_>, now: u64) -> Result<State, Rejection> {
        if claim.service != service.roster.service() {
            return Err(Rejection::Foreign);
        }
        claim.check(service.lifetimes, now)?;
        let token = Token {
            issued: claim.issued,
            mark: claim.mark,
            wants_renewal: claim.wants_renewal(service.lifetimes, now),
        };
        let roster = &service.roster;
        let bound = match claim.version == roster.version() {
            true => match roster.moves.follow(token.mark) {
                None => roster.bound(claim.instance, claim.renewed),
                Some(to) => {
                    roster.rehomes.note(token.mark, to, Instant::now());
                    Err(Rehome::Rebalanced)
                }
            },
            false => Err(Rehome::Removed),
        };
        Ok(match bound {
            Ok(instance) => State::Bound(token, instance),
            Err(reason) => State::Moving(token, reason),
        })
    }

    /// Where to try next.
    pub fn choose(
        &self,
        roster: &Roster,
        draw: Draw<'_>,
        tried: &[Arc<Instance>],
        now: Instant,
    ) -> Option<Arc<Instance>> {
        match &self.state {
            State::Bound(_, instance) => Some(Arc::clone(instance)),
            State::Off | State::Absent | State::Rejected(_) => {
                let welcomed = self.tunnel.then(|| roster.moves.welcome(now)).flatten();
                let untried =
                    |to: &Arc<Instance>| !tried.iter().any(|tried| Arc::ptr_eq(tried, to));
                welcomed.filter(untried).or_else(|| roster.choose(draw, tried))
            }
            State::Moving(token, _) => {
                let followed = roster.rehomes.find(token.mark, now).filter(|instance| {
                    instance.eligibility().bound.is_ok()
                        && instance.admits()
                        && !tried.iter().any(|tried| Arc::ptr_eq(tried, instance))
                });
                followed.or_else(|| {
                    let chosen = roster.choose(draw, tried)?;
                    roster.rehomes.note(token.mark, Arc::clone(&chosen), now);
                    Some(chosen)
                })
            }
        }
    }

    /// An attempt failed and another follows: a bound session leaves its instance.
    pub fn leave(&mut self, failure: Failure) -> Rehome {
        let reason = match failure {
            Failure::Connect | Failure::ConnectTimeout | Failure::NoSocket => Rehome::ConnectFailed,
            Failure::Reset(_) | Failure::InvalidResponse => Rehome::Reset,
            Failure::FirstByteTimeout | Failure::Unanswered(_) => Rehome::NoAnswer,
            Failure::Dead(_) => Rehome::Dead,
        };
        if let State::Bound(token, _) = self.state {
            self.state = State::Moving(token, reason);
        }
        reason
    }

    /// What became of it.
    pub fn outcome(&self) -> Outcome {
        match &self.state {
            State::Off => Outcome::Off,
            State::Absent => Outcome::New,
            State::Rejected(reason) => Outcome::Rejected(*reason),
            State::Bound(..) => Outcome::Kept,
            State::Moving(_, reason) => Outcome::Rehomed(*reason),
        }
    }

    /// `instance` answered: counts the outcome, and gives the `Set-Cookie` if one is due, and what
    /// the token is remembered by that the client holds then.
    pub fn settle(self, instance: &Instance, worker: usize) -> (Option<HeaderValue>, Option<u64>) {
        let Some(affinity) = &self.service.version().affinity else { return (None, None) };
        let tally = &self.service.roster.tally;
        let issued = match self.state {
            State::Off => return (None, None),
            State::Absent => {
                count(&tally.new);
                None
            }
            State::Rejected(reason) => {
                count(&tally.rejected[reason as usize]);
                None
            }
            State::Moving(token, reason) => {
                count(&tally.rehomed[reason as usize]);
                Some(token.issued)
            }
            State::Bound(token, _) => {
                instance.lane(worker).keep();
                if !token.wants_renewal {
                    return (None, Some(token.mark));
                }
                Some(token.issued)
            }
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
        let mut nonce = [0; 24];
        // Without randomness a token would not be safe; a session without one is merely not sticky.
        if getrandom::fill(&mut nonce).is_err() {
            return (None, None);
        }
        let sealed = self.snapshot.keyring.seal(&claim, nonce);
        (Some(carrier::set(&affinity.cookie, sealed, self.https)), Some(token::mark(&nonce)))
    }
}

/// The value of a cookie, for `hash_by`.
pub fn cookie(headers: &HeaderMap, name: &str) -> Option<Vec<u8>> {
    let pairs =
        headers.get_all(COOKIE).iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    let value = |pair: &[u8]| {
        pair.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"=").map(<[u8]>::to_vec)
    };
    pairs.filter_map(value).next()
}

/// The value of a query parameter, as it stands in the URL.
pub fn query<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}
