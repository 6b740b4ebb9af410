//! How a new session's instance is chosen: exact weights, fewer requests, a draw, a hash.

use std::collections::BTreeMap;

use crate::support::ws::WebSocket;
use crate::support::{self, Backend, Burdock, Client, FAST_READINESS, Request, yaml};

/// A configuration with a weight per instance.
fn weighted(backends: &[Backend], weights: &[u32]) -> String {
    let mut text = format!("{}instances:\n", support::HEADER);
    for (backend, weight) in backends.iter().zip(weights) {
        let (name, address) = (&backend.name, backend.address);
        text += &format!("  - {{ name: {name}, address: {address}, weight: {weight} }}\n");
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_are_exact_over_every_round_and_smooth_inside_it() {
    let backends = Backend::several(&["a", "b", "c"]).await;
    let burdock = Burdock::start(&weighted(&backends, &[5, 2, 1])).await;
    let mut clients: Vec<_> = (0..5).map(|_| burdock.client()).collect();
    let mut order = Vec::new();
    for n in 0..80 {
        order.push(clients[n % 5].get("/").await.instance().to_owned());
    }
    for round in order.chunks(8) {
        let count = |name: &str| round.iter().filter(|seen| *seen == name).count();
        assert_eq!((count("a"), count("b"), count("c")), (5, 2, 1), "{round:?}");
    }
    let burst = order.split(|name| name != "a").map(<[String]>::len).max();
    assert!(burst <= Some(4), "spread inside the round, not {burst:?} in a row");
}

#[tokio::test(flavor = "multi_thread")]
async fn evenness_holds_for_clients_in_parallel() {
    let backends = Backend::several(&["a", "b", "c", "d", "e"]).await;
    let burdock = Burdock::start(&yaml(&backends.iter().collect::<Vec<_>>(), "")).await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let address = burdock.address();
        tasks.spawn(async move {
            let mut client = Client::new(address);
            for _ in 0..32 {
                assert_eq!(client.get("/").await.status, 200);
            }
        });
    }
    tasks.join_all().await;
    let counts: Vec<_> = backends.iter().map(Backend::request_count).collect();
    let (most, least) = (counts.iter().max().unwrap(), counts.iter().min().unwrap());
    assert!(most - least <= 1, "exact over both workers: {counts:?}");
    assert_eq!(counts.iter().sum::<usize>(), 512);
}

#[tokio::test(flavor = "multi_thread")]
async fn least_requests_avoids_the_busy_one() {
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    let burdock = Burdock::start(&yaml(&[&a, &b], "balance: least_requests\n")).await;
    let address = burdock.address();
    let held = tokio::spawn(async move { Client::new(address).get("/gate").await });
    support::eventually("one is busy", || {
        (a.request_count() + b.request_count() == 1).then_some(())
    })
    .await;
    let (busy, free) = if a.request_count() == 1 { (&a, &b) } else { (&b, &a) };
    let mut client = burdock.client();
    for _ in 0..30 {
        assert_eq!(client.get("/").await.instance(), free.name, "two are drawn: it is always seen");
    }
    busy.open_gate(1);
    assert_eq!(held.await.unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn least_requests_counts_tunnels() {
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    let burdock = Burdock::start(&yaml(&[&a, &b], "balance: least_requests\n")).await;
    let mut counts = BTreeMap::new();
    let mut open = Vec::new();
    for _ in 0..20 {
        let socket = WebSocket::open(burdock.address(), "/ws", "").await;
        *counts.entry(socket.instance().to_owned()).or_insert(0) += 1;
        open.push(socket);
    }
    assert_eq!(counts.into_values().collect::<Vec<_>>(), [10, 10]);
}

#[tokio::test(flavor = "multi_thread")]
async fn random_reaches_everyone_about_evenly() {
    let backends = Backend::several(&["a", "b", "c", "d"]).await;
    let all: Vec<_> = backends.iter().collect();
    let burdock = Burdock::start(&yaml(&all, "balance: random\n")).await;
    let mut client = burdock.client();
    let mut order = Vec::new();
    for _ in 0..800 {
        order.push(client.get("/").await.instance().to_owned());
    }
    for backend in &backends {
        // 200 expected, standard deviation 12: eight of them.
        let count = backend.request_count();
        assert!((100..=300).contains(&count), "{}: {count}", backend.name);
    }
    let repeats = order.windows(2).filter(|pair| pair[0] == pair[1]).count();
    assert!(repeats > 80, "not a round robin: {repeats} repeats");
}

/// The instance of each of 200 keys.
async fn homes(burdock: &Burdock) -> Vec<String> {
    let mut client = burdock.client();
    let mut homes = Vec::new();
    for n in 0..200 {
        let request = Request::get("/").with("X-User", &format!("user-{n}"));
        homes.push(client.send(&request).await.instance().to_owned());
    }
    homes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hash_is_stable_spreads_and_moves_only_what_it_must() {
    let backends = Backend::several(&["a", "b", "c", "d"]).await;
    let all: Vec<_> = backends.iter().collect();
    let hash = "balance: hash\nhash_by: header X-User\n";
    let burdock = Burdock::start(&yaml(&all, hash)).await;
    let first = homes(&burdock).await;
    assert_eq!(homes(&burdock).await, first, "stable");
    let replica = Burdock::start(&yaml(&all, hash)).await;
    assert_eq!(homes(&replica).await, first, "the same on every replica");
    for backend in &backends {
        let count = first.iter().filter(|home| **home == backend.name).count();
        assert!((20..=90).contains(&count), "{}: {count} of 200", backend.name);
    }
    burdock.reload(&yaml(&all[..3], hash)).await;
    let without = homes(&burdock).await;
    for (before, after) in first.iter().zip(&without) {
        assert!(before == after || before == "d", "a key of {before} moved to {after}");
    }
    burdock.reload(&yaml(&all, hash)).await;
    assert_eq!(homes(&burdock).await, first, "and back");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hash_of_something_absent_is_even() {
    let backends = Backend::several(&["a", "b", "c", "d"]).await;
    let all: Vec<_> = backends.iter().collect();
    let burdock = Burdock::start(&yaml(&all, "balance: hash\nhash_by: header X-User\n")).await;
    let mut client = burdock.client();
    for _ in 0..40 {
        assert_eq!(client.get("/").await.status, 200);
    }
    assert!(backends.iter().all(|backend| backend.request_count() == 10));
}

#[tokio::test(flavor = "multi_thread")]
async fn services_are_chosen_by_host_and_path() {
    let backends = Backend::several(&["a", "b", "c"]).await;
    let service = |name: &str, rule: &str, backend: &Backend| {
        let address = backend.address;
        format!("  {name}:\n    {rule}\n    versions: {{ v1: {{ instances: [{address}] }} }}\n")
    };
    let config = format!(
        "{}services:\n{}{}{}",
        support::HEADER,
        service("one", "hosts: [one.test]", &backends[0]),
        service("api", "paths: [/api]", &backends[1]),
        service("wild", "hosts: ['*.wild.test']", &backends[2]),
    );
    let burdock = Burdock::start(&config).await;
    let mut client = burdock.client();
    let cases = [
        ("one.test", "/", "a"),
        ("ONE.test:8080", "/x?y", "a"),
        ("x.wild.test", "/", "c"),
        ("else.test", "/api", "b"),
        ("else.test", "/api/x", "b"),
        ("else.test", "/apix", ""),
        ("else.test", "/", ""),
    ];
    for (host, path, instance) in cases {
        let answer = client.send(&Request::get(path).with("Host", host)).await;
        assert_eq!(answer.instance(), instance, "{host}{path}");
        let status = if instance.is_empty() { 404 } else { 200 };
        assert_eq!(answer.status, status, "{host}{path}");
        if instance.is_empty() {
            assert_eq!(answer.text(), "404 no_service\n");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn new_sessions_go_where_few_live_and_a_returned_instance_fills_up_gently() {
    let backends = Backend::several(&["a", "b", "c", "d"]).await;
    let rest = format!("session_affinity: true\nbalance: least_sessions\n{FAST_READINESS}");
    let burdock = Burdock::start(&yaml(&backends.iter().collect::<Vec<_>>(), &rest)).await;
    backends[3].ready(false);
    burdock.wait_health("d", "unready").await;
    let mut client = burdock.client();
    let mut live = BTreeMap::new();
    for n in 0..300 {
        let answer = client.get("/").await;
        *live.entry(answer.instance().to_owned()).or_insert(0_usize) += 1;
        // Each is one session, however many requests it makes.
        let cookie = format!("BURDOCK={}", answer.cookie("BURDOCK").expect("a token"));
        for _ in 0..n % 3 {
            client.send(&Request::get("/").with("Cookie", &cookie)).await;
        }
    }
    assert!(live.len() == 3 && live.values().all(|n| n.abs_diff(100) <= 16), "{live:?}");
    let metrics = burdock.metrics().await;
    for (name, live) in &live {
        let told = metrics.sum("burdock_instance_sessions", &[("instance", name)]);
        assert!((told - *live as f64).abs() <= 20.0, "{name}: {told} for {live}");
    }
    assert_eq!(metrics.sum("burdock_instance_sessions", &[("instance", "d")]), 0.0);

    backends[3].ready(true);
    burdock.wait_health("d", "ready").await;
    let mut returned = 0;
    for _ in 0..160 {
        returned += usize::from(client.get("/").await.instance() == "d");
    }
    println!("of 160 new sessions {returned} went to the returned one of four");
    assert!((52..=108).contains(&returned), "{returned} of 160: an even share is 40, all too many");
}
