//! What each request runs, in nanoseconds: choosing an instance, opening and sealing a token, the
//! route, the fields, a tunnel's frames; and what each reload runs. `benches/README.md` has the figures.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use burdock::affinity::token::{Claim, Keyring, Opened};
use burdock::balance::{self, Draw, Field, Ring, Rotation};
use burdock::config;
use burdock::config::types::{Balance, Config, HashKey};
use burdock::instance::{Kind, Roster};
use burdock::proxy::headers::{self, Fields, Origin};
use burdock::route::Router;
use burdock::snapshot::Live;
use burdock::tunnel::frames::{Frames, Sender};
use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use http::Version;
use http::header::{ACCEPT, CONNECTION, COOKIE, HOST, HeaderMap, HeaderValue, USER_AGENT};

const SIZES: [usize; 3] = [10, 100, 10_000];
const NOW: u64 = 1_800_000_000;

fn main() {
    divan::main();
}

fn parsed(text: &str) -> Config {
    config::parse(text, Path::new("bench.yaml")).expect("a valid configuration").config
}

/// So many instances, every one of them chosen as `balance` says.
fn version(balance: &str, instances: usize) -> Config {
    let address = |n: usize| format!("10.0.{}.{}:80", n / 250, n % 250 + 1);
    let list = (0..instances).map(address).collect::<Vec<_>>().join(", ");
    parsed(&format!("session_affinity: true\nbalance: {balance}\ninstances: [{list}]\n"))
}

/// The choice alone, among so many candidates of which the first is refused.
mod choose {
    use super::*;

    fn choose(bencher: Bencher<'_, '_>, balance: &Balance, candidates: usize) {
        let weighted: Vec<_> = (0..candidates).map(|index| (index, 1)).collect();
        let names: Vec<_> = weighted.iter().map(|(index, _)| format!("i{index}")).collect();
        let on_ring = names.iter().enumerate().map(|(index, name)| (index, &**name, 1));
        let ring = Ring::build(on_ring, None).map(Arc::new);
        let field = Field { rotation: Rotation::build(&weighted), ring };
        let keyed = matches!(balance, Balance::Hash(_));
        let loads: Vec<u64> = (0..candidates).map(|_| fastrand::u64(..100)).collect();
        let turn = AtomicU64::new(0);
        bencher.with_inputs(|| fastrand::u64(..)).bench_local_values(|random| {
            let key = random.to_be_bytes();
            let draw = Draw { key: keyed.then_some(&key[..]), random };
            balance::choose(balance, &field, &turn, draw, |index| loads[index], |index| index == 0)
        });
    }

    #[divan::bench(args = SIZES, sample_size = 1000)]
    fn even(bencher: Bencher<'_, '_>, candidates: usize) {
        choose(bencher, &Balance::Even, candidates);
    }

    #[divan::bench(args = SIZES, sample_size = 1000)]
    fn least_requests(bencher: Bencher<'_, '_>, candidates: usize) {
        choose(bencher, &Balance::LeastRequests, candidates);
    }

    #[divan::bench(args = SIZES, sample_size = 1000)]
    fn least_sessions(bencher: Bencher<'_, '_>, candidates: usize) {
        choose(bencher, &Balance::LeastSessions, candidates);
    }

    #[divan::bench(args = SIZES, sample_size = 1000)]
    fn random(bencher: Bencher<'_, '_>, candidates: usize) {
        choose(bencher, &Balance::Random, candidates);
    }

    #[divan::bench(args = SIZES, sample_size = 1000)]
    fn hash(bencher: Bencher<'_, '_>, candidates: usize) {
        choose(bencher, &Balance::Hash(HashKey::ClientIp), candidates);
    }
}

/// The same with what it asks of live instances, whose memory is cold where they are many.
mod choose_live {
    use super::*;

    fn choose(bencher: Bencher<'_, '_>, balance: &str, keyed: bool, instances: usize) {
        let config = version(balance, instances);
        let roster = Arc::new(Roster::new("bench", "v1", Instant::now()));
        roster.reconcile(&config.services[0].versions[0], 1);
        let chosen = |random: u64| {
            let key = random.to_be_bytes();
            let draw = Draw { key: keyed.then_some(&key[..]), random };
            roster.choose(draw, Kind::Request, &[])
        };
        assert!(chosen(0).is_some());
        bencher.with_inputs(|| fastrand::u64(..)).bench_local_values(chosen);
    }

    #[divan::bench(args = SIZES, sample_size = 1000)]
    fn even(bencher: Bencher<'_, '_>, instances: usize) {
        choose(bencher, "even", false, instances);
    }

    #[divan::bench(args = SIZES, sample_size = 1000)]
    fn least_requests(bencher: Bencher<'_, '_>, instances: usize) {
        choose(bencher, "least_requests", false, instances);
    }

    #[divan::bench(args = SIZES, sample_size = 1000)]
    fn least_sessions(bencher: Bencher<'_, '_>, instances: usize) {
        choose(bencher, "least_sessions", false, instances);
    }

    #[divan::bench(args = SIZES, sample_size = 1000)]
    fn random(bencher: Bencher<'_, '_>, instances: usize) {
        choose(bencher, "random", false, instances);
    }

    #[divan::bench(args = SIZES, sample_size = 1000)]
    fn hash(bencher: Bencher<'_, '_>, instances: usize) {
        choose(bencher, "hash\nhash_by: client_ip", true, instances);
    }
}

mod token {
    use super::*;

    const CLAIM: Claim<'static> = Claim {
        service: "chat",
        version: "v1",
        instance: "10.0.0.11:8080",
        issued: NOW,
        renewed: NOW,
        mark: 0,
    };

    fn keyring() -> Keyring {
        Keyring::new(&[[7; 32]]).expect("a key")
    }

    #[divan::bench]
    fn open(bencher: Bencher<'_, '_>) {
        let keyring = keyring();
        let text = keyring.seal(&CLAIM, [9; 24]);
        let mut buffer = Opened::default();
        bencher.bench_local(|| {
            keyring.open(black_box(text.as_bytes()), &mut buffer).is_ok_and(|it| it.issued == NOW)
        });
    }

    #[divan::bench]
    fn seal(bencher: Bencher<'_, '_>) {
        let keyring = keyring();
        bencher.bench_local(|| keyring.seal(black_box(&CLAIM), black_box([9; 24])));
    }
}

/// Of as many services, each with a host of its own.
#[divan::bench(args = [1, 100])]
fn route(bencher: Bencher<'_, '_>, services: usize) {
    let one =
        |n: usize| format!("  s{n}: {{ hosts: [s{n}.example.com], instances: ['127.0.0.1:1'] }}\n");
    let config = parsed(&format!("services:\n{}", (0..services).map(one).collect::<String>()));
    let router = Router::build(config.services.iter());
    bencher.bench_local(|| router.route(black_box("s0.example.com:8080"), black_box("/a/b?c")));
}

/// Of as many routes: hosts and wildcards with ten paths each, a path that is long, and nothing that fits
/// sooner.
#[divan::bench(args = [10, 1_000, 10_000])]
fn route_many(bencher: Bencher<'_, '_>, routes: usize) {
    let paths: Vec<_> = (0..10).map(|n| format!("/app{n}/api/v{n}")).collect();
    let paths = paths.join(", ");
    let one = |n: usize| {
        let host = if n.is_multiple_of(2) {
            format!("s{n}.example.com")
        } else {
            format!("'*.s{n}.example.com'")
        };
        format!("  s{n}: {{ hosts: [{host}], paths: [{paths}], instances: ['127.0.0.1:1'] }}\n")
    };
    let services: String = (0..routes / 10).map(one).collect();
    let config = parsed(&format!("services:\n  all: {{ instances: ['127.0.0.1:1'] }}\n{services}"));
    let router = Router::build(config.services.iter());
    let last = (routes / 10).saturating_sub(1) | 1;
    let host = format!("www.eu.s{last}.example.com:8443");
    bencher
        .bench_local(|| router.route(black_box(&host), black_box("/app7/api/v7/users/17/orders")));
}

/// The same on one host.
#[divan::bench(args = [10, 1_000, 10_000])]
fn route_paths(bencher: Bencher<'_, '_>, routes: usize) {
    let one = |n: usize| format!("/tenant{n}/app/api");
    let paths: Vec<_> = (0..routes).map(one).collect();
    let paths = paths.join(", ");
    let text = format!("services: {{ s: {{ paths: [{paths}], instances: ['127.0.0.1:1'] }} }}");
    let router = Router::build(parsed(&text).services.iter());
    let path = format!("/tenant{}/app/api/users/17", routes / 2);
    bencher.bench_local(|| router.route(black_box("a.example.com"), black_box(&path)));
}

/// A browser's request on its way to an instance.
#[divan::bench]
fn fields(bencher: Bencher<'_, '_>) {
    let forwarding = version("even", 1).forwarding;
    let text = HeaderValue::from_static("192.0.2.1");
    let peer = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    let version = Version::HTTP_11;
    let origin = Origin { peer, peer_text: &text, trusted: false, version, https: false };
    let map = || {
        let mut map = HeaderMap::new();
        for (name, value) in [
            (HOST, "www.example.com"),
            (USER_AGENT, "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0"),
            (ACCEPT, "text/html,application/xhtml+xml"),
            (COOKIE, "BURDOCK=AQIDBAUGBwgJ; theme=dark"),
            (CONNECTION, "keep-alive"),
        ] {
            map.insert(name, HeaderValue::from_static(value));
        }
        map
    };
    bencher.with_inputs(map).bench_local_refs(|map| {
        let fields = Fields::of(map);
        let id = || HeaderValue::from_static("0123456789abcdef0123456789abcdef");
        headers::to_instance(map, fields, &forwarding, origin, None, id)
    });
}

/// As many bytes of a tunnel, in masked frames of 64.
#[divan::bench(args = [64, 16_384])]
fn frames(bencher: Bencher<'_, '_>, bytes: usize) {
    let frame = [&[0x82, 0x80 | 58, 1, 2, 3, 4][..], &[0; 58]].concat();
    let stream = frame.repeat(bytes / frame.len());
    let mut counter = Frames::new(Sender::Client);
    bencher.counter(BytesCount::new(bytes)).bench_local(|| {
        counter.advance(black_box(&stream));
        counter.at_boundary()
    });
}

/// What a reload builds and publishes; no request waits for it.
#[divan::bench(args = SIZES)]
fn publish(bencher: Bencher<'_, '_>, instances: usize) {
    let config = Arc::new(version("even", instances));
    let keyring = Arc::new(Keyring::new(&[[7; 32]]).expect("a key"));
    let (live, _) = Live::new(Arc::clone(&config), Arc::clone(&keyring), 1);
    bencher.bench_local(|| live.publish(Arc::clone(&config), Arc::clone(&keyring)));
}
