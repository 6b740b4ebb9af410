//! How an instance is chosen for a request that is bound to none.
//!
//! [`choose`] sees instances as numbers: an index, a weight and a load. It never sees health; only
//! indexes that may take new sessions are in the [`Rotation`] it is given, and it chooses no other.
//! Pure: the turn counter and the random source are arguments.

pub mod bound;
pub mod ring;
pub mod rotation;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub use bound::Bound;
pub use ring::Ring;
pub use rotation::Rotation;

use crate::config::types::Balance;

/// What [`choose`] chooses from.
#[derive(Debug, Default)]
pub struct Field {
    /// Indexes in the order of their turns.
    pub rotation: Rotation,
    /// Only where requests have keys; may hold indexes that are not in the rotation.
    pub ring: Option<Arc<Ring>>,
}

/// What is known of the request.
#[derive(Debug, Clone, Copy)]
pub struct Draw<'a> {
    /// What decides the place on the ring, where the request has it.
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
    if let (Some(key), Some(ring)) = (draw.key, &field.ring) {
        // The ring alone could be searched in vain from end to end.
        let not_empty = (!rotation.is_empty()).then_some(ring)?;
        return not_empty.find(key, |index| !rotation.has(index) || refused(index));
    }
    match balance {
        Balance::Even => by_turn(rotation, turn, refused),
        Balance::Random => at_random(rotation, draw.random, refused),
        Balance::LeastRequests | Balance::LeastSessions => {
            let one = at_random(rotation, draw.random, &refused)?;
            let other = at_random(rotation, draw.random.rotate_left(32), |index| {
                index == one || refused(index)
            });
            Some(other.filter(|other| load(*other) < load(one)).unwrap_or(one))
        }
        // An absent key says nothing; one instance must not get all who bring none.
        Balance::Hash(_) => by_turn(rotation, turn, refused),
    }
}

fn by_turn(
    rotation: &Rotation,
    turn: &AtomicU64,
    refused: impl Fn(usize) -> bool,
) -> Option<usize> {
    at_turn(rotation, turn.fetch_add(1, Ordering::Relaxed), refused)
}

fn at_random(rotation: &Rotation, random: u64, refused: impl Fn(usize) -> bool) -> Option<usize> {
    at_turn(rotation, random, refused)
}

/// Whose turn it is, or somebody else for this one turn if they are refused. It costs no other
/// turn, so that requests at the same time neither skip each other's nor run out of candidates.
///
/// The search for somebody else begins one place further on in each round: the next in line would
/// otherwise get all the turns of one that is refused for long.
fn at_turn(rotation: &Rotation, turn: u64, refused: impl Fn(usize) -> bool) -> Option<usize> {
    let others = (rotation.len() as u64).checked_sub(1)?;
    let (round, place) = (turn / (others + 1), turn % (others + 1));
    let index = rotation.at(place);
    if !refused(index) {
        return Some(index);
    }
    let begin = round.checked_rem(others)?;
    (0..others)
        .map(|step| rotation.at(place + 1 + (begin + step) % others))
        .find(|index| !refused(*index))
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
            Ring::build(named.iter().map(|(index, name, weight)| (*index, &**name, *weight)), None);
        Field { rotation: Rotation::build(&weighted), ring: ring.map(Arc::new) }
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
    fn a_request_that_skips_the_refused_does_not_miss_the_one_that_is_left() {
        let field = field(&[1, 1]);
        let turn = AtomicU64::new(0);
        // As if another request came between any two looks of this one.
        let refused = |index: usize| {
            turn.fetch_add(1, Ordering::Relaxed);
            index == 0
        };
        let chosen = choose(&Balance::Even, &field, &turn, draw(0), |_| 0, refused);
        assert_eq!(chosen, Some(1));
    }

    #[test]
    fn the_turns_of_one_that_is_refused_go_to_all_others_evenly() {
        let field = field(&[1, 1, 1, 1, 1]);
        let turn = AtomicU64::new(0);
        let mut chosen = [0u64; 5];
        for round in 1..=20 {
            for _ in 0..20 {
                let refused = |index: usize| index == 2;
                let index = choose(&Balance::Even, &field, &turn, draw(0), |_| 0, refused);
                chosen[index.unwrap()] += 1;
            }
            assert_eq!(chosen, [5 * round, 5 * round, 0, 5 * round, 5 * round]);
        }
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
