//! The affinity key of a balancer that was given none: made once, kept beside the configuration.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::affinity::token::Keyring;
use crate::config::types::AffinityKeys;
use crate::fleet::keyring::Keys;

/// The name of the kept key, beside the configuration.
const FILE: &str = "burdock.affinity.key";

/// No key could be made.
#[derive(Debug, thiserror::Error)]
#[error("asking the system for random bytes: {0}")]
pub struct KeyError(#[from] getrandom::Error);

/// The key that is used while the configuration names none.
#[derive(Debug)]
pub(super) struct OwnKey {
    folder: Option<PathBuf>,
    key: Option<[u8; 32]>,
}

impl OwnKey {
    /// Kept in the folder of `config`; without one, only as long as the process lives.
    pub(super) fn new(config: Option<&Path>) -> Self {
        let folder = config.map(|config| match config.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
            Some(_) | None => PathBuf::from("."),
        });
        Self { folder, key: None }
    }

    /// The keyring of a configuration. Only one with affinity needs a key that lasts.
    pub(super) fn keyring(
        &mut self,
        keys: &AffinityKeys,
        has_affinity: bool,
    ) -> Result<Keyring, KeyError> {
        if let Some(keyring) = Keyring::new(&keys.inline) {
            return Ok(keyring);
        }
        let key = if has_affinity { self.lasting()? } else { self.key.map_or_else(random, Ok)? };
        Ok(Keyring::new(&[key]).expect("one key is a keyring"))
    }

    /// A key that lasts.
    fn lasting(&mut self) -> Result<[u8; 32], KeyError> {
        match self.key {
            Some(key) => Ok(key),
            None => Ok(*self.key.insert(find_or_make(self.folder.as_deref())?)),
        }
    }

    /// The keyring of a fleet that has none yet: what tokens are sealed with here.
    pub(super) fn first_of_fleet(&mut self, keys: &AffinityKeys) -> Result<Keys, KeyError> {
        match Keys::new(keys.inline.clone()) {
            Some(keys) => Ok(keys),
            None => Ok(Keys::new(vec![self.lasting()?]).expect("one key is a keyring")),
        }
    }

    /// The fleet's keyring; what tokens were sealed with here before is opened too.
    pub(super) fn of_fleet(&self, fleet: &Keys, keys: &AffinityKeys) -> Keyring {
        let own = keys.inline.iter().chain(&self.key);
        let mut all = fleet.all().to_vec();
        for key in own {
            if !all.contains(key) {
                all.push(*key);
            }
        }
        Keyring::new(&all).expect("a fleet's keyring has a key")
    }
}

/// A new key, as a line of a key file.
pub fn new_key() -> Result<String, KeyError> {
    random().map(|key| STANDARD.encode(key))
}

pub(super) fn random() -> Result<[u8; 32], KeyError> {
    let mut key = [0; 32];
    getrandom::fill(&mut key)?;
    Ok(key)
}

fn find_or_make(folder: Option<&Path>) -> Result<[u8; 32], KeyError> {
    let path = folder.map(|folder| folder.join(FILE));
    if let Some(key) = path.as_deref().and_then(read) {
        return Ok(key);
    }
    let key = random()?;
    let Some(path) = path else {
        tracing::info!("made an affinity key for as long as this process lives");
        return Ok(key);
    };
    match write(&path, &key) {
        Ok(()) => tracing::warn!(
            file = %path.display(),
            "made an affinity key; replicas need the same one: give all of them affinity_keys"
        ),
        Err(error) => tracing::warn!(
            %error,
            "made an affinity key that could not be kept: sessions move at a restart; \
             set affinity_keys"
        ),
    }
    Ok(key)
}

fn read(path: &Path) -> Option<[u8; 32]> {
    let text = std::fs::read_to_string(path).ok()?;
    let key = STANDARD.decode(text.trim()).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    if key.is_none() {
        tracing::warn!(file = %path.display(), "this file holds no affinity key; making a new one");
    }
    key
}

/// Readable by its owner only, from the first byte on.
fn write(path: &Path, key: &[u8; 32]) -> std::io::Result<()> {
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    writeln!(file, "{}", STANDARD.encode(key))
}
