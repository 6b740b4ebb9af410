//! A kept connection that rests is put aside. Nobody can tell by what it answers; what it takes of
//! memory tells.

mod support;

use support::{Backend, Burdock, eventually, raw, within, yaml};

const RESTING: &str = "burdock_client_connections_resting";
const GET: &str = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";

async fn one(rest: &str) -> (Backend, Burdock) {
    let a = Backend::start("a").await;
    let burdock = Burdock::start(&yaml(&[&a], rest)).await;
    (a, burdock)
}

async fn answer(conn: &mut support::wire::Conn) -> u16 {
    let head = within("an answer", conn.head()).await.expect("a whole head").expect("an answer");
    within("its body", conn.body(head.response_framing("GET"))).await.expect("its body");
    head.status()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rest_ends_with_the_next_request() {
    let (a, burdock) = one("session_affinity: true\n").await;
    let mut conn = raw::open(burdock.address(), GET).await;
    for n in 1..=3 {
        assert_eq!(answer(&mut conn).await, 200);
        burdock.wait_metric(RESTING, &[], |resting| resting == 1.0).await;
        assert_eq!(a.request_count(), n);
        conn.write(GET.as_bytes()).await.unwrap();
    }
    assert_eq!(answer(&mut conn).await, 200);
    assert_eq!(burdock.metrics().await.sum("burdock_client_connections_total", &[]), 1.0);
    drop(conn);
    burdock.wait_metric(RESTING, &[], |resting| resting == 0.0).await;
    burdock.wait_metric("burdock_client_connections", &[], |open| open == 0.0).await;
}

/// It was read along with what came before, and would be lost with that.
#[tokio::test(flavor = "multi_thread")]
async fn the_beginning_of_the_next_head_is_no_rest() {
    let (_a, burdock) = one("timeouts: { header_read: 600ms, keep_alive: 60s }\n").await;
    let mut conn = raw::open(burdock.address(), format!("{GET}GET /next HTTP/1.1\r\nHo")).await;
    assert_eq!(answer(&mut conn).await, 200);
    let mut other = raw::open(burdock.address(), GET).await;
    assert_eq!(answer(&mut other).await, 200);
    burdock.wait_metric(RESTING, &[], |resting| resting == 1.0).await;
    conn.write(b"st: x\r\n\r\n").await.unwrap();
    assert_eq!(answer(&mut conn).await, 200);
    assert_eq!(burdock.access("/next", 1).await[0]["status"], 200);

    let mut conn = raw::open(burdock.address(), format!("{GET}GET /late HTTP/1.1\r\nHo")).await;
    assert_eq!(answer(&mut conn).await, 200);
    assert_eq!(answer(&mut conn).await, 408, "it has the time of a head, not of a rest");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rest_is_as_long_as_the_configuration_says() {
    let (a, burdock) = one("timeouts: { keep_alive: 400ms }\n").await;
    let mut conn = raw::open(burdock.address(), GET).await;
    assert_eq!(answer(&mut conn).await, 200);
    burdock.wait_metric(RESTING, &[], |resting| resting == 1.0).await;
    assert!(within("the limit", conn.closed_without_a_byte()).await);
    let reason = [("reason", "keep_alive_timeout")];
    burdock.wait_metric("burdock_errors_total", &reason, |count| count == 1.0).await;
    drop(a);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_ends_a_rest() {
    let (_a, mut burdock) = one("timeouts: { keep_alive: 10m }\n").await;
    let mut conn = raw::open(burdock.address(), GET).await;
    assert_eq!(answer(&mut conn).await, 200);
    burdock.wait_metric(RESTING, &[], |resting| resting == 1.0).await;
    burdock.signal(libc::SIGTERM);
    assert!(within("the end", conn.closed_without_a_byte()).await);
    assert_eq!(burdock.exit_code().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rest_takes_next_to_no_memory() {
    const BATCH: usize = 50;
    let (_a, burdock) = one("timeouts: { keep_alive: 10m }\n").await;
    let mut all = Vec::new();
    let mut resting = 0.0;
    let mut rest = async |batches: usize, all: &mut Vec<_>| {
        for _ in 0..batches {
            for _ in 0..BATCH {
                let mut conn = raw::open(burdock.address(), GET).await;
                assert_eq!(answer(&mut conn).await, 200);
                all.push(conn);
            }
            // Those that come together take the memory of all of them first.
            resting += BATCH as f64;
            burdock.wait_metric(RESTING, &[], |now| now == resting).await;
        }
        burdock.resident_heap()
    };
    let before = rest(2, &mut all).await;
    let after = rest(16, &mut all).await;
    let each = after.saturating_sub(before) / (16 * BATCH as u64);
    println!("{each} bytes for each that rests");
    assert!(each <= 4096, "{each} bytes for each that rests");
}

/// While they are all there each has a conversation and a way to its instance: most of what those leave
/// behind goes back to the system. Nothing is asked of the balancer meanwhile, since that makes
/// memory go back too.
#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_that_has_come_to_rest_takes_little_memory() {
    const CROWD: usize = 1500;
    let (a, burdock) = one("timeouts: { keep_alive: 10m }\n").await;
    a.closes_after_each(true);
    let mut first = raw::open(burdock.address(), GET).await;
    assert_eq!(answer(&mut first).await, 200);
    burdock.wait_metric(RESTING, &[], |now| now == 1.0).await;
    let before = burdock.resident_heap();
    let mut crowd = Vec::new();
    for _ in 0..CROWD {
        crowd.push(raw::open(burdock.address(), "GET /gate HTTP/1.1\r\nHost: x\r\n\r\n").await);
    }
    eventually("all of them wait", || (a.request_count() > CROWD).then_some(())).await;
    let each = || burdock.resident_heap().saturating_sub(before) / CROWD as u64;
    println!("{} bytes for each while all wait", each());
    a.open_gate(CROWD);
    for conn in &mut crowd {
        assert_eq!(answer(conn).await, 200);
    }
    println!("{} bytes for each when all are answered", each());
    let left = eventually("the memory goes back", || Some(each()).filter(|each| *each <= 8192));
    println!("{} bytes for each that rests", left.await);
    burdock.wait_metric(RESTING, &[], |now| now == (CROWD + 1) as f64).await;
}
