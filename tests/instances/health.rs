//! Split health checks: who gets traffic, when a verdict changes, what a probe looks like.

use crate::support::burdock::scratch;
use crate::support::{self, Backend, Burdock, run_to_end, yaml};

fn readiness(more: &str) -> String {
    format!("readiness_check: {{ path: /readyz, check_interval: 50ms, timeout: 300ms{more} }}\n")
}

/// The states that `instance` went through, as the log tells them.
fn states(burdock: &Burdock, instance: &str) -> Vec<String> {
    let lines = burdock.log("health changed");
    lines
        .iter()
        .filter(|line| line["instance"] == instance)
        .map(|line| line["to"].as_str().unwrap_or_default().to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_checks_an_instance_gets_traffic_at_once() {
    let a = Backend::start("a").await;
    let burdock = Burdock::start(&yaml(&[&a], "")).await;
    assert_eq!(burdock.client().get("/").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_instance_gets_no_traffic_and_the_first_success_admits_it() {
    let a = Backend::start("a").await;
    a.hangs_probes(true);
    let check = "readiness_check: { path: /readyz, check_interval: 100ms, timeout: 2s }\n";
    let burdock = Burdock::start(&yaml(&[&a], check)).await;
    burdock.wait_health("a", "unknown").await;
    let answer = burdock.client().get("/").await;
    assert_eq!((answer.status, answer.text().as_str()), (503, "503 no_instance\n"));
    assert_eq!(a.request_count(), 0);
    a.hangs_probes(false);
    a.drops_connections();
    burdock.wait_health("a", "ready").await;
    assert_eq!(burdock.client().get("/").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_success_is_the_first_verdict() {
    let a = Backend::start("a").await;
    let check = readiness(", success_threshold: 10");
    let mut burdock = Burdock::start(&yaml(&[&a], &check)).await;
    let line = burdock.wait_log("health changed", |l| l["instance"] == "a").await;
    assert_eq!((&line["from"], &line["to"]), (&"unknown".into(), &"ready".into()), "{line}");
    assert!(a.probes().len() < 5, "long before ten successes");
}

#[tokio::test(flavor = "multi_thread")]
async fn initial_state_ready_lets_traffic_in_before_a_verdict() {
    let a = Backend::start("a").await;
    a.hangs_probes(true);
    let check = "readiness_check: { path: /readyz, check_interval: 100ms, timeout: 10s, initial_state: ready }\n";
    let burdock = Burdock::start(&yaml(&[&a], check)).await;
    assert_eq!(burdock.client().get("/").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verdict_changes_at_its_threshold_of_consecutive_probes_and_not_before() {
    let a = Backend::start("a").await;
    let check = readiness(", failure_threshold: 3, success_threshold: 2");
    let mut burdock = Burdock::start(&yaml(&[&a], &check)).await;
    burdock.wait_health("a", "ready").await;
    a.probes_meet(&[503, 503, 200, 503, 503, 200]);
    a.script_ended().await;
    a.probed(2).await;
    assert_eq!(states(&burdock, "a"), ["ready"], "never three in a row");
    a.probes_meet(&[503, 503, 503, 503, 200, 503, 200, 503]);
    burdock.wait_log("health changed", |l| l["to"] == "unready").await;
    a.script_ended().await;
    let line = burdock.wait_log("health changed", |l| l["from"] == "unready").await;
    assert_eq!(line["to"], "ready");
    assert_eq!(states(&burdock, "a"), ["ready", "unready", "ready"], "never two in a row between");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_way_to_fail_has_its_reason() {
    let a = Backend::start("a").await;
    let mut burdock = Burdock::start(&yaml(&[&a], &readiness(""))).await;
    let mut told = Vec::new();
    let mut fails = async |breaks: &dyn Fn(), mends: &dyn Fn()| {
        burdock.wait_health("a", "ready").await;
        let before = burdock.log("health changed").len();
        breaks();
        burdock.wait_health("a", "unready").await;
        let line = burdock.log("health changed").remove(before);
        told.push(line["reason"].to_string());
        mends();
    };
    fails(&|| a.ready(false), &|| a.ready(true)).await;
    fails(&|| a.hangs(true), &|| a.hangs(false)).await;
    let distinct: std::collections::BTreeSet<_> = told.iter().collect();
    assert_eq!(distinct.len(), 2, "{told:?}");
    assert!(!told.contains(&"null".to_owned()) && !told.contains(&"\"\"".to_owned()), "{told:?}");
    burdock.wait_log("health changed", |l| l["to"] == "ready").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_says_who_it_is_and_whom_it_asks() {
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    let burdock = Burdock::start(&yaml(&[&a], &readiness(""))).await;
    burdock.wait_health("a", "ready").await;
    let probe = a.probes().remove(0);
    let agent = format!("burdock-probe/{}", env!("CARGO_PKG_VERSION"));
    assert_eq!(probe.field("user-agent"), Some(agent.as_str()));
    assert_eq!(probe.field("host"), Some(a.address.to_string().as_str()));
    assert_eq!(probe.method(), "GET");
    burdock.reload(&yaml(&[&b], &readiness(", host: probe.test"))).await;
    burdock.wait_health("b", "ready").await;
    assert_eq!(b.probes()[0].field("host"), Some("probe.test"));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_200_passes_unless_more_is_expected() {
    let a = Backend::start("a").await;
    a.ready_status(204);
    let burdock = Burdock::start(&yaml(&[&a], &readiness(""))).await;
    burdock.wait_health("a", "unready").await;
    burdock.reload(&yaml(&[&a], &readiness(", expected_statuses: [200-299, 404]"))).await;
    burdock.wait_health("a", "ready").await;
    a.ready_status(300);
    burdock.wait_health("a", "unready").await;
    a.ready_status(404);
    burdock.wait_health("a", "ready").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_path_a_connect_is_the_probe() {
    let a = Backend::start("a").await;
    a.ready(false);
    let check = "readiness_check: { check_interval: 50ms, timeout: 300ms }\n";
    let burdock = Burdock::start(&yaml(&[&a], check)).await;
    burdock.wait_health("a", "ready").await;
    assert!(a.probes().is_empty(), "nothing was asked");
    a.stops_listening().await;
    burdock.wait_health("a", "unready").await;
    a.comes_back();
    burdock.wait_health("a", "ready").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn health_survives_reloads() {
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    a.ready(false);
    let check = readiness("");
    let burdock = Burdock::start(&yaml(&[&a, &b], &check)).await;
    burdock.wait_health("a", "unready").await;
    burdock.wait_health("b", "ready").await;
    let before = (states(&burdock, "a"), states(&burdock, "b"));
    for n in 0..10 {
        let rest = format!("{check}timeouts: {{ first_byte: {}s }}\n", n + 1);
        assert_eq!(burdock.reload(&yaml(&[&a, &b], &rest)).await["message"], "reloaded");
        let mut client = burdock.client();
        for _ in 0..4 {
            let answer = client.get("/").await;
            assert_eq!((answer.status, answer.instance()), (200, "b"));
        }
    }
    assert_eq!((states(&burdock, "a"), states(&burdock, "b")), before, "no verdict was forgotten");
    a.probed(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn checks_come_and_go_with_a_reload() {
    let a = Backend::start("a").await;
    a.ready(false);
    let burdock = Burdock::start(&yaml(&[&a], "")).await;
    assert_eq!(burdock.client().get("/").await.status, 200);
    burdock.reload(&yaml(&[&a], &readiness(""))).await;
    burdock.wait_health("a", "unready").await;
    assert_eq!(burdock.client().get("/").await.status, 503);
    burdock.reload(&yaml(&[&a], "")).await;
    assert_eq!(burdock.client().get("/").await.status, 200, "no check, no verdict");
}

#[tokio::test(flavor = "multi_thread")]
async fn liveness_waits_for_its_initial_delay() {
    let a = Backend::start("a").await;
    let liveness = |delay: &str| {
        let ready = readiness("");
        format!(
            "{ready}liveness_check: {{ path: /healthz, check_interval: 50ms, timeout: 300ms, \
             failure_threshold: 2, initial_delay: {delay} }}\n"
        )
    };
    a.alive(false);
    let burdock = Burdock::start(&yaml(&[&a], &liveness("1h"))).await;
    burdock.wait_health("a", "ready").await;
    a.probed(5).await;
    assert!(a.probes().iter().all(|probe| probe.target() == "/readyz"));
    let second = Burdock::start(&yaml(&[&a], &liveness("0s"))).await;
    second.wait_health("a", "dead").await;
    assert_eq!(second.client().get("/").await.text(), "503 no_instance\n");
    a.alive(true);
    second.wait_health("a", "ready").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_dies_while_it_drains_is_forgotten_all_the_same() {
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    let rest = format!("{}drain: {{ timeout: 2s, spread: 0s }}\n", support::FAST_CHECKS);
    let mut burdock = Burdock::start(&yaml(&[&a, &b], &rest)).await;
    burdock.wait_health("b", "ready").await;
    assert_eq!(burdock.reload(&yaml(&[&a], &rest)).await["message"], "reloaded");
    b.alive(false);
    burdock.wait_log("health changed", |l| l["instance"] == "b" && l["to"] == "dead").await;
    assert!(burdock.log("drained").is_empty(), "it died during its drain");
    burdock.wait_log("drained", |line| line["instance"] == "b").await;
    let of_b = |metrics: &support::burdock::Metrics| {
        metrics.series.iter().any(|(_, labels, _)| labels.get("instance") == Some(&"b".to_owned()))
    };
    assert!(!of_b(&burdock.metrics().await), "nothing is told of it any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_breaker_stays_open_for_its_time_however_well_probes_go() {
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    let rest = format!("{}breaker: {{ failures: 2, open: 1h, trials: 1 }}\n", readiness(""));
    let burdock = Burdock::start(&yaml(&[&a, &b], &rest)).await;
    burdock.wait_health("a", "ready").await;
    burdock.wait_health("b", "ready").await;
    a.misbehaves(support::Fault::ResetBeforeAnswer);
    let mut client = burdock.client();
    while burdock.log("breaker opened").is_empty() {
        assert_eq!(client.get("/").await.status, 200);
    }
    let asked = a.request_count();
    for _ in 0..5 {
        a.probed(2).await;
        assert_eq!(client.get("/").await.instance(), "b");
        assert_eq!(client.get("/").await.instance(), "b");
    }
    assert_eq!(a.request_count(), asked, "a probe that passes is no reason to try a");
    assert!(
        burdock.log("breaker half-open").is_empty() && burdock.log("breaker closed").is_empty()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_instance_is_probed_to_the_end_of_its_drain_and_no_longer() {
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    let rest = format!("{}drain: {{ timeout: 500ms, spread: 0s }}\n", support::FAST_CHECKS);
    let mut burdock = Burdock::start(&yaml(&[&a, &b], &rest)).await;
    burdock.wait_health("b", "ready").await;
    assert_eq!(burdock.reload(&yaml(&[&a], &rest)).await["message"], "reloaded");
    b.probed(2).await;
    burdock.wait_log("drained", |line| line["instance"] == "b").await;
    // One may have been on its way.
    a.probed(2).await;
    let probed = b.probes().len();
    a.probed(10).await;
    assert_eq!(b.probes().len(), probed, "nobody wants to know");
    assert_eq!(burdock.reload(&yaml(&[&a, &b], &rest)).await["message"], "reloaded");
    burdock.wait_health("b", "ready").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_one_check_leaves_the_other_to_its_initial_delay() {
    let a = Backend::start("a").await;
    let checks = |readiness: &str, timeout: &str| {
        format!(
            "readiness_check: {{ path: /readyz, check_interval: {readiness}, timeout: 300ms }}\n\
             liveness_check: {{ path: /healthz, check_interval: 20ms, timeout: {timeout}, \
             initial_delay: 1h }}\n"
        )
    };
    let burdock = Burdock::start(&yaml(&[&a], &checks("50ms", "300ms"))).await;
    burdock.wait_health("a", "ready").await;
    for (readiness, liveness) in [("30ms", "300ms"), ("30ms", "200ms")] {
        let reloaded = burdock.reload(&yaml(&[&a], &checks(readiness, liveness))).await;
        assert_eq!(reloaded["message"], "reloaded");
        a.probed(5).await;
        assert!(
            a.probes().iter().all(|probe| probe.target() == "/readyz"),
            "an hour has not passed"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn app_engines_ranges_are_held() {
    let folder = scratch();
    let checked = |check: &str, key: &str, value: &str| {
        let text = format!("instances: [127.0.0.1:1]\n{check}:\n  path: /x\n  {key}: {value}\n");
        std::fs::write(folder.join("burdock.yaml"), text).unwrap();
        let output = run_to_end(&folder, &["check", "burdock.yaml"]);
        let told = String::from_utf8_lossy(&output.stderr).into_owned()
            + &String::from_utf8_lossy(&output.stdout);
        (output.status.code(), told)
    };
    let cases = [
        ("readiness_check", "timeout_sec", 1, 300),
        ("readiness_check", "check_interval_sec", 1, 300),
        ("readiness_check", "failure_threshold", 1, 10),
        ("readiness_check", "success_threshold", 1, 10),
        ("readiness_check", "app_start_timeout_sec", 1, 1800),
        ("liveness_check", "timeout_sec", 1, 300),
        ("liveness_check", "check_interval_sec", 1, 300),
        ("liveness_check", "failure_threshold", 1, 10),
        ("liveness_check", "success_threshold", 1, 10),
        ("liveness_check", "initial_delay_sec", 0, 3600),
    ];
    for (check, key, low, high) in cases {
        for good in [low, high] {
            let (code, told) = checked(check, key, &good.to_string());
            assert_eq!(code, Some(0), "{check}.{key}: {good}: {told}");
        }
        let (code, told) = checked(check, key, &(high + 1).to_string());
        assert_eq!(code, Some(3), "{check}.{key}: {}: {told}", high + 1);
        assert!(told.contains("burdock.yaml:4:") && told.contains(key), "{told}");
        assert!(told.contains(&high.to_string()), "it says what is allowed: {told}");
    }
    for (key, value) in [("failure_threshold", "0"), ("timeout_sec", "0"), ("timeout_sec", "-1")] {
        assert_eq!(checked("readiness_check", key, value).0, Some(3), "{key}: {value}");
    }
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_breaker_opens_on_live_traffic_and_a_trial_closes_it() {
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    let rest = "breaker: { failures: 3, open: 300ms, trials: 2 }\n";
    let mut burdock = Burdock::start(&yaml(&[&a, &b], rest)).await;
    let mut client = burdock.client();
    a.misbehaves(support::Fault::ResetBeforeAnswer);
    while burdock.log("breaker opened").is_empty() {
        assert_eq!(client.get("/").await.status, 200);
    }
    let at = a.request_count();
    assert_eq!(at, 3, "exactly its threshold");
    for _ in 0..6 {
        assert_eq!(client.get("/").await.instance(), "b");
    }
    a.misbehaves(support::Fault::None);
    while burdock.log("breaker closed").is_empty() {
        assert_eq!(client.get("/").await.status, 200);
    }
    assert!(a.request_count() >= at + 2, "two trials");
    let line = burdock.wait_log("breaker half-open", |l| l["instance"] == "a").await;
    assert_eq!(line["target"].as_str().map(str::is_empty), Some(false));
}

#[tokio::test(flavor = "multi_thread")]
async fn with_too_few_ready_unready_instances_serve_and_dead_ones_do_not() {
    let backends = Backend::several(&["a", "b", "c"]).await;
    let rest = format!("{}panic_threshold: 50%\nsession_affinity: true\n", support::FAST_CHECKS);
    let mut burdock = Burdock::start(&yaml(&backends.iter().collect::<Vec<_>>(), &rest)).await;
    let [a, b, c] = &backends[..] else { unreachable!() };
    let panic = async |burdock: &Burdock, wanted| {
        burdock.wait_metric("burdock_panic", &[], |value| value == wanted).await;
    };
    for name in ["a", "b", "c"] {
        burdock.wait_health(name, "ready").await;
    }
    panic(&burdock, 0.0).await;
    let mut bound = burdock.session();
    let home = bound.get("/").await.instance().to_owned();
    backends.iter().for_each(|backend| backend.ready(false));
    panic(&burdock, 1.0).await;
    for name in ["a", "b", "c"] {
        burdock.wait_health(name, "unready").await;
    }
    let mut newcomers = std::collections::BTreeSet::new();
    for _ in 0..3 {
        newcomers.insert(burdock.client().get("/").await.instance().to_owned());
    }
    assert_eq!(newcomers.len(), 3, "health is ignored");
    let now = bound.get("/").await.instance().to_owned();
    assert_eq!(bound.get("/").await.instance(), now, "a bound session stays");
    assert!(["a", "b", "c"].contains(&home.as_str()));
    c.alive(false);
    burdock.wait_health("c", "dead").await;
    for _ in 0..4 {
        assert_ne!(burdock.client().get("/").await.instance(), "c");
    }
    a.ready(true);
    b.ready(true);
    panic(&burdock, 0.0).await;
    burdock.wait_log("panic over", |line| line["instances"] == 3).await;
    let began = burdock.log("panic: too few are ready, unready ones serve");
    assert_eq!((began.len(), &began[0]["ready"]), (1, &1.into()), "{began:?}");
}
