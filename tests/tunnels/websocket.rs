//! Tunnels: bytes pass unchanged whatever their size and timing, ends are told apart, and what
//! Burdock ends itself ends with a Close on a frame boundary.

use tokio::io::AsyncWriteExt;

use crate::support::ws::{self, WebSocket};
use crate::support::{self, Backend, Burdock, FAST_CHECKS, eventually, pattern, raw, within, yaml};

/// Opens what looks like a WebSocket and then carries any bytes: the pump must not care.
const RAW: &str = "GET /raw HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

async fn one(rest: &str) -> (Backend, Burdock) {
    let a = Backend::start("a").await;
    let burdock = Burdock::start(&yaml(&[&a], rest)).await;
    (a, burdock)
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_every_size_come_back_byte_for_byte() {
    let (_a, burdock) = one("").await;
    let mut socket = WebSocket::open(burdock.address(), "/ws", "").await;
    for size in [0, 1, 2, 125, 126, 127, 4096, 65_535, 65_536, 65_537, 300_000, 1 << 20] {
        let message = pattern(size);
        socket.send(ws::BINARY, &message).await;
        let frame = socket.next().await.expect("an echo");
        assert_eq!((frame.opcode, frame.payload.len()), (ws::BINARY, size));
        assert!(frame.payload == message, "{size} bytes");
        assert!(frame.fin && frame.rsv == 0 && !frame.masked, "{size} bytes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_pass_unchanged_in_dribbles_and_in_floods() {
    let (a, burdock) = one("").await;
    let (mut conn, head) = ws::dial(burdock.address(), RAW).await;
    assert_eq!((head.status(), head.field("upgrade")), (101, Some("websocket")));
    let mut back = Vec::new();
    for byte in pattern(200) {
        conn.write(&[byte]).await.unwrap();
        back.extend(within("a byte", conn.exactly(1)).await.unwrap());
    }
    assert_eq!(back, pattern(200));
    let flood = pattern(8 << 20);
    let (mut read, mut write) = conn.stream.into_split();
    let sent = flood.clone();
    let writer = tokio::spawn(async move {
        write.write_all(&sent).await.unwrap();
        write.shutdown().await.unwrap();
    });
    let mut back = Vec::new();
    within("the flood", tokio::io::AsyncReadExt::read_to_end(&mut read, &mut back)).await.unwrap();
    writer.await.unwrap();
    assert!(back == [flood.as_slice(), b"bye"].concat());
    eventually("the instance's end", || (!a.tunnelled().is_empty()).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_gets_everything() {
    let (_a, burdock) = one("").await;
    let mut socket = WebSocket::open(burdock.address(), "/ws", "").await;
    let message = pattern(1 << 20);
    for _ in 0..4 {
        socket.send(ws::BINARY, &message).await;
    }
    for _ in 0..4 {
        assert!(socket.next().await.expect("an echo").payload == message);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clients_half_close_reaches_the_instance_which_may_still_speak() {
    let (a, burdock) = one("").await;
    let (mut conn, _) = ws::dial(burdock.address(), RAW).await;
    conn.write(b"last words").await.unwrap();
    conn.stream.shutdown().await.unwrap();
    assert_eq!(within("the end", conn.read_to_end()).await, b"last wordsbye");
    eventually("the record", || (a.tunnelled() == [b"last words"]).then_some(())).await;
    burdock.wait_metric("burdock_instance_tunnels", &[], |v| v == 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_instances_half_close_reaches_the_client_which_may_still_speak() {
    let (a, burdock) = one("").await;
    let (mut conn, _) = ws::dial(burdock.address(), &RAW.replace("/raw", "/raw/first")).await;
    assert_eq!(within("the instance's half", conn.read_to_end()).await, b"hello");
    conn.write(b"still talking").await.unwrap();
    conn.stream.shutdown().await.unwrap();
    eventually("the record", || (a.tunnelled() == [b"still talking"]).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_on_one_side_ends_the_other() {
    let (a, burdock) = one("").await;
    let mut socket = WebSocket::open(burdock.address(), "/ws", "").await;
    socket.echo("up").await;
    a.drops_connections();
    within("the end at the client", socket.conn.read_to_end()).await;
    drop(socket);
    let socket = WebSocket::open(burdock.address(), "/ws", "").await;
    socket.conn.reset();
    eventually("the end at the instance", || (a.open() == 0).then_some(())).await;
    burdock.wait_metric("burdock_instance_tunnels", &[], |v| v == 0.0).await;
    let metrics = burdock.metrics().await;
    assert_eq!(metrics.sum("burdock_tunnels_opened_total", &[]), 2.0);
    assert_eq!(metrics.sum("burdock_tunnels_ended_total", &[]), 2.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn data_that_comes_with_the_upgrade_request_is_not_lost() {
    let (_a, burdock) = one("").await;
    let early = ws::encode(ws::TEXT, b"early", Some([1, 2, 3, 4]));
    let bytes = [ws::request("/ws", "").as_bytes(), &early].concat();
    let mut conn = raw::open(burdock.address(), bytes).await;
    let head = within("the 101", conn.head()).await.unwrap().unwrap();
    let mut socket = WebSocket { conn, head };
    assert_eq!(socket.next().await.unwrap().payload, b"early");
}

#[tokio::test(flavor = "multi_thread")]
async fn data_that_comes_with_the_101_is_not_lost() {
    let (_a, burdock) = one("").await;
    let mut socket = WebSocket::open(burdock.address(), "/ws/greet", "").await;
    assert_eq!(socket.next().await.unwrap().payload, b"hello");
    socket.echo("and on").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_handshake_passes_untouched() {
    let (a, burdock) = one("").await;
    let extra = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\
                 Sec-WebSocket-Protocol: chat, v2\r\nOrigin: http://app.test\r\n";
    let socket = WebSocket::open(burdock.address(), "/ws?token=x", extra).await;
    let seen = a.last_request().head;
    assert_eq!(seen.target(), "/ws?token=x");
    assert_eq!(seen.field("sec-websocket-key"), Some(ws::KEY));
    assert_eq!(seen.field("sec-websocket-version"), Some("13"));
    assert_eq!(seen.field("origin"), Some("http://app.test"));
    assert_eq!(seen.field("host"), Some("app.test"));
    assert_eq!(socket.head.field("sec-websocket-accept"), Some(ws::ACCEPT));
    let deflate = Some("permessage-deflate; client_max_window_bits");
    assert_eq!(seen.field("sec-websocket-extensions"), deflate);
    assert_eq!(socket.head.field("sec-websocket-extensions"), deflate);
    assert_eq!(socket.head.field("sec-websocket-protocol"), Some("chat, v2"));
    let upgrade = socket.head.field("upgrade").map(str::to_ascii_lowercase);
    assert_eq!(upgrade.as_deref(), Some("websocket"));
    let connection = socket.head.field("connection").map(str::to_ascii_lowercase);
    assert_eq!(connection.as_deref(), Some("upgrade"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_upgrade_passes_with_its_body() {
    let (_a, burdock) = one("").await;
    let (mut conn, head) = ws::dial(burdock.address(), &ws::request("/ws/refuse", "")).await;
    assert_eq!((head.status(), head.field("x-why")), (403, Some("closed")));
    let body = within("its body", conn.body(head.response_framing("GET"))).await.unwrap();
    assert_eq!(body.bytes, b"not today");
    let metrics = burdock.metrics().await;
    assert_eq!(metrics.sum("burdock_tunnels_opened_total", &[]), 0.0);
    assert_eq!(metrics.sum("burdock_errors_total", &[]), 0.0, "an answer is not an error");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_field_without_its_connection_option_is_a_plain_request() {
    let (a, burdock) = one("").await;
    let request = "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: close\r\n\r\n";
    let answer = raw::exchange_text(burdock.address(), request).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(a.last_request().head.field("upgrade"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_ends_with_1001_at_its_longest_life() {
    let rest = "websocket: { max_lifetime: 1s, lifetime_jitter: 0%, close_grace: 500ms }\n";
    let (a, burdock) = one(rest).await;
    let begin = std::time::Instant::now();
    let mut socket = WebSocket::open(burdock.address(), "/ws", "").await;
    let (code, reason) = socket.closed().await.expect("a Close frame");
    assert_eq!(code, 1001);
    assert!(!reason.is_empty() && reason.len() <= 123, "{reason}");
    assert!(begin.elapsed().as_millis() >= 900, "{:?}", begin.elapsed());
    eventually("a Close at the instance", || (!a.closes().is_empty()).then_some(())).await;
    assert_eq!((a.closes()[0].0, a.closes()[0].2), (1001, true), "masked, as a client's must be");
    within("then the end", socket.conn.read_to_end()).await;
    burdock.wait_metric("burdock_instance_tunnels", &[], |v| v == 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_that_ignore_a_close_are_cut_after_the_grace() {
    let rest = "websocket: { max_lifetime: 500ms, lifetime_jitter: 0%, close_grace: 300ms }\n";
    let (a, burdock) = one(rest).await;
    let mut socket = WebSocket::open(burdock.address(), "/ws/deaf", "").await;
    assert_eq!(socket.closed().await.map(|(code, _)| code), Some(1001));
    within("the end at the client", socket.conn.read_to_end()).await;
    eventually("the end at the instance", || (a.open() == 0).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_close_waits_for_the_end_of_the_clients_message() {
    let rest = "websocket: { max_lifetime: 500ms, lifetime_jitter: 0%, close_grace: 10s }\n";
    let (a, burdock) = one(rest).await;
    let mut socket = WebSocket::open(burdock.address(), "/ws/deaf", "").await;
    // The lifetime is over long before the last byte of this one frame.
    let frame = ws::encode(ws::BINARY, &pattern(1 << 20), Some([9, 8, 7, 6]));
    for part in frame.chunks(8 * 1024) {
        socket.conn.write(part).await.unwrap();
        support::pause().await;
    }
    assert_eq!(socket.closed().await.map(|(code, _)| code), Some(1001));
    eventually("a Close after the frame", || (!a.closes().is_empty()).then_some(())).await;
    assert_eq!((a.closes()[0].0, a.closes()[0].2), (1001, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_close_waits_for_the_end_of_the_instances_message() {
    let rest = "websocket: { max_lifetime: 500ms, lifetime_jitter: 0%, close_grace: 10s }\n";
    let (_a, burdock) = one(rest).await;
    let mut socket = WebSocket::open(burdock.address(), "/ws", "").await;
    let message = pattern(16 << 20);
    socket.send(ws::BINARY, &message).await;
    // Read slowly, so that the lifetime is over while the echo is under way.
    while socket.conn.buffer.len() < message.len() {
        within("a part", socket.conn.fill()).await.unwrap();
        support::pause().await;
    }
    let frame = socket.next().await.expect("the echo");
    assert!(frame.opcode == ws::BINARY && frame.payload == message, "a torn message");
    assert_eq!(socket.closed().await.map(|(code, _)| code), Some(1001));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_tunnel_ends_with_1001_where_a_limit_is_set_and_a_talking_one_does_not() {
    let (_a, burdock) = one("websocket: { idle_timeout: 700ms }\n").await;
    let mut silent = WebSocket::open(burdock.address(), "/ws", "").await;
    let mut talking = WebSocket::open(burdock.address(), "/ws", "").await;
    let closed = tokio::spawn(async move { silent.closed().await });
    while !closed.is_finished() {
        talking.echo("tick").await;
        support::pause().await;
    }
    assert_eq!(closed.await.unwrap().map(|(code, _)| code), Some(1001));
    talking.echo("still here").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tunnels_outlive_unready_and_get_1014_when_the_instance_is_dead() {
    let (a, mut burdock) = one(FAST_CHECKS).await;
    burdock.wait_health("a", "ready").await;
    let mut socket = WebSocket::open(burdock.address(), "/ws", "").await;
    a.ready(false);
    burdock.wait_log("health changed", |line| line["to"] == "unready").await;
    socket.echo("kept").await;
    a.alive(false);
    burdock.wait_log("health changed", |line| line["to"] == "dead").await;
    assert_eq!(socket.closed().await.map(|(code, _)| code), Some(1014));
    burdock.wait_metric("burdock_instance_tunnels", &[], |v| v == 0.0).await;
}
