//! The order of turns: a table in which each index stands as often as its weight says, as far
//! apart as can be. Looking up a turn is one division.

/// About as many turns are in a round at most; weights that ask for more are rounded. It bounds
/// the time that a change of one instance's health takes to a few milliseconds.
const MOST_TURNS: u64 = 1 << 15;

/// Turns of weighted indexes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rotation {
    turns: Box<[u32]>,
    /// By index.
    takes_part: Box<[bool]>,
}

impl Rotation {
    /// Builds the table from (index, weight); weight 0 gets no turn.
    pub fn build(weighted: &[(usize, u32)]) -> Self {
        let divisor = weighted.iter().map(|(_, weight)| *weight).fold(0, greatest_common_divisor);
        let total: u64 = weighted.iter().map(|(_, weight)| u64::from(*weight)).sum();
        let round = total.checked_div(divisor.into()).unwrap_or(0);
        let mut turns: Vec<(u64, u32)> = Vec::new();
        let places = weighted.iter().map(|(index, _)| index + 1).max().unwrap_or(0);
        let mut takes_part = vec![false; places];
        for (index, weight) in weighted.iter().filter(|(_, weight)| *weight > 0) {
            takes_part[*index] = true;
            let weight = u64::from(*weight);
            let count = match round <= MOST_TURNS {
                true => weight / u64::from(divisor),
                false => ((weight * MOST_TURNS + total / 2) / total).max(1),
            };
            let index = u32::try_from(*index).expect("a version has fewer than 2^32 instances");
            // The j-th of w turns is due at (2j + 1) / 2w of the round, in 2^-32 of it.
            turns.extend((0..count).map(|turn| (((2 * turn + 1) << 31) / count, index)));
        }
        // Stable, so that instances of equal weight keep the order of the configuration.
        turns.sort_by_key(|(due, _)| *due);
        let turns = turns.into_iter().map(|(_, index)| index).collect();
        Self { turns, takes_part: takes_part.into() }
    }

    /// Whether this index has a turn.
    pub fn has(&self, index: usize) -> bool {
        self.takes_part.get(index).is_some_and(|takes_part| *takes_part)
    }

    /// Turns in a round.
    pub fn len(&self) -> usize {
        self.turns.len()
    }

    /// Whether nobody has a turn.
    pub fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    /// Whose turn `turn` is. Must not be called on an empty rotation.
    pub fn at(&self, turn: u64) -> usize {
        self.turns[(turn % self.turns.len() as u64) as usize] as usize
    }
}

fn greatest_common_divisor(one: u32, other: u32) -> u32 {
    if other == 0 { one } else { greatest_common_divisor(other, one % other) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn equal_weights_take_turns_and_heavy_ones_are_spread() {
        let turns = |weights: &[u32]| {
            let weighted: Vec<_> = weights.iter().copied().enumerate().collect();
            let rotation = Rotation::build(&weighted);
            (0..rotation.len() as u64).map(|turn| rotation.at(turn)).collect::<Vec<_>>()
        };
        assert_eq!(turns(&[1, 1, 1]), [0, 1, 2]);
        assert_eq!(turns(&[50, 50]), [0, 1]);
        assert_eq!(turns(&[2, 1, 1]), [0, 1, 2, 0]);
        assert_eq!(turns(&[3, 0, 1]), [0, 0, 2, 0]);
        assert_eq!(turns(&[0, 0]), [0; 0]);
    }

    #[test]
    fn weights_without_a_common_divisor_make_no_endless_round() {
        let weighted: Vec<_> = (0..1000).map(|index| (index, 1000 - index as u32 % 7)).collect();
        let rotation = Rotation::build(&weighted);
        assert!(rotation.len() as u64 <= MOST_TURNS + 1000, "{}", rotation.len());
        let extreme = Rotation::build(&[(0, 999_983), (1, 1_000_000), (2, 1), (3, 0)]);
        let turns =
            |index| (0..extreme.len() as u64).filter(|turn| extreme.at(*turn) == index).count();
        assert!(turns(0).abs_diff(turns(1)) <= 1, "a ratio of almost one");
        assert_eq!((turns(2), turns(3)), (1, 0), "any weight has its turn");
        assert_eq!([0, 2, 3, 4].map(|index| extreme.has(index)), [true, true, false, false]);
    }

    proptest! {
        #[test]
        fn any_prefix_is_within_one_of_equal_shares(instances in 1usize..40, requests in 0u64..500) {
            let weighted: Vec<_> = (0..instances).map(|index| (index, 1)).collect();
            let rotation = Rotation::build(&weighted);
            let mut counts = vec![0u64; instances];
            for turn in 0..requests {
                counts[rotation.at(turn)] += 1;
            }
            let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
            prop_assert!(most - least <= 1);
        }

        #[test]
        fn a_full_round_gives_each_its_weight(weights in proptest::collection::vec(0u32..20, 1..10)) {
            let weighted: Vec<_> = weights.iter().copied().enumerate().collect();
            let rotation = Rotation::build(&weighted);
            let total: u32 = weights.iter().sum();
            for (index, weight) in weights.iter().enumerate() {
                let turns = (0..rotation.len() as u64).filter(|turn| rotation.at(*turn) == index);
                prop_assert_eq!(turns.count() as u32 * total, weight * rotation.len() as u32);
            }
        }
    }
}
