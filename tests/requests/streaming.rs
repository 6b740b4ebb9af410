//! Bodies stream: a slow peer holds the other side back, and memory does not grow with a body.

use crate::support::wire::Conn;
use crate::support::{self, Backend, Burdock, pattern, raw, within, yaml};

const SIZE: usize = 256 << 20;

/// More than one connection's buffers, far less than a body. The promise is 1 MiB for an optimised
/// binary; an unoptimised one also touches its own code pages on the way.
const GROWTH: u64 = 8 << 20;

/// A running pair whose code paths have been touched once, and its resident memory.
async fn warm() -> (Backend, Burdock, u64) {
    let a = Backend::start("a").await;
    let burdock = Burdock::start(&yaml(&[&a], "")).await;
    let mut client = burdock.client();
    client.get("/zeros/4000000").await;
    client.post("/echo", &[0; 2_000_000]).await;
    let resident = burdock.resident();
    (a, burdock, resident)
}

/// Reads `size` bytes, resting between reads at first, and returns the largest memory seen.
async fn read_slowly(conn: &mut Conn, burdock: &Burdock, size: usize) -> u64 {
    let (mut left, mut reads, mut most) = (size, 0, 0);
    while left > 0 {
        if reads < 50 {
            support::pause().await;
        }
        if conn.buffer.is_empty() {
            let filled = within("a part", conn.fill()).await.expect("a readable connection");
            assert!(filled > 0, "{left} bytes are missing");
        }
        left -= left.min(conn.buffer.len());
        conn.buffer.clear();
        if reads % 64 == 0 {
            most = most.max(burdock.resident());
        }
        reads += 1;
    }
    most
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_to_a_slow_client_takes_no_memory() {
    let (_a, burdock, before) = warm().await;
    let request = format!("GET /zeros/{SIZE} HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut conn = raw::open(burdock.address(), request).await;
    let head = within("the head", conn.head()).await.unwrap().unwrap();
    assert_eq!(head.field("content-length"), Some(SIZE.to_string().as_str()));
    let most = read_slowly(&mut conn, &burdock, SIZE).await;
    assert!(most < before + GROWTH, "{before} grew to {most}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_to_a_slow_instance_takes_no_memory() {
    let (a, burdock, before) = warm().await;
    let head = format!("POST /count HTTP/1.1\r\nHost: x\r\nContent-Length: {SIZE}\r\n\r\n");
    let mut conn = raw::open(burdock.address(), head).await;
    let block = vec![0; 64 * 1024];
    let mut most = 0;
    for n in 0..SIZE / block.len() {
        within("room to write", conn.write(&block)).await.unwrap();
        if n % 64 == 0 {
            most = most.max(burdock.resident());
        }
    }
    let answer = within("an answer", conn.head()).await.unwrap().unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(a.last_request().body.unwrap().size, SIZE as u64);
    assert!(most < before + GROWTH, "{before} grew to {most}");
}

/// Writes until nothing moves any more and returns how much went.
async fn write_until_stuck(conn: &mut Conn) -> usize {
    let block = vec![0; 64 * 1024];
    let (mut sent, mut rests) = (0, 0);
    while rests < 100 && sent < SIZE {
        match conn.stream.try_write(&block) {
            Ok(n) => (sent, rests) = (sent + n, 0),
            Err(_) => {
                rests += 1;
                support::pause().await;
            }
        }
    }
    sent
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_does_not_read_holds_the_client_back() {
    let (a, burdock, before) = warm().await;
    // It reads the head and then waits to be thawed before it reads on.
    let head = format!("POST /gated HTTP/1.1\r\nHost: x\r\nContent-Length: {SIZE}\r\n\r\n");
    let served = a.request_count();
    a.misbehaves(support::Fault::Gate);
    let mut conn = raw::open(burdock.address(), head).await;
    conn.write(&[0; 100_000]).await.unwrap();
    a.request(served + 1).await;
    let sent = write_until_stuck(&mut conn).await;
    // Two hops of kernel buffers fit in, the rest stays with the client.
    assert!(sent < 64 << 20, "{sent} bytes were taken without a reader");
    assert!(burdock.resident() < before + GROWTH);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_holds_the_instance_back() {
    let (_a, burdock, before) = warm().await;
    let request = format!("GET /zeros/{SIZE} HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut conn = raw::open(burdock.address(), request).await;
    within("the head", conn.head()).await.unwrap().unwrap();
    let mut most = 0;
    for _ in 0..100 {
        support::pause().await;
        most = most.max(burdock.resident());
    }
    assert!(most < before + GROWTH, "{before} grew to {most}");
    conn.reset();
    burdock.wait_metric("burdock_instance_requests_in_flight", &[], |v| v == 0.0).await;
}

/// `timeouts.first_byte` is the instance's, not the client's.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_pauses_in_its_upload_costs_the_instance_nothing() {
    let a = Backend::start("a").await;
    let rest = "timeouts: { first_byte: 200ms, idle: 10s }\nbreaker: { failures: 1, open: 60s }\n";
    let burdock = Burdock::start(&yaml(&[&a], rest)).await;
    let head = "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nab";
    let mut conn = raw::open(burdock.address(), head).await;
    support::eventually("the head at the instance", || (a.request_count() == 1).then_some(()))
        .await;
    let pause = std::time::Instant::now() + std::time::Duration::from_millis(700);
    let over = || (std::time::Instant::now() > pause).then_some(());
    support::eventually("longer than the instance may take", over).await;
    conn.write(b"cd").await.unwrap();
    let answer = within("an answer", conn.head()).await.unwrap().unwrap();
    assert_eq!(answer.status(), 200);
    let metrics = burdock.metrics().await;
    assert_eq!(metrics.sum("burdock_failures_total", &[]), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_stalls_in_its_upload_is_told_so() {
    let a = Backend::start("a").await;
    let rest =
        "timeouts: { first_byte: 100ms, idle: 400ms }\nbreaker: { failures: 1, open: 60s }\n";
    let burdock = Burdock::start(&yaml(&[&a], rest)).await;
    let head = "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nab";
    let answer = raw::exchange_text(burdock.address(), head).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.ends_with("408 request_idle_timeout\n"), "{answer}");
    assert_eq!(burdock.client().get("/").await.status, 200, "the instance is not to blame");
}

/// The rest of an upload behind an early answer is no late head of another request.
#[tokio::test(flavor = "multi_thread")]
async fn an_upload_may_outlast_its_answer() {
    let a = Backend::start("a").await;
    let rest = "timeouts: { header_read: 200ms, keep_alive: 10s }\n";
    let burdock = Burdock::start(&yaml(&[&a], rest)).await;
    let body = pattern(5000);
    let head = "POST /early/on HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n";
    let mut conn = raw::open(burdock.address(), head).await;
    let answer = within("an answer", conn.head()).await.unwrap().unwrap();
    within("its body", conn.body(answer.response_framing("POST"))).await.unwrap();
    let began = std::time::Instant::now();
    for part in body.chunks(50) {
        conn.write(part).await.unwrap();
        support::pause().await;
    }
    assert!(began.elapsed() > std::time::Duration::from_millis(400), "longer than a head may take");
    assert!(a.body(1).await.bytes == body, "all of it arrived, and nothing else");
    conn.write(b"GET /next HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    assert_eq!(within("the next answer", conn.head()).await.unwrap().unwrap().status(), 200);
}

/// Also where nothing follows: the instance has said what it has to say, and may want the rest.
#[tokio::test(flavor = "multi_thread")]
async fn an_upload_may_outlast_the_last_answer() {
    let a = Backend::start("a").await;
    let burdock = Burdock::start(&yaml(&[&a], "")).await;
    let body = pattern(5000);
    for (n, head) in [
        "POST /early/on HTTP/1.1\r\nHost: x\r\nConnection: close\r\n",
        "POST /early/on HTTP/1.0\r\nHost: x\r\n",
    ]
    .into_iter()
    .enumerate()
    {
        let head = format!("{head}Content-Length: 5000\r\n\r\n");
        let mut conn = raw::open(burdock.address(), head).await;
        let answer = within("an answer", conn.head()).await.unwrap().unwrap();
        assert_eq!(answer.field("connection"), Some("close"));
        within("its body", conn.body(answer.response_framing("POST"))).await.unwrap();
        for part in body.chunks(500) {
            conn.write(part).await.unwrap();
            support::pause().await;
        }
        assert!(a.body(n + 1).await.bytes == body, "all of it arrived");
        assert!(within("the end", conn.closed_without_a_byte()).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_may_send_all_before_it_reads_any() {
    let a = Backend::start("a").await;
    let burdock = Burdock::start(&yaml(&[&a], "")).await;
    let size = 24 << 20;
    let head = format!("POST /early/{size} HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n");
    let mut conn = raw::open(burdock.address(), head).await;
    within("all of it sent", conn.write(&vec![0; size])).await.unwrap();
    let answer = within("an answer", conn.head()).await.unwrap().unwrap();
    let body = within("its body", conn.body(answer.response_framing("POST"))).await.unwrap();
    assert_eq!(body.size, size as u64);
}

/// An instance that is silent because it takes in a body is not idle.
#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_flows_keeps_its_open_answer_alive() {
    let a = Backend::start("a").await;
    let burdock = Burdock::start(&yaml(&[&a], "timeouts: { idle: 300ms }\n")).await;
    let head = "POST /early/byte HTTP/1.1\r\nHost: x\r\nContent-Length: 200\r\n\r\n";
    let mut conn = raw::open(burdock.address(), head).await;
    let began = std::time::Instant::now();
    for _ in 0..200 {
        conn.write(b"x").await.unwrap();
        support::pause().await;
    }
    assert!(began.elapsed() > std::time::Duration::from_millis(600), "twice the limit");
    let answer = within("an answer", conn.head()).await.unwrap().unwrap();
    let body = within("its body", conn.body(answer.response_framing("POST"))).await.unwrap();
    assert_eq!(body.bytes, b"12");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_nobody_takes_ends_though_it_was_answered() {
    let a = Backend::start("a").await;
    let burdock = Burdock::start(&yaml(&[&a], "timeouts: { idle: 400ms }\n")).await;
    let head = format!("POST /early/deaf HTTP/1.1\r\nHost: x\r\nContent-Length: {SIZE}\r\n\r\n");
    let mut conn = raw::open(burdock.address(), head).await;
    let answer = within("an answer", conn.head()).await.unwrap().unwrap();
    assert_eq!(answer.status(), 413);
    write_until_stuck(&mut conn).await;
    drop(conn);
    burdock.wait_metric("burdock_client_connections", &[], |open| open == 0.0).await;
}

/// RFC 9112 section 9.6: whoever may go on sending is listened to for a while, so that no reset takes his
/// answer away; whoever has said that he won't is not waited for.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_will_send_nothing_more_is_not_waited_for() {
    let a = Backend::start("a").await;
    let burdock = Burdock::start(&yaml(&[&a], "")).await;
    let more = vec![b'x'; 8 << 20];
    for (request, waits) in [
        ("GET /sized/7 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", false),
        ("GET /sized/7 HTTP/1.0\r\nHost: x\r\n\r\n", false),
        // Some have sent an empty line behind it.
        ("POST /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx", true),
        ("GET /sized/7 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n\r\n", true),
    ] {
        let mut conn = raw::open(burdock.address(), request).await;
        let answer = within("an answer", conn.head()).await.unwrap().unwrap();
        assert_eq!((answer.status(), answer.field("connection")), (200, Some("close")));
        let framing = answer.response_framing("GET");
        assert!(within("its body", conn.body(framing)).await.unwrap().size > 0);
        assert!(within("the end", conn.closed_without_a_byte()).await);
        // More than all buffers hold is taken only by somebody who reads it.
        let taken = within("a fate for what is sent then", conn.write(&more)).await;
        assert_eq!(taken.is_ok(), waits, "{request:?}: {taken:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_told_that_its_connection_ends_where_nobody_takes_its_body() {
    let a = Backend::start("a").await;
    let services = format!(
        "services: {{ s: {{ hosts: [here.test], versions: {{ v1: {{ instances: [{}] }} }},\n\
         routes: [{{ paths: [/moved], redirect: {{ to: /new }} }}] }} }}\n",
        a.address
    );
    let burdock = Burdock::start(&format!("{}{services}", support::HEADER)).await;
    let (length, chunked) = ("Content-Length: 5\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n");
    let cases = [
        (format!("{length}12"), Some("close")),
        (format!("{chunked}5\r\n12345\r\n"), Some("close")),
        // What has come is left out, and the next request is behind it.
        (format!("{length}12345"), None),
        (format!("{chunked}5\r\n12345\r\n0\r\n\r\n"), None),
    ];
    let targets = [("/", "there.test", 404), ("/moved", "here.test", 308)];
    for (target, (rest, connection)) in
        targets.iter().flat_map(|to| cases.iter().map(move |it| (to, it)))
    {
        let (path, host, status) = target;
        let request = format!("POST {path} HTTP/1.1\r\nHost: {host}\r\n{rest}");
        let mut conn = raw::open(burdock.address(), &request).await;
        let answer = within("an answer", conn.head()).await.unwrap().unwrap();
        assert_eq!(
            (answer.status(), answer.field("connection")),
            (*status, *connection),
            "{request}"
        );
        within("its body", conn.body(answer.response_framing("POST"))).await.unwrap();
        if connection.is_some() {
            assert!(within("the end", conn.closed_without_a_byte()).await);
            continue;
        }
        conn.write(b"GET /next HTTP/1.1\r\nHost: here.test\r\n\r\n").await.unwrap();
        assert_eq!(within("an answer", conn.head()).await.unwrap().unwrap().status(), 200);
    }
}
