//! A ketama ring: the same key finds the same instance, and a change of instances moves few keys.

use std::collections::{HashMap, HashSet};
use std::net::{Ipv6Addr, SocketAddr};

use pingora_ketama::{Bucket, Continuum};
use sha2::{Digest, Sha256};

/// Points on a circle, as many per instance as its weight says.
pub struct Ring {
    continuum: Continuum,
    indexes: HashMap<SocketAddr, usize>,
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring").field("instances", &self.indexes.len()).finish()
    }
}

impl Ring {
    /// Builds a ring from (index, identity, weight); `None` if nobody has a weight.
    pub fn build<'a>(instances: impl Iterator<Item = (usize, &'a str, u32)>) -> Option<Self> {
        let mut buckets = Vec::new();
        let mut indexes = HashMap::new();
        for (index, identity, weight) in instances.filter(|(_, _, weight)| *weight > 0) {
            let place = place(identity);
            buckets.push(Bucket::new(place, weight));
            indexes.insert(place, index);
        }
        (!buckets.is_empty()).then(|| Self { continuum: Continuum::new(&buckets), indexes })
    }

    /// The first index from the key's place onwards that isn't refused.
    pub fn find(&self, key: &[u8], refused: impl Fn(usize) -> bool) -> Option<usize> {
        // The iterator goes round for ever; once every instance has been seen, there is none.
        let mut seen = HashSet::new();
        for place in self.continuum.node_iter(key) {
            let index = *self.indexes.get(place)?;
            if !refused(index) {
                return Some(index);
            }
            seen.insert(index);
            if seen.len() == self.indexes.len() {
                return None;
            }
        }
        None
    }
}

/// The ring is keyed by address, ours by identity: an instance that keeps its name keeps its keys
/// when its address changes. 128 bits of a hash stand in for an address.
fn place(identity: &str) -> SocketAddr {
    let digest = Sha256::digest(identity.as_bytes());
    let bits: [u8; 16] = std::array::from_fn(|index| digest[index]);
    SocketAddr::new(Ipv6Addr::from(bits).into(), 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(names: &[&str]) -> Ring {
        Ring::build(names.iter().enumerate().map(|(index, name)| (index, *name, 1))).unwrap()
    }

    #[test]
    fn taking_one_of_five_away_moves_only_its_own_keys() {
        let all = ["a", "b", "c", "d", "e"];
        let (five, four) = (ring(&all), ring(&all[..4]));
        let mut moved = 0;
        for key in 0..2000u32 {
            let before = five.find(&key.to_be_bytes(), |_| false).unwrap();
            let after = four.find(&key.to_be_bytes(), |_| false).unwrap();
            if before != after {
                assert_eq!(before, 4, "only keys of the instance that left may move");
                moved += 1;
            }
        }
        assert!((250..550).contains(&moved), "{moved} of 2000 moved; a fifth is 400");
    }

    /// A change of the hash would move every session at an upgrade.
    #[test]
    fn places_are_the_same_in_every_release() {
        let ring = ring(&["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]);
        let found: Vec<_> = ["alice", "bob", "carol", "dave", "erin"]
            .map(|key| ring.find(key.as_bytes(), |_| false).unwrap())
            .into();
        assert_eq!(found, GOLDEN);
    }

    const GOLDEN: [usize; 5] = [0, 2, 2, 1, 0];
}
