//! The effective configuration loads again to the same one, and shows no secret.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use ipnet::IpNet;
use proptest::prelude::*;

use super::{Folder, config, parsed};
use crate::config::types::{
    Acceptance, Access, Action, Admin, Affinity, AffinityCookie, Balance, Breaker, CacheControl,
    Check, CheckTls, ClientLimits, Close, Closes, Concurrency, Condition, Config, Discovery, Dns,
    Docker, Drain, Etcd, EtcdKeys, Exit, FirstBurst, HashKey, HttpsRedirect, InitialState,
    Instance, InstanceTls, Kubernetes, Limits, Listener, Names, OnRestart, Protocol, ProxyVersion,
    Queue, RateLimit, Rebalance, RebalanceMode, Retry, SameSite, Secure, Service, SlicePort,
    Source, State, StateFile, Timeouts, User, Version, Websocket, Workers,
};
use crate::config::{effective, load, parse};

fn assert_round_trip(config: &Config) {
    let text = effective(config);
    match parsed(&text) {
        Ok(loaded) => assert_eq!(&loaded.config, config, "\n{text}"),
        Err(errors) => panic!("{errors}\n{text}"),
    }
}

#[test]
fn texts_of_many_shapes_come_back_equal() {
    for text in [
        "instances: [a:1]",
        "instances: ['[::1]:1', {name: '1', address: a.b:2, weight: 0}]\nsession_affinity: true",
        "instances: [a:1]\nworkers: 7\nadmin: off\nlisteners: ['[::]:0']\naccess_log: true",
        "instances: [a:1]\naccess_log: {to: stderr, format: combined, sample: 0.25%}",
        "instances: [a:1]\naccess_log: {to: '/tmp/a: b.log', format: auto}",
        "instances: [a:1]\naccess_log: off",
        "instances: [a:1]\ntracing: {endpoint: 'http://[::1]:1/v1', sample: 0.5%, trust: none, service_name: 'a: b'}",
        "instances: [a:1]\ntracing: {endpoint: 'https://a/', sample: 0%, trust: all}",
        "instances: [a:1]\nfleet: {etcd: {endpoints: ['http://[::1]:2379', 'http://b:1/'], prefix: '/a: b'}, name: lb-1}",
        "instances: [a:1]\nfleet: {etcd: {endpoints: ['https://a:1'], prefix: x/}, keyring: true}",
        "instances: [a:1]\nadmin: {address: 127.0.0.1:9900}\ntrusted_proxies: ['::1', 10.0.0.0/8]",
        "instances: [a:1]\nbreaker: off\nretry: {max_body: 0, budget: 0.05%}\nbalance: random",
        "instances: [a:1]\nbalance: hash\nhash_by: query a:b\nwebsocket: {max_lifetime: none}",
        "instances: [a:1]\nreadiness_check: {path: '/a?b=\"c\\', host: 'x:1', timeout_sec: 0.25}",
        "instances: [a:1]\nsession_affinity: true\naffinity: {cookie: '-'}",
        "services: {'on': {hosts: ['*.a'], versions: {'12': {instances: [a:1]}}}, 'null': {hosts: [b], instances: [a:1]}}",
        "services: {a: {traffic_split: {allocations: {v: 0.9, w: 0.0001, '1': 10000}}, versions: {v: {instances: [a:1]}, w: {instances: [a:1]}, '1': {instances: [b:1]}}}}",
        "services: {a: {traffic_split: {shard_by: ip, sessions_at_zero: keep, allocations: {v: 1}}, versions: {v: {instances: [a:1]}, w: {instances: [a:1]}}}}",
        "services: {a: {mirror: {to: w, share: 0.5%, methods: all, max_body: 0, max_in_flight: 7}, traffic_split: {allocations: {v: 1}}, versions: {v: {instances: [a:1]}, w: {instances: [b:1]}}}}",
        "services: {a: {traffic_split: {cookie: X, allocations: {default: 0.3}}, instances: [a:1]}}",
        "services: {a: {instances: [a:1], routes: [{paths: [/a], redirect: {status: 301, to: 'https://b{path}{query}'}}, {hosts: ['*.x'], paths: [/b, /c], rewrite_prefix: /, request_headers: {remove: [X-A], set: {X-B: 'a \"b'}, add: {'on': 'x'}}, response_headers: {set: {Server: x}}}]}}",
        "services: {'[': {hosts: ['[::1]'], instances: [a:1]}, 'a:': {instances: [a:1]}, '-': {paths: [/-], instances: [a:1]}}",
    ] {
        assert_round_trip(&config(text));
    }
}

#[test]
fn fields_for_a_collector_are_masked_and_their_file_is_named() {
    let folder = Folder::new("effective-headers");
    let text = "# of the collector\nX-Api-Key: file-secret\n";
    folder.file("headers", text);
    let text = "instances: [a:1]\ntracing: { endpoint: \"http://a/\", headers_file: F/headers }\n";
    let text = text.replace("F/", &format!("{}/", folder.0.display()));
    let config = config(&text);
    assert_round_trip(&config);
    let given = text
        .replace("headers_file", "headers: { authorization: Bearer inline-secret }, headers_file");
    let config = self::config(&given);
    assert_eq!(config.tracing.as_ref().unwrap().headers.len(), 2);
    let (shown, debug) = (effective(&config), format!("{config:?}"));
    assert!(shown.contains("# masked: authorization, x-api-key\n"), "{shown}");
    for secret in ["inline-secret", "file-secret"] {
        assert!(!shown.contains(secret) && !debug.contains(secret), "{shown}{debug}");
    }
    folder.file("headers", "authorization: twice-secret\nX: y: z\nno-field-secret\nhost: a\n");
    let said = parsed(&given).unwrap_err().to_string();
    assert!(
        said.contains("the field authorization is given twice") && !said.contains("secret"),
        "{said}"
    );
    assert_eq!(said.matches("not a field that may be set").count(), 2, "{said}");
}

#[test]
fn a_key_file_is_named_and_its_keys_are_not() {
    let folder = Folder::new("effective-keys");
    let key = "q83vq83vq83vq83vq83vq83vq83vq83vq83vq83vq80=";
    folder.file("my keys", key);
    let file = folder.file("c.yaml", "instances: [a:1]\naffinity_keys: {file: my keys}\n");
    let loaded = load(&file).unwrap();
    let text = effective(&loaded.config);
    assert!(!text.contains("q83v"), "{text}");
    assert!(text.contains("# 1 key in this file"), "{text}");
    let elsewhere = parse(&text, Path::new("/elsewhere/c.yaml")).unwrap();
    assert_eq!(elsewhere.config, loaded.config);
}

#[test]
fn inline_keys_are_counted_and_masked() {
    let key = "q83vq83vq83vq83vq83vq83vq83vq83vq83vq83vq80=";
    let config = config(&format!("instances: [a:1]\naffinity_keys: [{key}]\n"));
    let text = effective(&config);
    assert!(!text.contains("q83v"), "{text}");
    assert!(text.contains("# masked: 1 key in the configuration itself"), "{text}");
    assert!(parsed(&text).unwrap().config.affinity_keys.inline.is_empty());
}

fn duration(millis: impl Strategy<Value = u64>) -> impl Strategy<Value = Duration> {
    millis.prop_map(Duration::from_millis)
}

fn limit() -> impl Strategy<Value = Duration> {
    duration(prop_oneof![1_u64..100_000, (1_u64..31_000_000).prop_map(|seconds| seconds * 1000)])
}

fn drain() -> impl Strategy<Value = Drain> {
    (limit(), 0_u32..=10)
        .prop_map(|(timeout, tenths)| Drain { timeout, spread: timeout_share(timeout, tenths) })
}

/// Some tenths of a duration, in whole milliseconds.
fn timeout_share(timeout: Duration, tenths: u32) -> Duration {
    let millis = u64::try_from(timeout.as_millis()).unwrap() * u64::from(tenths) / 10;
    Duration::from_millis(millis)
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof!["[a-zA-Z0-9._:\\[\\]-]{1,63}", "(true|null|no|12|1e3|0x1F|~|-|\\.inf)"]
        .prop_filter("a name", |name: &String| name != "~")
}

fn instances() -> impl Strategy<Value = Vec<Instance>> {
    let state = proptest::sample::select(State::WORDS.map(|(_, state)| state).to_vec());
    let limit = || proptest::option::of(1_u32..=1_000_000);
    let one = (1_u32..=1000, state, limit(), limit());
    proptest::collection::hash_map(name(), one, 1..5).prop_map(|named| {
        let instance = |(index, (name, (weight, state, max_requests, max_tunnels)))| {
            let address = format!("10.0.0.{index}:80");
            Instance { name, address, weight, state, max_requests, max_tunnels, unready: false }
        };
        named.into_iter().enumerate().map(instance).collect()
    })
}

/// Without files: nothing is verified and nothing shown.
fn tls() -> impl Strategy<Value = InstanceTls> {
    let name = prop_oneof!["[a-m]{1,9}(\\.[a-m]{1,9})?", Just("10.0.0.1".to_owned())];
    proptest::option::of(name).prop_map(|name| InstanceTls {
        ca: None,
        roots: [].into(),
        server_name: name.map(|name| name.try_into().unwrap()),
        verify: false,
        certificate: None,
    })
}

fn check_tls() -> impl Strategy<Value = CheckTls> {
    prop_oneof![Just(CheckTls::Auto), Just(CheckTls::Off), tls().prop_map(CheckTls::On)]
}

fn check() -> impl Strategy<Value = Check> {
    let path = proptest::option::of("/[!-\"$-~]{0,20}");
    let place = (proptest::option::of("[ -~]{0,20}"), proptest::option::of(1_u16..), check_tls());
    let host = proptest::option::of("[a-m]{1,9}(\\.[a-m]{1,9})?(:[1-9][0-9]{0,3})?");
    let statuses = proptest::collection::vec((100_u16..400, 0_u16..100), 1..3);
    let probe = (duration(10_u64..=300_000), duration(10_u64..=300_000));
    let path = (path, place);
    (path, host, statuses, probe, 1_u32..=10, 1_u32..=10).prop_map(
        |(
            (path, (grpc, port, tls)),
            host,
            statuses,
            (timeout, interval),
            failure_threshold,
            success_threshold,
        )| Check {
            grpc: grpc.filter(|name| path.is_none() && name != "none"),
            port,
            tls,
            path,
            host,
            timeout,
            interval,
            failure_threshold,
            success_threshold,
            expected_statuses: statuses.iter().map(|(low, more)| (*low, low + more)).collect(),
            ..Check::readiness()
        },
    )
}

fn affinity() -> impl Strategy<Value = Affinity> {
    let factor = proptest::option::of(10_100_u32..=100_000);
    let keyed = (hash_key(), factor).prop_map(|(by, load_factor)| Affinity {
        by: Some(by),
        load_factor,
        ..Affinity::default()
    });
    prop_oneof![token_affinity(), keyed]
}

fn token_affinity() -> impl Strategy<Value = Affinity> {
    let secure = prop_oneof![Just(Secure::Auto), Just(Secure::Always)];
    let same_site = prop_oneof![Just(SameSite::Strict), Just(SameSite::Lax), Just(SameSite::None)];
    let cookie = ("[!#$%&'*+.^`|~a-z-]{1,20}", "/[!-:<-~]{0,9}", secure, same_site, any::<bool>());
    let max_age = proptest::option::of((1_u64..31_000_000).prop_map(Duration::from_secs));
    (cookie, max_age, any::<bool>(), any::<bool>()).prop_map(
        |((name, path, secure, same_site, partitioned), max_age, http_only, pass_cookie)| {
            Affinity {
                by: None,
                load_factor: None,
                cookie: AffinityCookie {
                    name,
                    domain: Some("example.com".to_owned()).filter(|_| http_only),
                    path,
                    secure,
                    http_only,
                    same_site,
                    partitioned,
                    max_age,
                },
                cross_site_cookie: partitioned,
                header: Some("x-session".to_owned()).filter(|_| http_only),
                query: Some("on".to_owned()).filter(|_| partitioned),
                engine_io: http_only,
                ttl: max_age,
                idle_ttl: max_age,
                pass_cookie,
                strict: pass_cookie,
                instance_header: Some("x-order".to_owned()).filter(|_| partitioned),
                first_burst: if partitioned { FirstBurst::Client } else { FirstBurst::Off },
                cache_control: if http_only { CacheControl::Off } else { CacheControl::Private },
            }
        },
    )
}

fn balance() -> impl Strategy<Value = Balance> {
    prop_oneof![
        Just(Balance::Even),
        Just(Balance::LeastRequests),
        Just(Balance::LeastSessions),
        Just(Balance::Random),
        hash_key().prop_map(Balance::Hash),
    ]
}

fn hash_key() -> impl Strategy<Value = HashKey> {
    prop_oneof![
        Just(HashKey::ClientIp),
        Just(HashKey::Path),
        Just(HashKey::Uri),
        "[a-z0-9!#$%'*+.^_`|~-]{1,9}".prop_map(HashKey::Header),
        "[A-Za-z0-9!#$%'*+.^_`|~-]{1,9}".prop_map(HashKey::Cookie),
        "[A-Za-z0-9!%'()*+,./:;@\\[\\]{}\"|~-]{1,9}".prop_map(HashKey::Query),
    ]
}

fn retry() -> impl Strategy<Value = Retry> {
    let bounds = (1_u32..=10, 0_usize..=16 * 1024 * 1024, 0_u32..=10_000, 0_u32..=1_000_000);
    let on = proptest::sample::subsequence(Condition::ALL.to_vec(), 0..=5).prop_shuffle();
    let statuses = proptest::collection::vec((400_u16..500, 0_u16..100), 0..3);
    let limits = (proptest::option::of(limit()), proptest::option::of(limit()));
    (bounds, on, statuses, limits).prop_map(
        |((attempts, max_body, budget, budget_floor), on, statuses, limits)| Retry {
            attempts,
            max_body,
            budget,
            budget_floor,
            on,
            statuses: statuses.into_iter().map(|(low, more)| (low, low + more)).collect(),
            per_try_timeout: limits.0,
            hedge_after: limits.1,
        },
    )
}

fn access() -> impl Strategy<Value = Access> {
    let four = (any::<[u8; 4]>(), 0_u8..=32).prop_map(|(it, prefix)| (it.into(), prefix));
    let six = (any::<[u8; 16]>(), 0_u8..=128).prop_map(|(it, prefix)| (it.into(), prefix));
    let network = prop_oneof![four, six]
        .prop_map(|(address, prefix): (IpAddr, u8)| IpNet::new(address, prefix).unwrap().trunc());
    let some = || proptest::collection::vec(network.clone(), 0..3);
    (some(), some()).prop_map(|(allow, deny)| Access { allow, deny })
}

prop_compose! {
    fn client_limits()(
        connections in proptest::option::of(1_u32..=10_000_000),
        connections_per_client in proptest::option::of(1_u32..=1_000_000),
        ipv6_prefix in 1_u8..=128,
        (head, uri) in (1024_usize..=65_536, 1_usize..=65_536),
        fields in 1_usize..=1000,
        retry_memory in 0_u64..=1 << 40,
    ) -> ClientLimits {
        ClientLimits { connections, connections_per_client, ipv6_prefix, head, fields, uri, retry_memory }
    }
}

prop_compose! {
    fn rate_limit()(
        by in hash_key(),
        (requests, burst) in (1_u32..=1_000_000, 1_u32..=1_000_000),
        per in duration(1000_u64..=3_600_000),
    ) -> RateLimit {
        RateLimit { by, requests, per, burst }
    }
}

prop_compose! {
    fn limits()(
        max_body in proptest::option::of(0_u64..=1 << 40),
        min_upload in proptest::option::of(1_u64..=1 << 30),
        min_download in proptest::option::of(1_u64..=1 << 30),
    ) -> Limits {
        Limits { max_body, min_upload, min_download }
    }
}

fn close() -> impl Strategy<Value = Close> {
    let code = prop_oneof![1000_u16..=1003, 1007_u16..=1014, 3000_u16..=4999];
    (code, "[ -~ü]{0,60}").prop_map(|(code, reason)| Close { code, reason })
}

fn exit() -> impl Strategy<Value = Exit> {
    let action = prop_oneof![Just(Action::Keep), Just(Action::Close)];
    (action, close()).prop_map(|(action, close)| Exit { action, close })
}

prop_compose! {
    fn closes()(
        simple in proptest::collection::vec(close(), 6),
        exits in proptest::collection::vec(exit(), 5),
        disabled_window in drain(),
        unready_window in drain(),
        dead_window in drain(),
    ) -> Closes {
        let [lifetime, idle, ping_timeout, rebalanced, shutdown, instance] =
            simple.try_into().unwrap();
        let [removed, draining, disabled, unready, dead] = exits.try_into().unwrap();
        Closes {
            lifetime,
            idle,
            ping_timeout,
            removed,
            draining,
            disabled,
            disabled_window,
            unready,
            unready_window,
            dead,
            dead_window,
            rebalanced,
            shutdown,
            instance,
        }
    }
}

prop_compose! {
    fn breaker()(
        (failures, min_requests, trials) in (1_u32..=1000, 1_u32..=1_000_000, 1_u32..=100),
        (error_share, max_ejected) in (proptest::option::of(1_u32..=10_000), 0_u32..=10_000),
        (window, open, longer) in (limit(), limit(), limit()),
    ) -> Breaker {
        let max_open = open.max(longer);
        Breaker { failures, error_share, window, min_requests, open, max_open, trials, max_ejected }
    }
}

prop_compose! {
    fn concurrency()(
        min in 1_u32..=1_000_000,
        initial in 1_u32..=1_000_000,
        max in 1_u32..=1_000_000,
        tolerance in 1_u32..=100_000,
    ) -> Concurrency {
        let initial = initial.max(min);
        Concurrency { initial, min, max: max.max(initial), tolerance }
    }
}

/// Without what stands in files.
fn etcd() -> impl Strategy<Value = Etcd> {
    let url = ("[a-m]{1,9}", 1_u16..).prop_map(|(host, port)| format!("http://{host}:{port}"));
    proptest::collection::vec(url, 1..4).prop_map(|endpoints| Etcd {
        endpoints,
        tls: None,
        user: None,
    })
}

prop_compose! {
    fn kubernetes()(
        service in "[a-m]{1,9}",
        namespace in proptest::option::of("[a-m][a-m0-9-]{0,9}0"),
        port in proptest::option::of(prop_oneof![
            (1_u16..).prop_map(SlicePort::Number),
            "[a-m]{1,9}2".prop_map(SlicePort::Name),
        ]),
        api in proptest::option::of("https://[a-m]{1,9}(:80)?(/[a-m]{1,9})?"),
        token_file in proptest::option::of("/[a-m /]{1,9}m"),
        ca in proptest::option::of("/[a-m /]{1,9}m"),
    ) -> Kubernetes {
        let (token_file, ca) = (token_file.map(Into::into), ca.map(Into::into));
        Kubernetes { service, namespace, port, api, token_file, ca }
    }
}

prop_compose! {
    fn docker()(
        service in name(),
        version in proptest::option::of("v[a-m0-9]{1,9}"),
        network in proptest::option::of("[a-m ]{1,9}m"),
        socket in "/[a-m /]{1,9}m",
    ) -> Docker {
        Docker { service, version, network, socket: socket.into() }
    }
}

fn discovery() -> impl Strategy<Value = Discovery> {
    let names = prop_oneof![
        ("[a-m]{1,9}", 1_u16..).prop_map(|(host, port)| Names::Addresses { host, port }),
        "_[a-m]{1,9}\\._tcp".prop_map(|name| Names::Services { name }),
    ];
    let resolvers = proptest::collection::vec(any::<std::net::SocketAddr>(), 0..3)
        .prop_map(|all| all.into_iter().map(|it| (it.ip(), it.port()).into()).collect());
    let refresh = (1_u64..=3600).prop_map(Duration::from_secs);
    let dns = (names, refresh, resolvers)
        .prop_map(|(names, refresh, resolvers)| Source::Dns(Dns { names, refresh, resolvers }));
    let file = "/[a-m /]{1,9}m".prop_map(|path| Source::File(path.into()));
    let etcd = (etcd(), "[a-m/ :]{0,9}m", (1_u64..=3600).prop_map(Duration::from_secs))
        .prop_map(|(etcd, prefix, refresh)| Source::Etcd(EtcdKeys { etcd, prefix, refresh }));
    let kubernetes = kubernetes().prop_map(Source::Kubernetes);
    let docker = docker().prop_map(Source::Docker);
    (prop_oneof![dns, file, etcd, kubernetes, docker], 0_u32..=10_000)
        .prop_map(|(source, minimum)| Discovery { source, minimum })
}

prop_compose! {
    fn version()(
        name in name(),
        affinity in proptest::option::of(affinity()),
        balance in balance(),
        (instances, tls, http2) in (instances(), proptest::option::of(tls()), any::<bool>()),
        readiness in proptest::option::of((check(), any::<bool>(), duration(10_u64..=1_800_000))),
        liveness in proptest::option::of((check(), duration(0_u64..=3_600_000))),
        panic_threshold in 0_u32..=10_000,
        slow_start in proptest::option::of(limit()),
        breaker in proptest::option::of(breaker()),
        retry in retry(),
        websocket in (proptest::option::of(limit()), 0_u32..=5000, proptest::option::of(limit()), limit()),
        upgrades in proptest::collection::hash_set("[a-z]{3,9}(/[0-9.]{1,3})?", 0..3)
            .prop_map(|names| names.into_iter().filter(|name| name != "h2c").collect::<Vec<_>>()),
        closes in closes(),
        rebalance in (any::<bool>(), 1_u32..=1_000_000, 0_u32..=10_000).prop_map(
            |(bounded, max_per_minute, tolerance)| Rebalance {
                mode: if bounded { RebalanceMode::Bounded } else { RebalanceMode::Never },
                max_per_minute,
                tolerance,
            },
        ),
        drain in drain(),
        timeouts in (limit(), limit(), limit()),
        proxy_protocol in proptest::option::of(prop_oneof![Just(ProxyVersion::V1), Just(ProxyVersion::V2)]),
        rate_limit in proptest::option::of(rate_limit()),
        limits in limits(),
        discovery in proptest::option::of(discovery()),
        queue in (0_usize..=100_000, limit()).prop_map(|(max, timeout)| Queue { max, timeout }),
        concurrency in proptest::option::of(concurrency()),
    ) -> Version {
        let pinned = affinity.as_ref().is_some_and(|it| it.strict || it.by.is_some());
        let has_tokens = affinity.as_ref().is_some_and(|it| it.by.is_none());
        let counts = balance == Balance::LeastSessions;
        let balance = if counts && !has_tokens { Balance::Even } else { balance };
        let mode = if pinned { RebalanceMode::Never } else { rebalance.mode };
        Version {
            name,
            affinity,
            balance,
            instances,
            discovery,
            tls,
            protocol: if http2 { Protocol::Http2 } else { Protocol::Http1 },
            readiness_check: readiness.map(|(check, is_ready, app_start_timeout)| Check {
                initial_state: if is_ready { InitialState::Ready } else { InitialState::Unknown },
                app_start_timeout,
                incarnation_header: check.path.as_ref().map(|_| "x-life".to_owned()),
                on_restart: if is_ready && check.path.is_some() { OnRestart::Rehome } else { OnRestart::Keep },
                agent: is_ready && check.path.is_some(),
                ..check
            }),
            liveness_check: liveness.map(|(check, initial_delay)| {
                Check { initial_delay, app_start_timeout: Duration::ZERO, ..check }
            }),
            proxy_protocol: proxy_protocol.filter(|_| !http2),
            breaker,
            panic_threshold,
            slow_start,
            retry,
            queue,
            concurrency,
            upgrades,
            websocket: Websocket {
                max_lifetime: websocket.0,
                lifetime_jitter: websocket.1,
                idle_timeout: websocket.2,
                ping_interval: websocket.2.filter(|interval| interval.as_secs() > 0),
                close_grace: websocket.3,
                max_new_per_second: Some(websocket.1).filter(|limit| *limit > 0),
                closes,
            },
            rebalance: Rebalance { mode, ..rebalance },
            drain,
            rate_limit,
            limits,
            timeouts: Timeouts { connect: timeouts.0, first_byte: timeouts.1, idle: timeouts.2 },
        }
    }
}

proptest! {
    #[test]
    fn every_configuration_comes_back_equal(
        version in version(),
        service in name(),
        hosts in proptest::collection::hash_set("(\\*\\.)?[a-m]{1,9}\\.[a-m]{1,9}", 0..3),
        path in "/[!-\"$-)+->@-~]{0,9}",
        workers in proptest::option::of(1_usize..=1024),
        admin in proptest::option::of((any::<bool>(), 1_u16..9000)),
        shutdown in drain(),
        upgrade in drain(),
        user in proptest::option::of(("[a-z]{1,9}1", proptest::option::of("[a-z]{1,9}"))),
        port in 9001_u16..,
        http2: bool,
        redirect in proptest::option::of((301_u16..=302, 1_u16..)),
        access in access(),
        client_limits in client_limits(),
        proxy_protocol in prop_oneof![
            Just(Acceptance::Off),
            Just(Acceptance::Accept),
            Just(Acceptance::Require),
        ],
    ) {
        let mut config = config("instances: [a:1]");
        config.workers = workers.map_or(Workers::Auto, Workers::Count);
        let https_redirect = redirect.map(|(status, port)| HttpsRedirect { status, port });
        let address = ([0, 0, 0, 0], port).into();
        let access_of_listener = access.clone();
        config.listeners = vec![Listener {
            address,
            http2,
            proxy_protocol,
            access: access_of_listener,
            tls: None,
            https_redirect,
        }];
        // Somebody must be trusted where headers are.
        config.trusted_proxies = vec!["10.0.0.0/8".parse().unwrap()];
        config.admin = admin.map(|(explicit, port)| {
            let named = Admin {
                state_file: match port % 3 {
                    0 => StateFile::Beside,
                    1 => StateFile::At("/var/lib/burdock.state".into()),
                    _ => StateFile::Off,
                },
                ..Admin::at(([127, 0, 0, 1], port).into(), explicit)
            };
            if explicit { named } else { Admin::at(Admin::DEFAULT_ADDRESS, false) }
        });
        config.shutdown = shutdown;
        config.client_limits = client_limits;
        config.upgrade = upgrade;
        config.user = user.map(|(name, group)| User { name, group });
        config.services = vec![Service {
            name: service,
            hosts: hosts.into_iter().collect(),
            paths: vec![path],
            access,
            versions: vec![version],
            routes: Vec::new(),
            split: None,
            mirror: None,
        }];
        assert_round_trip(&config);
    }
}
