//! What the Engine API says of containers, and the instances that come of it.
//!
//! Pure: knows no connection and no clock. As with pods, two of our axes are told apart: a container
//! that was told to stop drains, one that is paused or whose health check has not passed is unready.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::config::found::Member;

/// The labels that are read.
pub(super) const SERVICE: &str = "burdock.service";
pub(super) const VERSION: &str = "burdock.version";
const PORT: &str = "burdock.port";
const WEIGHT: &str = "burdock.weight";

/// Signals that ask a process to end: those of `docker stop`, and what images name in its place.
const ENDS: [&str; 4] = ["2", "3", "9", "15"];

/// A container in a list. Maps and lists may be null where they are empty, as Go writes them.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Container {
    id: String,
    names: Option<Vec<String>>,
    labels: Option<BTreeMap<String, String>>,
    #[serde(default)]
    state: String,
    ports: Option<Vec<Port>>,
    host_config: Option<HostConfig>,
    network_settings: Option<NetworkSettings>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Port {
    private_port: u16,
    #[serde(default)]
    r#type: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HostConfig {
    #[serde(default)]
    network_mode: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NetworkSettings {
    networks: Option<BTreeMap<String, Option<Network>>>,
}

#[derive(Debug, Deserialize)]
struct Network {
    #[serde(default, rename = "IPAddress")]
    four: String,
    #[serde(default, rename = "GlobalIPv6Address")]
    six: String,
}

/// A line of events.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Event {
    action: String,
    actor: Actor,
}

#[derive(Debug, Deserialize)]
struct Actor {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "Attributes")]
    attributes: Option<BTreeMap<String, String>>,
}

/// What an error of the API says.
#[derive(Debug, Deserialize)]
pub(super) struct Refusal {
    pub(super) message: String,
}

/// Containers that were told to stop, and have not stopped yet.
#[derive(Debug, Default)]
pub(super) struct Stopping(BTreeSet<String>);

impl Stopping {
    /// Takes an event in.
    pub(super) fn note(&mut self, line: &[u8]) -> Result<(), String> {
        let event: Event = serde_json::from_slice(line)
            .map_err(|error| format!("what came is no event of a container: {error}"))?;
        let attributes = event.actor.attributes.unwrap_or_default();
        match event.action.as_str() {
            "kill" if attributes.get("signal").is_some_and(|it| ENDS.contains(&it.as_str())) => {
                self.0.insert(event.actor.id);
            }
            // Not when it ends: a list may have it for a moment longer.
            "start" => _ = self.0.remove(&event.actor.id),
            _ => {}
        }
        Ok(())
    }

    /// Forgets those that are not among these.
    fn retain(&mut self, all: &[Container]) {
        let ids: BTreeSet<&str> = all.iter().map(|it| it.id.as_str()).collect();
        self.0.retain(|id| ids.contains(id.as_str()));
    }
}

/// A list.
pub(super) fn listed(text: &[u8]) -> Result<Vec<Container>, String> {
    serde_json::from_slice(text)
        .map_err(|error| format!("what came is no list of containers: {error}"))
}

/// The instances among the containers that run. `unwell` are those whose health check has not passed.
pub(super) fn members(
    running: &[Container],
    unwell: &[Container],
    stopping: &mut Stopping,
    network: Option<&str>,
) -> Result<Vec<Member>, String> {
    stopping.retain(running);
    let unwell: BTreeSet<&str> = unwell.iter().map(|it| it.id.as_str()).collect();
    // One that is restarted has no address meanwhile, and the one that it had may be another's.
    let there = running.iter().filter(|it| matches!(it.state.as_str(), "running" | "paused"));
    let member = |it: &Container| {
        let named = |problem| format!("container {}: {problem}", it.name().unwrap_or(&it.id));
        let member = it.member(network, stopping.0.contains(&it.id)).map_err(named)?;
        let unready = it.state == "paused" || unwell.contains(it.id.as_str());
        Ok(Member { unready, ..member })
    };
    there.map(member).collect()
}

impl Container {
    /// Its own; a name with another slash in it is what somebody else calls it.
    fn name(&self) -> Option<&str> {
        let names = self.names.iter().flatten();
        let mut own =
            names.filter_map(|name| name.strip_prefix('/')).filter(|it| !it.contains('/'));
        own.next()
    }

    fn label(&self, name: &str) -> Option<&str> {
        self.labels.as_ref()?.get(name).map(String::as_str)
    }

    fn member(&self, network: Option<&str>, draining: bool) -> Result<Member, String> {
        let address = format!("{}:{}", self.host(network)?, self.port()?);
        let weight = match self.label(WEIGHT) {
            None => 1,
            Some(text) => text
                .parse()
                .map_err(|_| format!("label {WEIGHT} is {text:?}; allowed: 0 to 1000"))?,
        };
        let named = |name| Member::new(name, address.clone(), weight, draining);
        // A container may have a name that is too long for a token.
        let name = self.name().map(str::to_owned);
        named(name).or_else(|_| named(None)).map_err(|error| error.to_string())
    }

    /// Where it is in this network, or in its only one.
    fn host(&self, network: Option<&str>) -> Result<String, String> {
        let mode = self.host_config.as_ref().map(|it| it.network_mode.as_str());
        if mode == Some("host") && network.is_none_or(|network| network == "host") {
            return Ok("127.0.0.1".to_owned());
        }
        let settings = self.network_settings.as_ref();
        let networks = settings.and_then(|it| it.networks.as_ref()).into_iter().flatten();
        let mut networks = networks.filter(|(name, _)| network.is_none_or(|it| it == *name));
        let found = match (networks.next(), networks.next()) {
            (Some((_, network)), None) => network.as_ref(),
            (None, _) => {
                let network = network.unwrap_or("any");
                return Err(format!("it is not in the network {network}"));
            }
            (Some((one, _)), Some((other, _))) => {
                return Err(format!(
                    "it is in several networks; needed: `network`, such as {one} or {other}"
                ));
            }
        };
        match found {
            Some(Network { four, .. }) if !four.is_empty() => Ok(four.clone()),
            Some(Network { six, .. }) if !six.is_empty() => Ok(format!("[{six}]")),
            Some(_) | None => Err("it has no address".to_owned()),
        }
    }

    /// What its label says, or the only one that it exposes.
    fn port(&self) -> Result<u16, String> {
        if let Some(text) = self.label(PORT) {
            let port = text.parse().ok().filter(|port| *port > 0);
            return port.ok_or_else(|| format!("label {PORT} is {text:?}; allowed: 1 to 65535"));
        }
        let ports = self.ports.iter().flatten().filter(|it| it.r#type == "tcp");
        let ports: BTreeSet<u16> = ports.map(|it| it.private_port).collect();
        match (ports.len(), ports.first()) {
            (1, Some(port)) => Ok(*port),
            _ => Err(format!("it exposes {} TCP ports; needed: label {PORT}", ports.len())),
        }
    }
}
