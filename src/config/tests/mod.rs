//! Tables that hold the whole room to its promises, one file per promise.

mod accepted;
mod app_yaml;
mod changes;
mod etcd;
mod fleet;
mod instance_tls;
mod problems;
mod ranges;
mod reference;
mod round_trip;
mod tls;
mod units;
mod yaml;

use std::path::{Path, PathBuf};

use super::types::Config;
use super::{ConfigErrors, Loaded, parse};

/// Problems name this file.
const FILE: &str = "c.yaml";

fn parsed(text: &str) -> Result<Loaded, ConfigErrors> {
    parse(text, Path::new(FILE))
}

/// The configuration in `text`, which must be fine.
fn config(text: &str) -> Config {
    parsed(text).unwrap_or_else(|errors| panic!("{errors}\nin:\n{text}")).config
}

/// What is reported about `text`, which must be wrong.
fn errors(text: &str) -> String {
    match parsed(text) {
        Ok(_) => panic!("accepted:\n{text}"),
        Err(errors) => errors.to_string(),
    }
}

/// One instance, followed by `text`.
fn with_instance(text: &str) -> String {
    format!("instances: [a:1]\n{text}")
}

/// A folder of its own for each test; removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("burdock-{}-{test}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// `errors` without the folder's own name.
    fn relative(&self, errors: &ConfigErrors) -> String {
        errors.to_string().replace(&format!("{}/", self.0.display()), "")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
