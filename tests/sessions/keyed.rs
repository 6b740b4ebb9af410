//! Affinity by the app's own session id: a ring leads it to an instance, and little moves.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use crate::support::ws::WebSocket;
use crate::support::{
    self, Backend, Burdock, Client, FAST_READINESS, Fault, Request, eventually, within, yaml,
};

fn by(what: &str) -> String {
    format!("session_affinity: true\naffinity: {{ by: {what} }}\n")
}

fn config(backends: &[Backend], rest: &str) -> String {
    yaml(&backends.iter().collect::<Vec<_>>(), rest)
}

fn with_key(key: usize) -> Request {
    Request::get(&format!("/keys/{key}")).with("X-Session", &format!("session-{key}"))
}

/// Where each of so many keys goes.
async fn homes(burdock: &Burdock, keys: usize) -> Vec<String> {
    let mut client = burdock.client();
    let mut homes = Vec::new();
    for key in 0..keys {
        let answer = client.send(&with_key(key)).await;
        assert_eq!(answer.status, 200, "key {key}");
        homes.push(answer.instance().to_owned());
    }
    homes
}

#[tokio::test(flavor = "multi_thread")]
async fn one_id_is_one_instance_wherever_the_id_stands() {
    let backends = Backend::several(&["a", "b", "c", "d", "e"]).await;
    let burdock = Burdock::start(&config(&backends, "")).await;
    let plain = |_: usize| Request::get("/x");
    let cookie = |n: usize| plain(n).with("Cookie", &format!("a=1; JSESSIONID=s{n}; BURDOCK=x"));
    let header = |n: usize| plain(n).with("X-Session", &format!("s{n}"));
    let query = |n: usize| Request::get(&format!("/x?a=1&s=s{n}"));
    let path = |n: usize| Request::get(&format!("/room/{n}?t={}", ever_new(n)));
    let kinds: [(&str, &dyn Fn(usize) -> Request); 4] = [
        ("cookie JSESSIONID", &cookie),
        ("header X-Session", &header),
        ("query s", &query),
        ("path", &path),
    ];
    for (what, request) in kinds {
        burdock.reload(&config(&backends, &by(what))).await;
        let mut homes = BTreeSet::new();
        for n in 0..40 {
            let first = burdock.client().send(&request(n)).await;
            assert_eq!(first.head.all("set-cookie"), [""; 0], "no token is needed");
            homes.insert(first.instance().to_owned());
            for _ in 0..3 {
                let again = burdock.client().send(&request(n)).await;
                assert_eq!(again.instance(), first.instance(), "{what} {n}");
            }
        }
        assert_eq!(homes.len(), 5, "{what}: ids are spread");
    }
    let seen = backends
        .iter()
        .flat_map(Backend::requests)
        .filter_map(|r| r.head.field("cookie").map(str::to_owned));
    let whole =
        |line: &String| line.starts_with("a=1; JSESSIONID=s") && line.ends_with("BURDOCK=x");
    assert!(seen.collect::<Vec<_>>().iter().all(whole), "the app's cookies are its own");
    burdock.reload(&config(&backends, &by("client_ip"))).await;
    let first = burdock.client().get("/").await.instance().to_owned();
    for _ in 0..9 {
        assert_eq!(burdock.client().get("/").await.instance(), first);
    }
    let metrics = burdock.metrics().await;
    assert_eq!(metrics.sum("burdock_affinity_total", &[("outcome", "keyed")]), 4.0 * 160.0 + 10.0);
}

/// Differs from request to request, and means nothing.
fn ever_new(n: usize) -> usize {
    static NEXT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    n + NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_without_an_id_are_spread_as_balance_says() {
    let backends = Backend::several(&["a", "b", "c"]).await;
    let burdock = Burdock::start(&config(&backends, &by("header X-Session"))).await;
    let mut counts = BTreeMap::new();
    for n in 0..60 {
        let mut request = Request::get("/none");
        if n % 2 == 0 {
            request = request.with("X-Session", "");
        }
        let answer = burdock.client().send(&request).await;
        *counts.entry(answer.instance().to_owned()).or_insert(0) += 1;
    }
    assert_eq!(counts.into_values().collect::<Vec<_>>(), [20; 3]);
    let lines = burdock.access("/none", 60).await;
    assert!(lines.iter().all(|line| line["affinity"] == "keyless"));
    // Beside `balance: hash` those without an id have that ring, which is the same.
    let hash = format!("{}balance: hash\nhash_by: client_ip\n", by("header X-Session"));
    burdock.reload(&config(&backends, &hash)).await;
    let none = Request::get("/none");
    let first = burdock.client().send(&none).await.instance().to_owned();
    for _ in 0..5 {
        assert_eq!(burdock.client().send(&none).await.instance(), first);
    }
    let address = Request::get("/").with("X-Session", "127.0.0.1");
    assert_eq!(burdock.client().send(&address).await.instance(), first);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_ids_of_an_unready_instance_move_and_they_come_back() {
    let backends = Backend::several(&["a", "b", "c", "d", "e"]).await;
    let rest = format!("{}{FAST_READINESS}", by("header X-Session"));
    let burdock = Burdock::start(&config(&backends, &rest)).await;
    let before = homes(&burdock, 200).await;
    backends[2].ready(false);
    burdock.wait_health("c", "unready").await;
    let during = homes(&burdock, 200).await;
    for (key, (before, during)) in before.iter().zip(&during).enumerate() {
        assert_eq!(before == "c", before != during, "key {key}: {before} -> {during}");
    }
    let refuge: BTreeSet<_> =
        before.iter().zip(&during).filter(|(before, _)| *before == "c").map(|(_, to)| to).collect();
    assert!(refuge.len() > 2, "they are spread over the others: {refuge:?}");
    backends[2].ready(true);
    burdock.wait_health("c", "ready").await;
    assert_eq!(homes(&burdock, 200).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn about_one_in_n_moves_when_an_instance_joins_or_leaves() {
    let backends = Backend::several(&["a", "b", "c", "d", "e"]).await;
    let rest = format!("{}drain: {{ timeout: 0s }}\n", by("header X-Session"));
    let burdock = Burdock::start(&config(&backends[..4], &rest)).await;
    let four = homes(&burdock, 500).await;
    burdock.reload(&config(&backends, &rest)).await;
    let five = homes(&burdock, 500).await;
    let moved = four.iter().zip(&five).filter(|(before, after)| before != after);
    let (to, moved): (BTreeSet<_>, usize) =
        moved.fold(Default::default(), |(mut to, n), (_, after)| {
            to.insert(after.clone());
            (to, n + 1)
        });
    assert_eq!(to.into_iter().collect::<Vec<_>>(), ["e"], "nobody moves but to the new one");
    assert!((60..=150).contains(&moved), "{moved} of 500 moved; a fifth is 100");
    println!(
        "joining: {moved} of 500 ids moved, {:.3} of all; 1/5 is the least",
        moved as f64 / 500.0
    );
    burdock.reload(&config(&backends[1..], &rest)).await;
    let left = homes(&burdock, 500).await;
    for (before, after) in five.iter().zip(&left) {
        assert_eq!(before == "a", before != after, "{before} -> {after}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_connect_goes_where_the_ring_leads_without_the_instance() {
    let backends = Backend::several(&["a", "b", "c", "d"]).await;
    let rest = format!("{}breaker: off\n", by("header X-Session"));
    let burdock = Burdock::start(&config(&backends, &rest)).await;
    let before = homes(&burdock, 60).await;
    backends[1].dies().await;
    let during = homes(&burdock, 60).await;
    for (before, during) in before.iter().zip(&during) {
        assert_eq!(before == "b", before != during);
    }
    assert_eq!(homes(&burdock, 60).await, during, "and always to the same");
    let others: Vec<_> = backends.iter().filter(|backend| backend.name != "b").collect();
    burdock.reload(&yaml(&others, &rest)).await;
    assert_eq!(homes(&burdock, 60).await, during, "as after it was taken out");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_instance_gets_no_more_than_the_load_factor_lets_it() {
    let backends = Backend::several(&["a", "b", "c", "d"]).await;
    let rest = "session_affinity: true\naffinity: { by: header X-Session, load_factor: 125% }\n";
    let burdock = Burdock::start(&config(&backends, rest)).await;
    backends.iter().for_each(|backend| backend.misbehaves(Fault::Gate));
    let mut waiting = tokio::task::JoinSet::new();
    let total = || backends.iter().map(Backend::request_count).sum::<usize>();
    for n in 0..40 {
        let address = burdock.address();
        waiting.spawn(async move { Client::new(address).send(&with_key(7)).await });
        eventually("the request has come", || (total() > n).then_some(())).await;
        let most = backends.iter().map(Backend::request_count).max().unwrap_or(0);
        let bound = (1.25 * (n + 1) as f64 / 4.0).ceil() as usize;
        assert!(most <= bound, "{most} of {} in flight at one of four; {bound} may be", n + 1);
    }
    backends.iter().for_each(|backend| backend.open_gate(100));
    let answers = within("all answers", waiting.join_all()).await;
    assert!(answers.iter().all(|answer| answer.status == 200));
    backends.iter().for_each(|backend| backend.misbehaves(Fault::None));
    let quiet = homes(&burdock, 60).await;
    burdock.reload(&config(&backends, &by("header X-Session"))).await;
    assert_eq!(homes(&burdock, 60).await, quiet, "without load it changes nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_say_how_many_ids_an_instance_gets_and_tunnels_follow_their_id() {
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    let text = format!(
        "{}instances:\n  - {{ name: a, address: {}, weight: 3 }}\n  - {{ name: b, address: {} }}\n{}",
        support::HEADER,
        a.address,
        b.address,
        by("header X-Session")
    );
    let burdock = Burdock::start(&text).await;
    let homes = homes(&burdock, 400).await;
    let heavy = homes.iter().filter(|home| *home == "a").count();
    assert!((260..=340).contains(&heavy), "{heavy} of 400; three quarters are 300");
    for (key, home) in homes.iter().take(6).enumerate() {
        let extra = format!("X-Session: session-{key}\r\n");
        let socket = WebSocket::open(burdock.address(), "/ws", &extra).await;
        assert_eq!(socket.instance(), home);
    }
}
