//! How the requests of a service are shared among its versions.

use std::collections::BTreeMap;

use super::Service;

/// What [`Split::allocations`] count in: 1 is so many.
pub const SHARE_UNIT: u32 = 10_000;

/// How the requests of a service are shared among its versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// What decides.
    pub shard_by: ShardBy,
    /// With [`ShardBy::Cookie`], the cookie that holds the number of a client.
    pub cookie: String,
    /// Weights by version, in ten-thousandths; a version that is not named has none.
    pub allocations: BTreeMap<String, u32>,
    /// What becomes of the sessions of a version without weight.
    pub at_zero: AtZero,
    /// Which sessions move though their version has a weight; never of a file.
    pub recall: Option<Recall>,
}

/// Sessions that a ramp which was rolled back has brought to its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recall {
    /// The version.
    pub version: String,
    /// When they began: from then to then, in seconds since the Unix epoch.
    pub issued: (u64, u64),
}

impl Recall {
    /// Whether it means a session that began then.
    pub fn means(&self, issued: u64) -> bool {
        (self.issued.0..=self.issued.1).contains(&issued)
    }
}

impl Split {
    /// The name of the cookie by default.
    pub const COOKIE: &'static str = "BURDOCK_SPLIT";

    /// The weight of a version, in ten-thousandths.
    pub fn weight(&self, version: &str) -> u32 {
        self.allocations.get(version).copied().unwrap_or_default()
    }

    /// The share of a version, from 0 to 1.
    pub fn share(&self, version: &str) -> f64 {
        let all: u64 = self.allocations.values().copied().map(u64::from).sum();
        if all == 0 { 0.0 } else { f64::from(self.weight(version)) / all as f64 }
    }
}

/// What decides to which version a request goes that is bound to none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ShardBy {
    /// A number that the client is given in a cookie.
    #[default]
    Cookie,
    /// The client's address.
    Ip,
    /// Chance, with each request.
    Random,
}

impl ShardBy {
    /// Each with its word in the configuration.
    pub const WORDS: [(&'static str, Self); 3] =
        [("cookie", Self::Cookie), ("ip", Self::Ip), ("random", Self::Random)];

    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Cookie => "cookie",
            Self::Ip => "ip",
            Self::Random => "random",
        }
    }
}

/// What becomes of the sessions of a version that has no weight any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AtZero {
    /// They move to other versions with their next request.
    #[default]
    Move,
    /// They stay until their token ends.
    Keep,
}

impl AtZero {
    /// Each with its word in the configuration.
    pub const WORDS: [(&'static str, Self); 2] = [("move", Self::Move), ("keep", Self::Keep)];

    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Move => "move",
            Self::Keep => "keep",
        }
    }
}

impl Service {
    /// The share of a version, from 0 to 1; a version that is alone has all.
    pub fn share(&self, version: &str) -> f64 {
        self.split.as_ref().filter(|_| self.versions.len() > 1).map_or(1.0, |it| it.share(version))
    }

    /// The version of this name.
    pub fn version(&self, name: &str) -> Option<&super::Version> {
        self.versions.iter().find(|version| version.name == name)
    }
}
