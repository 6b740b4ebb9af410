//! Tokens that were opened a moment ago.
//!
//! A client sends the same token with every request, and to open it costs more than all the rest of
//! its routing. What was authentic under a keyring stays so; lifetimes are checked anew each time.

use crate::affinity::Rejection;
use crate::affinity::token::{Claim, Keyring, Opened};

/// Tokens remembered at once; a newer one takes the place of an older.
const SLOTS: usize = 1024;

struct Slot {
    keyring: u64,
    text: Box<[u8]>,
    claim: Known,
}

/// A [`Claim`] that borrows nothing.
struct Known {
    service: Box<str>,
    version: Box<str>,
    instance: Box<str>,
    issued: u64,
    renewed: u64,
    mark: u64,
}

impl Known {
    fn new(claim: &Claim<'_>) -> Self {
        Self {
            service: claim.service.into(),
            version: claim.version.into(),
            instance: claim.instance.into(),
            issued: claim.issued,
            renewed: claim.renewed,
            mark: claim.mark,
        }
    }

    fn claim(&self) -> Claim<'_> {
        Claim {
            service: &self.service,
            version: &self.version,
            instance: &self.instance,
            issued: self.issued,
            renewed: self.renewed,
            mark: self.mark,
        }
    }
}

/// The memory of one worker.
pub struct Memory(Box<[Option<Slot>]>);

impl Default for Memory {
    fn default() -> Self {
        Self((0..SLOTS).map(|_| None).collect())
    }
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Memory").field("tokens", &self.0.iter().flatten().count()).finish()
    }
}

impl Memory {
    /// What [`Keyring::open`] says of `text`.
    pub fn open(&mut self, keyring: &Keyring, text: &[u8]) -> Result<Claim<'_>, Rejection> {
        let slot = &mut self.0[place(text)];
        let serial = keyring.serial;
        let known = slot.take().filter(|slot| slot.keyring == serial && same(&slot.text, text));
        let known = match known {
            Some(known) => known,
            None => {
                let mut buffer = Opened::default();
                let claim = Known::new(&keyring.open(text, &mut buffer)?);
                Slot { keyring: serial, text: text.into(), claim }
            }
        };
        Ok(slot.insert(known).claim.claim())
    }
}

/// A token is as random there as its nonce is; a forged one can at worst push another out.
fn place(text: &[u8]) -> usize {
    let random = text.get(8..16).and_then(|part| part.first_chunk()).copied().unwrap_or_default();
    (u64::from_le_bytes(random).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 54) as usize % SLOTS
}

/// Takes as long wherever they differ: the time must not tell how much of a token was guessed.
fn same(known: &[u8], text: &[u8]) -> bool {
    let differences = || known.iter().zip(text).fold(0, |all, (one, other)| all | (one ^ other));
    known.len() == text.len() && differences() == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_what_the_keyring_says() {
        let (old, new) = (Keyring::new(&[[1; 32]]).unwrap(), Keyring::new(&[[2; 32]]).unwrap());
        let mut memory = Memory::default();
        let names: Vec<_> = (0..50u8).map(|n| n.to_string()).collect();
        let claim = |n: u8| {
            let instance = names[usize::from(n)].as_str();
            let (issued, mark) = (1_800_000_000, u64::from_be_bytes([n; 8]));
            Claim { service: "s", version: "v", instance, issued, renewed: issued, mark }
        };
        let tokens: Vec<_> = (0..50).map(|n| old.seal(&claim(n), [n; 24]).into_bytes()).collect();
        for _ in 0..2 {
            for (n, token) in (0..).zip(&tokens) {
                assert_eq!(memory.open(&old, token), Ok(claim(n)));
            }
        }
        assert_eq!(memory.open(&new, &tokens[7]), Err(Rejection::UnknownKey));
        let mut forged = tokens[7].clone();
        *forged.last_mut().unwrap() ^= 1;
        assert!(memory.open(&old, &forged).is_err());
        assert_eq!(memory.open(&old, &tokens[7]), Ok(claim(7)));
    }
}
