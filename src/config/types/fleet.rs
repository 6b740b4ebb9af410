//! What a balancer shares with others of its kind, and where.

use super::EtcdKeys;

/// A fleet: balancers that share keys in an etcd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fleet {
    /// Which etcd, and what all keys of the fleet begin with; that ends with `/`.
    pub keys: EtcdKeys,
    /// What this balancer is called there; the host's name, if nothing is said.
    pub name: Option<String>,
    /// Whether its affinity keys are the fleet's.
    pub keyring: bool,
}

impl Fleet {
    /// The word for the host's name.
    pub const AUTO: &str = "auto";
}
