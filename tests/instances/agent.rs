//! What an instance says of itself in the answers to readiness probes, and what follows.

use crate::support::{self, Backend, Burdock, yaml};

const CHECK: &str = "readiness_check: { path: /readyz, check_interval: 30ms, agent: true }\n\
                     session_affinity: true\ndrain: { timeout: 500ms, spread: 0s }\n";

async fn is_admin(burdock: &Burdock, instance: &str, state: &str) {
    let labels = [("instance", instance), ("state", state)];
    burdock.wait_metric("burdock_instance_admin", &labels, |value| value == 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_drains_itself_and_comes_back() {
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    let mut burdock = Burdock::start(&yaml(&[&a, &b], CHECK)).await;
    let mut bound = burdock.session();
    while bound.get("/").await.instance() != "b" {
        bound = burdock.session();
    }
    b.tells_probes("X-Burdock-State: drain");
    is_admin(&burdock, "b", "draining").await;
    assert_eq!(bound.get("/").await.instance(), "b", "bound sessions stay");
    for _ in 0..4 {
        assert_eq!(burdock.client().get("/").await.instance(), "a", "new ones go elsewhere");
    }
    burdock.wait_log("drained", |line| line["instance"] == "b").await;
    is_admin(&burdock, "b", "drained").await;
    assert_eq!(bound.get("/").await.instance(), "a");
    b.tells_probes("X-Other: x");
    is_admin(&burdock, "b", "active").await;
    b.tells_probes("X-Burdock-State: maint");
    is_admin(&burdock, "b", "disabled").await;
    let line = burdock.wait_log("the instance reports", |line| line["state"] == "disabled").await;
    assert_eq!((&line["instance"], &line["weight"]), (&"b".into(), &100.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stricter_of_operator_and_instance_counts_and_its_weight_is_a_part() {
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    let config = |state: &str, agent: bool| {
        let instances = format!(
            "instances: [{{ name: a, address: {}, state: {state} }}, {{ name: b, address: {}, weight: 10 }}]\n",
            a.address, b.address
        );
        let check = CHECK.replace("true }", &format!("{agent} }}"));
        format!("{}{check}{instances}", support::HEADER)
    };
    a.tells_probes("X-Burdock-State: ready, weight=50%");
    b.tells_probes("X-Burdock-State: weight=25%");
    let burdock = Burdock::start(&config("draining", true)).await;
    let weighs = async |instance, wanted| {
        let labels = [("instance", instance)];
        burdock.wait_metric("burdock_instance_effective_weight", &labels, |v| v == wanted).await;
    };
    weighs("a", 0.5).await;
    weighs("b", 2.5).await;
    is_admin(&burdock, "a", "draining").await;
    a.tells_probes("X-Burdock-State: maint");
    is_admin(&burdock, "a", "disabled").await;
    assert_eq!(burdock.reload(&config("active", true)).await["message"], "reloaded");
    is_admin(&burdock, "a", "disabled").await;
    assert_eq!(burdock.reload(&config("active", false)).await["message"], "reloaded");
    is_admin(&burdock, "a", "active").await;
    weighs("b", 10.0).await;
    a.probed(2).await;
    is_admin(&burdock, "a", "active").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_sessions_of_before_move_once_and_later_ones_stay() {
    restart("").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_locks_no_strict_session_out() {
    restart("affinity: { strict: true }\n").await;
}

async fn restart(affinity: &str) {
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    a.tells_probes("X-Life: 1");
    b.tells_probes("X-Life: 1");
    let rest = "readiness_check: { path: /readyz, check_interval: 30ms, incarnation_header: X-Life, \
                on_restart: re-home }\nsession_affinity: true\n";
    let mut burdock = Burdock::start(&yaml(&[&a, &b], &format!("{rest}{affinity}"))).await;
    let mut sessions = [burdock.session(), burdock.session(), burdock.session(), burdock.session()];
    let mut homes = Vec::new();
    for session in &mut sessions {
        homes.push(session.get("/").await.instance().to_owned());
    }
    // Tokens tell whole seconds: those of the second of the restart are taken for the new life's.
    let second = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let begun = second().expect("a clock after 1970").as_secs();
    support::eventually("the next second", || {
        (second().expect("a clock").as_secs() > begun).then_some(())
    })
    .await;
    b.tells_probes("X-Life: 2");
    let line = burdock.wait_log("instance restarted", |line| line["instance"] == "b").await;
    assert_eq!((&line["from"], &line["to"]), (&"1".into(), &"2".into()));
    for (session, home) in sessions.iter_mut().zip(&homes) {
        let now = session.get("/").await.instance().to_owned();
        assert!(home == "b" || now == *home, "a needless move");
        for _ in 0..3 {
            assert_eq!(session.get("/").await.instance(), now, "once is enough");
        }
    }
    let lost = homes.iter().filter(|home| *home == "b").count();
    assert_eq!(lost, 2);
    let metrics = burdock.metrics().await;
    assert_eq!(metrics.sum("burdock_rehomes_total", &[("reason", "restarted")]), 2.0);
    assert_eq!(metrics.sum("burdock_instance_restarts_total", &[("instance", "b")]), 1.0);
}
