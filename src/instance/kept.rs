//! The parts of request bodies that are held for another attempt, and what all of them take.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What all workers hold.
#[derive(Debug, Default)]
pub struct Ledger {
    held: AtomicU64,
    refused: AtomicU64,
}

impl Ledger {
    /// Bytes that are held now.
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// Bodies that were let go because all of them took too much.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

/// What is held of one body.
#[derive(Debug)]
pub(super) struct Kept {
    bytes: Vec<u8>,
    /// The most of all bodies.
    most: u64,
    ledger: Arc<Ledger>,
}

impl Kept {
    /// Nothing yet.
    pub(super) fn new(most: u64, ledger: Arc<Ledger>) -> Self {
        Self { bytes: Vec::new(), most, ledger }
    }

    /// All of a body, which was bounded before.
    pub(super) fn whole(bytes: Vec<u8>, ledger: Arc<Ledger>) -> Self {
        ledger.held.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Self { bytes, most: u64::MAX, ledger }
    }

    /// Holds `data` too; or nothing, where that would be too much.
    pub(super) fn add(&mut self, data: &[u8]) -> bool {
        let size = data.len() as u64;
        let held = self.ledger.held.fetch_add(size, Ordering::Relaxed) + size;
        self.bytes.extend_from_slice(data);
        if held <= self.most {
            return true;
        }
        self.ledger.refused.fetch_add(1, Ordering::Relaxed);
        self.clear();
        false
    }

    /// Lets go of it.
    pub(super) fn clear(&mut self) {
        self.ledger.held.fetch_sub(self.bytes.len() as u64, Ordering::Relaxed);
        self.bytes = Vec::new();
    }
}

impl Deref for Kept {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_much_in_all_is_let_go_and_what_was_held_before_stays() {
        let ledger = Arc::new(Ledger::default());
        let [mut first, mut second] = [(); 2].map(|()| Kept::new(10, Arc::clone(&ledger)));
        assert!(first.add(b"1234") && second.add(b"5678") && first.add(b"9"));
        assert_eq!((&first[..], ledger.held()), (&b"12349"[..], 9));
        assert!(!second.add(b"ab"));
        assert_eq!((second.len(), ledger.held(), ledger.refused()), (0, 5, 1));
        assert!(second.add(b"abcde"));
        drop((first, second));
        assert_eq!(ledger.held(), 0);
    }
}
