//! Instances that were found at run time, by version: a layer over what the file says.
//!
//! Pure: knows no clock and no network. Whoever finds something says so by [`Found::learn`], which
//! keeps what was known before where less than enough is told. Read [`Found::apply`] first.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashSet};

use serde::{Deserialize, Serialize};

use super::types::{Config, Discovery, Instance, State};
use super::{is_address, is_name};

/// Of one version: a source that names more is not believed.
pub const MOST: usize = 10_000;
/// The version of the text; another one is refused rather than guessed at.
const FORMAT: u32 = 1;

/// A version, by the name of its service and its own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Whose {
    /// The service.
    pub service: String,
    /// The version.
    pub version: String,
}

impl Whose {
    /// This one.
    pub fn of(service: &str, version: &str) -> Self {
        Self { service: service.to_owned(), version: version.to_owned() }
    }
}

impl std::fmt::Display for Whose {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.service, self.version)
    }
}

/// An instance as a source tells of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Member {
    /// Its identity; the same for as long as it is the same process in the eyes of its source.
    pub name: String,
    /// `IP:port`, `[IPv6]:port` or `host:port`.
    pub address: String,
    /// Its share of new sessions.
    pub weight: u32,
    /// Whether its source asks that it gets no new sessions.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub draining: bool,
    /// Whether its source says that it can't serve now; it may well in a moment.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unready: bool,
}

/// What a source must not say of an instance.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MemberError {
    /// Of its address.
    #[error("{0:?} is no address; allowed: IP:PORT, [IPv6]:PORT or HOST:PORT, port 1 to 65535")]
    Address(String),
    /// Of its name.
    #[error("{0:?} is no name; allowed: 1 to 63 letters, digits and . _ - : [ ]")]
    Name(String),
    /// Of its weight.
    #[error("the weight {0} is too large; allowed: 0 to 1000")]
    Weight(u32),
}

impl Member {
    /// One that is named by its address, unless it has a name.
    pub fn new(
        name: Option<String>,
        address: String,
        weight: u32,
        draining: bool,
    ) -> Result<Self, MemberError> {
        if !is_address(&address) {
            return Err(MemberError::Address(address));
        }
        let name = name.unwrap_or_else(|| address.clone());
        if !is_name(&name) {
            return Err(MemberError::Name(name));
        }
        match weight {
            0..=1000 => Ok(Self { name, address, weight, draining, unready: false }),
            _ => Err(MemberError::Weight(weight)),
        }
    }

    fn instance(&self) -> Instance {
        Instance {
            name: self.name.clone(),
            weight: self.weight,
            state: if self.draining { State::Draining } else { State::Active },
            unready: self.unready,
            ..Instance::at(self.address.clone())
        }
    }
}

impl From<&Instance> for Member {
    fn from(instance: &Instance) -> Self {
        Self {
            name: instance.name.clone(),
            address: instance.address.clone(),
            weight: instance.weight,
            draining: instance.state == State::Draining,
            unready: instance.unready,
        }
    }
}

/// Why what a source says is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unbelieved {
    /// Fewer than are asked for.
    #[error("{told} instances, and discovery.minimum is {minimum}: those that are known stay")]
    TooFew {
        /// How many it names.
        told: usize,
        /// How many it must.
        minimum: u32,
    },
    /// Burdock itself is among them, which would let clients in by the back door.
    #[error("{0} is an address of Burdock's own: those that are known stay")]
    Itself(String),
    /// More than there is room for.
    #[error("{0} instances, and {MOST} is the most: those that are known stay")]
    TooMany(usize),
}

/// Every instance that was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found(BTreeMap<Whose, Vec<Member>>);

/// What was found, as it is written.
#[derive(Serialize, Deserialize)]
struct Document {
    format: u32,
    found: Vec<Row>,
}

#[derive(Serialize, Deserialize)]
struct Row {
    #[serde(flatten)]
    whose: Whose,
    instances: Vec<Member>,
}

/// Text that is not of this kind.
#[derive(Debug, thiserror::Error)]
pub enum FoundError {
    /// Not in the form.
    #[error("it is damaged: {0}")]
    Damaged(#[from] serde_json::Error),
    /// Another form.
    #[error("it has format {0}, and this version of Burdock reads format {FORMAT}")]
    Format(u32),
}

impl Found {
    /// Whether nothing was.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is known of a version; nothing before its source has ever been heard.
    pub fn of(&self, whose: &Whose) -> Option<&[Member]> {
        self.0.get(whose).map(Vec::as_slice)
    }

    /// Takes what a source says of a version as all there is. Tells whether that changes anything.
    /// Of two of one name or at one address the first in order counts.
    pub fn learn(
        &mut self,
        whose: &Whose,
        told: Vec<Member>,
        minimum: u32,
    ) -> Result<bool, Unbelieved> {
        if told.len() > MOST {
            return Err(Unbelieved::TooMany(told.len()));
        }
        let members = distinct(told);
        if members.len() < minimum as usize {
            return Err(Unbelieved::TooFew { told: members.len(), minimum });
        }
        if self.0.get(whose) == Some(&members) {
            return Ok(false);
        }
        self.0.insert(whose.clone(), members);
        Ok(true)
    }

    /// What is served by until a new source is heard: whoever serves already.
    pub fn seed(&mut self, whose: &Whose, instances: &[Instance]) {
        if !self.0.contains_key(whose) && !instances.is_empty() {
            self.0.insert(whose.clone(), instances.iter().map(Member::from).collect());
        }
    }

    /// Forgets what no version of this configuration asks for.
    pub fn prune(&mut self, config: &Config) {
        let wanted: HashSet<Whose> = asked(config).map(|(whose, _)| whose).collect();
        self.0.retain(|whose, _| wanted.contains(whose));
    }

    /// The configuration with this in it. What the file names itself counts as the file says.
    pub fn apply(&self, config: &Config) -> Config {
        let mut config = config.clone();
        let versions = config.services.iter_mut().flat_map(|service| {
            let name = &service.name;
            service.versions.iter_mut().map(move |version| (name, version))
        });
        for (service, version) in versions.filter(|(_, version)| version.discovery.is_some()) {
            let whose = Whose::of(service, &version.name);
            let Some(members) = self.0.get(&whose) else { continue };
            let names: HashSet<_> = version.instances.iter().map(|it| it.name.clone()).collect();
            let addresses: HashSet<_> =
                version.instances.iter().map(|it| it.address.clone()).collect();
            let is_new =
                |it: &&Member| !names.contains(&it.name) && !addresses.contains(&it.address);
            version.instances.extend(members.iter().filter(is_new).map(Member::instance));
        }
        config
    }

    /// As text, for a file.
    pub fn to_text(&self) -> String {
        let rows = self.0.iter().map(|(whose, instances)| {
            let (whose, instances) = (whose.clone(), instances.clone());
            Row { whose, instances }
        });
        let document = Document { format: FORMAT, found: rows.collect() };
        let mut text = serde_json::to_string_pretty(&document)
            .expect("maps with keys of text and without floats have a text");
        text.push('\n');
        text
    }

    /// From such text. What a source must not say is left out.
    pub fn from_text(text: &str) -> Result<Self, FoundError> {
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let Format { format } = serde_json::from_str(text)?;
        if format != FORMAT {
            return Err(FoundError::Format(format));
        }
        let Document { found, .. } = serde_json::from_str(text)?;
        let sane = |it: Member| {
            let member = Member::new(Some(it.name), it.address, it.weight, it.draining).ok()?;
            Some(Member { unready: it.unready, ..member })
        };
        let row = |row: Row| {
            let members = row.instances.into_iter().filter_map(sane).take(MOST).collect();
            (row.whose, distinct(members))
        };
        Ok(Self(found.into_iter().map(row).collect()))
    }
}

/// The versions of a configuration whose instances are to be found, and where.
pub fn asked(config: &Config) -> impl Iterator<Item = (Whose, &Discovery)> {
    config.services.iter().flat_map(|service| {
        service.versions.iter().filter_map(|version| {
            let discovery = version.discovery.as_ref()?;
            Some((Whose::of(&service.name, &version.name), discovery))
        })
    })
}

/// In order of name, so that the order in which a source tells means nothing.
fn distinct(mut members: Vec<Member>) -> Vec<Member> {
    members.sort();
    let (mut names, mut addresses) = (HashSet::new(), HashSet::new());
    members.retain(|it| {
        !names.contains(&it.name)
            && addresses.insert(it.address.clone())
            && names.insert(it.name.clone())
    });
    members
}
