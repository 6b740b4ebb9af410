//! A Kubernetes API server as a source of instances: which service's, and who is asked in whose name.

use std::path::PathBuf;

/// The pods of a service, as its EndpointSlices name them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kubernetes {
    /// The name of the service.
    pub service: String,
    /// Where it is; `None` for the namespace that the pod's own service account is in.
    pub namespace: Option<String>,
    /// Which of its ports; `None` for the only one.
    pub port: Option<SlicePort>,
    /// The URL of the API server; `None` for that of the cluster in which Burdock runs.
    pub api: Option<String>,
    /// The file of the token that is shown; `None` for the service account's own, or with `api` for none.
    pub token_file: Option<PathBuf>,
    /// The file of the authorities that are trusted; `None` for the service account's own, or with
    /// `api` for the system's.
    pub ca: Option<PathBuf>,
}

/// A port of a slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SlicePort {
    /// Where the pods listen.
    Number(u16),
    /// What the service calls it.
    Name(String),
}

impl std::fmt::Display for SlicePort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}
