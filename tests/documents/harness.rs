//! The harness itself, without Burdock: a backend that lies about its faults would make every other
//! test here worthless.

use crate::support::{self, Backend, Client, Fault, Load, Request, load, pattern, raw, within, ws};

#[tokio::test]
async fn a_backend_says_its_name_and_records_the_request() {
    let a = Backend::start("a").await;
    let mut client = Client::new(a.address);
    let answer = client.send(&Request::post("/x?y=1", b"body").with("X-Odd", "1")).await;
    assert_eq!((answer.status, answer.instance(), answer.text().as_str()), (200, "a", "a"));
    let seen = a.last_request();
    assert_eq!((seen.head.method(), seen.head.target()), ("POST", "/x?y=1"));
    assert_eq!(seen.head.field("x-odd"), Some("1"));
    assert_eq!(seen.body.unwrap().bytes, b"body");
    assert_eq!((client.get("/").await.status, a.connections()), (200, 1), "kept alive");
}

#[tokio::test]
async fn bodies_of_every_framing_arrive_whole() {
    let a = Backend::start("a").await;
    let mut client = Client::new(a.address);
    assert_eq!(client.get("/sized/70000").await.body.bytes, pattern(70_000));
    assert_eq!(client.get("/chunked/70000").await.body.bytes, pattern(70_000));
    assert_eq!(client.get("/to-end").await.text(), "to the end");
    assert_eq!(client.get("/zeros/9000000").await.body.size, 9_000_000);
    let trailers = client.get("/trailers").await.body.trailers;
    assert_eq!(trailers[0], ("X-Sum".to_owned(), "42".to_owned()));
    let head = client.send(&Request::new("HEAD", "/sized/5")).await;
    assert_eq!((head.field("content-length"), head.body.size), (Some("5"), 0));
    assert_eq!(client.get("/status/204").await.status, 204);
    let echo = client.send(&Request::post("/echo", &pattern(9000)).chunked(&[("A", "b")])).await;
    assert_eq!(echo.body.bytes, pattern(9000));
    let trailers = a.last_request().body.unwrap().trailers;
    assert_eq!(trailers, [("A".to_owned(), "b".to_owned())]);
}

#[tokio::test]
async fn faults_are_what_they_say() {
    let a = Backend::start("a").await;
    let mut client = Client::new(a.address);
    a.misbehaves(Fault::ResetBeforeAnswer);
    let error = client.try_send(&Request::get("/")).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    a.misbehaves(Fault::CloseBeforeAnswer);
    let error = client.try_send(&Request::get("/")).await.unwrap_err();
    assert_eq!(error.to_string(), "closed without an answer");
    a.misbehaves(Fault::ResetMidAnswer(10));
    let bytes = raw::exchange(a.address, "GET / HTTP/1.1\r\n\r\n").await;
    assert!(bytes.ends_with(&pattern(10)), "{}", String::from_utf8_lossy(&bytes));
    a.misbehaves_times(Fault::Status(500), 1);
    assert_eq!(client.get("/").await.status, 500);
    client.disconnect();
    assert_eq!(client.get("/").await.status, 200);
    a.misbehaves(Fault::Raw(b"nonsense".to_vec()));
    assert_eq!(raw::exchange(a.address, "GET / HTTP/1.1\r\n\r\n").await, b"nonsense");
}

#[tokio::test]
async fn a_dead_backend_refuses_and_comes_back_on_its_port() {
    let a = Backend::start("a").await;
    let mut client = Client::new(a.address);
    client.get("/").await;
    a.dies().await;
    assert!(client.try_send(&Request::get("/")).await.is_err());
    a.comes_back();
    assert_eq!(client.get("/").await.status, 200);
}

#[tokio::test]
async fn a_hanging_backend_answers_once_it_thaws() {
    let a = Backend::start("a").await;
    a.hangs(true);
    let mut conn = raw::open(a.address, "GET /readyz HTTP/1.1\r\n\r\n").await;
    assert!(a.probes().is_empty());
    a.hangs(false);
    let head = within("an answer", conn.head()).await.unwrap().unwrap();
    assert_eq!(head.status(), 200);
    a.ready(false);
    conn.write(b"GET /readyz HTTP/1.1\r\n\r\n").await.unwrap();
    let head = within("an answer", conn.head()).await.unwrap().unwrap();
    assert_eq!((head.status(), a.probes().len()), (503, 2));
}

#[tokio::test]
async fn a_gate_holds_an_answer_back() {
    let a = Backend::start("a").await;
    let mut conn = raw::open(a.address, "GET /half HTTP/1.1\r\n\r\n").await;
    let head = within("a head", conn.head()).await.unwrap().unwrap();
    assert_eq!(within("half", conn.exactly(1000)).await.unwrap(), pattern(2000)[..1000]);
    a.open_gate(1);
    assert_eq!(within("the rest", conn.exactly(1000)).await.unwrap(), pattern(2000)[1000..]);
    assert_eq!(head.field("content-length"), Some("2000"));
}

#[tokio::test]
async fn tunnels_echo_greet_and_close() {
    let a = Backend::start("a").await;
    let mut socket = ws::WebSocket::open(a.address, "/ws/greet", "").await;
    assert_eq!(socket.next().await.unwrap().payload, b"hello");
    socket.echo("text").await;
    let large = pattern(70_000);
    socket.send(ws::BINARY, &large).await;
    assert_eq!(socket.next().await.unwrap().payload, large);
    socket.send(ws::CLOSE, &[0x03, 0xe9, b'x']).await;
    assert_eq!(socket.closed().await, Some((1001, "x".to_owned())));
    assert_eq!(a.closes(), [(1001, "x".to_owned(), true)]);
    let request = "GET /raw HTTP/1.1\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n";
    let (mut conn, _) = ws::dial(a.address, request).await;
    conn.write(b"abc").await.unwrap();
    tokio::io::AsyncWriteExt::shutdown(&mut conn.stream).await.unwrap();
    assert_eq!(within("the end", conn.read_to_end()).await, b"abcbye");
    support::eventually("the record", || (a.tunnelled() == [b"abc"]).then_some(())).await;
}

#[tokio::test]
async fn a_load_reports_what_sessions_saw() {
    let a = Backend::start("a").await;
    let load = Load::start(a.address, 10, 200, "/");
    load.settles().await;
    a.misbehaves_times(Fault::ResetBeforeAnswer, 1);
    load.passes(50).await;
    let seen = load.stop().await;
    assert!(seen.iter().all(|seen| seen.last() == "a" && seen.moves() == 0));
    let reconnects: usize = seen.iter().map(|seen| seen.reconnects).sum();
    assert_eq!((load::errors(&seen).len(), reconnects), (0, 1), "as browsers do");
}

#[test]
fn metrics_are_parsed() {
    let text = "# HELP a x\n# TYPE a counter\na{b=\"c\",d=\"e, f\"} 2\na{b=\"x\"} 3\nplain 1.5\n";
    let metrics = support::burdock::Metrics::parse(text);
    assert_eq!((metrics.sum("a", &[]), metrics.sum("a", &[("b", "c")])), (5.0, 2.0));
    assert_eq!((metrics.sum("plain", &[]), metrics.sum("absent", &[])), (1.5, 0.0));
}
