//! What `deploy/` ships works as far as this machine can tell: manifests refer to what exists, every
//! configuration loads, the demo runs, and examples for those who come from other balancers are whole.
//! Engines and clusters are not needed; what a missing program keeps from being checked is said.

#![allow(
    unreachable_pub,
    missing_docs,
    missing_debug_implementations,
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test may panic, and nobody reads its documentation elsewhere"
)]

mod build;
mod debian;
mod docker;
mod fields;
mod kubernetes;
mod migration;

use std::path::{Path, PathBuf};

use serde_json::Value;

/// Something that is shipped.
fn deployed(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(path)
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every document of a YAML file, with what is merged into it.
fn documents(path: &Path) -> Vec<Value> {
    let text = read(path);
    let whole = |document| -> Result<Value, serde_yaml::Error> {
        let mut document: serde_yaml::Value = serde::Deserialize::deserialize(document)?;
        document.apply_merge()?;
        serde_yaml::from_value(document)
    };
    let documents = serde_yaml::Deserializer::from_str(&text).map(whole);
    documents
        .map(|document| document.unwrap_or_else(|e| panic!("{}: {e}", path.display())))
        .collect()
}

/// Whether a program is there; says that something is left out if it is not.
fn can_run(program: &str, argument: &str) -> bool {
    let there = std::process::Command::new(program).arg(argument).output().is_ok();
    if !there {
        eprintln!("skipped: {program} is not installed");
    }
    there
}
