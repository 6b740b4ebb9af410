//! The affinity token: sealed, so that a client can neither read, forge nor aim it.
//!
//! Text form: base64url without padding of
//! `format (1) | key id (4) | nonce (24) | sealed payload | tag (16)`, with the first five bytes
//! authenticated as well. A renewed token keeps the first 8 bytes of its nonce. XChaCha20-Poly1305 is used because its nonce is long enough to be drawn
//! at random by any number of replicas that share a key and nothing else; it is put together from
//! HChaCha20 and ring's ChaCha20-Poly1305, which opens a token in a third of the time.
//!
//! Payload: `issued (4) | renewed (4)`, seconds since `EPOCH`, then service, version and
//! instance, each behind its length in two bytes.
//!
//! This file knows no carrier and no clock.

use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chacha20::{R20, hchacha};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use sha2::{Digest, Sha256};

use crate::affinity::Rejection;

/// Text longer than this is refused before it is decoded.
pub const MAX_TEXT: usize = 1024;
/// How far the clocks of two replicas may be apart.
pub const CLOCK_SKEW_SECONDS: u64 = 60;
/// 2020-01-01T00:00:00Z: with it, 32 bits of seconds last until 2156.
const EPOCH: u64 = 1_577_836_800;

const FORMAT: u8 = 1;
const KEY_ID: usize = 4;
/// Bytes of a nonce.
pub const NONCE: usize = 24;
const TAG: usize = 16;
const HEAD: usize = 1 + KEY_ID;
const SEALED_AT: usize = HEAD + NONCE;
const MIN_PAYLOAD: usize = 4 + 4 + 3 * 2;

/// What a token says; all text borrowed from the buffer that it was opened into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim<'a> {
    /// The service it was issued for.
    pub service: &'a str,
    /// The version it binds to.
    pub version: &'a str,
    /// The bound instance.
    pub instance: &'a str,
    /// When the session began, in seconds since the Unix epoch.
    pub issued: u64,
    /// When the token was last renewed, in seconds since the Unix epoch.
    pub renewed: u64,
    /// Random bits that stand for the session: a token has them from the one that it renews, and from
    /// no other. Ignored when sealing.
    pub mark: u64,
}

/// How long a token is good for; `None` means no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lifetimes {
    /// Since the session began, in seconds.
    pub ttl: Option<u64>,
    /// Since the last renewal, in seconds.
    pub idle_ttl: Option<u64>,
}

impl Claim<'_> {
    /// Whether the token may still be used at `now` (seconds since the Unix epoch).
    pub fn check(&self, lifetimes: Lifetimes, now: u64) -> Result<(), Rejection> {
        if self.issued > now + CLOCK_SKEW_SECONDS || self.renewed > now + CLOCK_SKEW_SECONDS {
            return Err(Rejection::FromFuture);
        }
        if lifetimes.ttl.is_some_and(|ttl| now.saturating_sub(self.issued) > ttl) {
            return Err(Rejection::Expired);
        }
        if lifetimes.idle_ttl.is_some_and(|idle| now.saturating_sub(self.renewed) > idle) {
            return Err(Rejection::IdleExpired);
        }
        Ok(())
    }

    /// Whether a quarter of the idle lifetime has passed, so that a fresh token is due.
    pub fn wants_renewal(&self, lifetimes: Lifetimes, now: u64) -> bool {
        lifetimes.idle_ttl.is_some_and(|idle| now.saturating_sub(self.renewed) >= (idle / 4).max(1))
    }
}

/// Where [`Keyring::open`] decodes to; reused so that opening allocates nothing.
#[derive(Debug)]
pub struct Opened([u8; MAX_TEXT / 4 * 3]);

impl Default for Opened {
    fn default() -> Self {
        Self([0; MAX_TEXT / 4 * 3])
    }
}

struct Key {
    id: [u8; KEY_ID],
    secret: [u8; 32],
}

impl Key {
    /// The key and the nonce of one message (draft-irtf-cfrg-xchacha section 2.3).
    fn of_message(&self, nonce: &[u8; NONCE]) -> (LessSafeKey, Nonce) {
        let first: &[u8; 16] = nonce.first_chunk().expect("a nonce has 24 bytes");
        let secret = hchacha::<R20>((&self.secret).into(), first.into());
        let key = UnboundKey::new(&CHACHA20_POLY1305, &secret).expect("HChaCha20 gives 32 bytes");
        let mut rest = [0; 12];
        rest[4..].copy_from_slice(&nonce[16..]);
        (LessSafeKey::new(key), Nonce::assume_unique_for_key(rest))
    }
}

/// The keys of this balancer: the first seals, all open.
pub struct Keyring {
    keys: Vec<Key>,
    /// No other keyring of this process has it.
    pub(super) serial: u64,
}

impl std::fmt::Debug for Keyring {
    /// Key ids only; they are in every token and no secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|key| key.id)).finish()
    }
}

impl Keyring {
    /// A keyring of `keys`, newest first; `None` if there are none.
    pub fn new(keys: &[[u8; 32]]) -> Option<Self> {
        static MADE: AtomicU64 = AtomicU64::new(0);
        let key = |secret: &[u8; 32]| Key { id: key_id(secret), secret: *secret };
        (!keys.is_empty()).then(|| Self {
            keys: keys.iter().map(key).collect(),
            serial: MADE.fetch_add(1, Ordering::Relaxed),
        })
    }

    /// Seals `claim` with the newest key. `nonce` must be fresh from a secure random source.
    pub fn seal(&self, claim: &Claim<'_>, nonce: [u8; NONCE]) -> String {
        let key = &self.keys[0];
        let mut raw = Vec::with_capacity(192);
        raw.push(FORMAT);
        raw.extend_from_slice(&key.id);
        raw.extend_from_slice(&nonce);
        for instant in [claim.issued, claim.renewed] {
            let since = u32::try_from(instant.saturating_sub(EPOCH)).unwrap_or(u32::MAX);
            raw.extend_from_slice(&since.to_be_bytes());
        }
        for text in [claim.service, claim.version, claim.instance] {
            let length =
                u16::try_from(text.len()).expect("config bounds names to a few hundred bytes");
            raw.extend_from_slice(&length.to_be_bytes());
            raw.extend_from_slice(text.as_bytes());
        }
        let (head, sealed) = raw.split_at_mut(SEALED_AT);
        let (key, nonce) = key.of_message(&nonce);
        let tag = key
            .seal_in_place_separate_tag(nonce, Aad::from(&head[..HEAD]), sealed)
            .expect("a payload of under a kilobyte is never too long to seal");
        raw.extend_from_slice(tag.as_ref());
        URL_SAFE_NO_PAD.encode(&raw)
    }

    /// Opens a token's text. Lifetimes and the service are the caller's to check.
    pub fn open<'a>(&self, text: &[u8], buffer: &'a mut Opened) -> Result<Claim<'a>, Rejection> {
        let (payload, mark) = self.unseal(text, buffer)?;
        decode(payload, mark).ok_or(Rejection::Malformed)
    }

    /// What each key is known by, as tokens say it: no secret. The one that seals is the first.
    pub fn ids(&self) -> Vec<String> {
        self.keys.iter().map(|key| format!("{:08x}", u32::from_be_bytes(key.id))).collect()
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Never: there is always one that seals.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Which of the keys a token's text says that it is sealed with, from 1. It need not be true.
    pub fn key_of(&self, text: &[u8]) -> Option<usize> {
        let raw = URL_SAFE_NO_PAD.decode(text.get(..MAX_TEXT.min(text.len()))?).ok()?;
        let id = raw.get(1..HEAD).filter(|_| raw[0] == FORMAT)?;
        self.keys.iter().position(|key| key.id == id).map(|place| place + 1)
    }

    /// The payload of a token, and its mark.
    fn unseal<'a>(
        &self,
        text: &[u8],
        buffer: &'a mut Opened,
    ) -> Result<(&'a [u8], u64), Rejection> {
        if text.len() > MAX_TEXT {
            return Err(Rejection::Oversized);
        }
        let length = URL_SAFE_NO_PAD
            .decode_slice(text, &mut buffer.0)
            .map_err(|_not_base64| Rejection::Malformed)?;
        if length < SEALED_AT + MIN_PAYLOAD + TAG || buffer.0[0] != FORMAT {
            return Err(Rejection::Malformed);
        }
        let (head, rest) = buffer.0[..length].split_at_mut(SEALED_AT);
        let key =
            self.keys.iter().find(|key| key.id == head[1..HEAD]).ok_or(Rejection::UnknownKey)?;
        let nonce: [u8; NONCE] =
            head[HEAD..].try_into().expect("the head was split behind the nonce");
        let (key, once) = key.of_message(&nonce);
        let payload = key
            .open_in_place(once, Aad::from(&head[..HEAD]), rest)
            .map_err(|_not_authentic| Rejection::Tampered)?;
        Ok((payload, mark(&nonce)))
    }
}

/// Gives a fresh nonce the mark of the token that it renews. The 128 bits that stay random are
/// enough for nonces never to meet.
pub fn keep_mark(nonce: &mut [u8; NONCE], mark: u64) {
    nonce[..8].copy_from_slice(&mark.to_be_bytes());
}

/// What a token with this nonce is remembered by.
pub fn mark(nonce: &[u8; NONCE]) -> u64 {
    u64::from_be_bytes(std::array::from_fn(|index| nonce[index]))
}

/// Names a key without telling anything about it.
fn key_id(secret: &[u8; 32]) -> [u8; KEY_ID] {
    let digest = Sha256::new().chain_update(b"burdock affinity key id").chain_update(secret);
    let digest = digest.finalize();
    [digest[0], digest[1], digest[2], digest[3]]
}

/// What a payload says.
fn decode(payload: &[u8], mark: u64) -> Option<Claim<'_>> {
    let (issued, rest) = payload.split_first_chunk::<4>()?;
    let (renewed, rest) = rest.split_first_chunk::<4>()?;
    let (service, rest) = text(rest)?;
    let (version, rest) = text(rest)?;
    let (instance, rest) = text(rest)?;
    let seconds = |bytes: &[u8; 4]| EPOCH + u64::from(u32::from_be_bytes(*bytes));
    rest.is_empty().then(|| Claim {
        service,
        version,
        instance,
        issued: seconds(issued),
        renewed: seconds(renewed),
        mark,
    })
}

fn text(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    let (text, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    Some((std::str::from_utf8(text).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: u64 = 1_800_000_000;

    fn claim<'a>() -> Claim<'a> {
        Claim {
            service: "chat",
            version: "v1",
            instance: "10.0.0.1:80",
            issued: NOW,
            renewed: NOW,
            mark: 0x0707_0707_0707_0707,
        }
    }

    fn keyring(secrets: &[u8]) -> Keyring {
        let keys: Vec<_> = secrets.iter().map(|byte| [*byte; 32]).collect();
        Keyring::new(&keys).unwrap()
    }

    #[test]
    fn a_rotated_key_still_opens_and_the_newest_seals() {
        let old = keyring(&[1]);
        let both = keyring(&[2, 1]);
        let mut buffer = Opened::default();
        let text = old.seal(&claim(), [7; 24]);
        assert_eq!(both.open(text.as_bytes(), &mut buffer), Ok(claim()));
        let fresh = both.seal(&claim(), [7; 24]);
        let place = |text: &str| both.key_of(text.as_bytes());
        assert_eq!(
            (place(&fresh), place(&text), place("AAAAAAAA"), both.len()),
            (Some(1), Some(2), None, 2)
        );
        assert_eq!(old.open(fresh.as_bytes(), &mut buffer), Err(Rejection::UnknownKey));
    }

    #[test]
    fn a_mark_outlives_a_renewal() {
        let mut nonce = [7; 24];
        keep_mark(&mut nonce, 0x0102_0304_0506_0708);
        assert_eq!(
            (mark(&nonce), nonce[8..].iter().all(|byte| *byte == 7)),
            (0x0102_0304_0506_0708, true)
        );
        let text = keyring(&[1]).seal(&claim(), nonce);
        let opened = keyring(&[1]).open(text.as_bytes(), &mut Opened::default()).map(|it| it.mark);
        assert_eq!(opened, Ok(0x0102_0304_0506_0708));
    }

    #[test]
    fn a_text_longer_than_any_token_is_oversized() {
        let text = [b'A'; MAX_TEXT + 1];
        let opened = keyring(&[1]).open(&text, &mut Opened::default()).map(|_| ());
        assert_eq!(opened, Err(Rejection::Oversized));
    }

    #[test]
    fn lifetimes_count_from_issue_and_from_renewal() {
        let limits = Lifetimes { ttl: Some(100), idle_ttl: Some(20) };
        let claim = Claim { issued: NOW - 90, renewed: NOW - 10, ..claim() };
        assert_eq!(claim.check(limits, NOW), Ok(()));
        assert_eq!(claim.check(limits, NOW + 11), Err(Rejection::Expired));
        let fresh = Claim { issued: NOW - 30, ..claim };
        assert_eq!(fresh.check(limits, NOW + 11), Err(Rejection::IdleExpired));
        assert_eq!(claim.check(Lifetimes::default(), NOW + 1_000_000), Ok(()));
        assert_eq!(claim.check(limits, NOW - 200), Err(Rejection::FromFuture));
    }

    #[test]
    fn clocks_may_be_apart_by_the_stated_bound_and_no_further() {
        let limits = Lifetimes { ttl: Some(100), idle_ttl: Some(20) };
        for (ahead, verdict) in
            [(CLOCK_SKEW_SECONDS, Ok(())), (CLOCK_SKEW_SECONDS + 1, Err(Rejection::FromFuture))]
        {
            assert_eq!(claim().check(limits, NOW - ahead), verdict, "issued by a clock ahead");
            let renewed = Claim { issued: NOW - 50, renewed: NOW, ..claim() };
            assert_eq!(renewed.check(limits, NOW - ahead), verdict, "renewed by a clock ahead");
        }
        assert!(!claim().wants_renewal(limits, NOW - CLOCK_SKEW_SECONDS));
    }

    #[test]
    fn renewal_is_due_after_a_quarter_of_the_idle_lifetime() {
        let limits = Lifetimes { ttl: None, idle_ttl: Some(400) };
        assert!(!claim().wants_renewal(limits, NOW + 99));
        assert!(claim().wants_renewal(limits, NOW + 100));
        assert!(!claim().wants_renewal(Lifetimes::default(), NOW + 1_000_000));
    }

    /// The construction is put together here, so it is held against an implementation of the whole.
    #[test]
    fn it_is_xchacha20_poly1305() {
        use chacha20poly1305::aead::{Aead, KeyInit, Payload};
        let text = keyring(&[5]).seal(&claim(), [9; 24]);
        let raw = URL_SAFE_NO_PAD.decode(text).unwrap();
        let cipher = chacha20poly1305::XChaCha20Poly1305::new(&[5; 32].into());
        let sealed = Payload { msg: &raw[SEALED_AT..], aad: &raw[..HEAD] };
        let mut payload = cipher.decrypt(&[9; 24].into(), sealed).unwrap();
        let mark = claim().mark;
        assert_eq!(decode(&payload, mark), Some(claim()));
        payload.pop();
        assert_eq!(decode(&payload, mark), None);
    }

    proptest! {
        #[test]
        fn what_was_sealed_opens(
            service in "[a-z]{1,63}", version in "[a-z0-9]{1,63}", instance in "[a-z0-9.:]{1,255}",
            nonce in any::<[u8; 24]>(), age in 0u64..1_000_000,
        ) {
            let claim = Claim {
                service: &service, version: &version, instance: &instance,
                issued: NOW - age, renewed: NOW, mark: u64::from_be_bytes(nonce[..8].try_into().unwrap()),
            };
            let text = keyring(&[1]).seal(&claim, nonce);
            prop_assert!(text.len() <= MAX_TEXT);
            let mut buffer = Opened::default();
            prop_assert_eq!(keyring(&[1]).open(text.as_bytes(), &mut buffer), Ok(claim));
        }

        #[test]
        fn any_flipped_bit_is_rejected(nonce in any::<[u8; 24]>(), bit in 0usize..100_000) {
            let text = keyring(&[1]).seal(&claim(), nonce);
            let mut raw = URL_SAFE_NO_PAD.decode(&text).unwrap();
            let bit = bit % (raw.len() * 8);
            raw[bit / 8] ^= 1 << (bit % 8);
            let altered = URL_SAFE_NO_PAD.encode(&raw);
            prop_assert!(keyring(&[1]).open(altered.as_bytes(), &mut Opened::default()).is_err());
        }

        #[test]
        fn any_altered_text_is_rejected(
            nonce in any::<[u8; 24]>(), at in 0usize..1000, byte in any::<u8>(), how in 0..3,
        ) {
            let text = keyring(&[1]).seal(&claim(), nonce).into_bytes();
            let mut altered = text.clone();
            let at = at % text.len();
            match how {
                0 => altered[at] = byte,
                1 => altered.insert(at, byte),
                _ => altered.truncate(at),
            }
            let opened = keyring(&[1]).open(&altered, &mut Opened::default()).is_ok();
            prop_assert_eq!(opened, altered == text);
        }

        #[test]
        fn a_token_names_the_service_it_was_issued_for_and_no_other(
            one in "[a-z0-9._-]{1,63}", other in "[a-z0-9._-]{1,63}",
        ) {
            let text = keyring(&[1]).seal(&Claim { service: &one, ..claim() }, [3; 24]);
            let mut buffer = Opened::default();
            let opened = keyring(&[1]).open(text.as_bytes(), &mut buffer).unwrap();
            prop_assert_eq!(opened.service, &one);
            prop_assert_eq!(opened.service == other, one == other);
        }

        #[test]
        fn arbitrary_bytes_never_panic(text in proptest::collection::vec(any::<u8>(), 0..2000)) {
            prop_assert!(keyring(&[1]).open(&text, &mut Opened::default()).is_err());
        }
    }
}
