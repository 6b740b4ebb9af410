//! Other weights of versions than those of the file.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Difference, END_OF_TIME, Overlay};
use crate::config::types::{Config, SHARE_UNIT, Service, Split};
use crate::config::units::format_share;

/// As in a configuration.
const HIGHEST: u32 = 10_000 * SHARE_UNIT;

/// What is wanted of the versions of a service instead of what the file says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shares {
    /// Weights by version, in ten-thousandths; a version that is not named has none.
    pub allocations: BTreeMap<String, u32>,
    /// When this was last changed.
    pub since: u64,
}

/// The same as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharesRow {
    /// Whose.
    pub service: String,
    /// What.
    #[serde(flatten)]
    pub wanted: Shares,
}

impl Shares {
    /// Whether the API could have been asked for this.
    pub fn is_sane(&self) -> bool {
        let mut weights = self.allocations.values();
        self.since < END_OF_TIME
            && weights.all(|weight| *weight <= HIGHEST)
            && self.allocations.values().any(|weight| *weight > 0)
    }
}

/// Weights as an operator writes them.
pub fn told(allocations: &BTreeMap<String, u32>) -> String {
    let told: Vec<_> = allocations
        .iter()
        .map(|(version, weight)| format!("{version}={}", format_share(*weight)))
        .collect();
    told.join(" ")
}

impl Overlay {
    /// What is wanted of the versions of a service.
    pub fn shares(&self, service: &str) -> Option<&Shares> {
        self.shares.get(service)
    }

    /// Wants this of them from now on; nothing is what the file says.
    pub fn set_shares(&mut self, service: String, wanted: Option<Shares>) {
        match wanted {
            Some(wanted) => drop(self.shares.insert(service, wanted)),
            None => drop(self.shares.remove(&service)),
        }
    }

    /// One row for each service.
    pub fn shares_rows(&self) -> impl Iterator<Item = SharesRow> {
        let row = |(service, wanted): (&String, &Shares)| SharesRow {
            service: service.clone(),
            wanted: wanted.clone(),
        };
        self.shares.iter().map(row)
    }

    /// Forgets versions that `config` has no more, and shares that are nobody's without them; gives a sentence
    /// on each. What is left of the others goes on: it may be what keeps a bad version from its clients.
    pub(super) fn prune_shares(&mut self, config: &Config) -> Vec<String> {
        let mut told = Vec::new();
        self.shares.retain(|name, wanted| {
            let Some((service, _)) = split_of(config, name) else {
                told.push(format!("the traffic split of {name}: the file has none any more"));
                return false;
            };
            wanted.allocations.retain(|version, _| {
                let is_known = service.version(version).is_some();
                if !is_known {
                    told.push(format!(
                        "the traffic split of {name}: the file has no version {version} any more"
                    ));
                }
                is_known
            });
            let has_weight = wanted.allocations.values().any(|weight| *weight > 0);
            if !has_weight {
                told.push(format!(
                    "the traffic split of {name}: no version is left that had a weight, and those of \
                     the file count"
                ));
            }
            has_weight
        });
        told
    }

    pub(super) fn shares_differences(&self, config: &Config, found: &mut Vec<Difference>) {
        let is_ramped = |name: &str| self.ramp(name).is_some_and(|ramp| ramp.stage.is_active());
        for (name, wanted) in self.shares.iter().filter(|(name, _)| !is_ramped(name)) {
            let file = split_of(config, name).map(|(_, split)| &split.allocations);
            if file != Some(&wanted.allocations) {
                found.push(Difference {
                    id: name.clone(),
                    what: "traffic_split",
                    file: file.map(self::told),
                    now: self::told(&wanted.allocations),
                    since: wanted.since,
                });
            }
        }
    }
}

fn split_of<'a>(config: &'a Config, name: &str) -> Option<(&'a Service, &'a Split)> {
    let service = config.services.iter().find(|service| service.name == name)?;
    Some((service, service.split.as_ref()?))
}
