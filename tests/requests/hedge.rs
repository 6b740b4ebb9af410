//! A second instance is asked where the first is slow: who is, who answers, what is left behind.

use tokio::task::JoinHandle;

use crate::support::{
    self, Backend, Burdock, Client, Fault, Request, Response, eventually, within, yaml,
};

const HEDGED: &str = "retry: { hedge_after: 100ms, budget_floor: 1000 }\n";

async fn pair(rest: &str) -> (Backend, Backend, Burdock) {
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    let burdock = Burdock::start(&yaml(&[&a, &b], rest)).await;
    (a, b, burdock)
}

fn send(burdock: &Burdock, request: Request) -> JoinHandle<Response> {
    let mut client = Client::new(burdock.address());
    tokio::spawn(async move { client.try_send(&request).await.expect("an answer") })
}

async fn answer(asked: JoinHandle<Response>) -> Response {
    within("an answer", asked).await.expect("a task that ends")
}

async fn nothing_is_left(burdock: &Burdock, backends: [&Backend; 2]) {
    burdock.wait_metric("burdock_instance_requests_in_flight", &[], |v| v == 0.0).await;
    // Behind the gate nobody notices that a connection was closed.
    backends.iter().for_each(|backend| backend.open_gate(100));
    let idle = |backend: &Backend| backend.open() <= 2;
    eventually("idle connections at most", || backends.iter().all(|b| idle(b)).then_some(())).await;
}

async fn hedges(burdock: &Burdock) -> (f64, f64) {
    let metrics = burdock.metrics().await;
    (metrics.sum("burdock_hedges_total", &[]), metrics.sum("burdock_hedges_won_total", &[]))
}

/// Which of the two was asked first, and the other, once both are.
async fn both_asked<'a>(a: &'a Backend, b: &'a Backend) -> (&'a Backend, &'a Backend) {
    let counts = || [a, b].map(|backend| backend.request_count() > 0);
    let first = eventually("the first", || counts().iter().position(|asked| *asked)).await;
    eventually("the second", || (counts() == [true; 2]).then_some(())).await;
    if first == 0 { (a, b) } else { (b, a) }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_other_instance_answers_for_a_slow_one() {
    let (a, b, burdock) = pair(HEDGED).await;
    a.misbehaves(Fault::Gate);
    for _ in 0..2 {
        let answer = answer(send(&burdock, Request::get("/slow"))).await;
        assert_eq!((answer.status, answer.instance()), (200, "b"));
    }
    assert_eq!((a.request_count(), b.request_count()), (1, 2));
    assert_eq!(hedges(&burdock).await, (1.0, 1.0));
    let lines = burdock.access("/slow", 2).await;
    let mut attempts: Vec<_> = lines.iter().map(|line| line["attempts"].as_u64()).collect();
    attempts.sort();
    assert_eq!(attempts, [Some(1), Some(2)]);
    assert!(lines.iter().all(|line| line["instance"] == "b" && line["error"].is_null()));
    let metrics = burdock.metrics().await;
    for counter in ["burdock_failures_total", "burdock_retries_total", "burdock_errors_total"] {
        assert_eq!(metrics.sum(counter, &[]), 0.0, "{counter}");
    }
    a.open_gate(1);
    eventually("the slow one's connection is closed", || (a.open() == 0).then_some(())).await;
    nothing_is_left(&burdock, [&a, &b]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_may_still_win() {
    let (a, b, burdock) = pair(HEDGED).await;
    a.misbehaves(Fault::Gate);
    b.misbehaves(Fault::Gate);
    let asked = send(&burdock, Request::get("/slow"));
    let (first, second) = both_asked(&a, &b).await;
    first.open_gate(1);
    assert_eq!(answer(asked).await.instance(), first.name);
    assert_eq!(hedges(&burdock).await, (1.0, 0.0));
    second.open_gate(1);
    eventually("the other's connection is closed", || (second.open() == 0).then_some(())).await;
    nothing_is_left(&burdock, [&a, &b]).await;
    assert_eq!((a.request_count(), b.request_count()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_session_is_bound_to_who_answered_and_a_bound_one_waits_for_its_own() {
    let (a, b, burdock) = pair(&format!("{HEDGED}session_affinity: true\n")).await;
    a.misbehaves(Fault::Gate);
    for _ in 0..2 {
        let mut session = burdock.session();
        for _ in 0..3 {
            assert_eq!(within("an answer", session.get("/")).await.instance(), "b");
        }
    }
    a.misbehaves(Fault::None);
    let mut session = burdock.session();
    while session.get("/").await.instance() != "a" {
        session = burdock.session();
    }
    a.misbehaves(Fault::Gate);
    let before = b.request_count();
    let bound = tokio::spawn(async move { session.get("/bound").await });
    eventually("it is at its instance", || {
        a.requests().iter().any(|request| request.head.target() == "/bound").then_some(())
    })
    .await;
    // Those that come later are asked of both meanwhile.
    for _ in 0..2 {
        assert_eq!(answer(send(&burdock, Request::get("/new"))).await.instance(), "b");
    }
    assert_eq!(b.request_count() - before, 2);
    assert!(!bound.is_finished());
    a.open_gate(10);
    assert_eq!(within("an answer", bound).await.unwrap().instance(), "a");
    nothing_is_left(&burdock, [&a, &b]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_reads_is_asked_twice() {
    let (a, b, burdock) = pair(HEDGED).await;
    a.misbehaves(Fault::Gate);
    b.misbehaves(Fault::Gate);
    let upgrade = Request::get("/ws")
        .with("Connection", "Upgrade")
        .with("Upgrade", "websocket")
        .with("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
        .with("Sec-WebSocket-Version", "13");
    let once = [
        Request::post("/once", b"x"),
        Request::new("PUT", "/once").body(b"x"),
        Request::new("DELETE", "/once"),
        Request::get("/once").body(b"x"),
        upgrade,
    ];
    let n = once.len();
    let asked: Vec<_> = once.into_iter().map(|request| send(&burdock, request)).collect();
    let count = || a.request_count() + b.request_count();
    eventually("each at an instance", || (count() == n).then_some(())).await;
    // One that comes later is asked of both meanwhile.
    let twice = send(&burdock, Request::get("/twice"));
    eventually("it is at both", || (count() == n + 2).then_some(())).await;
    a.open_gate(n + 1);
    b.open_gate(n + 1);
    answer(twice).await;
    asked.iter().for_each(JoinHandle::abort);
    assert_eq!(hedges(&burdock).await.0, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_budget_attempts_or_a_place_nobody_else_is_asked() {
    for (retry, limit) in [
        ("hedge_after: 50ms, budget: 0%, budget_floor: 0", ""),
        ("hedge_after: 50ms, attempts: 1", ""),
        ("hedge_after: 50ms", "max_requests: 1, "),
    ] {
        let (a, b) = (Backend::start("a").await, Backend::start("b").await);
        let rest = format!("retry: {{ {retry} }}\ntimeouts: {{ first_byte: 400ms }}\n");
        let text = yaml(&[&a, &b], &rest).replace("{ name: ", &format!("{{ {limit}name: "));
        let burdock = Burdock::start(&text).await;
        a.misbehaves(Fault::Gate);
        b.misbehaves(Fault::Gate);
        let asked = [0; 2].map(|_| send(&burdock, Request::get("/")));
        for asked in asked {
            assert_eq!(answer(asked).await.text(), "504 first_byte_timeout\n");
        }
        assert_eq!((a.request_count(), b.request_count()), (1, 1), "{retry} {limit}");
        assert_eq!(hedges(&burdock).await, (0.0, 0.0));
        nothing_is_left(&burdock, [&a, &b]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hedge_takes_a_place_and_gives_it_back() {
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    let text = yaml(&[&a, &b], HEDGED).replace("{ name: ", "{ max_requests: 1, name: ");
    let burdock = Burdock::start(&text).await;
    a.misbehaves(Fault::Gate);
    b.misbehaves(Fault::Gate);
    let asked = send(&burdock, Request::get("/"));
    let (first, second) = both_asked(&a, &b).await;
    // Both places are taken now; this one waits for either.
    let waiting = send(&burdock, Request::get("/waiting"));
    burdock.wait_metric("burdock_queue_length", &[], |v| v == 1.0).await;
    second.open_gate(1);
    assert_eq!(answer(asked).await.instance(), second.name);
    first.misbehaves(Fault::None);
    second.open_gate(10);
    first.open_gate(10);
    assert_eq!(answer(waiting).await.status, 200);
    nothing_is_left(&burdock, [&a, &b]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_that_comes_first_waits_for_what_the_other_says() {
    let (a, b, burdock) = pair(&format!("{HEDGED}timeouts: {{ first_byte: 2s }}\n")).await;
    a.misbehaves(Fault::Gate);
    b.misbehaves(Fault::Status(500));
    let asked = [0; 2].map(|_| send(&burdock, Request::get("/")));
    eventually("both at b", || (b.request_count() == 2).then_some(())).await;
    a.open_gate(1);
    let [one, two] = asked;
    let mut told = [answer(one).await, answer(two).await].map(|it| it.instance().to_owned());
    told.sort();
    assert_eq!(told, ["a", "b"], "one was b's from the beginning");
    // Where the first never answers, the error is better than none.
    for _ in 0..2 {
        let answer = answer(send(&burdock, Request::get("/never"))).await;
        assert_eq!((answer.status, answer.instance()), (500, "b"));
    }
    assert_eq!(hedges(&burdock).await, (2.0, 0.0));
    nothing_is_left(&burdock, [&a, &b]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_breaks_leaves_the_other_to_answer() {
    let (a, b, burdock) = pair(&format!("{HEDGED}breaker: off\n")).await;
    a.misbehaves(Fault::Gate);
    b.misbehaves(Fault::ResetBeforeAnswer);
    for _ in 0..4 {
        // Whoever is asked first, a is asked in the end, and it alone can answer.
        let n = a.request_count();
        let asked = send(&burdock, Request::get("/broken"));
        eventually("it is at a", || (a.request_count() > n).then_some(())).await;
        a.open_gate(1);
        let answer = answer(asked).await;
        assert_eq!((answer.status, answer.instance()), (200, "a"));
    }
    nothing_is_left(&burdock, [&a, &b]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_takes_both_along() {
    let (a, b, burdock) = pair(HEDGED).await;
    a.misbehaves(Fault::Gate);
    b.misbehaves(Fault::Gate);
    let conn = support::raw::open(burdock.address(), "GET /left HTTP/1.1\r\nHost: x\r\n\r\n").await;
    both_asked(&a, &b).await;
    drop(conn);
    let line = &burdock.access("/left", 1).await[0];
    assert_eq!((&line["error"], &line["attempts"]), (&"client_closed".into(), &2.into()));
    a.open_gate(1);
    b.open_gate(1);
    let open = || (a.open() + b.open() == 0).then_some(());
    eventually("no connection at either", open).await;
    nothing_is_left(&burdock, [&a, &b]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_one_is_left_to_the_other() {
    let retry = "retry: { hedge_after: 100ms, per_try_timeout: 300ms, attempts: 3 }\n";
    let backends = Backend::several(&["a", "b", "c"]).await;
    let instances: Vec<_> = backends.iter().collect();
    let burdock = Burdock::start(&yaml(&instances, &format!("breaker: off\n{retry}"))).await;
    backends[0].misbehaves(Fault::Gate);
    backends[1].misbehaves(Fault::Gate);
    for _ in 0..3 {
        assert_eq!(answer(send(&burdock, Request::get("/"))).await.instance(), "c");
    }
    burdock.wait_metric("burdock_instance_requests_in_flight", &[], |v| v == 0.0).await;
    backends.iter().for_each(|backend| backend.open_gate(10));
    let slow = || (backends[0].open() + backends[1].open() == 0).then_some(());
    eventually("no connection at the slow ones", slow).await;
}
