//! What a reload would change, in the operator's words.
//!
//! Pure; compares two validated configurations. The order of services, listeners and instances in
//! the file means nothing and is no change. Read [`diff`] first.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;

use super::types::{
    Admin, AffinityKeys, Config, Instance, Listener, Service, Split, State, Version,
};
use super::units::format_percent;

/// One difference between two configurations; displays as one short line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A setting of the whole process that is read at start only.
    NeedsRestart {
        /// Which.
        key: &'static str,
    },
    /// A setting of the whole process.
    Setting {
        /// Which.
        key: &'static str,
    },
    /// Keys of affinity tokens came or went.
    AffinityKeys {
        /// How many came.
        added: usize,
        /// How many went.
        removed: usize,
    },
    /// Clients are accepted at one more address.
    ListenerAdded {
        /// Where.
        address: SocketAddr,
    },
    /// Clients are accepted in another way at an address.
    ListenerChanged {
        /// Where.
        address: SocketAddr,
    },
    /// Clients are no longer accepted at an address.
    ListenerRemoved {
        /// Where.
        address: SocketAddr,
    },
    /// A service is new.
    ServiceAdded {
        /// Its name.
        service: String,
    },
    /// A service is gone.
    ServiceRemoved {
        /// Its name.
        service: String,
    },
    /// Another setting of a service.
    ServiceSetting {
        /// Its name.
        service: String,
        /// Which.
        key: &'static str,
    },
    /// A version is new in a service that was there before.
    VersionAdded {
        /// Its name, behind that of its service.
        version: String,
    },
    /// A version is gone from a service that is still there.
    VersionRemoved {
        /// Its name, behind that of its service.
        version: String,
    },
    /// A version gets another share of requests; shares are in basis points.
    VersionShare {
        /// Its name, behind that of its service.
        version: String,
        /// Before.
        from: u32,
        /// After.
        to: u32,
    },
    /// A setting of a version.
    VersionSetting {
        /// Its name, behind that of its service.
        version: String,
        /// Which.
        key: &'static str,
    },
    /// An instance is new in a version that was there before.
    InstanceAdded {
        /// Its version.
        version: String,
        /// Its name.
        instance: String,
    },
    /// An instance is gone from a version that is still there.
    InstanceRemoved {
        /// Its version.
        version: String,
        /// Its name.
        instance: String,
    },
    /// An instance has another weight.
    InstanceWeight {
        /// Its version.
        version: String,
        /// Its name.
        instance: String,
        /// Before.
        from: u32,
        /// After.
        to: u32,
    },
    /// The operator wants something else of an instance.
    InstanceState {
        /// Its version.
        version: String,
        /// Its name.
        instance: String,
        /// Before.
        from: State,
        /// After.
        to: State,
    },
    /// An instance has other limits.
    InstanceLimits {
        /// Its version.
        version: String,
        /// Its name.
        instance: String,
    },
    /// An instance of the same name is at another address.
    InstanceAddress {
        /// Its version.
        version: String,
        /// Its name.
        instance: String,
        /// Before.
        from: String,
        /// After.
        to: String,
    },
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NeedsRestart { key } => write!(f, "{key}: takes effect after a restart"),
            Self::Setting { key } => write!(f, "{key}: changed"),
            Self::AffinityKeys { added: 0, removed: 0 } => {
                f.write_str("affinity_keys: order changed")
            }
            Self::AffinityKeys { added, removed } => {
                write!(f, "affinity_keys: {added} added, {removed} removed")
            }
            Self::ListenerAdded { address } => write!(f, "listener {address} added"),
            Self::ListenerChanged { address } => write!(f, "listener {address} changed"),
            Self::ListenerRemoved { address } => write!(f, "listener {address} removed"),
            Self::ServiceAdded { service } => write!(f, "service {service} added"),
            Self::ServiceRemoved { service } => write!(f, "service {service} removed"),
            Self::ServiceSetting { service, key } => write!(f, "{service}: {key} changed"),
            Self::VersionAdded { version } => write!(f, "{version}: version added"),
            Self::VersionRemoved { version } => write!(f, "{version}: version removed"),
            Self::VersionShare { version, from, to } => {
                let [from, to] = [from, to].map(|share| format_percent(*share));
                write!(f, "{version}: share {from} -> {to}")
            }
            Self::VersionSetting { version, key } => write!(f, "{version}: {key} changed"),
            Self::InstanceAdded { version, instance } => {
                write!(f, "{version}: instance {instance} added")
            }
            Self::InstanceRemoved { version, instance } => {
                write!(f, "{version}: instance {instance} removed")
            }
            Self::InstanceState { version, instance, from, to } => {
                let (from, to) = (from.word(), to.word());
                write!(f, "{version}: instance {instance} state {from} -> {to}")
            }
            Self::InstanceLimits { version, instance } => {
                write!(f, "{version}: instance {instance} limits changed")
            }
            Self::InstanceWeight { version, instance, from, to } => {
                write!(f, "{version}: instance {instance} weight {from} -> {to}")
            }
            Self::InstanceAddress { version, instance, from, to } => {
                write!(f, "{version}: instance {instance} address {from} -> {to}")
            }
        }
    }
}

/// The changes from `old` to `new`: of the process, of listeners, then service by service.
pub fn diff(old: &Config, new: &Config) -> Vec<Change> {
    let mut changes = Vec::new();
    if old.workers != new.workers {
        changes.push(Change::NeedsRestart { key: "workers" });
    }
    if old.user != new.user {
        changes.push(Change::NeedsRestart { key: "user" });
    }
    settings(old, new, &mut changes);
    affinity_keys(&old.affinity_keys, &new.affinity_keys, &mut changes);
    listeners(&old.listeners, &new.listeners, &mut changes);
    for service in &new.services {
        match old.services.iter().find(|known| known.name == service.name) {
            None => changes.push(Change::ServiceAdded { service: service.name.clone() }),
            Some(known) => services(known, service, &mut changes),
        }
    }
    for service in &old.services {
        if new.services.iter().all(|known| known.name != service.name) {
            changes.push(Change::ServiceRemoved { service: service.name.clone() });
        }
    }
    changes
}

fn listeners(old: &[Listener], new: &[Listener], changes: &mut Vec<Change>) {
    for Listener { address, .. } in new.iter().filter(|listener| !old.contains(listener)) {
        changes.push(match old.iter().any(|known| known.address == *address) {
            true => Change::ListenerChanged { address: *address },
            false => Change::ListenerAdded { address: *address },
        });
    }
    let is_gone = |known: &&Listener| new.iter().all(|other| other.address != known.address);
    for Listener { address, .. } in old.iter().filter(is_gone) {
        changes.push(Change::ListenerRemoved { address: *address });
    }
}

fn settings(old: &Config, new: &Config, changes: &mut Vec<Change>) {
    let admin = |config: &Config| {
        let admin = config.admin.clone()?;
        // Naming the default changes nothing.
        Some(Admin { explicit: true, ..admin })
    };
    let is_changed = [
        ("trusted_proxies", old.trusted_proxies != new.trusted_proxies),
        ("forwarding", old.forwarding != new.forwarding),
        ("admin", admin(old) != admin(new)),
        ("access_log", old.access_log != new.access_log),
        ("fleet", old.fleet != new.fleet),
        ("tracing", old.tracing != new.tracing),
        ("timeouts", old.client_timeouts != new.client_timeouts),
        ("limits", old.client_limits != new.client_limits),
        ("shutdown", old.shutdown != new.shutdown),
        ("upgrade", old.upgrade != new.upgrade),
    ];
    let changed = is_changed.into_iter().filter(|(_, is_changed)| *is_changed);
    changes.extend(changed.map(|(key, _)| Change::Setting { key }));
}

/// The same keys from another place are no change.
fn affinity_keys(old: &AffinityKeys, new: &AffinityKeys, changes: &mut Vec<Change>) {
    if old.inline == new.inline {
        return;
    }
    let missing_in = |keys: &[[u8; 32]], other: &[[u8; 32]]| {
        keys.iter().filter(|key| !other.contains(key)).count()
    };
    let added = missing_in(&new.inline, &old.inline);
    let removed = missing_in(&old.inline, &new.inline);
    changes.push(Change::AffinityKeys { added, removed });
}

fn services(old: &Service, new: &Service, changes: &mut Vec<Change>) {
    let is_changed = [
        ("hosts", old.hosts != new.hosts),
        ("paths", old.paths != new.paths),
        ("access", old.access != new.access),
        ("routes", old.routes != new.routes),
        ("mirror", old.mirror != new.mirror),
    ];
    for (key, _) in is_changed.into_iter().filter(|(_, is_changed)| *is_changed) {
        changes.push(Change::ServiceSetting { service: new.name.clone(), key });
    }
    let is_other = |old: &Split, new: &Split| {
        let settings = |it: &Split| (it.shard_by, it.cookie.clone(), it.at_zero);
        settings(old) != settings(new)
    };
    let is_switched = old.split.is_some() != new.split.is_some();
    if is_switched || old.split.iter().zip(&new.split).any(|(old, new)| is_other(old, new)) {
        let (service, key) = (new.name.clone(), "traffic_split");
        changes.push(Change::ServiceSetting { service, key });
    }
    let label = |version: &Version| format!("{}/{}", new.name, version.name);
    for version in &new.versions {
        match old.version(&version.name) {
            Some(known) => {
                let [from, to] =
                    [old, new].map(|it| (it.share(&version.name) * 1e4).round() as u32);
                if from != to {
                    changes.push(Change::VersionShare { version: label(version), from, to });
                }
                versions(&label(version), known, version, changes);
            }
            None => changes.push(Change::VersionAdded { version: label(version) }),
        }
    }
    for version in old.versions.iter().filter(|it| new.version(&it.name).is_none()) {
        changes.push(Change::VersionRemoved { version: label(version) });
    }
}

fn versions(label: &str, old: &Version, new: &Version, changes: &mut Vec<Change>) {
    let is_switched = old.affinity.is_some() != new.affinity.is_some();
    let is_changed = [
        ("session_affinity", is_switched),
        ("affinity", !is_switched && old.affinity != new.affinity),
        ("balance", old.balance != new.balance),
        ("tls", old.tls != new.tls),
        ("protocol", old.protocol != new.protocol),
        ("readiness_check", old.readiness_check != new.readiness_check),
        ("liveness_check", old.liveness_check != new.liveness_check),
        ("proxy_protocol", old.proxy_protocol != new.proxy_protocol),
        ("breaker", old.breaker != new.breaker),
        ("panic_threshold", old.panic_threshold != new.panic_threshold),
        ("slow_start", old.slow_start != new.slow_start),
        ("retry", old.retry != new.retry),
        ("queue", old.queue != new.queue),
        ("concurrency", old.concurrency != new.concurrency),
        ("upgrades", old.upgrades != new.upgrades),
        ("websocket", old.websocket != new.websocket),
        ("rebalance", old.rebalance != new.rebalance),
        ("drain", old.drain != new.drain),
        ("rate_limit", old.rate_limit != new.rate_limit),
        ("timeouts", old.timeouts != new.timeouts),
        ("limits", old.limits != new.limits),
        ("discovery", old.discovery != new.discovery),
    ];
    for (key, _) in is_changed.into_iter().filter(|(_, is_changed)| *is_changed) {
        changes.push(Change::VersionSetting { version: label.to_owned(), key });
    }
    let [before, after] = [old, new].map(by_name);
    for instance in &new.instances {
        match before.get(&*instance.name) {
            Some(known) => instances(label, known, instance, changes),
            None => changes.push(Change::InstanceAdded {
                version: label.to_owned(),
                instance: instance.name.clone(),
            }),
        }
    }
    for instance in &old.instances {
        if !after.contains_key(&*instance.name) {
            changes.push(Change::InstanceRemoved {
                version: label.to_owned(),
                instance: instance.name.clone(),
            });
        }
    }
}

fn by_name(version: &Version) -> HashMap<&str, &Instance> {
    version.instances.iter().map(|instance| (&*instance.name, instance)).collect()
}

fn instances(label: &str, old: &Instance, new: &Instance, changes: &mut Vec<Change>) {
    if (old.max_requests, old.max_tunnels) != (new.max_requests, new.max_tunnels) {
        changes
            .push(Change::InstanceLimits { version: label.to_owned(), instance: new.name.clone() });
    }
    if old.state != new.state {
        changes.push(Change::InstanceState {
            version: label.to_owned(),
            instance: new.name.clone(),
            from: old.state,
            to: new.state,
        });
    }
    if old.address != new.address {
        changes.push(Change::InstanceAddress {
            version: label.to_owned(),
            instance: new.name.clone(),
            from: old.address.clone(),
            to: new.address.clone(),
        });
    }
    if old.weight != new.weight {
        changes.push(Change::InstanceWeight {
            version: label.to_owned(),
            instance: new.name.clone(),
            from: old.weight,
            to: new.weight,
        });
    }
}
