//! Everything that happens to a balancer as a whole or to its instances: what an operator would ask
//! for after a bad night. Requests are not among it, nor anything that clients can cause at will.
//!
//! An event holds facts; its words are made when somebody reads it. No event holds a secret: neither
//! tokens nor keys, nor what a client sent.

mod kinds;

use serde_json::{Value, json};

use crate::health::Health;
use crate::health::breaker::Trigger;
use crate::observe::counters::TunnelEnd;

pub use crate::observe::drill_stage::DrillStage;
pub use crate::observe::ramp_stage::RampStage;
pub use kinds::{Kind, Severity};

/// The most names, problems or changes that one event lists.
const LISTED: usize = 20;
/// The most characters that an instance or a file can add to the words of an event.
const LONGEST: usize = 500;

/// A version, or an instance of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whose {
    /// The service.
    pub service: String,
    /// The version.
    pub version: String,
    /// The instance, unless it is about the version.
    pub instance: Option<String>,
}

impl Whose {
    fn id(&self) -> Option<String> {
        let instance = self.instance.as_ref()?;
        Some(format!("{}/{}/{instance}", self.service, self.version))
    }

    /// The shortest name that tells it.
    fn name(&self) -> String {
        match &self.instance {
            Some(instance) => instance.clone(),
            None => format!("{}/{}", self.service, self.version),
        }
    }
}

/// What an instance's breaker did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerChange {
    /// It refuses, for this cause and so many seconds.
    Opened(Trigger, u64),
    /// `max_ejected` kept it from opening.
    Held,
    /// Trials begin.
    HalfOpen,
    /// It passes.
    Closed,
}

/// What became of a drain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DrainStage {
    /// It ends in so many seconds at the latest.
    Began(u64),
    /// It is over.
    Ended,
    /// The instance takes new sessions again.
    CalledOff,
}

/// What became of an upgrade.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpgradeStage {
    /// Another process is started.
    Began,
    /// That process serves.
    TakenOver(u32),
    /// It doesn't, for this reason.
    Failed(String),
}

/// What became of the fleet's etcd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FleetStage {
    /// It is heard, for the first time or again.
    Heard,
    /// It is not heard, for this reason.
    Lost(String),
}

/// Something that has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// An instance's health changed.
    Health {
        /// Of what.
        whose: Whose,
        /// What it was.
        from: Health,
        /// What it is.
        to: Health,
        /// What the check said.
        reason: String,
    },
    /// An instance's breaker changed.
    Breaker(Whose, BreakerChange),
    /// An instance is drained, disabled or removed, as the word says.
    Drain(Whose, &'static str, DrainStage),
    /// The process stops: so many connections and tunnels are open.
    Stopping {
        /// Client connections.
        connections: u64,
        /// Tunnels.
        tunnels: usize,
    },
    /// A configuration was taken over.
    Reloaded {
        /// Its number.
        generation: u64,
        /// What it changed.
        changes: Vec<String>,
    },
    /// A configuration was rejected.
    Rejected {
        /// Why.
        problems: Vec<String>,
    },
    /// Instances of a version that are new, or no longer named.
    Instances {
        /// Of what; names the instance if it is only one.
        whose: Whose,
        /// Whether they are new.
        added: bool,
        /// Which.
        names: Vec<String>,
    },
    /// Unready instances of a version serve from now on, or no longer.
    Panic {
        /// Of what.
        whose: Whose,
        /// Whether they do.
        is_on: bool,
        /// Ready instances.
        ready: usize,
        /// Instances that have a verdict.
        instances: usize,
    },
    /// An instance says that it is in another life.
    Restart {
        /// Which.
        whose: Whose,
        /// What it called the one before.
        from: String,
        /// What it calls this one.
        to: String,
    },
    /// Another process is to take over.
    Upgrade(UpgradeStage),
    /// The fleet is heard, or not.
    Fleet(FleetStage),
    /// A drill of this name.
    Drill(String, DrillStage),
    /// The versions of a service have other shares.
    Split {
        /// The service.
        service: String,
        /// What they were.
        from: String,
        /// What they are.
        to: String,
        /// Why.
        why: String,
    },
    /// A ramp of a version.
    Ramp(Whose, RampStage),
    /// Burdock has closed so many tunnels of a version, a moment ago.
    Tunnels(Whose, TunnelEnd, u64),
    /// A classic mistake shows in a version, or no longer.
    Doctor {
        /// Which.
        whose: Whose,
        /// A word for it.
        code: &'static str,
        /// Whether it shows.
        raised: bool,
        /// What it is; names the version.
        message: String,
        /// The line of the configuration that cures it.
        cure: String,
    },
    /// Something is not as it should be.
    Warning {
        /// A word for it.
        code: &'static str,
        /// Of what, if it is of one.
        whose: Option<Whose>,
        /// What it is.
        message: String,
        /// What would cure it, if that is known.
        cure: Option<String>,
    },
}

impl Event {
    /// What it is about.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Health { .. } => Kind::Health,
            Self::Breaker(..) => Kind::Breaker,
            Self::Drain(..) | Self::Stopping { .. } => Kind::Drain,
            Self::Reloaded { .. } | Self::Rejected { .. } => Kind::Reload,
            Self::Instances { .. } => Kind::Instance,
            Self::Panic { .. } => Kind::Panic,
            Self::Restart { .. } => Kind::Restart,
            Self::Upgrade(_) => Kind::Upgrade,
            Self::Fleet(_) => Kind::Fleet,
            Self::Split { .. } => Kind::Split,
            Self::Ramp(..) => Kind::Ramp,
            Self::Tunnels(..) => Kind::Tunnels,
            Self::Doctor { .. } => Kind::Doctor,
            Self::Drill(..) => Kind::Drill,
            Self::Warning { .. } => Kind::Warning,
        }
    }

    /// How much it matters.
    pub const fn severity(&self) -> Severity {
        match self {
            Self::Health { to: Health::Dead, .. }
            | Self::Rejected { .. }
            | Self::Panic { is_on: true, .. }
            | Self::Upgrade(UpgradeStage::Failed(_))
            | Self::Ramp(_, RampStage::RolledBack { by_itself: true, .. }) => Severity::Error,
            Self::Health { to: Health::Unready | Health::Unanswered, .. }
            | Self::Breaker(_, BreakerChange::Opened(..) | BreakerChange::Held)
            | Self::Restart { .. }
            | Self::Fleet(FleetStage::Lost(_))
            | Self::Doctor { raised: true, .. }
            | Self::Ramp(_, RampStage::Held { .. } | RampStage::Forgotten { .. })
            | Self::Drill(_, DrillStage::Injected { .. } | DrillStage::Aborted { .. })
            | Self::Warning { .. } => Severity::Warning,
            Self::Health { to: Health::Unknown | Health::Ready, .. }
            | Self::Breaker(_, BreakerChange::HalfOpen | BreakerChange::Closed)
            | Self::Drain(..)
            | Self::Stopping { .. }
            | Self::Reloaded { .. }
            | Self::Instances { .. }
            | Self::Panic { is_on: false, .. }
            | Self::Doctor { raised: false, .. }
            | Self::Fleet(FleetStage::Heard)
            | Self::Upgrade(UpgradeStage::Began | UpgradeStage::TakenOver(_))
            | Self::Drill(
                _,
                DrillStage::Began { .. } | DrillStage::Undone { .. } | DrillStage::Ended { .. },
            )
            | Self::Split { .. }
            | Self::Ramp(..)
            | Self::Tunnels(..) => Severity::Info,
        }
    }

    /// What it happened to, if that is one version or instance.
    pub const fn whose(&self) -> Option<&Whose> {
        match self {
            Self::Health { whose, .. }
            | Self::Breaker(whose, _)
            | Self::Drain(whose, ..)
            | Self::Instances { whose, .. }
            | Self::Panic { whose, .. }
            | Self::Restart { whose, .. }
            | Self::Doctor { whose, .. }
            | Self::Ramp(whose, _)
            | Self::Tunnels(whose, ..) => Some(whose),
            Self::Warning { whose, .. } => whose.as_ref(),
            Self::Stopping { .. }
            | Self::Reloaded { .. }
            | Self::Rejected { .. }
            | Self::Drill(..)
            | Self::Fleet(_)
            | Self::Split { .. }
            | Self::Upgrade(_) => None,
        }
    }

    /// The id of the instance that it happened to.
    pub fn instance(&self) -> Option<String> {
        self.whose().and_then(Whose::id)
    }

    /// All of it in one line.
    pub fn text(&self) -> String {
        let name = self.whose().map(Whose::name).unwrap_or_default();
        let text = match self {
            Self::Health { to, reason, .. } => format!("{name} is {}: {reason}", to.label()),
            Self::Breaker(_, change) => breaker_text(&name, *change),
            Self::Drain(_, word, stage) => drain_text(&name, word, *stage),
            Self::Stopping { connections, tunnels } => {
                format!("stopping; {connections} connections and {tunnels} tunnels are open")
            }
            Self::Reloaded { generation, changes } => {
                format!("configuration {generation} taken over: {}", listed(changes, "; "))
            }
            Self::Rejected { problems } => {
                format!("configuration rejected: {}", listed(problems, "; "))
            }
            Self::Instances { added, names, .. } => {
                let verb = if *added { "added" } else { "removed" };
                match names.len() {
                    1 => format!("{name} {verb}"),
                    all => format!("{all} instances of {name} {verb}: {}", listed(names, ", ")),
                }
            }
            Self::Panic { is_on: true, ready, instances, .. } => {
                format!("{ready} of {instances} instances of {name} are ready: unready ones serve")
            }
            Self::Panic { is_on: false, .. } => {
                format!("enough instances of {name} are ready again")
            }
            Self::Restart { from, to, .. } => format!("{name} has restarted: {from} is {to} now"),
            Self::Upgrade(UpgradeStage::Began) => "another process is started".to_owned(),
            Self::Upgrade(UpgradeStage::TakenOver(process)) => {
                format!("process {process} has taken over")
            }
            Self::Upgrade(UpgradeStage::Failed(error)) => format!("the upgrade failed: {error}"),
            Self::Fleet(FleetStage::Heard) => "the fleet is heard".to_owned(),
            Self::Fleet(FleetStage::Lost(why)) => {
                format!("the fleet is not heard, and all goes on as it is: {}", cut(why))
            }
            Self::Split { service, from, to, why } => {
                format!("traffic split of {service}: {from} -> {to}: {why}")
            }
            Self::Ramp(_, stage) => stage.text(&name),
            Self::Tunnels(_, end, closed) => {
                format!("{closed} tunnels of {name} closed: {}", end.label())
            }
            Self::Doctor { raised: true, message, cure, .. } => {
                format!("{message}; cure: {cure}")
            }
            Self::Doctor { raised: false, code, .. } => format!("{name}: {code} is no longer so"),
            Self::Drill(name, stage) => stage.text(name),
            Self::Warning { message, whose: Some(_), .. } => format!("{name}: {message}"),
            Self::Warning { message, whose: None, .. } => message.clone(),
        };
        text.chars().take(LONGEST * 4).collect()
    }

    /// The facts, by name.
    pub fn fields(&self) -> Value {
        let mut fields = match self {
            Self::Health { from, to, reason, .. } => {
                json!({ "from": from.label(), "to": to.label(), "reason": cut(reason) })
            }
            Self::Breaker(_, BreakerChange::Opened(trigger, seconds)) => {
                json!({ "to": "open", "cause": trigger.label(), "open_seconds": seconds })
            }
            Self::Breaker(_, BreakerChange::Held) => json!({ "to": "closed", "held": true }),
            Self::Breaker(_, BreakerChange::HalfOpen) => json!({ "to": "half-open" }),
            Self::Breaker(_, BreakerChange::Closed) => json!({ "to": "closed" }),
            Self::Drain(_, cause, DrainStage::Began(seconds)) => {
                json!({ "cause": cause, "stage": "began", "deadline_seconds": seconds })
            }
            Self::Drain(_, cause, DrainStage::Ended) => json!({ "cause": cause, "stage": "ended" }),
            Self::Drain(_, cause, DrainStage::CalledOff) => {
                json!({ "cause": cause, "stage": "called_off" })
            }
            Self::Stopping { connections, tunnels } => {
                json!({ "cause": "shutdown", "connections": connections, "tunnels": tunnels })
            }
            Self::Reloaded { generation, changes } => {
                json!({ "ok": true, "generation": generation, "changes": few(changes) })
            }
            Self::Rejected { problems } => {
                json!({ "ok": false, "problems": few(problems), "count": problems.len() })
            }
            Self::Instances { added, names, .. } => {
                json!({ "added": added, "names": few(names), "count": names.len() })
            }
            Self::Panic { is_on, ready, instances, .. } => {
                json!({ "on": is_on, "ready": ready, "instances": instances })
            }
            Self::Restart { from, to, .. } => json!({ "from": cut(from), "to": cut(to) }),
            Self::Fleet(FleetStage::Heard) => json!({ "stage": "heard" }),
            Self::Fleet(FleetStage::Lost(why)) => json!({ "stage": "lost", "reason": cut(why) }),
            Self::Upgrade(UpgradeStage::Began) => json!({ "stage": "began" }),
            Self::Upgrade(UpgradeStage::TakenOver(process)) => {
                json!({ "stage": "taken_over", "process": process })
            }
            Self::Upgrade(UpgradeStage::Failed(error)) => {
                json!({ "stage": "failed", "error": cut(error) })
            }
            Self::Split { service, from, to, why } => {
                json!({ "service": service, "from": from, "to": to, "reason": cut(why) })
            }
            Self::Ramp(_, stage) => stage.fields(),
            Self::Tunnels(_, end, closed) => json!({ "cause": end.label(), "closed": closed }),
            Self::Doctor { code, raised, message, cure, .. } => {
                json!({ "code": code, "raised": raised, "message": cut(message), "cure": cut(cure) })
            }
            Self::Drill(name, stage) => stage.fields(name),
            Self::Warning { code, message, cure, .. } => {
                json!({ "code": code, "message": cut(message), "cure": cure })
            }
        };
        if let Some(whose) = self.whose() {
            fields["service"] = json!(whose.service);
            fields["version"] = json!(whose.version);
        }
        fields
    }
}

fn breaker_text(name: &str, change: BreakerChange) -> String {
    match change {
        BreakerChange::Opened(trigger, seconds) => {
            let why = match trigger {
                Trigger::Failures => "failures in a row",
                Trigger::ErrorShare => "too many errors",
                Trigger::Trial => "its trial failed",
            };
            format!("the breaker of {name} is open for {seconds} s: {why}")
        }
        BreakerChange::Held => format!("max_ejected keeps the breaker of {name} closed"),
        BreakerChange::HalfOpen => format!("the breaker of {name} is half-open"),
        BreakerChange::Closed => format!("the breaker of {name} is closed"),
    }
}

fn drain_text(name: &str, word: &str, stage: DrainStage) -> String {
    match stage {
        // Its tunnels end at once.
        DrainStage::Began(_) if word == "disabled" => format!("{name} is disabled"),
        DrainStage::Began(seconds) => format!("{name} is {word}, for {seconds} s at most"),
        DrainStage::Ended => format!("{name} is drained"),
        DrainStage::CalledOff => format!("{name} takes new sessions again"),
    }
}

pub(super) fn cut(text: &str) -> &str {
    text.char_indices().nth(LONGEST).map_or(text, |(at, _)| &text[..at])
}

pub(super) fn few(all: &[String]) -> Vec<&str> {
    all.iter().take(LISTED).map(|it| cut(it)).collect()
}

pub(super) fn listed(all: &[String], between: &str) -> String {
    let left = all.len().saturating_sub(LISTED);
    let mut text = few(all).join(between);
    if left > 0 {
        text.push_str(&format!("{between}{left} more"));
    }
    if all.is_empty() { "nothing changed".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(instance: Option<&str>) -> Whose {
        let instance = instance.map(str::to_owned);
        Whose { service: "chat".to_owned(), version: "v1".to_owned(), instance }
    }

    fn a() -> Whose {
        of(Some("a"))
    }

    fn doctor(raised: bool) -> Event {
        Event::Doctor {
            whose: of(None),
            code: "sid_unknown",
            raised,
            message: "chat/v1: it looks wrong".to_owned(),
            cure: "b.yaml:3: session_affinity: true".to_owned(),
        }
    }

    #[test]
    fn each_event_tells_of_itself_in_one_line() {
        let names = |n: usize| (0..n).map(|it| format!("i{it}")).collect::<Vec<_>>();
        for (event, kind, severity, text) in [
            (
                Event::Health {
                    whose: a(),
                    from: Health::Ready,
                    to: Health::Unready,
                    reason: "readiness check answered 503".to_owned(),
                },
                "health",
                "warning",
                "a is unready: readiness check answered 503",
            ),
            (
                Event::Breaker(a(), BreakerChange::Opened(Trigger::Failures, 5)),
                "breaker",
                "warning",
                "the breaker of a is open for 5 s: failures in a row",
            ),
            (
                Event::Drain(a(), "draining", DrainStage::Began(30)),
                "drain",
                "info",
                "a is draining, for 30 s at most",
            ),
            (
                Event::Rejected { problems: vec!["c.yaml:3: x: unknown key".to_owned()] },
                "reload",
                "error",
                "configuration rejected: c.yaml:3: x: unknown key",
            ),
            (
                Event::Instances { whose: a(), added: true, names: names(1) },
                "instance",
                "info",
                "a added",
            ),
            (
                Event::Instances { whose: of(None), added: false, names: names(3) },
                "instance",
                "info",
                "3 instances of chat/v1 removed: i0, i1, i2",
            ),
            (
                Event::Panic { whose: of(None), is_on: true, ready: 1, instances: 4 },
                "panic",
                "error",
                "1 of 4 instances of chat/v1 are ready: unready ones serve",
            ),
            (
                Event::Tunnels(of(None), TunnelEnd::Draining, 37),
                "tunnels",
                "info",
                "37 tunnels of chat/v1 closed: draining",
            ),
            (
                doctor(true),
                "doctor",
                "warning",
                "chat/v1: it looks wrong; cure: b.yaml:3: session_affinity: true",
            ),
            (doctor(false), "doctor", "info", "chat/v1: sid_unknown is no longer so"),
        ] {
            assert_eq!(event.text(), text);
            assert_eq!((event.kind().label(), event.severity().label()), (kind, severity));
            assert!(event.fields().is_object());
        }
    }

    #[test]
    fn what_is_long_is_cut_and_says_so() {
        let problems: Vec<_> = (0..100).map(|n| format!("problem {n}")).collect();
        let event = Event::Rejected { problems };
        assert_eq!(event.fields()["problems"].as_array().unwrap().len(), LISTED);
        assert_eq!(event.fields()["count"], 100);
        assert!(event.text().ends_with("; 80 more"), "{}", event.text());
        let long = "\u{e9}".repeat(10_000);
        let event = Event::Restart { whose: a(), from: long.clone(), to: long };
        assert_eq!(event.fields()["from"].as_str().unwrap().chars().count(), LONGEST);
        assert!(event.text().chars().count() <= 4 * LONGEST);
    }

    #[test]
    fn kinds_stand_at_their_places() {
        for (place, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, place);
        }
        assert_eq!(Event::Upgrade(UpgradeStage::Began).instance(), None);
        assert_eq!(Event::Breaker(a(), BreakerChange::Held).instance().unwrap(), "chat/v1/a");
    }
}
