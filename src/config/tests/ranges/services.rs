//! What the keys of services and instances take.

use super::*;

const INSTANCES: &[Row] = &[
    (
        "[@]",
        &[
            "a:1",
            "1.2.3.4:65535",
            "\"[::1]:9001\"",
            "{ address: a:1 }",
            "{ name: big, address: a:1, weight: 1000 }",
            "a:1, { address: b:1, weight: 0 }",
            "{ address: a:1, max_requests: 1, max_tunnels: none }",
            "{ address: a:1, state: draining }, { address: b:1, state: disabled }",
        ],
        &[
            "",
            "a",
            "9001",
            "a:0",
            "a:65536",
            "[a]",
            "null",
            "{}",
            "{ name: big }",
            "{ address: a:1, name: \"a b\" }",
            "{ address: a:1, weight: 1001 }",
            "{ address: a:1, state: down }",
            "{ address: a:1, max_requests: 0 }",
            "{ address: a:1, max_tunnels: 1000001 }",
            "{ address: a:1, weight: -1 }",
            "{ address: a:1, weight: 0 }",
            "a:1, a:1",
            "a:1, A:1",
            "\"[::1]:1\", \"[0::1]:1\"",
            "{ name: x, address: a:1 }, { name: x, address: b:1 }",
            "{ name: b:1, address: a:1 }, b:1",
        ],
    ),
    ("@", &[], &["null", "a:1", "{}", "[]"]),
];

const SERVICES: &[Row] = &[
    ("services: @", &[], &["{}", "null", "[]", "{ a: null }", "{ a: {} }", "{ 1: {} }"]),
    ("services: { @: { instances: [a:1] } }", &["a", "a.b_c-1"], &["a b", "\"\"", "é", "true"]),
    (
        "services: { a: { instances: [a:1], hosts: [@] } }",
        &["", "a.example", "\"*.example\"", "A.example, b.example", "1.2.3.4", "\"[::1]\""],
        &[
            "a.example:80",
            "\"*\"",
            "a.*.example",
            "\"*.*.example\"",
            "a b",
            "1",
            "A.x, a.x",
            "http://a",
        ],
    ),
    (
        "services: { a: { instances: [a:1], paths: [@] } }",
        &["/", "/a, /b"],
        &["", "a", "/a?b", "\"/a b\"", "/a, /a", "1"],
    ),
    (
        "services: { a: { instances: [a:1], access: { deny: [@] } } }",
        &["", "10.0.0.0/8"],
        &["10.0.0.1/8", "1"],
    ),
    (
        "services: { a: { versions: @ } }",
        &["{ v1: { instances: [a:1] } }"],
        &[
            "{}",
            "null",
            "{ v1: { instances: [a:1] }, v2: { instances: [a:1] } }, traffic_split: off",
            "{ v1: {} }",
            "{ 1: { instances: [a:1] } }",
            "{ a b: { instances: [a:1] } }",
        ],
    ),
    (
        "services: { a: { versions: { v: { instances: [a:1] }, w: { instances: [a:1] } }, \
         traffic_split: @ } }",
        &[
            "{ allocations: { v: 0.9, w: 0.1 } }",
            "{ allocations: { w: 10000 }, shard_by: random, sessions_at_zero: keep }",
            "{ allocations: { v: 1, w: 0 }, cookie: a }",
        ],
        &[
            "{}",
            "off",
            "{ allocations: {} }",
            "{ allocations: { v: 0 } }",
            "{ allocations: { v: -1 } }",
            "{ allocations: { v: 10001 } }",
            "{ allocations: { v: 90% } }",
            "{ allocations: { v: 1 }, cookie: a b }",
            "{ allocations: { v: 1 }, sessions_at_zero: stay }",
        ],
    ),
    (
        "services: { a: { instances: [a:1], routes: [{ paths: [/x], rewrite_prefix: @ }] } }",
        &["/", "/a/b", "/a/", "off"],
        &["a", "/a?b", "/a%20", "/..", "/a/../b", "//a", "/.a", "5"],
    ),
    (
        "services: { a: { instances: [a:1], routes: [{ paths: [/x], redirect: @ }] } }",
        &[
            "off",
            "{ to: /a }",
            "{ to: \"{path}x\", status: 307 }",
            "{ to: \"{scheme}://{host}:8443{rest}\" }",
            "{ to: \"https://[::1]:8443\" }",
            "{ to: \"https://www.{host}/\" }",
        ],
        &[
            "{}",
            "/a",
            "{ to: a }",
            "{ to: /a, status: 300 }",
            "{ to: \"https://{path}\" }",
            "{ to: \"https://a@b{path}\" }",
            "{ to: \"https://a:{path}\" }",
            "{ to: \"https://a:99999{path}\" }",
            "{ to: \"https://{host}b c\" }",
            "{ to: \"ftp://a\" }",
            "{ to: \"/a b\" }",
            "{ to: \"/{path\" }",
            "{ to: \"{query}\" }",
        ],
    ),
    (
        "services: { a: { instances: [a:1], routes: [{ paths: [/x], response_headers: @ }] } }",
        &["{}", "{ set: { Server: x, X-A: \"a b\" }, remove: [Vary] }", "{ add: { X-A: \"\" } }"],
        &[
            "[]",
            "{ set: [X-A] }",
            "{ add: { X A: b } }",
            "{ add: { X-A: \" b\" } }",
            "{ add: { X-A: 5 } }",
            "{ set: { Set-Cookie: a=b } }",
            "{ remove: [Transfer-Encoding] }",
            "{ add: { X-A: \"a\\nb\" } }",
        ],
    ),
];

#[test]
fn instances() {
    hold(INSTANCES, |text| format!("access_log: true\ninstances: {text}"));
}

#[test]
fn services() {
    hold(SERVICES, |text| format!("access_log: true\n{text}"));
}
