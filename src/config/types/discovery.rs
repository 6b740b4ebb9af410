//! Where a version's instances are found at run time.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::{Docker, EtcdKeys, Kubernetes};

/// A source of instances, and how far it is believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Discovery {
    /// Who tells.
    pub source: Source,
    /// An answer that names fewer is not believed: those that are known stay. 0 to 10000.
    pub minimum: u32,
}

impl Discovery {
    /// The default of `minimum`: a source that suddenly names nobody empties nothing.
    pub const MINIMUM: u32 = 1;
}

/// Who tells which instances there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A file, read again when it changes.
    File(PathBuf),
    /// The DNS, asked again and again.
    Dns(Dns),
    /// The API server of a Kubernetes cluster, which tells of each change.
    Kubernetes(Kubernetes),
    /// A Docker engine, which tells of each event.
    Docker(Docker),
    /// An etcd, which tells of changes.
    Etcd(EtcdKeys),
}

impl Source {
    /// Its key in the configuration.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::File(_) => "file",
            Self::Dns(Dns { names: Names::Addresses { .. }, .. }) => "dns",
            Self::Dns(Dns { names: Names::Services { .. }, .. }) => "srv",
            Self::Kubernetes(_) => "kubernetes",
            Self::Docker(_) => "docker",
            Self::Etcd(_) => "etcd",
        }
    }
}

/// What the DNS is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dns {
    /// For which name and records.
    pub names: Names,
    /// The longest time from one question to the next; a record's TTL may make it shorter. 1s to 1h.
    pub refresh: Duration,
    /// Whom to ask; those of the system if empty.
    pub resolvers: Vec<SocketAddr>,
}

impl Dns {
    /// The default of `refresh`.
    pub const REFRESH: Duration = Duration::from_secs(10);
}

/// A name, and the kind of records that it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Names {
    /// A and AAAA records: each address is an instance, at this port.
    Addresses {
        /// The name.
        host: String,
        /// The port.
        port: u16,
    },
    /// SRV records (RFC 2782): each target and port is an instance.
    Services {
        /// Such as `_http._tcp.app.internal`.
        name: String,
    },
}

impl Names {
    /// The name.
    pub fn name(&self) -> &str {
        match self {
            Self::Addresses { host, .. } => host,
            Self::Services { name } => name,
        }
    }
}
