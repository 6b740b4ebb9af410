//! A scenario file as a [`Scenario`], or every problem in it with its line.

use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::limits;
use super::steps;
use super::{Crowd, Load, Scenario, Setting, Url, live};
use crate::config::types::Config;
use crate::config::{self, ConfigErrors, Data, Fields, Node};

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

/// What a scenario is read for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::drill) enum Mode {
    /// Instances of its own.
    #[default]
    Embedded,
    /// A running balancer, whose clients ask for this if there are any.
    Running(Option<Url>),
}

impl Mode {
    pub(super) fn is_running(&self) -> bool {
        matches!(self, Self::Running(_))
    }
}

/// Reads a scenario file.
pub(in crate::drill) fn read(path: &Path, mode: &Mode) -> Result<Scenario, ConfigErrors> {
    config::document(path, |root| scenario(root, path, mode))
}

/// A URL that clients can ask for.
pub(in crate::drill) fn url(text: &str) -> Option<Url> {
    let uri: http::Uri = text.parse().ok()?;
    let authority = uri.authority().filter(|it| !it.as_str().contains('@'))?;
    let port = authority.port_u16().unwrap_or(80);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    (uri.scheme_str() == Some("http"))
        .then(|| Url { authority: format!("{}:{port}", authority.host()), path: path.to_owned() })
}

fn scenario(root: &Node<'_>, path: &Path, mode: &Mode) -> Option<Scenario> {
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
    let setting = setting(&mut fields, mode, duration);
    let load = fields.take("load").and_then(|node| load(&node, mode));
    let load = load.unwrap_or_else(|| unasked(mode));
    let watches = mode.is_running();
    let steps = fields.take("steps").map(|node| steps::steps(&node, duration, watches));
    if steps.is_none() {
        fields.missing("steps", "a list of what happens when");
    }
    let limits = limits::overall(&mut fields, watches);
    fields.finish();
    Some(Scenario {
        name,
        about,
        seed: seed.into(),
        duration: duration?,
        settle,
        setting: setting?,
        load,
        mark: String::new(),
        steps: steps?,
        limits,
    })
}

/// Where it is played: what the balancer runs, or how far one that runs may be troubled.
fn setting(fields: &mut Fields<'_>, mode: &Mode, duration: Option<Duration>) -> Option<Setting> {
    let (config, safety) = (fields.take("config"), fields.take("safety"));
    if mode.is_running() {
        if let Some(config) = config {
            config.problem("a running balancer has its own; allowed: without --admin");
        }
        return live::safety(safety.as_ref(), duration?).map(Setting::Running);
    }
    if let Some(safety) = safety {
        safety.problem("only of a running balancer; allowed: with --admin URL");
    }
    if config.is_none() {
        let needed = "what the balancer runs, as a map or the path of a file; or --admin URL";
        fields.missing("config", needed);
    }
    configuration(&config?).map(|config| Setting::Embedded(Arc::new(config)))
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

/// The clients of a scenario that has none: some browsers, where somebody says what they ask for.
fn unasked(mode: &Mode) -> Load {
    const SOME: Crowd = Crowd { clients: 10, every: Duration::from_millis(500), size: SIZE };
    match mode {
        Mode::Running(Some(url)) => {
            Load { sessions: Some(SOME), url: Some(url.clone()), ..no_load() }
        }
        Mode::Running(None) | Mode::Embedded => no_load(),
    }
}

fn load(node: &Node<'_>, mode: &Mode) -> Option<Load> {
    const OF_EMBEDDED: [&str; 4] = ["polling", "websockets", "downloads", "uploads"];
    let mut fields = node.fields("load")?;
    let mut own_url = None;
    if mode.is_running() {
        own_url = fields
            .take("url")
            .and_then(|node| node.parsed("a URL such as http://127.0.0.1:8080/", url));
        for node in OF_EMBEDDED.into_iter().filter_map(|key| fields.take(key)) {
            node.problem("these need the drill's own instances; allowed: sessions, visitors");
        }
    }
    let given = match mode {
        Mode::Running(given) => given.clone(),
        Mode::Embedded => None,
    };
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
    load.url = given.or(own_url);
    if mode.is_running() && load.is_any() && load.url.is_none() {
        fields
            .missing("url", "what clients ask for, such as http://127.0.0.1:8080/; or --load URL");
    }
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
