//! Ends that Burdock causes: when tunnels and event streams end, what their peers are told, and how
//! clients are kept from coming back all at once.

use std::time::{Duration, Instant};

use crate::support::ws::{self, WebSocket};
use crate::support::{
    self, Backend, Burdock, Client, FAST_CHECKS, Request, eventually, raw, within, yaml,
};

async fn one(rest: &str) -> (Backend, Burdock) {
    let a = Backend::start("a").await;
    let burdock = Burdock::start(&yaml(&[&a], rest)).await;
    (a, burdock)
}

fn told(code: u16, reason: &str) -> Option<(u16, String)> {
    Some((code, reason.to_owned()))
}

#[tokio::test(flavor = "multi_thread")]
async fn codes_and_reasons_are_those_of_the_configuration_as_it_is_today() {
    let text = |rest: &str| format!("websocket: {{ lifetime_jitter: 0%, {rest} }}\n");
    let (a, burdock) = one(&text("closes: { lifetime: { code: 4000, reason: bye } }")).await;
    let mut socket = WebSocket::open(burdock.address(), "/ws", "").await;
    let short = "max_lifetime: 1s, closes: { lifetime: { code: 4001, reason: good night } }";
    burdock.reload(&yaml(&[&a], &text(short))).await;
    assert_eq!(socket.closed().await, told(4001, "good night"), "opened under the old limit");
    eventually("a Close at the instance", || (!a.closes().is_empty()).then_some(())).await;
    assert_eq!(a.closes()[0], (4001, "good night".to_owned(), true));
}

#[tokio::test(flavor = "multi_thread")]
async fn tunnels_of_an_unready_instance_end_where_that_is_asked_for() {
    let rest =
        "websocket: { closes: { unready: { action: close, timeout: 200ms, code: 1013 } } }\n";
    let (a, burdock) = one(&format!("{FAST_CHECKS}{rest}")).await;
    burdock.wait_health("a", "ready").await;
    let mut socket = WebSocket::open(burdock.address(), "/ws", "").await;
    a.ready(false);
    let (code, _) = socket.closed().await.expect("a Close");
    assert_eq!(code, 1013);
    burdock.wait_metric("burdock_tunnels_ended_total", &[("cause", "unready")], |v| v == 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tunnels_stay_with_an_unready_instance_that_is_ready_again_in_time() {
    let rest = "websocket: { closes: { unready: { action: close, timeout: 1d, spread: 0s } } }\n";
    let (a, burdock) = one(&format!("{FAST_CHECKS}{rest}")).await;
    burdock.wait_health("a", "ready").await;
    let mut socket = WebSocket::open(burdock.address(), "/ws", "").await;
    a.ready(false);
    burdock.wait_health("a", "unready").await;
    a.ready(true);
    burdock.wait_health("a", "ready").await;
    let soon = rest.replace("1d", "0s");
    burdock.reload(&yaml(&[&a], &format!("{FAST_CHECKS}{soon}"))).await;
    socket.echo("still here").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tunnels_of_a_dead_or_removed_instance_stay_where_that_is_asked_for() {
    let keep = "websocket: { closes: { dead: { action: keep }, removed: { action: keep } } }\n\
                drain: { timeout: 0s }\n";
    let rest = format!("{FAST_CHECKS}{keep}");
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    let mut burdock = Burdock::start(&yaml(&[&a], &rest)).await;
    burdock.wait_health("a", "ready").await;
    let mut socket = WebSocket::open(burdock.address(), "/ws", "").await;
    a.alive(false);
    burdock.wait_health("a", "dead").await;
    burdock.reload(&yaml(&[&b], &rest)).await;
    burdock.wait_log("drained", |line| line["instance"] == "a").await;
    socket.echo("still here").await;
    socket.send(ws::CLOSE, &[0x03, 0xe8]).await;
    assert_eq!(socket.closed().await, told(1000, ""));
    drop(socket);
    burdock.wait_metric("burdock_tunnels_ended_total", &[("cause", "client")], |v| v == 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_told_when_its_instance_dies_without_a_close() {
    let (a, burdock) = one("").await;
    let mut sockets = Vec::new();
    for _ in 0..20 {
        let mut socket = WebSocket::open(burdock.address(), "/ws", "").await;
        socket.echo("up").await;
        sockets.push(socket);
    }
    a.dies().await;
    for mut socket in sockets {
        assert_eq!(socket.closed().await, told(1014, "the instance is gone"));
    }
    // A client may see its close before that is counted.
    for (from, code) in [("burdock", "1014"), ("instance", "none")] {
        let labels = [("from", from), ("code", code)];
        burdock.wait_metric("burdock_tunnel_closes_total", &labels, |count| count == 20.0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_answers_pings_stays_and_who_does_not_is_dropped() {
    let (a, burdock) = one("websocket: { ping_interval: 1s, close_grace: 100ms }\n").await;
    let mut good = WebSocket::open(burdock.address(), "/ws", "").await;
    let mut silent = WebSocket::open(burdock.address(), "/ws", "").await;
    let mut deaf = WebSocket::open(burdock.address(), "/ws/deaf", "").await;
    let answers = |mut socket: WebSocket, times: usize| async move {
        for _ in 0..times {
            let frame = loop {
                let frame = socket.next().await?;
                // The instance was pinged too; its Pongs come through.
                if frame.opcode != ws::PONG {
                    break frame;
                }
            };
            assert_eq!((frame.opcode, frame.fin, frame.masked), (ws::PING, true, false));
            socket.send(ws::PONG, &frame.payload).await;
        }
        Some(socket)
    };
    good.echo("up").await;
    let good = tokio::spawn(answers(good, 4));
    let deaf_client = tokio::spawn(async move {
        let mut pings = 0;
        while let Some(frame) = deaf.next().await {
            match frame.opcode {
                ws::PING => {
                    pings += 1;
                    deaf.send(ws::PONG, &frame.payload).await;
                }
                _ => return (pings, frame.close()),
            }
        }
        (pings, None)
    });
    let why = told(1011, "a ping was not answered");
    let closed = silent.closed().await;
    assert_eq!(closed, why, "the client is silent");
    let (pings, closed) = within("the deaf instance's end", deaf_client).await.unwrap();
    assert!(pings >= 1 && closed == why, "{pings} {closed:?}");
    let mut good = within("four pings", good).await.unwrap().expect("no end");
    good.send(ws::TEXT, b"still here").await;
    while good.next().await.expect("the echo").payload != b"still here" {}
    let cause = [("cause", "ping_timeout")];
    burdock.wait_metric("burdock_tunnels_ended_total", &cause, |v| v == 2.0).await;
    assert!(a.closes().iter().all(|close| *close == (1011, why.clone().unwrap().1, true)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ping_waits_for_the_end_of_a_frame_and_tears_nothing() {
    let (_a, burdock) = one("websocket: { ping_interval: 1s }\n").await;
    let mut socket = WebSocket::open(burdock.address(), "/ws", "").await;
    let message = support::pattern(200_000);
    let frame = ws::encode(ws::BINARY, &message, Some([1, 2, 3, 4]));
    // All but the last byte: the instance is pinged behind this frame or not at all.
    socket.conn.write(&frame[..frame.len() - 1]).await.unwrap();
    let ping = socket.next().await.expect("a ping of the client");
    assert_eq!(ping.opcode, ws::PING);
    socket.conn.write(&frame[frame.len() - 1..]).await.unwrap();
    socket.send(ws::PONG, b"").await;
    loop {
        let frame = socket.next().await.expect("the echo");
        if frame.opcode == ws::BINARY {
            assert!(frame.payload == message, "torn");
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn more_upgrades_than_a_second_allows_are_asked_to_come_back() {
    let (_a, burdock) = one("websocket: { max_new_per_second: 3 }\n").await;
    let mut open = Vec::new();
    let refused = loop {
        assert!(open.len() < 50, "nobody was refused");
        let (conn, head) = ws::dial(burdock.address(), &ws::request("/ws", "")).await;
        if head.status() != 101 {
            break (conn, head);
        }
        open.push(conn);
    };
    let (mut conn, head) = refused;
    assert!(open.len() >= 3, "{}", open.len());
    assert_eq!((head.status(), head.field("retry-after")), (503, Some("1")));
    let body = within("its body", conn.body(head.response_framing("GET"))).await.unwrap();
    assert_eq!(body.bytes, b"503 upgrade_limit\n");
    assert_eq!(burdock.client().get("/").await.status, 200, "other requests pass");
    eventually_opens(&burdock).await;
}

async fn eventually_opens(burdock: &Burdock) {
    within("a second later", async {
        while ws::dial(burdock.address(), &ws::request("/ws", "")).await.1.status() != 101 {
            support::pause().await;
        }
    })
    .await;
}

const REBALANCE: &str = "rebalance: { mode: bounded, max_per_minute: 6000, tolerance: 0% }\n";

/// A client that comes back whenever it is told to, with its cookie if it has one.
async fn comes_back(address: std::net::SocketAddr, cookies: bool) -> std::convert::Infallible {
    let mut client = Client::session(address);
    loop {
        let line = client.cookie_line().filter(|_| cookies);
        let extra = line.map(|line| format!("Cookie: {line}\r\n")).unwrap_or_default();
        let mut socket = WebSocket::open(address, "/ws", &extra).await;
        client.remember(&socket.head);
        // An idle one may stay for longer than a test's patience with a single frame.
        while let Some(frame) = ws::read(&mut socket.conn).await.expect("a frame or an orderly end")
        {
            if let Some((code, reason)) = frame.close() {
                assert_eq!((code, reason.as_str()), (1012, "the connection is being moved"));
                break;
            }
        }
        let _ = socket.conn.write(&ws::encode(ws::CLOSE, &[3, 0xf4], Some([1, 2, 3, 4]))).await;
    }
}

async fn settles(rest: &str, cookies: bool) -> (Burdock, Vec<f64>) {
    let backends = Backend::several(&["a", "b", "c"]).await;
    let [a, b, c] = &backends[..] else { unreachable!() };
    let burdock = Burdock::start(&yaml(&[a, b], rest)).await;
    let clients: Vec<_> =
        (0..30).map(|_| tokio::spawn(comes_back(burdock.address(), cookies))).collect();
    burdock.wait_metric("burdock_instance_tunnels", &[], |v| v == 30.0).await;
    burdock.reload(&yaml(&[a, b, c], rest)).await;
    let of = [("instance", "c")];
    burdock.wait_metric("burdock_instance_tunnels", &of, |v| v >= 10.0).await;
    burdock.wait_metric("burdock_instance_tunnels", &[], |v| v == 30.0).await;
    let metrics = burdock.metrics().await;
    let spread =
        ["a", "b", "c"].map(|name| metrics.sum("burdock_instance_tunnels", &[("instance", name)]));
    assert!(clients.iter().all(|client| !client.is_finished()), "a client met an error");
    clients.iter().for_each(|client| client.abort());
    (burdock, spread.to_vec())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_joins_gets_its_share_of_the_tunnels() {
    let (burdock, spread) = settles(REBALANCE, false).await;
    assert_eq!(spread, [10.0, 10.0, 10.0]);
    let moved = burdock.metrics().await;
    let moved = moved.sum("burdock_tunnels_ended_total", &[("cause", "rebalanced")]);
    assert_eq!(moved, 10.0, "no more than needed");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_affinity_the_moved_session_is_bound_to_the_instance_that_joined() {
    let rest = format!("session_affinity: true\n{REBALANCE}");
    let (burdock, spread) = settles(&rest, true).await;
    assert_eq!(spread, [10.0, 10.0, 10.0]);
    let metrics = burdock.metrics().await;
    assert_eq!(metrics.sum("burdock_rehomes_total", &[("reason", "rebalanced")]), 10.0);
    assert_eq!(metrics.sum("burdock_tunnels_ended_total", &[("cause", "rebalanced")]), 10.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_rebalancing_nothing_moves() {
    let backends = Backend::several(&["a", "b"]).await;
    let [a, b] = &backends[..] else { unreachable!() };
    let burdock = Burdock::start(&yaml(&[a], "")).await;
    let mut sockets = Vec::new();
    for _ in 0..6 {
        sockets.push(WebSocket::open(burdock.address(), "/ws", "").await);
    }
    burdock.reload(&yaml(&[a, b], "")).await;
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(2) {
        for socket in &mut sockets {
            socket.echo("still here").await;
        }
        support::pause().await;
    }
    let metrics = burdock.metrics().await;
    assert_eq!(metrics.sum("burdock_instance_tunnels", &[("instance", "a")]), 6.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_protocols_pass_where_they_are_named_and_only_there() {
    let (a, burdock) = one("upgrades: [websocket, Foo/2]\n").await;
    let ask = |protocol: &str| {
        format!(
            "GET /raw HTTP/1.1\r\nHost: x\r\nUpgrade: {protocol}\r\nConnection: Upgrade\r\n\r\n"
        )
    };
    let (mut conn, head) = ws::dial(burdock.address(), &ask("bar, foo/2, websocket")).await;
    assert_eq!((head.status(), head.field("upgrade")), (101, Some("foo/2")));
    assert_eq!(a.last_request().head.field("upgrade"), Some("foo/2"));
    conn.write(b"\x81\x00anything").await.unwrap();
    assert_eq!(within("it back", conn.exactly(10)).await.unwrap(), b"\x81\x00anything");
    for protocol in ["bar", "h2c", "websocket"] {
        let request =
            ask(protocol).replace("/raw", "/").replace("Upgrade\r\n", "Upgrade, close\r\n");
        let answer = raw::exchange_text(burdock.address(), request).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{protocol}: {answer}");
        assert_eq!(a.last_request().head.field("upgrade"), None, "{protocol}");
    }
    let b = Backend::start("b").await;
    burdock.reload(&yaml(&[&b], "drain: { timeout: 0s }\n")).await;
    assert_eq!(
        within("the end", conn.read_to_end()).await,
        b"",
        "no Close where there are no frames"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_stream_flushes_each_event_and_ends_in_order_when_its_instance_is_removed() {
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    let rest = "drain: { timeout: 300ms }\ntimeouts: { idle: 60s }\n";
    let burdock = Burdock::start(&yaml(&[&a], rest)).await;
    let mut client = burdock.client();
    let stream = tokio::spawn(async move {
        let answer = client.try_send(&Request::get("/events")).await.expect("a whole answer");
        let again = client.get("/").await;
        (answer, again)
    });
    a.open_gate(1);
    let flushed = [("instance", "a")];
    burdock.wait_metric("burdock_instance_requests_in_flight", &flushed, |v| v == 1.0).await;
    burdock.reload(&yaml(&[&b], rest)).await;
    let (answer, again) = within("its end", stream).await.unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (200, "data: 0\n\n"));
    assert_eq!((again.status, again.instance()), (200, "b"), "on the same connection");
    let line = &burdock.access("/events", 1).await[0];
    assert_eq!((&line["error"], &line["status"]), (&"removed".into(), &200.into()));
    eventually("the end at the instance", || (a.open() == 0).then_some(())).await;
    assert_eq!(burdock.metrics().await.sum("burdock_errors_total", &[]), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_stream_ends_in_order_when_burdock_stops() {
    let (a, mut burdock) = one("shutdown: { timeout: 20s, spread: 200ms }\n").await;
    let mut conn = raw::open(burdock.address(), "GET /events HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let head = within("its head", conn.head()).await.unwrap().unwrap();
    a.open_gate(1);
    assert_eq!(
        within("an event at once", conn.exactly(14)).await.unwrap(),
        b"9\r\ndata: 0\n\n\r\n"
    );
    burdock.signal(libc::SIGTERM);
    assert_eq!(within("the end", conn.read_to_end()).await, b"0\r\n\r\n");
    assert_eq!((head.status(), burdock.exit_code().await), (200, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_passes_in_tunnels_is_told_by_metrics_and_the_log() {
    let (_a, burdock) = one("").await;
    let mut socket = WebSocket::open(burdock.address(), "/ws?x=1", "").await;
    for text in ["one", "two", "three"] {
        socket.echo(text).await;
    }
    let metrics = burdock.metrics().await;
    let of = |name: &str, from: &str| metrics.sum(name, &[("instance", "a"), ("from", from)]);
    let messages = "burdock_instance_tunnel_messages_total";
    assert_eq!((of(messages, "client"), of(messages, "instance")), (3.0, 3.0), "while it is open");
    let bytes = "burdock_instance_tunnel_bytes_total";
    assert_eq!((of(bytes, "client"), of(bytes, "instance")), (29.0, 17.0));
    socket.send(ws::CLOSE, &[0x03, 0xe9]).await;
    assert_eq!(socket.closed().await, told(1001, ""));
    drop(socket);
    let told = |line: &serde_json::Value| line["path"] == "/ws?x=1";
    let line = eventually("its line", || burdock.log("tunnel").into_iter().find(told)).await;
    assert_eq!(line["error"], "client");
    assert_eq!((&line["client_messages"], &line["instance_messages"]), (&3.into(), &3.into()));
    assert_eq!((&line["client_close"], &line["instance_close"]), (&1001.into(), &1001.into()));
    let metrics = burdock.metrics().await;
    for from in ["client", "instance"] {
        let labels = [("from", from), ("code", "1001")];
        assert_eq!(metrics.sum("burdock_tunnel_closes_total", &labels), 1.0, "{from}");
    }
    let none = [("from", "burdock"), ("code", "none")];
    assert_eq!(metrics.sum("burdock_tunnel_closes_total", &none), 1.0);
    assert_eq!(metrics.sum("burdock_instance_tunnels_opened_total", &[]), 1.0);
    let cause = [("cause", "client")];
    assert_eq!(metrics.sum("burdock_instance_tunnels_ended_total", &cause), 1.0);
    assert_eq!(metrics.sum("burdock_tunnel_duration_seconds_count", &[]), 1.0);
    assert_eq!(metrics.sum("burdock_tunnel_duration_seconds_bucket", &[("le", "60")]), 1.0);
}
