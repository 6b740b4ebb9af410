//! The sessions of one demo instance: who is here and what each has yet to read. Pure: `now` and
//! session ids are arguments, nothing here waits, sends or logs. It must not know HTTP.
//!
//! Every message goes to every session, so all sessions read one shared ring, each with its own
//! cursor: memory is bounded by the ring, not by sessions times messages. Start at [`Store`].

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Sessions one instance holds; a demo on a laptop stays far below.
pub(crate) const MAX_SESSIONS: usize = 10_000;
/// Messages kept for slow readers; one that is further behind is told how many it missed.
pub(crate) const RING: usize = 128;
/// A session neither polled nor answering pings for this long is dropped.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// A session's id. 128 random bits, written as 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Sid(u128);

impl Sid {
    pub(crate) fn from_random(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }

    /// Only the written form is accepted, so that one session has one spelling.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let plain = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if text.len() != 32 || !plain {
            return None;
        }
        u128::from_str_radix(text, 16).ok().map(Self)
    }
}

impl fmt::Display for Sid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Why the store refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StoreError {
    /// The words are engine.io's, which clients match on.
    #[error("Session ID unknown")]
    UnknownSid,
    #[error("this instance holds {MAX_SESSIONS} sessions already")]
    Full,
}

/// What a session has to read now.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Unread {
    /// Messages lost because the session was further behind than the ring is long.
    pub(crate) missed: u64,
    pub(crate) messages: Vec<Arc<str>>,
    /// The newest tick, if the session has not seen it; older ones are of no use.
    pub(crate) tick: Option<u64>,
}

#[derive(Debug)]
struct Session {
    /// Number of the next message to read.
    cursor: u64,
    ticked: u64,
    seen: Instant,
}

#[derive(Debug, Default)]
pub(crate) struct Store {
    sessions: HashMap<Sid, Session>,
    ring: VecDeque<Arc<str>>,
    /// Messages ever posted; the ring holds the last of them.
    posted: u64,
    ticks: u64,
}

impl Store {
    /// A new session reads only what is posted from now on.
    pub(crate) fn open(&mut self, sid: Sid, now: Instant) -> Result<(), StoreError> {
        if self.sessions.len() >= MAX_SESSIONS {
            return Err(StoreError::Full);
        }
        self.sessions.insert(sid, Session { cursor: self.posted, ticked: self.ticks, seen: now });
        Ok(())
    }

    pub(crate) fn close(&mut self, sid: Sid) -> Result<(), StoreError> {
        self.sessions.remove(&sid).map(|_| ()).ok_or(StoreError::UnknownSid)
    }

    /// Marks the session as alive.
    pub(crate) fn touch(&mut self, sid: Sid, now: Instant) -> Result<(), StoreError> {
        let session = self.sessions.get_mut(&sid).ok_or(StoreError::UnknownSid)?;
        session.seen = now;
        Ok(())
    }

    /// The number of the next message. The store keeps rendered text; who renders it asks first.
    pub(crate) fn next_number(&self) -> u64 {
        self.posted
    }

    pub(crate) fn post(&mut self, message: Arc<str>) {
        if self.ring.len() == RING {
            self.ring.pop_front();
        }
        self.ring.push_back(message);
        self.posted += 1;
    }

    /// Advances the heartbeat and drops idle sessions.
    pub(crate) fn tick(&mut self, now: Instant) {
        self.ticks += 1;
        self.sessions.retain(|_, s| now.saturating_duration_since(s.seen) < IDLE_TIMEOUT);
    }

    /// Hands over what the session has not read, and moves its cursor past it. Does not count as a
    /// sign of life: a tunnel to a dead peer reads too.
    pub(crate) fn take(&mut self, sid: Sid) -> Result<Unread, StoreError> {
        let session = self.sessions.get_mut(&sid).ok_or(StoreError::UnknownSid)?;
        let oldest = self.posted - self.ring.len() as u64;
        let missed = oldest.saturating_sub(session.cursor);
        let start = session.cursor.max(oldest) - oldest;
        let messages = self.ring.iter().skip(start as usize).cloned().collect();
        let tick = (session.ticked < self.ticks).then_some(self.ticks);
        session.cursor = self.posted;
        session.ticked = self.ticks;
        Ok(Unread { missed, messages, tick })
    }

    pub(crate) fn len(&self) -> usize {
        self.sessions.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sid(n: u8) -> Sid {
        Sid::from_random([n; 16])
    }

    fn store_with(sids: &[Sid], now: Instant) -> Store {
        let mut store = Store::default();
        for sid in sids {
            store.open(*sid, now).unwrap();
        }
        store
    }

    #[test]
    fn sid_is_read_only_as_it_is_written() {
        let sid = Sid::from_random(*b"0123456789abcdef");
        let text = sid.to_string();
        assert_eq!(Sid::parse(&text), Some(sid));
        for bad in ["", "0", "+123", &text[1..], &format!("{text}0"), &text.replace('3', "G")] {
            assert_eq!(Sid::parse(bad), None, "{bad:?}");
        }
        assert_eq!(Sid::parse(&"AB".repeat(16)), None);
        assert_eq!(Sid::parse("+0000000000000000000000000000001"), None);
    }

    #[test]
    fn message_reaches_every_session_once() {
        let now = Instant::now();
        let mut store = store_with(&[sid(1), sid(2)], now);
        store.post("hi".into());
        for n in [1, 2] {
            assert_eq!(store.take(sid(n)).unwrap().messages, [Arc::from("hi")]);
            assert!(store.take(sid(n)) == Ok(Unread::default()));
        }
    }

    #[test]
    fn newcomer_reads_only_what_comes_later() {
        let now = Instant::now();
        let mut store = store_with(&[sid(1)], now);
        store.post("before".into());
        store.tick(now);
        store.open(sid(2), now).unwrap();
        assert!(store.take(sid(2)) == Ok(Unread::default()));
    }

    #[test]
    fn slow_reader_is_told_how_many_it_missed() {
        let mut store = store_with(&[sid(1)], Instant::now());
        for n in 0..RING + 3 {
            store.post(n.to_string().into());
        }
        let unread = store.take(sid(1)).unwrap();
        assert_eq!(unread.missed, 3);
        assert_eq!(unread.messages.len(), RING);
        assert_eq!(&*unread.messages[0], "3");
    }

    #[test]
    fn ticks_are_coalesced() {
        let now = Instant::now();
        let mut store = store_with(&[sid(1)], now);
        store.tick(now);
        store.tick(now);
        assert_eq!(store.take(sid(1)).unwrap().tick, Some(2));
        assert_eq!(store.take(sid(1)).unwrap().tick, None);
    }

    #[test]
    fn idle_session_is_dropped_and_a_touched_one_stays() {
        let start = Instant::now();
        let mut store = store_with(&[sid(1), sid(2)], start);
        store.touch(sid(2), start + Duration::from_secs(1)).unwrap();
        store.tick(start + IDLE_TIMEOUT);
        assert_eq!(store.take(sid(1)), Err(StoreError::UnknownSid));
        assert!(store.take(sid(2)).is_ok());
        assert_eq!(store.len(), 1);
    }

    #[test]
    fn closed_or_foreign_session_is_unknown() {
        let now = Instant::now();
        let mut store = store_with(&[sid(1)], now);
        store.close(sid(1)).unwrap();
        assert_eq!(store.close(sid(1)), Err(StoreError::UnknownSid));
        assert_eq!(store.touch(sid(9), now), Err(StoreError::UnknownSid));
    }

    #[test]
    fn full_store_refuses_the_next_session() {
        let now = Instant::now();
        let mut store = Store::default();
        for n in 0..MAX_SESSIONS as u128 {
            store.open(Sid(n), now).unwrap();
        }
        assert_eq!(store.open(Sid(u128::MAX), now), Err(StoreError::Full));
    }
}
