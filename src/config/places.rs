//! Where the keys of a configuration stand in its file, for whoever is told what to write there.
//!
//! Knows keys by their path alone, and nothing of what is within lists.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::errors::{ConfigErrors, Problem};
use super::tree::{Data, Tree};

/// The lines of a file's keys; of nothing where no file was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Places {
    file: PathBuf,
    lines: BTreeMap<String, usize>,
}

impl Places {
    pub(super) fn of(tree: &Tree, file: &Path) -> Self {
        let mut places = Self { file: file.to_owned(), lines: BTreeMap::new() };
        places.add("", tree);
        places
    }

    fn add(&mut self, path: &str, tree: &Tree) {
        let Data::Map(entries) = &tree.data else { return };
        for entry in entries {
            let path = below(path, &entry.key);
            self.add(&path, &entry.value);
            self.lines.insert(path, entry.line);
        }
    }

    /// `FILE:LINE: KEY` of a key of the file itself. Where it isn't there, the line is that of the nearest
    /// key above it; where there is none of those either, no line is told.
    pub fn of_file(&self, key: &str) -> String {
        match (self.file.as_os_str().is_empty(), self.line(key)) {
            (true, _) => key.to_owned(),
            (false, 0) => format!("{}: {key}", self.file.display()),
            (false, line) => format!("{}:{line}: {key}", self.file.display()),
        }
    }

    /// A problem with the value of a key that only this machine can tell.
    pub fn problem(&self, key: &str, message: String) -> ConfigErrors {
        let (file, line, path) = (self.file.clone(), self.line(key), key.to_owned());
        ConfigErrors::new(&self.file, vec![Problem { file, line, path, message }])
    }

    fn line(&self, key: &str) -> usize {
        let mut paths =
            std::iter::successors(Some(key), |path| path.rsplit_once('.').map(|(above, _)| above));
        paths.find_map(|path| self.lines.get(path).copied()).unwrap_or(0)
    }

    /// The same for a key of a version, in whichever form the file has versions.
    pub fn of_version(&self, service: &str, version: &str, key: &str) -> String {
        let (named, versions) =
            (format!("services.{service}"), format!("services.{service}.versions"));
        let above = match () {
            () if self.lines.contains_key(&versions) => below(&versions, version),
            () if self.lines.contains_key(&named) => named,
            () => String::new(),
        };
        self.of_file(&below(&above, key))
    }
}

fn below(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tree;

    fn places(text: &str) -> Places {
        Places::of(&tree::read(text).unwrap(), Path::new("b.yaml"))
    }

    #[test]
    fn a_key_is_found_at_its_line_or_below_the_nearest_one() {
        let places = places(
            "services:\n  chat:\n    versions:\n      v1:\n        instances: [a:1]\n        \
             affinity:\n          cookie: X\n  web:\n    instances: [b:1]\n",
        );
        for (service, key, told) in [
            ("chat", "affinity.cookie", "b.yaml:7: services.chat.versions.v1.affinity.cookie"),
            ("chat", "affinity.header", "b.yaml:6: services.chat.versions.v1.affinity.header"),
            ("chat", "session_affinity", "b.yaml:4: services.chat.versions.v1.session_affinity"),
            ("web", "session_affinity", "b.yaml:8: services.web.session_affinity"),
        ] {
            assert_eq!(places.of_version(service, "v1", key), told);
        }
        assert_eq!(places.of_file("trusted_proxies"), "b.yaml: trusted_proxies");
    }

    #[test]
    fn a_file_that_is_one_version_and_no_file_at_all() {
        let small = places("instances: [a:1]\nsession_affinity: false\n");
        let key = "session_affinity";
        assert_eq!(small.of_version("default", "default", key), "b.yaml:2: session_affinity");
        assert_eq!(Places::default().of_version("default", "default", key), "session_affinity");
    }
}
