//! Clients that begin with HTTP/2 without TLS: requests on streams, WebSockets on streams
//! (RFC 8441), and what keeps one of them from harming the others.

use bytes::Bytes;
use http::{Method, Request};

use crate::support::h2::{self, H2};
use crate::support::ws::{self, WebSocket};
use crate::support::{self, Backend, Burdock, eventually, raw, wire, within, yaml};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// An empty frame of settings.
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

async fn one(rest: &str) -> (Backend, Burdock) {
    let a = Backend::start("a").await;
    let burdock = Burdock::start(&yaml(&[&a], rest)).await;
    (a, burdock)
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_spread_as_requests_are_and_each_comes_back_whole() {
    let backends = Backend::several(&["a", "b", "c"]).await;
    let burdock = Burdock::start(&yaml(&backends.iter().collect::<Vec<_>>(), "")).await;
    let mut client = H2::connect(burdock.address()).await;
    let sizes: Vec<usize> = (0..60).map(|n| n * 1771).collect();
    let path = |size: &usize| h2::get(&format!("/chunked/{size}"));
    let answers: Vec<_> = sizes.iter().map(|size| client.begin(path(size), false).0).collect();
    let mut counts = std::collections::BTreeMap::<String, usize>::new();
    for (size, answer) in sizes.iter().zip(answers) {
        let answer = h2::finish(answer).await.expect("an answer");
        assert_eq!((answer.status, answer.body == support::pattern(*size)), (200, true), "{size}");
        *counts.entry(answer.instance().to_owned()).or_default() += 1;
    }
    assert_eq!(counts.values().copied().collect::<Vec<_>>(), [20, 20, 20]);
    let seen = backends[0].last_request();
    assert_eq!(seen.head.field("host"), Some("app.test"));
    assert_eq!(seen.head.field("via"), Some("2.0 burdock"));
    assert_eq!(burdock.metrics().await.sum("burdock_client_connections", &[]), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_streams_up_and_comes_back_with_its_trailers_behind() {
    let (a, burdock) = one("").await;
    let mut client = H2::connect(burdock.address()).await;
    let body = Bytes::from(support::pattern(3_000_000));
    let request = Request::post("http://app.test/echo").header("expect", "100-continue");
    let (answer, mut stream) = client.begin(request.body(()).unwrap(), true);
    h2::send_all(&mut stream, body.clone(), true).await.expect("room");
    let answer = h2::finish(answer).await.expect("an answer");
    assert_eq!((answer.status, answer.body == body), (200, true));
    let seen = a.last_request();
    assert_eq!(seen.head.field("transfer-encoding"), Some("chunked"));
    assert_eq!(seen.head.field("expect"), None);
    let answer = client.get("/trailers").await;
    assert!(answer.trailers.is_some_and(|trailers| !trailers.is_empty()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_kept_with_a_cookie_among_others_on_lines_of_their_own() {
    let backends = Backend::several(&["a", "b"]).await;
    let text = yaml(&backends.iter().collect::<Vec<_>>(), "session_affinity: true\n");
    let burdock = Burdock::start(&text).await;
    let mut client = H2::connect(burdock.address()).await;
    let first = client.get("/").await;
    let cookie = first.fields["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    for _ in 0..5 {
        let request = Request::get("http://app.test/")
            .header("cookie", "one=1")
            .header("cookie", cookie.as_str())
            .header("cookie", "two=2");
        let (answer, _) = client.begin(request.body(()).unwrap(), false);
        let answer = h2::finish(answer).await.unwrap();
        assert_eq!(answer.instance(), first.instance());
        assert!(!answer.fields.contains_key("set-cookie"));
    }
    let instance = backends.iter().find(|backend| backend.name == first.instance()).unwrap();
    assert_eq!(instance.last_request().head.all("cookie"), ["one=1; two=2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preface_in_dribbles_is_understood_and_so_is_a_request_like_it() {
    let (_a, burdock) = one("").await;
    let mut conn = wire::Conn::connect(burdock.address()).await.unwrap();
    for byte in [PREFACE, SETTINGS].concat() {
        conn.write(&[byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    let frame = within("its settings", conn.exactly(9)).await.unwrap();
    assert_eq!(frame[3], 4, "{frame:?}");
    let mut conn = wire::Conn::connect(burdock.address()).await.unwrap();
    for byte in b"PROPFIND / HTTP/1.1\r\nHost: x\r\n\r\n" {
        conn.write(&[*byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    let head = within("an answer", conn.head()).await.unwrap().unwrap();
    assert_eq!(head.status(), 200);
    let answer = raw::exchange_text(burdock.address(), "PRI /\r\n\r\n".to_owned()).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_is_refused_where_it_is_off_and_behind_a_request_of_http1() {
    let off = "listeners: [{ address: 127.0.0.1:0, http2: false }]";
    let (a, burdock) = one("").await;
    let begin = String::from_utf8([PREFACE, SETTINGS].concat()).unwrap();
    let text = yaml(&[&a], "").replace("listeners: [{ address: 127.0.0.1:0 }]", off);
    let line = burdock.reload(&text).await;
    assert_eq!(line["changes"], "listener 127.0.0.1:0 changed");
    let answer = raw::exchange_text(burdock.address(), begin.clone()).await;
    assert!(
        answer.starts_with("HTTP/1.1 400 ") && answer.ends_with("400 bad_request\n"),
        "{answer}"
    );
    assert_eq!(burdock.client().get("/").await.status, 200);
    burdock.reload(&yaml(&[&a], "")).await;
    assert_eq!(H2::connect(burdock.address()).await.get("/").await.status, 200);
    let both = format!("GET / HTTP/1.1\r\nHost: x\r\n\r\n{begin}");
    let answer = raw::exchange_text(burdock.address(), both).await;
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("400 bad_request\n"),
        "{answer}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_instance_may_see_is_refused_on_its_stream_alone() {
    let (a, burdock) = one("").await;
    let mut client = H2::connect(burdock.address()).await;
    let before = a.requests().len();
    let host = Request::get("http://app.test/").header("host", "other.test").body(()).unwrap();
    let connect = Request::builder().method(Method::CONNECT).uri("app.test:443").body(()).unwrap();
    assert!(client.opens_websockets().await);
    let foreign = Request::builder()
        .method(Method::CONNECT)
        .uri("http://app.test/")
        .extension(::h2::ext::Protocol::from_static("connect-udp"));
    for (request, status, text) in [
        (host, 400, "400 bad_host\n"),
        (connect, 501, "501 connect_unsupported\n"),
        (foreign.body(()).unwrap(), 501, "501 connect_unsupported\n"),
    ] {
        let (answer, _stream) = client.begin(request, true);
        let answer = h2::finish(answer).await.expect("an answer");
        assert_eq!((answer.status, answer.text().as_str()), (status, text));
    }
    assert_eq!(a.requests().len(), before);
    assert_eq!(client.get("/").await.status, 200);
    let off = "upgrades: []\n";
    burdock.reload(&yaml(&[&a], off)).await;
    let (head, _body, _stream) = client.dial("/ws/200", &[]).await;
    assert_eq!(head.status(), 501, "no 2xx where no tunnel is");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_on_a_stream_reaches_an_instance_of_http1() {
    let (a, burdock) = one("session_affinity: true\n").await;
    let mut client = H2::connect(burdock.address()).await;
    let mut socket = client.websocket("/ws").await;
    assert!(socket.head.field("set-cookie").is_some_and(|line| line.starts_with("BURDOCK=")));
    for hop in ["upgrade", "connection", "sec-websocket-accept"] {
        assert_eq!(socket.head.field(hop), None);
    }
    let seen = a.last_request().head;
    assert_eq!(seen.start, "GET /ws HTTP/1.1");
    assert_eq!(seen.field("upgrade"), Some("websocket"));
    assert_eq!(seen.field("sec-websocket-key").map(str::len), Some(24));
    socket.echo("up").await;
    let message = support::pattern(1 << 20);
    let frame = ws::encode(ws::BINARY, &message, Some([1, 2, 3, 4]));
    let WebSocket { conn, head } = socket;
    let (read, mut write) = conn.stream.into_split();
    let sending = tokio::spawn(async move {
        tokio::io::AsyncWriteExt::write_all(&mut write, &frame).await.unwrap();
        write
    });
    let stream = read.reunite(within("all of it sent", sending).await.unwrap()).unwrap();
    let mut socket = WebSocket { conn: wire::Conn::new(stream), head };
    assert!(socket.next().await.expect("the echo").payload == message);
    assert_eq!(client.get("/").await.status, 200, "beside it");
    socket.send(ws::CLOSE, &[0x03, 0xe8]).await;
    assert_eq!(socket.closed().await, Some((1000, String::new())));
    drop(socket);
    burdock.wait_metric("burdock_tunnels_ended_total", &[("cause", "client")], |v| v == 1.0).await;
    let line = eventually("its line", || burdock.log("tunnel").pop()).await;
    assert_eq!((&line["method"], &line["status"]), (&"CONNECT".into(), &200.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_websocket_is_an_answer_and_never_looks_like_an_open_one() {
    let (_a, burdock) = one("").await;
    let mut client = H2::connect(burdock.address()).await;
    for (path, status) in [("/ws/refuse", 403), ("/ws/200", 502)] {
        let (head, mut body, _stream) = client.dial(path, &[]).await;
        assert_eq!(head.status(), status);
        let text = within("a body", body.data()).await.expect("some of it").unwrap();
        assert_eq!(
            &text[..],
            if status == 403 { &b"not today"[..] } else { b"502 invalid_response\n" }
        );
    }
    client.websocket("/ws").await.echo("another stream").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ends_that_burdock_causes_reach_a_stream_with_a_close_and_an_end() {
    let rest = "websocket: { max_lifetime: 300ms, lifetime_jitter: 0% }\n";
    let (_a, burdock) = one(rest).await;
    let mut client = H2::connect(burdock.address()).await;
    let mut sockets = [client.websocket("/ws").await, client.websocket("/ws").await];
    for socket in &mut sockets {
        let why = "the connection reached its lifetime".to_owned();
        assert_eq!(socket.closed().await, Some((1001, why)));
        assert_eq!(socket.next().await, None);
    }
    assert_eq!(client.get("/").await.status, 200, "the connection goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_finishes_streams_closes_tunnels_and_ends_with_code_0() {
    let (a, mut burdock) = one("shutdown: { timeout: 10s, spread: 100ms }\n").await;
    let mut client = H2::connect(burdock.address()).await;
    let mut socket = client.websocket("/ws").await;
    let (answer, _) = client.begin(h2::get("/gate"), false);
    burdock.wait_metric("burdock_instance_requests_in_flight", &[], |v| v == 1.0).await;
    burdock.signal(libc::SIGTERM);
    let (code, _) = socket.closed().await.expect("a Close");
    assert_eq!(code, 1012);
    a.open_gate(1);
    assert_eq!(h2::finish(answer).await.expect("an answer").text(), "a");
    drop(socket);
    drop(client.send);
    within("an orderly end", client.ended).await.unwrap().expect("no error");
    assert_eq!(burdock.exit_code().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_nothing_loses_its_stream_and_keeps_the_others() {
    let (a, burdock) = one("timeouts: { idle: 300ms }\n").await;
    let mut client = H2::with_window(burdock.address(), 1000).await;
    let (stuck, _) = client.begin(h2::get("/sized/100000"), false);
    let (_head, mut body) = within("a head", stuck).await.unwrap().into_parts();
    let end = loop {
        match within("its end", body.data()).await {
            Some(Ok(_part)) => {}
            Some(Err(error)) => break error.reason(),
            None => break None,
        }
    };
    assert_eq!(end, Some(::h2::Reason::CANCEL));
    let line = &burdock.access("/sized/100000", 1).await[0];
    assert_eq!(line["error"], "client_idle_timeout");
    assert_eq!(client.get("/sized/999").await.body.len(), 999);
    eventually("no connection that is still answered", || (a.open() <= 1).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_its_client_resets_frees_the_instance() {
    let (a, burdock) = one("").await;
    let mut client = H2::connect(burdock.address()).await;
    let (answer, mut stream) = client.begin(h2::get("/gate"), false);
    burdock.wait_metric("burdock_instance_requests_in_flight", &[], |v| v == 1.0).await;
    stream.send_reset(::h2::Reason::CANCEL);
    drop((answer, stream));
    burdock.wait_metric("burdock_instance_requests_in_flight", &[], |v| v == 0.0).await;
    assert_eq!(burdock.access("/gate", 1).await[0]["error"], "client_closed");
    a.open_gate(1);
    assert_eq!(client.get("/").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_is_told_to_go_and_one_with_a_tunnel_is_not_idle() {
    let (_a, burdock) = one("timeouts: { keep_alive: 300ms }\n").await;
    let mut idle = H2::connect(burdock.address()).await;
    assert_eq!(idle.get("/").await.status, 200);
    let mut busy = H2::connect(burdock.address()).await;
    let mut socket = busy.websocket("/ws").await;
    within("an orderly end", idle.ended).await.unwrap().expect("no error");
    let reason = [("reason", "keep_alive_timeout")];
    burdock.wait_metric("burdock_errors_total", &reason, |v| v == 1.0).await;
    socket.echo("still here").await;
    drop(socket);
    burdock.wait_metric("burdock_errors_total", &reason, |v| v == 2.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_resets_ends_its_connection_only() {
    let (_a, burdock) = one("").await;
    let mut other = H2::connect(burdock.address()).await;
    let mut flood = H2::connect(burdock.address()).await;
    for _ in 0..100_000 {
        let Ok(ready) = within("room for a stream", flood.send.clone().ready()).await else {
            break;
        };
        flood.send = ready;
        // Its body keeps it open until it is reset.
        let request = Request::post("http://app.test/echo").body(()).unwrap();
        let Ok((_answer, mut stream)) = flood.send.send_request(request, false) else { break };
        tokio::task::yield_now().await;
        stream.send_reset(::h2::Reason::CANCEL);
    }
    // Burdock says ENHANCE_YOUR_CALM; what is still on its way to it may reset that away.
    within("the end of patience", flood.ended).await.unwrap().expect_err("a refusal");
    assert_eq!(other.get("/").await.status, 200);
    burdock.wait_metric("burdock_instance_requests_in_flight", &[], |v| v == 0.0).await;
}

/// The names of the instances that answer so many requests, all in flight at once.
async fn at_once(client: &mut H2, backends: &[Backend], n: usize) -> Vec<String> {
    let before: Vec<_> = backends.iter().map(Backend::request_count).collect();
    let answers: Vec<_> = (0..n).map(|_| client.begin(h2::get("/gate"), false).0).collect();
    let came = || -> Vec<usize> {
        backends.iter().zip(&before).map(|(it, before)| it.request_count() - before).collect()
    };
    eventually("all of them", || (came().iter().sum::<usize>() == n).then_some(())).await;
    backends.iter().zip(came()).for_each(|(backend, came)| backend.open_gate(came));
    let mut names = Vec::new();
    for answer in answers {
        names.push(h2::finish(answer).await.expect("an answer").instance().to_owned());
    }
    names.sort();
    names.dedup();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_streams_of_a_client_land_together_and_later_ones_are_spread() {
    let backends = Backend::several(&["a", "b", "c"]).await;
    let instances: Vec<_> = backends.iter().collect();
    let burdock = Burdock::start(&yaml(&instances, "session_affinity: true\n")).await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = H2::connect(burdock.address()).await;
        assert_eq!(at_once(&mut client, &backends, 9).await.len(), 1);
        clients.push(client);
    }
    let begun = burdock.metrics().await.sum("burdock_affinity_total", &[("outcome", "new")]);
    assert_eq!(begun, 27.0);
    let mut found = std::collections::BTreeMap::<String, usize>::new();
    for _ in 0..9 {
        let answer = clients[0].get("/").await;
        *found.entry(answer.instance().to_owned()).or_default() += 1;
    }
    assert_eq!(found.into_values().collect::<Vec<_>>(), [3, 3, 3], "one after the other");
    let trusted = "session_affinity: true\ntrusted_proxies: [127.0.0.1]\n";
    burdock.reload(&yaml(&instances, trusted)).await;
    let mut proxy = H2::connect(burdock.address()).await;
    assert_eq!(at_once(&mut proxy, &backends, 9).await, ["a", "b", "c"], "many clients' streams");
}
