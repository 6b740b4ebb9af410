//! What is to differ from the file at run time: states, weights and instances that somebody asked
//! for while Burdock ran. A layer over the configuration, never a change of it.
//!
//! Pure: knows no clock, no live state and no network. An override stays until it is taken back,
//! whatever the file says meanwhile; what the file makes meaningless is dropped by
//! [`Overlay::prune`]. Its text is [`Overlay::to_text`], of a version of its own. Read [`Override`]
//! first.

mod ramps;
mod shares;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, HashSet};

pub use ramps::{
    Limits, MIN_REQUESTS, OVER, Plan, QUANTILE, Ramp, RampRow, SLOWEST, Slow, Stage, TIMES, WHOLE,
    weights,
};
pub use shares::{Shares, SharesRow, told};

use serde::{Deserialize, Serialize};

use super::types::{Config, Instance, Service, State, Version};

/// The version of the text; another one is refused rather than guessed at.
const FORMAT: u32 = 1;
/// Instances that may be added in all: a caller that never removes any must not fill the memory.
pub const MAX_ADDED: usize = 10_000;
/// Overrides that are kept of instances which their source names no longer, in all.
const MAX_ABSENT: usize = 1000;
/// As in a configuration.
pub const MAX_WEIGHT: u32 = 1000;
/// Milliseconds since the Unix epoch in the year 10000, which no date is written for.
pub const END_OF_TIME: u64 = 253_402_300_800_000;

/// Who an override is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key {
    /// The service.
    pub service: String,
    /// The version.
    pub version: String,
    /// The instance.
    pub name: String,
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}/{}", self.service, self.version, self.name)
    }
}

/// An instance that the file does not name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Added {
    /// `IP:port`, `[IPv6]:port` or `host:port`.
    pub address: String,
    /// Its weight as it was added.
    pub weight: u32,
}

/// What is wanted of one instance instead of what the file says. Instants are milliseconds since the
/// Unix epoch, so that they mean the same after a restart.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Override {
    /// Its state.
    #[serde(with = "word", skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
    /// When its drain ends, if it drains.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline: Option<u64>,
    /// Its weight.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
    /// What it is, if the file does not name it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub added: Option<Added>,
    /// When this was last changed.
    pub since: u64,
}

impl Override {
    /// Whether the API could have been asked for this.
    fn is_sane(&self) -> bool {
        let weights = [self.weight, self.added.as_ref().map(|added| added.weight)];
        let instants = [Some(self.since), self.deadline];
        weights.into_iter().flatten().all(|weight| weight <= MAX_WEIGHT)
            && instants.into_iter().flatten().all(|instant| instant < END_OF_TIME)
    }

    fn says_nothing(&self) -> bool {
        let Self { state, deadline, weight, added, since: _ } = self;
        state.is_none() && deadline.is_none() && weight.is_none() && added.is_none()
    }
}

/// Every override.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overlay {
    instances: BTreeMap<Key, Override>,
    /// By service.
    shares: BTreeMap<String, Shares>,
    /// By service too.
    ramps: BTreeMap<String, Ramp>,
}

/// One thing that differs from the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Of whom: a service, or `service/version/instance`.
    pub id: String,
    /// `traffic_split`, `state`, `weight` or `added`.
    pub what: &'static str,
    /// What the file says; nothing of an instance that it does not name.
    pub file: Option<String>,
    /// What counts.
    pub now: String,
    /// Since when.
    pub since: u64,
}

/// Text that is no overlay.
#[derive(Debug, thiserror::Error)]
pub enum OverlayError {
    /// Not in the form.
    #[error("it is damaged: {0}")]
    Damaged(#[from] serde_json::Error),
    /// Another form.
    #[error("it has format {0}, and this version of Burdock reads format {FORMAT}")]
    Format(u32),
}

#[derive(Serialize, Deserialize)]
struct Document {
    format: u32,
    overrides: Vec<Row>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    splits: Vec<SharesRow>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    ramps: Vec<RampRow>,
}

/// An override as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Whose.
    #[serde(flatten)]
    pub key: Key,
    /// What.
    #[serde(flatten)]
    pub wanted: Override,
}

impl Overlay {
    /// What is wanted of one instance.
    pub fn of(&self, key: &Key) -> Option<&Override> {
        self.instances.get(key)
    }

    /// Whether nothing is wanted.
    pub fn is_empty(&self) -> bool {
        self.instances.is_empty() && self.shares.is_empty() && self.ramps.is_empty()
    }

    /// How many instances were added.
    pub fn added(&self) -> usize {
        self.instances.values().filter(|wanted| wanted.added.is_some()).count()
    }

    /// Wants this of an instance from now on; what says nothing is forgotten.
    pub fn set(&mut self, key: Key, wanted: Override) {
        if wanted.says_nothing() {
            self.instances.remove(&key);
        } else {
            self.instances.insert(key, wanted);
        }
    }

    /// Wants nothing of it any more.
    pub fn remove(&mut self, key: &Key) -> Option<Override> {
        self.instances.remove(key)
    }

    /// One row for each.
    pub fn rows(&self) -> impl Iterator<Item = Row> {
        self.instances.iter().map(|(key, wanted)| Row { key: key.clone(), wanted: wanted.clone() })
    }

    /// From such rows.
    pub fn of_rows(rows: impl IntoIterator<Item = Row>) -> Self {
        let mut overlay = Self::default();
        rows.into_iter().for_each(|row| overlay.set(row.key, row.wanted));
        overlay
    }

    /// As text, for a file.
    pub fn to_text(&self) -> String {
        let (splits, ramps) = (self.shares_rows().collect(), self.ramp_rows().collect());
        let document = Document { format: FORMAT, overrides: self.rows().collect(), splits, ramps };
        let mut text = serde_json::to_string_pretty(&document)
            .expect("maps with keys of text and without floats have a text");
        text.push('\n');
        text
    }

    /// From such text.
    pub fn from_text(text: &str) -> Result<Self, OverlayError> {
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let Format { format } = serde_json::from_str(text)?;
        if format != FORMAT {
            return Err(OverlayError::Format(format));
        }
        let Document { overrides, splits, ramps, .. } = serde_json::from_str(text)?;
        // A file can be written by anybody who may; what the API would refuse has no place here either.
        let mut overlay = Self::of_rows(overrides.into_iter().filter(|row| row.wanted.is_sane()));
        for SharesRow { service, wanted } in splits.into_iter().filter(|row| row.wanted.is_sane()) {
            overlay.set_shares(service, Some(wanted));
        }
        for RampRow { service, ramp } in ramps.into_iter().filter(|row| row.ramp.is_sane()) {
            overlay.set_ramp(service, ramp);
        }
        Ok(overlay)
    }

    /// The configuration with this over it. What has no place in it is passed over.
    pub fn apply(&self, config: &Config) -> Config {
        let mut config = config.clone();
        for service in &mut config.services {
            if let Some(split) = &mut service.split {
                if let Some(wanted) = self.shares(&service.name) {
                    split.allocations.clone_from(&wanted.allocations);
                }
                self.ramp_over(&service.name, split);
            }
            for version in &mut service.versions {
                self.apply_to(&service.name, version);
            }
        }
        config
    }

    fn apply_to(&self, service: &str, version: &mut Version) {
        for instance in &mut version.instances {
            let key = key(service, &version.name, &instance.name);
            if let Some(wanted) = self.instances.get(&key) {
                wanted.put_over(instance);
            }
        }
        let mine = self
            .instances
            .iter()
            .filter(|(key, _)| key.service == service && key.version == version.name);
        let named: HashSet<_> = version.instances.iter().map(|it| it.name.clone()).collect();
        let mut more = Vec::new();
        for (key, wanted) in mine {
            let Some(added) = &wanted.added else { continue };
            if !named.contains(&key.name) {
                let mut instance = Instance::at(added.address.clone());
                instance.name.clone_from(&key.name);
                instance.weight = added.weight;
                wanted.put_over(&mut instance);
                more.push(instance);
            }
        }
        version.instances.extend(more);
    }

    /// Forgets what `config` leaves no place for; gives a sentence on each.
    pub fn prune(&mut self, config: &Config) -> Vec<String> {
        let (mut told, index) = (self.prune_shares(config), Index::of(config));
        told.extend(self.prune_ramps(config));
        let keys: Vec<Key> = self.instances.keys().cloned().collect();
        let mut absent = Vec::new();
        for key in keys {
            let Some(wanted) = self.instances.get_mut(&key) else { continue };
            let Some(version) = index.version(&key) else {
                told.push(format!("{key}: the file has no such version any more"));
                self.instances.remove(&key);
                continue;
            };
            let named = version.by_name.get(&*key.name);
            match (&wanted.added, named) {
                // Its source may name it again in a moment, and what was wanted of it still is.
                (None, None) if version.is_searched => absent.push((wanted.since, key.clone())),
                (None, None) => {
                    told.push(format!("{key}: the file does not name it any more"));
                    self.instances.remove(&key);
                }
                (Some(added), Some(named)) => {
                    let how = if added.address == named.address { "too" } else { "elsewhere" };
                    told.push(format!("{key}: the file names it {how}, and counts"));
                    wanted.added = None;
                    if wanted.says_nothing() {
                        self.instances.remove(&key);
                    }
                }
                (Some(added), None) if version.addresses.contains(&*added.address) => {
                    told.push(format!("{key}: the file names another at its address"));
                    self.instances.remove(&key);
                }
                (Some(_), None) | (None, Some(_)) => {}
            }
            self.forget_deadline(&key, named.map(|named| named.state));
        }
        absent.sort();
        let too_many = absent.len().saturating_sub(MAX_ABSENT);
        for (_, key) in absent.drain(..too_many) {
            told.push(format!("{key}: its source has not named it for long"));
            self.instances.remove(&key);
        }
        told
    }

    /// A deadline that outlives its drain would cut the next one short.
    fn forget_deadline(&mut self, key: &Key, filed: Option<State>) {
        let Some(wanted) = self.instances.get_mut(key) else { return };
        if wanted.state.or(filed) != Some(State::Draining) {
            wanted.deadline = None;
            if wanted.says_nothing() {
                self.instances.remove(key);
            }
        }
    }

    /// What differs from `config`, the file. An override that says what the file says differs in
    /// nothing, and stays all the same.
    pub fn differences(&self, config: &Config) -> Vec<Difference> {
        let mut found = Vec::new();
        if self.is_empty() {
            return found;
        }
        self.shares_differences(config, &mut found);
        self.ramp_differences(config, &mut found);
        let index = Index::of(config);
        for (key, wanted) in &self.instances {
            let named = index.version(key).and_then(|it| it.by_name.get(&*key.name));
            if named.is_none() && wanted.added.is_none() {
                // It waits for its source to name the instance again.
                continue;
            }
            let mut push = |what, file: Option<String>, now: String| {
                if file.as_ref() != Some(&now) {
                    let since = wanted.since;
                    found.push(Difference { id: key.to_string(), what, file, now, since });
                }
            };
            if let (Some(added), None) = (&wanted.added, named) {
                push("added", None, added.address.clone());
            }
            if let Some(state) = wanted.state {
                let file = named.map_or(State::Active, |named| named.state);
                push("state", Some(file.word().to_owned()), state.word().to_owned());
            }
            if let Some(weight) = wanted.weight {
                let added = wanted.added.as_ref().map(|added| added.weight);
                let file = named.map(|named| named.weight).or(added);
                push("weight", file.map(|file| file.to_string()), weight.to_string());
            }
        }
        found
    }
}

impl Override {
    fn put_over(&self, instance: &mut Instance) {
        instance.state = self.state.unwrap_or(instance.state);
        instance.weight = self.weight.unwrap_or(instance.weight);
    }
}

/// What a file names, found without looking through all of it for each override.
struct Index<'a>(HashMap<(&'a str, &'a str), Named<'a>>);

struct Named<'a> {
    /// Whether instances are found for it.
    is_searched: bool,
    by_name: HashMap<&'a str, &'a Instance>,
    addresses: HashSet<&'a str>,
}

impl<'a> Index<'a> {
    fn of(config: &'a Config) -> Self {
        let row = |(service, version): (&'a Service, &'a Version)| {
            let by_name = version.instances.iter().map(|it| (&*it.name, it)).collect();
            let addresses = version.instances.iter().map(|it| &*it.address).collect();
            let is_searched = version.discovery.is_some();
            ((&*service.name, &*version.name), Named { is_searched, by_name, addresses })
        };
        let versions = |it: &'a Service| it.versions.iter().map(move |version| (it, version));
        Self(config.services.iter().flat_map(versions).map(row).collect())
    }

    fn version<'b>(&'b self, key: &'b Key) -> Option<&'b Named<'a>> {
        self.0.get(&(&*key.service, &*key.version))
    }
}

/// The version that `key` is of.
pub fn version<'a>(config: &'a Config, key: &Key) -> Option<&'a Version> {
    let service = config.services.iter().find(|service| service.name == key.service)?;
    service.version(&key.version)
}

/// The instance of this name.
pub fn file_instance<'a>(version: &'a Version, name: &str) -> Option<&'a Instance> {
    version.instances.iter().find(|instance| instance.name == name)
}

fn key(service: &str, version: &str, name: &str) -> Key {
    Key { service: service.to_owned(), version: version.to_owned(), name: name.to_owned() }
}

/// A state by its word in the configuration, for serde.
pub mod word {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::config::types::State;

    /// Its word.
    pub fn serialize<S: Serializer>(
        state: &Option<State>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match state {
            Some(state) => serializer.serialize_str(state.word()),
            None => serializer.serialize_none(),
        }
    }

    /// From its word.
    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<State>, D::Error> {
        let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
        let known = State::WORDS.iter().find(|(word, _)| *word == text);
        let (_, state) =
            known.ok_or_else(|| D::Error::custom(format_args!("{text} is no state")))?;
        Ok(Some(*state))
    }
}
