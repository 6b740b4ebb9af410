//! Leaving: a stopping process, and an instance that is removed, finish what they began.

use std::net::TcpStream;

use crate::support::ws::WebSocket;
use crate::support::{self, Backend, Burdock, Client, eventually, raw, within, yaml};

const PATIENT: &str = "shutdown: { timeout: 60s, spread: 0s }\n";

/// One request that waits at the gate of `a`.
async fn in_flight(burdock: &Burdock, a: &Backend) -> tokio::task::JoinHandle<support::Response> {
    let (address, n) = (burdock.address(), a.request_count() + 1);
    let task = tokio::spawn(async move { Client::new(address).get("/gate").await });
    a.request(n).await;
    task
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_process_stops_at_once_and_clean() {
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let a = Backend::start("a").await;
        let mut burdock = Burdock::start(&yaml(&[&a], PATIENT)).await;
        burdock.client().get("/").await;
        burdock.signal(signal);
        assert_eq!(burdock.exit_code().await, 0);
        assert_eq!((burdock.log("draining").len(), burdock.log("stopped").len()), (1, 1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_have_asked_for_nothing_yet_do_not_hold_up_a_stop() {
    let a = Backend::start("a").await;
    let mut burdock = Burdock::start(&yaml(&[&a], PATIENT)).await;
    let mut early = raw::open(burdock.address(), "").await;
    burdock.wait_metric("burdock_client_connections", &[], |v| v >= 1.0).await;
    burdock.signal(libc::SIGTERM);
    assert_eq!(within("its end", early.read_to_end()).await, b"");
    assert_eq!(burdock.exit_code().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_in_flight_finish_and_new_connections_are_refused() {
    let a = Backend::start("a").await;
    let mut burdock = Burdock::start(&yaml(&[&a], PATIENT)).await;
    let waiting = in_flight(&burdock, &a).await;
    burdock.signal(libc::SIGTERM);
    burdock.wait_log("draining", |_| true).await;
    let refused = || TcpStream::connect(burdock.address()).is_err().then_some(());
    eventually("new connections are refused", refused).await;
    a.open_gate(1);
    let answer = waiting.await.unwrap();
    assert_eq!((answer.status, answer.instance()), (200, "a"));
    assert!(answer.head.wants_close(), "the client learns not to come back here");
    assert_eq!(burdock.exit_code().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_and_a_download_under_way_finish() {
    let a = Backend::start("a").await;
    let mut burdock = Burdock::start(&yaml(&[&a], PATIENT)).await;
    let head = "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 300000\r\n\r\n";
    let body = support::pattern(300_000);
    let mut upload = raw::open(burdock.address(), head).await;
    upload.write(&body[..200_000]).await.unwrap();
    a.request(1).await;
    let half = "GET /half HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut download = raw::open(burdock.address(), half).await;
    within("a head", download.head()).await.unwrap().unwrap();
    burdock.signal(libc::SIGTERM);
    burdock.wait_log("draining", |_| true).await;
    upload.write(&body[200_000..]).await.unwrap();
    a.open_gate(1);
    assert!(within("the echo", upload.read_to_end()).await.ends_with(&body));
    assert_eq!(within("the rest", download.read_to_end()).await.len(), 2000);
    assert_eq!(burdock.exit_code().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_kept_connections_are_closed_without_a_byte() {
    let a = Backend::start("a").await;
    let mut burdock = Burdock::start(&yaml(&[&a], PATIENT)).await;
    let mut idle = raw::open(burdock.address(), "GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let head = within("an answer", idle.head()).await.unwrap().unwrap();
    within("its body", idle.body(head.response_framing("GET"))).await.unwrap();
    let mut unused = raw::open(burdock.address(), "").await;
    let waiting = in_flight(&burdock, &a).await;
    burdock.signal(libc::SIGTERM);
    assert!(within("the end of an idle one", idle.closed_without_a_byte()).await);
    assert!(within("the end of an unused one", unused.closed_without_a_byte()).await);
    a.open_gate(1);
    assert_eq!(waiting.await.unwrap().status, 200);
    assert_eq!(burdock.exit_code().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_was_connected_before_the_signal_is_answered() {
    let a = Backend::start("a").await;
    for _ in 0..5 {
        let mut burdock = Burdock::start(&yaml(&[&a], PATIENT)).await;
        // Stopped, so that all of it waits in the kernel when the signal is seen.
        burdock.signal(libc::SIGSTOP);
        let mut waiting = Vec::new();
        for _ in 0..40 {
            let request = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
            waiting.push(raw::open(burdock.address(), request).await);
        }
        burdock.signal(libc::SIGTERM);
        burdock.signal(libc::SIGCONT);
        for mut conn in waiting {
            let answer = within("an answer", conn.read_to_end()).await;
            let answer = String::from_utf8_lossy(&answer);
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer:?}");
        }
        assert_eq!(burdock.exit_code().await, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tunnels_get_a_close_with_1012_on_both_sides() {
    let a = Backend::start("a").await;
    let rest = "shutdown: { timeout: 2s, spread: 500ms }\n";
    let mut burdock = Burdock::start(&yaml(&[&a], rest)).await;
    let mut sockets = Vec::new();
    for _ in 0..5 {
        let mut socket = WebSocket::open(burdock.address(), "/ws", "").await;
        socket.echo("open").await;
        sockets.push(socket);
    }
    burdock.signal(libc::SIGTERM);
    for socket in &mut sockets {
        let (code, reason) = socket.closed().await.expect("a Close frame");
        assert_eq!(code, 1012);
        assert!(!reason.is_empty() && !reason.contains("127.0.0.1"), "{reason}");
        // An answer to the Close, as a browser gives it.
        socket.send(support::ws::CLOSE, &1012u16.to_be_bytes()).await;
        assert_eq!(socket.next().await, None, "then the end");
    }
    eventually("a masked Close at the instance", || (a.closes().len() == 5).then_some(())).await;
    assert!(
        a.closes().iter().all(|(code, _, masked)| *code == 1012 && *masked),
        "{:?}",
        a.closes()
    );
    assert_eq!(burdock.exit_code().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_deadline_cuts_and_the_exit_code_says_so() {
    let a = Backend::start("a").await;
    let rest = "shutdown: { timeout: 500ms, spread: 0s }\n";
    let mut burdock = Burdock::start(&yaml(&[&a], rest)).await;
    let request = "GET /half HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut conn = raw::open(burdock.address(), request).await;
    within("a head", conn.head()).await.unwrap().unwrap();
    burdock.signal(libc::SIGTERM);
    assert!(within("the cut", conn.read_to_end()).await.len() < 2000);
    assert_eq!(burdock.exit_code().await, 5);
    let lines = burdock.access("/half", 1).await;
    assert_eq!(lines[0]["error"], "shutdown_deadline", "it was Burdock, not the client");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_cuts() {
    let a = Backend::start("a").await;
    let mut burdock = Burdock::start(&yaml(&[&a], PATIENT)).await;
    let request = "GET /half HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut conn = raw::open(burdock.address(), request).await;
    within("a head", conn.head()).await.unwrap().unwrap();
    burdock.signal(libc::SIGTERM);
    burdock.wait_log("draining", |_| true).await;
    burdock.signal(libc::SIGTERM);
    assert!(within("the cut", conn.read_to_end()).await.len() < 2000);
    assert_eq!(burdock.exit_code().await, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_instance_keeps_its_sessions_and_tunnels_until_the_deadline() {
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    let rest = |timeout: &str| {
        format!("session_affinity: true\ndrain: {{ timeout: {timeout}, spread: 200ms }}\n")
    };
    let burdock = Burdock::start(&yaml(&[&a, &b], &rest("3s"))).await;
    let mut bound = burdock.session();
    let mut gone = bound.get("/").await;
    while gone.instance() != "a" {
        bound = burdock.session();
        gone = bound.get("/").await;
    }
    let cookie = format!("Cookie: {}\r\n", bound.cookie_line().unwrap());
    let mut tunnel = WebSocket::open(burdock.address(), "/ws", &cookie).await;
    assert_eq!(tunnel.instance(), "a");
    let begin = std::time::Instant::now();
    assert_eq!(burdock.reload(&yaml(&[&b], &rest("3s"))).await["message"], "reloaded");
    let answer = bound.get("/").await;
    tunnel.echo("still here").await;
    if begin.elapsed().as_secs() < 2 {
        assert_eq!(answer.instance(), "a", "bound sessions stay until the deadline");
    }
    for _ in 0..6 {
        assert_eq!(burdock.client().get("/").await.instance(), "b", "new ones don't come");
    }
    let (code, _) = tunnel.closed().await.expect("a Close frame");
    assert_eq!(code, 1012);
    assert!(begin.elapsed().as_secs() >= 2, "not before the deadline less the spread");
    while bound.get("/").await.instance() == "a" {
        assert!(begin.elapsed() < support::DEADLINE, "the deadline moves bound sessions");
    }
    assert_eq!(bound.get("/").await.instance(), "b");
    burdock.wait_metric("burdock_instance_tunnels", &[], |v| v == 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_comes_back_before_the_deadline_keeps_its_tunnels() {
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    let rest = "drain: { timeout: 1s, spread: 0s }\n";
    let burdock = Burdock::start(&yaml(&[&a], rest)).await;
    let mut tunnel = WebSocket::open(burdock.address(), "/ws", "").await;
    burdock.reload(&yaml(&[&b], rest)).await;
    burdock.reload(&yaml(&[&a, &b], rest)).await;
    let begin = std::time::Instant::now();
    while begin.elapsed().as_millis() < 1500 {
        tunnel.echo("here").await;
        support::pause().await;
    }
}

/// `a` in this state, and `b`.
fn with_state(a: &Backend, b: &Backend, state: &str, rest: &str) -> String {
    let text = yaml(&[a, b], &format!("session_affinity: true\n{rest}"));
    text.replace("name: a,", &format!("name: a, state: {state},"))
}

/// One session on each.
async fn sessions(burdock: &Burdock) -> [Client; 2] {
    let mut sessions = [burdock.session(), burdock.session()];
    let mut found = Vec::new();
    for session in &mut sessions {
        found.push(session.get("/").await.instance().to_owned());
    }
    if found[0] == "b" {
        sessions.swap(0, 1);
        found.swap(0, 1);
    }
    assert_eq!(found, ["a", "b"]);
    sessions
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draining_instance_keeps_its_sessions_until_the_deadline_and_gets_no_others() {
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    let forever = "drain: { timeout: 1d }\n";
    let mut burdock = Burdock::start(&with_state(&a, &b, "active", forever)).await;
    let [mut on_a, mut on_b] = sessions(&burdock).await;
    let mut socket = WebSocket::open(burdock.address(), "/ws", "").await;
    while socket.instance() != "a" {
        socket = WebSocket::open(burdock.address(), "/ws", "").await;
    }
    let line = burdock.reload(&with_state(&a, &b, "draining", forever)).await;
    assert_eq!(line["changes"], "default/default: instance a state active -> draining");
    for _ in 0..10 {
        assert_eq!(on_a.get("/").await.instance(), "a");
        assert_eq!(on_b.get("/").await.instance(), "b");
        assert_eq!(burdock.client().get("/").await.instance(), "b");
    }
    let state = |state: &'static str| [("instance", "a"), ("state", state)];
    burdock.wait_metric("burdock_instance_admin", &state("draining"), |v| v == 1.0).await;
    socket.echo("kept").await;
    burdock.reload(&with_state(&a, &b, "active", forever)).await;
    let found: Vec<_> = [burdock.client().get("/").await, burdock.client().get("/").await]
        .map(|answer| answer.instance().to_owned())
        .into();
    assert!(found.contains(&"a".to_owned()), "it is back: {found:?}");
    burdock.reload(&with_state(&a, &b, "draining", "drain: { timeout: 200ms }\n")).await;
    let why = "the instance is being taken out".to_owned();
    assert_eq!(socket.closed().await, Some((1012, why)));
    burdock.wait_log("drained", |line| line["instance"] == "a").await;
    burdock.wait_metric("burdock_instance_admin", &state("drained"), |v| v == 1.0).await;
    let moved = on_a.get("/").await;
    assert_eq!((moved.status, moved.instance()), (200, "b"));
    let rehomed = [("reason", "drained")];
    burdock.wait_metric("burdock_rehomes_total", &rehomed, |v| v == 1.0).await;
    burdock
        .wait_metric("burdock_tunnels_ended_total", &[("cause", "draining")], |v| v == 1.0)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_instance_serves_nobody_and_finishes_what_it_began() {
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    let burdock = Burdock::start(&with_state(&a, &b, "active", "")).await;
    let [mut on_a, _on_b] = sessions(&burdock).await;
    let mut socket = WebSocket::open(burdock.address(), "/ws", "").await;
    while socket.instance() != "a" {
        socket = WebSocket::open(burdock.address(), "/ws", "").await;
    }
    let line = on_a.cookie_line().expect("a cookie");
    let address = burdock.address();
    let waiting = tokio::spawn(async move {
        let request = support::Request::get("/gate").with("Cookie", &line);
        Client::new(address).try_send(&request).await.expect("an answer")
    });
    a.request(a.request_count() + 1).await;
    burdock.reload(&with_state(&a, &b, "disabled", "")).await;
    assert_eq!(on_a.get("/").await.instance(), "b");
    let (code, _) = socket.closed().await.expect("a Close");
    assert_eq!(code, 1012);
    a.open_gate(1);
    assert_eq!(waiting.await.unwrap().instance(), "a");
    for (name, label, value) in [
        ("burdock_rehomes_total", ("reason", "disabled"), 1.0),
        ("burdock_tunnels_ended_total", ("cause", "disabled"), 1.0),
        ("burdock_instance_admin", ("state", "disabled"), 1.0),
    ] {
        burdock.wait_metric(name, &[label], |v| v == value).await;
    }
}

fn replaced(backend: &Backend, app_start_timeout: &str) -> String {
    let rest = format!(
        "readiness_check: {{ path: /readyz, check_interval: 30ms, timeout: 300ms, \
         app_start_timeout: {app_start_timeout} }}\ndrain: {{ timeout: 50ms, spread: 0s }}\n"
    );
    yaml(&[backend], &rest)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_that_replaces_all_moves_traffic_only_when_a_new_one_is_ready() {
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    let mut burdock = Burdock::start(&replaced(&a, "30s")).await;
    burdock.wait_health("a", "ready").await;
    b.ready(false);
    let mut socket = WebSocket::open(burdock.address(), "/ws", "").await;
    assert_eq!(burdock.reload(&replaced(&b, "30s")).await["message"], "reloaded");
    let begun = std::time::Instant::now();
    while begun.elapsed() < std::time::Duration::from_millis(300) {
        assert_eq!(burdock.client().get("/").await.instance(), "a", "long past its drain");
        b.probed(1).await;
    }
    socket.echo("still here").await;
    assert!(burdock.log("drained").is_empty());
    b.ready(true);
    burdock.wait_health("b", "ready").await;
    assert_eq!(burdock.client().get("/").await.instance(), "b");
    burdock.wait_log("drained", |line| line["instance"] == "a").await;
    assert_eq!(socket.closed().await.map(|(code, _)| code), Some(1012));
}

#[tokio::test(flavor = "multi_thread")]
async fn when_none_becomes_ready_in_time_an_error_says_so_and_the_old_ones_drain() {
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    let mut burdock = Burdock::start(&replaced(&a, "300ms")).await;
    burdock.wait_health("a", "ready").await;
    b.ready(false);
    assert_eq!(burdock.reload(&replaced(&b, "300ms")).await["message"], "reloaded");
    assert_eq!(burdock.client().get("/").await.instance(), "a");
    let told = "no instance became ready within app_start_timeout; the removed ones drain now";
    let line = burdock.wait_log(told, |line| line["timeout_s"] == 0.3).await;
    assert_eq!(line["level"], "ERROR");
    burdock.wait_log("drained", |line| line["instance"] == "a").await;
    assert_eq!(burdock.client().get("/").await.text(), "503 no_instance\n");
    assert_eq!(burdock.reload(&replaced(&a, "300ms")).await["message"], "reloaded");
    burdock.wait_health("a", "ready").await;
    assert_eq!(burdock.client().get("/").await.instance(), "a", "the way back is the old file");
}
