//! What happens when and to whom: a scenario and a seed, laid out before anything begins. Pure, so
//! that the same seed injects the same faults at the same times.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::scenario::{Action, Fault, Scenario, Step, Strike, Upset, Which, Who};
use crate::config::types::{Config, State};

/// An instance, as the balancer names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(super) struct Id {
    pub(super) service: String,
    pub(super) version: String,
    pub(super) name: String,
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}/{}", self.service, self.version, self.name)
    }
}

/// The instances of a configuration.
pub(super) fn cast(config: &Config) -> Vec<Id> {
    let of = |service: &'_ crate::config::types::Service| {
        let mut ids = Vec::new();
        for version in &service.versions {
            ids.extend(version.instances.iter().map(|instance| Id {
                service: service.name.clone(),
                version: version.name.clone(),
                name: instance.name.clone(),
            }));
        }
        ids
    };
    config.services.iter().flat_map(of).collect()
}

/// Something that is done at a time.
#[derive(Debug, Clone)]
pub(super) struct Act {
    pub(super) at: Duration,
    pub(super) what: What,
}

/// What is done, and to whom.
#[derive(Debug, Clone)]
pub(super) enum What {
    Begin(Vec<Id>, Fault),
    End(Vec<Id>, Fault),
    Restore(Vec<Id>),
    Admin(Vec<Id>, State),
    Reload(Arc<Config>),
    Upset(Upset, Option<Duration>),
    /// A command; `begins` says that it does something to these, and not that it undoes that.
    Exec {
        run: Vec<String>,
        who: Vec<Id>,
        begins: bool,
    },
    /// A fault on a running balancer.
    Strike(Vec<Id>, Strike),
    /// Its end.
    Lift(Vec<Id>, Strike),
}

/// What instances suffer from a command.
pub(super) const EXEC: &str = "exec";

/// The whole drill.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    /// In the order of time.
    pub(super) acts: Vec<Act>,
    /// From when to when the limits of each step look, in the order of the scenario's steps.
    pub(super) windows: Vec<(Duration, Duration)>,
    /// To whom each step does something.
    pub(super) targets: Vec<Vec<Id>>,
    /// Commands that undo what has no end of its own.
    pub(super) undo: Vec<Vec<String>>,
}

/// A step that cannot be carried out.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Impossible {
    pub(super) line: usize,
    pub(super) message: String,
}

/// Lays out a scenario over the instances that are there at the beginning, of which some are `unfit`: they
/// are hit only if they are named.
pub(super) fn plan(scenario: &Scenario, cast: Vec<Id>, unfit: Vec<Id>) -> Result<Plan, Impossible> {
    let mut planner = Planner {
        rng: fastrand::Rng::with_seed(scenario.seed),
        cast,
        faulty: unfit.into_iter().map(|id| (id, None)).collect(),
        turns: vec![0; scenario.steps.len()],
        plan: Plan {
            acts: Vec::new(),
            windows: windows(scenario),
            targets: vec![Vec::new(); scenario.steps.len()],
            undo: Vec::new(),
        },
    };
    let mut occasions = Vec::new();
    for (index, step) in scenario.steps.iter().enumerate() {
        let (every, times) = step.repeat.map_or((Duration::ZERO, 1), |r| (r.every, r.times));
        for turn in 0..times {
            let at = step.at + every * turn;
            if at < scenario.duration {
                occasions.push((at, index));
            }
        }
    }
    occasions.sort();
    for (at, index) in occasions {
        planner.occur(at, index, &scenario.steps[index])?;
    }
    // What ends something comes before what begins something at the same time.
    let ends = |act: &Act| matches!(act.what, What::End(..) | What::Lift(..));
    planner.plan.acts.sort_by_key(|act| (act.at, !ends(act)));
    planner.plan.acts.retain(|act| act.at < scenario.duration);
    Ok(planner.plan)
}

/// Each step is looked at until the next one begins, unless it says otherwise.
fn windows(scenario: &Scenario) -> Vec<(Duration, Duration)> {
    let window = |step: &Step| {
        let repeated = step.repeat.map_or(Duration::ZERO, |r| r.every * r.times);
        let next = scenario.steps.iter().map(|other| other.at).find(|at| *at > step.at);
        let until = match step.until {
            Some(until) => step.at + until,
            None => next.unwrap_or(scenario.duration).max(step.at + repeated),
        };
        (step.at, until.min(scenario.duration))
    };
    scenario.steps.iter().map(window).collect()
}

struct Planner {
    rng: fastrand::Rng,
    cast: Vec<Id>,
    /// Who has a fault, and until when.
    faulty: Vec<(Id, Option<Duration>)>,
    /// How often each step has happened.
    turns: Vec<usize>,
    plan: Plan,
}

impl Planner {
    fn occur(&mut self, at: Duration, index: usize, step: &Step) -> Result<(), Impossible> {
        self.faulty.retain(|(_, until)| until.is_none_or(|until| until > at));
        let until = step.lasts.map(|lasts| at + lasts);
        let turn = self.turns[index];
        self.turns[index] += 1;
        let what = match &step.action {
            Action::Watch => return Ok(()),
            Action::Fault(who, fault) => {
                let who = self.choose(who, turn, step)?;
                if !fault.is_instant() {
                    self.faulty.extend(who.iter().map(|id| (id.clone(), until)));
                    self.end(until, What::End(who.clone(), *fault));
                }
                What::Begin(who, *fault)
            }
            Action::Restore(who) => {
                let who = self.choose(who, turn, step)?;
                self.faulty.retain(|(id, _)| !who.contains(id));
                What::Restore(who)
            }
            Action::Admin(who, state) => {
                let who = self.choose(who, turn, step)?;
                self.end(until, What::Admin(who.clone(), State::Active));
                What::Admin(who, *state)
            }
            Action::Reload(config) => {
                self.cast = cast(config);
                What::Reload(Arc::clone(config))
            }
            Action::Balancer(upset) => What::Upset(*upset, step.lasts),
            Action::Exec { run, undo, who } => {
                let who = who.as_ref().map(|who| self.choose(who, turn, step)).transpose()?;
                let who = who.unwrap_or_default();
                match until {
                    _ if undo.is_empty() => {}
                    Some(_) => {
                        let (run, who) = (undo.clone(), who.clone());
                        self.end(until, What::Exec { run, who, begins: false });
                    }
                    None => self.plan.undo.push(undo.clone()),
                }
                What::Exec { run: run.clone(), who, begins: true }
            }
            Action::Strike(who, strike) => {
                let who = self.choose(who, turn, step)?;
                self.faulty.extend(who.iter().map(|id| (id.clone(), until)));
                self.end(until, What::Lift(who.clone(), strike.clone()));
                What::Strike(who, strike.clone())
            }
        };
        if let What::Begin(who, _)
        | What::Restore(who)
        | What::Admin(who, _)
        | What::Strike(who, _)
        | What::Exec { who, .. } = &what
        {
            let targets = &mut self.plan.targets[index];
            targets
                .extend(who.iter().filter(|id| !targets.contains(id)).cloned().collect::<Vec<_>>());
        }
        self.plan.acts.push(Act { at, what });
        Ok(())
    }

    fn end(&mut self, at: Option<Duration>, what: What) {
        self.plan.acts.extend(at.map(|at| Act { at, what }));
    }

    fn choose(&mut self, who: &Who, turn: usize, step: &Step) -> Result<Vec<Id>, Impossible> {
        let impossible = |message| Err(Impossible { line: step.line, message });
        let mut versions: Vec<_> =
            self.cast.iter().map(|id| (id.service.clone(), id.version.clone())).collect();
        versions.dedup();
        let names = || {
            let names: Vec<_> = versions.iter().map(|(s, v)| format!("{s}/{v}")).collect();
            names.join(", ")
        };
        let of = match &who.of {
            Some(of) if versions.contains(of) => of.clone(),
            Some((s, v)) => {
                return impossible(format!("no version {s}/{v}; there are {}", names()));
            }
            None if versions.len() == 1 => versions[0].clone(),
            None => return impossible(format!("of which version? there are {}", names())),
        };
        let is_of = |id: &&Id| (&id.service, &id.version) == (&of.0, &of.1);
        let all: Vec<Id> = self.cast.iter().filter(is_of).cloned().collect();
        let is_well = |id: &&Id| self.faulty.iter().all(|(other, _)| other != *id);
        let count = match &who.which {
            Which::All => return Ok(all),
            Which::Next => return Ok(vec![all[turn % all.len()].clone()]),
            Which::Named(names) => {
                let unknown = names.iter().find(|name| all.iter().all(|id| id.name != **name));
                if let Some(name) = unknown {
                    let known: Vec<_> = all.iter().map(|id| &*id.name).collect();
                    let known = known.join(", ");
                    return impossible(format!("no instance {name:?} by then; there are {known}"));
                }
                return Ok(all.into_iter().filter(|id| names.contains(&id.name)).collect());
            }
            Which::Any(count) => usize::try_from(*count).unwrap_or(usize::MAX),
            Which::Half => all.len().div_ceil(2),
        };
        let mut well: Vec<Id> = all.iter().filter(is_well).cloned().collect();
        if well.len() < count {
            let message = format!("{count} wanted, and {} are without a fault by then", well.len());
            return impossible(message);
        }
        self.rng.shuffle(&mut well);
        well.truncate(count);
        well.sort();
        Ok(well)
    }
}
