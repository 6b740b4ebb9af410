//! Passive ejection beyond failures in a row: a share of errors, a growing wait, a limit on how
//! many are out at once, and what is held against nobody.

use crate::support::{Backend, Burdock, Fault, Request, ws, yaml};

const UNCHECKED: &str = "retry: { budget: 100% }\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_share_of_5xx_answers_opens_it_where_one_is_asked_for() {
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    a.misbehaves(Fault::Status(503));
    let breaker = "breaker: { open: 1h, error_share: 50%, min_requests: 10, window: 1m }\n";
    let mut burdock = Burdock::start(&yaml(&[&a, &b], breaker)).await;
    let mut client = burdock.client();
    for _ in 0..20 {
        client.get("/").await;
    }
    let line = burdock.wait_log("breaker opened", |line| line["instance"] == "a").await;
    assert_eq!((&line["cause"], &line["open_s"]), (&"error_share".into(), &3600.0.into()));
    assert_eq!(a.request_count(), 10, "as many as min_requests says");
    for _ in 0..10 {
        assert_eq!(client.get("/").await.instance(), "b");
    }
    let labels = [("cause", "error_share")];
    burdock.wait_metric("burdock_breaker_opened_total", &labels, |value| value == 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_4xx_is_no_error_and_a_5xx_is_none_unless_asked() {
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    for (status, share) in [(404, "1%"), (500, "none")] {
        a.misbehaves(Fault::Status(status));
        let breaker =
            format!("breaker: {{ failures: 1, error_share: {share}, min_requests: 1 }}\n");
        let burdock = Burdock::start(&yaml(&[&a, &b], &breaker)).await;
        let mut client = burdock.client();
        let asked = a.request_count();
        for _ in 0..40 {
            client.get("/").await;
        }
        assert_eq!(a.request_count() - asked, 20, "{status}: its turns are its own");
        assert!(burdock.log("breaker opened").is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_upgrade_is_held_against_an_instance_only_if_it_refused_to_connect() {
    let a = Backend::start("a").await;
    let rest = "breaker: { failures: 2, error_share: 1%, min_requests: 1 }\n\
                timeouts: { first_byte: 50ms }\n";
    let mut burdock = Burdock::start(&yaml(&[&a], rest)).await;
    a.hangs(true);
    for _ in 0..4 {
        let (_conn, head) = ws::dial(burdock.address(), &ws::request("/ws", "")).await;
        assert_eq!(head.status(), 504);
    }
    a.hangs(false);
    a.drops_connections();
    assert_eq!(burdock.metrics().await.sum("burdock_failures_total", &[]), 4.0);
    assert!(burdock.log("breaker opened").is_empty(), "the application may want it so");
    a.dies().await;
    for _ in 0..2 {
        let (_conn, head) = ws::dial(burdock.address(), &ws::request("/ws", "")).await;
        assert_eq!(head.status(), 502);
    }
    burdock.wait_log("breaker opened", |_| true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_than_max_ejected_are_out_at_once() {
    let backends = Backend::several(&["a", "b", "c", "d"]).await;
    let breaker = "breaker: { failures: 2, open: 1h, max_ejected: 50% }\n";
    let rest = format!("{UNCHECKED}{breaker}");
    let mut burdock = Burdock::start(&yaml(&backends.iter().collect::<Vec<_>>(), &rest)).await;
    let mut client = burdock.client();
    for backend in &backends[..3] {
        backend.dies().await;
    }
    let held = "burdock_breaker_held_total";
    while burdock.metrics().await.sum(held, &[]) < 3.0 {
        assert_eq!(client.send(&Request::get("/")).await.status, 200);
    }
    let told = "breaker kept closed by max_ejected";
    burdock.wait_log(told, |_| true).await;
    assert_eq!(burdock.log("breaker opened").len(), 2);
    assert_eq!(burdock.log(told).len(), 1, "told once");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_time_that_a_trial_fails_the_wait_is_doubled() {
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    let breaker = "breaker: { failures: 1, open: 1s, max_open: 1m }\n";
    let mut burdock = Burdock::start(&yaml(&[&a, &b], breaker)).await;
    a.misbehaves(Fault::ResetBeforeAnswer);
    let mut client = burdock.client();
    while burdock.log("breaker opened").len() < 2 {
        assert_eq!(client.get("/").await.status, 200);
    }
    let line = burdock.wait_log("breaker opened", |line| line["cause"] == "trial").await;
    assert_eq!(line["open_s"], 2.0);
    assert_eq!(burdock.log("breaker opened")[0]["open_s"], 1.0);
}
