//! A ketama ring: the same key finds the same instance, and a change of instances moves few keys.

use std::collections::{HashMap, HashSet};
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;

use pingora_ketama::{Bucket, Continuum};
use sha2::{Digest, Sha256};

/// The sum of weights on a ring; beyond it, all are divided. Each unit is 160 points, of 8 bytes.
const MOST_UNITS: u64 = 4096;

/// Points on a circle, as many per instance as its weight says.
///
/// An instance keeps its points while it can take nothing: [`Ring::find`] passes over them, and
/// arrives where a ring without them would lead. So a change of health makes no new circle.
pub struct Ring {
    /// Shared with the rings before this one for as long as nothing on it changes.
    continuum: Arc<Continuum>,
    buckets: Vec<Bucket>,
    indexes: HashMap<SocketAddr, usize>,
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring").field("instances", &self.indexes.len()).finish()
    }
}

impl Ring {
    /// Builds a ring from (index, identity, weight); `None` if nobody has a weight. Making points
    /// is slow, so those of the ring `before` are used again if they are the same.
    pub fn build<'a>(
        instances: impl Iterator<Item = (usize, &'a str, u32)>,
        before: Option<&Self>,
    ) -> Option<Self> {
        let weighted: Vec<_> = instances.filter(|(_, _, weight)| *weight > 0).collect();
        let divisor = divisor(weighted.iter().map(|(_, _, weight)| u64::from(*weight)).sum());
        let mut buckets = Vec::with_capacity(weighted.len());
        let mut indexes = HashMap::with_capacity(weighted.len());
        for (index, identity, weight) in weighted {
            let place = place(identity);
            buckets.push(Bucket::new(place, (weight.saturating_add(divisor / 2) / divisor).max(1)));
            indexes.insert(place, index);
        }
        let same = before.filter(|before| before.buckets == buckets);
        let continuum = match same {
            Some(before) => Arc::clone(&before.continuum),
            None => Arc::new(Continuum::new(&buckets)),
        };
        (!buckets.is_empty()).then_some(Self { continuum, buckets, indexes })
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

/// What weights are divided by, so that a ring has a bounded number of points. A power of two, which
/// seldom changes with the configuration: another divisor moves keys.
fn divisor(total: u64) -> u32 {
    let divisor = total.div_ceil(MOST_UNITS).next_power_of_two();
    u32::try_from(divisor).unwrap_or(u32::MAX)
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
        Ring::build(names.iter().enumerate().map(|(index, name)| (index, *name, 1)), None).unwrap()
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

    #[test]
    fn passing_over_an_instance_leads_where_a_ring_without_it_would() {
        let all = ["a", "b", "c", "d", "e"];
        let (five, four) = (ring(&all), ring(&all[..4]));
        for key in 0..2000u32 {
            let key = key.to_be_bytes();
            assert_eq!(five.find(&key, |index| index == 4), four.find(&key, |_| false));
        }
    }

    #[test]
    fn points_are_made_once_and_never_too_many() {
        let names: Vec<_> = (0..1000).map(|name| name.to_string()).collect();
        let instances = |weight: u32| {
            names.iter().enumerate().map(move |(index, name)| (index, name.as_str(), weight))
        };
        let heavy = Ring::build(instances(1000), None).unwrap();
        let units = heavy.buckets.len() as u64 * 1000 / u64::from(divisor(1000 * 1000));
        assert!(units <= MOST_UNITS, "{units}");
        let again = Ring::build(instances(1000), Some(&heavy)).unwrap();
        assert!(Arc::ptr_eq(&heavy.continuum, &again.continuum));
        let fewer = Ring::build(instances(1000).skip(1), Some(&heavy)).unwrap();
        assert!(!Arc::ptr_eq(&heavy.continuum, &fewer.continuum));
        assert_eq!([1, 4096, 4097, 1 << 40].map(divisor), [1, 1, 2, 1 << 28]);
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
