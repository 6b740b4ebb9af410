//! Steering by the admin API: what is asked for holds over a reload, a restart and an upgrade, a drain
//! can be watched to its end, and instances come and go without a client noticing.

use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use crate::support::burdock::signal_process;
use crate::support::load::errors;
use crate::support::ws::WebSocket;
use crate::support::{self, Api, Backend, Burdock, Client, Load, eventually, within, yaml};

const SHORT_DRAIN: &str = "drain: { timeout: 60s, spread: 200ms }\n";

fn state_file(burdock: &Burdock) -> std::path::PathBuf {
    burdock.directory.join("burdock.yaml.state")
}

/// A new process over the same files.
async fn again(burdock: &Burdock) -> Burdock {
    let (directory, config) = (burdock.directory.clone(), burdock.config.clone());
    Burdock::spawn(directory, config, &["run", "-c", "burdock.yaml"]).await
}

/// A process that nobody here has started, ended when dropped.
struct Heir(i32);

impl Drop for Heir {
    fn drop(&mut self) {
        signal_process(self.0, libc::SIGKILL);
    }
}

async fn stop(burdock: &mut Burdock) {
    burdock.signal(libc::SIGTERM);
    burdock.exit_code().await;
}

async fn differences(api: &mut Api) -> Vec<(String, String, Value, String)> {
    let status = api.status().await;
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let row = |it: &Value| {
        assert_eq!(it["by"], "api");
        (text(&it["id"]), text(&it["what"]), it["file"].clone(), text(&it["now"]))
    };
    status["differences"].as_array().expect("a list").iter().map(row).collect()
}

fn difference(name: &str, what: &str, file: Value, now: &str) -> (String, String, Value, String) {
    (format!("default/default/{name}"), what.to_owned(), file, now.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_is_watched_to_its_end_under_traffic() {
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    let rest = format!("session_affinity: true\n{SHORT_DRAIN}");
    let burdock = Burdock::start(&yaml(&[&a, &b], &rest)).await;
    let mut api = Api::of(&burdock);
    let load = Load::start(burdock.address(), 20, 200, "/");
    load.passes(100).await;
    let mut sockets = Vec::new();
    for _ in 0..6 {
        sockets.push(WebSocket::open(burdock.address(), "/ws", "").await);
    }
    let held = sockets.iter().filter(|socket| socket.instance() == "a").count();
    api.wait("a", |it| it["tunnels"] == held && it["sessions"].as_u64() > Some(0)).await;
    let told = api.steer("a", json!({ "state": "draining" })).await;
    assert_eq!(
        (&told["admin"], &told["takes"]["reason"]),
        (&json!("draining"), &json!("draining"))
    );
    assert_eq!(told["takes"], json!({ "new": false, "bound": true, "reason": "draining" }));
    assert_eq!(
        (&told["drain"]["cause"], &told["drain"]["done"]),
        (&json!("draining"), &json!(false))
    );
    let left = told["drain"]["deadline_seconds"].as_f64().unwrap();
    assert!(left > 5.0 && left <= 60.0, "drain.timeout: {told}");
    assert!(told["drain"]["sessions"].as_u64() > Some(0), "{told}");
    load.passes(100).await;
    assert!(load.in_use().contains("a"), "its sessions stay until the deadline");
    assert_eq!(burdock.client().get("/").await.instance(), "b");
    let told = api.steer("a", json!({ "deadline": "300ms" })).await;
    assert!(told["drain"]["deadline_seconds"].as_f64() <= Some(0.3), "{told}");
    for socket in sockets.iter_mut().filter(|socket| socket.instance() == "a") {
        let close = within("a close", socket.closed()).await;
        assert_eq!(close.map(|(code, _)| code), Some(1012));
    }
    load.leaves("a").await;
    let told = api.wait("a", |it| it["drain"]["done"] == true).await;
    assert_eq!(told["takes"], json!({ "new": false, "bound": false, "reason": "drained" }));
    assert_eq!((&told["drain"]["sessions"], &told["tunnels"]), (&json!(0), &json!(0)));
    let told = api.steer("a", json!({ "state": "active" })).await;
    assert_eq!((&told["drain"], &told["takes"]["new"]), (&Value::Null, &json!(true)));
    let seen = load.stop().await;
    assert_eq!(errors(&seen), [""; 0]);
    assert!(differences(&mut api).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_instance_is_cut_off_and_comes_back() {
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    let burdock = Burdock::start(&yaml(&[&a, &b], "session_affinity: true\n")).await;
    let mut api = Api::of(&burdock);
    let mut session = burdock.session();
    let name = session.get("/").await.instance().to_owned();
    let told = api.steer(&name, json!({ "state": "disabled" })).await;
    assert_eq!((&told["admin"], &told["drain"]["cause"]), (&json!("disabled"), &json!("disabled")));
    assert_ne!(session.get("/").await.instance(), name);
    api.steer(&name, json!({ "state": null })).await;
    assert!(differences(&mut api).await.is_empty());
    assert_eq!(api.instance(&name).await["admin"], "active");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_for_outlives_a_reload() {
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    let burdock = Burdock::start(&yaml(&[&a, &b], "")).await;
    let mut api = Api::of(&burdock);
    api.steer("a", json!({ "state": "disabled", "weight": 7 })).await;
    assert_eq!(api.status().await["config"]["generation"], 1, "no new file was read");
    let expected = [
        difference("a", "state", json!("active"), "disabled"),
        difference("a", "weight", json!("1"), "7"),
    ];
    assert_eq!(differences(&mut api).await, expected);
    burdock.reload(&yaml(&[&a, &b], "balance: random\n")).await;
    assert_eq!(differences(&mut api).await, expected);
    assert_eq!(api.instance("a").await["admin"], "disabled");
    // The file comes to say the same; then it says something else again.
    let disabled = format!("{{ name: a, address: {}, state: disabled }}", a.address);
    let active = format!("{{ name: a, address: {} }}", a.address);
    burdock.reload(&yaml(&[&a, &b], "").replace(&active, &disabled)).await;
    assert_eq!(differences(&mut api).await, expected[1..]);
    burdock.reload(&yaml(&[&a, &b], "balance: even\n")).await;
    assert_eq!(differences(&mut api).await, expected, "what is asked for stays until taken back");
    api.steer("a", json!({ "state": "active", "weight": null })).await;
    assert!(differences(&mut api).await.is_empty());
    // An instance that the file drops takes what was asked of it along.
    api.steer("b", json!({ "weight": 3 })).await;
    burdock.reload(&yaml(&[&a], "")).await;
    burdock.reload(&yaml(&[&a, &b], "")).await;
    assert!(differences(&mut api).await.is_empty());
    assert_eq!(api.instance("b").await["weight"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_for_outlives_a_restart() {
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    let c = Backend::start("c").await;
    let mut burdock = Burdock::start(&yaml(&[&a, &b], "")).await;
    assert!(!state_file(&burdock).exists(), "there is nothing to keep");
    let mut api = Api::of(&burdock);
    api.steer("a", json!({ "state": "draining", "deadline": "0s" })).await;
    api.wait("a", |it| it["takes"]["reason"] == "drained").await;
    assert_eq!(api.add("c", &c.address.to_string()).await.0, 201);
    let mode = std::fs::metadata(state_file(&burdock)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let expected = differences(&mut api).await;
    assert_eq!(expected.len(), 2);
    stop(&mut burdock).await;
    let mut second = again(&burdock).await;
    let mut api = Api::of(&second);
    assert_eq!(differences(&mut api).await, expected);
    api.wait("a", |it| it["takes"]["reason"] == "drained").await;
    assert_eq!(api.instance("c").await["source"], "api");
    let mut seen: Vec<String> = Vec::new();
    for _ in 0..4 {
        seen.push(second.client().get("/").await.instance().to_owned());
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen, ["b", "c"]);
    stop(&mut second).await;
    // A file that is no such thing is told of, set aside, and does not keep it from serving.
    std::fs::write(state_file(&burdock), "{\"format\": 1, \"overri").unwrap();
    let third = again(&burdock).await;
    assert!(third.output().contains("this is not what was changed at run time"));
    assert!(burdock.directory.join("burdock.yaml.state.damaged").exists());
    assert!(differences(&mut Api::of(&third)).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_file_can_be_elsewhere_or_nowhere_and_its_loss_is_told_of() {
    let a = Backend::start("a").await;
    let with = |state_file: &str| {
        let admin = format!("admin: {{ address: 127.0.0.1:0, state_file: {state_file} }}");
        yaml(&[&a], "").replace("admin: { address: 127.0.0.1:0 }", &admin)
    };
    let burdock = Burdock::start(&with("other.state")).await;
    let mut api = Api::of(&burdock);
    api.steer("a", json!({ "weight": 2 })).await;
    let kept = std::fs::read_to_string(burdock.directory.join("other.state")).unwrap();
    assert!(kept.contains("\"format\": 1") && !state_file(&burdock).exists(), "{kept}");
    assert_eq!(api.status().await["warnings"], json!([]));
    burdock.reload(&with("nowhere/at/all.state")).await;
    api.steer("a", json!({ "weight": 3 })).await;
    let warnings = api.status().await["warnings"].clone();
    assert_eq!(warnings[0]["code"], "state_not_kept", "{warnings}");
    burdock.reload(&with("off")).await;
    api.steer("a", json!({ "weight": 4 })).await;
    assert_eq!(api.status().await["warnings"], json!([]));
    assert_eq!(api.instance("a").await["weight"], 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_come_and_go_under_load_without_an_error() {
    let backends = Backend::several(&["a", "b", "c", "d"]).await;
    let rest = format!("session_affinity: true\n{SHORT_DRAIN}");
    let burdock = Burdock::start(&yaml(&[&backends[0], &backends[1]], &rest)).await;
    let mut api = Api::of(&burdock);
    let load = Load::start(burdock.address(), 20, 300, "/");
    load.passes(50).await;
    for round in 0..3 {
        for backend in &backends[2..] {
            let (status, told) = api.add(&backend.name, &backend.address.to_string()).await;
            // Named again before it is gone, it is there again.
            assert!(status == 201, "round {round}: {told}");
            assert_eq!((&told["source"], &told["membership"]), (&json!("api"), &json!("present")));
        }
        let served = backends[2].request_count();
        let client = burdock.address();
        while backends[2].request_count() == served {
            assert_eq!(Client::new(client).get("/").await.status, 200);
        }
        for backend in &backends[2..] {
            let path = format!("instances/default/default/{}?deadline=200ms", backend.name);
            let (status, told) = api.delete(&path).await;
            assert_eq!((status, &told["drain"]["cause"]), (202, &json!("removed")), "{told}");
            assert_eq!(told["source"], "api", "still, while it drains");
        }
    }
    api.wait("c", |it| it["status"] == 404).await;
    load.leaves("c").await;
    let seen = load.stop().await;
    assert_eq!(errors(&seen), [""; 0]);
    assert!(differences(&mut api).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn adding_the_same_twice_changes_nothing_and_others_are_refused() {
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    let burdock = Burdock::start(&yaml(&[&a], "")).await;
    let mut api = Api::of(&burdock);
    let address = b.address.to_string();
    assert_eq!(api.add("b", &address).await.0, 201);
    assert_eq!(api.add("b", &address).await.0, 200);
    let (status, told) = api.add("b", "127.0.0.1:1").await;
    assert_eq!(status, 409, "{told}");
    assert_eq!(api.add("c", &address).await.0, 409);
    assert_eq!(api.add("a", "127.0.0.1:1").await.0, 409);
    for (name, address) in
        [("", "127.0.0.1:1"), ("é", "127.0.0.1:1"), ("..", "127.0.0.1:1"), ("x", "y")]
    {
        let (status, told) = api.add(name, address).await;
        assert_eq!(status, 422, "{told}");
    }
    let (status, told) = api.delete("instances/default/default/a").await;
    let detail = "default/default/a is one of the file: remove it there, or disable it";
    assert_eq!((status, &told["detail"]), (409, &json!(detail)));
    // The file comes to name it: then it is the file's.
    burdock.reload(&yaml(&[&a, &b], "")).await;
    assert_eq!(api.instance("b").await["source"], "file");
    assert!(differences(&mut api).await.is_empty());
    assert_eq!(api.delete("instances/default/default/b").await.0, 409);
}

#[tokio::test(flavor = "multi_thread")]
async fn tunnels_are_moved_once_when_that_is_asked_for() {
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    let rest = "rebalance: { mode: never, max_per_minute: 6000, tolerance: 0% }\n";
    let burdock = Burdock::start(&yaml(&[&a], rest)).await;
    let mut sockets = Vec::new();
    for _ in 0..8 {
        sockets.push(WebSocket::open(burdock.address(), "/ws", "").await);
    }
    let mut api = Api::of(&burdock);
    api.wait("a", |it| it["tunnels"] == 8).await;
    assert_eq!(api.add("b", &b.address.to_string()).await.0, 201);
    let (status, told) = api.post("versions/default/default/rebalance", json!({})).await;
    assert_eq!((status, told), (202, json!({ "tunnels": 4 })));
    let told = api.wait("a", |it| it["tunnels"] == 4).await;
    assert_eq!(told["admin"], "active");
    assert_eq!(api.post("versions/default/v2/rebalance", json!({})).await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_passes_on_what_was_asked_for() {
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    let admin = "admin: { address: 127.0.0.1:0, state_file: off }";
    let text = yaml(&[&a, &b], "upgrade: { timeout: 300ms, spread: 0s }\n")
        .replace("admin: { address: 127.0.0.1:0 }", admin);
    let directory = support::burdock::scratch();
    let config = directory.join("burdock.yaml");
    std::fs::write(&config, text).unwrap();
    let arguments = ["run", "-c", "burdock.yaml", "--pid-file", "pid"];
    let mut burdock = Burdock::spawn(directory, config, &arguments).await;
    let mut api = Api::of(&burdock);
    api.steer("a", json!({ "state": "disabled" })).await;
    let before = differences(&mut api).await;
    burdock.signal(libc::SIGUSR2);
    let named = || {
        let text = std::fs::read_to_string(burdock.directory.join("pid")).ok()?;
        text.trim().parse::<i32>().ok().filter(|pid| *pid != burdock.pid())
    };
    let heir = Heir(eventually("an heir", named).await);
    burdock.exit_code().await;
    let mut api = Api::of(&burdock);
    let status = api.status().await;
    assert_eq!(status["burdock"]["pid"], heir.0);
    assert_eq!(differences(&mut api).await, before);
    assert_eq!(burdock.client().get("/").await.instance(), "b");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_process_takes_no_orders() {
    let a = Backend::start("a").await;
    let mut burdock =
        Burdock::start(&yaml(&[&a], "shutdown: { timeout: 60s, spread: 0s }\n")).await;
    let address = burdock.address();
    let waiting = tokio::spawn(async move { Client::new(address).get("/gate").await });
    a.request(1).await;
    burdock.signal(libc::SIGTERM);
    burdock.wait_log("draining", |_| true).await;
    let mut api = Api::of(&burdock);
    assert_eq!(api.patch("instances/default/default/a", json!({ "weight": 2 })).await.0, 503);
    while api.status().await["burdock"]["phase"] != "draining" {
        support::pause().await;
    }
    a.open_gate(1);
    assert_eq!(waiting.await.unwrap().status, 200);
    assert_eq!(burdock.exit_code().await, 0);
}
