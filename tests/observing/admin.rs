//! What an operator sees: metrics that parse and come back to rest, a health answer, access lines.

use std::net::TcpStream;

use crate::support::ws::WebSocket;
use crate::support::{
    self, Backend, Burdock, Client, FAST_READINESS, Fault, Load, Request, eventually, raw, within,
    yaml,
};

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_address_is_apart_from_those_of_clients() {
    let a = Backend::start("a").await;
    let burdock = Burdock::start(&yaml(&[&a], "")).await;
    let mut admin = Client::admin(burdock.admin());
    let health = admin.get("/healthz").await;
    assert_eq!((health.status, health.text().as_str()), (200, "ok\n"));
    assert_eq!(admin.get("/nothing").await.status, 404);
    let post = Request::post("/metrics", b"").with("Content-Type", "application/json");
    assert_eq!(admin.send(&post).await.status, 405);
    assert_eq!(a.request_count(), 0, "none of it is proxied");
    assert_eq!(burdock.client().get("/metrics").await.instance(), "a", "nor the other way");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_client_keeps_an_admin_connection() {
    let a = Backend::start("a").await;
    let burdock = Burdock::start(&yaml(&[&a], "")).await;
    let mut silent = Vec::new();
    // As many as are served at once.
    for n in 0..64 {
        let begun = if n % 2 == 0 { "" } else { "GET /metr" };
        silent.push(raw::open(burdock.admin(), begun).await);
    }
    assert_eq!(Client::admin(burdock.admin()).get("/healthz").await.status, 200);
    for mut conn in silent {
        within("the end of a silent client", conn.read_to_end()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_address_moves_by_a_reload_or_not_at_all() {
    let a = Backend::start("a").await;
    let text = yaml(&[&a], "");
    let with =
        |admin: &str| text.replace("admin: { address: 127.0.0.1:0 }", &format!("admin: {admin}"));
    let at = |address: &str| with(&format!("{{ address: {address} }}"));
    let mut burdock = Burdock::start(&text).await;
    let taken = format!("{}balance: random\n", at(&a.address.to_string()));
    let line = burdock.reload(&taken).await;
    assert_eq!(line["message"], "reload rejected", "{line}");
    assert!(line["error"].to_string().contains(&a.address.to_string()), "{line}");
    let metrics = burdock.metrics().await;
    assert_eq!(metrics.sum("burdock_config_last_reload_success", &[]), 0.0);
    assert_eq!(metrics.sum("burdock_config_generation", &[]), 1.0, "nothing of it is taken over");
    assert_eq!(burdock.reload(&at("127.0.0.2:0")).await["message"], "reloaded");
    let moved = |line: &serde_json::Value| line["address"].to_string().contains("127.0.0.2:");
    let line = burdock.wait_log("admin listening", moved).await;
    let new = line["address"].as_str().unwrap().parse().unwrap();
    assert_eq!(Client::admin(new).get("/healthz").await.status, 200);
    let closed = || TcpStream::connect(burdock.admin()).is_err().then_some(());
    eventually("the old address refuses", closed).await;
    assert_eq!(burdock.reload(&with("off")).await["message"], "reloaded");
    let closed = || TcpStream::connect(new).is_err().then_some(());
    eventually("switched off", closed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_have_the_promised_names_types_and_labels() {
    let a = Backend::start("a").await;
    let rest = format!("session_affinity: true\n{FAST_READINESS}");
    let burdock = Burdock::start(&yaml(&[&a], &rest)).await;
    burdock.wait_health("a", "ready").await;
    burdock.client().get("/status/404").await;
    burdock.client().send(&Request::get("/").with("Cookie", "BURDOCK=x")).await;
    let mut socket = WebSocket::open(burdock.address(), "/ws", "").await;
    socket.echo("x").await;
    socket.send(support::ws::CLOSE, &[]).await;
    socket.closed().await;
    drop(socket);
    burdock.wait_metric("burdock_tunnels_ended_total", &[], |v| v == 1.0).await;
    let metrics = burdock.metrics().await;
    let expected: [(&str, &str, &[&str]); 13] = [
        ("burdock_requests_total", "counter", &["service", "version", "instance", "class"]),
        ("burdock_affinity_total", "counter", &["service", "version", "outcome"]),
        ("burdock_affinity_rejected_total", "counter", &["service", "version", "reason"]),
        ("burdock_instance_health", "gauge", &["service", "version", "instance", "state"]),
        ("burdock_instance_requests_in_flight", "gauge", &["service", "version", "instance"]),
        ("burdock_instance_tunnels", "gauge", &["service", "version", "instance"]),
        ("burdock_tunnels_opened_total", "counter", &["service", "version"]),
        ("burdock_tunnels_ended_total", "counter", &["service", "version", "cause"]),
        ("burdock_client_connections", "gauge", &[]),
        ("burdock_config_generation", "gauge", &[]),
        ("burdock_config_last_reload_success", "gauge", &[]),
        ("burdock_build_info", "gauge", &["version"]),
        ("burdock_errors_total", "counter", &["reason"]),
    ];
    for (name, kind, labels) in expected {
        assert_eq!(metrics.types.get(name).map(String::as_str), Some(kind), "{name}");
        let series: Vec<_> = metrics.series.iter().filter(|s| s.0 == name).collect();
        assert!(!series.is_empty() || name == "burdock_errors_total", "{name} has no series");
        for (_, have, _) in series {
            assert!(labels.iter().all(|label| have.contains_key(*label)), "{name}{have:?}");
        }
    }
    let class = [("class", "4xx"), ("instance", "a")];
    assert_eq!(metrics.sum("burdock_requests_total", &class), 1.0);
    let build = [("version", env!("CARGO_PKG_VERSION"))];
    assert_eq!(metrics.sum("burdock_build_info", &build), 1.0);
    let health = |state| metrics.sum("burdock_instance_health", &[("state", state)]);
    assert_eq!(["unknown", "ready", "unready", "dead"].map(health), [0.0, 1.0, 0.0, 0.0]);
    let mut names: Vec<_> = metrics.series.iter().map(|(n, l, _)| (n, l)).collect();
    names.sort();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count, "no series twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn gauges_rise_with_what_is_open_and_fall_to_zero() {
    let a = Backend::start("a").await;
    let burdock = Burdock::start(&yaml(&[&a], "")).await;
    let address = burdock.address();
    let held: Vec<_> = (0..3)
        .map(|_| tokio::spawn(async move { Client::new(address).get("/gate").await }))
        .collect();
    a.request(3).await;
    let sockets =
        [WebSocket::open(address, "/ws", "").await, WebSocket::open(address, "/ws", "").await];
    burdock.wait_metric("burdock_instance_requests_in_flight", &[], |v| v == 3.0).await;
    burdock.wait_metric("burdock_instance_tunnels", &[("instance", "a")], |v| v == 2.0).await;
    burdock.wait_metric("burdock_client_connections", &[], |v| v >= 3.0).await;
    a.open_gate(3);
    for task in held {
        task.await.unwrap();
    }
    drop(sockets);
    for name in ["requests_in_flight", "tunnels"] {
        burdock.wait_metric(&format!("burdock_instance_{name}"), &[], |v| v == 0.0).await;
    }
    burdock.wait_metric("burdock_client_connections", &[], |v| v == 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_a_request_ends_brings_the_gauge_back() {
    let backends = Backend::several(&["a", "b"]).await;
    let all: Vec<_> = backends.iter().collect();
    let rest = "timeouts: { first_byte: 300ms, idle: 300ms }\nbreaker: off\n";
    let burdock = Burdock::start(&yaml(&all, rest)).await;
    let faults = [
        Fault::ResetBeforeAnswer,
        Fault::CloseBeforeAnswer,
        Fault::ResetOnHead,
        Fault::ResetMidAnswer(10),
        Fault::StallMidAnswer(10),
        Fault::Gate,
        Fault::Raw(b"junk\r\n\r\n".to_vec()),
        Fault::Status(503),
    ];
    for fault in faults {
        all.iter().for_each(|backend| backend.misbehaves(fault.clone()));
        drop(burdock.client().try_send(&Request::post("/x", b"body")).await);
        drop(burdock.client().try_send(&Request::get("/x")).await);
        // A client that leaves in the middle.
        let got = all.iter().map(|b| b.request_count()).sum::<usize>();
        let conn = raw::open(burdock.address(), "GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        eventually("the request to arrive", || {
            (all.iter().map(|b| b.request_count()).sum::<usize>() > got).then_some(())
        })
        .await;
        conn.reset();
    }
    burdock.wait_metric("burdock_instance_requests_in_flight", &[], |v| v == 0.0).await;
    burdock.wait_metric("burdock_client_connections", &[], |v| v == 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_agree_with_what_clients_saw() {
    let backends = Backend::several(&["a", "b", "c"]).await;
    let all: Vec<_> = backends.iter().collect();
    let burdock = Burdock::start(&yaml(&all, "session_affinity: true\n")).await;
    let load = Load::start(burdock.address(), 20, 400, "/");
    load.passes(200).await;
    let seen = load.stop().await;
    let answers: usize = seen.iter().map(|s| s.instances.len()).sum();
    let metrics = burdock.metrics().await;
    assert_eq!(metrics.sum("burdock_requests_total", &[("class", "2xx")]), answers as f64);
    for backend in &backends {
        let labels = [("instance", backend.name.as_str())];
        let count = backend.request_count() as f64;
        assert_eq!(metrics.sum("burdock_requests_total", &labels), count);
    }
    assert_eq!(metrics.sum("burdock_affinity_total", &[("outcome", "new")]), 20.0);
    let kept = answers as f64 - 20.0;
    assert_eq!(metrics.sum("burdock_affinity_total", &[("outcome", "kept")]), kept);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_access_line_tells_the_request() {
    let a = Backend::start("a").await;
    let burdock = Burdock::start(&yaml(&[&a], "session_affinity: true\n")).await;
    let mut client = burdock.session();
    client.post("/echo?x=%20y", &[7; 1234]).await;
    client.get("/again").await;
    let line = &burdock.access("/echo?x=%20y", 1).await[0];
    let expected: [(&str, serde_json::Value); 9] = [
        ("method", "POST".into()),
        ("host", "app.test".into()),
        ("status", 200.into()),
        ("instance", "a".into()),
        ("client", "127.0.0.1".into()),
        ("affinity", "new".into()),
        ("attempts", 1.into()),
        ("request_bytes", 1234.into()),
        ("response_bytes", 1234.into()),
    ];
    for (field, value) in expected {
        assert_eq!(line[field], value, "{field} in {line}");
    }
    for field in ["first_byte_ms", "duration_ms"] {
        assert!(line[field].is_number(), "{field} in {line}");
    }
    for field in ["service", "version", "request_id"] {
        assert!(line[field].as_str().is_some_and(|v| !v.is_empty()), "{field} in {line}");
    }
    assert!(line["error"].is_null(), "{line}");
    assert_eq!(burdock.access("/again", 1).await[0]["affinity"], "kept");
    let off = Burdock::start(&yaml(&[&a], "")).await;
    off.client().get("/off").await;
    assert_eq!(off.access("/off", 1).await[0]["affinity"], "off");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_access_log_can_be_switched_off() {
    let a = Backend::start("a").await;
    let silent = yaml(&[&a], "").replace("access_log: true", "access_log: false");
    let burdock = Burdock::start(&silent).await;
    burdock.client().get("/quiet").await;
    raw::exchange(burdock.address(), "GET /refused HTTP/1.1\r\n\r\n").await;
    burdock.reload(&yaml(&[&a], "")).await;
    burdock.client().get("/loud").await;
    burdock.access("/loud", 1).await;
    assert_eq!(burdock.access_lines().len(), 1, "switched live, and only the second is told");
}
