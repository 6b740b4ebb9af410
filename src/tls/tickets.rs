//! Session tickets: what a client keeps to resume its session (RFC 8446 section 2.2, RFC 5077), sealed
//! so that any worker, and any replica with the same keys, can open it.
//!
//! A ticket is `salt (32) | sealed (issued (8), state) | tag (16)`. Its key is derived from the salt,
//! so that nonces need no care, and from what the listener asks of clients: a ticket of one that
//! asks for no certificate is nothing to one that does.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Salt};
use ring::rand::{SecureRandom, SystemRandom};
use rustls::server::ProducesTickets;

/// How long a ticket is good for.
const LIFETIME: Duration = Duration::from_secs(12 * 3600);
/// The clocks of replicas may be apart by this.
const CLOCK_SKEW: u64 = 60;
const SALT: usize = 32;
const ISSUED: usize = 8;
const LABEL: &[u8] = b"burdock session ticket 1";

type Key = [u8; 32];

/// Keys that the process makes. A key seals for as long as a ticket lives, opens for as long again,
/// and is gone then.
#[derive(Default)]
pub struct OwnKeys(Mutex<Option<Made>>);

struct Made {
    since: u64,
    newest: Key,
    before: Option<Key>,
}

impl std::fmt::Debug for OwnKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OwnKeys")
    }
}

impl OwnKeys {
    /// The keys at `now`, newest first.
    fn at(&self, now: u64) -> Option<Vec<Key>> {
        let mut made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let age = made.as_ref().map(|made| now.saturating_sub(made.since));
        if age.is_none_or(|age| age >= LIFETIME.as_secs()) {
            let mut newest = [0; 32];
            SystemRandom::new().fill(&mut newest).ok()?;
            let recent = age.is_some_and(|age| age < 2 * LIFETIME.as_secs());
            let before = made.as_ref().filter(|_| recent).map(|made| made.newest);
            *made = Some(Made { since: now, newest, before });
        }
        made.as_ref().map(|made| [Some(made.newest), made.before].into_iter().flatten().collect())
    }
}

/// Where the keys are.
pub(super) enum Keys {
    Own(Arc<OwnKeys>),
    /// Newest first.
    Shared(Vec<Key>),
}

/// Seals and opens the tickets of one listener.
pub(super) struct Sealer {
    keys: Keys,
    /// What the listener asks of clients.
    context: Vec<u8>,
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealer")
    }
}

impl Sealer {
    pub(super) fn new(keys: Keys, context: Vec<u8>) -> Self {
        Self { keys, context }
    }

    fn keys(&self, now: u64) -> Option<Vec<Key>> {
        match &self.keys {
            Keys::Own(own) => own.at(now),
            Keys::Shared(keys) => Some(keys.clone()),
        }
    }

    fn derive(&self, key: &Key, salt: &[u8]) -> Option<LessSafeKey> {
        let info = [LABEL, &self.context];
        let secret = Salt::new(HKDF_SHA256, salt).extract(key);
        let key = UnboundKey::from(secret.expand(&info, &AES_256_GCM).ok()?);
        Some(LessSafeKey::new(key))
    }

    fn seal(&self, state: &[u8], now: u64) -> Option<Vec<u8>> {
        let mut salt = [0; SALT];
        SystemRandom::new().fill(&mut salt).ok()?;
        let key = self.derive(self.keys(now)?.first()?, &salt)?;
        let mut sealed = [&now.to_be_bytes(), state].concat();
        let nonce = Nonce::assume_unique_for_key([0; 12]);
        key.seal_in_place_append_tag(nonce, Aad::empty(), &mut sealed).ok()?;
        Some([&salt[..], &sealed].concat())
    }

    fn open(&self, ticket: &[u8], now: u64) -> Option<Vec<u8>> {
        let (salt, sealed) = ticket.split_at_checked(SALT)?;
        let mut opened = self.keys(now)?.iter().find_map(|key| {
            let mut sealed = sealed.to_vec();
            let nonce = Nonce::assume_unique_for_key([0; 12]);
            let key = self.derive(key, salt)?;
            let size = key.open_in_place(nonce, Aad::empty(), &mut sealed).ok()?.len();
            sealed.truncate(size);
            Some(sealed)
        })?;
        let issued = u64::from_be_bytes(opened.first_chunk::<ISSUED>().copied()?);
        let timely = issued <= now + CLOCK_SKEW && now <= issued + LIFETIME.as_secs();
        timely.then(|| opened.split_off(ISSUED))
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

impl ProducesTickets for Sealer {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        LIFETIME.as_secs() as u32
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.seal(plain, now())
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.open(cipher, now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn shared(keys: &[u8], context: &[u8]) -> Sealer {
        let keys = keys.iter().map(|key| [*key; 32]).collect();
        Sealer::new(Keys::Shared(keys), context.to_vec())
    }

    #[test]
    fn a_ticket_opens_with_any_of_the_keys_and_no_other() {
        let ticket = shared(&[1], b"").seal(b"state", NOW).unwrap();
        let open = |keys: &[u8], context: &[u8]| shared(keys, context).open(&ticket, NOW);
        assert_eq!(open(&[1], b"").unwrap(), b"state");
        assert_eq!(open(&[2, 1], b"").unwrap(), b"state");
        assert_eq!(open(&[2], b""), None);
        assert_eq!(open(&[1], b"ca"), None);
    }

    #[test]
    fn nothing_that_is_no_ticket_opens() {
        let sealer = shared(&[1], b"");
        let ticket = sealer.seal(b"state", NOW).unwrap();
        for at in 0..ticket.len() {
            let mut altered = ticket.clone();
            altered[at] ^= 1;
            assert_eq!(sealer.open(&altered, NOW), None, "byte {at}");
            assert_eq!(sealer.open(&ticket[..at], NOW), None, "{at} bytes");
        }
        let empty = sealer.seal(b"", NOW).unwrap();
        assert_eq!(sealer.open(&empty, NOW).unwrap(), b"");
    }

    #[test]
    fn a_ticket_has_its_time() {
        let sealer = shared(&[1], b"");
        let ticket = sealer.seal(b"state", NOW).unwrap();
        let life = LIFETIME.as_secs();
        for (at, good) in [
            (NOW - CLOCK_SKEW - 1, false),
            (NOW - CLOCK_SKEW, true),
            (NOW + life, true),
            (NOW + life + 1, false),
        ] {
            assert_eq!(sealer.open(&ticket, at).is_some(), good, "{at}");
        }
    }

    #[test]
    fn a_key_of_the_process_opens_as_long_as_its_last_ticket_lives() {
        let sealer = Sealer::new(Keys::Own(Arc::default()), Vec::new());
        let life = LIFETIME.as_secs();
        sealer.seal(b"first", NOW).unwrap();
        let last = sealer.seal(b"last", NOW + life - 1).unwrap();
        assert!(sealer.open(&last, NOW + life).is_some());
        assert!(sealer.open(&last, NOW + 2 * life - 1).is_some());
        assert!(sealer.open(&last, NOW + 2 * life).is_none());
        let Keys::Own(own) = &sealer.keys else { panic!("its own") };
        let first = own.at(NOW + 2 * life).unwrap();
        assert_eq!(own.at(NOW + 5 * life).unwrap().len(), 1);
        assert!(!own.at(NOW + 5 * life).unwrap().contains(&first[0]));
    }
}
