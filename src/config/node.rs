//! The typed reader: a value of the file, where it stands, and what may be there.
//!
//! Every method that finds something wrong adds a problem to the [`Sink`] and answers `None`, so
//! that reading goes on and all problems are found at once. Knows no key by name. Read [`Node`]
//! first, then [`Fields`].

use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeSet, HashSet};
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::errors::{ConfigErrors, Problem};
use super::nearest::nearest;
use super::read::Roots;
use super::tree::{Data, Tree};
use super::units;

/// Letters of a wrong value that a message repeats.
const SHOWN: usize = 60;

/// What is gathered while a configuration is read.
#[derive(Default)]
pub(crate) struct Sink {
    /// Relative paths in the file start here.
    pub(super) folder: PathBuf,
    pub(super) problems: RefCell<Vec<Problem>>,
    /// Keys of App Engine without meaning here.
    pub(super) ignored: RefCell<BTreeSet<String>>,
    pub(super) watched: RefCell<Vec<PathBuf>>,
    /// What is no reason to refuse the configuration, and to be told all the same.
    pub(super) warnings: RefCell<Vec<String>>,
    /// The authorities that the system trusts, once somebody has asked for them.
    pub(super) system_roots: OnceCell<Result<Roots, String>>,
    /// Map kind and key, for the test that holds `reference.yaml` to the code.
    #[cfg(test)]
    pub(super) asked: RefCell<BTreeSet<(&'static str, &'static str)>>,
}

impl Sink {
    /// Where a path given in the file leads.
    pub(crate) fn resolve(&self, path: &str) -> PathBuf {
        self.folder.join(path)
    }

    pub(super) fn watch(&self, path: &Path) {
        let mut watched = self.watched.borrow_mut();
        if !watched.iter().any(|known| known == path) {
            watched.push(path.to_owned());
        }
    }
}

/// One value and where it stands.
#[derive(Clone)]
pub(crate) struct Node<'a> {
    pub(crate) tree: &'a Tree,
    /// Such as `services.chat.hosts[0]`; empty for the whole file.
    pub(crate) path: String,
    pub(crate) file: &'a Path,
    pub(crate) sink: &'a Sink,
}

impl<'a> Node<'a> {
    pub(super) fn root(tree: &'a Tree, file: &'a Path, sink: &'a Sink) -> Self {
        Self { tree, path: String::new(), file, sink }
    }

    /// Adds a problem with this value.
    pub(crate) fn problem(&self, message: impl Display) {
        self.problem_at(self.tree.line, &self.path, message);
    }

    /// Adds the problems of another file that this value names.
    pub(crate) fn adopt(&self, errors: &ConfigErrors) {
        self.sink.problems.borrow_mut().extend(errors.problems().iter().cloned());
    }

    fn problem_at(&self, line: usize, path: &str, message: impl Display) {
        self.sink.problems.borrow_mut().push(Problem {
            file: self.file.to_owned(),
            line,
            path: path.to_owned(),
            message: message.to_string(),
        });
    }

    /// Adds the problem that this value is none of `allowed`.
    pub(crate) fn wrong<T>(&self, allowed: impl Display) -> Option<T> {
        let found = match &self.tree.data {
            Data::Null => "no value".to_owned(),
            Data::Bool(value) => format!("found `{value}`"),
            Data::Integer(value) => format!("found the number {value}"),
            Data::Float(value) => format!("found the number {value}"),
            Data::Text(text) if text.chars().count() > SHOWN => {
                format!("found {:?} and more", text.chars().take(SHOWN).collect::<String>())
            }
            Data::Text(text) => format!("found {text:?}"),
            Data::List(_) => "found a list".to_owned(),
            Data::Map(_) => "found a map".to_owned(),
        };
        self.problem(format_args!("{found}; allowed: {allowed}"));
        None
    }

    /// The text here without complaint, for choosing between forms of a value.
    pub(crate) fn as_text(&self) -> Option<&'a str> {
        match &self.tree.data {
            Data::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Whether this says `off`, `none` or `false`.
    pub(crate) fn is_off(&self) -> bool {
        matches!(self.tree.data, Data::Bool(false))
            || matches!(self.as_text(), Some("off" | "none"))
    }

    pub(crate) fn text(&self, allowed: impl Display) -> Option<&'a str> {
        self.as_text().or_else(|| self.wrong(allowed))
    }

    /// The text here as what `parse` makes of it.
    pub(crate) fn parsed<T>(
        &self,
        allowed: impl Display,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        self.as_text().and_then(parse).or_else(|| self.wrong(allowed))
    }

    /// One of a few words.
    pub(crate) fn word<T: Copy>(&self, words: &[(&str, T)]) -> Option<T> {
        let found = |text: &str| words.iter().find(|(word, _)| *word == text).map(|(_, t)| *t);
        self.as_text().and_then(found).or_else(|| {
            let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            self.wrong(names.join(", "))
        })
    }

    pub(crate) fn boolean(&self) -> Option<bool> {
        match self.tree.data {
            Data::Bool(value) => Some(value),
            _ => self.wrong("true, false"),
        }
    }

    pub(crate) fn integer(&self, range: RangeInclusive<u32>) -> Option<u32> {
        let allowed = format_args!("a whole number from {} to {}", range.start(), range.end());
        self.whole(allowed, |value| range.contains(value))
    }

    /// A whole number that `fits`.
    pub(super) fn whole(
        &self,
        allowed: impl Display,
        fits: impl FnOnce(&u32) -> bool,
    ) -> Option<u32> {
        let value = match self.tree.data {
            Data::Integer(value) => u32::try_from(value).ok(),
            _ => None,
        };
        value.filter(fits).or_else(|| self.wrong(allowed))
    }

    pub(crate) fn duration(&self, range: RangeInclusive<Duration>) -> Option<Duration> {
        let allowed = || {
            let [low, high] = [range.start(), range.end()].map(|end| units::format_duration(*end));
            format!("a duration from {low} to {high}, such as 500ms, 2s, 30m or 12h")
        };
        let number = match self.tree.data {
            Data::Integer(number) => Some(number.to_string()),
            Data::Float(number) => Some(number.to_string()),
            _ => None,
        };
        if let Some(number) = number {
            self.problem(format_args!(
                "the number {number} has no unit, write {number}s or {number}ms; allowed: {}",
                allowed()
            ));
            return None;
        }
        self.quantity(units::parse_duration, |value| range.contains(value), allowed)
    }

    /// A percentage in basis points, from 0 to `highest` percent.
    pub(crate) fn percent(&self, highest: u32) -> Option<u32> {
        let allowed = || format!("a percentage from 0% to {highest}%, such as 5% or 0.5%");
        self.quantity(units::parse_percent, |points| *points <= highest * 100, allowed)
    }

    /// A percentage above 100 in basis points, from `lowest` to `highest` percent.
    pub(crate) fn excess(&self, lowest: u32, highest: u32) -> Option<u32> {
        let allowed = || format!("a percentage from {lowest}% to {highest}%, such as 125%");
        let range = lowest * 100..=highest * 100;
        self.quantity(units::parse_percent, |points| range.contains(points), allowed)
    }

    /// A number of bytes, plain or with a unit.
    pub(crate) fn size(&self, highest: u64) -> Option<u64> {
        let allowed =
            || format!("bytes from 0 to {}, such as 65536 or 64KiB", units::format_size(highest));
        if let Data::Integer(number) = self.tree.data {
            let bytes = u64::try_from(number).ok().filter(|bytes| *bytes <= highest);
            return bytes.or_else(|| self.wrong(allowed()));
        }
        self.quantity(units::parse_size, |bytes| *bytes <= highest, allowed)
    }

    /// Text that `parse` understands and `fits` accepts.
    fn quantity<T>(
        &self,
        parse: impl FnOnce(&str) -> Result<T, units::UnitError>,
        fits: impl FnOnce(&T) -> bool,
        allowed: impl FnOnce() -> String,
    ) -> Option<T> {
        match self.as_text().map(parse) {
            Some(Ok(value)) if fits(&value) => Some(value),
            Some(Err(error)) => self.wrong(format_args!("{} ({error})", allowed())),
            Some(Ok(_)) | None => self.wrong(allowed()),
        }
    }

    /// The items of a list.
    pub(crate) fn list(&self, allowed: impl Display) -> Option<Vec<Self>> {
        let Data::List(items) = &self.tree.data else {
            return self.wrong(format_args!("a list of {allowed}"));
        };
        let item = |(index, tree)| Self { tree, path: format!("{}[{index}]", self.path), ..*self };
        Some(items.iter().enumerate().map(item).collect())
    }

    /// The keys of a map; `kind` is what such a map is called in messages. Anything else is reported and
    /// has none: which there could be is known once they were asked for.
    pub(crate) fn fields(&self, kind: &'static str) -> Option<Fields<'a>> {
        let mut fields =
            Fields { node: self.clone(), kind, open: Vec::new(), known: Vec::new(), wrong: None };
        match &self.tree.data {
            Data::Map(entries) => {
                self.report_repeated_keys();
                fields.open = vec![true; entries.len()];
            }
            _ => {
                fields.wrong = Some(self.sink.problems.borrow().len());
                self.wrong::<()>(format_args!("a map of {kind} keys"));
            }
        }
        Some(fields)
    }

    /// The entries of a map whose keys are names that the user chose.
    pub(crate) fn named(&self, allowed: impl Display) -> Option<Vec<(&'a str, Self)>> {
        let Data::Map(entries) = &self.tree.data else {
            return self.wrong(allowed);
        };
        self.report_repeated_keys();
        let (mut named, mut seen) = (Vec::new(), HashSet::new());
        for entry in entries {
            let node = Self { tree: &entry.value, path: self.key_path(&entry.key), ..*self };
            if !entry.key_is_text {
                let message = format!("a name must be text; allowed: {:?} in quotes", entry.key);
                self.problem_at(entry.line, &node.path, message);
            } else if seen.insert(&entry.key) {
                named.push((entry.key.as_str(), node));
            }
        }
        Some(named)
    }

    fn key_path(&self, key: &str) -> String {
        // One problem is one line, whatever a key holds.
        let is_tame = !key.contains(char::is_control);
        let key = if is_tame { key.to_owned() } else { key.escape_debug().to_string() };
        if self.path.is_empty() { key } else { format!("{}.{key}", self.path) }
    }

    fn report_repeated_keys(&self) {
        let Data::Map(entries) = &self.tree.data else { return };
        let mut seen = std::collections::HashMap::new();
        for entry in entries {
            if let Some(first) = seen.insert(&entry.key, entry.line) {
                seen.insert(&entry.key, first);
                let message = format!("given twice, first on line {first}; allowed: once");
                self.problem_at(entry.line, &self.key_path(&entry.key), message);
            }
        }
    }
}

/// The keys of one map while they are taken out, one after the other.
pub(crate) struct Fields<'a> {
    pub(crate) node: Node<'a>,
    kind: &'static str,
    /// Which entries nobody has taken.
    open: Vec<bool>,
    /// Which keys have been asked for.
    known: Vec<&'static str>,
    /// Which problem says that this is no map, if it isn't.
    wrong: Option<usize>,
}

impl<'a> Fields<'a> {
    /// The value of a key that may be there.
    pub(crate) fn take(&mut self, key: &'static str) -> Option<Node<'a>> {
        self.known.push(key);
        #[cfg(test)]
        self.node.sink.asked.borrow_mut().insert((self.kind, key));
        self.remove(key)
    }

    /// Like [`Self::take`], for a key that is not among the allowed ones.
    pub(crate) fn remove(&mut self, key: &str) -> Option<Node<'a>> {
        let Data::Map(entries) = &self.node.tree.data else { return None };
        let mut found = None;
        for (entry, open) in entries.iter().zip(&mut self.open) {
            if entry.key == key && entry.key_is_text {
                *open = false;
                found = found.or(Some(entry));
            }
        }
        let path = self.node.key_path(key);
        found.map(|entry| Node { tree: &entry.value, path, ..self.node })
    }

    /// Takes every key that is left, without complaint.
    pub(super) fn take_rest(&mut self) -> Vec<&'a str> {
        let Data::Map(entries) = &self.node.tree.data else { return Vec::new() };
        let rest = entries.iter().zip(&self.open).filter(|(_, open)| **open);
        let rest = rest.map(|(entry, _)| entry.key.as_str()).collect();
        self.open.fill(false);
        rest
    }

    /// Adds the problem that a key which must be there is not.
    pub(crate) fn missing(&self, key: &str, allowed: impl Display) {
        if self.wrong.is_some() {
            return;
        }
        self.node.problem(format_args!("`{key}` is missing; needed: {allowed}"));
    }

    /// Adds a problem for each key that was not taken.
    pub(crate) fn finish(self) {
        let Data::Map(entries) = &self.node.tree.data else {
            let mut problems = self.node.sink.problems.borrow_mut();
            if let Some(problem) = self.wrong.and_then(|place| problems.get_mut(place)) {
                problem.message.push_str(": ");
                problem.message.push_str(&self.known.join(", "));
            }
            return;
        };
        for (entry, _) in entries.iter().zip(&self.open).filter(|(_, open)| **open) {
            let message = self.unknown(&entry.key);
            self.node.problem_at(entry.line, &self.node.key_path(&entry.key), message);
        }
    }

    fn unknown(&self, key: &str) -> String {
        if key == "<<" {
            return "nothing to merge; allowed: a map or a list of maps".to_owned();
        }
        let meant = nearest(key, &self.known)
            .map(|known| format!(", did you mean `{known}`?"))
            .unwrap_or_default();
        format!("unknown key{meant}; allowed in {}: {}", self.kind, self.known.join(", "))
    }

    pub(crate) fn boolean(&mut self, key: &'static str, default: bool) -> bool {
        self.take(key).and_then(|node| node.boolean()).unwrap_or(default)
    }

    pub(crate) fn integer(
        &mut self,
        key: &'static str,
        range: RangeInclusive<u32>,
        default: u32,
    ) -> u32 {
        self.take(key).and_then(|node| node.integer(range)).unwrap_or(default)
    }

    pub(crate) fn duration(
        &mut self,
        key: &'static str,
        range: RangeInclusive<Duration>,
        default: Duration,
    ) -> Duration {
        self.take(key).and_then(|node| node.duration(range)).unwrap_or(default)
    }

    /// What `read` makes of the value of something that is off by default.
    pub(super) fn switched<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&Node<'a>) -> Option<T>,
    ) -> Option<T> {
        self.take(key).filter(|node| !node.is_off()).and_then(|node| read(&node))
    }

    /// What `read` makes of the value; `none` clears a default.
    pub(crate) fn optional<T>(
        &mut self,
        key: &'static str,
        default: Option<T>,
        read: impl FnOnce(&Node<'a>) -> Option<T>,
    ) -> Option<T> {
        match self.take(key) {
            None => default,
            Some(node) if node.as_text() == Some("none") => None,
            Some(node) => read(&node).or(default),
        }
    }
}
