//! What a balancer shares with others of its kind, and where.

use super::{Config, EtcdKeys};

/// A fleet: balancers that share keys in an etcd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fleet {
    /// Which etcd, and what all keys of the fleet begin with; that ends with `/`.
    pub keys: EtcdKeys,
    /// What this balancer is called there; the host's name, if nothing is said.
    pub name: Option<String>,
    /// Whether its affinity keys are the fleet's.
    pub keyring: bool,
    /// Whether all that is not the balancer's own is the fleet's.
    pub config: bool,
}

impl Fleet {
    /// The word for the host's name.
    pub const AUTO: &str = "auto";
}

impl Config {
    /// This balancer's own part with what its fleet shares.
    #[must_use]
    pub fn with_shared(self, shared: &Self) -> Self {
        Self {
            forwarding: shared.forwarding.clone(),
            client_timeouts: shared.client_timeouts,
            client_limits: shared.client_limits,
            shutdown: shared.shutdown,
            upgrade: shared.upgrade,
            services: shared.services.clone(),
            ..self
        }
    }

    /// Whether the rest of it is the fleet's.
    pub fn is_shared(&self) -> bool {
        self.fleet.as_ref().is_some_and(|fleet| fleet.config)
    }
}
