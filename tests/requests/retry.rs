//! What is tried again and what never is: decided by the method, by what was sent, by a budget.

use crate::support::{
    self, Backend, Burdock, Fault, Request, eventually, pattern, raw, within, yaml,
};

/// Two instances; the next new session goes to either, so that tests break both or look at both.
async fn pair(rest: &str) -> (Backend, Backend, Burdock) {
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    let burdock = Burdock::start(&yaml(&[&a, &b], rest)).await;
    (a, b, burdock)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_get_reset_before_a_byte_goes_to_another_instance() {
    for fault in [Fault::ResetBeforeAnswer, Fault::CloseBeforeAnswer, Fault::ResetOnHead] {
        let (a, _b, burdock) = pair("").await;
        a.misbehaves(fault.clone());
        for _ in 0..4 {
            let answer = burdock.client().get("/r").await;
            assert_eq!((answer.status, answer.instance()), (200, "b"), "{fault:?}");
        }
        let lines = burdock.access("/r", 4).await;
        assert!(lines.iter().any(|line| line["attempts"] == 2), "{lines:?}");
        let retries = burdock.metrics().await.sum("burdock_retries_total", &[]);
        assert_eq!(retries, a.request_count() as f64);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_post_that_was_sent_is_never_sent_again() {
    for fault in [Fault::ResetBeforeAnswer, Fault::CloseBeforeAnswer] {
        let (a, b, burdock) = pair("breaker: off\n").await;
        a.misbehaves(fault.clone());
        b.misbehaves(fault);
        let answer = burdock.client().post("/pay", b"once").await;
        assert_eq!((answer.status, answer.text().as_str()), (502, "502 instance_reset\n"));
        assert_eq!(a.request_count() + b.request_count(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn idempotent_methods_with_a_body_are_sent_again_with_the_whole_body() {
    let (a, b, burdock) = pair("").await;
    a.misbehaves(Fault::ResetBeforeAnswer);
    let body = pattern(60_000);
    for n in 0..4 {
        let put = Request::new("PUT", "/put").body(&body);
        let delete = Request::new("DELETE", "/x").body(&body).chunked(&[]);
        let answer = burdock.client().send(if n % 2 == 0 { &put } else { &delete }).await;
        assert_eq!((answer.status, answer.instance()), (200, "b"));
        assert_eq!(b.last_request().body.unwrap().bytes, body);
    }
    assert!(a.request_count() > 0, "some were tried there first");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_post_is_tried_elsewhere_when_the_connect_failed() {
    let (a, b, burdock) = pair("").await;
    a.dies().await;
    let body = pattern(64 * 1024);
    for n in 1..=4 {
        let answer = burdock.client().post("/pay", &body).await;
        assert_eq!((answer.status, answer.instance()), (200, "b"));
        assert_eq!(b.body(n).await.bytes, body);
    }
    let labels = [("reason", "connect_failed")];
    assert!(burdock.metrics().await.sum("burdock_retries_total", &labels) >= 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_body_goes_elsewhere_when_the_connect_failed_since_nothing_was_sent() {
    let (a, b, burdock) = pair("").await;
    a.dies().await;
    let body = pattern(900_000);
    for n in 1..=3 {
        let answer = burdock.client().post("/pay", &body).await;
        assert_eq!((answer.status, answer.instance()), (200, "b"));
        assert_eq!(b.body(n).await.bytes, body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_beyond_the_limit_streams_and_is_not_sent_again() {
    let (a, b, burdock) = pair("retry: { max_body: 1024 }\nbreaker: off\n").await;
    a.misbehaves(Fault::ResetBeforeAnswer);
    b.misbehaves(Fault::ResetBeforeAnswer);
    let request = Request::new("PUT", "/big").body(&pattern(5000));
    let answer = burdock.client().send(&request).await;
    assert_eq!(answer.status, 502);
    assert_eq!(a.request_count() + b.request_count(), 1, "not kept, so not repeated");
    let request = Request::new("PUT", "/small").body(&pattern(1024));
    assert_eq!(burdock.client().send(&request).await.status, 502);
    assert!(a.request_count() + b.request_count() >= 3, "at the limit it is kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_body_is_passed_on_before_it_has_arrived_whole() {
    let (a, b, burdock) = pair("").await;
    let head =
        "POST /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 200000\r\n\r\n";
    let body = pattern(200_000);
    let mut conn = raw::open(burdock.address(), head).await;
    conn.write(&body[..150_000]).await.unwrap();
    let counts = || (a.request_count() + b.request_count() == 1).then_some(());
    support::eventually("the head at an instance before the body's end", counts).await;
    conn.write(&body[150_000..]).await.unwrap();
    assert!(within("the echo", conn.read_to_end()).await.ends_with(&body));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_began_is_never_asked_for_again() {
    let (a, b, burdock) = pair("").await;
    a.misbehaves(Fault::ResetMidAnswer(500));
    b.misbehaves(Fault::ResetMidAnswer(500));
    let request = "GET /cut HTTP/1.1\r\nHost: x\r\n\r\n";
    let bytes = raw::exchange(burdock.address(), request).await;
    assert!(bytes.starts_with(b"HTTP/1.1 200 "));
    assert!(!bytes.ends_with(b"0\r\n\r\n"), "it must not look whole");
    assert_eq!(a.request_count() + b.request_count(), 1);
    let line = &burdock.access("/cut", 1).await[0];
    assert_eq!((&line["error"], &line["attempts"]), (&"response_broken".into(), &1.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_connection_found_dead_is_nobodys_error() {
    let (a, b, burdock) = pair("").await;
    a.closes_after_each(true);
    b.closes_after_each(true);
    let mut client = burdock.client();
    for n in 0..200 {
        let answer = client.get("/").await;
        assert_eq!(answer.status, 200, "request {n}");
    }
    assert_eq!(client.reconnects, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_are_limited() {
    let backends = Backend::several(&["a", "b", "c", "d"]).await;
    for backend in &backends {
        backend.misbehaves(Fault::ResetBeforeAnswer);
    }
    for (attempts, path) in [(1, "/one"), (2, "/two"), (4, "/four")] {
        let rest = format!("retry: {{ attempts: {attempts}, budget_floor: 1000 }}\nbreaker: off\n");
        let burdock = Burdock::start(&yaml(&backends.iter().collect::<Vec<_>>(), &rest)).await;
        let before: usize = backends.iter().map(Backend::request_count).sum();
        assert_eq!(burdock.client().get(path).await.status, 502);
        let after: usize = backends.iter().map(Backend::request_count).sum();
        assert_eq!(after - before, attempts);
        assert_eq!(burdock.access(path, 1).await[0]["attempts"], attempts);
        let fresh =
            backends.iter().filter(|b| b.requests().iter().any(|r| r.head.target() == path));
        assert_eq!(fresh.count(), attempts, "each attempt at another instance");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_bounds_retries_when_everything_fails() {
    let rest = "retry: { attempts: 3, budget: 10%, budget_floor: 0 }\nbreaker: off\n";
    let (a, b, burdock) = pair(rest).await;
    let mut client = burdock.client();
    for _ in 0..100 {
        client.get("/").await;
    }
    a.misbehaves(Fault::ResetBeforeAnswer);
    b.misbehaves(Fault::ResetBeforeAnswer);
    for _ in 0..200 {
        assert_eq!(client.get("/").await.status, 502);
    }
    // 300 requests earn at most 30 retries, whatever the window.
    let retries = burdock.metrics().await.sum("burdock_retries_total", &[]);
    assert!((1.0..=30.0).contains(&retries), "{retries} retries for 300 requests");
    // The kept connection to each died with it; that one more try on the same instance is free.
    let attempts = a.request_count() + b.request_count();
    let free = attempts as f64 - 300.0 - retries;
    assert!((0.0..=2.0).contains(&free), "{attempts} attempts, {retries} retries");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_before_the_upload_ended_reaches_the_client() {
    let (_a, _b, burdock) = pair("").await;
    let head = "POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: 50000000\r\n\r\n";
    let mut conn = raw::open(burdock.address(), head).await;
    conn.write(&pattern(300_000)).await.unwrap();
    let answer = within("413 while uploading", conn.head()).await.unwrap().unwrap();
    assert_eq!(answer.status(), 413);
    let body = within("its body", conn.body(answer.response_framing("POST"))).await.unwrap();
    assert_eq!(body.bytes, b"no thanks");
}

#[tokio::test(flavor = "multi_thread")]
async fn error_statuses_of_the_application_are_answers_not_failures() {
    let (a, b, burdock) = pair("").await;
    for status in [404, 500, 502, 503, 504] {
        let answer = burdock.client().get(&format!("/status/{status}")).await;
        assert_eq!((answer.status, answer.text().as_str()), (status, "told"));
        assert!(["a", "b"].contains(&answer.instance()), "passed on as it is");
    }
    assert_eq!(a.request_count() + b.request_count(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_failure_has_its_own_status_and_reason() {
    let a = Backend::start("a").await;
    let rest =
        "retry: { attempts: 1 }\nbreaker: off\ntimeouts: { connect: 500ms, first_byte: 300ms }\n";
    let burdock = Burdock::start(&yaml(&[&a], rest)).await;
    let cases = [
        (Fault::Raw(b"nonsense\r\n\r\n".to_vec()), "502 invalid_response\n"),
        (Fault::ResetBeforeAnswer, "502 instance_reset\n"),
        (Fault::Gate, "504 first_byte_timeout\n"),
    ];
    for (fault, told) in cases {
        a.misbehaves(fault);
        let answer = burdock.client().get("/").await;
        assert_eq!(answer.text(), told);
        assert_eq!(answer.status.to_string(), told[..3]);
        assert!(!answer.text().contains("127.0.0.1"));
        let reason = told[4..].trim();
        let labels = [("reason", reason)];
        assert_eq!(burdock.metrics().await.sum("burdock_errors_total", &labels), 1.0);
    }
    a.dies().await;
    assert_eq!(burdock.client().get("/").await.text(), "502 connect_failed\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn opening_a_websocket_is_tried_until_a_101_arrives() {
    let (a, _b, burdock) = pair("").await;
    a.dies().await;
    for _ in 0..4 {
        let mut socket = support::ws::WebSocket::open(burdock.address(), "/ws", "").await;
        assert_eq!(socket.instance(), "b");
        socket.echo("here").await;
    }
}

/// A socket that listens and answers nobody, with as many waiting as it takes.
async fn full() -> (tokio::net::TcpListener, Vec<tokio::net::TcpStream>) {
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.bind(([127, 0, 0, 1], 0).into()).expect("a port");
    let listener = socket.listen(1).expect("a listener");
    let mut waiting = Vec::new();
    loop {
        let connect = tokio::net::TcpStream::connect(listener.local_addr().expect("its address"));
        match tokio::time::timeout(std::time::Duration::from_millis(100), connect).await {
            Ok(stream) => waiting.push(stream.expect("a connection")),
            Err(_full) => return (listener, waiting),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_post_that_still_waits_for_its_connection_goes_elsewhere_when_probes_fail() {
    let (listener, _waiting) = full().await;
    let b = Backend::start("b").await;
    let full = listener.local_addr().unwrap();
    let config = format!(
        "{}readiness_check: {{ path: /readyz, check_interval: 50ms, timeout: 300ms, \
         failure_threshold: 4, initial_state: ready }}\ntimeouts: {{ connect: 14s }}\n\
         instances:\n  - {{ name: full, address: {full} }}\n  - {{ name: b, address: {} }}\n",
        support::HEADER,
        b.address
    );
    let burdock = Burdock::start(&config).await;
    for _ in 0..2 {
        let answer = burdock.client().post("/pay", b"once").await;
        assert_eq!((answer.status, answer.instance()), (200, "b"));
    }
    assert_eq!(b.request_count(), 2);
    assert_eq!(burdock.metrics().await.sum("burdock_retries_total", &[]), 1.0);
}

/// The second attempt begins with what is kept while its answer has already begun.
#[tokio::test(flavor = "multi_thread")]
async fn an_early_answer_does_not_cut_the_body_that_is_sent_again() {
    let (a, b, burdock) = pair("retry: { max_body: 16MiB }\nbalance: hash\nhash_by: uri\n").await;
    a.misbehaves(Fault::ResetBeforeAnswer);
    b.misbehaves(Fault::ResetBeforeAnswer);
    let first = Request::new("PUT", "/early/on");
    burdock.client().send(&first).await;
    let (first, second) = if a.request_count() > 0 { (&a, &b) } else { (&b, &a) };
    first.misbehaves_times(Fault::ResetBeforeAnswer, 1);
    second.misbehaves(Fault::None);
    // More than the sockets between hold, so that some is unsent when the answer comes.
    let body = pattern(14 << 20);
    let parts: Vec<&[u8]> = body.chunks(50_000).collect();
    let head = "PUT /early/on HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut conn = raw::open(burdock.address(), head).await;
    within("room", conn.write(&support::wire::chunked(&parts, &[]))).await.unwrap();
    let answer = within("an answer", conn.head()).await.unwrap().unwrap();
    assert_eq!((answer.status(), answer.field("x-instance")), (200, Some(second.name.as_str())));
    let n = second.request_count();
    let arrived = second.body(n).await;
    assert_eq!(arrived.size, body.len() as u64);
    assert!(body.starts_with(&arrived.bytes), "nothing but what was sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_failed_tells_where() {
    let a = Backend::start("a").await;
    let burdock = Burdock::start(&yaml(&[&a], "breaker: off\n")).await;
    a.misbehaves(Fault::ResetBeforeAnswer);
    assert_eq!(burdock.client().post("/pay", b"once").await.status, 502);
    let lines = burdock.access("/pay", 1).await;
    assert_eq!(
        (&lines[0]["instance"], &lines[0]["error"]),
        (&"a".into(), &"instance_reset".into())
    );
}

/// What a client didn't send to its end must never look whole, least of all after another try.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_its_client_breaks_off_is_never_completed() {
    let head = "PUT /file HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
    for end in ["leaves", "resets", "xyz\r\n"] {
        let a = Backend::start("a").await;
        let burdock = Burdock::start(&yaml(&[&a], "")).await;
        // The connection to the instance is a kept one, which is where a second try would happen.
        let mut conn = raw::open(burdock.address(), "GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        let answer = within("an answer", conn.head()).await.unwrap().unwrap();
        within("its body", conn.body(answer.response_framing("GET"))).await.unwrap();
        conn.write(head.as_bytes()).await.unwrap();
        a.request(2).await;
        match end {
            "leaves" => drop(conn),
            "resets" => conn.reset(),
            chunk => {
                conn.write(chunk.as_bytes()).await.unwrap();
                let answer = within("an answer", conn.read_to_end()).await;
                assert!(answer.starts_with(b"HTTP/1.1 400 "), "{end}");
            }
        }
        burdock.access("/file", 1).await;
        eventually("no connection at the instance", || (a.open() == 0).then_some(())).await;
        let puts: Vec<_> = a.requests().into_iter().filter(|r| r.head.method() == "PUT").collect();
        assert_eq!(puts.len(), 1, "{end}");
        assert!(puts[0].body.is_none(), "{end}: it was not read to its end");
    }
}

/// An instance that answers early and closes resets the connection on what is still coming.
#[tokio::test(flavor = "multi_thread")]
async fn an_early_answer_arrives_though_the_upload_breaks() {
    let (_a, _b, burdock) = pair("breaker: { failures: 3, open: 60s }\n").await;
    let body = pattern(3_000_000);
    for _ in 0..20 {
        let head = "POST /early/shut HTTP/1.1\r\nHost: x\r\nContent-Length: 3000000\r\n\r\n";
        let mut conn = raw::open(burdock.address(), head).await;
        // Broken off as soon as the answer is there.
        drop(conn.write(&body).await);
        let answer = within("an answer", conn.head()).await.unwrap().unwrap();
        assert_eq!(answer.status(), 413);
    }
    assert_eq!(burdock.metrics().await.sum("burdock_failures_total", &[]), 0.0);
    assert_eq!(burdock.client().get("/").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_says_that_it_left_the_body_unread() {
    let a = Backend::start("a").await;
    let burdock = Burdock::start(&yaml(&[&a], "breaker: off\n")).await;
    a.misbehaves(Fault::ResetOnHead);
    let head = "POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n";
    let answer = raw::exchange_text(burdock.address(), head).await;
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
    assert!(answer.to_ascii_lowercase().contains("connection: close\r\n"), "{answer}");
}
