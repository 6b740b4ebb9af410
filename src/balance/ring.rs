//! A ketama ring: the same key finds the same instance, and a change of instances moves few keys.
//!
//! The points are those of the crate `pingora-ketama`, and so of nginx. Its search would cost most
//! of a microsecond where instances are many: here a table says where to begin.

use std::collections::HashSet;
use std::net::Ipv6Addr;
use std::sync::Arc;

use sha2::{Digest, Sha256};

/// The sum of weights on a ring; beyond it, all are divided. Each unit is 160 points, of 8 bytes.
const MOST_UNITS: u64 = 4096;
/// Addresses on the ring have no port, which is how that is written.
const PORT: u16 = 0;
/// Points of an instance of weight 1.
const POINTS: u32 = 160;
/// About so many points lie between two that the table knows: a cache line of them.
const STRIDE: usize = 8;

/// Points on a circle, as many per instance as its weight says.
///
/// An instance keeps its points while it can take nothing: [`Ring::find`] passes over them, and
/// arrives where a ring without them would lead. So a change of health makes no new circle.
pub struct Ring {
    /// Shared with the rings before this one for as long as nothing on it changes.
    circle: Arc<Circle>,
    /// By [`Point::owner`].
    indexes: Box<[u32]>,
}

struct Circle {
    /// Where each owner's points are, and its weight there.
    owners: Vec<(Ipv6Addr, u32)>,
    points: Box<[Point]>,
    /// The first point at or behind each of so many equal parts of the circle.
    begins: Box<[u32]>,
    /// What of a hash says which part it is in.
    shift: u32,
}

#[derive(Debug, Clone, Copy)]
struct Point {
    hash: u32,
    owner: u32,
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
        let mut owners = Vec::with_capacity(weighted.len());
        let mut indexes = Vec::with_capacity(weighted.len());
        for (index, identity, weight) in weighted {
            owners.push((place(identity), (weight.saturating_add(divisor / 2) / divisor).max(1)));
            indexes.push(u32::try_from(index).expect("a version has fewer than 2^32 instances"));
        }
        if owners.is_empty() {
            return None;
        }
        let same = before.map(|before| &before.circle).filter(|before| before.owners == owners);
        let circle = same.cloned().unwrap_or_else(|| Arc::new(Circle::of(owners)));
        Some(Self { circle, indexes: indexes.into() })
    }

    /// The first index from the key's place onwards that isn't refused.
    pub fn find(&self, key: &[u8], refused: impl Fn(usize) -> bool) -> Option<usize> {
        let Circle { points, .. } = &*self.circle;
        let (before, from) = points.split_at(self.circle.place(crc32fast::hash(key)));
        // Once every instance has been seen, there is none.
        let mut seen = HashSet::new();
        for point in from.iter().chain(before) {
            let index = self.indexes[point.owner as usize] as usize;
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

impl Circle {
    fn of(owners: Vec<(Ipv6Addr, u32)>) -> Self {
        let units: usize = owners.iter().map(|(_, weight)| *weight as usize).sum();
        let mut points = Vec::with_capacity(units * POINTS as usize);
        for ((place, weight), owner) in owners.iter().zip(0..) {
            let mut hasher = crc32fast::Hasher::new();
            hasher.update(format!("{place}\0{PORT}").as_bytes());
            let mut hash = 0_u32;
            for _ in 0..weight * POINTS {
                let mut hasher = hasher.clone();
                hasher.update(&hash.to_le_bytes());
                hash = hasher.finalize();
                points.push(Point { hash, owner });
            }
        }
        // Where two meet, the order of the configuration must not say whose the point is.
        points.sort_unstable_by_key(|point| (point.hash, owners[point.owner as usize].0));
        points.dedup_by_key(|point| point.hash);
        let parts = (points.len() / STRIDE).next_power_of_two().max(2);
        let shift = u32::BITS - parts.ilog2();
        let mut begins = Vec::with_capacity(parts);
        for (point, number) in points.iter().zip(0..) {
            let part = (point.hash >> shift) as usize;
            begins.resize(begins.len().max(part + 1), number);
        }
        begins.resize(parts, u32::try_from(points.len()).unwrap_or(u32::MAX));
        Self { owners, points: points.into(), begins: begins.into(), shift }
    }

    /// The number of the first point at or behind `hash`.
    fn place(&self, hash: u32) -> usize {
        let begin = self.begins[(hash >> self.shift) as usize] as usize;
        let passed = self.points[begin..].iter().take_while(|point| point.hash < hash).count();
        begin + passed
    }
}

/// What weights are divided by, so that a ring has a bounded number of points. A power of two, which
/// seldom changes with the configuration: another divisor moves keys.
fn divisor(total: u64) -> u32 {
    let divisor = total.div_ceil(MOST_UNITS).next_power_of_two();
    u32::try_from(divisor).unwrap_or(u32::MAX)
}

/// Ketama's points belong to an address, ours to an identity: an instance that keeps its name keeps
/// its keys when its address changes. 128 bits of a hash stand in for an address, without a port.
fn place(identity: &str) -> Ipv6Addr {
    let digest = Sha256::digest(identity.as_bytes());
    let bits: [u8; 16] = std::array::from_fn(|index| digest[index]);
    Ipv6Addr::from(bits)
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
        let units = heavy.circle.owners.len() as u64 * 1000 / u64::from(divisor(1000 * 1000));
        assert!(units <= MOST_UNITS, "{units}");
        let again = Ring::build(instances(1000), Some(&heavy)).unwrap();
        assert!(Arc::ptr_eq(&heavy.circle, &again.circle));
        let fewer = Ring::build(instances(1000).skip(1), Some(&heavy)).unwrap();
        assert!(!Arc::ptr_eq(&heavy.circle, &fewer.circle));
        assert_eq!([1, 4096, 4097, 1 << 40].map(divisor), [1, 1, 2, 1 << 28]);
    }

    #[test]
    fn the_points_are_those_of_ketama() {
        use pingora_ketama::{Bucket, Continuum};
        use std::net::SocketAddr;
        for (instances, weight) in [(1, 1), (7, 3), (300, 1)] {
            let names: Vec<_> = (0..instances).map(|name| format!("i{name}")).collect();
            let weighted = names.iter().enumerate().map(|(index, it)| (index, it.as_str(), weight));
            let ring = Ring::build(weighted, None).unwrap();
            let address = |name: &String| SocketAddr::new(place(name).into(), PORT);
            let buckets: Vec<_> = names.iter().map(|it| Bucket::new(address(it), weight)).collect();
            let ketama = Continuum::new(&buckets);
            for key in 0..5000_u32 {
                let key = key.to_be_bytes();
                let found = ring.find(&key, |_| false).map(|index| address(&names[index]));
                assert_eq!(found, ketama.node(&key));
            }
        }
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
