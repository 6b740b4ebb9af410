//! `config/reference.yaml` and `config/minimal.yaml` say what the code does.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::config;
use crate::config::node::{Node, Sink};
use crate::config::types::{Admin, Config};
use crate::config::validate::version::VERSION_KEYS;
use crate::config::{load, tree, validate};

fn sample(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name)
}

fn loaded(name: &str) -> Config {
    load(&sample(name)).unwrap_or_else(|errors| panic!("{errors}")).config
}

/// Map kind and key of everything that reading `text` asks for.
fn asked(text: &str) -> BTreeSet<(&'static str, &'static str)> {
    let tree = tree::read(text).unwrap();
    let sink = Sink::default();
    validate::config(&Node::root(&tree, Path::new("c.yaml"), &sink));
    assert_eq!(sink.problems.into_inner(), []);
    sink.asked.into_inner()
}

#[test]
fn minimal_yaml_is_three_instances_with_affinity() {
    let config = loaded("minimal.yaml");
    let version = &config.services[0].version;
    assert_eq!(version.instances.len(), 3);
    assert!(version.affinity.is_some());
}

#[test]
fn reference_yaml_shows_the_defaults() {
    let reference = loaded("reference.yaml");
    let mut defaults = config(
        "instances: [127.0.0.1:9001]\nsession_affinity: true\nreadiness_check: {}\n\
         liveness_check: {}\n",
    );
    // The one value that a file cannot give without showing that it was given.
    defaults.admin = Some(Admin { address: Admin::DEFAULT_ADDRESS, explicit: true });
    assert_eq!(reference, defaults);
}

#[test]
fn reference_yaml_names_every_key() {
    let text = std::fs::read_to_string(sample("reference.yaml")).unwrap();
    let rows: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.trim_start_matches([' ', '#', '-']).split_once(':'))
        .map(|(key, _)| key)
        .collect();
    let asked = asked(&text);
    for (kind, key) in &asked {
        assert!(rows.contains(key), "{kind}.{key} has no row in reference.yaml");
    }
    // Kinds whose keys stand in comments are not asked for; these three have no other form there.
    let kinds: BTreeSet<&str> = asked.iter().map(|(kind, _)| *kind).collect();
    for kind in [
        "configuration",
        "listener",
        "forwarding",
        "admin",
        "timeouts",
        "drain",
        "service",
        "version",
        "instance",
        "affinity",
        "cookie",
        "readiness_check",
        "liveness_check",
        "breaker",
        "retry",
        "websocket",
        "version timeouts",
    ] {
        assert!(kinds.contains(kind), "reference.yaml shows no {kind} map");
    }
}

#[test]
fn each_map_of_reference_yaml_holds_every_key_of_its_kind() {
    let text = std::fs::read_to_string(sample("reference.yaml")).unwrap();
    // As comments are rows too, a form that excludes another can stand beside it.
    for (kind, key) in asked(&text) {
        let count = text
            .lines()
            .filter(|line| {
                let row = line.trim_start_matches([' ', '#', '-']);
                row.strip_prefix(key).is_some_and(|rest| rest.starts_with(':'))
            })
            .count();
        let kinds = asked(&text).iter().filter(|(_, other)| *other == key).count();
        assert!(count >= kinds, "{kind}.{key}: {count} rows for {kinds} kinds of map");
    }
}

#[test]
fn the_keys_of_a_version_are_known_to_be_such_at_the_top_level() {
    let asked = asked("services: {a: {versions: {b: {instances: [a:1]}}}}");
    let read: BTreeSet<&str> =
        asked.iter().filter(|(kind, _)| *kind == "version").map(|(_, key)| *key).collect();
    let listed = VERSION_KEYS.into_iter().chain(["timeouts"]).collect();
    assert_eq!(read, listed);
}
