//! The configuration: from a file to validated types, back to text, and what a reload changes.
//!
//! The only room that reads configuration files. Knows no sockets, no runtime and no other room of
//! the crate. Read [`load`] first, then `validate`.

mod app_yaml;
mod diff;
mod effective;
mod errors;
pub mod found;
mod nearest;
mod node;
pub mod overlay;
pub mod overrides;
pub mod places;
mod read;
mod tree;
pub mod types;
pub(crate) mod units;
mod validate;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub use diff::{Change, diff};
pub use effective::effective;
pub use errors::{ConfigErrors, Problem};

use node::Sink;
pub(crate) use node::{Fields, Node};
use overrides::Overrides;
use places::Places;
pub(crate) use tree::Data;
use tree::{Entry, Tree};
use types::Config;

/// What stands for a file name in problems with values from the command line.
const COMMAND_LINE: &str = "command line";

/// A configuration and what is to be known about its reading.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// For the operator to read once, at start and at each reload.
    pub notes: Vec<String>,
    /// What will trouble clients although the configuration is taken.
    pub warnings: Vec<String>,
    /// Every file that the configuration was read from.
    pub watched: Vec<PathBuf>,
    /// Where its keys are.
    pub places: Places,
    /// What the command line has put over it.
    pub overrides: Overrides,
}

impl Loaded {
    /// This balancer's own file with what its fleet shares.
    #[must_use]
    pub fn with_shared(mut self, shared: Self) -> Self {
        self.config = self.config.with_shared(&shared.config);
        self.notes.extend(shared.notes);
        self.warnings.extend(shared.warnings);
        self.watched.extend(shared.watched);
        // What is to be cured stands there.
        self.places = shared.places;
        self
    }
}

/// Reads a configuration file. Relative paths in it start at its own folder.
pub fn load(path: &Path) -> Result<Loaded, ConfigErrors> {
    let text = read::named(path).map_err(|error| {
        ConfigErrors::whole_file(path, format!("cannot read the file: {error}"))
    })?;
    parse(&text, path)
}

/// Reads the text of a configuration file that is, or would be, at `origin`.
pub fn parse(text: &str, origin: &Path) -> Result<Loaded, ConfigErrors> {
    let tree = whole(text, origin)?;
    let folder = origin.parent().unwrap_or(Path::new("")).to_owned();
    let sink = Sink { folder, ..Sink::default() };
    sink.watch(origin);
    validated(&tree, origin, sink, validate::config)
}

/// Reads what a fleet shares of its configurations. Problems are told of `origin`, which is no file here;
/// relative paths start at `folder`.
pub fn parse_shared(text: &str, origin: &Path, folder: &Path) -> Result<Loaded, ConfigErrors> {
    let tree = whole(text, origin)?;
    let sink = Sink { folder: folder.to_owned(), ..Sink::default() };
    validated(&tree, origin, sink, validate::shared)
}

fn whole(text: &str, origin: &Path) -> Result<Tree, ConfigErrors> {
    let tree = tree::read(text).map_err(|error| {
        let (line, message) = (error.line, error.message);
        let problem = Problem { file: origin.to_owned(), line, path: String::new(), message };
        ConfigErrors::new(origin, vec![problem])
    })?;
    if tree.data == Data::Null {
        let message = "the file is empty; needed: at least `instances: [HOST:PORT]`".to_owned();
        return Err(ConfigErrors::whole_file(origin, message));
    }
    Ok(tree)
}

/// Reads a file of another kind by the same rules: every problem at once, each with its place.
pub(crate) fn document<T>(
    path: &Path,
    read: impl FnOnce(&Node<'_>) -> Option<T>,
) -> Result<T, ConfigErrors> {
    let whole = |message| ConfigErrors::whole_file(path, message);
    let text =
        read::named(path).map_err(|error| whole(format!("cannot read the file: {error}")))?;
    let tree = tree::read(&text).map_err(|error| {
        let (line, message) = (error.line, error.message);
        let problem = Problem { file: path.to_owned(), line, path: String::new(), message };
        ConfigErrors::new(path, vec![problem])
    })?;
    let folder = path.parent().unwrap_or(Path::new("")).to_owned();
    let sink = Sink { folder, ..Sink::default() };
    let value = read(&Node::root(&tree, path, &sink));
    let problems = sink.problems.into_inner();
    match value {
        Some(value) if problems.is_empty() => Ok(value),
        _ => Err(ConfigErrors::new(path, problems)),
    }
}

/// A whole configuration that is a part of such a file.
pub(crate) fn part(node: &Node<'_>) -> Option<Config> {
    validate::config(node)
}

/// The configuration that `burdock run --app-yaml F --instance HOST:PORT ...` asks for.
pub fn from_app_yaml(app_yaml: &Path, instances: &[String]) -> Result<Loaded, ConfigErrors> {
    // Config paths are text, and a path that is not would be opened under another name.
    let Some(path) = app_yaml.to_str() else {
        return Err(ConfigErrors::whole_file(app_yaml, "the path is not UTF-8".to_owned()));
    };
    let entries = vec![entry("instances", texts(instances)), entry("app_yaml", text(path))];
    validated(
        &without_line(Data::Map(entries)),
        Path::new(COMMAND_LINE),
        Sink::default(),
        validate::config,
    )
}

/// A duration as a configuration writes it, such as `30s`.
pub fn duration(text: &str) -> Option<Duration> {
    units::parse_duration(text).ok()
}

/// A share as a configuration writes it, such as `50%`, in basis points.
pub fn percent(text: &str) -> Option<u32> {
    units::parse_percent(text).ok().filter(|points| *points <= 100 * 100)
}

/// A number with two decimals at most, in hundredths.
pub fn hundredths(text: &str) -> Option<u32> {
    units::parse_percent(&format!("{text}%")).ok()
}

/// The keys in the text of a key file, newest first, or what is wrong with it. No message repeats a key.
pub fn keys(text: &str) -> Result<Vec<[u8; 32]>, String> {
    let (keys, problems) = validate::keys::lines(text);
    match problems.first() {
        None => Ok(keys),
        Some((0, message)) => Err(message.clone()),
        Some((line, message)) => Err(format!("line {line}: {message}")),
    }
}

/// Whether an instance may be called this.
pub fn is_name(text: &str) -> bool {
    validate::names::is_name(text)
}

/// Whether an instance may be at this address.
pub fn is_address(text: &str) -> bool {
    validate::names::is_address(text)
}

/// A configuration of defaults over `instances`.
pub fn minimal(instances: &[String], session_affinity: bool) -> Result<Config, ConfigErrors> {
    let affinity = without_line(Data::Bool(session_affinity));
    let entries = vec![entry("instances", texts(instances)), entry("session_affinity", affinity)];
    let tree = without_line(Data::Map(entries));
    validated(&tree, Path::new(COMMAND_LINE), Sink::default(), validate::config)
        .map(|loaded| loaded.config)
}

fn validated(
    tree: &Tree,
    file: &Path,
    sink: Sink,
    read: impl FnOnce(&Node<'_>) -> Option<Config>,
) -> Result<Loaded, ConfigErrors> {
    let config = read(&Node::root(tree, file, &sink));
    let problems = sink.problems.into_inner();
    match config {
        Some(config) if problems.is_empty() => {
            let ignored: Vec<String> = sink.ignored.into_inner().into_iter().collect();
            let note = || format!("app.yaml: ignored here: {}", ignored.join(", "));
            let notes = if ignored.is_empty() { Vec::new() } else { vec![note()] };
            let warnings = sink.warnings.into_inner();
            let watched = sink.watched.into_inner();
            let is_file = file != Path::new(COMMAND_LINE);
            let places = if is_file { Places::of(tree, file) } else { Places::default() };
            let overrides = Overrides::default();
            Ok(Loaded { config, notes, warnings, watched, places, overrides })
        }
        _ => Err(ConfigErrors::new(file, problems)),
    }
}

fn without_line(data: Data) -> Tree {
    Tree { line: 0, data }
}

fn text(value: &str) -> Tree {
    without_line(Data::Text(value.to_owned()))
}

fn texts(values: &[String]) -> Tree {
    without_line(Data::List(values.iter().map(|value| text(value)).collect()))
}

fn entry(key: &str, value: Tree) -> Entry {
    Entry { key: key.to_owned(), key_is_text: true, line: 0, value }
}
