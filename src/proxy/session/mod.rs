//! The session of a request: what its token says, where it goes, what the client is told.

mod choose;
mod inspect;
mod nonces;
mod settle;
mod version;

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use http::header::{HeaderValue, USER_AGENT};
use http::request;

use crate::affinity::Rejection;
use crate::affinity::carriers;
use crate::affinity::cookie::{Value, Values};
use crate::affinity::engine_io::{self, Ask};
use crate::affinity::memory::Memory;
use crate::affinity::token::Claim;
use crate::config::types::{Affinity, FirstBurst, HashKey};
use crate::health::Rehome;
use crate::instance::{Instance, Kind};
use crate::proxy::client::Client;
use crate::proxy::headers::{self, Fields};
use crate::proxy::key;
use crate::snapshot::{Service, Snapshot};

pub use inspect::{Said, Seen, tokens};
pub use version::{Lot, draw, take_others};

/// What became of a request's session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Affinity is off, or the request came to no instance.
    Off,
    /// It brought the app's own session id, which led to an instance.
    Keyed,
    /// It brought no session id of the app.
    Keyless,
    /// It brought no token.
    New,
    /// It reached its bound instance.
    Kept,
    /// It was bound to another instance.
    Rehomed(Rehome),
    /// Its token wasn't honoured.
    Rejected(Rejection),
    /// Its instance can't serve it, and it must not move.
    Refused(Rehome),
}

impl Outcome {
    /// The labels in the log: outcome and reason.
    pub const fn labels(self) -> (&'static str, Option<&'static str>) {
        match self {
            Self::Off => ("off", None),
            Self::Keyed => ("keyed", None),
            Self::Keyless => ("keyless", None),
            Self::New => ("new", None),
            Self::Kept => ("kept", None),
            Self::Rehomed(reason) => ("rehomed", Some(reason.label())),
            Self::Rejected(reason) => ("rejected", Some(reason.label())),
            Self::Refused(reason) => ("refused", Some(reason.label())),
        }
    }
}

/// What a request is bound by.
#[derive(Debug, Clone, Copy)]
struct Bond {
    /// When the session began; unknown where only the instance's own id for it is known.
    issued: Option<u64>,
    mark: u64,
    /// Whether the client needs a fresh token even if it stays.
    wants_token: bool,
}

#[derive(Debug)]
enum State {
    Off,
    /// By an id of the app's own.
    Keyed,
    Keyless,
    Absent,
    Rejected(Rejection),
    Bound(Bond, Arc<Instance>),
    Moving(Bond, Rehome),
    Refused(Rehome),
}

/// How a request came.
#[derive(Debug)]
pub struct Visit<'a> {
    /// By https.
    pub https: bool,
    /// For a place of this kind.
    pub kind: Kind,
    /// From this address.
    pub client: &'a str,
    /// On this stream, of a connection that belongs to one client.
    pub stream: Option<Arc<Client>>,
    /// With these fields.
    pub fields: Fields,
    /// Whether it only asks where it would go: then nothing is noted of it and no turn is taken.
    pub only_asks: bool,
}

/// A request's session on its way through.
#[derive(Debug)]
pub struct Session<'a> {
    snapshot: &'a Snapshot,
    service: &'a Service,
    https: bool,
    only_asks: bool,
    kind: Kind,
    /// What decides the place on a ring.
    key: Option<Vec<u8>>,
    random: u64,
    state: State,
    /// Why the first token that wasn't honoured wasn't, whatever came after it.
    rejected: Option<Rejection>,
    /// Whether it asks for a new engine.io session.
    opens: bool,
    /// What stands for its client, where that brings no token that is honoured.
    visitor: Option<u64>,
    /// Its stream, if others of its connection are its client's too.
    stream: Option<Arc<Client>>,
}

thread_local! {
    static MEMORY: RefCell<Memory> = RefCell::default();
}

/// What its client calls itself.
fn agent(head: &request::Parts) -> Option<&[u8]> {
    head.headers.get(USER_AGENT).map(HeaderValue::as_bytes)
}

/// Seconds since the Unix epoch.
fn wall_clock() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl<'a> Session<'a> {
    /// Reads the token, and takes its carriers out of what the instance will see.
    pub fn read(
        snapshot: &'a Snapshot,
        service: &'a Service,
        head: &mut request::Parts,
        visit: Visit<'_>,
    ) -> Self {
        let Visit { https, kind, client, stream, fields, only_asks } = visit;
        let mut session = Self {
            snapshot,
            service,
            https,
            only_asks,
            kind,
            key: None,
            random: fastrand::u64(..),
            state: State::Off,
            rejected: None,
            opens: false,
            visitor: None,
            stream: None,
        };
        let version = service.version();
        if let Some(affinity) = &version.affinity {
            match &affinity.by {
                Some(by) => session.recognise(by, client, head),
                None => {
                    session.stream = stream;
                    session.open(affinity, head, client, fields);
                }
            }
        }
        if session.key.is_none() {
            session.key = key::of_balance(&version.balance, client, head);
        }
        if matches!(session.state, State::Rejected(Rejection::UnknownKey)) && !only_asks {
            session.note_stranger(client);
        }
        if version.is_by_address() && !only_asks {
            session.note_address(client, head, fields);
        }
        session
    }

    /// The doctor looks at where tokens come from that no key opens.
    fn note_stranger(&self, client: &str) {
        let evidence = &self.service.roster.evidence;
        evidence.strangers.came(evidence.network(client), evidence.second(Instant::now()));
    }

    /// The doctor looks at whose address decides.
    fn note_address(&self, client: &str, head: &request::Parts, fields: Fields) {
        let evidence = &self.service.roster.evidence;
        let is_told = fields.has(Fields::TOLD);
        let named = is_told.then(|| headers::named_client(&head.headers, client)).flatten();
        let second = || evidence.second(Instant::now());
        evidence.addresses.came(client, named.map(|named| (evidence.client(named), second())));
    }

    fn recognise(&mut self, by: &HashKey, client: &str, head: &request::Parts) {
        self.key = key::of(by, client, head);
        self.state = if self.key.is_some() { State::Keyed } else { State::Keyless };
    }

    fn open(
        &mut self,
        affinity: &Affinity,
        head: &mut request::Parts,
        client: &str,
        fields: Fields,
    ) {
        let has_cookies = fields.has(Fields::COOKIE);
        self.state = State::Absent;
        if let Some(name) = &affinity.instance_header {
            // Nobody but an instance has a say there.
            head.headers.remove(name);
        }
        if has_cookies || affinity.header.is_some() || affinity.query.is_some() {
            let (fields, target) = (&mut head.headers, &mut head.uri);
            carriers::take(affinity, fields, target, has_cookies, |_, values| self.believe(values));
        }
        if affinity.engine_io {
            self.heed_engine_io(head.uri.query());
        }
        match self.state {
            State::Moving(_, reason) => self.refuse_move(reason),
            State::Absent | State::Rejected(_) => {
                self.visitor = Some(self.service.roster.bursts.key((client, agent(head))));
            }
            State::Bound(..) => {}
            State::Off | State::Keyed | State::Keyless | State::Refused(_) => {}
        }
    }

    /// What is alike in the first requests of its client, where that is looked at.
    fn burst(&self) -> Option<u64> {
        let affinity = self.service.version().affinity.as_ref()?;
        self.visitor.filter(|_| affinity.first_burst == FirstBurst::Client)
    }

    /// A strict session does not move, unless its instance is gone for good and the session with it,
    /// or it was already told to go elsewhere.
    fn refuse_move(&mut self, reason: Rehome) {
        let affinity = self.service.version().affinity.as_ref();
        let may_move = matches!(
            reason,
            Rehome::Removed | Rehome::Rebalanced | Rehome::Restarted | Rehome::Split
        );
        if affinity.is_some_and(|affinity| affinity.strict) && !may_move {
            self.state = State::Refused(reason);
        }
    }

    /// What a carrier holds: gives whether its token is honoured.
    fn believe(&mut self, values: Result<Values, Rejection>) -> bool {
        let opened = values.and_then(|values| {
            MEMORY.with_borrow_mut(|memory| {
                let now = wall_clock();
                let value = match values.single() {
                    Some(value) => value,
                    None => self.newest(&values, memory, now).ok_or(Rejection::Duplicated)?,
                };
                let claim = memory.open(&self.snapshot.keyring, value.as_bytes())?;
                Self::heed(self.service, &claim, now)?;
                Ok(self.bind(&claim, now))
            })
        });
        match opened {
            Ok(state) => {
                self.state = state;
                true
            }
            Err(reason) => {
                self.state = State::Rejected(*self.rejected.get_or_insert(reason));
                false
            }
        }
    }

    /// Of several values, the one whose token would be honoured and was renewed last: a client whose
    /// cookie has a new path or domain holds the old one for good.
    ///
    /// A site beside this one may put a token of its own into a browser's jar for the domain that they
    /// share. That is a token like any other, and leads to an instance like any other: it can move
    /// the client's session, and tells nobody anything. A name with `__Host-` keeps it out.
    fn newest<'v>(&self, values: &'v Values, memory: &mut Memory, now: u64) -> Option<&'v Value> {
        let renewed = |value: &Value, memory: &mut Memory| {
            let claim = memory.open(&self.snapshot.keyring, value.as_bytes()).ok()?;
            Self::heed(self.service, &claim, now).ok()?;
            Some(claim.renewed)
        };
        let honoured = values.iter().filter_map(|value| Some((renewed(value, memory)?, value)));
        honoured.max_by_key(|(renewed, _)| *renewed).map(|(_, value)| value)
    }

    /// Whether an authentic token is one of this service, and still good.
    fn heed(service: &Service, claim: &Claim<'_>, now: u64) -> Result<(), Rejection> {
        if claim.service != service.roster.service() {
            return Err(Rejection::Foreign);
        }
        claim.check(service.lifetimes, now)
    }

    fn bind(&self, claim: &Claim<'_>, now: u64) -> State {
        let service = self.service;
        let bond = Bond {
            issued: Some(claim.issued),
            mark: claim.mark,
            wants_token: claim.wants_renewal(service.lifetimes, now),
        };
        let roster = &service.roster;
        let bound = match claim.version == roster.version() {
            true => match self.sent_on(bond.mark) {
                None => roster.bound(claim.instance, claim.renewed),
                Some(_) if self.only_asks => Err(Rehome::Rebalanced),
                Some(to) => {
                    roster.rehomes.note(bond.mark, to, Instant::now());
                    Err(Rehome::Rebalanced)
                }
            },
            false => match self.snapshot.branch_of(service).named(claim.version) {
                Some(_) => Err(Rehome::Split),
                None => Err(Rehome::Removed),
            },
        };
        match bound {
            Ok(instance) => State::Bound(bond, instance),
            Err(reason) => State::Moving(bond, reason),
        }
    }

    /// Where the session of this token is to go, if it is to move.
    fn sent_on(&self, mark: u64) -> Option<Arc<Instance>> {
        let moves = &self.service.roster.moves;
        if self.only_asks { moves.sent(mark) } else { moves.follow(mark) }
    }

    /// A request that brings no token is bound by its engine.io session, where that is known.
    fn heed_engine_io(&mut self, query: Option<&str>) {
        let sid = match query.and_then(engine_io::ask) {
            None => return,
            Some(Ask::Opens) => {
                self.opens = true;
                return;
            }
            Some(Ask::Continues(sid)) => sid,
        };
        if !matches!(self.state, State::Absent | State::Rejected(_)) {
            return;
        }
        let roster = &self.service.roster;
        let mark = roster.sids.key(sid);
        let now = Instant::now();
        let found = match self.only_asks {
            true => roster.sids.peek(mark, now),
            false => roster.sids.find(mark, now),
        };
        let Some(instance) = found else { return };
        let bond = Bond { issued: None, mark, wants_token: false };
        // How old an id is isn't known; an instance that has restarted since answers its own 400.
        self.state = match roster.serves(&instance, u64::MAX) {
            Ok(()) => State::Bound(bond, instance),
            Err(reason) => State::Moving(bond, reason),
        };
    }

    /// What became of it where no instance answered.
    pub fn unserved(&self) -> Outcome {
        match self.state {
            State::Refused(reason) => Outcome::Refused(reason),
            State::Off | State::Keyed | State::Keyless | State::Absent | State::Rejected(_) => {
                Outcome::Off
            }
            State::Bound(..) | State::Moving(..) => Outcome::Off,
        }
    }

    /// What became of it.
    pub fn outcome(&self) -> Outcome {
        match &self.state {
            State::Off => Outcome::Off,
            State::Keyed => Outcome::Keyed,
            State::Keyless => Outcome::Keyless,
            State::Absent => Outcome::New,
            State::Rejected(reason) => Outcome::Rejected(*reason),
            State::Bound(..) => Outcome::Kept,
            State::Moving(_, reason) => Outcome::Rehomed(*reason),
            State::Refused(reason) => Outcome::Refused(*reason),
        }
    }
}
