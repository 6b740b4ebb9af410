//! The bounded load of consistent hashing: how much one instance may carry of what all carry.

/// One, in basis points.
const WHOLE: u128 = 10_000;

/// What all instances that may be chosen carry together, and how uneven it may be.
#[derive(Debug, Clone, Copy)]
pub struct Bound {
    /// An instance's most as a multiple of its share, in basis points, above 10,000.
    pub factor: u32,
    /// Requests and tunnels in flight.
    pub load: u64,
    /// The sum of weights.
    pub weight: u64,
}

impl Bound {
    /// Whether an instance with this load and weight may take no more. Never all of them.
    pub fn is_full(self, load: u64, weight: u32) -> bool {
        let share = u128::from(self.factor) * (u128::from(self.load) + 1) * u128::from(weight);
        let most = share.div_ceil(WHOLE * u128::from(self.weight.max(1)));
        u128::from(load) >= most
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_most_is_a_multiple_of_the_share_rounded_up() {
        let bound = Bound { factor: 12_500, load: 39, weight: 4 };
        assert!(!bound.is_full(12, 1) && bound.is_full(13, 1), "40 of 4 are 10; 12.5 is 13");
        assert!(!bound.is_full(24, 2) && bound.is_full(25, 2));
        let idle = Bound { load: 0, ..bound };
        assert!(!idle.is_full(0, 1), "the first request goes where its key says");
    }

    proptest! {
        #[test]
        fn somebody_always_has_room(
            instances in proptest::collection::vec((0_u64..1000, 1_u32..1000), 1..20),
            factor in 10_001_u32..100_000,
        ) {
            let load = instances.iter().map(|(load, _)| load).sum();
            let weight = instances.iter().map(|(_, weight)| u64::from(*weight)).sum();
            let bound = Bound { factor, load, weight };
            prop_assert!(instances.iter().any(|(load, weight)| !bound.is_full(*load, *weight)));
        }
    }
}
