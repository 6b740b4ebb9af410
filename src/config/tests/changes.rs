//! What a reload is said to change.

use super::config;
use crate::config::diff;

/// The changes from one text to another, as the operator reads them.
fn changes(old: &str, new: &str) -> Vec<String> {
    diff(&config(old), &config(new)).iter().map(ToString::to_string).collect()
}

const VERSION: &str = "services: {chat: {versions: {v1: {instances: [127.0.0.1:9001] @}}}}";

#[test]
fn nothing_changes_between_equals_whatever_their_order() {
    let one = "services: {a: {hosts: [a], instances: [x:1, y:1]}, b: {instances: [x:1]}}";
    let two = "services: {b: {instances: [x:1]}, a: {hosts: [a], instances: [y:1, x:1]}}";
    assert_eq!(changes(one, one), [""; 0]);
    assert_eq!(changes(one, two), [""; 0]);
    let by_default = "instances: [a:1]";
    assert_eq!(changes(by_default, "instances: [a:1]\nadmin: {address: 127.0.0.1:9900}"), [""; 0]);
}

#[test]
fn instances_come_go_move_gain_weight_and_drain() {
    let old = "services: {chat: {versions: {v1: {instances: [
        a:1, b:1, {name: c, address: c:1}, {name: d, address: d:1, weight: 1}]}}}}";
    let new = "services: {chat: {versions: {v1: {instances: [
        {address: a:1, state: draining}, e:1, {name: c, address: c:2}, {name: d, address: d:1, weight: 3, max_requests: 9}]}}}}";
    assert_eq!(
        changes(old, new),
        [
            "chat/v1: instance a:1 state active -> draining",
            "chat/v1: instance e:1 added",
            "chat/v1: instance c address c:1 -> c:2",
            "chat/v1: instance d limits changed",
            "chat/v1: instance d weight 1 -> 3",
            "chat/v1: instance b:1 removed",
        ]
    );
}

#[test]
fn each_setting_of_a_version_is_named() {
    let plain = VERSION.replace('@', "");
    for (setting, expected) in [
        ("session_affinity: true", "session_affinity"),
        ("balance: random", "balance"),
        ("tls: {verify: false}", "tls"),
        ("protocol: http2", "protocol"),
        ("readiness_check: {}", "readiness_check"),
        ("liveness_check: {}", "liveness_check"),
        ("proxy_protocol: v2", "proxy_protocol"),
        ("breaker: off", "breaker"),
        ("panic_threshold: 50%", "panic_threshold"),
        ("slow_start: 30s", "slow_start"),
        ("retry: off", "retry"),
        ("queue: {max: 1}", "queue"),
        ("concurrency: {}", "concurrency"),
        ("upgrades: [websocket, foo]", "upgrades"),
        ("websocket: {max_lifetime: none}", "websocket"),
        ("websocket: {closes: {idle: {code: 4000}}}", "websocket"),
        ("rebalance: {mode: bounded}", "rebalance"),
        ("discovery: {file: a}", "discovery"),
        ("discovery: {kubernetes: {service: a}}", "discovery"),
        ("discovery: {docker: {service: a}}", "discovery"),
        ("drain: {spread: 0s}", "drain"),
        ("rate_limit: {requests: 1}", "rate_limit"),
        ("timeouts: {idle: 1s}", "timeouts"),
        ("limits: {max_body: 1}", "limits"),
    ] {
        let new = VERSION.replace('@', &format!(", {setting}"));
        assert_eq!(changes(&plain, &new), [format!("chat/v1: {expected} changed")]);
    }
    let sticky = VERSION.replace('@', ", session_affinity: true");
    let named = VERSION.replace('@', ", session_affinity: true, affinity: {cookie: X}");
    assert_eq!(changes(&sticky, &named), ["chat/v1: affinity changed"]);
}

#[test]
fn services_and_versions_come_and_go() {
    let old =
        "services: {a: {hosts: [a], instances: [x:1]}, b: {versions: {v1: {instances: [x:1]}}}}";
    let new = "services: {b: {hosts: [b], paths: [/b], access: {deny: ['::1']}, versions: {v2: {instances: [x:1]}}}, \
               c: {instances: [x:1]}}";
    assert_eq!(
        changes(old, new),
        [
            "b: hosts changed",
            "b: paths changed",
            "b: access changed",
            "b/v2: version added",
            "b/v1: version removed",
            "service c added",
            "service a removed",
        ]
    );
}

#[test]
fn settings_of_the_process_and_listeners() {
    let new = "instances: [a:1]\nworkers: 2\nlisteners: [\":80\"]\ntrusted_proxies: [10.0.0.0/8]\n\
               forwarding: {forwarded: true}\nadmin: off\naccess_log: false\ntracing: {endpoint: 'http://a/'}\n\
               timeouts: {keep_alive: 1s}\nlimits: {uri: 1}\nshutdown: {timeout: 60s}\n\
               upgrade: {timeout: 60s}\nuser: www-data\n\
               fleet: {etcd: {endpoints: ['http://a:1'], prefix: /f}}\n";
    assert_eq!(
        changes("instances: [a:1]", new),
        [
            "workers: takes effect after a restart",
            "user: takes effect after a restart",
            "trusted_proxies: changed",
            "forwarding: changed",
            "admin: changed",
            "access_log: changed",
            "fleet: changed",
            "tracing: changed",
            "timeouts: changed",
            "limits: changed",
            "shutdown: changed",
            "upgrade: changed",
            "listener 0.0.0.0:80 added",
            "listener 0.0.0.0:8080 removed",
        ]
    );
}

#[test]
fn keys_are_counted_and_never_shown() {
    let [a, b] = ["A", "B"].map(|letter| format!("{}A=", letter.repeat(42)));
    let keys = |list: &str| format!("instances: [a:1]\naffinity_keys: [{list}]");
    assert_eq!(changes(&keys(&a), &keys(&b)), ["affinity_keys: 1 added, 1 removed"]);
    let both = changes(&keys(&format!("{a}, {b}")), &keys(&format!("{b}, {a}")));
    assert_eq!(both, ["affinity_keys: order changed"]);
}

#[test]
fn routes_are_a_setting_of_their_service() {
    let with = |routes: &str| format!("services: {{a: {{instances: [x:1], routes: {routes}}}}}");
    let new = with("[{paths: [/x], rewrite_prefix: /y}]");
    assert_eq!(changes(&with("[]"), &new), ["a: routes changed"]);
}

#[test]
fn a_mirror_is_a_setting_of_its_service() {
    let with = |rest: &str| {
        format!(
            "services: {{a: {{traffic_split: {{allocations: {{v: 1}}}}, {rest} versions: \
             {{v: {{instances: [x:1]}}, w: {{instances: [y:1]}}}}}}}}"
        )
    };
    let (off, on) = (with(""), with("mirror: {to: w},"));
    assert_eq!(changes(&off, &with("mirror: off,")), [""; 0]);
    assert_eq!(changes(&off, &on), ["a: mirror changed"]);
    assert_eq!(changes(&on, &with("mirror: {to: w, share: 5%},")), ["a: mirror changed"]);
    assert_eq!(changes(&on, &with("mirror: {to: w, share: 100%, max_body: 64KiB},")), [""; 0]);
}

#[test]
fn shares_of_versions_are_told_in_per_cent() {
    let with = |split: &str| {
        format!(
            "services: {{a: {{traffic_split: {split}, versions: {{v1: {{instances: [x:1]}}, v2: {{instances: [y:1]}}}}}}}}"
        )
    };
    let old = with("{allocations: {v1: 99, v2: 1}}");
    assert_eq!(changes(&old, &with("{allocations: {v2: 0.01, v1: 0.99}}")), [""; 0]);
    assert_eq!(
        changes(&old, &with("{allocations: {v1: 0.95, v2: 0.05}}")),
        ["a/v1: share 99% -> 95%", "a/v2: share 1% -> 5%"]
    );
    assert_eq!(
        changes(&old, &with("{shard_by: ip, allocations: {v1: 99, v2: 1}}")),
        ["a: traffic_split changed"]
    );
    let one = "services: {a: {versions: {v1: {instances: [x:1]}}}}";
    assert_eq!(
        changes(one, &old),
        ["a: traffic_split changed", "a/v1: share 100% -> 99%", "a/v2: version added"]
    );
}
