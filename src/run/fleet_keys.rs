//! The keyring of a fleet, shown and changed from the command line: by the etcd alone, whether any
//! balancer runs here or not.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::config::types::Fleet;
use crate::config::{self, ConfigErrors};
use crate::fleet::keyring::{Keys, Ring, RotateError};
use crate::run::keys::{KeyError, random};

/// Why it was not.
#[derive(Debug, thiserror::Error)]
pub enum FleetKeysError {
    /// The configuration is none.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// It names no fleet.
    #[error("{} names no `fleet`", .0.display())]
    None(PathBuf),
    /// The file of keys is none.
    #[error("reading keys from {}: {why}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// No key could be made.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The etcd, or what is there.
    #[error("the fleet's keyring: {0}")]
    Ring(#[from] RotateError),
}

/// What each key is known by, the one that seals first.
pub async fn fleet_keys(config: &Path) -> Result<Vec<String>, FleetKeysError> {
    Ok(ring(config)?.keys().await?.ids())
}

/// Puts the keys of this file in their place.
pub async fn push_fleet_keys(config: &Path, file: &Path) -> Result<Vec<String>, FleetKeysError> {
    let wrong = |why: String| FleetKeysError::File { path: file.to_owned(), why };
    let text = std::fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
    let keys = Keys::of_text(&text).map_err(wrong)?;
    ring(config)?.put(&keys).await?;
    Ok(keys.ids())
}

/// Lets a new key seal once every balancer has it, within `wait`; so many of those before it still open.
pub async fn rotate_fleet_keys(
    config: &Path,
    keep: u8,
    wait: Duration,
) -> Result<Vec<String>, FleetKeysError> {
    let new = random()?;
    Ok(ring(config)?.rotate(new, keep.into(), wait).await?.ids())
}

fn ring(config: &Path) -> Result<Ring, FleetKeysError> {
    let fleet: Option<Arc<Fleet>> = config::load(config)?.config.fleet;
    let none = || FleetKeysError::None(config.to_owned());
    Ok(Ring::of(&*fleet.ok_or_else(none)?))
}
