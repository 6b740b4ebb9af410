//! Balancers that share an etcd: an order given to one is obeyed by all, and neither the death of a
//! balancer nor that of the etcd is noticed by a session.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::{again, fleet, heard, wait_fleet};
use crate::support::burdock::{run_in, scratch};
use crate::support::etcd::Etcd;
use crate::support::roaming::Roaming;
use crate::support::{self, Api, Backend, Burdock, DEADLINE, pause, yaml};

/// An order is obeyed everywhere within this.
const SOON: Duration = Duration::from_secs(1);
const REST: &str = "session_affinity: true\ndrain: { timeout: 120s, spread: 1s }\n\
    affinity_keys: [q83vq83vq83vq83vq83vq83vq83vq83vq83vq83vq80=]\n";

fn config(name: &str, backends: &[&Backend], etcd: &str) -> String {
    let fleet = format!(
        "fleet: {{ name: {name}, etcd: {{ endpoints: [\"{etcd}\"], prefix: /burdock/test }} }}\n"
    );
    yaml(backends, &format!("{REST}{fleet}"))
}

async fn balancer(name: &str, backends: &[&Backend], etcd: &Etcd) -> Burdock {
    let burdock = Burdock::start(&config(name, backends, &etcd.url())).await;
    heard(&burdock, true).await;
    burdock
}

/// Waits until an instance is in a state at a balancer; gives how long after `begun` that was.
async fn obeys(burdock: &Burdock, name: &str, state: &str, begun: Instant) -> Duration {
    Api::of(burdock).wait(name, |it| it["admin"] == state).await;
    begun.elapsed()
}

async fn differences(burdock: &Burdock) -> Vec<String> {
    let status = Api::of(burdock).status().await;
    let row = |it: &Value| format!("{} {} {}", it["id"], it["what"], it["now"]).replace('"', "");
    status["differences"].as_array().expect("a list").iter().map(row).collect()
}

async fn wait_differences(burdock: &Burdock, expected: &[&str]) {
    let begun = Instant::now();
    loop {
        let told = differences(burdock).await;
        if told == expected {
            return;
        }
        assert!(begun.elapsed() < DEADLINE, "{told:?} is not {expected:?}");
        pause().await;
    }
}

/// `kill -9`, while requests are under way.
async fn kill(burdock: &mut Burdock, load: &Roaming) {
    // Whoever is on the way there is cut off, and comes to the others; nobody else may notice.
    load.without(burdock);
    burdock.signal(libc::SIGKILL);
    burdock.exit_code().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_noticed_of_dying_balancers_and_of_a_dying_etcd() {
    let folder = scratch();
    let mut etcd = Etcd::start(&folder).await;
    let (x, y, z) =
        (Backend::start("x").await, Backend::start("y").await, Backend::start("z").await);
    let backends = [&x, &y, &z];
    let mut a = balancer("a", &backends, &etcd).await;
    let mut b = balancer("b", &backends, &etcd).await;
    let c = balancer("c", &backends, &etcd).await;
    let load = Roaming::start(&[&a, &b, &c], 24, Duration::from_millis(100));
    load.passes(200).await;
    for it in [&a, &b, &c] {
        wait_fleet(it, "three", |it| it["nodes"].as_array().is_some_and(|it| it.len() == 3)).await;
    }

    // A drain at one is obeyed by all, and its sessions stay.
    let begun = Instant::now();
    let told = Api::of(&a).steer("x", json!({ "state": "draining" })).await;
    assert_eq!((&told["admin"], &told["warning"]), (&json!("draining"), &Value::Null));
    for it in [&b, &c] {
        let took = obeys(it, "x", "draining", begun).await;
        assert!(took < SOON, "obeyed after {took:?}");
    }
    for it in [&a, &b, &c] {
        for _ in 0..6 {
            assert_ne!(it.client().get("/").await.instance(), "x", "new sessions go elsewhere");
        }
    }

    // Without the etcd all goes on, and whoever gives an order is told.
    etcd.kill();
    for it in [&a, &b, &c] {
        heard(it, false).await;
    }
    load.passes(200).await;
    let told = Api::of(&b).steer("y", json!({ "state": "draining" })).await;
    assert_eq!(told["admin"], "draining");
    let warning = told["warning"].as_str().expect("a warning");
    assert!(warning.contains("have not heard it yet"), "{warning}");
    assert_eq!(Api::of(&c).instance("y").await["admin"], "active", "nobody could tell it");
    assert_eq!(fleet(&b).await["orders"]["pending"], 1);
    assert!(b.metrics().await.sum("burdock_fleet_orders_pending", &[]) > 0.0);
    load.passes(200).await;
    etcd.again().await;
    for it in [&a, &c] {
        obeys(it, "y", "draining", Instant::now()).await;
        heard(it, true).await;
    }
    wait_fleet(&b, "all written", |it| it["orders"]["pending"] == 0).await;
    load.passes(200).await;

    // Two of three are killed in turn.
    kill(&mut a, &load).await;
    load.passes(200).await;
    let a = again(&a).await;
    assert_eq!(Api::of(&a).instance("x").await["admin"], "draining");
    load.with(&a);
    load.passes(200).await;
    kill(&mut b, &load).await;
    load.passes(200).await;
    wait_fleet(&c, "one that is gone", |it| {
        let nodes = it["nodes"].as_array().expect("a list");
        nodes.iter().any(|it| it["name"] == "b" && it["presence"] == "gone")
    })
    .await;

    // Taken back at the one, it is for all.
    let begun = Instant::now();
    Api::of(&c).steer("x", json!({ "state": null })).await;
    assert!(obeys(&a, "x", "active", begun).await < SOON);
    let seen = load.stop().await;
    assert_eq!(seen.errors, [""; 0]);
    let moved = seen.instances.iter().filter(|it| it.len() != 1).count();
    assert_eq!(moved, 0, "{:?}", seen.instances);
    assert!(seen.cut <= 2 * 24, "no more than one for each session and killed balancer");
    let used: BTreeSet<_> = seen.instances.iter().flatten().collect();
    assert_eq!(used.len(), 3, "all instances had sessions");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_operators_at_once_lose_nothing() {
    let folder = scratch();
    let etcd = Etcd::start(&folder).await;
    let (x, y) = (Backend::start("x").await, Backend::start("y").await);
    let a = balancer("a", &[&x, &y], &etcd).await;
    let b = balancer("b", &[&x, &y], &etcd).await;
    for round in 0..10 {
        let (mut at_a, mut at_b) = (Api::of(&a), Api::of(&b));
        let state = if round % 2 == 0 { "draining" } else { "disabled" };
        let (weight, other) = (100 + round, 200 + round);
        let (first, second) = tokio::join!(
            async {
                at_a.steer("x", json!({ "weight": weight })).await;
                at_a.steer("y", json!({ "state": state })).await
            },
            async {
                at_b.steer("y", json!({ "weight": other })).await;
                at_b.steer("x", json!({ "state": state })).await
            }
        );
        assert_eq!((&first["warning"], &second["warning"]), (&Value::Null, &Value::Null));
        let all = [
            format!("default/default/x state {state}"),
            format!("default/default/x weight {weight}"),
            format!("default/default/y state {state}"),
            format!("default/default/y weight {other}"),
        ];
        let all: Vec<_> = all.iter().map(String::as_str).collect();
        wait_differences(&a, &all).await;
        wait_differences(&b, &all).await;
    }
    // Who is at odds over the same thing ends with the same, whichever that is.
    for _ in 0..10 {
        let (mut at_a, mut at_b) = (Api::of(&a), Api::of(&b));
        tokio::join!(
            at_a.steer("x", json!({ "weight": 1 })),
            at_b.steer("x", json!({ "weight": 2 }))
        );
        let all_written = |it: &Value| it["orders"]["pending"] == 0;
        wait_fleet(&a, "written", all_written).await;
        wait_fleet(&b, "written", all_written).await;
        let begun = Instant::now();
        while differences(&a).await != differences(&b).await {
            assert!(begun.elapsed() < DEADLINE, "at odds");
            pause().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_without_the_etcd_goes_on_as_it_was() {
    let folder = scratch();
    let mut etcd = Etcd::start(&folder).await;
    let (x, y) = (Backend::start("x").await, Backend::start("y").await);
    let mut a = balancer("a", &[&x, &y], &etcd).await;
    let b = balancer("b", &[&x, &y], &etcd).await;
    Api::of(&b).steer("x", json!({ "weight": 7 })).await;
    wait_differences(&a, &["default/default/x weight 7"]).await;
    etcd.kill();
    heard(&a, false).await;
    Api::of(&a).steer("y", json!({ "state": "disabled" })).await;
    a.signal(libc::SIGTERM);
    a.exit_code().await;
    let a = again(&a).await;
    let both = ["default/default/x weight 7", "default/default/y state disabled"];
    assert_eq!(differences(&a).await, both);
    let told = fleet(&a).await;
    assert_eq!((&told["connected"], &told["orders"]["pending"]), (&json!(false), &json!(1)));
    let log = a.wait_metric("burdock_fleet_connected", &[], |it| it == 0.0).await;
    assert!(log.abs() < f64::EPSILON);
    etcd.again().await;
    wait_differences(&b, &both).await;
    // An etcd that has lost everything takes nothing back.
    etcd.kill();
    heard(&a, false).await;
    heard(&b, false).await;
    etcd.anew().await;
    heard(&a, true).await;
    heard(&b, true).await;
    wait_fleet(&a, "all written anew", |it| it["orders"]["pending"] == 0).await;
    for it in [&a, &b] {
        assert_eq!(differences(it).await, both);
    }
    let keys = etcd.ctl(&["get", "--prefix", "--keys-only", "/burdock/test/orders/"]);
    assert_eq!(keys.split_whitespace().count(), 2, "{keys}");
    // And what is taken away there by hand is taken back everywhere.
    etcd.delete("/burdock/test/orders/instances/default/default/y");
    wait_differences(&a, &both[..1]).await;
    wait_differences(&b, &both[..1]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_balancer_does_not_know_it_keeps_for_the_others() {
    let folder = scratch();
    let etcd = Etcd::start(&folder).await;
    let (x, y) = (Backend::start("x").await, Backend::start("y").await);
    let a = balancer("a", &[&x], &etcd).await;
    let b = balancer("b", &[&x, &y], &etcd).await;
    Api::of(&b).steer("y", json!({ "state": "draining" })).await;
    let at = "/burdock/test/orders/";
    let garbage = format!("{at}instances/default/default/x");
    etcd.put(&garbage, "{\"format\":1,\"weight\":\"heavy\"}");
    etcd.put(
        &format!("{at}instances/other/v1/n"),
        "{\"format\":1,\"weight\":{\"value\":3,\"since\":5}}",
    );
    etcd.put(&format!("{at}instances/default/default/new"), "{\"format\":9,\"mood\":\"blue\"}");
    etcd.put("/burdock/test/nodes/ghost", "no balancer writes this");
    for it in [&a, &b] {
        let told = wait_fleet(it, "all heard", |it| {
            it["orders"]["rows"] == 2
                && it["orders"]["left_out"].as_object().is_some_and(|it| it.len() == 2)
        });
        assert_eq!(told.await["orders"]["pending"], 0);
    }
    assert!(differences(&a).await.is_empty(), "it has no place for any of them");
    wait_differences(&b, &["default/default/y state draining"]).await;
    // A file that names it later finds it drained.
    let both = config("a", &[&x, &y], &etcd.url());
    assert_eq!(a.reload(&both).await["message"], "reloaded");
    assert_eq!(Api::of(&a).instance("y").await["admin"], "draining");
    // An order heals what made no sense; and what the one adds, the other takes away.
    Api::of(&a).steer("x", json!({ "weight": 5 })).await;
    wait_differences(&b, &["default/default/x weight 5", "default/default/y state draining"]).await;
    let z = Backend::start("z").await;
    let (status, told) = Api::of(&a).add("z", &z.address.to_string()).await;
    assert_eq!((status, &told["warning"]), (201, &Value::Null), "{told}");
    Api::of(&b).wait("z", |it| it["source"] == "api").await;
    let (status, _) = Api::of(&b).delete("instances/default/default/z").await;
    assert_eq!(status, 202);
    Api::of(&a).wait("z", |it| it["membership"] != "present").await;
    // Nothing of the others' was taken away.
    let keys = etcd.ctl(&["get", "--prefix", "--keys-only", at]);
    assert_eq!(keys.split_whitespace().count(), 5, "{keys}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_split_is_shared_and_a_reload_may_leave_the_fleet() {
    let folder = scratch();
    let etcd = Etcd::start(&folder).await;
    let (x, y) = (Backend::start("x").await, Backend::start("y").await);
    let text = |name: &str, fleet: &str| {
        let of = |it: &Backend| {
            format!("{{ instances: [{{ name: {}, address: {} }}] }}", it.name, it.address)
        };
        format!(
            "{}services:\n  app:\n    traffic_split: {{ shard_by: random, allocations: {{ v1: 1, v2: 1 }} }}\n    \
             versions: {{ v1: {}, v2: {} }}\n{}",
            support::HEADER,
            of(&x),
            of(&y),
            fleet.replace("NAME", name)
        )
    };
    let fleet = format!(
        "fleet: {{ name: NAME, etcd: {{ endpoints: [\"{}\"], prefix: /s/ }} }}\n",
        etcd.url()
    );
    let a = Burdock::start(&text("a", &fleet)).await;
    let b = Burdock::start(&text("b", &fleet)).await;
    heard(&a, true).await;
    heard(&b, true).await;
    let (status, told) =
        Api::of(&a).put("services/app/split", json!({ "allocations": { "v2": 1 } })).await;
    assert_eq!((status, &told["warning"]), (200, &Value::Null), "{told}");
    wait_differences(&b, &["app traffic_split v2=1"]).await;
    // Alone again, it is as it was; and nobody else hears what it is asked.
    assert_eq!(b.reload(&text("b", "")).await["message"], "reloaded");
    assert_eq!(differences(&b).await, ["app traffic_split v2=1"]);
    assert_eq!(Api::of(&b).get("fleet").await.0, 404);
    Api::of(&b).delete("services/app/split").await;
    assert_eq!(differences(&a).await, ["app traffic_split v2=1"]);
    // Back in the fleet it hears what is wanted there.
    assert_eq!(b.reload(&text("b", &fleet)).await["message"], "reloaded");
    wait_differences(&b, &["app traffic_split v2=1"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_balancer_is_seen_at_any_of_them() {
    let folder = scratch();
    let etcd = Etcd::start(&folder).await;
    let x = Backend::start("x").await;
    let a = balancer("a", &[&x], &etcd).await;
    let other_keys = config("b", &[&x], &etcd.url()).replace("q83vq83v", "AAAAAAAA");
    let mut b = Burdock::start(&other_keys).await;
    a.session().get("/").await;
    let told = wait_fleet(&a, "b is seen", |it| it["nodes"][1]["presence"] == "fresh").await;
    let [here, there] = [&told["nodes"][0], &told["nodes"][1]];
    assert_eq!((&here["name"], &here["presence"]), (&json!("a"), &json!("here")));
    assert_eq!(here["config"], there["config"], "of the same services");
    assert_eq!(there["admin"], json!(b.admin().to_string()));
    assert_eq!(there["listeners"], json!([b.address().to_string()]));
    assert_eq!(there["services"]["default"]["instances"], 1);
    let warnings = told["warnings"].to_string();
    assert!(warnings.contains("different affinity keys"), "{warnings}");
    let status = Api::of(&a).status().await;
    assert!(status["warnings"].as_array().unwrap().iter().any(|it| it["code"] == "fleet"));
    let shown = command(&a, &["status", "--fleet"]).await;
    let has = |text: &str, words: &[&str]| {
        text.lines().any(|line| words.iter().all(|word| line.contains(word)))
    };
    assert!(has(&shown, &["as a knows it", "is heard"]), "{shown}");
    let admin = b.admin().to_string();
    assert!(has(&shown, &["b", "serving", &admin, "1/1"]), "{shown}");
    let fresh = [("state", "fresh")];
    a.wait_metric("burdock_fleet_balancers", &fresh, |it| it == 1.0).await;
    // One that ends says so.
    b.signal(libc::SIGTERM);
    b.exit_code().await;
    let told = wait_fleet(&a, "b is gone", |it| it["nodes"][1]["presence"] == "gone").await;
    assert!(!told["warnings"].to_string().contains("affinity keys"), "{told}");
    // Another one of the same name is told of.
    let _twin = balancer("a", &[&x], &etcd).await;
    let is_told = |it: &Value| it["warnings"].to_string().contains("calls itself a too");
    wait_fleet(&a, "two of one name", is_told).await;
}

/// What a command prints that asks this balancer.
async fn command(burdock: &Burdock, arguments: &[&str]) -> String {
    let (folder, admin): (PathBuf, _) = (burdock.directory.clone(), burdock.admin().to_string());
    let arguments: Vec<String> = arguments.iter().map(|it| (*it).to_owned()).collect();
    let run = move || {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let url = format!("http://{admin}");
        run_in(Path::new(&folder), &arguments, &[("BURDOCK_ADMIN", &url)])
    };
    let output = tokio::task::spawn_blocking(run).await.expect("a command");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}
