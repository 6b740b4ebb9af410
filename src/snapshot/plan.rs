//! What a reload to another configuration would change, and whom it would touch.
//!
//! The lines are those that the reload itself would log; the instances are found by the identities that it
//! would find them by. Nothing is changed. Read [`plan`] first.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;

use crate::config::overlay::{self, Overlay};
use crate::config::types::{self, AtZero, Config, State};
use crate::config::{Change, diff};
use crate::instance::{Instance, Lane, Roster};
use crate::snapshot::{Service, Snapshot};

/// What a reload would change.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Plan {
    /// As its log line would have them.
    pub changes: Vec<String>,
    /// Whose sessions and tunnels it is about.
    pub instances: Moved,
    /// Whom it touches.
    pub touches: Touched,
    /// What would trouble clients.
    pub warnings: Vec<String>,
    /// What would not change before a restart.
    pub restart_needed: Vec<String>,
}

/// Instances by what would become of them, as `service/version/name`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Moved {
    /// Not known yet, or at another address: then the one it replaces is among the removed.
    pub added: Vec<String>,
    /// No longer named: they serve their sessions until the end of their drain.
    pub removed: Vec<String>,
    /// Drained from then on.
    pub drained: Vec<String>,
    /// Disabled from then on.
    pub disabled: Vec<String>,
    /// Active again.
    pub enabled: Vec<String>,
    /// Of another weight.
    pub reweighted: Vec<String>,
}

/// Live sessions and tunnels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Touched {
    /// Those that would sooner or later leave their instance, or begin anew.
    pub sessions: u64,
    /// Those that would be closed.
    pub tunnels: u64,
}

/// The known instances that a configuration moves, each once.
#[derive(Debug, Default)]
struct Leaving(HashMap<*const Instance, Arc<Instance>>);

impl Leaving {
    fn add(&mut self, instance: &Arc<Instance>) {
        self.0.insert(Arc::as_ptr(instance), Arc::clone(instance));
    }

    fn count(&self, now: Instant) -> Touched {
        let sum = |of: fn(&Instance, Instant) -> u64| self.0.values().map(|it| of(it, now)).sum();
        Touched { sessions: sum(Instance::session_count), tunnels: sum(|it, _| tunnels(it)) }
    }
}

fn tunnels(instance: &Instance) -> u64 {
    instance.lanes().iter().map(Lane::tunnels).sum()
}

/// What a reload to `config` would change; `warnings` are those of its reading.
pub fn plan(snapshot: &Snapshot, config: &Config, warnings: &[String]) -> Plan {
    let before = &snapshot.filed;
    let changes = diff(before, config);
    let mut plan = Plan { warnings: warnings.to_vec(), ..Plan::default() };
    let mut leaving = Leaving::default();
    for service in &config.services {
        for version in &service.versions {
            let known = version_of(before, &service.name, &version.name);
            let roster = roster_of(snapshot, &service.name, &version.name);
            look_at(&mut plan, &mut leaving, (&service.name, version), known, roster);
        }
    }
    for service in snapshot.services() {
        let roster = &service.roster;
        if version_of(config, roster.service(), roster.version()).is_none() {
            for instance in roster.members().present() {
                leaving.add(instance);
                plan.instances.removed.push(id(instance));
            }
        }
    }
    plan.touches = leaving.count(Instant::now());
    plan.touches.sessions += unbound(snapshot, config, &leaving);
    let (served, told) = with_overlay(snapshot, config);
    plan.touches.sessions += shut_out(snapshot, &served, &leaving);
    plan.warnings.extend(changes.iter().filter_map(warning));
    plan.warnings.extend(told);
    plan.restart_needed = changes.iter().filter_map(restart).collect();
    plan.changes = changes.iter().map(ToString::to_string).collect();
    plan
}

/// The configuration with what was asked for at run time, and what is to be known of that.
fn with_overlay(snapshot: &Snapshot, config: &Config) -> (Config, Vec<String>) {
    let mut overlay = Overlay::clone(&snapshot.overlay);
    let forgotten = overlay.prune(config).into_iter();
    let mut told: Vec<_> =
        forgotten.map(|it| format!("forgets what was asked for at run time: {it}")).collect();
    for service in &config.services {
        let asked = overlay.shares(&service.name).map(|shares| &shares.allocations);
        let before = snapshot.filed.services.iter().find(|it| it.name == service.name);
        if let (Some(asked), Some(split)) = (asked, &service.split)
            && before.and_then(|before| before.split.as_ref()) != Some(split)
        {
            told.push(format!(
                "{name}: its shares stay as they were asked for at run time, {asked}; \
                 `burdock split {name} file` goes back to the file",
                name = service.name,
                asked = overlay::told(asked)
            ));
        }
    }
    (overlay.apply(config), told)
}

fn version_of<'a>(config: &'a Config, service: &str, version: &str) -> Option<&'a types::Version> {
    config.services.iter().find(|known| known.name == service)?.version(version)
}

fn roster_of<'a>(snapshot: &'a Snapshot, service: &str, version: &str) -> Option<&'a Roster> {
    let mut known = snapshot.services().iter().map(|service| &*service.roster);
    known.find(|roster| roster.service() == service && roster.version() == version)
}

/// What becomes of the instances of one version.
fn look_at(
    plan: &mut Plan,
    leaving: &mut Leaving,
    (service, version): (&str, &types::Version),
    before: Option<&types::Version>,
    roster: Option<&Roster>,
) {
    let moved = &mut plan.instances;
    let members = roster.map(Roster::members);
    let present = members.as_ref().map_or(&[][..], |members| members.present());
    let known: HashMap<_, _> =
        present.iter().map(|it| ((it.identity().name.as_str(), it.address()), it)).collect();
    let before: HashMap<_, _> =
        before.iter().flat_map(|it| &it.instances).map(|it| (it.name.as_str(), it)).collect();
    for instance in &version.instances {
        let (name, id) = (&*instance.name, || name_of(service, &version.name, &instance.name));
        let Some(here) = known.get(&(name, &*instance.address)) else {
            moved.added.push(id());
            continue;
        };
        let Some(was) = before.get(name) else { continue };
        if was.weight != instance.weight {
            moved.reweighted.push(id());
        }
        match (was.state, instance.state) {
            (from, to) if from == to => {}
            (_, State::Active) => moved.enabled.push(id()),
            (_, State::Draining) => {
                moved.drained.push(id());
                leaving.add(here);
            }
            (_, State::Disabled) => {
                moved.disabled.push(id());
                leaving.add(here);
            }
        }
    }
    let after = version.instances.iter().map(|it| (it.name.as_str(), it.address.as_str()));
    let after: HashSet<_> = after.collect();
    let stays =
        |here: &Arc<Instance>| after.contains(&(here.identity().name.as_str(), here.address()));
    // What the file does not name, it does not take away.
    let named = |here: &Arc<Instance>| before.contains_key(here.identity().name.as_str());
    for here in present.iter().filter(|here| named(here) && !stays(here)) {
        moved.removed.push(self::id(here));
        leaving.add(here);
    }
}

/// Sessions of instances that stay, whose tokens would not be looked for any more.
fn unbound(snapshot: &Snapshot, config: &Config, leaving: &Leaving) -> u64 {
    let now = Instant::now();
    let lost = snapshot.services().iter().filter(|service| {
        let roster = &service.roster;
        let after = version_of(config, roster.service(), roster.version());
        let cookie = |version: &types::Version| {
            version.affinity.as_ref().map(|it| (it.cookie.name.clone(), it.by.clone()))
        };
        let had = cookie(service.version());
        had.is_some() && after.is_some_and(|after| cookie(after) != had)
    });
    let members = lost.map(|service| service.roster.members());
    let stays = |it: &&Arc<Instance>| !leaving.0.contains_key(&Arc::as_ptr(it));
    let count = |it: &Arc<Instance>| it.session_count(now);
    members.map(|members| members.present().iter().filter(stays).map(count).sum::<u64>()).sum()
}

/// Sessions of instances that stay in versions which get no more requests.
fn shut_out(snapshot: &Snapshot, config: &Config, leaving: &Leaving) -> u64 {
    let now = Instant::now();
    let is_shut = |service: &&Service| {
        let (name, version) = (service.roster.service(), service.roster.version());
        let after = config.services.iter().find(|known| known.name == name);
        let moves = |after: &types::Service| {
            let split = after.split.as_ref();
            split.is_some_and(|split| split.at_zero == AtZero::Move)
                && after.version(version).is_some()
                && after.share(version) == 0.0
        };
        service.share() > 0.0 && after.is_some_and(moves)
    };
    let mut sessions = 0;
    for service in snapshot.services().iter().filter(is_shut) {
        let members = service.roster.members();
        let stays = |it: &&Arc<Instance>| !leaving.0.contains_key(&Arc::as_ptr(it));
        sessions +=
            members.present().iter().filter(stays).map(|it| it.session_count(now)).sum::<u64>();
    }
    sessions
}

fn warning(change: &Change) -> Option<String> {
    match change {
        Change::AffinityKeys { removed, .. } if *removed > 0 => Some(format!(
            "affinity_keys: {removed} removed: tokens that only they open are rejected, and their \
             sessions begin anew"
        )),
        _ => None,
    }
}

fn restart(change: &Change) -> Option<String> {
    match change {
        Change::NeedsRestart { key } => Some((*key).to_owned()),
        _ => None,
    }
}

fn id(instance: &Instance) -> String {
    let identity = instance.identity();
    name_of(&identity.service, &identity.version, &identity.name)
}

fn name_of(service: &str, version: &str, name: &str) -> String {
    format!("{service}/{version}/{name}")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::affinity::token::Keyring;
    use crate::config;
    use crate::snapshot::Live;

    fn config(text: &str) -> Config {
        config::parse(text, Path::new("c.yaml")).unwrap().config
    }

    fn planned(before: &str, after: &str) -> Plan {
        let keyring = Arc::new(Keyring::new(&[[1; 32]]).unwrap());
        let (live, _) = Live::new(Arc::new(config(before)), keyring, 1);
        for (place, mark) in [(0, 5_u64), (0, 9 << 20), (1, 7 << 40)] {
            live.snapshot().services()[0].roster.members().present()[place].sessions.began(mark);
        }
        let generation = live.snapshot().generation;
        let plan = plan(&live.snapshot(), &config(after), &[]);
        assert_eq!(live.snapshot().generation, generation);
        plan
    }

    const BEFORE: &str = "session_affinity: true
instances:
  - { name: a, address: 127.0.0.1:1 }
  - { name: b, address: 127.0.0.1:2 }
  - { name: c, address: 127.0.0.1:3 }
";

    #[test]
    fn instances_are_found_by_name_and_address() {
        let after = "session_affinity: true
instances:
  - { name: a, address: 127.0.0.1:1, state: draining }
  - { name: b, address: 127.0.0.1:9 }
  - { name: c, address: 127.0.0.1:3, weight: 4 }
";
        let plan = planned(BEFORE, after);
        let moved = plan.instances;
        assert_eq!(moved.drained, ["default/default/a"]);
        assert_eq!(moved.added, ["default/default/b"]);
        assert_eq!(moved.removed, ["default/default/b"]);
        assert_eq!(moved.reweighted, ["default/default/c"]);
        assert!(moved.disabled.is_empty() && moved.enabled.is_empty());
        assert_eq!(plan.touches, Touched { sessions: 3, tunnels: 0 });
        assert_eq!(plan.changes.len(), 3, "{:?}", plan.changes);
    }

    #[test]
    fn nothing_changes_to_the_same_file() {
        assert_eq!(planned(BEFORE, BEFORE), Plan::default());
    }

    #[test]
    fn sessions_are_touched_where_nobody_would_look_for_their_token() {
        let off = planned(BEFORE, &BEFORE.replace("affinity: true", "affinity: false"));
        assert_eq!((off.touches.sessions, off.instances), (3, Moved::default()));
        let renamed = format!("{BEFORE}affinity: {{ cookie: OTHER }}\n");
        assert_eq!(planned(BEFORE, &renamed).touches.sessions, 3);
    }

    #[test]
    fn a_version_that_is_gone_takes_its_instances_along() {
        let after = "services: { chat: { instances: [127.0.0.1:1] } }\nworkers: 3\n";
        let plan = planned(BEFORE, after);
        assert_eq!(plan.instances.removed.len(), 3);
        assert_eq!(plan.instances.added, ["chat/default/127.0.0.1:1"]);
        assert_eq!(
            (plan.touches.sessions, &*plan.restart_needed),
            (3, &["workers".to_owned()][..])
        );
    }
}
