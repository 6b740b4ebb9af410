//! Failover under a steady load: whatever happens to one instance, idempotent requests end well,
//! the sessions of that instance move once, and no other session moves at all.

use crate::support::load::{Seen, errors};
use crate::support::{
    self, Backend, Burdock, FAST_CHECKS, FAST_READINESS, Fault, Load, Request, yaml,
};

const SESSIONS: usize = 40;
const RATE: usize = 200;

/// A version with affinity, an unlimited retry budget and patient timeouts: what moves a request
/// is the fault, never a timer of its own.
fn sticky(backends: &[&Backend], checks: &str) -> String {
    let rest = "session_affinity: true\ntimeouts: { connect: 1s, first_byte: 60s, idle: 60s }\n\
                retry: { attempts: 3, budget: 100%, budget_floor: 1000 }\n";
    yaml(backends, &format!("{rest}{checks}"))
}

/// Nobody saw an error, sessions of `failed` are elsewhere after one move, the others never moved.
fn assert_clean_move(before: &[Seen], after: &[Seen], failed: &str) {
    assert_eq!(errors(after), Vec::<String>::new());
    for (before, after) in before.iter().zip(after) {
        if before.last() == failed {
            assert_ne!(after.last(), failed, "it has left");
            assert_eq!(after.moves(), 1, "{:?}", after.instances);
        } else {
            assert_eq!(after.moves(), 0, "a needless move: {:?}", after.instances);
        }
        assert_eq!(after.reconnects, 0, "a client's connection is not cut");
    }
    assert!(before.iter().any(|seen| seen.last() == failed), "the instance had sessions");
}

/// Runs a load, breaks `b`, lets its sessions leave, mends it, and looks again.
async fn move_and_return(
    checks: &str,
    reason: &[&str],
    breaks: impl AsyncFn(&Backend),
    mends: impl AsyncFn(&Backend),
) {
    let backends = Backend::several(&["a", "b", "c"]).await;
    let burdock = Burdock::start(&sticky(&backends.iter().collect::<Vec<_>>(), checks)).await;
    if checks.contains("readiness_check") {
        for backend in &backends {
            burdock.wait_health(&backend.name, "ready").await;
        }
    }
    let load = Load::start(burdock.address(), SESSIONS, RATE, "/");
    load.settles().await;
    load.passes(RATE / 4).await;
    let before = load.so_far();
    breaks(&backends[1]).await;
    load.leaves("b").await;
    load.passes(RATE / 2).await;
    let moved = load.so_far();
    assert_clean_move(&before, &moved, "b");
    mends(&backends[1]).await;
    if checks.contains("readiness_check") {
        burdock.wait_health("b", "ready").await;
    }
    load.passes(RATE).await;
    let after = load.stop().await;
    assert_clean_move(&before, &after, "b");
    let metrics = burdock.metrics().await;
    let rehomes: f64 =
        reason.iter().map(|r| metrics.sum("burdock_rehomes_total", &[("reason", r)])).sum();
    let left = before.iter().filter(|seen| seen.last() == "b").count();
    assert_eq!(rehomes, left as f64, "each session that left is counted by its reason");
    // A newcomer is welcome on the mended instance.
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.push(burdock.client().get("/").await.instance().to_owned());
    }
    seen.sort();
    assert_eq!(seen, ["a", "b", "c"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_instance_costs_nothing_without_any_check() {
    let reasons = ["connect_failed", "reset", "no_answer"];
    let unchecked = "breaker: off\n";
    move_and_return(unchecked, &reasons, async |b| b.dies().await, async |b| b.comes_back()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_instance_costs_nothing_with_checks() {
    let reasons = ["connect_failed", "reset", "no_answer", "unready", "dead", "breaker_open"];
    move_and_return(FAST_CHECKS, &reasons, async |b| b.dies().await, async |b| b.comes_back())
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_port_costs_nothing() {
    let reasons = ["connect_failed", "reset", "no_answer", "unready", "breaker_open"];
    let refuses = async |b: &Backend| {
        b.stops_listening().await;
        b.drops_connections();
    };
    move_and_return(FAST_READINESS, &reasons, refuses, async |b| b.comes_back()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_hangs_loses_its_requests_to_others_as_soon_as_probes_go_unanswered() {
    // first_byte is a minute: only the probes can have moved what was caught inside.
    let reasons = ["unready", "no_answer"];
    move_and_return(FAST_READINESS, &reasons, async |b| b.hangs(true), async |b| b.hangs(false))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_says_not_ready_is_left_without_a_cut() {
    move_and_return(
        FAST_READINESS,
        &["unready"],
        async |b| b.ready(false),
        async |b| b.ready(true),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_fails_liveness_is_left() {
    move_and_return(FAST_CHECKS, &["dead"], async |b| b.alive(false), async |b| b.alive(true))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn resets_before_a_byte_cost_nothing_and_open_the_breaker() {
    let backends = Backend::several(&["a", "b", "c"]).await;
    let breaker = "breaker: { failures: 3, open: 200ms, trials: 1 }\n";
    let config = sticky(&backends.iter().collect::<Vec<_>>(), breaker);
    let mut burdock = Burdock::start(&config).await;
    let load = Load::start(burdock.address(), SESSIONS, RATE, "/");
    load.settles().await;
    let before = load.so_far();
    backends[1].misbehaves(Fault::ResetBeforeAnswer);
    burdock.wait_log("breaker opened", |line| line["instance"] == "b").await;
    load.leaves("b").await;
    load.passes(RATE / 2).await;
    assert_clean_move(&before, &load.so_far(), "b");
    backends[1].misbehaves(Fault::None);
    // Newcomers are the trial requests that close it again.
    let newcomers = Load::start(burdock.address(), 100, RATE, "/");
    burdock.wait_log("breaker half-open", |line| line["instance"] == "b").await;
    newcomers.settles().await;
    drop(newcomers);
    let mut ask = burdock.client();
    while burdock.log("breaker closed").is_empty() {
        assert_eq!(ask.get("/").await.status, 200);
    }
    assert_clean_move(&before, &load.stop().await, "b");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trial_whose_client_leaves_does_not_keep_an_instance_out() {
    let backends = Backend::several(&["a", "b"]).await;
    let breaker = "breaker: { failures: 1, open: 1s, trials: 1 }\n";
    let mut burdock = Burdock::start(&yaml(&[&backends[0], &backends[1]], breaker)).await;
    let b = &backends[1];
    b.misbehaves(Fault::ResetBeforeAnswer);
    let mut client = burdock.client();
    while burdock.log("breaker opened").is_empty() {
        assert_eq!(client.get("/").await.status, 200);
    }
    b.misbehaves(Fault::Gate);
    burdock.wait_log("breaker half-open", |line| line["instance"] == "b").await;
    let (asked, begun) = (b.request_count(), std::time::Instant::now());
    let mut trial =
        support::raw::open(burdock.address(), "GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    while b.request_count() == asked {
        // The turn was another's: ask once more.
        let answered = tokio::time::timeout(std::time::Duration::from_millis(100), trial.head());
        if let Ok(head) = answered.await {
            assert_eq!(head.unwrap().unwrap().field("x-instance"), Some("a"));
            trial.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        }
        assert!(begun.elapsed() < support::DEADLINE, "no trial came to b");
    }
    trial.reset();
    burdock.wait_metric("burdock_instance_requests_in_flight", &[], |v| v == 0.0).await;
    b.misbehaves(Fault::None);
    // Its very next turn is a trial: nothing has to run out first.
    for _ in 0..2 {
        assert_eq!(client.get("/").await.status, 200);
    }
    assert_eq!(b.request_count(), asked + 2, "b is kept out");
    burdock.wait_log("breaker closed", |line| line["instance"] == "b").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_there_is_nobody_else_an_open_breaker_is_no_reason_to_refuse() {
    let a = Backend::start("a").await;
    let breaker = "session_affinity: true\nbreaker: { failures: 2, open: 1h, trials: 1 }\n";
    let mut burdock = Burdock::start(&yaml(&[&a], breaker)).await;
    let mut session = burdock.session();
    assert_eq!(session.get("/").await.status, 200);
    a.dies().await;
    for _ in 0..3 {
        assert_eq!(session.get("/").await.status, 502);
    }
    burdock.wait_log("breaker opened", |line| line["instance"] == "a").await;
    a.comes_back();
    let again = session.get("/").await;
    assert_eq!((again.status, again.instance()), (200, "a"), "{}", again.text());
    assert_eq!(burdock.client().get("/").await.status, 200, "a newcomer too");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_removed_by_reload_is_left_and_coming_back_moves_nobody() {
    let backends = Backend::several(&["a", "b", "c"]).await;
    let all: Vec<_> = backends.iter().collect();
    let drain = "drain: { timeout: 500ms, spread: 0s }\n";
    let burdock = Burdock::start(&sticky(&all, drain)).await;
    let load = Load::start(burdock.address(), SESSIONS, RATE, "/");
    load.settles().await;
    let before = load.so_far();
    let without_b = sticky(&[&backends[0], &backends[2]], drain);
    assert_eq!(burdock.reload(&without_b).await["message"], "reloaded");
    let mut newcomer = burdock.client();
    for _ in 0..10 {
        assert_ne!(newcomer.get("/").await.instance(), "b", "no new session");
    }
    load.leaves("b").await;
    load.passes(RATE / 2).await;
    assert_clean_move(&before, &load.so_far(), "b");
    assert_eq!(burdock.reload(&sticky(&all, drain)).await["message"], "reloaded");
    load.passes(RATE / 2).await;
    assert_clean_move(&before, &load.stop().await, "b");
    let metrics = burdock.metrics().await;
    let left = before.iter().filter(|seen| seen.last() == "b").count() as f64;
    assert_eq!(metrics.sum("burdock_rehomes_total", &[("reason", "removed")]), left);
    assert_eq!(metrics.sum("burdock_rehomes_total", &[]), left);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_that_replaces_every_instance_costs_nothing_while_the_new_ones_are_unknown() {
    for names in [["c", "d"], ["a", "b"]] {
        let old = Backend::several(&["a", "b"]).await;
        let new = Backend::several(&names).await;
        let burdock = Burdock::start(&sticky(&[&old[0], &old[1]], FAST_READINESS)).await;
        burdock.wait_health("a", "ready").await;
        burdock.wait_health("b", "ready").await;
        new.iter().for_each(|backend| backend.hangs_probes(true));
        let load = Load::start(burdock.address(), SESSIONS, RATE, "/");
        load.settles().await;
        let replaced = sticky(&[&new[0], &new[1]], FAST_READINESS);
        assert_eq!(burdock.reload(&replaced).await["message"], "reloaded");
        load.passes(RATE / 2).await;
        assert_eq!(burdock.client().get("/").await.status, 200, "a newcomer");
        assert_eq!(new[0].request_count() + new[1].request_count(), 0, "they may be anything");
        let metrics = burdock.metrics().await.series;
        let distinct: std::collections::BTreeSet<_> =
            metrics.iter().map(|s| (&s.0, &s.1)).collect();
        assert_eq!(distinct.len(), metrics.len(), "one row for each name");
        for backend in &new {
            backend.hangs_probes(false);
            backend.drops_connections();
            burdock.wait_health(&backend.name, "ready").await;
        }
        load.passes(RATE / 4).await;
        let asked = || new.iter().map(Backend::request_count).sum::<usize>();
        let before = asked();
        for _ in 0..10 {
            assert_eq!(burdock.client().get("/").await.status, 200);
        }
        assert!(asked() >= before + 10, "newcomers go to the new ones");
        assert_eq!(errors(&load.stop().await), Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_that_replace_all_others_before_they_listen_cost_nothing() {
    let backends = Backend::several(&["a", "b", "c", "d"]).await;
    let burdock = Burdock::start(&yaml(&[&backends[0], &backends[1]], "")).await;
    backends[2].dies().await;
    backends[3].dies().await;
    burdock.reload(&yaml(&[&backends[2], &backends[3]], "")).await;
    for _ in 0..20 {
        assert_eq!(burdock.client().get("/").await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_comes_back_while_its_old_tunnels_drain_starts_afresh() {
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    let service = |name: &str, path: &str, backend: &Backend| {
        let (instance, address) = (&backend.name, backend.address);
        format!(
            "  {name}:\n    paths: [{path}]\n    drain: {{ timeout: 1s, spread: 0s }}\n    \
             instances: [{{ name: {instance}, address: {address} }}]\n    {FAST_READINESS}"
        )
    };
    let one = format!("{}services:\n{}", support::HEADER, service("one", "/", &a));
    let both = one.clone() + &service("two", "/ws", &b);
    let mut burdock = Burdock::start(&both).await;
    burdock.wait_health("b", "ready").await;
    let mut tunnel = support::ws::WebSocket::open(burdock.address(), "/ws", "").await;
    assert_eq!(burdock.reload(&one).await["message"], "reloaded");
    assert_eq!(burdock.reload(&both).await["message"], "reloaded");
    burdock.wait_health("b", "ready").await;
    tunnel.echo("still here").await;
    let metrics = burdock.metrics().await.series;
    let distinct: std::collections::BTreeSet<_> = metrics.iter().map(|s| (&s.0, &s.1)).collect();
    assert_eq!(distinct.len(), metrics.len(), "one row for each instance");
    burdock.wait_log("drained", |line| line["instance"] == "b").await;
    b.probed(2).await;
    let again = support::ws::WebSocket::open(burdock.address(), "/ws", "").await;
    assert_eq!(again.instance(), "b", "the new one is not touched by the old one's end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_connect_counts_towards_neither_attempts_nor_budget() {
    let backends = Backend::several(&["a", "b", "c", "d", "e"]).await;
    let all: Vec<_> = backends.iter().collect();
    let strict = "breaker: off\nretry: { attempts: 2, budget: 0%, budget_floor: 0 }\n";
    let burdock = Burdock::start(&yaml(&all, strict)).await;
    for backend in &backends[..4] {
        backend.dies().await;
    }
    for _ in 0..5 {
        let answer = burdock.client().post("/pay", b"once").await;
        assert_eq!((answer.status, answer.instance()), (200, "e"));
    }
    let lines = burdock.access("/pay", 5).await;
    let most = lines.iter().filter_map(|line| line["attempts"].as_u64()).max();
    assert_eq!(most, Some(5), "the log counts every instance that was tried");
    let off = Burdock::start(&yaml(&all, "retry: off\n")).await;
    let mut statuses = Vec::new();
    for _ in 0..5 {
        statuses.push(off.client().get("/").await.status);
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 502, 502, 502, 502], "off is off");
}

#[tokio::test(flavor = "multi_thread")]
async fn four_of_five_killed_at_once_cost_nothing_at_500_requests_a_second() {
    let backends = Backend::several(&["a", "b", "c", "d", "e"]).await;
    let burdock = Burdock::start(&yaml(&backends.iter().collect::<Vec<_>>(), "")).await;
    let load = Load::start(burdock.address(), 50, 500, "/");
    load.settles().await;
    load.passes(100).await;
    for backend in &backends[..4] {
        backend.dies().await;
    }
    load.passes(1000).await;
    assert_eq!(errors(&load.stop().await), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn when_every_instance_is_gone_no_request_knocks_at_all_of_them() {
    let names = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let backends = Backend::several(&names).await;
    let breaker = "breaker: { failures: 2, open: 1h, trials: 1, max_ejected: 100% }\n";
    let burdock = Burdock::start(&yaml(&backends.iter().collect::<Vec<_>>(), breaker)).await;
    for backend in &backends {
        backend.dies().await;
    }
    let mut client = burdock.client();
    while burdock.log("breaker opened").len() < names.len() {
        assert_eq!(client.get("/opening").await.status, 502);
    }
    assert_eq!(client.get("/open").await.status, 502);
    assert_eq!(
        burdock.access("/open", 1).await[0]["attempts"],
        3,
        "as many as retry.attempts says"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_in_flight_finish_on_an_instance_that_says_not_ready() {
    let a = Backend::start("a").await;
    let b = Backend::start("b").await;
    let mut burdock = Burdock::start(&sticky(&[&a, &b], FAST_READINESS)).await;
    burdock.wait_health("a", "ready").await;
    burdock.wait_health("b", "ready").await;
    let address = burdock.address();
    let gates: Vec<_> = (0..2)
        .map(|_| tokio::spawn(async move { support::Client::new(address).get("/gate").await }))
        .collect();
    a.request(1).await;
    b.request(1).await;
    a.ready(false);
    burdock.wait_log("health changed", |l| l["instance"] == "a" && l["to"] == "unready").await;
    a.open_gate(1);
    b.open_gate(1);
    let mut seen = Vec::new();
    for gate in gates {
        seen.push(gate.await.unwrap().instance().to_owned());
    }
    seen.sort();
    assert_eq!(seen, ["a", "b"], "each finished where it was");
    assert_eq!((a.request_count(), b.request_count()), (1, 1), "nothing was asked twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_already_begun_ends_with_an_error_when_its_instance_is_dead() {
    let a = Backend::start("a").await;
    let checks = format!("{FAST_CHECKS}timeouts: {{ idle: 60s }}\n");
    let mut burdock = Burdock::start(&yaml(&[&a], &checks)).await;
    burdock.wait_health("a", "ready").await;
    a.misbehaves(Fault::StallMidAnswer(100));
    let request = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut conn = support::raw::open(burdock.address(), request).await;
    let head = support::within("the head", conn.head()).await.unwrap().unwrap();
    assert_eq!(head.field("content-length"), Some("1100"));
    a.alive(false);
    burdock.wait_log("health changed", |l| l["to"] == "dead").await;
    let rest = support::within("the cut", conn.read_to_end()).await;
    assert!(rest.len() < 1100, "a cut answer must not look whole");
    let line = &burdock.access("/", 1).await[0];
    assert_eq!(line["error"], "instance_dead", "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_no_instance_left_the_answer_is_503_and_names_no_address() {
    let a = Backend::start("a").await;
    let mut burdock = Burdock::start(&yaml(&[&a], FAST_READINESS)).await;
    burdock.wait_health("a", "ready").await;
    a.ready(false);
    burdock.wait_log("health changed", |l| l["to"] == "unready").await;
    let answer = burdock.client().get("/").await;
    assert_eq!((answer.status, answer.text().as_str()), (503, "503 no_instance\n"));
    assert_eq!(answer.field("content-type").map(|t| t.starts_with("text/plain")), Some(true));
    assert_eq!(
        burdock.metrics().await.sum("burdock_errors_total", &[("reason", "no_instance")]),
        1.0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_post_caught_in_a_hang_is_not_sent_twice() {
    let a = Backend::start("a").await;
    let b = Backend::start("b").await;
    let mut burdock = Burdock::start(&sticky(&[&a, &b], FAST_CHECKS)).await;
    burdock.wait_health("a", "ready").await;
    burdock.wait_health("b", "ready").await;
    let mut client = burdock.session();
    let home = client.get("/").await.instance().to_owned();
    let (home, other) = if home == "a" { (&a, &b) } else { (&b, &a) };
    home.misbehaves(Fault::Gate);
    let post = tokio::spawn(async move { client.send(&Request::post("/pay", b"1")).await });
    home.request(2).await;
    home.hangs(true);
    burdock.wait_log("health changed", |l| l["to"] == "dead").await;
    let answer = post.await.unwrap();
    assert!(answer.status >= 500, "not safe to repeat, so an error: {}", answer.status);
    assert!(other.requests().iter().all(|r| r.head.method() != "POST"));
}
