//! Copies of requests go to another version, and nobody but that version can tell.

use std::time::{Duration, Instant};

use crate::support::h2::H2;
use crate::support::streams::Streams;
use crate::support::ws::WebSocket;
use crate::support::{self, Backend, Burdock, Client, Fault, Request, eventually, pattern};

const MARK: &str = "x-burdock-mirror";

/// A service `app` whose requests go to `v1`, and a `mirror` to `v2`.
fn config(v1: &str, v2: &str, mirror: &str, common: &str) -> String {
    let version = |name: &str, address: &str| {
        format!(
            "      {name}:\n        instances: [{{ name: {name}, address: {address} }}]\n{common}"
        )
    };
    format!(
        "{}services:\n  app:\n    traffic_split: {{ allocations: {{ v1: 1, v2: 0 }} }}\n    \
         mirror: {{ to: v2{mirror} }}\n    versions:\n{}{}",
        support::HEADER,
        version("v1", v1),
        version("v2", v2)
    )
}

async fn start(mirror: &str, common: &str) -> (Backend, Backend, Burdock) {
    let (v1, v2) = (Backend::start("v1").await, Backend::start("v2").await);
    let text = config(&v1.address.to_string(), &v2.address.to_string(), mirror, common);
    let burdock = Burdock::start(&text).await;
    (v1, v2, burdock)
}

async fn came(backend: &Backend, count: usize) {
    let came = || (backend.request_count() >= count).then_some(());
    eventually(&format!("{count} copies"), came).await;
}

/// Waits until so many copies have come to this.
async fn fate(burdock: &Burdock, outcome: &str, count: usize) {
    let labels = [("version", "v2"), ("outcome", outcome)];
    burdock.wait_metric("burdock_mirrored_total", &labels, |it| it == count as f64).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_marked_and_its_answer_is_nobodys() {
    let sticky = "        session_affinity: true\n";
    let (v1, v2, burdock) = start("", sticky).await;
    let mut client = burdock.session();
    for n in 0..20 {
        // Whoever is no Burdock can't pose as one.
        let request =
            Request::get(&format!("/a?n={n}")).with("X-Burdock-Mirror", "v1").with("X-Own", "1");
        let answer = client.send(&request).await;
        assert_eq!((answer.status, answer.instance()), (200, "v1"));
        assert_eq!(answer.set_cookie("BURDOCK").is_some(), n == 0, "one of v1");
    }
    came(&v2, 20).await;
    fate(&burdock, "2xx", 20).await;
    let (first, copies) = (v1.requests(), v2.requests());
    assert_eq!((first.len(), copies.len()), (20, 20));
    for request in &first {
        assert_eq!(request.head.field(MARK), None);
    }
    for copy in &copies {
        let like = |it: &&support::backend::Recorded| it.head.target() == copy.head.target();
        let own = first.iter().find(like).expect("what it is a copy of");
        assert_eq!(copy.head.field(MARK), Some("v1"));
        for name in ["host", "x-own", "x-forwarded-for", "x-request-id", "cookie"] {
            assert_eq!(copy.head.field(name), own.head.field(name), "{name}");
        }
    }
    // One after the other they come by a connection that is kept.
    let is_over = |copies: f64| copies == 0.0;
    burdock.wait_metric("burdock_mirror_in_flight", &[], is_over).await;
    let opened = v2.connections();
    for n in 21..=25 {
        client.get("/b").await;
        fate(&burdock, "2xx", n).await;
        burdock.wait_metric("burdock_mirror_in_flight", &[], is_over).await;
    }
    assert_eq!(v2.connections(), opened);
    let metrics = burdock.metrics().await;
    let of_v2 = |name| metrics.sum(name, &[("version", "v2")]);
    let counted =
        ["burdock_client_requests_total", "burdock_requests_total", "burdock_attempts_total"];
    assert_eq!(counted.map(of_v2), [0.0; 3], "nothing but what is for copies");
    assert_eq!(of_v2("burdock_mirror_in_flight"), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_share_is_copied_and_of_what_another_version_gets_only() {
    let (v1, v2, burdock) = start(", share: 20%", "").await;
    let mut client = burdock.client();
    for _ in 0..500 {
        client.get("/").await;
    }
    let labels = [("version", "v2"), ("outcome", "2xx")];
    burdock.wait_metric("burdock_mirror_in_flight", &[], |it| it == 0.0).await;
    let copies = burdock.metrics().await.sum("burdock_mirrored_total", &labels);
    assert!((60.0..=140.0).contains(&copies), "{copies} of 500 at 20 %");
    assert_eq!((v1.request_count(), v2.request_count()), (500, copies as usize));
    let text = config(&v1.address.to_string(), &v2.address.to_string(), "", "");
    burdock.reload(&text.replace("v1: 1, v2: 0", "v1: 0, v2: 1")).await;
    let before = v2.request_count();
    for _ in 0..50 {
        assert_eq!(client.get("/").await.instance(), "v2");
    }
    assert_eq!(v2.request_count(), before + 50, "its own, once each");
    burdock.reload(&text.replace("mirror: { to: v2 }", "mirror: off")).await;
    let before = v2.request_count();
    for _ in 0..20 {
        assert_eq!(client.get("/").await.instance(), "v1");
    }
    assert_eq!(v2.request_count(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_something_is_copied_only_where_that_is_wanted() {
    let (_v1, v2, burdock) = start("", "").await;
    let mut client = burdock.client();
    for method in ["POST", "PUT", "PATCH", "DELETE", "GET", "HEAD", "OPTIONS"] {
        client.send(&Request::new(method, "/")).await;
    }
    fate(&burdock, "2xx", 3).await;
    let methods: Vec<_> = v2.requests().iter().map(|it| it.head.method().to_owned()).collect();
    assert!(
        ["GET", "HEAD", "OPTIONS"].iter().all(|it| methods.contains(&(*it).to_owned())),
        "{methods:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_are_copied_whole_or_not_at_all() {
    let (v1, v2, burdock) = start(", methods: all, max_body: 10000B", "").await;
    let mut client = burdock.client();
    let bodies = [pattern(1), pattern(9000), pattern(10_000)];
    for body in &bodies {
        client.send(&Request::post("/echo", body)).await;
        client.send(&Request::post("/echo", body).chunked(&[("X-T", "1")])).await;
    }
    came(&v2, 6).await;
    fate(&burdock, "2xx", 6).await;
    let mut seen = Vec::new();
    for n in 0..6 {
        let copy = v2.body(n + 1).await;
        seen.push(copy.bytes.len());
        assert_eq!(copy.bytes, pattern(copy.bytes.len()));
    }
    seen.sort_unstable();
    assert_eq!(seen, [1, 1, 9000, 9000, 10_000, 10_000]);
    for request in [
        Request::post("/echo", &pattern(10_001)),
        Request::post("/echo", &pattern(200_000)).chunked(&[]),
    ] {
        let answer = client.send(&request).await;
        assert_eq!((answer.status, answer.body.size >= 10_001), (200, true));
    }
    fate(&burdock, "too_large", 2).await;
    assert_eq!((v1.request_count(), v2.request_count()), (8, 6));
    // One that waits for a 100 gets it from the instance that answers.
    let answer = client.send(&Request::post("/echo", b"abc").with("Expect", "100-continue")).await;
    assert_eq!(answer.text(), "abc");
    came(&v2, 7).await;
    assert_eq!(v2.last_request().head.field("expect"), None);
    // A client that leaves before its end.
    let head = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nabc";
    let half = support::raw::open(burdock.address(), head).await;
    v1.request(9).await;
    drop(half);
    fate(&burdock, "unfinished", 1).await;
    assert_eq!(v2.request_count(), 7);
    burdock.wait_metric("burdock_mirror_in_flight", &[], |it| it == 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_becomes_of_copies_clients_do_not_notice() {
    let breaker =
        "        breaker: { failures: 3, open: 60s }\n        timeouts: { first_byte: 2s }\n";
    let (_v1, v2, burdock) = start(", max_in_flight: 10, methods: all", breaker).await;
    let passes = async |count: usize| {
        let begun = Instant::now();
        let mut client = burdock.client();
        for _ in 0..count {
            let answer = client.post("/echo", b"abc").await;
            assert_eq!((answer.status, answer.text().as_str()), (200, "abc"));
        }
        begun.elapsed()
    };
    for (n, fault) in [
        Fault::Status(500),
        Fault::ResetBeforeAnswer,
        Fault::CloseBeforeAnswer,
        Fault::ResetMidAnswer(10),
        Fault::Raw(b"this is no HTTP\r\n\r\n".to_vec()),
    ]
    .into_iter()
    .enumerate()
    {
        v2.misbehaves(fault);
        passes(5).await;
        came(&v2, (n + 1) * 5).await;
        burdock.wait_metric("burdock_mirror_in_flight", &[], |it| it == 0.0).await;
    }
    fate(&burdock, "5xx", 5).await;
    // Those that broke off had a head.
    fate(&burdock, "2xx", 5).await;
    fate(&burdock, "failed", 15).await;
    // One that says nothing holds so many and no more, and nobody up.
    v2.misbehaves(Fault::Gate);
    let took = passes(100).await;
    assert!(took < Duration::from_secs(2), "{took:?} for 100 requests");
    fate(&burdock, "full", 90).await;
    fate(&burdock, "failed", 25).await;
    v2.misbehaves(Fault::None);
    v2.open_gate(100);
    // Nor is it held against it.
    let metrics = burdock.metrics().await;
    let v2_only = [("instance", "v2")];
    assert_eq!(metrics.sum("burdock_instance_breaker", &v2_only), 0.0);
    assert_eq!(metrics.sum("burdock_breaker_opened_total", &[]), 0.0);
    assert_eq!(metrics.sum("burdock_failures_total", &[]), 0.0);
    let before = v2.request_count();
    passes(5).await;
    came(&v2, before + 5).await;
    // And where there is none.
    v2.stops_listening().await;
    v2.drops_connections();
    passes(5).await;
    burdock.wait_metric("burdock_mirror_in_flight", &[], |it| it == 0.0).await;
    assert_eq!(burdock.metrics().await.sum("burdock_errors_total", &[]), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn tunnels_are_not_copied() {
    let (_v1, v2, burdock) = start(", methods: all", "").await;
    let mut socket = WebSocket::open(burdock.address(), "/ws", "").await;
    assert_eq!(socket.instance(), "v1");
    socket.echo("alone").await;
    burdock.client().get("/after").await;
    came(&v2, 1).await;
    assert_eq!(v2.requests()[0].head.target(), "/after");
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_of_clients_and_of_instances_are_copied_too() {
    let (v1, v2) = (Backend::start("v1").await, Streams::start("v2").await);
    let text = config(&v1.address.to_string(), &v2.address.to_string(), ", methods: all", "");
    let text = text.replace("      v2:\n", "      v2:\n        protocol: http2\n");
    let burdock = Burdock::start(&text).await;
    let mut h2 = H2::connect(burdock.address()).await;
    let answer = h2.get("/one").await;
    assert_eq!(answer.instance(), "v1");
    let mut client: Client = burdock.client();
    assert_eq!(client.post("/echo", b"abc").await.text(), "abc");
    fate(&burdock, "2xx", 2).await;
    for n in 1..=2 {
        let mark = v2.request(n, |it| it.head.headers.get(MARK).cloned()).await;
        assert_eq!(mark.expect("a mark"), "v1");
    }
}
