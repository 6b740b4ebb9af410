//! Every range: its ends are accepted, what lies beyond is refused at its own line.

mod services;

use super::{errors, parsed, with_instance};

/// Key path in flow style with `@` for the value, values that pass, values that don't.
type Row = (&'static str, &'static [&'static str], &'static [&'static str]);

const LIMIT_GOOD: &[&str] = &["1ms", "1.5s", "30m", "365d"];
const LIMIT_BAD: &[&str] =
    &["0s", "366d", "10", "10sec", "-1s", "[]", "{}", "null", "true", "\"\""];
const WAIT_GOOD: &[&str] = &["0s", "0ms", "5s"];
const WAIT_BAD: &[&str] = &["366d", "0", "soon", "null"];

const TOP: &[Row] = &[
    ("workers: @", &["auto", "1", "1024"], &["0", "1025", "-1", "1.5", "many", "null", "\"2\""]),
    (
        "access_log: @",
        &["true", "false", "off", "{}", "{ to: stderr }"],
        &["yes", "1", "null", "[]", "stdout"],
    ),
    (
        "access_log: { to: @ }",
        &["stdout", "stderr", "/tmp/access.log", "/dev/null"],
        &["\"\"", "null", "/no/such/folder/access.log", "/tmp", "/"],
    ),
    (
        "access_log: { format: @ }",
        &["auto", "json", "common", "combined"],
        &["clf", "null", "true", "pretty"],
    ),
    (
        "access_log: { sample: @ }",
        &["100%", "1%", "0.01%"],
        &["0%", "101%", "0.001%", "1", "none", "null"],
    ),
    (
        "fleet: @",
        &["off", "none", "false", "{ etcd: { endpoints: [\"http://a:1\"], prefix: /f/ } }"],
        &["on", "true", "{}", "null", "{ name: a }", "{ etcd: { endpoints: [\"http://a:1\"] } }"],
    ),
    (
        "fleet: { etcd: { endpoints: [\"http://a:1\"], prefix: /f }, name: @ }",
        &["auto", "lb-1", "\"[::1]:80\""],
        &["\"\"", "\"a b\"", "a/b", "null", "1"],
    ),
    (
        "fleet: { etcd: { endpoints: [\"http://a:1\"], prefix: /f }, keyring: @ }",
        &["true", "false"],
        &["on", "null", "a"],
    ),
    (
        "fleet: { etcd: { endpoints: [\"http://a:1\"], prefix: /f }, config: @ }",
        &["false"],
        &["on", "null", "1"],
    ),
    (
        "tracing: @",
        &["off", "none", "false", "{ endpoint: \"http://127.0.0.1:4318/v1/traces\" }"],
        &["on", "true", "{}", "null", "\"http://a/\"", "[]"],
    ),
    (
        "tracing: { endpoint: @ }",
        &["\"http://[::1]:4318/v1/traces\"", "\"https://otlp.example/v1/traces?a=b\""],
        &["a:4318", "/v1/traces", "\"grpc://a/\"", "\"http://u:p@a/\"", "\"http://a/#b\"", "null"],
    ),
    (
        "tracing: { endpoint: \"http://a/\", headers: @ }",
        &["{}", "{ authorization: Bearer x, x-b: \"1\" }"],
        &[
            "[]",
            "off",
            "{ host: a }",
            "{ \"a b\": c }",
            "{ a: \"\" }",
            "{ a: 1 }",
            "{ content-type: a }",
        ],
    ),
    ("tracing: { endpoint: \"http://a/\", headers_file: @ }", &["none"], &["no-such-file", "1"]),
    ("tracing: { endpoint: \"http://a/\", ca: @ }", &["system"], &["ca.pem", "null"]),
    ("tracing: { endpoint: \"https://a/\", ca: @ }", &["system"], &["no-such-file.pem", "null"]),
    (
        "tracing: { endpoint: \"http://a/\", sample: @ }",
        &["0%", "0.01%", "100%"],
        &["101%", "0.001%", "1", "null"],
    ),
    (
        "tracing: { endpoint: \"http://a/\", trust: @ }",
        &["all", "trusted_proxies", "none"],
        &["off", "proxies", "true"],
    ),
    (
        "tracing: { endpoint: \"http://a/\", service_name: @ }",
        &["edge", "\"lb 1\""],
        &["\"\"", "null", "1", "\"a\\nb\""],
    ),
    ("forwarding: { x_forwarded: @ }", &["true", "false"], &["on", "null"]),
    ("forwarding: { forwarded: @ }", &["true"], &["on"]),
    ("forwarding: { request_id: @ }", &["true"], &["0"]),
    ("forwarding: { via: @ }", &["burdock", "lb-1", "off"], &["a b", "\"\"", "\"a,b\"", "[]"]),
    ("timeouts: { header_read: @ }", LIMIT_GOOD, LIMIT_BAD),
    ("timeouts: { keep_alive: @ }", LIMIT_GOOD, LIMIT_BAD),
    ("timeouts: { connect: @ }", LIMIT_GOOD, LIMIT_BAD),
    ("timeouts: { first_byte: @ }", LIMIT_GOOD, LIMIT_BAD),
    ("timeouts: { idle: @ }", LIMIT_GOOD, LIMIT_BAD),
    ("shutdown: { timeout: @ }", WAIT_GOOD, WAIT_BAD),
    ("shutdown: { spread: @ }", &["0s", "30s"], &["31s", "10", "null"]),
    ("upgrade: { timeout: @ }", WAIT_GOOD, WAIT_BAD),
    ("upgrade: { spread: @ }", &["0s", "30s"], &["31s", "10", "null"]),
    (
        "user: @",
        &["none", "www-data", "\"www-data:adm\""],
        &["null", "5", "\"a b\"", "\":x\"", "\"x:\""],
    ),
    (
        "listeners: [@]",
        &[
            "0.0.0.0:80",
            "\":80\"",
            "\"[::]:80\"",
            "127.0.0.1:0",
            "{ address: 1.2.3.4:5 }",
            "127.0.0.1:0, 127.0.0.1:0",
            "{ address: 1.2.3.4:5, proxy_protocol: off }",
        ],
        &[
            "{ address: 1.2.3.4:5, proxy_protocol: v1 }",
            "80",
            "localhost:80",
            "0.0.0.0",
            "{}",
            "null",
            "1.2.3.4:5, 1.2.3.4:5",
            "",
        ],
    ),
    (
        "trusted_proxies: [10.0.0.0/8]\nlisteners: [{ address: 1.2.3.4:5, proxy_protocol: @ }]",
        &["off", "none", "accept", "require"],
        &["on", "true", "v2", "null"],
    ),
    ("listeners: [{ address: 1.2.3.4:5, proxy_protocol: @ }]", &["off"], &["accept", "require"]),
    ("limits: { connections: @ }", &["none", "1", "10000000"], &["0", "10000001", "off"]),
    ("limits: { connections_per_client: @ }", &["none", "1", "1000000"], &["0", "1000001"]),
    ("limits: { ipv6_prefix: @ }", &["1", "128"], &["0", "129", "none"]),
    ("limits: { head: @ }", &["1024", "1KiB", "64KiB"], &["1023", "65KiB", "none"]),
    ("limits: { fields: @ }", &["1", "1000"], &["0", "1001", "none"]),
    ("limits: { uri: @ }", &["1", "8KiB", "64KiB"], &["0", "65KiB", "none"]),
    (
        "limits: { max_body: @ }",
        &["none", "0", "10MiB", "1048576MiB"],
        &["1048577MiB", "-1", "off"],
    ),
    ("limits: { retry_memory: @ }", &["0", "64MiB", "1048576MiB"], &["1048577MiB", "none"]),
    (
        "listeners: [{ address: 1.2.3.4:5, access: { allow: [@] } }]",
        &["", "10.0.0.0/8", "192.0.2.1, \"::1\""],
        &["10.0.0.1/8", "here", "null"],
    ),
    (
        "listeners: [{ address: 1.2.3.4:5, access: @ }]",
        &["{}", "{ deny: [] }", "{ allow: [10.0.0.0/8], deny: [10.0.0.1] }"],
        &["[10.0.0.0/8]", "off", "null", "{ deny: 10.0.0.0/8 }"],
    ),
    (
        "trusted_proxies: [@]",
        &["", "10.0.0.0/8", "192.0.2.1", "\"::1\"", "\"2001:db8::/32\""],
        &["10.0.0.1/8", "10.0.0.0/33", "proxy", "10", "null"],
    ),
    ("trusted_proxies: @", &["[]"], &["10.0.0.0/8", "null", "{}"]),
    (
        "admin: @",
        &["off", "none", "false", "{ address: 127.0.0.1:1 }", "{ address: \"[::1]:1\" }"],
        &["on", "true", "127.0.0.1:1", "{}", "{ address: 0.0.0.0:1 }", "{ address: 10.0.0.1:1 }"],
    ),
    ("admin: { address: @ }", &["127.0.0.1:0", "127.9.9.9:1"], &["0.0.0.0:8080", "localhost:1"]),
];

const VERSION: &[Row] = &[
    ("session_affinity: @", &["true", "false"], &["yes", "1", "null"]),
    ("network: { session_affinity: @ }", &["true", "false"], &["yes", "null"]),
    (
        "balance: @",
        &["even", "least_requests", "random", "hash"],
        &["Even", "round_robin", "null", "least_sessions"],
    ),
    ("session_affinity: true\nbalance: @", &["least_sessions"], &["least"]),
    (
        "session_affinity: true\naffinity: { by: path }\nbalance: @",
        &["least_requests"],
        &["least_sessions"],
    ),
    (
        "balance: hash\nhash_by: @",
        &["client_ip", "path", "uri", "header X-User", "cookie id", "query id"],
        &["header", "header a b", "header a:b", "ip", "query a=b", "null", "client_ip x"],
    ),
    ("proxy_protocol: @", &["off", "none", "v1", "v2"], &["on", "true", "2", "accept", "null"]),
    ("limits: { max_body: @ }", &["none", "0", "10MiB"], &["1048577MiB", "off"]),
    ("limits: { min_upload: @ }", &["none", "1", "1024MiB"], &["0", "1025MiB", "off"]),
    ("limits: { min_download: @ }", &["none", "1", "1024MiB"], &["0", "1025MiB", "off"]),
    (
        "rate_limit: @",
        &["off", "none", "{ requests: 1 }", "{ by: header X-Key, requests: 5, per: 1h, burst: 1 }"],
        &["{}", "{ by: path }", "5", "on", "null"],
    ),
    (
        "discovery: @",
        &[
            "off",
            "none",
            "{ dns: 'app.internal:80' }",
            "{ srv: _http._tcp.app.internal }",
            "{ file: a }",
            "{ etcd: { endpoints: ['http://a:1'], prefix: a }, refresh: 1s }",
            "{ kubernetes: { service: a } }",
            "{ docker: { service: a } }",
        ],
        &[
            "{}",
            "on",
            "app.internal:80",
            "{ dns: app.internal }",
            "{ dns: '10.0.0.1:80' }",
            "{ dns: 'a:0' }",
            "{ dns: 'a:1', srv: a }",
            "{ srv: 'a b' }",
            "{ file: a, refresh: 1s }",
            "{ etcd: { prefix: a } }",
            "{ etcd: { endpoints: ['http://a:1'] } }",
            "{ etcd: { endpoints: ['http://a:1'], prefix: a }, resolvers: ['1.1.1.1:53'] }",
            "{ etcd: 'http://a:1' }",
            "{ file: a, resolvers: ['1.1.1.1:53'] }",
            "{ docker: a }",
            "{ docker: { version: a } }",
            "{ docker: { service: a }, resolvers: [] }",
            "{ kubernetes: a }",
            "{ kubernetes: {} }",
            "{ kubernetes: { service: a }, refresh: 1s }",
            "{ kubernetes: { service: a, api: 'http://a', token_file: t } }",
            "{ kubernetes: { service: a, api: 'http://a', ca: c } }",
        ],
    ),
    ("discovery: { dns: 'a:1', refresh: @ }", &["1s", "1h"], &["999ms", "61m", "none", "1"]),
    ("discovery: { dns: 'a:1', minimum: @ }", &["0", "10000"], &["10001", "-1", "50%"]),
    (
        "discovery: { dns: 'a:1', resolvers: @ }",
        &["[]", "['10.0.0.1:53', '[::1]:53']"],
        &["['10.0.0.1']", "[a:53]", "system"],
    ),
    (
        "discovery: { etcd: { prefix: a, endpoints: @ } }",
        &["['http://a:1']", "['http://[::1]:2379/', 'https://a.b:1']"],
        &["[]", "a:1", "['a:1']", "['http://a']", "['http://a:1/x']", "['http://u@a:1']", "[1]"],
    ),
    (
        "discovery: { etcd: { endpoints: ['http://a:1'], prefix: @ } }",
        &["/", "'a b'"],
        &["''", "1", "null"],
    ),
    (
        "discovery: { etcd: { endpoints: ['http://a:1'], prefix: a, ca: @ } }",
        &["system"],
        &["no-such-file.pem", "null"],
    ),
    (
        "discovery: { etcd: { endpoints: ['https://a:1'], prefix: a, cert: @ } }",
        &["none"],
        &["no-such-file.pem", "null"],
    ),
    (
        "discovery: { etcd: { endpoints: ['http://a:1'], prefix: a, user: @ } }",
        &["none"],
        &["alone", "null"],
    ),
    (
        "discovery: { kubernetes: { service: @ } }",
        &["web", "a-1", "0a"],
        &["Web", "-a", "a-", "a.b", "a_b", "''", "a/b", "1"],
    ),
    (
        "discovery: { kubernetes: { service: a, namespace: @ } }",
        &["none", "kube-system"],
        &["A", "a.b", "../x"],
    ),
    (
        "discovery: { kubernetes: { service: a, port: @ } }",
        &["none", "1", "65535", "http", "h2"],
        &["0", "65536", "'80'", "HTTP", "80.5"],
    ),
    (
        "discovery: { kubernetes: { service: a, api: @ } }",
        &["none", "'https://10.0.0.1:6443'", "'http://[::1]:8001'", "'https://a.example/k8s/c'"],
        &[
            "a.example",
            "'ftp://a'",
            "'https://u@a'",
            "'https://a?b'",
            "'https://a#b'",
            "'https://'",
        ],
    ),
    (
        "discovery: { kubernetes: { service: a, api: 'https://a', token_file: @ } }",
        &["none", "/t", "t"],
        &["1", "[t]"],
    ),
    ("discovery: { kubernetes: { service: a, ca: @ } }", &["none", "/c", "c"], &["1", "{}"]),
    ("discovery: { docker: { service: @ } }", &["a", "A.b_c-1"], &["''", "a b", "1", "a/b"]),
    ("discovery: { docker: { service: a, version: @ } }", &["none", "v1"], &["''", "[v]"]),
    ("discovery: { docker: { service: a, network: @ } }", &["none", "chat_default"], &["1", "{}"]),
    ("discovery: { docker: { service: a, socket: @ } }", &["/s", "s"], &["1", "[]"]),
    ("rate_limit: { requests: @ }", &["1", "1000000"], &["0", "1000001", "1.5"]),
    ("rate_limit: { requests: 1, by: @ }", &["client_ip", "cookie a"], &["ip", "token"]),
    ("rate_limit: { requests: 1, per: @ }", &["1s", "1h"], &["999ms", "61m", "1"]),
    ("rate_limit: { requests: 1, burst: @ }", &["1", "1000000"], &["0", "1000001"]),
    (
        "tls: @",
        &["off", "none", "false", "{ verify: false }"],
        &["on", "null", "[]", "1", "ca.pem"],
    ),
    ("protocol: @", &["http1", "http2"], &["h2", "2", "auto", "null"]),
    ("tls: { verify: @ }", &["false"], &["no", "null"]),
    (
        "tls: { verify: false, server_name: @ }",
        &["none", "a.example", "10.0.0.1", "\"::1\""],
        &["\"a b\"", "a:443", "\"\"", "1"],
    ),
    ("tls: { verify: false, ca: @ }", &["none"], &["no-such-file.pem", "1", "null"]),
    ("tls: { verify: false, cert: @ }", &["none"], &["no-such-file.pem"]),
    ("tls: { verify: false, key: @ }", &["none"], &["no-such-file.pem"]),
    ("readiness_check: { tls: @ }", &["auto", "off", "{ verify: false }"], &["null", "1"]),
    ("liveness_check: { tls: @ }", &["auto", "{ verify: false }"], &["yes"]),
    ("breaker: @", &["off", "none", "false", "{}"], &["on", "true", "5", "null"]),
    ("breaker: { failures: @ }", &["1", "1000"], &["0", "1001", "1.5", "\"5\"", "-1"]),
    ("concurrency: @", &["off", "none", "false", "{}"], &["on", "true", "5", "null"]),
    ("concurrency: { min: @ }", &["1", "30", "1000000"], &["0", "1000001", "1.5"]),
    ("concurrency: { min: 10, max: @ }", &["10", "1000000"], &["9", "1000001"]),
    ("concurrency: { min: 10, max: 30, initial: @ }", &["10", "30"], &["9", "31"]),
    ("concurrency: { tolerance: @ }", &["0.01%", "1000%"], &["0%", "1001%", "25"]),
    ("breaker: { open: @ }", LIMIT_GOOD, LIMIT_BAD),
    ("breaker: { trials: @ }", &["1", "100"], &["0", "101"]),
    ("breaker: { error_share: @ }", &["none", "0.01%", "100%"], &["0%", "101%", "50", "off"]),
    ("breaker: { window: @ }", LIMIT_GOOD, LIMIT_BAD),
    ("breaker: { min_requests: @ }", &["1", "1000000"], &["0", "1000001"]),
    ("breaker: { open: 1ms, max_open: @ }", LIMIT_GOOD, LIMIT_BAD),
    ("breaker: { open: 5s, max_open: @ }", &["5s"], &["4999ms"]),
    ("breaker: { max_ejected: @ }", &["0%", "100%"], &["101%", "1"]),
    ("panic_threshold: @", &["0%", "50%", "100%"], &["101%", "50", "none"]),
    ("slow_start: @", LIMIT_GOOD, LIMIT_BAD),
    ("slow_start: @", &["none"], &["off"]),
    ("retry: @", &["off", "none", "false", "{}"], &["on", "3"]),
    ("retry: { attempts: @ }", &["1", "10"], &["0", "11"]),
    (
        "retry: { max_body: @ }",
        &["0", "65536", "64KiB", "16MiB", "16777216"],
        &["17MiB", "16777217", "-1", "64KB", "64k", "null"],
    ),
    ("retry: { budget: @ }", &["0%", "20%", "0.5%", "100%"], &["101%", "20", "0.2", "0.001%"]),
    ("retry: { budget_floor: @ }", &["0", "1000000"], &["1000001", "-1"]),
    (
        "retry: { on: @ }",
        &["[]", "[connect]", "[timeout, invalid_response, unanswered, reset, connect]"],
        &["connect", "[5xx]", "[reset, reset]", "off", "[1]"],
    ),
    (
        "retry: { statuses: @ }",
        &["[]", "[503]", "[\"429\", 502-504, 400, 599]"],
        &["503", "[200]", "[399-404]", "[600]", "[504-502]", "[5xx]", "off"],
    ),
    ("retry: { per_try_timeout: @ }", LIMIT_GOOD, LIMIT_BAD),
    ("retry: { per_try_timeout: @ }", &["none"], &["off"]),
    ("retry: { hedge_after: @ }", LIMIT_GOOD, LIMIT_BAD),
    ("retry: { hedge_after: @ }", &["none"], &["off"]),
    ("websocket: { max_lifetime: @ }", LIMIT_GOOD, LIMIT_BAD),
    ("websocket: { max_lifetime: @ }", &["none"], &["off", "never"]),
    ("websocket: { lifetime_jitter: @ }", &["0%", "50%"], &["51%", "5"]),
    ("websocket: { idle_timeout: @ }", LIMIT_GOOD, LIMIT_BAD),
    ("websocket: { idle_timeout: @ }", &["none"], &[]),
    ("websocket: { close_grace: @ }", WAIT_GOOD, WAIT_BAD),
    ("websocket: { ping_interval: @ }", &["1s", "365d", "none"], &["999ms", "366d", "off"]),
    ("websocket: { max_new_per_second: @ }", &["1", "1000000", "none"], &["0", "1000001", "1.5"]),
    (
        "websocket: { closes: { idle: { code: @ } } }",
        &["1000", "1003", "1007", "1014", "3000", "4999"],
        &["999", "1004", "1005", "1006", "1015", "2999", "5000", "x"],
    ),
    ("websocket: { closes: { removed: { action: @ } } }", &["keep", "close"], &["cut", "true"]),
    ("websocket: { closes: { dead: { timeout: 365d, spread: @ } } }", WAIT_GOOD, WAIT_BAD),
    ("websocket: { closes: { unready: { spread: 0s, timeout: @ } } }", WAIT_GOOD, WAIT_BAD),
    (
        "upgrades: @",
        &["[]", "[websocket]", "[Foo/1.0, websocket]"],
        &["websocket", "[h2c]", "[a, A]", "['a b']"],
    ),
    ("rebalance: { mode: @ }", &["never", "bounded"], &["always", "true"]),
    (
        "session_affinity: true\naffinity: { strict: true }\nrebalance: { mode: @ }",
        &["never"],
        &["bounded"],
    ),
    (
        "session_affinity: true\naffinity: { by: path }\nrebalance: { mode: @ }",
        &["never"],
        &["bounded"],
    ),
    ("rebalance: { max_per_minute: @ }", &["1", "1000000"], &["0", "1000001"]),
    ("rebalance: { tolerance: @ }", &["0%", "100%"], &["101%", "5"]),
    ("drain: { timeout: @ }", WAIT_GOOD, WAIT_BAD),
    ("drain: { timeout: 5s, spread: @ }", &["0s", "5s"], &["5001ms"]),
    ("readiness_check: @", &["{}", "off", "none", "false"], &["on", "true", "null", "[]", "/r"]),
    ("liveness_check: @", &["{}", "off"], &["on", "null"]),
    (
        "readiness_check: { path: @ }",
        &["/", "/r?x=y", "none"],
        &["r", "\"/a b\"", "\"/\\n\"", "1", "null", "\"\""],
    ),
    (
        "readiness_check: { host: @ }",
        &["a.example", "a.example:80", "\"[::1]\"", "none"],
        &["\"a b\"", "a/b", "\"a:\"", "1"],
    ),
    (
        "readiness_check: { timeout_sec: @ }",
        &["1", "300", "0.01", "0.5", "2.5"],
        &["0", "301", "0.009", "-1", ".nan", ".inf", "1s", "\"1\"", "300.5"],
    ),
    ("readiness_check: { timeout: @ }", &["10ms", "300s", "5m"], &["9ms", "301s", "4", "0s"]),
    ("readiness_check: { check_interval_sec: @ }", &["1", "300", "0.01"], &["0", "301", "0.001"]),
    ("readiness_check: { check_interval: @ }", &["10ms", "5m"], &["9ms", "301s"]),
    ("readiness_check: { app_start_timeout_sec: @ }", &["1", "1800"], &["0", "1801"]),
    ("readiness_check: { app_start_timeout: @ }", &["30m"], &["31m", "0s"]),
    ("readiness_check: { failure_threshold: @ }", &["1", "10"], &["0", "11", "2.0"]),
    ("readiness_check: { success_threshold: @ }", &["1", "10"], &["0", "11"]),
    ("readiness_check: { initial_state: @ }", &["unknown", "ready"], &["unready", "true"]),
    (
        "readiness_check: { expected_statuses: @ }",
        &["[200]", "[200, 300-399]", "[\"204\"]", "[100, 599]"],
        &["[]", "200", "[99]", "[600]", "[299-200]", "[2xx]", "null"],
    ),
    ("readiness_check: { path: /r, agent: @ }", &["true", "false"], &["on", "null"]),
    ("readiness_check: { agent: @ }", &["false"], &["true"]),
    ("liveness_check: { path: /r, agent: @ }", &[], &["true"]),
    (
        "readiness_check: { path: /r, incarnation_header: @ }",
        &["none", "X-Instance-Incarnation"],
        &["\"a b\"", "1", "null"],
    ),
    ("readiness_check: { incarnation_header: @ }", &["none"], &["x"]),
    (
        "readiness_check: { path: /r, incarnation_header: x, on_restart: @ }",
        &["keep", "re-home"],
        &["rehome", "true"],
    ),
    ("readiness_check: { on_restart: @ }", &["keep"], &["re-home"]),
    ("readiness_check: { grpc: @ }", &["none", "\"\"", "a.b.C"], &["\"\\n\"", "1", "null"]),
    ("readiness_check: { path: /r, grpc: @ }", &["none"], &["\"\"", "x"]),
    ("readiness_check: { grpc: x, agent: @ }", &["false"], &["true"]),
    ("liveness_check: { grpc: @ }", &["none", "x"], &["true"]),
    ("readiness_check: { port: @ }", &["none", "1", "65535"], &["0", "65536", "\"80\""]),
    ("liveness_check: { port: @ }", &["80"], &["-1"]),
    ("readiness_check: { initial_delay_sec: @ }", &[], &["5"]),
    ("liveness_check: { initial_delay_sec: @ }", &["0", "3600", "0.5"], &["3601", "-1"]),
    ("liveness_check: { initial_delay: @ }", &["0s", "1h"], &["61m"]),
    ("liveness_check: { check_interval_sec: @ }", &["1", "300"], &["301"]),
    ("liveness_check: { app_start_timeout_sec: @ }", &[], &["5"]),
    ("liveness_check: { initial_state: @ }", &[], &["ready"]),
];

const AFFINITY: &[Row] = &[
    ("@", &["{}", "{ cookie: {} }"], &["null", "BURDOCK", "true"]),
    ("{ cookie: @ }", &["SID", "__Host-a", "__Secure-a"], &["\"a b\"", "a=b", "\"\"", "1", "null"]),
    ("{ cookie: { name: @ } }", &["a", "__Host-a"], &["\"a;\"", "null"]),
    ("{ cookie: { domain: @ } }", &["none", "example.com", ".Example.com"], &["a b", "1", "-a"]),
    ("{ cookie: { path: @ } }", &["/", "/a"], &["a", "\"/a;b\"", "null"]),
    ("{ cookie: { secure: @ } }", &["auto", "always", "never"], &["true", "null"]),
    ("{ cookie: { http_only: @ } }", &["true", "false"], &["yes"]),
    ("{ cookie: { same_site: @ } }", &["strict", "lax", "none"], &["Lax", "false"]),
    ("{ cookie: { partitioned: @ } }", &["true", "false"], &["yes"]),
    ("{ cookie: { max_age: @ } }", &["none", "1s", "365d"], &["0s", "1500ms", "60", "366d"]),
    ("{ cookie: { name: __Host-a, @ } }", &["secure: always"], &["secure: never"]),
    ("{ cookie: { name: __host-a, @ } }", &["path: /"], &["path: /a", "domain: a.example"]),
    ("{ cookie: { name: __Secure-a, @ } }", &["path: /a"], &["secure: never"]),
    ("{ cookie: { same_site: none, @ } }", &["secure: auto"], &["secure: never"]),
    ("{ cookie: { partitioned: true, @ } }", &["secure: auto"], &["secure: never"]),
    ("{ ttl: @ }", &["none", "1s", "365d"], &["999ms", "0s", "3600", "null"]),
    ("{ idle_ttl: @ }", &["none", "1s", "365d"], &["999ms", "366d"]),
    ("{ ttl: 1h, idle_ttl: @ }", &["1h", "1m"], &["61m"]),
    ("{ pass_cookie: @ }", &["true", "false"], &["yes"]),
    ("{ cross_site_cookie: @ }", &["true", "false"], &["yes", "null"]),
    ("{ cookie: { secure: never }, cross_site_cookie: @ }", &["false"], &["true"]),
    (
        "{ header: @ }",
        &["X-Burdock-Session", "s", "off", "none", "false"],
        &["Cookie", "host", "\"a b\"", "\"\"", "true", "1", "null"],
    ),
    ("{ query: @ }", &["burdock", "a.b_c~1-", "off"], &["a=b", "a%62", "\"\"", "true", "1"]),
    (
        "{ by: @ }",
        &["token", "cookie JSESSIONID", "header X-User", "query s", "client_ip", "path", "uri"],
        &["cookie", "cookie a b", "session", "off", "null", "1"],
    ),
    ("{ by: path, @ }", &["load_factor: off"], &["cookie: S", "ttl: 1s", "engine_io: false"]),
    (
        "{ by: path, load_factor: @ }",
        &["off", "101%", "125%", "1000%"],
        &["100%", "1001%", "1.25", "125", "null"],
    ),
    ("{ load_factor: @ }", &["off", "none"], &["125%"]),
    ("{ strict: @ }", &["true", "false"], &["yes", "null"]),
    ("{ cache_control: @ }", &["private", "off", "none"], &["true", "no-store", "null"]),
    ("{ instance_header: @ }", &["X-Burdock-Affinity", "off"], &["Cookie", "\"a b\"", "true"]),
    ("{ header: X-A, instance_header: @ }", &["X-B"], &["x-a"]),
    ("{ first_burst: @ }", &["client", "off", "none"], &["true", "connection", "null"]),
    ("{ engine_io: @ }", &["true", "false"], &["on", "null"]),
];

fn hold(rows: &[Row], whole: impl Fn(&str) -> String) {
    for (template, good, bad) in rows {
        for value in *good {
            let text = whole(&template.replace('@', value));
            if let Err(errors) = parsed(&text) {
                panic!("refused: {errors}\n{text}");
            }
        }
        for value in *bad {
            let text = whole(&template.replace('@', value));
            let problems = match parsed(&text) {
                Ok(_) => panic!("accepted:\n{text}"),
                Err(errors) => errors.problems().to_vec(),
            };
            let [problem] = &problems[..] else { panic!("{problems:#?}\n{text}") };
            assert_eq!(problem.line, text.trim_end().lines().count(), "{problem}\n{text}");
            assert!(
                ["; allowed", "; needed", "; it belongs", "; one version"]
                    .iter()
                    .any(|what| problem.message.contains(what)),
                "{problem} does not say what is allowed"
            );
        }
    }
}

#[test]
fn keys_of_the_whole_file() {
    hold(TOP, with_instance);
}

#[test]
fn keys_of_a_version() {
    hold(VERSION, with_instance);
    hold(VERSION, |text| {
        let indented = text.replace('\n', "\n        ");
        format!(
            "services:\n  s:\n    versions:\n      v:\n        instances: [a:1]\n        {indented}"
        )
    });
}

#[test]
fn keys_of_affinity() {
    hold(AFFINITY, |text| format!("session_affinity: true\ninstances: [a:1]\naffinity: {text}"));
}

#[test]
fn a_wrong_value_is_never_replaced_by_its_default() {
    let text = with_instance("affinity_keys: 5\nbreaker: 5\nretry: 5\ndrain: 5\n");
    assert_eq!(errors(&text).lines().count(), 4);
}
