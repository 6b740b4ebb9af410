//! What a fine file becomes: shorthand, defaults, forms of a value, and which files are watched.

use std::time::Duration;

use super::{Folder, config};
use crate::config::types::{
    Admin, Affinity, Balance, Breaker, Check, HashKey, Retry, SameSite, Timeouts, Workers,
};
use crate::config::{load, minimal};

#[test]
fn the_smallest_file_has_every_default() {
    let config = config("instances: [127.0.0.1:9001, 127.0.0.1:9002]\nsession_affinity: true\n");
    assert_eq!(config.workers, Workers::Auto);
    assert_eq!(config.listeners[0].address, ([0, 0, 0, 0], 8080).into());
    assert_eq!(config.admin, Some(Admin::at(Admin::DEFAULT_ADDRESS, false)));
    let [service] = &config.services[..] else { panic!("one service") };
    assert_eq!((&service.name[..], &service.versions[0].name[..]), ("default", "default"));
    assert_eq!((service.hosts.len(), &service.paths[..]), (0, &["/".to_owned()][..]));
    let version = &service.versions[0];
    assert_eq!(version.affinity, Some(Affinity::default()));
    assert_eq!(version.breaker, Some(Breaker::default()));
    assert_eq!((version.readiness_check.as_ref(), version.liveness_check.as_ref()), (None, None));
    assert_eq!(version.instances[1].name, "127.0.0.1:9002");
    assert_eq!(version.instances[1].weight, 1);
}

#[test]
fn minimal_is_what_the_smallest_file_is() {
    let instances = ["127.0.0.1:9001".to_owned(), "[::1]:9001".to_owned()];
    let text = "instances: [127.0.0.1:9001, '[::1]:9001']\nsession_affinity: true\n";
    assert_eq!(minimal(&instances, true), Ok(config(text)));
    assert!(minimal(&instances, false).unwrap().services[0].versions[0].affinity.is_none());
}

#[test]
fn the_three_places_of_a_version_mean_the_same() {
    let whole = config("instances: [a:1]\nretry: off\ntimeouts: {idle: 5s}\n");
    let short = config("services: {default: {instances: [a:1], retry: off, timeouts: {idle: 5s}}}");
    let long = config(
        "services: {default: {versions: {default: \
         {instances: [a:1], retry: off, timeouts: {idle: 5s}}}}}",
    );
    assert_eq!(whole, short);
    assert_eq!(short, long);
}

#[test]
fn timeouts_of_the_file_are_the_defaults_of_versions() {
    let config = config(
        "timeouts: {header_read: 1s, connect: 3s, idle: 4s}\n\
         services: {a: {hosts: [a], instances: [a:1], timeouts: {idle: 5s}}, b: {instances: [a:1]}}",
    );
    assert_eq!(config.client_timeouts.header_read, Duration::from_secs(1));
    let [a, b] = [0, 1].map(|index| config.services[index].versions[0].timeouts);
    let connect = Duration::from_secs(3);
    assert_eq!(a, Timeouts { connect, idle: Duration::from_secs(5), ..Timeouts::default() });
    assert_eq!(b, Timeouts { connect, idle: Duration::from_secs(4), ..Timeouts::default() });
}

#[test]
fn values_take_their_forms() {
    let config = config(
        "listeners: [':80', {address: '[::1]:81'}]\ntrusted_proxies: [192.0.2.1, '2001:db8::/32']\n\
         services:\n  a:\n    hosts: [Chat.Example, '*.X']\n    instances: [{name: n, address: 'h:1'}]\n    \
         balance: hash\n    hash_by: header X-User\n    retry: {attempts: 1, max_body: 1KiB, budget: 0.5%}\n    \
         drain: {timeout: 5s}\n    session_affinity: true\n    \
         affinity: {cookie: {same_site: none, domain: .Example.com}, ttl: 12h, idle_ttl: 30m}\n",
    );
    let listeners: Vec<String> = config.listeners.iter().map(|it| it.address.to_string()).collect();
    assert_eq!(listeners, ["0.0.0.0:80", "[::1]:81"]);
    assert_eq!(config.trusted_proxies[0].to_string(), "192.0.2.1/32");
    let service = &config.services[0];
    assert_eq!(service.hosts, ["chat.example", "*.x"]);
    let version = &service.versions[0];
    assert_eq!(version.balance, Balance::Hash(HashKey::Header("x-user".to_owned())));
    let retry = Retry { attempts: 1, max_body: 1024, budget: 50, ..Retry::default() };
    assert_eq!(version.retry, retry);
    // Less than the default spread is left, so that is all there is.
    assert_eq!(version.drain.spread, Duration::from_secs(5));
    let affinity = version.affinity.as_ref().unwrap();
    assert_eq!(affinity.cookie.same_site, SameSite::None);
    assert_eq!(affinity.cookie.domain.as_deref(), Some("example.com"));
    assert_eq!(affinity.idle_ttl, Some(Duration::from_secs(1800)));
}

#[test]
fn checks_take_seconds_fractions_and_durations() {
    let config = config(
        "instances: [a:1]\nreadiness_check:\n  timeout_sec: 0.25\n  check_interval: 100ms\n  \
         initial_state: ready\n  expected_statuses: [204, '300-399']\n\
         liveness_check: {initial_delay: 0s, timeout_sec: 300, check_interval_sec: 1}\n",
    );
    let version = &config.services[0].versions[0];
    let readiness = version.readiness_check.as_ref().unwrap();
    assert_eq!(readiness.timeout, Duration::from_millis(250));
    assert_eq!(readiness.interval, Duration::from_millis(100));
    assert_eq!(readiness.expected_statuses, [(204, 204), (300, 399)]);
    let liveness = version.liveness_check.as_ref().unwrap();
    assert_eq!(liveness.initial_delay, Duration::ZERO);
    assert_eq!(liveness.failure_threshold, Check::liveness().failure_threshold);
}

#[test]
fn keys_are_read_from_either_place_in_either_alphabet() {
    let folder = Folder::new("keys");
    let standard = "+/+/+/+/+/+/+/+/+/+/+/+/+/+/+/+/+/+/+/+/+/8=";
    let url_safe = "-_-_-_-_-_-_-_-_-_-_-_-_-_-_-_-_-_-_-_-_-_8";
    let zero = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let [inline, map] =
        [format!("[{zero}, {standard}]"), format!("{{keys: [{zero}, {url_safe}]}}")].map(|keys| {
            config(&format!("instances: [a:1]\naffinity_keys: {keys}\n")).affinity_keys
        });
    assert_eq!(inline, map);
    assert_eq!((inline.file, inline.inline[0]), (None, [0; 32]));

    folder.file("k", format!("# newest first\n\n{zero} # new\n  {url_safe}  \r\n"));
    let file = folder.file("c.yaml", "instances: [a:1]\naffinity_keys: { file: k }\n");
    let loaded = load(&file).unwrap();
    assert_eq!(loaded.config.affinity_keys.inline, map.inline);
    assert_eq!(loaded.config.affinity_keys.file, Some(folder.0.join("k")));
    assert_eq!(loaded.watched, [file, folder.0.join("k")]);
}

#[test]
fn paths_start_at_the_folder_of_the_file_and_are_watched_once() {
    let folder = Folder::new("watched");
    let app = folder.file("app.yaml", "runtime: go\n");
    let file = folder.file(
        "c.yaml",
        "services: {a: {hosts: [a], instances: [a:1], app_yaml: app.yaml}, \
         b: {instances: [a:1], app_yaml: app.yaml}}",
    );
    let loaded = load(&file).unwrap();
    assert_eq!(loaded.watched, [file, app]);
    assert_eq!(loaded.notes, ["app.yaml: ignored here: runtime"]);
}
