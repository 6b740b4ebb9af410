//! A scenario file as a [`Scenario`], or every problem in it with its line.

use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::limits;
use super::steps;
use super::{Crowd, Load, Scenario};
use crate::config::types::Config;
use crate::config::{self, ConfigErrors, Data, Node};

const LONGEST: Duration = Duration::from_secs(3600);
const SPAN: RangeInclusive<Duration> = Duration::from_millis(100)..=LONGEST;
pub(super) const TIME: RangeInclusive<Duration> = Duration::ZERO..=LONGEST;
/// Faster clients would measure themselves.
const PACE: RangeInclusive<Duration> = Duration::from_millis(5)..=LONGEST;
const MAX_CLIENTS: u32 = 10_000;
const MAX_SIZE: u64 = 64 * 1024 * 1024;
const SETTLE: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(10);
const SIZE: u64 = 64 * 1024;

/// Reads a scenario file.
pub(in crate::drill) fn read(path: &Path) -> Result<Scenario, ConfigErrors> {
    config::document(path, |root| scenario(root, path))
}

fn scenario(root: &Node<'_>, path: &Path) -> Option<Scenario> {
    let mut fields = root.fields("scenario")?;
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let allowed = "a short text";
    let text = |node: Option<Node<'_>>| node.and_then(|n| n.text(allowed).map(str::to_owned));
    let name = text(fields.take("name")).unwrap_or(stem);
    let about = text(fields.take("about")).unwrap_or_default();
    let seed = fields.integer("seed", 0..=u32::MAX, 1);
    let duration = fields.take("duration");
    if duration.is_none() {
        fields.missing("duration", "how long the drill takes, such as 20s");
    }
    let duration = duration.and_then(|node| node.duration(SPAN));
    let settle = fields.duration("settle", TIME, SETTLE);
    let config = fields.take("config");
    if config.is_none() {
        fields.missing("config", "what the balancer runs, as a map or the path of a file");
    }
    let config = config.and_then(|node| configuration(&node));
    let load = fields.take("load").and_then(|node| load(&node)).unwrap_or_else(no_load);
    let steps = fields.take("steps").map(|node| steps::steps(&node, duration));
    if steps.is_none() {
        fields.missing("steps", "a list of what happens when");
    }
    let limits = limits::overall(&mut fields);
    fields.finish();
    Some(Scenario {
        name,
        about,
        seed: seed.into(),
        duration: duration?,
        settle,
        config: Arc::new(config?),
        load,
        steps: steps?,
        limits,
    })
}

/// A configuration that stands in the scenario, or the file that holds it.
pub(super) fn configuration(node: &Node<'_>) -> Option<Config> {
    let Some(file) = node.as_text() else {
        if !matches!(node.tree.data, Data::Map(_)) {
            return node.wrong("a configuration, or the path of a file that holds one");
        }
        return config::part(node);
    };
    match config::load(&node.sink.resolve(file)) {
        Ok(loaded) => Some(loaded.config),
        Err(errors) => {
            node.adopt(&errors);
            None
        }
    }
}

fn no_load() -> Load {
    Load { patience: PATIENCE, ..Load::default() }
}

fn load(node: &Node<'_>) -> Option<Load> {
    let mut fields = node.fields("load")?;
    let mut crowd = |key| fields.take(key).and_then(|node| crowd(&node, key));
    let mut load = Load {
        sessions: crowd("sessions"),
        visitors: crowd("visitors"),
        polling: crowd("polling"),
        websockets: crowd("websockets"),
        downloads: crowd("downloads"),
        uploads: crowd("uploads"),
        ..no_load()
    };
    load.patience = fields.duration("patience", SPAN, PATIENCE);
    load.host = fields.take("host").and_then(|node| host(&node));
    fields.finish();
    Some(load)
}

fn host(node: &Node<'_>) -> Option<String> {
    let fits = |text: &str| {
        let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-.:".contains(&byte);
        (!text.is_empty() && text.bytes().all(is_host)).then(|| text.to_owned())
    };
    node.parsed("a host such as chat.example.com", fits)
}

fn crowd(node: &Node<'_>, kind: &'static str) -> Option<Crowd> {
    let mut fields = node.fields("clients")?;
    let clients = fields.take("clients");
    let every = fields.take("every");
    for (key, given, needed) in [
        ("clients", &clients, "how many there are"),
        ("every", &every, "how often each asks, such as 200ms"),
    ] {
        if given.is_none() {
            fields.missing(key, needed);
        }
    }
    let size = match kind {
        "downloads" | "uploads" => fields.take("size").and_then(|node| node.size(MAX_SIZE)),
        _ => None,
    };
    fields.finish();
    let clients = clients.and_then(|node| node.integer(1..=MAX_CLIENTS));
    let every = every.and_then(|node| node.duration(PACE));
    Some(Crowd { clients: clients?, every: every?, size: size.unwrap_or(SIZE) })
}
