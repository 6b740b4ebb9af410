//! What the doctor goes by that no counter tells: who came without the token that was given to them, and
//! whether all clients have one address. Written to by requests, in a few instructions; bounded.
//!
//! Who a client is, is told by its address and `User-Agent`: behind a proxy that isn't trusted
//! all have one address, and one robot has one of both. Where one client could make an alarm by many names,
//! its network alone counts. Only hashes are kept.

use std::hash::{BuildHasher, Hash, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// What was seen longer ago is no evidence any more.
pub const WINDOW: Duration = Duration::from_secs(600);
/// Clients that are kept in mind at once.
const SEATS: usize = 1024;
/// A vote takes so long at least: all that one client does at once is no evidence.
const VOTE: u64 = 5;
/// Opened engine.io sessions are noted for so long after one was unknown.
const SUSPICION: Duration = Duration::from_secs(300);

/// The evidence of one version.
#[derive(Debug)]
pub struct Evidence {
    seed: RandomState,
    born: Instant,
    /// Clients that came without a token.
    pub tokenless: Visitors,
    /// Networks of clients whose token no key opens.
    pub strangers: Visitors,
    /// Clients whose address decides where they go.
    pub addresses: Addresses,
    /// Answers that an engine.io session is unknown that another instance had opened.
    pub misled: AtomicU64,
    /// Seconds after `born` until which openings are noted.
    suspects_until: AtomicU64,
}

impl Evidence {
    /// None yet.
    pub fn new(now: Instant) -> Self {
        Self {
            seed: RandomState::new(),
            born: now,
            tokenless: Visitors::default(),
            strangers: Visitors::default(),
            addresses: Addresses::default(),
            misled: AtomicU64::new(0),
            suspects_until: AtomicU64::new(0),
        }
    }

    /// What stands for a client.
    pub fn client(&self, of: impl Hash) -> u64 {
        self.seed.hash_one(of)
    }

    /// What stands for the network of a client: its address, or the 64 bits of an IPv6 one below which a
    /// client has as many as it likes.
    pub fn network(&self, address: &str) -> u64 {
        match address.parse() {
            Ok(IpAddr::V6(address)) => self.seed.hash_one(address.to_bits() >> 64),
            _ => self.seed.hash_one(address),
        }
    }

    /// Seconds since there was none.
    pub fn second(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.born).as_secs()
    }

    /// An engine.io session was unknown: where others are opened is looked at for a while.
    pub fn suspect(&self, now: Instant) {
        let until = self.second(now) + SUSPICION.as_secs();
        self.suspects_until.store(until, Ordering::Relaxed);
    }

    /// Whether that is looked at.
    pub fn is_suspicious(&self) -> bool {
        // Without a clock as long as nothing was ever suspected.
        let until = self.suspects_until.load(Ordering::Relaxed);
        until > 0 && self.second(Instant::now()) < until
    }
}

/// How often clients came, each counted once a second at most. A client that isn't seen for [`WINDOW`]
/// makes room for another, and one that came once at once.
#[derive(Debug, Default)]
pub struct Visitors(OnceLock<Box<[AtomicU64]>>);

/// A seat: 32 bits of who, 24 of the second, 8 of how often.
const fn seat(who: u64, second: u64, times: u64) -> u64 {
    who >> 32 << 32 | (second & 0xff_ffff) << 8 | times
}

impl Visitors {
    /// A client came in this second.
    pub fn came(&self, client: u64, second: u64) {
        let seats = self.0.get_or_init(|| (0..SEATS).map(|_| AtomicU64::new(0)).collect());
        let place = &seats[client as usize % SEATS];
        let taken = place.load(Ordering::Relaxed);
        let (times, age) = (taken & 0xff, age(taken, second));
        let is_same = taken >> 32 == client >> 32 && times > 0;
        let next = match age < WINDOW.as_secs() {
            true if is_same && age == 0 => return,
            true if is_same => seat(client, second, (times + 1).min(0xff)),
            true if times > 1 => return,
            true | false => seat(client, second, 1),
        };
        // Of two who come at once one may be lost.
        place.store(next, Ordering::Relaxed);
    }

    /// Clients that came in this many seconds at least, the last time since `since`.
    pub fn count(&self, times: u64, since: u64, second: u64) -> u64 {
        let seats = self.0.get().map_or(&[][..], |seats| seats);
        let fits = |seat: &&AtomicU64| {
            let seat = seat.load(Ordering::Relaxed);
            let age = age(seat, second);
            seat & 0xff >= times && age < WINDOW.as_secs() && age + since <= second
        };
        seats.iter().filter(fits).count() as u64
    }
}

fn age(seat: u64, second: u64) -> u64 {
    (second & 0xff_ffff).wrapping_sub(seat >> 8 & 0xff_ffff) & 0xff_ffff
}

/// Whether most of the requests come from one address that names clients of its own, by a vote: each other
/// request takes one voice away.
#[derive(Debug, Default)]
pub struct Addresses(Mutex<Vote>);

#[derive(Debug, Default)]
struct Vote {
    address: String,
    lead: u64,
    all: u64,
    /// Whom it names, a bit for each.
    named: [u64; 4],
    /// In which second it did last, and in how many.
    last: Option<u64>,
    seconds: u64,
    /// The second in which the vote began.
    since: u64,
}

/// What came of a vote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Voted {
    /// The address that most came from, if there is one.
    pub address: String,
    /// Requests.
    pub all: u64,
    /// Whether nineteen of twenty and more came from it and named a client.
    pub is_clear: bool,
    /// Different clients that it named.
    pub named: u32,
    /// Different seconds in which it did.
    pub seconds: u64,
}

impl Addresses {
    /// A request came from `address`; it may have named a client, which has this hash, in this second.
    pub fn came(&self, address: &str, named: Option<(u64, u64)>) {
        // Some are not counted rather than waited for.
        let Ok(mut vote) = self.0.try_lock() else { return };
        vote.all += 1;
        let Some((client, second)) = named.filter(|_| vote.lead == 0 || vote.address == address)
        else {
            vote.lead = vote.lead.saturating_sub(1);
            return;
        };
        if vote.address != address {
            (vote.named, vote.last, vote.seconds) = ([0; 4], None, 0);
            vote.address.clear();
            vote.address.push_str(address);
        }
        vote.lead += 1;
        vote.named[client as usize % 4] |= 1 << ((client >> 8) % 64);
        if vote.last != Some(second) {
            vote.last = Some(second);
            vote.seconds += 1;
        }
    }

    /// The end of a vote, if so many took part in it and it took long enough.
    pub fn close(&self, least: u64, second: u64) -> Option<Voted> {
        let mut vote = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if vote.all < least || second < vote.since + VOTE {
            return None;
        }
        let next = Vote { since: second, ..Vote::default() };
        let Vote { address, lead, all, named, seconds, .. } = std::mem::replace(&mut *vote, next);
        let named = named.iter().map(|bits| bits.count_ones()).sum();
        Some(Voted { address, all, is_clear: lead * 10 >= all * 9, named, seconds })
    }

    /// A vote begins.
    pub fn begin(&self, second: u64) {
        let mut vote = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *vote = Vote { since: second, ..Vote::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHO: u64 = 7 << 32 | 5;
    const OTHER: u64 = 8 << 32 | 5;

    #[test]
    fn a_client_counts_once_a_second_and_for_a_while() {
        let visitors = Visitors::default();
        assert_eq!(visitors.count(1, 0, 0), 0);
        for second in [10, 10, 10, 11, 12] {
            visitors.came(WHO, second);
        }
        let counts = |second| [1, 3, 4].map(|times| visitors.count(times, 0, second));
        assert_eq!(counts(12), [1, 1, 0]);
        assert_eq!(counts(611), [1, 1, 0]);
        assert_eq!(counts(612), [0, 0, 0]);
        assert_eq!(visitors.count(1, 13, 20), 0, "not since");
        visitors.came(WHO, 700);
        assert_eq!(visitors.count(2, 0, 700), 0, "begun anew");
    }

    #[test]
    fn whoever_came_again_keeps_its_seat() {
        let visitors = Visitors::default();
        visitors.came(WHO, 1);
        visitors.came(OTHER, 2);
        visitors.came(OTHER, 3);
        visitors.came(WHO, 4);
        assert_eq!(visitors.count(2, 0, 4), 1);
        visitors.came(OTHER, 5);
        assert_eq!(visitors.count(3, 0, 5), 1);
    }

    #[test]
    fn seconds_go_round_and_times_have_an_end() {
        let visitors = Visitors::default();
        for second in 0..1000 {
            visitors.came(WHO, 0xff_fff0 + second);
        }
        assert_eq!(visitors.count(255, 0, 0xff_fff0 + 1000), 1);
    }

    #[test]
    fn a_vote_finds_the_address_that_nearly_all_have_and_that_names_clients() {
        let addresses = Addresses::default();
        let name = |client: u64| (client << 8) | (client % 4);
        addresses.came("192.0.2.9", Some((0, 0)));
        for client in 0..199 {
            addresses.came("192.0.2.1", Some((name(client), client / 40)));
        }
        assert_eq!(addresses.close(201, 5), None, "too few");
        assert_eq!(addresses.close(200, 4), None, "too soon");
        let voted = addresses.close(200, 5).unwrap();
        assert_eq!((&*voted.address, voted.all, voted.is_clear), ("192.0.2.1", 200, true));
        assert!(voted.named > 60 && voted.seconds == 5, "{voted:?}");
        for client in 0..200 {
            addresses.came(["a", "b", "b"][client % 3], Some((0, 6)));
        }
        assert_eq!(addresses.close(200, 9), None, "the next takes as long");
        assert!(!addresses.close(200, 10).unwrap().is_clear);
        for client in 0..200 {
            let named = (client % 10 > 0).then_some((name(client), 11));
            addresses.came("192.0.2.1", named);
        }
        assert!(!addresses.close(200, 15).unwrap().is_clear, "one of ten names nobody");
        addresses.came("192.0.2.1", None);
        addresses.begin(17);
        assert_eq!(addresses.close(0, 21), None);
        assert_eq!(addresses.close(0, 22).unwrap().all, 0, "what was before does not count");
    }

    #[test]
    fn one_network_is_one_however_many_addresses_it_has() {
        let evidence = Evidence::new(Instant::now());
        let same = |a: &str, b: &str| evidence.network(a) == evidence.network(b);
        assert!(same("2001:db8::1", "2001:db8::ffff:0:0:1"));
        assert!(!same("2001:db8::1", "2001:db8:0:1::1"));
        assert!(!same("192.0.2.1", "192.0.2.2"));
    }

    #[test]
    fn suspicion_passes() {
        let now = Instant::now();
        let evidence = Evidence::new(now);
        assert!(!evidence.is_suspicious());
        evidence.suspect(now);
        assert!(evidence.is_suspicious());
        evidence.suspects_until.store(0, Ordering::Relaxed);
        assert!(!evidence.is_suspicious());
    }
}
