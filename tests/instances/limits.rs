//! How much an instance may have in flight, and who waits for a place.

use tokio::task::JoinHandle;

use crate::support::ws::{self, WebSocket};
use crate::support::{self, Backend, Burdock, Client, Request, Response, eventually, within, yaml};

/// These instances, each with `limits` beside its address.
fn limited(instances: &[&Backend], limits: &str, rest: &str) -> String {
    let text = yaml(instances, rest);
    text.replace("- { name:", &format!("- {{ {limits}, name:"))
}

/// A request that waits at the gate of its instance, with this cookie.
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

async fn waiting(burdock: &Burdock, n: usize) {
    burdock.wait_metric("burdock_queue_length", &[], |v| v == n as f64).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_instance_ever_has_more_in_flight_than_it_may_and_nobody_is_refused() {
    let backends = Backend::several(&["a", "b"]).await;
    let instances: Vec<_> = backends.iter().collect();
    let burdock = Burdock::start(&limited(&instances, "max_requests: 3", "")).await;
    let requests: Vec<_> = (0..40).map(|_| gated(&burdock, None)).collect();
    waiting(&burdock, 34).await;
    for let_out in 0..20 {
        for backend in &backends {
            let came = backend.request_count();
            assert!(came <= let_out + 3, "{}: {came} came, {let_out} were let out", backend.name);
            backend.open_gate(1);
        }
        support::pause().await;
    }
    backends.iter().for_each(|backend| backend.open_gate(40));
    for request in requests {
        assert_eq!(within("an answer", request).await.unwrap().status, 200);
    }
    waiting(&burdock, 0).await;
    burdock.wait_metric("burdock_instance_requests_in_flight", &[], |v| v == 0.0).await;
    assert_eq!(burdock.metrics().await.sum("burdock_queued_total", &[]), 34.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_with_a_place_takes_what_a_full_one_cannot() {
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    let text = yaml(&[&a, &b], "").replace("name: a,", "name: a, max_requests: 1,");
    let burdock = Burdock::start(&text).await;
    let first = gated(&burdock, None);
    let second = gated(&burdock, None);
    eventually("one at each", || (a.request_count() + b.request_count() == 2).then_some(())).await;
    for _ in 0..10 {
        assert_eq!(burdock.client().get("/").await.instance(), "b");
    }
    a.open_gate(1);
    b.open_gate(1);
    let mut found =
        [first.await.unwrap(), second.await.unwrap()].map(|it| it.instance().to_owned());
    found.sort();
    assert_eq!(found, ["a", "b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bound_session_waits_for_its_instance_and_comes_before_those_that_are_not() {
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    let text = limited(&[&a, &b], "max_requests: 1", "session_affinity: true\n");
    let burdock = Burdock::start(&text).await;
    let mut session = burdock.session();
    while session.get("/").await.instance() != "a" {
        session = burdock.session();
    }
    let cookie = session.cookie_line();
    let busy = [gated(&burdock, None), gated(&burdock, None)];
    eventually("one at each", || (a.open() >= 1 && b.open() >= 1).then_some(())).await;
    burdock.wait_metric("burdock_instance_requests_in_flight", &[], |v| v == 2.0).await;
    let late = gated(&burdock, None);
    waiting(&burdock, 1).await;
    let bound = gated(&burdock, cookie);
    waiting(&burdock, 2).await;
    a.open_gate(2);
    let answer = within("the bound one", bound).await.unwrap();
    assert_eq!((answer.status, answer.instance()), (200, "a"), "it came last and goes first");
    a.open_gate(1);
    b.open_gate(2);
    for request in busy.into_iter().chain([late]) {
        assert_eq!(within("an answer", request).await.unwrap().status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_too_long_or_behind_too_many_is_told_to_come_back() {
    let a = Backend::start("a").await;
    let rest = "queue: { max: 1, timeout: 300ms }\n";
    let burdock = Burdock::start(&limited(&[&a], "max_requests: 1", rest)).await;
    let busy = gated(&burdock, None);
    a.request(1).await;
    let late = gated(&burdock, None);
    waiting(&burdock, 1).await;
    let refused = burdock.client().get("/").await;
    assert_eq!((refused.status, refused.text().as_str()), (503, "503 queue_full\n"));
    assert_eq!(refused.field("retry-after"), Some("1"));
    let late = within("its patience", late).await.unwrap();
    assert_eq!((late.status, late.text().as_str()), (503, "503 queue_timeout\n"));
    a.open_gate(1);
    assert_eq!(busy.await.unwrap().status, 200);
    assert_eq!(burdock.client().get("/").await.status, 200);
    for reason in ["queue_full", "queue_timeout"] {
        burdock.wait_metric("burdock_errors_total", &[("reason", reason)], |v| v == 1.0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_an_instance_that_fails_goes_elsewhere_at_once() {
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    let rest =
        format!("session_affinity: true\nqueue: {{ timeout: 1d }}\n{}", support::FAST_READINESS);
    let burdock = Burdock::start(&limited(&[&a, &b], "max_requests: 1", &rest)).await;
    burdock.wait_health("a", "ready").await;
    burdock.wait_health("b", "ready").await;
    let mut session = burdock.session();
    while session.get("/").await.instance() != "a" {
        session = burdock.session();
    }
    let cookie = session.cookie_line();
    let busy = gated(&burdock, cookie.clone());
    let of = [("instance", "a")];
    burdock.wait_metric("burdock_instance_requests_in_flight", &of, |v| v == 1.0).await;
    let bound = gated(&burdock, cookie);
    waiting(&burdock, 1).await;
    b.open_gate(1);
    a.ready(false);
    let moved = within("an answer", bound).await.unwrap();
    assert_eq!((moved.status, moved.instance()), (200, "b"));
    a.open_gate(1);
    assert_eq!(busy.await.unwrap().instance(), "a");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_the_queue_takes_no_place() {
    let a = Backend::start("a").await;
    let burdock = Burdock::start(&limited(&[&a], "max_requests: 1", "")).await;
    let busy = gated(&burdock, None);
    a.request(1).await;
    let leaves: Vec<_> = (0..5).map(|_| gated(&burdock, None)).collect();
    waiting(&burdock, 5).await;
    leaves.iter().for_each(JoinHandle::abort);
    waiting(&burdock, 0).await;
    let last = gated(&burdock, None);
    waiting(&burdock, 1).await;
    a.open_gate(2);
    assert_eq!(within("the last", last).await.unwrap().status, 200);
    assert_eq!(busy.await.unwrap().status, 200);
    burdock.wait_metric("burdock_instance_requests_in_flight", &[], |v| v == 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tunnels_have_a_limit_of_their_own_which_a_reload_may_lift() {
    let a = Backend::start("a").await;
    let rest = "queue: { max: 10, timeout: 200ms }\n";
    let burdock = Burdock::start(&limited(&[&a], "max_requests: 1, max_tunnels: 2", rest)).await;
    let first = WebSocket::open(burdock.address(), "/ws", "").await;
    let mut second = WebSocket::open(burdock.address(), "/ws", "").await;
    let (_conn, head) = ws::dial(burdock.address(), &ws::request("/ws", "")).await;
    assert_eq!(head.status(), 503);
    assert_eq!(burdock.client().get("/").await.status, 200, "a tunnel is no request");
    let address = burdock.address();
    let patient = limited(&[&a], "max_requests: 1, max_tunnels: 2", "queue: { timeout: 1d }\n");
    burdock.reload(&patient).await;
    let third = tokio::spawn(async move { WebSocket::open(address, "/ws", "").await });
    waiting(&burdock, 1).await;
    drop(first);
    let mut third = within("a place", third).await.unwrap();
    third.echo("in").await;
    second.echo("still").await;
    let fourth = tokio::spawn(async move { WebSocket::open(address, "/ws", "").await });
    waiting(&burdock, 1).await;
    burdock.reload(&limited(&[&a], "max_tunnels: 3", "queue: { timeout: 1d }\n")).await;
    let mut fourth = within("a place", fourth).await.unwrap();
    fourth.echo("in").await;
    assert_eq!(burdock.metrics().await.sum("burdock_instance_tunnels", &[]), 3.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_is_free_again_however_a_request_ends() {
    let a = Backend::start("a").await;
    let rest = "queue: { max: 100, timeout: 10s }\ntimeouts: { first_byte: 100ms }\nretry: off\n";
    let burdock = Burdock::start(&limited(&[&a], "max_requests: 2", rest)).await;
    for fault in [
        support::Fault::ResetBeforeAnswer,
        support::Fault::CloseBeforeAnswer,
        support::Fault::ResetMidAnswer(10),
        support::Fault::Gate,
        support::Fault::Status(500),
        support::Fault::Raw(b"nonsense\r\n\r\n".to_vec()),
    ] {
        a.misbehaves(fault);
        let address = burdock.address();
        let one = || async move { drop(Client::new(address).try_send(&Request::get("/")).await) };
        within("all of them", futures_util::future::join_all((0..12).map(|_| one()))).await;
    }
    a.misbehaves(support::Fault::None);
    a.open_gate(100);
    within("an answer", async {
        while burdock.client().get("/").await.status != 200 {
            support::pause().await;
        }
    })
    .await;
    burdock.wait_metric("burdock_instance_requests_in_flight", &[], |v| v == 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_version_makes_new_sessions_wait_rather_than_fill_what_drains() {
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    let text = limited(&[&a, &b], "max_requests: 1", "");
    let burdock = Burdock::start(&text.replace("name: b,", "name: b, state: draining,")).await;
    let busy = gated(&burdock, None);
    a.request(1).await;
    let late = gated(&burdock, None);
    waiting(&burdock, 1).await;
    a.open_gate(2);
    for request in [busy, late] {
        assert_eq!(within("an answer", request).await.unwrap().instance(), "a");
    }
    assert_eq!(b.request_count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_that_comes_by_a_reload_lets_in_who_waits_when_older_ones_leave() {
    let a = Backend::start("a").await;
    let burdock = Burdock::start(&yaml(&[&a], "")).await;
    let old = WebSocket::open(burdock.address(), "/ws", "").await;
    let patient = "queue: { timeout: 1d }\n";
    burdock.reload(&limited(&[&a], "max_tunnels: 1", patient)).await;
    let address = burdock.address();
    let new = tokio::spawn(async move { WebSocket::open(address, "/ws", "").await });
    waiting(&burdock, 1).await;
    drop(old);
    within("a place", new).await.unwrap().echo("in").await;
}
