//! What a version says of retries: after which failures and statuses, and how long a try may take.

use std::time::{Duration, Instant};

use crate::support::{
    self, Backend, Burdock, Client, Fault, Request, eventually, pattern, within, yaml,
};

/// Two instances without a breaker; the next new session goes to either, so that tests break both or
/// send enough to meet both.
async fn pair(retry: &str, rest: &str) -> (Backend, Backend, Burdock) {
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    let rest = format!("breaker: off\nretry: {{ {retry} }}\n{rest}");
    let burdock = Burdock::start(&yaml(&[&a, &b], &rest)).await;
    (a, b, burdock)
}

async fn nothing_in_flight(burdock: &Burdock) {
    burdock.wait_metric("burdock_instance_requests_in_flight", &[], |v| v == 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_tried_again_where_its_condition_is_named_and_nowhere_else() {
    let nonsense = Fault::Raw(b"nonsense\r\n\r\n".to_vec());
    for (fault, word, others, told) in [
        (Fault::ResetBeforeAnswer, "reset", "connect, unanswered, timeout", "instance_reset"),
        (nonsense, "invalid_response", "connect, reset, timeout", "invalid_response"),
        (Fault::Gate, "timeout", "connect, reset, invalid_response", "first_byte_timeout"),
    ] {
        for (on, is_tried) in [(word, true), (others, false)] {
            let rest = "timeouts: { first_byte: 300ms }\n";
            let (a, b, burdock) = pair(&format!("on: [{on}]"), rest).await;
            a.misbehaves(fault.clone());
            let mut errors = 0;
            for _ in 0..4 {
                let answer = burdock.client().get("/").await;
                let is_fine = (answer.status, answer.instance()) == (200, "b");
                assert!(is_fine || answer.text().contains(told), "{}", answer.text());
                errors += usize::from(!is_fine);
            }
            assert!(a.request_count() > 0 && b.request_count() > 0);
            assert_eq!(errors, if is_tried { 0 } else { a.request_count() }, "{fault:?} on {on}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_connect_is_an_error_where_it_is_not_named() {
    let (a, _b, burdock) = pair("on: [reset]", "").await;
    a.dies().await;
    let mut told = Vec::new();
    for _ in 0..4 {
        told.push(burdock.client().get("/").await.text());
    }
    told.sort();
    assert_eq!(told, ["502 connect_failed\n", "502 connect_failed\n", "b", "b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn unanswered_probes_move_no_request_where_that_is_not_named() {
    let checks = "readiness_check: { path: /readyz, check_interval: 50ms, timeout: 100ms, \
                  failure_threshold: 1, success_threshold: 1 }\n";
    let (a, b, burdock) = pair("on: [connect, reset]", checks).await;
    let (slow, other) = (&a, &b);
    other.ready(false);
    burdock.wait_health("b", "unready").await;
    let address = burdock.address();
    let asked = tokio::spawn(async move { Client::new(address).get("/gate").await });
    slow.request(1).await;
    other.ready(true);
    burdock.wait_health("b", "ready").await;
    slow.hangs_probes(true);
    burdock.wait_health("a", "unready").await;
    slow.open_gate(1);
    let answer = within("an answer", asked).await.unwrap();
    assert_eq!((answer.status, answer.instance(), other.request_count()), (200, "a", 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_have_acted_is_never_sent_again_whatever_is_named() {
    let all = "on: [connect, reset, unanswered, timeout, invalid_response], statuses: [400-599], \
               per_try_timeout: 50ms, hedge_after: 20ms";
    let nonsense = Fault::Raw(b"nonsense\r\n\r\n".to_vec());
    for (fault, status) in [
        (Fault::ResetBeforeAnswer, 502),
        (Fault::Gate, 504),
        (nonsense, 502),
        (Fault::Status(503), 503),
    ] {
        let (a, b, burdock) = pair(all, "timeouts: { first_byte: 300ms }\n").await;
        a.misbehaves(fault.clone());
        b.misbehaves(fault.clone());
        let answer = burdock.client().post("/pay", b"once").await;
        assert_eq!(answer.status, status, "{fault:?}");
        assert_eq!(a.request_count() + b.request_count(), 1, "{fault:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_with_a_listed_status_is_given_up_for_a_better_one() {
    let (a, b, burdock) = pair("statuses: [429, 502-504], budget_floor: 1000", "").await;
    a.misbehaves(Fault::Status(503));
    let body = pattern(20_000);
    for n in 0..20 {
        let put = Request::new("PUT", "/r").body(&body);
        let answer = match n % 2 {
            0 => burdock.client().get("/r").await,
            _ => burdock.client().send(&put).await,
        };
        assert_eq!((answer.status, answer.instance()), (200, "b"));
        let sent = b.last_request().body.map(|body| body.bytes).unwrap_or_default();
        assert_eq!(sent, if n % 2 == 0 { Vec::new() } else { body.clone() });
    }
    let retries = burdock.metrics().await.sum("burdock_retries_total", &[("reason", "status")]);
    assert!(retries > 0.0 && retries == a.request_count() as f64);
    assert!(a.connections() <= 4, "{} connections for answers without bodies", a.connections());
    nothing_in_flight(&burdock).await;
    a.misbehaves(Fault::Status(500));
    let statuses = [burdock.client().get("/").await, burdock.client().get("/").await];
    assert!(statuses.iter().any(|answer| answer.status == 500), "not listed");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_does_better_the_last_answer_is_passed_on() {
    let (a, b, burdock) = pair("statuses: [503]", "").await;
    for _ in 0..4 {
        let answer = burdock.client().get("/status/503").await;
        assert_eq!((answer.status, answer.text().as_str()), (503, "told"));
        assert!(["a", "b"].contains(&answer.instance()));
    }
    assert_eq!((a.request_count(), b.request_count()), (4, 4), "each asked both");
    let lines = burdock.access("/status/503", 4).await;
    assert!(lines.iter().all(|line| line["attempts"] == 2 && line["error"].is_null()), "{lines:?}");
    // What comes after it is no answer at all, and worse.
    b.misbehaves(Fault::ResetBeforeAnswer);
    for _ in 0..4 {
        let answer = burdock.client().get("/status/503").await;
        assert_eq!((answer.status, answer.text().as_str(), answer.instance()), (503, "told", "a"));
    }
    b.dies().await;
    for _ in 0..4 {
        let answer = burdock.client().get("/status/503").await;
        assert_eq!((answer.status, answer.text().as_str(), answer.instance()), (503, "told", "a"));
    }
    nothing_in_flight(&burdock).await;
}

/// Too large to be read to its end for the sake of its connection.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_answer_that_is_given_up_leaves_no_connection_behind() {
    let (a, _b, burdock) = pair("statuses: [503], budget_floor: 1000", "").await;
    let length = 1 << 20;
    let head = format!("HTTP/1.1 503 Told\r\nX-Instance: a\r\nContent-Length: {length}\r\n\r\n");
    a.misbehaves(Fault::Raw([head.as_bytes(), &vec![b'x'; length]].concat()));
    for _ in 0..6 {
        let answer = burdock.client().get("/").await;
        assert_eq!((answer.status, answer.instance()), (200, "b"));
    }
    assert!(a.request_count() > 0);
    eventually("no connection at the instance", || (a.open() == 0).then_some(())).await;
    nothing_in_flight(&burdock).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_moves_for_a_better_answer_and_stays_where_there_is_none() {
    let (a, b, burdock) = pair("statuses: [503]", "session_affinity: true\n").await;
    let mut session = burdock.session();
    let home = session.get("/").await.instance().to_owned();
    let (home, other) = if home == "a" { (&a, &b) } else { (&b, &a) };
    let answer = session.get("/status/503").await;
    assert_eq!((answer.status, answer.set_cookie("BURDOCK")), (503, None));
    assert_eq!(session.get("/").await.instance(), home.name);
    home.misbehaves(Fault::Status(503));
    let answer = session.get("/moved").await;
    assert_eq!((answer.status, answer.instance()), (200, other.name.as_str()));
    assert!(answer.set_cookie("BURDOCK").is_some());
    home.misbehaves(Fault::None);
    assert_eq!(session.get("/").await.instance(), other.name);
    let line = &burdock.access("/moved", 1).await[0];
    assert_eq!(
        (&line["affinity"], &line["affinity_reason"]),
        (&"rehomed".into(), &"status".into())
    );
    let line = &burdock.access("/status/503", 1).await[0];
    assert_eq!((&line["affinity"], &line["attempts"]), (&"kept".into(), &2.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strict_session_gets_the_answer_of_its_own_instance() {
    let rest = "session_affinity: true\naffinity: { strict: true }\n";
    let (a, b, burdock) = pair("statuses: [503], per_try_timeout: 50ms", rest).await;
    let mut session = burdock.session();
    let home = session.get("/").await.instance().to_owned();
    let (home, other) = if home == "a" { (&a, &b) } else { (&b, &a) };
    let answer = session.get("/status/503").await;
    assert_eq!((answer.status, answer.instance()), (503, home.name.as_str()));
    assert_eq!(other.request_count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_budget_the_first_answer_is_passed_on() {
    let (a, b, burdock) = pair("statuses: [503], budget: 10%, budget_floor: 0", "").await;
    for _ in 0..100 {
        assert_eq!(burdock.client().get("/status/503").await.status, 503);
    }
    let retries = burdock.metrics().await.sum("burdock_retries_total", &[]);
    assert!((1.0..=10.0).contains(&retries), "{retries} retries for 100 requests");
    assert_eq!((a.request_count() + b.request_count()) as f64, 100.0 + retries);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_instance_is_left_within_the_time_of_a_try() {
    let rest = "session_affinity: true\ntimeouts: { first_byte: 60s }\n";
    let (a, b, burdock) = pair("per_try_timeout: 200ms", rest).await;
    let mut session = burdock.session();
    let home = session.get("/").await.instance().to_owned();
    let (home, other) = if home == "a" { (&a, &b) } else { (&b, &a) };
    home.misbehaves(Fault::Gate);
    let began = Instant::now();
    let put = Request::new("PUT", "/slow").body(&pattern(20_000));
    let answer = within("an answer", session.send(&put)).await;
    assert_eq!((answer.status, answer.instance()), (200, other.name.as_str()));
    assert!(began.elapsed() >= Duration::from_millis(200));
    assert_eq!(other.last_request().body.unwrap().bytes, pattern(20_000));
    let line = &burdock.access("/slow", 1).await[0];
    assert_eq!(
        (&line["affinity"], &line["affinity_reason"], &line["attempts"]),
        (&"rehomed".into(), &"no_answer".into(), &2.into())
    );
    let metrics = burdock.metrics().await;
    assert_eq!(metrics.sum("burdock_retries_total", &[("reason", "no_answer")]), 1.0);
    assert_eq!(metrics.sum("burdock_failures_total", &[]), 1.0);
    home.open_gate(1);
    eventually("no connection at the slow one", || (home.open() == 0).then_some(())).await;
    nothing_in_flight(&burdock).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn late_first_bytes_open_the_breaker() {
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    let rest = "breaker: { failures: 2, open: 60s }\nretry: { per_try_timeout: 100ms }\n";
    let burdock = Burdock::start(&yaml(&[&a, &b], rest)).await;
    a.misbehaves(Fault::Gate);
    for _ in 0..10 {
        assert_eq!(burdock.client().get("/").await.instance(), "b");
    }
    assert_eq!(a.request_count(), 2);
    assert_eq!(burdock.metrics().await.sum("burdock_breaker_opened_total", &[]), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_instance_has_all_the_time_of_a_first_byte() {
    let (a, b, burdock) =
        pair("per_try_timeout: 100ms, attempts: 5", "timeouts: { first_byte: 700ms }\n").await;
    a.misbehaves(Fault::Gate);
    b.misbehaves(Fault::Gate);
    let began = Instant::now();
    let answer = burdock.client().get("/").await;
    assert_eq!(answer.text(), "504 first_byte_timeout\n");
    assert!(began.elapsed() >= Duration::from_millis(800), "{:?}", began.elapsed());
    assert_eq!((a.request_count(), b.request_count()), (1, 1));
    // A request that can't be sent again is not cut short either.
    let began = Instant::now();
    assert_eq!(burdock.client().post("/", b"once").await.status, 504);
    assert!(began.elapsed() >= Duration::from_millis(700), "{:?}", began.elapsed());
    assert_eq!(a.request_count() + b.request_count(), 3);
}

/// A socket that listens and answers nobody, with as many waiting as it takes.
async fn full() -> (tokio::net::TcpListener, Vec<tokio::net::TcpStream>) {
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.bind(([127, 0, 0, 1], 0).into()).expect("a port");
    let listener = socket.listen(1).expect("a listener");
    let mut waiting = Vec::new();
    loop {
        let connect = tokio::net::TcpStream::connect(listener.local_addr().expect("its address"));
        match tokio::time::timeout(Duration::from_millis(100), connect).await {
            Ok(stream) => waiting.push(stream.expect("a connection")),
            Err(_full) => return (listener, waiting),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_does_not_open_is_left_within_the_time_of_a_try() {
    let (listener, _waiting) = full().await;
    let b = Backend::start("b").await;
    let full = listener.local_addr().unwrap();
    let config = format!(
        "{}breaker: off\ntimeouts: {{ connect: 60s }}\nretry: {{ per_try_timeout: 200ms }}\n\
         instances:\n  - {{ name: full, address: {full} }}\n  - {{ name: b, address: {} }}\n",
        support::HEADER,
        b.address
    );
    let burdock = Burdock::start(&config).await;
    for _ in 0..2 {
        let answer = within("an answer", burdock.client().post("/pay", b"once")).await;
        assert_eq!((answer.status, answer.instance()), (200, "b"));
        assert_eq!(within("an answer", burdock.client().get("/")).await.instance(), "b");
    }
    assert_eq!(b.request_count(), 4);
    nothing_in_flight(&burdock).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_is_opened_where_its_instance_answers_in_time() {
    let (a, _b, burdock) = pair("per_try_timeout: 200ms, statuses: [503]", "").await;
    for fault in [Fault::Gate, Fault::Status(503)] {
        a.misbehaves(fault);
        for _ in 0..2 {
            let mut socket = support::ws::WebSocket::open(burdock.address(), "/ws", "").await;
            assert_eq!(socket.instance(), "b");
            socket.echo("here").await;
        }
    }
}
