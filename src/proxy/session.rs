//! The session of a request: what its token says, where it goes, what the client is told.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use http::header::{HeaderMap, HeaderValue, USER_AGENT};
use http::request;

use crate::affinity::Rejection;
use crate::affinity::carriers;
use crate::affinity::cookie::{self, Value};
use crate::affinity::engine_io::{self, Ask};
use crate::affinity::memory::Memory;
use crate::affinity::order::{self, Fate, Order};
use crate::affinity::token::{self, Claim};
use crate::balance::Draw;
use crate::config::types::{Affinity, FirstBurst, HashKey};
use crate::health::Rehome;
use crate::instance::roster::count;
use crate::instance::{Instance, Kind};
use crate::proxy::client::Client;
use crate::proxy::error::Reason;
use crate::proxy::headers::Fields;
use crate::proxy::key;
use crate::proxy::notice::{Listener, Notice};
use crate::proxy::retry::Failure;
use crate::snapshot::{Service, Snapshot};

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

/// What to do for an instance's order.
#[derive(Debug)]
enum Obeyed {
    Release,
    Rebind(Arc<Instance>),
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
}

/// A request's session on its way through.
#[derive(Debug)]
pub struct Session<'a> {
    snapshot: &'a Snapshot,
    service: &'a Service,
    https: bool,
    kind: Kind,
    /// What decides the place on a ring.
    key: Option<Vec<u8>>,
    random: u64,
    state: State,
    /// Why the first token that wasn't honoured wasn't, whatever came after it.
    rejected: Option<Rejection>,
    /// Whether it asks for a new engine.io session.
    opens: bool,
    /// What is alike in the first requests of its client, where that is looked at.
    burst: Option<u64>,
    /// Its stream, if others of its connection are its client's too.
    stream: Option<Arc<Client>>,
}

thread_local! {
    static MEMORY: RefCell<Memory> = RefCell::default();
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
        let Visit { https, kind, client, stream, fields } = visit;
        let mut session = Self {
            snapshot,
            service,
            https,
            kind,
            key: None,
            random: fastrand::u64(..),
            state: State::Off,
            rejected: None,
            opens: false,
            burst: None,
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
        session
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
            carriers::take(affinity, fields, target, has_cookies, |value| self.believe(value));
        }
        if affinity.engine_io {
            self.heed_engine_io(head.uri.query());
        }
        match self.state {
            State::Moving(_, reason) => self.refuse_move(reason),
            State::Absent | State::Rejected(_) if affinity.first_burst == FirstBurst::Client => {
                let agent = head.headers.get(USER_AGENT).map(HeaderValue::as_bytes);
                self.burst = Some(self.service.roster.bursts.key((client, agent)));
            }
            State::Absent | State::Rejected(_) | State::Bound(..) => {}
            State::Off | State::Keyed | State::Keyless | State::Refused(_) => {}
        }
    }

    /// A strict session does not move, unless its instance is gone for good and the session with it,
    /// or it was already told to go elsewhere.
    fn refuse_move(&mut self, reason: Rehome) {
        let affinity = self.service.version().affinity.as_ref();
        let may_move = matches!(reason, Rehome::Removed | Rehome::Rebalanced | Rehome::Restarted);
        if affinity.is_some_and(|affinity| affinity.strict) && !may_move {
            self.state = State::Refused(reason);
        }
    }

    /// What a carrier holds: gives whether its token is honoured.
    fn believe(&mut self, value: Result<Value, Rejection>) -> bool {
        let opened = value.and_then(|value| {
            MEMORY.with_borrow_mut(|memory| {
                let claim = memory.open(&self.snapshot.keyring, value.as_bytes())?;
                Self::bind(self.service, &claim, wall_clock())
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

    fn bind(service: &Service, claim: &Claim<'_>, now: u64) -> Result<State, Rejection> {
        if claim.service != service.roster.service() {
            return Err(Rejection::Foreign);
        }
        claim.check(service.lifetimes, now)?;
        let bond = Bond {
            issued: Some(claim.issued),
            mark: claim.mark,
            wants_token: claim.wants_renewal(service.lifetimes, now),
        };
        let roster = &service.roster;
        let bound = match claim.version == roster.version() {
            true => match roster.moves.follow(bond.mark) {
                None => roster.bound(claim.instance, claim.renewed),
                Some(to) => {
                    roster.rehomes.note(bond.mark, to, Instant::now());
                    Err(Rehome::Rebalanced)
                }
            },
            false => Err(Rehome::Removed),
        };
        Ok(match bound {
            Ok(instance) => State::Bound(bond, instance),
            Err(reason) => State::Moving(bond, reason),
        })
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
        let Some(instance) = roster.sids.find(mark, Instant::now()) else { return };
        let bond = Bond { issued: None, mark, wants_token: false };
        // How old an id is isn't known; an instance that has restarted since answers its own 400.
        self.state = match roster.serves(&instance, u64::MAX) {
            Ok(()) => State::Bound(bond, instance),
            Err(reason) => State::Moving(bond, reason),
        };
    }

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
                let along = || match self.burst {
                    None => choose(),
                    Some(key) => roster.bursts.share(key, now, fits, choose),
                };
                welcomed.filter(untried).or_else(|| match &self.stream {
                    None => along(),
                    Some(stream) => stream.together(roster, fits, along),
                })
            }
            State::Moving(bond, _) => {
                let followed = roster.rehomes.find(bond.mark, now).filter(|instance| {
                    instance.eligibility().bound.is_ok() && instance.admits() && untried(instance)
                });
                followed.or_else(|| {
                    let chosen = roster.choose(draw, self.kind, tried)?;
                    roster.rehomes.note(bond.mark, Arc::clone(&chosen), now);
                    Some(chosen)
                })
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
            Failure::FirstByteTimeout | Failure::Unanswered(_) => Rehome::NoAnswer,
            Failure::Dead(_) => Rehome::Dead,
        };
        if let State::Bound(bond, _) = self.state {
            self.state = State::Moving(bond, reason);
            self.refuse_move(reason);
        }
        reason
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
        // What an instance says there is no token.
        if let Some(name) = &affinity.header {
            answer.remove(name);
        }
        if affinity.by.is_none() && !affinity.pass_cookie {
            cookie::unset(answer, &affinity.cookie.name);
        }
        let home = match self.obey(affinity, answer) {
            None => is_due.then(|| Arc::clone(instance)),
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
        let mut nonce = [0; 24];
        // Without randomness a token would not be safe; a session without one is merely not sticky.
        getrandom::fill(&mut nonce).ok()?;
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
