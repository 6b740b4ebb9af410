//! `config/reference.yaml` and `config/minimal.yaml` say what the code does.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::tls::certificates;
use super::{Folder, config, with_instance};
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
    let version = &config.services[0].versions[0];
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
    defaults.admin = Some(Admin::at(Admin::DEFAULT_ADDRESS, true));
    assert_eq!(reference, defaults);
}

/// Forms that stand in comments of reference.yaml, since they exclude the forms that stand there.
const OTHER_FORMS: [&str; 15] = [
    "instances: [a:1]\nfleet: {etcd: {endpoints: ['https://a:1'], prefix: a}}\n",
    "instances: [a:1]\ntracing: {endpoint: 'http://a/'}\n",
    "instances: [a:1]\naccess_log: {}\n",
    "instances: [a:1]\naffinity_keys: {keys: [AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=]}\n",
    "instances: [a:1]\nrate_limit: {requests: 1}\n",
    "discovery: {dns: 'a:1'}\n",
    "discovery: {etcd: {endpoints: ['https://a:1'], prefix: a}}\n",
    "discovery: {kubernetes: {service: a}}\n",
    "discovery: {docker: {service: a}}\n",
    "instances: [a:1]\nnetwork: {session_affinity: true}\n",
    "instances: [a:1]\nconcurrency: {}\n",
    "instances: [a:1]\ntls: {verify: false}\n",
    "services: {a: {versions: {v: {instances: [a:1]}}, routes: [{paths: [/b], redirect: {to: /c}}, \
     {paths: [/d], request_headers: {}}]}}",
    "services: {a: {versions: {v: {instances: [a:1]}}, traffic_split: {allocations: {v: 1}}}}\n",
    "services: {a: {versions: {v: {instances: [a:1]}, w: {instances: [b:1]}}, mirror: {to: w}, \
     traffic_split: {allocations: {v: 1}}}}\n",
];

/// What a listener with TLS asks for; its files are made for it.
fn asked_of_tls() -> BTreeSet<(&'static str, &'static str)> {
    let folder = Folder::new("reference-tls");
    certificates(&folder, &["a"]);
    folder.file("t.keys", "q83vq83vq83vq83vq83vq83vq83vq83vq83vq83vq80=");
    let text = "listeners:\n  - address: :443\n    tls:\n      \
                certificates: [{ cert: F/a.pem, key: F/a.key }]\n      \
                tickets: { file: F/t.keys }\n      hsts: {}\n      \
                acme: { domains: [a.test], agree_to_terms: true, ca: F/a.pem, \
                external_account: { key_id: x, key_file: F/t.keys } }\n      \
                client_certificates: { ca: F/a.pem }\n  \
                - { address: ':80', https_redirect: {} }\n";
    let text = text.replace("F/", &format!("{}/", folder.0.display()));
    let is_of_tls = |kind: &str| kind != "configuration" && kind != "version";
    asked(&with_instance(&text)).into_iter().filter(|(kind, _)| is_of_tls(kind)).collect()
}

/// Every kind of map that the code reads; a kind that is missing here is found by its parent's row.
const KINDS: [&str; 52] = [
    "configuration",
    "listener",
    "access",
    "https_redirect",
    "tls",
    "certificate",
    "acme",
    "external_account",
    "tickets",
    "client_certificates",
    "hsts",
    "forwarding",
    "admin",
    "fleet",
    "etcd",
    "access_log",
    "tracing",
    "affinity_keys",
    "timeouts",
    "limits",
    "drain",
    "service",
    "route",
    "redirect",
    "headers",
    "traffic_split",
    "mirror",
    "version",
    "instance",
    "discovery",
    "etcd",
    "kubernetes",
    "docker",
    "instance tls",
    "network",
    "affinity",
    "cookie",
    "readiness_check",
    "liveness_check",
    "breaker",
    "retry",
    "queue",
    "concurrency",
    "websocket",
    "closes",
    "close",
    "leaving",
    "exit",
    "rebalance",
    "rate_limit",
    "version timeouts",
    "version limits",
];

#[test]
fn reference_yaml_has_a_row_for_each_key_of_each_map() {
    let text = std::fs::read_to_string(sample("reference.yaml")).unwrap();
    let mut known = asked(&text);
    for form in OTHER_FORMS {
        // Their version stands at the top level, where reference.yaml has none.
        known.extend(asked(form).into_iter().filter(|(kind, _)| *kind != "configuration"));
    }
    known.extend(asked_of_tls());
    let kinds: BTreeSet<&str> = known.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, KINDS.into_iter().collect());
    for (kind, key) in &known {
        let is_row = |line: &&str| {
            let row = line.trim_start_matches([' ', '#', '-']);
            row.strip_prefix(key).is_some_and(|rest| rest.starts_with(':'))
        };
        let rows = text.lines().filter(is_row).count();
        let maps = known.iter().filter(|(_, other)| other == key).count();
        assert!(
            rows >= maps,
            "{kind}.{key}: {rows} rows in reference.yaml for {maps} kinds of map"
        );
    }
}

#[test]
fn the_keys_of_a_version_are_known_to_be_such_at_the_top_level() {
    let asked = asked("services: {a: {versions: {b: {instances: [a:1]}}}}");
    let read: BTreeSet<&str> =
        asked.iter().filter(|(kind, _)| *kind == "version").map(|(_, key)| *key).collect();
    let listed = VERSION_KEYS.into_iter().chain(["timeouts", "limits"]).collect();
    assert_eq!(read, listed);
}
