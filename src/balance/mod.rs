//! How an instance is chosen for a request that is bound to none.
//!
//! [`choose`] sees instances as numbers: an index, a weight and a load. It never sees health; only
//! indexes that may take new sessions are in the [`Rotation`] it is given. Pure: the turn counter
//! and the random source are arguments.

pub mod ring;
pub mod rotation;

use std::sync::atomic::{AtomicU64, Ordering};

pub use ring::Ring;
pub use rotation::Rotation;

use crate::config::types::Balance;

/// What [`choose`] chooses from.
#[derive(Debug)]
pub struct Field {
    /// Indexes in the order of their turns.
    pub rotation: Rotation,
    /// Only for [`Balance::Hash`].
    pub ring: Option<Ring>,
}

/// What is known of the request.
#[derive(Debug, Clone, Copy)]
pub struct Draw<'a> {
    /// The hash key's value, where the request has one.
    pub key: Option<&'a [u8]>,
    /// Sixty-four random bits.
    pub random: u64,
}

/// Chooses an index, never one that `refused` names (it was tried already, or is full).
///
/// `turn` is shared by all workers: that is what makes the even spread exact across them.
pub fn choose(
    balance: &Balance,
    field: &Field,
    turn: &AtomicU64,
    draw: Draw<'_>,
    load: impl Fn(usize) -> u64,
    refused: impl Fn(usize) -> bool,
) -> Option<usize> {
    let rotation = &field.rotation;
    match balance {
        Balance::Even => by_turn(rotation, turn, refused),
        Balance::Random => at_random(rotation, draw.random, refused),
        Balance::LeastRequests => {
            let one = at_random(rotation, draw.random, &refused)?;
            let other = at_random(rotation, draw.random.rotate_left(32), |index| {
                index == one || refused(index)
            });
            Some(other.filter(|other| load(*other) < load(one)).unwrap_or(one))
        }
        Balance::Hash(_) => match (draw.key, &field.ring) {
            (Some(key), Some(ring)) => ring.find(key, refused),
            // An absent key says nothing; one instance must not get all who bring none.
            (None, _) | (_, None) => by_turn(rotation, turn, refused),
        },
    }
}

fn by_turn(
    rotation: &Rotation,
    turn: &AtomicU64,
    refused: impl Fn(usize) -> bool,
) -> Option<usize> {
    (0..rotation.len())
        .map(|_| rotation.at(turn.fetch_add(1, Ordering::Relaxed)))
        .find(|index| !refused(*index))
}

fn at_random(rotation: &Rotation, random: u64, refused: impl Fn(usize) -> bool) -> Option<usize> {
    let length = rotation.len() as u64;
    let start = if length == 0 { 0 } else { random % length };
    (0..length).map(|step| rotation.at(start + step)).find(|index| !refused(*index))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::types::HashKey;
    use proptest::prelude::*;

    fn field(weights: &[u32]) -> Field {
        let weighted: Vec<_> = weights.iter().copied().enumerate().collect();
        let named: Vec<_> =
            weighted.iter().map(|(index, weight)| (*index, format!("i{index}"), *weight)).collect();
        let ring =
            Ring::build(named.iter().map(|(index, name, weight)| (*index, &**name, *weight)));
        Field { rotation: Rotation::build(&weighted), ring }
    }

    fn draw(random: u64) -> Draw<'static> {
        Draw { key: None, random }
    }

    #[test]
    fn least_requests_takes_the_less_busy_of_two() {
        let field = field(&[1, 1, 1]);
        let turn = AtomicU64::new(0);
        let mut chosen = [0u64; 3];
        for round in 0..3000u64 {
            let random = round.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let load = |index: usize| chosen[index];
            let index =
                choose(&Balance::LeastRequests, &field, &turn, draw(random), load, |_| false)
                    .unwrap();
            chosen[index] += 1;
        }
        assert!(chosen.iter().all(|count| count.abs_diff(1000) < 20), "{chosen:?}");
    }

    #[test]
    fn an_absent_hash_key_spreads_evenly() {
        let field = field(&[1, 1, 1, 1]);
        let turn = AtomicU64::new(0);
        let balance = Balance::Hash(HashKey::ClientIp);
        let chosen: Vec<_> = (0..8)
            .map(|_| choose(&balance, &field, &turn, draw(7), |_| 0, |_| false).unwrap())
            .collect();
        assert_eq!(chosen, [0, 1, 2, 3, 0, 1, 2, 3]);
    }

    #[test]
    fn with_none_left_nothing_is_chosen() {
        let turn = AtomicU64::new(0);
        for balance in
            [Balance::Even, Balance::Random, Balance::LeastRequests, Balance::Hash(HashKey::Uri)]
        {
            let draw = Draw { key: Some(b"k"), random: 3 };
            assert_eq!(choose(&balance, &field(&[]), &turn, draw, |_| 0, |_| false), None);
            assert_eq!(choose(&balance, &field(&[1, 1]), &turn, draw, |_| 0, |_| true), None);
        }
    }

    proptest! {
        #[test]
        fn a_refused_index_is_never_chosen(
            weights in proptest::collection::vec(0u32..5, 1..12), random: u64, refused in 0usize..12,
        ) {
            let field = field(&weights);
            let turn = AtomicU64::new(random);
            for balance in [Balance::Even, Balance::Random, Balance::LeastRequests,
                            Balance::Hash(HashKey::Uri)] {
                let draw = Draw { key: Some(&random.to_be_bytes()), random };
                let chosen = choose(&balance, &field, &turn, draw, |_| 0, |index| index == refused);
                prop_assert_ne!(chosen, Some(refused));
                prop_assert!(chosen.is_none_or(|index| weights[index] > 0));
                let others = weights.iter().enumerate().any(|(index, w)| *w > 0 && index != refused);
                prop_assert_eq!(chosen.is_some(), others);
            }
        }
    }
}
