//! A limit on requests in flight that follows how long an instance's answers take.

use tokio::task::JoinHandle;

use crate::support::ws::WebSocket;
use crate::support::{
    self, Backend, Burdock, Client, Fault, Load, Request, Response, within, yaml,
};

/// What [`Backend`] works on at once.
const WORKERS: usize = 4;
const CLIENTS: usize = 60;
const LIMIT: &str = "burdock_instance_concurrency_limit";

/// More clients than `a` has workers, each of which asks again as soon as it is answered; the most
/// that `a` had at work among the last of many answers.
async fn flooded(a: &Backend, burdock: &Burdock) -> usize {
    let load = Load::start(burdock.address(), CLIENTS, 1_000_000, "/busy/10");
    load.passes(400).await;
    if burdock.metrics().await.sum(LIMIT, &[]) > 0.0 {
        burdock.wait_metric(LIMIT, &[], |limit| limit <= 16.0).await;
    }
    a.forget_work();
    load.passes(200).await;
    let most = a.most_at_work();
    assert_eq!(support::load::errors(&load.stop().await), Vec::<String>::new());
    most
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_has_no_more_at_work_than_it_can_do_and_the_rest_waits_outside() {
    let a = Backend::start("a").await;
    let burdock = Burdock::start(&yaml(&[&a], "")).await;
    let most = flooded(&a, &burdock).await;
    assert!(most > CLIENTS - 10, "without a limit: {most}");
    let burdock = Burdock::start(&yaml(&[&a], "concurrency: { min: 2 }\n")).await;
    let most = flooded(&a, &burdock).await;
    assert!((WORKERS..CLIENTS / 2).contains(&most), "{most}");
    assert!(burdock.metrics().await.sum("burdock_queued_total", &[]) > 100.0);
    burdock.reload(&yaml(&[&a], "")).await;
    burdock.wait_metric(LIMIT, &[], |limit| limit == 0.0).await;
}

/// A request that waits at the gate of its instance.
fn gated(burdock: &Burdock, cookie: Option<String>) -> JoinHandle<Response> {
    let address = burdock.address();
    tokio::spawn(async move {
        let request = Request::get("/gate");
        let request = match cookie {
            Some(cookie) => request.with("Cookie", &cookie),
            None => request,
        };
        Client::new(address).try_send(&request).await.expect("an answer")
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_the_limit_bound_sessions_wait_first_and_tunnels_do_not_count() {
    let a = Backend::start("a").await;
    let rest = "session_affinity: true\nqueue: { max: 2 }\n\
                concurrency: { initial: 1, min: 1, max: 1 }\n";
    let burdock = Burdock::start(&yaml(&[&a], rest)).await;
    let mut session = burdock.session();
    session.get("/").await;
    let busy = gated(&burdock, None);
    a.request(2).await;
    let mut tunnel = WebSocket::open(burdock.address(), "/ws", "").await;
    tunnel.echo("a tunnel is no request").await;
    let new = gated(&burdock, None);
    burdock.wait_metric("burdock_queue_length", &[], |waiting| waiting == 1.0).await;
    let bound = gated(&burdock, session.cookie_line());
    burdock.wait_metric("burdock_queue_length", &[], |waiting| waiting == 2.0).await;
    let refused = burdock.client().get("/").await;
    assert_eq!((refused.status, refused.text().as_str()), (503, "503 queue_full\n"));
    assert_eq!(refused.field("retry-after"), Some("1"));
    a.open_gate(2);
    for request in [busy, bound] {
        assert_eq!(within("an answer", request).await.unwrap().status, 200);
    }
    a.open_gate(1);
    assert_eq!(within("the last", new).await.unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_that_fail_and_answers_with_503_shrink_the_limit() {
    for (fault, path) in [(Fault::ResetBeforeAnswer, "/"), (Fault::None, "/status/503")] {
        let a = Backend::start("a").await;
        a.misbehaves(fault);
        let rest = "breaker: off\nretry: off\nconcurrency: { initial: 40 }\n";
        let burdock = Burdock::start(&yaml(&[&a], rest)).await;
        let load = Load::start(burdock.address(), 8, 1_000_000, path);
        burdock.wait_metric(LIMIT, &[], |limit| limit == 4.0).await;
        assert!(load.stop().await.iter().all(|seen| seen.instances.is_empty()));
    }
}
