//! Drills on a running balancer: what they do to its requests and instances, what undoes them, and what is
//! left of them, which is nothing.

use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::burdock::{binary, scratch, send_signal};
use crate::support::client::Request;
use crate::support::ws::{self, WebSocket};
use crate::support::{self, Api, Backend, Burdock, FAST_CHECKS, Load, yaml};

async fn balancer(backends: &[&Backend], more: &str) -> Burdock {
    let text = format!("session_affinity: true\nbreaker: off\n{FAST_CHECKS}{more}");
    let burdock = Burdock::start(&yaml(backends, &text)).await;
    for backend in backends {
        burdock.wait_health(&backend.name, "ready").await;
    }
    burdock
}

async fn three() -> (Vec<Backend>, Burdock) {
    let backends = Backend::several(&["a", "b", "c"]).await;
    let burdock = balancer(&backends.iter().collect::<Vec<_>>(), "").await;
    (backends, burdock)
}

async fn begun(api: &mut Api, more: Value) -> String {
    let mut terms =
        json!({ "name": "test", "holder": "me", "max_duration": "60s", "lease": "60s" });
    for (key, value) in more.as_object().expect("fields") {
        terms[key] = value.clone();
    }
    let (status, told) = api.post("drill", terms).await;
    assert_eq!(status, 201, "{told}");
    told["id"].as_str().expect("an id").to_owned()
}

async fn injected(api: &mut Api, id: &str, kind: &str, names: &[&str], more: Value) -> u64 {
    let (status, told) = inject(api, id, kind, names, more).await;
    assert_eq!(status, 201, "{told}");
    told["number"].as_u64().expect("a number")
}

async fn inject(api: &mut Api, id: &str, kind: &str, names: &[&str], more: Value) -> (u16, Value) {
    let instances: Vec<_> = names.iter().map(|name| format!("default/default/{name}")).collect();
    let mut fault = json!({ "kind": kind, "instances": instances });
    for (key, value) in more.as_object().expect("fields") {
        fault[key] = value.clone();
    }
    api.post(&format!("drill/{id}/faults"), fault).await
}

/// Until no drill runs; gives the last one.
async fn over(api: &mut Api) -> Value {
    let begun = std::time::Instant::now();
    loop {
        let (_, told) = api.get("drill").await;
        if told["running"].is_null() {
            return told["last"].clone();
        }
        assert!(begun.elapsed() < support::DEADLINE, "it never ends: {told}");
        support::pause().await;
    }
}

async fn stands(api: &mut Api, name: &str) -> (String, String) {
    let it = api.instance(name).await;
    let word = |key: &str| it[key].as_str().expect("a word").to_owned();
    (word("admin"), word("health"))
}

fn well() -> (String, String) {
    ("active".to_owned(), "ready".to_owned())
}

fn shipped(name: &str) -> String {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "config/drills", name].iter().collect();
    path.display().to_string()
}

/// The command, under way.
struct Drill {
    child: Option<Child>,
    folder: PathBuf,
}

impl Drill {
    fn start(scenario: &str, burdock: &Burdock, more: &[&str]) -> Self {
        let folder = scratch();
        let child = Command::new(binary())
            .args(["drill", scenario, "--admin", &format!("http://{}", burdock.admin())])
            .args(["--json", "report.json", "--html", "report.html"])
            .args(more)
            .current_dir(&folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start the binary");
        Self { child: Some(child), folder }
    }

    fn of(text: &str, burdock: &Burdock, more: &[&str]) -> Self {
        let path = scratch().join("scenario.yaml");
        std::fs::write(&path, text).expect("write a scenario");
        Self::start(&path.display().to_string(), burdock, more)
    }

    async fn end(mut self) -> (Option<i32>, String, Value) {
        let child = self.child.take().expect("one that runs");
        let ended = tokio::task::spawn_blocking(move || child.wait_with_output());
        let Output { status, stdout, stderr } = ended.await.expect("no panic").expect("its output");
        let report = std::fs::read_to_string(self.folder.join("report.json")).unwrap_or_default();
        let text = String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned();
        (status.code(), text, serde_json::from_str(&report).unwrap_or_default())
    }
}

/// At once, each on a balancer of its own.
#[tokio::test(flavor = "multi_thread")]
async fn shipped_drills_pass_on_a_balancer_that_serves() {
    tokio::join!(
        passes("live-eject-one", "eject", false),
        passes("live-drain-one", "drain", false),
        passes("live-delay-marked", "delay", true),
    );
}

async fn passes(name: &str, kind: &str, drives: bool) {
    let (_backends, burdock) = three().await;
    let load = Load::start(burdock.address(), 12, 60, "/");
    load.settles().await;
    let mut api = Api::of(&burdock);
    let url = format!("http://{}/", burdock.address());
    let more = if drives { vec!["--load", &*url] } else { Vec::new() };
    let drill = Drill::start(&shipped(&format!("{name}.yaml")), &burdock, &more);
    let told = eventually_fault(&mut api).await;
    let active = [("drill", name)];
    assert_eq!(burdock.metrics().await.sum("burdock_drill_active", &active), 1.0);
    let (status, other) = api.post("drill", json!({ "name": "x", "max_duration": "5s" })).await;
    assert_eq!((status, other["detail"].to_string().contains(name)), (409, true), "{other}");
    let folder = drill.folder.clone();
    let (code, output, report) = drill.end().await;
    assert_eq!(code, Some(0), "{output}\n{told}\n{}", burdock.output());
    assert!(report["requests"].as_u64() > Some(20), "{report}");
    let page = std::fs::read_to_string(folder.join("report.html")).expect("a page");
    assert!(page.contains("the balancer at http://") && !page.contains("<script"));
    assert_eq!(over(&mut api).await["verdict"], "passed");
    for name in ["a", "b", "c"] {
        assert_eq!(stands(&mut api, name).await, well(), "{name}");
    }
    assert_eq!(support::load::errors(&load.stop().await), Vec::<String>::new());
    let metrics = burdock.metrics().await;
    assert_eq!(metrics.sum("burdock_drill_active", &active), 0.0);
    assert_eq!(metrics.sum("burdock_drill_faults_total", &[("kind", kind)]), 1.0, "{kind}");
    let moved = metrics.sum("burdock_rehomes_total", &[("reason", "unready")]);
    assert_eq!(moved > 0.0, kind == "eject", "{moved}");
    if drives {
        let slowest = report["latency"]["sessions"]["p99"].as_f64();
        assert!(slowest >= Some(300.0), "{report}");
    }
    let (_, events) = api.get("events?format=json").await;
    let events =
        events["events"].as_array().expect("a list").iter().filter(|it| it["kind"] == "drill");
    let stages: Vec<_> =
        events.map(|it| it["fields"]["stage"].as_str().expect("a stage")).collect();
    assert_eq!(stages, ["began", "injected", "undone", "ended"]);
    assert!(burdock.output().contains(&format!("the drill {name} has ended: passed")));
}

async fn eventually_fault(api: &mut Api) -> Value {
    let begun = std::time::Instant::now();
    loop {
        let told = api.status().await;
        if told["drill"]["faults"].as_array().is_some_and(|faults| !faults.is_empty()) {
            return told["drill"].clone();
        }
        assert!(begun.elapsed() < support::DEADLINE, "no fault: {}", told["drill"]);
        support::pause().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn aborts_and_delays_meet_exactly_those_requests_that_they_are_for() {
    let a = Backend::start("a").await;
    let burdock = balancer(&[&a], "").await;
    let (mut api, mut client) = (Api::of(&burdock), burdock.client());
    let id = begun(&mut api, json!({ "min_healthy": 0 })).await;
    let quarter = json!({ "status": 418, "share": "25%" });
    let number = injected(&mut api, &id, "abort", &["a"], quarter).await;
    let mut statuses = Vec::new();
    for _ in 0..12 {
        statuses.push(client.get("/").await.status);
    }
    assert_eq!(statuses.iter().filter(|status| **status == 418).count(), 3, "{statuses:?}");
    assert_eq!(a.request_count(), 9, "what is aborted reaches nobody");
    let (_, told) = api.get("drill").await;
    assert_eq!(told["running"]["faults"][0]["requests_struck"], 3);
    assert_eq!(api.delete(&format!("drill/{id}/faults/{number}")).await.0, 200);

    let marked = json!({ "status": 503, "header": "x-drill", "value": "1" });
    injected(&mut api, &id, "abort", &["a"], marked).await;
    let delay = json!({ "by": "300ms", "header": "x-late" });
    injected(&mut api, &id, "delay", &["a"], delay).await;
    let aborted = client.send(&Request::post("/", b"body").with("x-drill", "1")).await;
    assert_eq!((aborted.status, &*aborted.text()), (503, "aborted by a drill\n"));
    assert_eq!(client.send(&Request::get("/").with("x-drill", "2")).await.status, 200);
    let (_conn, head) = ws::dial(burdock.address(), &ws::request("/ws", "x-drill: 1\r\n")).await;
    assert!(head.start.contains(" 503 "), "{}", head.start);
    WebSocket::open(burdock.address(), "/ws", "").await.echo("still there").await;
    let began = std::time::Instant::now();
    assert_eq!(client.send(&Request::get("/").with("x-late", "")).await.status, 200);
    assert!(began.elapsed() >= Duration::from_millis(300), "{:?}", began.elapsed());
    let ended = api.delete(&format!("drill/{id}?verdict=passed")).await;
    assert_eq!((ended.0, &ended.1["last"]["verdict"]), (200, &json!("passed")));
    assert_eq!(client.send(&Request::get("/").with("x-drill", "1")).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delay_counts_as_the_instances_own_for_its_limits_and_aborts_for_retries() {
    let backends = Backend::several(&["a", "b"]).await;
    let more = "timeouts: { first_byte: 1s }\nretry: { statuses: [503] }\n";
    let burdock = balancer(&backends.iter().collect::<Vec<_>>(), more).await;
    let (mut api, mut client) = (Api::of(&burdock), burdock.client());
    let id = begun(&mut api, json!({ "min_healthy": 0 })).await;
    let number = injected(&mut api, &id, "abort", &["a"], json!({ "status": 503 })).await;
    for _ in 0..4 {
        assert_eq!(client.get("/").await.instance(), "b", "another is asked");
    }
    assert_eq!(api.delete(&format!("drill/{id}/faults/{number}")).await.0, 200);
    injected(&mut api, &id, "delay", &["a", "b"], json!({ "by": "5s" })).await;
    let late = client.get("/").await;
    assert_eq!((late.status, late.text().contains("first_byte_timeout")), (504, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_balancer_undoes_everything_when_it_must() {
    let (backends, burdock) = three().await;
    let mut api = Api::of(&burdock);
    // Its holder is gone.
    let id = begun(&mut api, json!({ "lease": "500ms" })).await;
    injected(&mut api, &id, "eject", &["a"], json!({ "as": "dead" })).await;
    assert_eq!(stands(&mut api, "a").await.1, "dead");
    let last = over(&mut api).await;
    assert_eq!(last["verdict"], "nothing was heard of its holder for 500ms, its lease");
    assert_eq!(stands(&mut api, "a").await, well());
    let (status, told) = api.post(&format!("drill/{id}/heartbeat"), json!({})).await;
    assert_eq!(status, 410, "{told}");
    // It has had its time.
    let id = begun(&mut api, json!({ "max_duration": "1s" })).await;
    injected(&mut api, &id, "disable", &["a"], json!({})).await;
    assert_eq!(over(&mut api).await["verdict"], "it has lasted for 1s, its max_duration");
    assert_eq!(stands(&mut api, "a").await, well());
    // Another instance fails for real.
    let id = begun(&mut api, json!({ "min_healthy": 2 })).await;
    injected(&mut api, &id, "eject", &["a"], json!({})).await;
    let (status, told) = inject(&mut api, &id, "drain", &["b"], json!({})).await;
    let why = "default/default would have 1 healthy instances, and min_healthy is 2";
    assert_eq!((status, &told["detail"]), (409, &json!(why)));
    backends[1].ready(false);
    let why = "default/default has 1 healthy instances, and min_healthy is 2";
    assert_eq!(over(&mut api).await["verdict"], why);
    assert_eq!(stands(&mut api, "a").await, well());
    assert_eq!(stands(&mut api, "b").await.1, "unready", "what is real stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_go_first_and_files_know_nothing_of_drills() {
    let (_backends, mut burdock) = three().await;
    let mut api = Api::of(&burdock);
    api.steer("c", json!({ "state": "draining" })).await;
    let id = begun(&mut api, json!({ "min_healthy": 0 })).await;
    let (status, told) = inject(&mut api, &id, "disable", &["c"], json!({})).await;
    assert_eq!(status, 409, "{told}");
    injected(&mut api, &id, "disable", &["a", "b"], json!({})).await;
    let steered = api.steer("a", json!({ "state": "active" })).await;
    assert_eq!(steered["admin"], "active", "{steered}");
    let kept = std::fs::read_to_string(burdock.config.with_extension("yaml.state")).unwrap();
    assert!(kept.contains("draining") && !kept.contains("disabled"), "{kept}");
    burdock.signal(libc::SIGTERM);
    burdock.exit_code().await;
    assert!(burdock.output().contains("the balancer is stopping"));
    let path = burdock.config.display().to_string();
    let (folder, config) = (burdock.directory.clone(), burdock.config.clone());
    let again = Burdock::spawn(folder, config, &["run", "-c", &path]).await;
    let mut api = Api::of(&again);
    let states = [stands(&mut api, "b").await.0, stands(&mut api, "c").await.0];
    assert_eq!(states, ["active", "draining"]);
    assert_eq!(api.get("drill").await.1, json!({ "running": null, "last": null }));
}

const LONG: &str =
    "duration: 60s\nsteps:\n  - { at: 0s, eject: { who: a, as: dead } }\nexpect: { errors: 0 }\n";

#[tokio::test(flavor = "multi_thread")]
async fn the_command_ends_early_with_everything_undone_and_a_report() {
    let (backends, burdock) = three().await;
    let mut api = Api::of(&burdock);
    let drill = Drill::of(LONG, &burdock, &[]);
    eventually_fault(&mut api).await;
    send_signal(drill.child.as_ref().unwrap(), libc::SIGINT);
    let (code, output, report) = drill.end().await;
    assert_eq!((code, &report["interrupted"]), (Some(4), &json!(true)), "{output}");
    assert_eq!(over(&mut api).await["verdict"], "interrupted");
    assert_eq!(stands(&mut api, "a").await, well());

    let safe = LONG.replace("steps:", "safety: { min_healthy: 2 }\nsteps:");
    let drill = Drill::of(&safe, &burdock, &[]);
    eventually_fault(&mut api).await;
    backends[1].ready(false);
    let (code, output, report) = drill.end().await;
    assert_eq!(code, Some(4), "{output}");
    assert!(output.contains("ended by the balancer after"), "{output}");
    let why = report["aborted"].as_str().unwrap();
    assert!(why.contains("has 1 healthy instances, and min_healthy is 2"), "{why}");
    backends[1].ready(true);
    burdock.wait_health("b", "ready").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_refused_before_anything_is_done() {
    let (_backends, burdock) = three().await;
    let text =
        |steps: &str| format!("duration: 5s\nsafety: {{ min_healthy: 3 }}\nsteps: {steps}\n");
    let exec = "[{ at: 1s, exec: [\"true\"] }]";
    for (text, code, wanted) in [
        (
            text("[{ at: 0s, disable: a }]"),
            1,
            "would have 2 healthy instances, and min_healthy is 3",
        ),
        (text("[{ at: 0s, disable: x }]"), 3, "no instance \"x\" by then; there are a, b, c"),
        (text("[{ at: 0s, crash: a }]"), 3, "not possible on a running balancer; allowed: eject"),
        (text(exec), 1, "--allow-exec lets it"),
    ] {
        let (ended, output, _) = Drill::of(&text, &burdock, &[]).end().await;
        assert_eq!(ended, Some(code), "{output}");
        assert!(output.contains(wanted), "{wanted}: {output}");
    }
    let mut api = Api::of(&burdock);
    for (fault, wanted) in [
        (json!({ "kind": "crash" }), "kind: allowed: eject, drain, disable, delay, abort"),
        (json!({ "kind": "eject", "as": "tired" }), "as: allowed: unready, dead"),
        (json!({ "kind": "eject", "by": "1s" }), "by: not allowed with eject"),
        (json!({ "kind": "delay" }), "by: needed with delay"),
        (json!({ "kind": "delay", "by": "61s" }), "by: allowed: a duration from 1ms to 1m"),
        (json!({ "kind": "abort" }), "status: needed with abort"),
        (json!({ "kind": "abort", "status": 200 }), "status: allowed: 400 to 599"),
        (json!({ "kind": "abort", "status": 503, "share": "101%" }), "share: allowed"),
        (json!({ "kind": "abort", "status": 503, "value": "x" }), "value: allowed beside header"),
        (json!({ "kind": "abort", "status": 503, "header": "a b" }), "header: allowed"),
        (json!({ "kind": "eject", "whom": "x" }), "unknown field"),
    ] {
        let mut fault = fault;
        fault["instances"] = json!(["default/default/a"]);
        let (status, told) = api.post("drill/x/faults", fault.clone()).await;
        assert_eq!(status, 422, "{fault}: {told}");
        assert!(told["detail"].to_string().contains(wanted), "{fault}: {told}");
    }
    for (more, wanted) in [
        (json!({ "name": "a\nb" }), "name: allowed"),
        (json!({ "max_duration": "2h" }), "max_duration: allowed: a duration from 1s to 1h"),
        (json!({ "lease": "100ms" }), "lease: allowed: a duration from 500ms to 1m"),
        (json!({ "min_healthy": "many" }), "min_healthy: allowed"),
        (json!({ "versions": ["x"] }), "versions: allowed: SERVICE/VERSION each"),
    ] {
        let mut terms = json!({ "name": "x", "max_duration": "5s" });
        for (key, value) in more.as_object().unwrap() {
            terms[key] = value.clone();
        }
        let (status, told) = api.post("drill", terms).await;
        assert_eq!((status, told["detail"].to_string().contains(wanted)), (422, true), "{told}");
    }
    assert_eq!(api.delete("drill").await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_token_nothing_begins() {
    let a = Backend::start("a").await;
    let directory = scratch();
    std::fs::write(directory.join("admin.token"), "correct-horse-battery-staple\n").unwrap();
    let config = directory.join("burdock.yaml");
    let admin = "admin: { address: 127.0.0.1:0, token_file: admin.token }";
    let text = yaml(&[&a], "").replace("admin: { address: 127.0.0.1:0 }", admin);
    std::fs::write(&config, text).unwrap();
    let burdock = Burdock::spawn(directory, config, &["run", "-c", "burdock.yaml"]).await;
    let text =
        "duration: 1s\nsafety: { min_healthy: 0 }\nsteps: [{ at: 0s, disable: a, for: 100ms }]\n";
    let (code, output, _) = Drill::of(text, &burdock, &[]).end().await;
    assert_eq!((code, output.contains("wants a token")), (Some(1), true), "{output}");
    let mut stranger = Api::of(&burdock);
    for path in ["drill", "drill/x/faults", "drill/x/heartbeat"] {
        assert_eq!(stranger.post(path, json!({})).await.0, 401, "{path}");
    }
    let token = burdock.directory.join("admin.token").display().to_string();
    let (code, output, _) = Drill::of(text, &burdock, &["--token-file", &token]).end().await;
    assert_eq!(code, Some(0), "{output}");
}
