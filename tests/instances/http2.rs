//! HTTP/2 to instances: many requests on one connection, each with a stream of its own that can fail,
//! end and be given up without the others.

use bytes::Bytes;
use h2::Reason;
use http::{HeaderMap, HeaderValue, Request as Http};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::h2::{H2, finish};
use crate::support::secured::{Authority, Secured};
use crate::support::streams::Streams;
use crate::support::ws::WebSocket;
use crate::support::{self, Backend, Burdock, HEADER, Request, eventually, pattern, raw, within};

/// One worker, so that all requests could share a connection.
fn text(instances: &[&Streams], rest: &str) -> String {
    let instance = |it: &&Streams| format!("{{ name: {}, address: {} }}", it.name, it.address);
    let instances: Vec<_> = instances.iter().map(instance).collect();
    let header = HEADER.replace("workers: 2", "workers: 1");
    format!("{header}instances: [{}]\nprotocol: http2\n{rest}\n", instances.join(", "))
}

async fn one(rest: &str) -> (Streams, Burdock) {
    let a = Streams::start("a").await;
    let burdock = Burdock::start(&text(&[&a], rest)).await;
    (a, burdock)
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_share_a_connection_and_pass_whole() {
    let (a, burdock) = one("").await;
    let mut client = burdock.client();
    for size in [0, 1, 16_384, 16_385, 131_073, 2 << 20] {
        assert!(client.get(&format!("/sized/{size}")).await.body.bytes == pattern(size), "{size}");
        assert!(client.post("/echo", &pattern(size)).await.body.bytes == pattern(size), "{size}");
    }
    let parts = Request::post("/echo", b"in parts").chunked(&[]);
    assert_eq!(client.send(&parts).await.text(), "in parts");
    assert!(client.send(&Request::new("HEAD", "/x")).await.body.bytes.is_empty());
    let burst = (0..50).map(|_| async { burdock.client().get("/whoami").await.status });
    let statuses = futures_util::future::join_all(burst).await;
    assert!(statuses.iter().all(|status| *status == 200));
    assert_eq!(a.accepted(), 1, "one connection for all of them");
    let (uri, fields) = a.request(1, |it| (it.head.uri.clone(), it.head.headers.clone())).await;
    assert_eq!(uri.to_string(), "http://app.test/sized/0");
    for absent in ["host", "connection", "transfer-encoding", "te"] {
        assert!(!fields.contains_key(absent), "{absent}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_http1_has_and_a_stream_may_not_have_harms_nobody() {
    let (a, burdock) = one("").await;
    let query = "GET http://app.test?b HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n";
    let answer = raw::exchange_text(burdock.address(), query).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(a.request(1, |it| it.head.uri.to_string()).await, "http://app.test/?b");
    let trailers = "POST /echo HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\
                    Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nConnection: x\r\nTE: gzip\r\n\r\n";
    let answer = raw::exchange_text(burdock.address(), trailers).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains('x'), "{answer}");
    assert_eq!(a.accepted(), 1, "the connection is as good as before");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_connection_is_opened_when_streams_run_out() {
    let (a, burdock) = one("").await;
    a.takes(4);
    assert_eq!(burdock.client().get("/").await.status, 200);
    let burst: Vec<_> = (0..10)
        .map(|_| {
            let mut client = burdock.client();
            tokio::spawn(async move { client.get("/gate").await.text() })
        })
        .collect();
    a.request(11, |_| ()).await;
    let on = a.connections();
    let most = (0..a.accepted()).map(|n| on[1..].iter().filter(|it| **it == n).count()).max();
    assert!(most <= Some(4) && a.accepted() == 3, "{on:?}");
    a.open_gate(10);
    for answer in burst {
        assert_eq!(within("an answer", answer).await.unwrap(), "a");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_takes_its_own_stream_only() {
    let (a, burdock) = one("").await;
    let mut waiting = burdock.client();
    let waits = tokio::spawn(async move { waiting.get("/gate").await.text() });
    a.request(1, |_| ()).await;
    let head = "GET /half HTTP/1.1\r\nHost: x\r\n\r\n";
    let conn = raw::open(burdock.address(), head).await;
    a.request(2, |_| ()).await;
    drop(conn);
    assert_eq!(a.reset("/half").await, Reason::CANCEL);
    // An upload for which the instance has made no room.
    let mut client = H2::connect(burdock.address()).await;
    let request = Http::post("http://app.test/silent").body(()).unwrap();
    let (answer, mut upload) = client.begin(request, true);
    upload.send_data(Bytes::from(vec![b'x'; 100_000]), false).unwrap();
    a.request(3, |_| ()).await;
    upload.send_reset(Reason::CANCEL);
    drop((answer, upload));
    assert_eq!(a.reset("/silent").await, Reason::CANCEL);
    a.open_gate(1);
    assert_eq!(within("the other", waits).await.unwrap(), "a");
    assert_eq!((a.accepted(), a.resets()), (1, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_goes_away_is_left_without_an_error() {
    let (a, burdock) = one("").await;
    let mut client = burdock.client();
    let mut waiting = burdock.client();
    let waits = tokio::spawn(async move { waiting.get("/gate").await.text() });
    a.request(1, |_| ()).await;
    a.leaves();
    for n in 0..20 {
        let body = format!("{n}").into_bytes();
        assert_eq!(client.post("/echo", &body).await.body.bytes, body);
    }
    a.open_gate(1);
    assert_eq!(within("what was under way", waits).await.unwrap(), "a");
    assert_eq!(a.accepted(), 2);
    assert_eq!(burdock.metrics().await.sum("burdock_errors_total", &[]), 0.0);
}

/// Speaks just enough HTTP/2 to say, once a request is there, that it looked at none.
async fn goes_away(listener: TcpListener) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        // An end before the request is the other side's business.
        let _ = go_away(stream).await;
    }
}

async fn go_away(mut stream: TcpStream) -> std::io::Result<()> {
    stream.read_exact(&mut [0; 24]).await?;
    stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await?;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        stream.read_exact(&mut vec![0; length as usize]).await?;
        if head[3] == 1 {
            let names_none = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            return stream.write_all(&names_none).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_instance_has_not_looked_at_goes_elsewhere_whatever_the_method() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(goes_away(listener));
    let b = Streams::start("b").await;
    let more = format!("instances: [{{ name: a, address: '{address}' }}, ");
    let config = text(&[&b], "breaker: off").replace("instances: [", &more);
    let burdock = Burdock::start(&config).await;
    for _ in 0..4 {
        let answer = burdock.client().post("/echo", b"once").await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "once"));
    }
    assert_eq!(b.connections().len(), 4);

    let (a, burdock) = one("breaker: off").await;
    let answer = burdock.client().post("/refuse", b"x").await;
    assert_eq!(answer.text(), "502 instance_reset\n");
    let answer = burdock.client().post("/reset", b"x").await;
    assert_eq!(answer.text(), "502 instance_reset\n");
    assert_eq!(a.accepted(), 1, "neither ends the connection");
    let tried = a.connections().len();
    assert!((2..=3).contains(&tried), "{tried}: a reset that may have been acted on is final");
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_pass_both_ways() {
    let (a, burdock) = one("").await;
    let mut client = H2::connect(burdock.address()).await;
    let answer = client.get("/trailers").await;
    assert_eq!(answer.text(), "body");
    assert_eq!(answer.trailers.unwrap()["grpc-status"], "0");
    let request = Http::post("http://app.test/echo").header("te", "trailers").body(()).unwrap();
    let (answer, mut upload) = client.begin(request, true);
    upload.send_data(Bytes::from_static(b"to and fro"), false).unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("7"));
    upload.send_trailers(trailers).unwrap();
    let answer = within("an answer", finish(answer)).await.unwrap();
    assert_eq!(answer.text(), "to and fro");
    assert_eq!(answer.trailers.unwrap()["x-sum"], "7");
    let te = a.request(2, |it| it.head.headers.get("te").cloned()).await;
    assert_eq!(te.unwrap(), "trailers");
    assert_eq!(burdock.client().get("/trailers").await.text(), "body");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_and_its_answer_pass_at_once() {
    let (_a, burdock) = one("").await;
    let mut client = H2::connect(burdock.address()).await;
    let request = Http::post("http://app.test/echo").body(()).unwrap();
    let (answer, mut upload) = client.begin(request, true);
    let answer = within("a head before the body's end", answer).await.unwrap();
    let mut body = answer.into_body();
    for n in 0..20 {
        let message = Bytes::from(format!("message {n}"));
        upload.send_data(message.clone(), false).unwrap();
        let mut back = Vec::new();
        while back.len() < message.len() {
            let data = within("an echo", body.data()).await.unwrap().unwrap();
            body.flow_control().release_capacity(data.len()).unwrap();
            back.extend(data);
        }
        assert_eq!(back, message);
    }
    upload.send_data(Bytes::new(), true).unwrap();
    while let Some(rest) = within("the end", body.data()).await {
        assert!(rest.unwrap().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_has_the_limits_that_it_has_elsewhere() {
    let (a, burdock) = one("timeouts: { first_byte: 200ms, idle: 300ms }\nretry: off").await;
    assert_eq!(burdock.client().get("/").await.status, 200);
    assert_eq!(burdock.client().get("/silent").await.text(), "504 first_byte_timeout\n");
    assert_eq!(a.reset("/silent").await, Reason::CANCEL);
    assert_eq!(burdock.client().get("/").await.status, 200);
    assert_eq!(a.accepted(), 2, "a connection on which nothing came may lead nowhere");
    let answer = burdock.client().try_send(&Request::get("/half")).await;
    assert!(answer.is_err());
    assert_eq!(burdock.access("/half", 1).await[0]["error"], "response_idle_timeout");
    assert_eq!(a.reset("/half").await, Reason::CANCEL);
    // An early answer, and an upload that nobody takes.
    let mut client = H2::connect(burdock.address()).await;
    let request = Http::post("http://app.test/early").body(()).unwrap();
    let (answer, mut upload) = client.begin(request, true);
    upload.send_data(Bytes::from(vec![b'x'; 60_000]), false).unwrap();
    let answer = within("the head", answer).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(a.reset("/early").await, Reason::CANCEL);
    assert_eq!(burdock.client().get("/").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_do_not_wait_for_an_instance_that_is_dead() {
    let (a, b) = (Streams::start("a").await, Streams::start("b").await);
    let side = Backend::start("side").await;
    let port = side.address.port();
    let check = format!(
        "liveness_check: {{ path: /healthz, port: {port}, check_interval: 30ms, timeout: 300ms, \
         failure_threshold: 1, initial_delay: 0s }}\nbalance: hash\nhash_by: path"
    );
    let burdock = Burdock::start(&text(&[&a, &b], &check)).await;
    let mut client = burdock.client();
    let waits = tokio::spawn(async move { client.get("/gate").await });
    eventually("a request", || (a.connections().len() + b.connections().len() == 1).then_some(()))
        .await;
    // Both are found dead, so that there is no elsewhere.
    side.alive(false);
    let answer = within("the answer", waits).await.unwrap();
    assert_eq!(answer.text(), "502 instance_dead\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn checks_go_by_http2_at_the_instances_own_port_only() {
    let check = "readiness_check: { path: /readyz, check_interval: 30ms, timeout: 2s }";
    let (a, burdock) = one(check).await;
    burdock.wait_health("a", "ready").await;
    let asked = a.request(1, |it| it.head.uri.to_string()).await;
    assert_eq!(asked, format!("http://{}/readyz", a.address));
    let side = Backend::start("side").await;
    let port = format!("path: /readyz, port: {},", side.address.port());
    burdock.reload(&text(&[&a], &check.replace("path: /readyz,", &port))).await;
    side.probed(2).await;
    burdock.wait_health("a", "ready").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_of_something_else_keeps_the_connection() {
    let (a, burdock) = one("").await;
    let mut client = burdock.client();
    assert_eq!(client.get("/").await.status, 200);
    burdock.reload(&text(&[&a], "timeouts: { connect: 1s }")).await;
    assert_eq!(client.get("/").await.status, 200);
    assert_eq!(a.accepted(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_tls_it_is_agreed_on_by_alpn() {
    let (authority, a) = (Authority::new(), Streams::start("a").await);
    let issued = authority.issue("127.0.0.1");
    let front = Secured::start(a.address, issued.server(None, &["h2", "http/1.1"])).await;
    let old = Secured::start(a.address, issued.server(None, &[])).await;
    let folder = support::burdock::scratch();
    let ca = folder.join("ca.pem");
    std::fs::write(&ca, &authority.pem).unwrap();
    let config = |address: std::net::SocketAddr| {
        format!(
            "{HEADER}instances: [{{ name: a, address: {address} }}]\nprotocol: http2\n\
             tls: {{ ca: '{}' }}\n",
            ca.display()
        )
    };
    let burdock = Burdock::start(&config(front.address)).await;
    assert!(burdock.client().get("/sized/1000000").await.body.bytes == pattern(1_000_000));
    assert_eq!(front.handshakes()[0].alpn.as_deref(), Some("h2"));
    let scheme = a.request(1, |it| it.head.uri.scheme_str().map(str::to_owned)).await;
    assert_eq!(scheme.as_deref(), Some("https"));
    let burdock = Burdock::start(&config(old.address)).await;
    assert_eq!(burdock.client().get("/").await.text(), "502 tls_failed\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn upgrades_go_by_http_1_1() {
    let a = Backend::start("a").await;
    let config = support::yaml(&[&a], "protocol: http2");
    let burdock = Burdock::start(&config).await;
    let mut socket = WebSocket::open(burdock.address(), "/ws", "").await;
    socket.echo("by HTTP/1.1").await;
    // What does not speak HTTP/2 says something that is none.
    let answer = burdock.client().get("/").await;
    assert_eq!(answer.text(), "502 invalid_response\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_protocol_counts_for_the_next_request() {
    let (a, plain) = (Streams::start("a").await, Backend::start("a").await);
    let burdock = Burdock::start(&text(&[&a], "")).await;
    assert_eq!(burdock.client().get("/").await.status, 200);
    burdock.reload(&support::yaml(&[&plain], "")).await;
    assert_eq!(burdock.client().get("/").await.instance(), "a");
    assert_eq!(plain.request_count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_grpc_get_their_own_kind_of_error() {
    let nobody = HEADER.to_owned()
        + "services: { s: { hosts: [other.test], instances: ['127.0.0.1:1'], protocol: http2 } }\n";
    let refused = Burdock::start(&nobody).await;
    for (host, code, message) in
        [("other.test", "14", "connect_failed"), ("app.test", "12", "no_service")]
    {
        let mut client = H2::connect(refused.address()).await;
        let request = Http::post(format!("http://{host}/a.B/C"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .unwrap();
        let (answer, _) = client.begin(request, false);
        let answer = within("an answer", finish(answer)).await.unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (200, ""));
        assert_eq!(answer.fields["content-type"], "application/grpc");
        assert_eq!(answer.fields["grpc-status"], code);
        assert_eq!(answer.fields["grpc-message"], message);
        let plain = Http::get(format!("http://{host}/a.B/C")).body(()).unwrap();
        let (answer, _) = client.begin(plain, false);
        let answer = within("an answer", finish(answer)).await.unwrap();
        assert!(answer.text().ends_with(&format!("{message}\n")));
    }
    let line = &refused.access("/a.B/C", 1).await[0];
    assert_eq!((&line["status"], &line["error"]), (&200.into(), &"connect_failed".into()));
}
