//! App Engine's app.yaml, taken as it is.

use std::time::Duration;

use super::{Folder, config};
use crate::config::types::{Check, Version};
use crate::config::{from_app_yaml, load};

const FLEXIBLE: &str = "\
runtime: custom
env: flex
service: chat
network:
  name: default
  session_affinity: true
resources: { cpu: 1, memory_gb: 0.5 }
env_variables:
  KEY: value
automatic_scaling:
  min_num_instances: 2
liveness_check:
  path: \"/healthz\"
  check_interval_sec: 30
  timeout_sec: 4
  failure_threshold: 2
  success_threshold: 2
  initial_delay_sec: 10
readiness_check:
  path: \"/readyz\"
  app_start_timeout_sec: 1800
";

fn version(folder: &Folder, app: &str, own: &str) -> Version {
    folder.file("app.yaml", app);
    let file = folder.file("c.yaml", format!("instances: [a:1]\napp_yaml: app.yaml\n{own}"));
    let mut config = load(&file).unwrap_or_else(|errors| panic!("{errors}")).config;
    config.services.remove(0).versions.remove(0)
}

#[test]
fn an_app_yaml_is_read_as_it_is() {
    let folder = Folder::new("as-it-is");
    let app = folder.file("app.yaml", FLEXIBLE);
    let loaded = from_app_yaml(&app, &["a:1".to_owned(), "b:1".to_owned()]).unwrap();
    let version = &loaded.config.services[0].versions[0];
    assert!(version.affinity.is_some());
    assert_eq!(version.instances.len(), 2);
    let liveness = version.liveness_check.as_ref().unwrap();
    assert_eq!(liveness.path.as_deref(), Some("/healthz"));
    assert_eq!(liveness.initial_delay, Duration::from_secs(10));
    assert_eq!(liveness.failure_threshold, 2);
    let readiness = Check {
        path: Some("/readyz".to_owned()),
        app_start_timeout: Duration::from_secs(1800),
        ..Check::readiness()
    };
    assert_eq!(version.readiness_check, Some(readiness));
    assert_eq!(
        loaded.notes,
        [
            "app.yaml: ignored here: automatic_scaling, env, env_variables, network.name, resources, \
          runtime, service"
        ]
    );
    assert_eq!(loaded.watched, [app]);
}

#[test]
fn readiness_is_checked_even_where_it_is_not_asked_for() {
    let folder = Folder::new("default-check");
    for app in ["runtime: go\n", "readiness_check:\n", "readiness_check: {}\nnetwork:\n", "{}"] {
        let version = version(&folder, app, "");
        assert_eq!(version.readiness_check, Some(Check::readiness()), "{app}");
        assert_eq!(version.liveness_check, None, "{app}");
        assert!(version.affinity.is_none(), "{app}");
    }
    assert_eq!(config("instances: [a:1]").services[0].versions[0].readiness_check, None);
}

#[test]
fn truth_is_read_as_app_engine_reads_it() {
    let folder = Folder::new("truth");
    for (word, is_on) in [
        ("true", true),
        ("yes", true),
        ("On", true),
        ("false", false),
        ("no", false),
        ("off", false),
    ] {
        let direct = version(&folder, &format!("session_affinity: {word}\n"), "");
        let nested = version(&folder, &format!("network: {{session_affinity: {word}}}\n"), "");
        assert_eq!(
            (direct.affinity.is_some(), nested.affinity.is_some()),
            (is_on, is_on),
            "{word}"
        );
    }
}

#[test]
fn keys_beside_app_yaml_win_over_it_one_by_one() {
    let folder = Folder::new("win");
    let own = "session_affinity: false\nliveness_check: off\nreadiness_check: {timeout: 500ms}\n";
    let merged = version(&folder, FLEXIBLE, own);
    assert!(merged.affinity.is_none());
    assert_eq!(merged.liveness_check, None);
    let readiness = merged.readiness_check.unwrap();
    assert_eq!(readiness.timeout, Duration::from_millis(500));
    assert_eq!(readiness.path.as_deref(), Some("/readyz"));
    let pathless = version(&folder, FLEXIBLE, "readiness_check: {path: none}\n");
    assert_eq!(pathless.readiness_check.unwrap().path, None);
    let named = version(&folder, FLEXIBLE, "affinity: {cookie: X}\n");
    assert_eq!(named.affinity.unwrap().cookie.name, "X");
}

#[test]
fn problems_of_an_app_yaml_are_at_its_own_lines() {
    let folder = Folder::new("problems");
    folder.file(
        "app.yaml",
        "runtime: go\nsession_affinity: maybe\nliveness_check:\n  timeout_sec: 0.5\n  \
         check_interval: 5s\n  app_start_timeout_sec: 5\nreadiness_check:\n  path: x\n  \
         failure_threshold: 11\n  failure_treshold: 2\n",
    );
    let file = folder.file("c.yaml", "instances: [a]\napp_yaml: app.yaml\n");
    let errors = load(&file).unwrap_err();
    let found: Vec<String> = folder
        .relative(&errors)
        .lines()
        .map(|line| line.splitn(4, ':').take(3).collect::<Vec<_>>().join(":"))
        .collect();
    assert_eq!(
        found,
        [
            "c.yaml:1: instances[0]",
            "app.yaml:2: session_affinity",
            "app.yaml:4: liveness_check.timeout_sec",
            "app.yaml:5: liveness_check.check_interval",
            "app.yaml:6: liveness_check.app_start_timeout_sec",
            "app.yaml:8: readiness_check.path",
            "app.yaml:9: readiness_check.failure_threshold",
            "app.yaml:10: readiness_check.failure_treshold",
        ],
        "{errors}"
    );
    assert!(errors.to_string().contains("did you mean `failure_threshold`?"), "{errors}");
}

#[test]
fn an_app_yaml_that_is_none_is_refused() {
    let folder = Folder::new("none");
    for (app, message) in [
        ("- a\n", "app.yaml:1: found a list; allowed: a map of app.yaml keys"),
        ("a: [\n", "app.yaml:2: not valid YAML"),
        ("", "app.yaml:1: no value; allowed"),
    ] {
        let errors = from_app_yaml(&folder.file("app.yaml", app), &["a:1".to_owned()]).unwrap_err();
        assert!(folder.relative(&errors).starts_with(message), "{errors}");
    }
    let missing = from_app_yaml(&folder.0.join("no.yaml"), &["a:1".to_owned()]).unwrap_err();
    assert!(missing.to_string().starts_with("command line: app_yaml: cannot read "), "{missing}");
}
