//! A Docker engine as a source of instances: which containers, and where it listens.

use std::path::PathBuf;

/// The containers that run with a label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Docker {
    /// The value of their label `burdock.service`.
    pub service: String,
    /// That of `burdock.version`; `None` for any.
    pub version: Option<String>,
    /// The network in which they are spoken to; `None` for the only one that each is in.
    pub network: Option<String>,
    /// The Unix socket of the engine.
    pub socket: PathBuf,
}

impl Docker {
    /// The default of `socket`.
    pub const SOCKET: &str = "/var/run/docker.sock";
}
