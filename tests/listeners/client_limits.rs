//! Who is let in, and how much of everything clients may take.
#![allow(unsafe_code, reason = "one test limits what another process may have")]

use std::net::SocketAddr;

use crate::support::h2::{self, H2};
use crate::support::wire::{self, Conn};
use crate::support::ws::WebSocket;
use crate::support::{
    self, Backend, Burdock, Client, Fault, Request, eventually, pattern, raw, within, yaml,
};

const GET: &[u8] = b"GET /p HTTP/1.1\r\nHost: app.test\r\n\r\n";

async fn one(rest: &str) -> (Backend, Burdock) {
    let a = Backend::start("a").await;
    let burdock = Burdock::start(&yaml(&[&a], rest)).await;
    (a, burdock)
}

/// A service with an access list, behind a listener with one.
fn guarded(a: &Backend, listener: &str, service: &str) -> String {
    let header = support::HEADER.replacen("address: 127.0.0.1:0", listener, 1);
    let address = a.address;
    format!(
        "{header}trusted_proxies: [127.0.0.1]\n\
         services: {{ s: {{ {service}, instances: [{address}] }} }}\n"
    )
}

async fn errors(burdock: &Burdock, reason: &str, n: f64) {
    burdock.wait_metric("burdock_errors_total", &[("reason", reason)], |v| v == n).await;
}

/// The status of a request on a connection of its own; `None` if that is closed without an answer.
async fn status(address: SocketAddr) -> Option<u16> {
    let mut conn = Conn::connect(address).await.ok()?;
    conn.write(GET).await.ok()?;
    within("an answer or the end", conn.head()).await.ok().flatten().map(|head| head.status())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_closes_connections_of_those_it_does_not_let_in() {
    let a = Backend::start("a").await;
    let text = |access: &str| {
        let listener = format!("address: 127.0.0.1:0, access: {{ {access} }}");
        guarded(&a, &listener, "paths: [/]")
    };
    let burdock = Burdock::start(&text("deny: [127.0.0.1]")).await;
    assert_eq!(status(burdock.address()).await, None);
    errors(&burdock, "denied", 1.0).await;
    burdock.reload(&text("allow: [10.0.0.0/8]")).await;
    assert_eq!(status(burdock.address()).await, None);
    burdock.reload(&text("allow: [127.0.0.0/8, 10.0.0.0/8], deny: [127.0.0.2]")).await;
    assert_eq!(status(burdock.address()).await, Some(200));
    errors(&burdock, "denied", 2.0).await;
    assert_eq!(a.request_count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_refuses_clients_by_the_address_that_trusted_proxies_tell() {
    let a = Backend::start("a").await;
    let service = "access: { allow: [198.18.0.0/15, 127.0.0.1], deny: [198.18.0.9] }";
    let burdock = Burdock::start(&guarded(&a, "address: 127.0.0.1:0", service)).await;
    let mut client = burdock.client();
    for (told, expected) in [
        ("198.18.0.1", 200),
        ("198.18.0.9", 403),
        ("::ffff:198.18.0.9", 403),
        ("192.0.2.1", 403),
        ("198.19.255.255", 200),
    ] {
        let answer = client.send(&Request::get("/p").with("X-Forwarded-For", told)).await;
        assert_eq!(answer.status, expected, "{told}");
        assert_eq!(answer.text().starts_with("403 denied"), expected == 403);
    }
    assert_eq!(client.get("/p").await.status, 200);
    assert_eq!(a.request_count(), 3);
    assert_eq!(burdock.metrics().await.sum("burdock_client_connections_total", &[]), 1.0);
    let lines = burdock.access("/p", 6).await;
    assert_eq!((&lines[1]["error"], &lines[1]["service"]), (&"denied".into(), &"s".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_beyond_the_limit_are_closed_and_a_tunnel_counts_as_one() {
    let (_a, burdock) = one("limits: { connections: 2 }\n").await;
    let mut idle = Conn::connect(burdock.address()).await.unwrap();
    idle.write(GET).await.unwrap();
    assert_eq!(within("an answer", idle.head()).await.unwrap().unwrap().status(), 200);
    let mut tunnel = WebSocket::open(burdock.address(), "/ws", "").await;
    for n in 1..4 {
        assert_eq!(status(burdock.address()).await, None);
        errors(&burdock, "connection_limit", f64::from(n)).await;
    }
    tunnel.echo("still").await;
    drop(tunnel);
    eventually_served(burdock.address()).await;
    drop(idle);
    eventually_served(burdock.address()).await;
}

async fn eventually_served(address: SocketAddr) {
    let begin = std::time::Instant::now();
    while status(address).await != Some(200) {
        assert!(begin.elapsed() < support::DEADLINE, "there is a place again");
        support::pause().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_client_can_not_take_the_connections_of_all() {
    let header =
        "trusted_proxies: [127.0.0.1]\nlimits: { connections_per_client: 2, ipv6_prefix: 48 }\n";
    let a = Backend::start("a").await;
    let text = yaml(&[&a], header).replacen(
        "address: 127.0.0.1:0",
        "address: 127.0.0.1:0, proxy_protocol: accept",
        1,
    );
    let burdock = Burdock::start(&text).await;
    let from = |client: &'static str| {
        let address = burdock.address();
        let family = if client.contains(':') { "TCP6 ::1" } else { "TCP4 1.1.1.1" };
        let (family, to) = family.split_once(' ').unwrap();
        async move {
            let header = format!("PROXY {family} {client} {to} 1 2\r\n");
            let mut conn = raw::open(address, [header.as_bytes(), GET].concat()).await;
            let head = within("an answer or the end", conn.head()).await.ok().flatten();
            (conn, head.map(|head| head.status()))
        }
    };
    let mut held = Vec::new();
    for (client, expected) in [
        ("192.0.2.1", Some(200)),
        ("192.0.2.1", Some(200)),
        ("192.0.2.1", None),
        ("192.0.2.2", Some(200)),
        ("2001:db8:1:1::1", Some(200)),
        ("2001:db8:1:2::1", Some(200)),
        ("2001:db8:1:3::1", None),
        ("2001:db8:2:1::1", Some(200)),
    ] {
        let (conn, status) = from(client).await;
        assert_eq!(status, expected, "{client}");
        held.push(conn);
    }
    errors(&burdock, "client_connection_limit", 2.0).await;
    // The trusted proxy's own are those of many.
    for _ in 0..4 {
        assert_eq!(burdock.client().get("/").await.status, 200);
    }
    held.remove(0);
    burdock.wait_metric("burdock_client_connections", &[], |v| v == 5.0).await;
    assert_eq!(from("192.0.2.1").await.1, Some(200));
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_are_held_to_their_limits_on_either_protocol() {
    let (a, burdock) = one("limits: { head: 2KiB, fields: 10, uri: 100 }\n").await;
    let ask = |target: String, lines: String| {
        let address = burdock.address();
        async move {
            let head = format!("GET /{target} HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
            let mut conn = raw::open(address, head).await;
            within("an answer", conn.head()).await.unwrap().unwrap().status()
        }
    };
    let fields = |n: usize| (0..n).map(|n| format!("x-{n}: 1\r\n")).collect::<String>();
    assert_eq!(ask("a".repeat(99), fields(9)).await, 200);
    assert_eq!(ask("a".repeat(100), fields(9)).await, 414);
    assert_eq!(ask("a".into(), fields(10)).await, 431);
    assert_eq!(ask("a".into(), format!("x: {}\r\n", "y".repeat(1800))).await, 200);
    assert_eq!(ask("a".into(), format!("x: {}\r\n", "y".repeat(2048))).await, 431);
    let mut client = H2::connect(burdock.address()).await;
    assert_eq!(client.get(&format!("/{}", "a".repeat(99))).await.status, 200);
    assert_eq!(client.get(&format!("/{}", "a".repeat(100))).await.status, 414);
    let mut request = h2::get("/");
    for n in 0..11 {
        let name = http::HeaderName::try_from(format!("x-{n}")).unwrap();
        request.headers_mut().insert(name, http::HeaderValue::from_static("1"));
    }
    let answer = h2::finish(client.begin(request, false).0).await.expect("an answer");
    assert_eq!(answer.status, 431);
    assert_eq!(a.request_count(), 3);
    errors(&burdock, "uri_too_long", 2.0).await;
    errors(&burdock, "head_too_large", 3.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_beyond_its_limit_is_refused_at_once_or_while_it_streams() {
    let (a, burdock) = one("limits: { max_body: 1000 }\n").await;
    let mut client = burdock.client();
    assert_eq!(client.post("/echo", &pattern(1000)).await.status, 200);
    // Nothing of the body need be sent for that.
    let head = b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n";
    let mut conn = raw::open(burdock.address(), head).await;
    assert_eq!(within("an answer", conn.head()).await.unwrap().unwrap().status(), 413);
    assert_eq!(a.request_count(), 1);
    let chunked = |size: usize| Request::post("/echo", &pattern(size)).chunked(&[]);
    assert_eq!(burdock.client().send(&chunked(1000)).await.status, 200);
    let head = b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut conn = raw::open(burdock.address(), head).await;
    conn.write(&wire::chunk(&pattern(600))).await.unwrap();
    a.request(3).await;
    conn.write(&wire::chunk(&pattern(600))).await.unwrap();
    assert_eq!(within("an answer", conn.head()).await.unwrap().unwrap().status(), 413);
    errors(&burdock, "body_too_large", 2.0).await;
    eventually("no attempt is made twice", || (a.request_count() == 3).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_asks_too_often_is_told_when_it_may_again() {
    let rest = "trusted_proxies: [127.0.0.1]\n\
                rate_limit: { by: header X-Key, requests: 2, per: 1h, burst: 3 }\n";
    let (a, burdock) = one(rest).await;
    let mut client = burdock.client();
    let mut ask = async |key: Option<&str>, address: &str| {
        let request = Request::get("/p").with("X-Forwarded-For", address);
        let request = match key {
            Some(key) => request.with("X-Key", key),
            None => request,
        };
        client.send(&request).await
    };
    for _ in 0..3 {
        assert_eq!(ask(Some("one"), "192.0.2.1").await.status, 200);
    }
    let answer = ask(Some("one"), "192.0.2.2").await;
    assert_eq!((answer.status, answer.text().as_str()), (429, "429 rate_limited\n"));
    let wait: u32 = answer.field("retry-after").unwrap().parse().unwrap();
    assert!((1790..=1801).contains(&wait), "{wait}");
    assert_eq!(ask(Some("two"), "192.0.2.1").await.status, 200);
    // Whoever brings no key is known by its address, all of a network of IPv6 as one.
    for (address, expected) in [
        ("192.0.2.1", 200),
        ("2001:db8::1", 200),
        ("2001:db8::2", 200),
        ("2001:db8::3", 200),
        ("2001:db8::4", 429),
        ("2001:db8:0:1::4", 200),
        ("192.0.2.1", 200),
    ] {
        assert_eq!(ask(None, address).await.status, expected, "{address}");
    }
    errors(&burdock, "rate_limited", 2.0).await;
    assert_eq!(a.request_count(), 10);
    assert_eq!(burdock.metrics().await.sum("burdock_client_connections_total", &[]), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_is_exact_over_all_workers() {
    let (a, burdock) = one("rate_limit: { requests: 50, per: 1h }\n").await;
    let address = burdock.address();
    let asked: Vec<_> = (0..200)
        .map(|_| tokio::spawn(async move { Client::new(address).get("/").await.status }))
        .collect();
    let mut statuses = Vec::new();
    for one in asked {
        statuses.push(within("an answer", one).await.unwrap());
    }
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 50);
    assert_eq!(statuses.iter().filter(|status| **status == 429).count(), 150);
    assert_eq!(a.request_count(), 50);
}

/// Long enough for the grace of those that are slow, and then some.
async fn patiently<F: Future>(what: &str, future: F) -> F::Output {
    let limit = 3 * support::DEADLINE;
    tokio::time::timeout(limit, future).await.unwrap_or_else(|_| panic!("in {limit:?}: {what}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_drips_its_body_does_not_hold_an_instance() {
    let (a, burdock) = one("limits: { min_upload: 1KiB }\n").await;
    let head = b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut slow = raw::open(burdock.address(), head).await;
    // Much at once is no excuse for little later.
    slow.write(&wire::chunk(&pattern(500_000))).await.unwrap();
    a.request(1).await;
    let answer = async {
        loop {
            tokio::select! {
                head = slow.head() => break head,
                () = tokio::time::sleep(std::time::Duration::from_millis(100)) => {}
            }
            slow.write(&wire::chunk(b"x")).await.unwrap();
        }
    };
    let answer = patiently("an answer", answer).await.unwrap().unwrap();
    assert_eq!(answer.status(), 408);
    errors(&burdock, "request_too_slow", 1.0).await;
    assert_eq!(burdock.client().post("/echo", b"x").await.status, 200);
    burdock.wait_metric("burdock_instance_requests_in_flight", &[], |v| v == 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_sips_its_answer_does_not_hold_an_instance() {
    let rest = "limits: { min_download: 512MiB }\ntimeouts: { header_read: 1s }\n";
    let (_a, burdock) = one(rest).await;
    let size = 64 << 20;
    let head = format!("GET /chunked/{size} HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut slow = raw::open(burdock.address(), head).await;
    let mut h2 = H2::with_window(burdock.address(), 1000).await;
    let (_answer, _stream) = h2.begin(h2::get(&format!("/chunked/{size}")), false);
    let sip = async {
        let reason = [("reason", "client_too_slow")];
        while burdock.metrics().await.sum("burdock_errors_total", &reason) < 2.0 {
            drop(slow.exactly(1).await);
            support::pause().await;
        }
    };
    patiently("both are cut", sip).await;
    burdock.wait_metric("burdock_instance_requests_in_flight", &[], |v| v == 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_take_too_much_in_all_are_sent_once() {
    for (limit, expected) in [("64MiB", [200, 200]), ("100", [200, 502])] {
        let backends = Backend::several(&["a", "b"]).await;
        let instances: Vec<_> = backends.iter().collect();
        let text = yaml(&instances, &format!("limits: {{ retry_memory: {limit} }}\n"));
        let burdock = Burdock::start(&text).await;
        backends[0].misbehaves_times(Fault::ResetBeforeAnswer, 1);
        let request = Request::new("PUT", "/echo").body(&pattern(1000));
        let first = burdock.client().send(&request).await.status;
        let mut statuses = [first, burdock.client().send(&request).await.status];
        statuses.sort_unstable();
        assert_eq!(statuses, expected, "{limit}");
        let metrics = burdock.metrics().await;
        let dropped = metrics.sum("burdock_retry_bodies_dropped_total", &[]);
        assert_eq!(dropped, if expected == [200, 200] { 0.0 } else { 2.0 });
        burdock.wait_metric("burdock_retry_bytes", &[], |v| v == 0.0).await;
    }
}

/// Lets a process have this many descriptors.
fn allow_descriptors(burdock: &Burdock, most: u64) {
    let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
    // SAFETY: prlimit reads one structure that lives here, and writes none.
    let set = unsafe {
        libc::prlimit(burdock.pid(), libc::RLIMIT_NOFILE, &raw const limit, std::ptr::null_mut())
    };
    assert_eq!(set, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_descriptors_run_short_new_clients_wait_and_the_others_are_served() {
    let (_a, burdock) = one("").await;
    let most = burdock.descriptors() as u64 + 200;
    allow_descriptors(&burdock, most);
    let mut first = burdock.client();
    assert_eq!(first.get("/").await.status, 200);
    let mut crowd = Vec::new();
    for _ in 0..150 {
        crowd.push(raw::open(burdock.address(), GET).await);
    }
    burdock.wait_metric("burdock_descriptors_short", &[], |v| v > 0.0).await;
    assert!((burdock.descriptors() as u64) < most, "some are kept back");
    assert_eq!(first.get("/").await.status, 200, "an old client, maybe on a new connection");
    for conn in crowd {
        // Those who rest make room for those who wait.
        let mut conn = conn;
        let head = patiently("an answer", conn.head()).await.unwrap().unwrap();
        assert_eq!(head.status(), 200);
    }
    burdock.wait_metric("burdock_descriptors_short", &[], |v| v == 0.0).await;
    let metrics = burdock.metrics().await;
    assert_eq!(metrics.sum("burdock_descriptors_max", &[]), most as f64);
    assert_eq!(metrics.sum("burdock_errors_total", &[("reason", "no_socket")]), 0.0);
    assert!(burdock.output().matches("descriptors run short").count() == 1);
}

/// What Burdock answers by itself has no service whose limits would hold.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_no_answers_of_burdocks_own_is_not_kept() {
    let backend = Backend::start("a").await;
    let text = yaml(&[&backend], "timeouts: { keep_alive: 400ms }\n")
        .replace("{ address: 127.0.0.1:0 }]", "{ address: 127.0.0.1:0, https_redirect: true }]");
    let burdock = Burdock::start(&text).await;
    let mut conn = raw::open(burdock.address(), b"").await;
    let many = "GET /a HTTP/1.1\r\nHost: x\r\n\r\n".repeat(1000);
    let asking = tokio::spawn(async move { while conn.write(many.as_bytes()).await.is_ok() {} });
    let labels = [("reason", "client_idle_timeout")];
    burdock.wait_metric("burdock_errors_total", &labels, |count| count == 1.0).await;
    within("its end", asking).await.unwrap();
    burdock.wait_metric("burdock_client_connections", &[], |open| open == 0.0).await;
}
