//! Ramps: a version's share grows by steps, over whatever the shares are beneath.
//!
//! A ramp that is under way puts its own weights over those of the file and of the API, and takes them away when
//! it is rolled back; one that is over says only how it went, and how to go back. Read [`Ramp`] first.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Difference, END_OF_TIME, Overlay, Shares, told};
use crate::config::types::{Config, Recall, SHARE_UNIT, Service, Split};

/// All of it, in basis points.
pub const WHOLE: u32 = 10_000;
/// What the weights under a ramp come to: they read as per cent.
const SUM: u32 = 100 * SHARE_UNIT;
/// Between two steps at most: what a step has shown is judged by then.
const LONGEST_STEP: Duration = Duration::from_secs(60);
/// Steps of a ramp that is shorter than so many of those.
const FEWEST_STEPS: u32 = 10;
/// How long a ramp may take.
pub const OVER: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(7 * 24 * 3600));
/// Requests that are seen before anything is judged.
pub const MIN_REQUESTS: (u64, u64) = (1, 1_000_000);
/// Of the latencies, in basis points, the one that is judged.
pub const QUANTILE: (u32, u32) = (5000, 9990);
/// As many times the others' latency.
pub const TIMES: (u32, u32) = (101, 10_000);
/// The longest latency that can be a limit.
pub const SLOWEST: Duration = Duration::from_secs(60);
/// Characters of a reason that are kept.
const LONGEST_WHY: usize = 500;

/// Which latency is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Slow {
    /// As many hundredths of the other versions' in the same time.
    Times(u32),
    /// So many milliseconds.
    Millis(u64),
}

impl Slow {
    fn is_sane(self) -> bool {
        match self {
            Self::Times(hundredths) => (TIMES.0..=TIMES.1).contains(&hundredths),
            Self::Millis(millis) => (1..=SLOWEST.as_millis()).contains(&u128::from(millis)),
        }
    }
}

/// What holds a ramp, and what rolls it back; `None` is off. Shares are in basis points, and those of errors
/// are what the version has more of them than the others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// From this share of errors on it stays where it is.
    pub hold_errors: Option<u32>,
    /// From this one on it goes back.
    pub back_errors: Option<u32>,
    /// From this latency on it stays where it is.
    pub hold_latency: Option<Slow>,
    /// From this one on it goes back.
    pub back_latency: Option<Slow>,
    /// Which latency: so many of all are not longer.
    pub quantile: u32,
    /// Requests that must have been seen.
    pub min_requests: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            hold_errors: Some(200),
            back_errors: Some(500),
            hold_latency: None,
            back_latency: None,
            quantile: 9500,
            min_requests: 100,
        }
    }
}

/// From where to where, in what time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The share that it begins with, in basis points.
    pub from: u32,
    /// The share that it ends with.
    pub to: u32,
    /// How long that takes at the least, in milliseconds.
    pub over: u64,
    /// What it may not do.
    pub limits: Limits,
}

impl Plan {
    /// Whether the API could have been asked for this.
    pub fn is_sane(&self) -> bool {
        let Limits { hold_errors, back_errors, hold_latency, back_latency, quantile, min_requests } =
            self.limits;
        let over = OVER.0.as_millis()..=OVER.1.as_millis();
        let mut shares = [hold_errors, back_errors].into_iter().flatten();
        let mut latencies = [hold_latency, back_latency].into_iter().flatten();
        (1..self.to).contains(&self.from)
            && self.to <= WHOLE
            && over.contains(&u128::from(self.over))
            && shares.all(|share| (1..=WHOLE).contains(&share))
            && latencies.all(Slow::is_sane)
            && (QUANTILE.0..=QUANTILE.1).contains(&quantile)
            && (MIN_REQUESTS.0..=MIN_REQUESTS.1).contains(&min_requests)
    }

    /// How long it stays at a share at the least.
    pub fn interval(&self) -> Duration {
        (Duration::from_millis(self.over) / FEWEST_STEPS).min(LONGEST_STEP)
    }

    /// Steps from the first share to the last.
    pub fn steps(&self) -> u32 {
        let interval = self.interval().as_millis().max(1);
        u32::try_from(u128::from(self.over).div_ceil(interval)).unwrap_or(u32::MAX).max(1)
    }

    /// The share after so many steps, in basis points.
    pub fn share(&self, step: u32) -> u32 {
        let steps = self.steps();
        let grown = u64::from(self.to - self.from) * u64::from(step.min(steps)) / u64::from(steps);
        self.from + u32::try_from(grown).unwrap_or_default()
    }
}

/// How a ramp stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// It goes on.
    Running,
    /// The operator keeps it where it is.
    Paused,
    /// It has come to its end, and what it ended with are the weights.
    Done,
    /// The operator has ended it, and what it had come to are the weights.
    Cancelled,
    /// The weights are those from before.
    RolledBack,
}

impl Stage {
    /// Whether it has a say in the weights.
    pub const fn is_active(self) -> bool {
        matches!(self, Self::Running | Self::Paused)
    }

    /// The word in the API.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Done => "done",
            Self::Cancelled => "cancelled",
            Self::RolledBack => "rolled_back",
        }
    }
}

/// A ramp of a service, under way or the last one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ramp {
    /// Of this version.
    pub version: String,
    /// Where to.
    pub plan: Plan,
    /// Steps made.
    pub step: u32,
    /// How it stands.
    pub stage: Stage,
    /// Why, where there is a reason.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// The weights before it.
    pub before: BTreeMap<String, u32>,
    /// The same as the API had them; nothing where they were the file's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shares: Option<Shares>,
    /// When it began, in milliseconds since the Unix epoch.
    pub since: u64,
    /// When it came to stand as it does.
    pub changed: u64,
}

/// The same as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RampRow {
    /// Whose.
    pub service: String,
    /// What.
    #[serde(flatten)]
    pub ramp: Ramp,
}

impl Ramp {
    /// The share that it has come to, in basis points.
    pub fn share(&self) -> u32 {
        self.plan.share(self.step)
    }

    /// Whether the API could have led to this.
    pub fn is_sane(&self) -> bool {
        self.plan.is_sane()
            && self.step <= self.plan.steps()
            && self.since < END_OF_TIME
            && self.changed < END_OF_TIME
            && self.why.chars().count() <= LONGEST_WHY
            && self.shares.as_ref().is_none_or(Shares::is_sane)
    }

    /// It stands otherwise from `now` on.
    pub fn turn(&mut self, stage: Stage, why: &str, now: u64) {
        self.stage = stage;
        self.why = why.chars().take(LONGEST_WHY).collect();
        self.changed = now;
    }

    /// Does to a split what it says.
    fn put_over(&self, split: &mut Split) {
        if self.stage.is_active() {
            if let Some(weights) = weights(&split.allocations, &self.version, self.share()) {
                split.allocations = weights;
            }
        } else if self.stage == Stage::RolledBack && split.allocations == self.before {
            // Clocks may have been set meanwhile.
            let [one, other] = [self.since, self.changed].map(|millis| millis / 1000);
            let issued = (one.min(other), one.max(other));
            split.recall = Some(Recall { version: self.version.clone(), issued });
        }
    }
}

/// Weights of which `version` has this share, in basis points, and the others the rest in the proportion that
/// they have to each other; nothing if no other has any.
pub fn weights(
    beneath: &BTreeMap<String, u32>,
    version: &str,
    share: u32,
) -> Option<BTreeMap<String, u32>> {
    let own = SUM / WHOLE * share.min(WHOLE);
    let others: u64 =
        beneath.iter().filter(|(name, _)| *name != version).map(|(_, it)| u64::from(*it)).sum();
    if others == 0 {
        return None;
    }
    let scaled = |weight: u32| {
        let part = (u64::from(weight) * u64::from(SUM - own) + others / 2) / others;
        u32::try_from(part).unwrap_or(SUM)
    };
    let mut weights: BTreeMap<_, _> =
        beneath.iter().map(|(name, weight)| (name.clone(), scaled(*weight))).collect();
    weights.insert(version.to_owned(), own);
    Some(weights)
}

impl Overlay {
    /// The ramp of a service, under way or the last one.
    pub fn ramp(&self, service: &str) -> Option<&Ramp> {
        self.ramps.get(service)
    }

    /// Every ramp, with its service.
    pub fn ramps(&self) -> impl Iterator<Item = (&str, &Ramp)> {
        self.ramps.iter().map(|(service, ramp)| (service.as_str(), ramp))
    }

    /// Has a ramp stand so.
    pub fn set_ramp(&mut self, service: String, ramp: Ramp) {
        self.ramps.insert(service, ramp);
    }

    /// Remembers nothing of it any more.
    pub fn forget_ramp(&mut self, service: &str) {
        self.ramps.remove(service);
    }

    /// Nothing but these: they are each balancer's own, whatever a fleet wants besides.
    #[must_use]
    pub fn ramps_alone(&self) -> Self {
        Self { ramps: self.ramps.clone(), ..Self::default() }
    }

    /// One row for each.
    pub fn ramp_rows(&self) -> impl Iterator<Item = RampRow> {
        self.ramps()
            .map(|(service, ramp)| RampRow { service: service.to_owned(), ramp: ramp.clone() })
    }

    /// What it has under way in this service.
    pub(super) fn ramp_over(&self, service: &str, split: &mut Split) {
        if let Some(ramp) = self.ramps.get(service) {
            ramp.put_over(split);
        }
    }

    /// Forgets what `config` leaves no place for; gives a sentence on each that was under way.
    pub(super) fn prune_ramps(&mut self, config: &Config) -> Vec<String> {
        let (mut told, shares) = (Vec::new(), &self.shares);
        self.ramps.retain(|name, ramp| {
            let over = shares.get(name).map(|shares| &shares.allocations);
            let Some(why) = objection(config, (name, over), &ramp.version) else { return true };
            if ramp.stage.is_active() {
                told.push(format!("the ramp of {name}/{}: {why}", ramp.version));
            }
            false
        });
        told
    }

    /// What a ramp that is under way makes of the shares.
    pub(super) fn ramp_differences(&self, config: &Config, found: &mut Vec<Difference>) {
        for (name, ramp) in self.ramps().filter(|(_, ramp)| ramp.stage.is_active()) {
            let service = config.services.iter().find(|service| service.name == name);
            let Some(split) = service.and_then(|service| service.split.as_ref()) else { continue };
            let beneath = self.shares(name).map_or(&split.allocations, |it| &it.allocations);
            let Some(now) = weights(beneath, &ramp.version, ramp.share()) else { continue };
            found.push(Difference {
                id: name.to_owned(),
                what: "traffic_split",
                file: Some(told(&split.allocations)),
                now: told(&now),
                since: ramp.changed,
            });
        }
    }
}

/// Why there can be no ramp of this version over the file, with other shares over it if there are.
fn objection(
    config: &Config,
    (name, over): (&str, Option<&BTreeMap<String, u32>>),
    version: &str,
) -> Option<String> {
    let service = config.services.iter().find(|service| service.name == name);
    let Some(service) = service else {
        return Some("the file has no such service any more".into());
    };
    let Some(split) = &service.split else {
        return Some("the file has no traffic_split there any more".into());
    };
    if service.version(version).is_none() {
        return Some(format!("the file has no version {version} any more"));
    }
    let beneath = over.unwrap_or(&split.allocations);
    let has_others = |it: &Service| {
        beneath
            .iter()
            .any(|(name, weight)| name != version && *weight > 0 && it.version(name).is_some())
    };
    (!has_others(service)).then(|| format!("no other version than {version} has a weight any more"))
}

#[cfg(test)]
mod tests;
