//! To which of its versions a service's request goes, by weights.
//!
//! Each client has a number, and each number a version. It is drawn by weighted rendezvous: of two versions
//! no number changes sides but those that the change of weights is about, so a raise from 1 % to 5 % moves 4 %,
//! and to lower it again moves the same ones back. Weights and names alone decide, so that all replicas agree,
//! before and after a restart. Pure.

/// Numbers that clients may have in their cookie: enough for shares that are exact to a hundredth of a
/// per cent, too few to tell one client from all others.
pub const PLACES: u32 = 1_000_000;

/// By what a request came to its version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// Its affinity token.
    Token,
    /// Its engine.io session.
    EngineIo,
    /// Other streams of its client.
    Streams,
    /// The number in its cookie.
    Cookie,
    /// A number that was drawn for its cookie.
    Drawn,
    /// Its client's address.
    Ip,
    /// Chance.
    Random,
}

impl By {
    /// Every one, in the order of the metric's rows.
    pub const ALL: [Self; 7] = [
        Self::Token,
        Self::EngineIo,
        Self::Streams,
        Self::Cookie,
        Self::Drawn,
        Self::Ip,
        Self::Random,
    ];

    /// The label in logs and metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::EngineIo => "engine_io",
            Self::Streams => "streams",
            Self::Cookie => "cookie",
            Self::Drawn => "drawn",
            Self::Ip => "ip",
            Self::Random => "random",
        }
    }
}

/// Versions with weights, ready to be asked.
#[derive(Debug, Clone, Default)]
pub struct Sharing(Box<[Share]>);

#[derive(Debug, Clone, Copy)]
struct Share {
    weight: f64,
    seed: u64,
}

impl Sharing {
    /// Of versions by name and weight; an answer is an index among them.
    pub fn new<'a>(versions: impl Iterator<Item = (&'a str, u32)>) -> Self {
        let share = |(name, weight): (&str, u32)| Share {
            weight: weight.into(),
            seed: hash(name.as_bytes()),
        };
        Self(versions.map(share).collect())
    }

    /// Whether this version gets anything.
    pub fn has_weight(&self, version: usize) -> bool {
        self.0.get(version).is_some_and(|share| share.weight > 0.0)
    }

    /// The version of a client with this number, which may be any.
    pub fn of(&self, number: u64) -> usize {
        // An exponential variable of the rate `weight` is the least of them with a chance in proportion.
        let time = |share: &Share| {
            let bits = mixed(mixed(number) ^ share.seed) >> 11;
            let uniform = (bits as f64 + 0.5) / (1_u64 << 53) as f64;
            -uniform.ln() / share.weight
        };
        let mut first = (0, f64::INFINITY);
        for (index, share) in self.0.iter().enumerate().filter(|(_, share)| share.weight > 0.0) {
            let time = time(share);
            if time < first.1 {
                first = (index, time);
            }
        }
        first.0
    }
}

/// A number for what is text, the same on all machines (FNV-1a).
pub fn hash(text: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3);
    mixed(text.iter().fold(0xCBF2_9CE4_8422_2325, step))
}

/// Spreads bits over all of a number (the finaliser of SplitMix64).
fn mixed(number: u64) -> u64 {
    let mut bits = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENTS: u64 = 100_000;

    fn sharing(weights: &[(&str, u32)]) -> Sharing {
        Sharing::new(weights.iter().copied())
    }

    fn versions(weights: &[(&str, u32)]) -> Vec<usize> {
        let sharing = sharing(weights);
        (0..CLIENTS).map(|number| sharing.of(number)).collect()
    }

    /// In per cent.
    fn moved(before: &[usize], after: &[usize]) -> f64 {
        let count = before.iter().zip(after).filter(|(before, after)| before != after).count();
        count as f64 * 100.0 / CLIENTS as f64
    }

    #[test]
    fn shares_are_as_the_weights_say() {
        for weights in [&[90, 10][..], &[1, 1, 1], &[0, 5, 95], &[99, 1], &[7, 0, 0], &[1, 1000]] {
            let named: Vec<_> =
                ["v1", "v2", "v3"].into_iter().zip(weights.iter().copied()).collect();
            let found = versions(&named);
            let all: u32 = weights.iter().sum();
            for (index, weight) in weights.iter().enumerate() {
                let count = found.iter().filter(|version| **version == index).count();
                let share = count as f64 * 100.0 / CLIENTS as f64;
                let expected = f64::from(*weight) * 100.0 / f64::from(all);
                assert!((share - expected).abs() < 0.35, "{weights:?}: {index} has {share} %");
                assert!(*weight > 0 || count == 0, "{weights:?}");
            }
        }
    }

    #[test]
    fn as_few_clients_move_as_a_change_of_weights_is_about() {
        let one = versions(&[("v1", 99), ("v2", 1)]);
        let five = versions(&[("v1", 95), ("v2", 5)]);
        let share = moved(&one, &five);
        assert!((share - 4.0).abs() < 0.2, "{share} % moved");
        // Nobody who was on the newer version is sent back.
        assert!(one.iter().zip(&five).all(|(before, after)| before <= after));
        assert_eq!(
            moved(
                &one,
                &versions(&[("v2", 1), ("v1", 99)]).iter().map(|it| 1 - it).collect::<Vec<_>>()
            ),
            0.0,
            "order means nothing"
        );
        assert_eq!(moved(&one, &versions(&[("v1", 9900), ("v2", 100)])), 0.0, "nor does the sum");
        let third = versions(&[("v1", 90), ("v2", 5), ("v3", 5)]);
        let share = moved(&five, &third);
        assert!(share < 5.6, "{share} % moved for a third version of 5 %");
        // Taken out again, only its own move.
        let share = moved(&third, &versions(&[("v1", 90), ("v2", 5), ("v3", 0)]));
        assert!((share - 5.0).abs() < 0.3, "{share} %");
    }

    /// Clients keep their version over an upgrade of Burdock.
    #[test]
    fn numbers_lead_where_they_always_led() {
        let sharing = sharing(&[("v1", 50), ("v2", 50)]);
        let found: String =
            (0..24).map(|number| if sharing.of(number) == 0 { '1' } else { '2' }).collect();
        assert_eq!(found, "121211222222122222222121");
        assert_eq!(hash(b"192.0.2.7"), 0x7B1D_C73B_A78D_723C);
    }
}
