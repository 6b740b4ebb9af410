//! A fault that a drill injects, and what it makes of instances. Undoing is no step of its own: an instance
//! is what the faults that are left make of it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::config::types::State;
use crate::health::Health;
use crate::instance::disturbance::{Disturbance, Effect};
use crate::instance::{Departure, Instance};

/// What kind of fault it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Instances count as unready or dead.
    Eject,
    /// They are drained.
    Drain,
    /// They are disabled.
    Disable,
    /// Requests reach them later.
    Delay,
    /// Requests are answered in their place.
    Abort,
}

impl Kind {
    /// Every kind, in the order of the metric's rows.
    pub const ALL: [Self; 5] = [Self::Eject, Self::Drain, Self::Disable, Self::Delay, Self::Abort];

    /// The word in the API, the log and the metric.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Eject => "eject",
            Self::Drain => "drain",
            Self::Disable => "disable",
            Self::Delay => "delay",
            Self::Abort => "abort",
        }
    }
}

/// What a fault does.
#[derive(Debug, Clone)]
pub enum Deed {
    /// Instances count as this.
    Eject(Health),
    /// They are drained, for so long.
    Drain(Option<Duration>),
    /// They are disabled.
    Disable,
    /// This is done to requests.
    Disturb(Arc<Disturbance>),
}

impl Deed {
    /// What kind of fault it is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Eject(_) => Kind::Eject,
            Self::Drain(_) => Kind::Drain,
            Self::Disable => Kind::Disable,
            Self::Disturb(disturbance) => match disturbance.effect {
                Effect::Delay(_) => Kind::Delay,
                Effect::Abort(_) => Kind::Abort,
            },
        }
    }

    /// The rest of what is said of it.
    pub fn detail(&self) -> String {
        match self {
            Self::Eject(health) => format!("as {}", health.label()),
            Self::Drain(None) | Self::Disable => String::new(),
            Self::Drain(Some(timeout)) => {
                format!("within {}", humantime::format_duration(*timeout))
            }
            Self::Disturb(it) => {
                let what = match it.effect {
                    Effect::Delay(by) => format!("by {}", humantime::format_duration(by)),
                    Effect::Abort(status) => format!("with {}", status.as_u16()),
                };
                let share = match it.share {
                    10_000 => String::new(),
                    share => format!(" for {}%", f64::from(share) / 100.0),
                };
                let mark = it.mark.as_ref().map(|mark| format!(" where {} says so", mark.name));
                format!("{what}{share}{}", mark.unwrap_or_default())
            }
        }
    }
}

/// A fault that is there now.
#[derive(Debug)]
pub struct Fault {
    /// Of its drill.
    pub number: u64,
    /// What it does.
    pub deed: Deed,
    /// To whom. Those of whom the operator wants something else are left out from then on.
    pub instances: Vec<Arc<Instance>>,
    /// Since when.
    pub began: SystemTime,
}

impl Fault {
    /// The names of those whom it hits.
    pub fn names(&self) -> Vec<String> {
        self.instances.iter().map(id).collect()
    }
}

/// What is done to each instance, by its address: the faults keep it alive. The guard asks of every
/// instance at every look, so that to search all faults for each would be too much.
#[derive(Debug, Default)]
pub(super) struct Hits(HashMap<usize, Vec<Deed>>);

impl Hits {
    pub(super) fn of<'a>(faults: impl IntoIterator<Item = &'a Fault>) -> Self {
        let mut hits = Self::default();
        for fault in faults {
            for instance in &fault.instances {
                let deeds = hits.0.entry(Arc::as_ptr(instance).addr()).or_default();
                deeds.push(fault.deed.clone());
            }
        }
        hits
    }

    /// What is done to this one, in the order in which it came.
    pub(super) fn on(&self, instance: &Arc<Instance>) -> &[Deed] {
        self.0.get(&Arc::as_ptr(instance).addr()).map_or(&[], Vec::as_slice)
    }
}

/// As the API writes an instance.
pub fn id(instance: &Arc<Instance>) -> String {
    let it = instance.identity();
    format!("{}/{}/{}", it.service, it.version, it.name)
}

/// Makes an instance what these deeds make of it, and nothing else that a drill made of it before. Gives
/// the drain that begins, if one does.
pub(super) fn settle(instance: &Arc<Instance>, deeds: &[Deed], why: &str) -> Option<Departure> {
    let (mut health, mut state, mut timeout) = (None, State::Active, None);
    let mut disturbances = Vec::new();
    for deed in deeds {
        match deed {
            Deed::Eject(Health::Dead) => health = Some(Health::Dead),
            Deed::Eject(other) => health = health.or(Some(*other)),
            Deed::Drain(within) => (state, timeout) = (state.max(State::Draining), *within),
            Deed::Disable => state = State::Disabled,
            Deed::Disturb(disturbance) => disturbances.push(Arc::clone(disturbance)),
        }
    }
    instance.disturb(disturbances);
    instance.count_as(health, why);
    instance.rehearse(state, timeout)
}
