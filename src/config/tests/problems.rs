//! Every problem at once, each at its line, with its key path and what is allowed.

use super::{Folder, errors, parsed};
use crate::config::{load, minimal};

#[test]
fn all_problems_of_a_file_are_reported_in_the_order_of_lines() {
    let text = "\
workers: 0
listners: [0.0.0.0:80]
timeouts:
  conect: 2s
  idle: 60
services:
  chat:
    hosts: [Chat.example, chat.example]
    versions:
      v1:
        sesion_affinity: true
        instances:
          - 127.0.0.1:9001
          - { name: big, address: 127.0.0.1 }
          - address: 127.0.0.1:9001
            wieght: 2
        readiness_check:
          path: readyz
          check_interval_sec: 301
        websocket: { lifetime_jitter: 51% }
        drain:
          timeout: 5s
          spread: 6s
zzz: 1
";
    let expected = "\
c.yaml:1: workers: found the number 0; allowed: auto, or a whole number from 1 to 1024
c.yaml:2: listners: unknown key, did you mean `listeners`?; allowed in configuration: workers, \
fleet, trusted_proxies, listeners, forwarding, admin, affinity_keys, access_log, tracing, timeouts, limits, shutdown, \
upgrade, user, services
c.yaml:4: timeouts.conect: unknown key, did you mean `connect`?; allowed in timeouts: header_read, \
keep_alive, connect, first_byte, idle
c.yaml:5: timeouts.idle: the number 60 has no unit, write 60s or 60ms; allowed: a duration from 1ms \
to 365d, such as 500ms, 2s, 30m or 12h
c.yaml:8: services.chat.hosts[1]: chat.example is listed twice; allowed: once
c.yaml:11: services.chat.versions.v1.sesion_affinity: unknown key, did you mean `session_affinity`?; \
allowed in version: timeouts, limits, app_yaml, session_affinity, network, affinity, balance, hash_by, \
discovery, instances, tls, protocol, readiness_check, liveness_check, proxy_protocol, breaker, panic_threshold, slow_start, retry, queue, \
concurrency, upgrades, websocket, rebalance, drain, rate_limit
c.yaml:14: services.chat.versions.v1.instances[1].address: found \"127.0.0.1\"; allowed: IP:PORT, \
\"[IPv6]:PORT\" in quotes or HOST:PORT, port 1 to 65535
c.yaml:15: services.chat.versions.v1.instances[2]: address 127.0.0.1:9001 is listed twice; allowed: once
c.yaml:16: services.chat.versions.v1.instances[2].wieght: unknown key, did you mean `weight`?; \
allowed in instance: address, name, weight, state, max_requests, max_tunnels
c.yaml:18: services.chat.versions.v1.readiness_check.path: found \"readyz\"; allowed: a path that \
starts with /, without spaces or control characters
c.yaml:19: services.chat.versions.v1.readiness_check.check_interval_sec: found the number 301; \
allowed: a number of seconds from 1 to 300, fractions down to 10ms
c.yaml:20: services.chat.versions.v1.websocket.lifetime_jitter: found \"51%\"; allowed: a percentage \
from 0% to 50%, such as 5% or 0.5%
c.yaml:23: services.chat.versions.v1.drain.spread: longer than `timeout`; allowed: up to the value of \
`timeout`
c.yaml:24: zzz: unknown key; allowed in configuration: workers, fleet, trusted_proxies, listeners, \
forwarding, admin, affinity_keys, access_log, tracing, timeouts, limits, shutdown, upgrade, user, services";
    assert_eq!(errors(text), expected);
}

/// The first problem of each text: its line, its path, a part of its message.
const FIRST: &[(&str, usize, &str, &str)] = &[
    ("", 0, "", "the file is empty; needed: at least `instances: [HOST:PORT]`"),
    ("# nothing\n", 0, "", "the file is empty"),
    ("---\n", 0, "", "the file is empty"),
    ("hello", 1, "", "found \"hello\"; allowed: a map of configuration keys"),
    (
        "- a\n",
        1,
        "",
        "found a list; allowed: a map of configuration keys: workers, fleet, trusted_proxies, ",
    ),
    ("access_log: true\n", 1, "", "`instances` is missing; needed: a list of addresses"),
    ("\n\nsession_affinity: true\n", 3, "", "`instances` is missing"),
    ("instances:\n", 1, "instances", "no value; allowed: a list of addresses"),
    ("instances: []\n", 1, "instances", "no instance; needed: at least one"),
    ("instances:\n\n  - name: x\n", 3, "instances[0]", "`address` is missing"),
    (
        "instances:\n  - a:1\n  - 9001\n",
        3,
        "instances[1]",
        "found the number 9001; allowed: IP:PORT",
    ),
    ("instances:\n  - {address: a:1, weight: 0}\n", 1, "instances", "every weight is 0"),
    ("instances: [a:1]\ndiscovery: {}\n", 2, "discovery", "it names no source; needed: one of dns"),
    (
        "instances: [a:1]\ndiscovery: {file: a, dns: 'a:1'}\n",
        2,
        "discovery",
        "it names more than one source; allowed: one of dns",
    ),
    (
        "discovery: {docker: {}}\n",
        1,
        "discovery.docker",
        "`service` is missing; needed: the value of the containers' label",
    ),
    (
        "discovery: {kubernetes: {namespace: a}}\n",
        1,
        "discovery.kubernetes",
        "`service` is missing; needed: the name of a service",
    ),
    (
        "discovery: {kubernetes: {service: a, api: 'http://a', token_file: t}}\n",
        1,
        "discovery.kubernetes.token_file",
        "`api` is not https: anybody could read the token; allowed: none",
    ),
    ("instances: [a:1]\n1: x\n", 2, "1", "unknown key"),
    (
        "instances: [a:1]\nprotocol: http2\nproxy_protocol: v1\n",
        3,
        "proxy_protocol",
        "not with `protocol: http2`",
    ),
    ("instances: [a:1]\n[a]: x\n", 2, "[...]", "unknown key"),
    ("instances: [a:1]\nworkers: 2\nworkers: 3\n", 3, "workers", "given twice, first on line 2"),
    ("instances: [a:1]\nnull: 3\n", 2, "null", "unknown key"),
    (
        "instances: [a:1]\nbreaker:\n\n",
        2,
        "breaker",
        "no value; allowed: a map of breaker keys: failures, ",
    ),
    (
        "instances: [a:1]\nbreaker:\n  open:\n    soon\n",
        4,
        "breaker.open",
        "(no number before the unit)",
    ),
    ("instances: [a:1]\nbreaker: {open: 5 sec}\n", 2, "breaker.open", "(unknown unit)"),
    ("instances: [a:1]\nbreaker: {open: 0.5ms}\n", 2, "breaker.open", "(too fine)"),
    (
        "instances: [a:1]\nbreaker: {open: 1.5}\n",
        2,
        "breaker.open",
        "the number 1.5 has no unit, write 1.5s or 1.5ms",
    ),
    ("instances: [a:1]\naffinity: {}\n", 2, "affinity", "no effect while session_affinity is off"),
    (
        "instances: [a:1]\nsession_affinity: false\naffinity: {}\n",
        3,
        "affinity",
        "needed: session_affinity: true",
    ),
    (
        "instances: [a:1]\nsession_affinity: true\nnetwork:\n  session_affinity: true\n",
        4,
        "network.session_affinity",
        "given twice",
    ),
    ("instances: [a:1]\nhash_by: uri\n", 2, "hash_by", "no effect without `balance: hash`"),
    ("instances: [a:1]\nbalance: even\nhash_by: uri\n", 3, "hash_by", "no effect without"),
    (
        "instances: [a:1]\nreadiness_check:\n  timeout_sec: 4\n  timeout: 4s\n",
        4,
        "readiness_check.timeout",
        "given beside `timeout_sec`; allowed: one of the two",
    ),
    (
        "instances: [a:1]\nlisteners:\n  - 127.0.0.1:80\nadmin:\n  address: 127.0.0.1:80\n",
        5,
        "admin.address",
        "is also a listener",
    ),
    (
        "instances: [a:1]\nadmin: { address: 10.0.0.1:1 }\n",
        2,
        "admin.address",
        "there is no `token_file`; allowed: a loopback address",
    ),
    (
        "instances: [a:1]\ntrusted_proxies: [10.1.2.3/8]\n",
        2,
        "trusted_proxies[0]",
        "10.1.2.3/8 has bits set beyond its prefix; allowed: 10.0.0.0/8",
    ),
    (
        "session_affinity: true\nservices: {a: {instances: [a:1]}}\n",
        1,
        "session_affinity",
        "misplaced; it belongs in services.SERVICE.versions.VERSION",
    ),
    (
        "services:\n  a:\n    retry: off\n    versions:\n      v:\n        instances: [a:1]\n",
        3,
        "services.a.retry",
        "misplaced; it belongs in `versions`",
    ),
    (
        "services:\n  a:\n    timeouts: {}\n    versions:\n      v:\n        instances: [a:1]\n",
        3,
        "services.a.timeouts",
        "misplaced",
    ),
    (
        "services:\n  a:\n    versions:\n      v: {instances: [a:1]}\n      w: {instances: [a:1]}\n",
        2,
        "services.a",
        "2 versions and no `traffic_split`; needed: `traffic_split: { allocations: .. }`",
    ),
    (
        "services:\n  a: {instances: [a:1]}\n  b: {instances: [a:1]}\n",
        3,
        "services.b",
        "`a` and `b` both serve / of every host",
    ),
    (
        "services:\n  a: {hosts: [x, y], paths: [/p, /q], instances: [a:1]}\n  \
         b: {hosts: [Y], paths: [/q], instances: [a:1]}\n",
        3,
        "services.b",
        "`a` and `b` both serve /q of y",
    ),
    (
        "services:\n  a: {instances: [a:1]}\n  a: {instances: [a:1]}\n",
        3,
        "services.a",
        "given twice",
    ),
    (
        "services:\n  1: {instances: [a:1]}\n",
        2,
        "services.1",
        "a name must be text; allowed: \"1\"",
    ),
    ("services:\n  v 1:\n    instances: [a:1]\n", 2, "services.v 1", "\"v 1\" is no name"),
    (
        "services:\n  chat:\n    mirror: {to: default}\n    instances: [a:1]\n",
        3,
        "services.chat.mirror.to",
        "is the only version of the service; needed: another beside it",
    ),
    (
        "services:\n  chat:\n    mirror: {share: 5%}\n    instances: [a:1]\n",
        3,
        "services.chat.mirror",
        "`to` is missing; needed: the version that gets copies",
    ),
    (
        "services:\n  chat:\n    mirror: {to: v2}\n    instances: [a:1]\n",
        3,
        "services.chat.mirror.to",
        "\"v2\" is no version of the service; allowed: default",
    ),
    (
        "services:\n  chat:\n    traffic_split: {}\n    instances: [a:1]\n",
        3,
        "services.chat.traffic_split",
        "`allocations` is missing; needed: a weight for each version",
    ),
    (
        "services:\n  chat:\n    instances: [a:1]\n    traffic_split:\n      shard_by: user\n      \
         allocations: {default: 1}\n",
        5,
        "services.chat.traffic_split.shard_by",
        "found \"user\"; allowed: cookie, ip, random",
    ),
    (
        "services:\n  chat:\n    instances: [a:1]\n    traffic_split:\n      \
         allocations: {default: 1, v2: 1}\n",
        5,
        "services.chat.traffic_split.allocations.v2",
        "\"v2\" is no version of the service; allowed: default",
    ),
    (
        "services:\n  chat:\n    instances: [a:1]\n    traffic_split:\n      \
         allocations: {default: 0}\n",
        5,
        "services.chat.traffic_split.allocations",
        "no version has a weight; needed: one above 0",
    ),
    (
        "services:\n  chat:\n    instances: [a:1]\n    traffic_split:\n      \
         allocations: {default: 0.00001}\n",
        5,
        "services.chat.traffic_split.allocations.default",
        "found the number 0.00001; allowed: a number from 0 to 10000 with at most 4 decimals",
    ),
    (
        "services:\n  chat:\n    instances: [a:1]\n    session_affinity: true\n    traffic_split:\n      \
         allocations: {default: 1}\n      cookie: BURDOCK\n",
        7,
        "services.chat.traffic_split.cookie",
        "BURDOCK is the cookie of an affinity token",
    ),
    (
        "services:\n  chat:\n    instances: [a:1]\n    traffic_split:\n      \
         allocations: {default: 1}\n      shard_by: ip\n      cookie: X\n",
        7,
        "services.chat.traffic_split.cookie",
        "says nothing here; needed: `shard_by: cookie`",
    ),
    (
        "services:\n  a:\n    instances: [a:1]\n    routes:\n      - paths: [/x]\n        redirect: {to: '//evil'}\n",
        6,
        "services.a.routes[0].redirect.to",
        "found \"//evil\"; allowed: a path, or a URL with http://",
    ),
    (
        "services:\n  a:\n    instances: [a:1]\n    routes:\n      - paths: [/x]\n        redirect: {to: '/{port}'}\n",
        6,
        "services.a.routes[0].redirect.to",
        "{port} is not known; allowed: {scheme}, {host}",
    ),
    (
        "services:\n  a:\n    instances: [a:1]\n    routes:\n      - paths: [/x]\n        request_headers: {set: {Host: b}}\n",
        6,
        "services.a.routes[0].request_headers.set.Host",
        "Host frames messages, concerns one hop or is told by Burdock",
    ),
    (
        "services:\n  a:\n    instances: [a:1]\n    routes:\n      - paths: [/x]\n        response_headers: {remove: [Connection]}\n",
        6,
        "services.a.routes[0].response_headers.remove[0]",
        "Connection frames messages",
    ),
    (
        "services:\n  a:\n    instances: [a:1]\n    routes:\n      - rewrite_prefix: /x\n",
        5,
        "services.a.routes[0]",
        "`paths` is missing; needed: a list of path prefixes",
    ),
    (
        "services:\n  a:\n    instances: [a:1]\n    routes:\n      - {paths: [/x], redirect: {to: /y}, rewrite_prefix: /z}\n",
        5,
        "services.a.routes[0]",
        "a redirect reaches no instance; allowed: nothing beside it",
    ),
    (
        "services:\n  a:\n    instances: [a:1]\n    routes:\n      - {paths: [/x]}\n      - {paths: [/y, /x]}\n",
        2,
        "services.a",
        "two `routes` are for /x of every host",
    ),
    (
        "services:\n  a: {hosts: [h], instances: [a:1]}\n  b:\n    instances: [a:1]\n    routes: [{hosts: [h], paths: [/]}]\n",
        3,
        "services.b",
        "`a` and `b` both serve / of h",
    ),
    (
        "services:\n  a:\n    instances: [a:1]\n    session_affinity: true\n    affinity: {header: X-S}\n    routes: [{paths: [/x], request_headers: {remove: [x-s]}}]\n",
        2,
        "services.a",
        "`routes` change x-s, which is a field of `affinity`",
    ),
    (
        "services: {chat: {instances: [a:1], traffic: 1}}\n",
        1,
        "services.chat.traffic",
        "unknown key; allowed in service",
    ),
    ("services: {a: {paths: [/a/*], instances: [a:1]}}", 1, "services.a.paths[0]", "without *"),
    ("instances: [a:1]\n\"a\\nb\": 1\n", 2, "a\\nb", "unknown key"),
    (
        "instances: [a:1]\nlisteners:\n  - address: :80\n    tls: {}\n",
        4,
        "listeners[0].tls",
        "`certificates` is missing",
    ),
    (
        "instances: [a:1]\nadmin:\n  address: 127.0.0.1:1\n  tokens: x\n",
        4,
        "admin.tokens",
        "unknown key; allowed in admin: address, token_file, state_file",
    ),
    ("instances: [a:1]\naffinity_keys: secret\n", 2, "affinity_keys", "not in a form for keys"),
    ("instances: [a:1]\naffinity_keys: {}\n", 2, "affinity_keys", "`file` is missing"),
    ("instances: [a:1]\naffinity_keys: []\n", 2, "affinity_keys", "no key; needed: at least one"),
    (
        "instances: [a:1]\naffinity_keys:\n  - c2VjcmV0\n",
        3,
        "affinity_keys[0]",
        "not a key; allowed: 32",
    ),
    (
        "instances: [a:1]\naffinity_keys: {file: x, keys: []}\n",
        2,
        "affinity_keys",
        "both `file` and",
    ),
    ("instances: [a:1]\napp_yaml: 5\n", 2, "app_yaml", "found the number 5; allowed: the path"),
    ("instances: [a:1]\napp_yaml: no/such.yaml\n", 2, "app_yaml", "cannot read no/such.yaml: "),
];

#[test]
fn each_problem_is_at_its_line_and_path() {
    for (text, line, path, message) in FIRST {
        let Err(errors) = parsed(text) else { panic!("accepted:\n{text}") };
        let problem = &errors.problems()[0];
        assert_eq!((problem.line, problem.path.as_str()), (*line, *path), "{errors}\n{text}");
        assert!(problem.message.contains(message), "{errors}\n{text}");
        assert_eq!(problem.file.to_str(), Some("c.yaml"));
    }
}

#[test]
fn one_mistake_is_one_problem() {
    for text in [
        "instances: [a:1]\nsession_affinity: yes\naffinity: {}\n",
        "instances: [a:1]\ndrain: {timeout: 60, spread: 60s}\n",
        "instances: [a:1]\nbalance: hsh\nhash_by: uri\n",
        "instances: [a:1]\nsession_affinity: true\naffinity: {ttl: 1, idle_ttl: 30d}\n",
        "instances: [{address: a:1, name: ' '}, {address: b:1, name: b}]\n",
    ] {
        let errors = errors(text);
        assert_eq!(errors.lines().count(), 1, "{errors}");
    }
}

#[test]
fn a_bad_key_is_never_repeated_in_a_message() {
    let folder = Folder::new("secret");
    folder.file("keys", "c2VjcmV0\n");
    for keys in
        ["c2VjcmV0", "[c2VjcmV0]", "{ keys: [c2VjcmV0] }", "{ keys: c2VjcmV0 }", "{ file: keys }"]
    {
        let text = format!("instances: [a:1]\naffinity_keys: {keys}\n");
        let errors = load(&folder.file("c.yaml", text)).unwrap_err().to_string();
        assert!(!errors.contains("c2VjcmV0"), "{errors}");
    }
}

#[test]
fn problems_of_the_key_file_name_that_file() {
    let folder = Folder::new("key-file-problems");
    let file = folder.file("c.yaml", "instances: [a:1]\nworkers: 0\naffinity_keys: {file: k}\n");
    let missing = folder.relative(&load(&file).unwrap_err());
    assert!(missing.contains("c.yaml:3: affinity_keys.file: cannot read k: "), "{missing}");

    let key = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    folder.file("k", format!("# newest\n{key}\n\nnonsense # comment\n{key}\n"));
    let bad = folder.relative(&load(&file).unwrap_err());
    let lines: Vec<&str> = bad.lines().collect();
    assert_eq!(lines.len(), 3, "{bad}");
    assert!(lines[0].starts_with("c.yaml:2: workers: "), "{bad}");
    assert!(lines[1].starts_with("k:4: not a key; allowed: 32 bytes in base64"), "{bad}");
    assert!(lines[2].starts_with("k:5: a key is given twice"), "{bad}");

    folder.file("k", "# none yet\n");
    let empty = folder.relative(&load(&file).unwrap_err());
    assert!(empty.contains("k: no key; needed: at least one"), "{empty}");
}

#[test]
fn a_file_that_cannot_be_read_is_one_problem() {
    let folder = Folder::new("unreadable");
    let missing = load(&folder.0.join("none.yaml")).unwrap_err();
    assert!(folder.relative(&missing).starts_with("none.yaml: cannot read the file: "));
    let binary = load(&folder.file("binary.yaml", b"instances: [\xff]")).unwrap_err();
    assert_eq!(folder.relative(&binary), "binary.yaml: cannot read the file: not UTF-8");
    let is_error: &dyn std::error::Error = &binary;
    assert!(is_error.source().is_none());
}

#[test]
fn problems_of_the_command_line_have_no_line() {
    let errors = minimal(&["a:1".to_owned(), "b".to_owned()], true).unwrap_err();
    assert!(errors.to_string().starts_with("command line: instances[1]: found \"b\"; allowed: IP"));
    assert!(minimal(&[], false).is_err());
}

#[test]
fn a_thousand_problems_are_a_thousand_lines() {
    let items: Vec<String> = (0..1000).map(|index| format!("  - host-{index}\n")).collect();
    let errors = errors(&format!("instances:\n{}", items.concat()));
    let lines: Vec<&str> = errors.lines().collect();
    assert_eq!(lines.len(), 1000);
    assert!(lines[999].starts_with("c.yaml:1001: instances[999]: "));
}
