//! Real clients through the built binary: socket.io on node, python-socketio, and a Flask app that
//! keeps its sessions in memory. What a user of those sees, nothing of Burdock's inside.

#![allow(clippy::unwrap_used, reason = "a helper of a test may panic, as the test may")]

mod support_clients;

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use support_clients::process::Process;
use support_clients::{Site, binary, whole_machine};

const CLIENTS: usize = 50;
const MESSAGES: usize = 20;
/// A bound for a stuck run; each takes a few seconds.
const RUN_TIMEOUT: Duration = Duration::from_secs(15);
/// What a client may miss beside its own waiting before it tries again.
const OUTAGE_LIMIT_MS: u64 = 2000;

const POLLING: &str = "polling";
const UPGRADING: &str = "polling,websocket";
const WEBSOCKET: &str = "websocket";

#[test]
fn without_affinity_long_polling_breaks() {
    let _machine = whole_machine();
    let mut site = Site::start("server.mjs", false);
    let mut clients = node_clients(&site, POLLING, &[]);
    wait_for_event(&mut clients, "broken");
    let warning = site.wait_for_line("sid_unknown");
    assert!(warning.contains("WARN") && warning.contains("session_affinity: true"), "{warning}");
    clients.say("stop");
    let summary = summary(&mut clients);

    let refused: u64 = counts(&summary["errors"])
        .iter()
        .filter(|(text, _)| text.contains(r#"400 {"code":1,"message":"Session ID unknown"}"#))
        .map(|(_, count)| count)
        .sum();
    assert!(refused >= CLIENTS as u64, "{refused} refused: {summary:#}");
}

#[test]
fn affinity_keeps_long_polling_whole() {
    all_messages_arrive(POLLING, POLLING);
}

#[test]
fn affinity_keeps_the_upgrade_to_websocket_whole() {
    all_messages_arrive(UPGRADING, WEBSOCKET);
}

#[test]
fn affinity_keeps_plain_websockets_whole() {
    all_messages_arrive(WEBSOCKET, WEBSOCKET);
}

/// Neither a cookie nor a header: the id that the server gave out is all that a request brings.
#[test]
fn clients_that_keep_no_cookie_are_kept_by_their_session_id() {
    let _machine = whole_machine();
    let lines = "session_affinity: true\naffinity: { engine_io: true }\n";
    let site = Site::configured("server.mjs", lines);
    for (transports, last_transport) in [(POLLING, POLLING), (UPGRADING, WEBSOCKET)] {
        let more = ["--messages", "20", "--forgetful"];
        let summary = summary(&mut node_clients(&site, transports, &more));
        assert_eq!(summary["acknowledged"], CLIENTS * MESSAGES, "{summary:#}");
        let used = BTreeMap::from([(last_transport.to_owned(), CLIENTS as u64)]);
        assert_eq!(counts(&summary["by_transport"]), used, "{summary:#}");
        let clients = summary["by_client"].as_array().unwrap();
        assert!(clients.iter().all(|client| client["cookies"] == 0), "{summary:#}");
        assert_unharmed(&summary);
        assert_even_spread(&summary, CLIENTS as u64);
    }
}

#[test]
fn killed_server_moves_its_long_polling_clients_only() {
    killed_server_moves_its_clients_only(POLLING);
}

#[test]
fn killed_server_moves_its_upgraded_clients_only() {
    killed_server_moves_its_clients_only(UPGRADING);
}

#[test]
fn killed_server_moves_its_websocket_clients_only() {
    killed_server_moves_its_clients_only(WEBSOCKET);
}

#[test]
fn python_socketio_clients_stay_on_their_server() {
    let _machine = whole_machine();
    let site = Site::start("socketio_server.py", true);
    for transports in [POLLING, UPGRADING, WEBSOCKET] {
        let arguments = ["--transports", transports, "--clients", "9", "--messages", "20"];
        let summary = summary(&mut site.run_clients("socketio_clients.py", &arguments));
        assert_eq!(summary["acknowledged"], 9 * 20, "{summary:#}");
        assert_unharmed(&summary);
        assert_even_spread(&summary, 9);
    }
}

#[test]
fn flask_sessions_in_memory_survive_behind_affinity() {
    let _machine = whole_machine();
    let site = Site::start("flask_server.py", true);
    let summary = summary(&mut site.run_clients("cookie_sessions.py", &[]));
    assert_eq!(counts(&summary["statuses"]), BTreeMap::from([("200".into(), 310)]), "{summary:#}");
    assert_eq!(
        counts(&summary["cookies"]),
        BTreeMap::from([("BURDOCK app_session".into(), 31)]),
        "{summary:#}"
    );
    assert_eq!(summary["wrong_counts"], 0, "{summary:#}");
    assert_eq!(summary["moves"], 0, "{summary:#}");
    assert_even_spread(&summary, 31);
}

/// The control to the test above: it shows that the sessions would not have survived by luck.
#[test]
fn flask_sessions_in_memory_are_lost_without_affinity() {
    let _machine = whole_machine();
    let site = Site::start("flask_server.py", false);
    let summary = summary(&mut site.run_clients("cookie_sessions.py", &[]));
    assert!(counts(&summary["statuses"])["401"] > 100, "{summary:#}");
}

fn all_messages_arrive(transports: &str, last_transport: &str) {
    let _machine = whole_machine();
    let site = Site::start("server.mjs", true);
    let messages = MESSAGES.to_string();
    let summary = summary(&mut node_clients(&site, transports, &["--messages", &messages]));

    assert_eq!(summary["sent"], CLIENTS * MESSAGES, "{summary:#}");
    assert_eq!(summary["acknowledged"], CLIENTS * MESSAGES, "{summary:#}");
    assert_eq!(summary["pushed"], CLIENTS * MESSAGES, "{summary:#}");
    assert_eq!(summary["lost"], 0, "{summary:#}");
    assert_eq!(summary["resent"], 0, "{summary:#}");
    assert_eq!(
        counts(&summary["by_transport"]),
        BTreeMap::from([(last_transport.to_owned(), CLIENTS as u64)]),
        "{summary:#}"
    );
    for client in summary["by_client"].as_array().unwrap() {
        // On a 101 too, or a client that only speaks WebSocket would never have one.
        assert_eq!(client["cookies"], 1, "{client}");
    }
    assert_unharmed(&summary);
    assert_even_spread(&summary, CLIENTS as u64);
}

fn killed_server_moves_its_clients_only(transports: &str) {
    let _machine = whole_machine();
    let mut site = Site::start("server.mjs", true);
    let mut clients = node_clients(&site, transports, &[]);
    let mut on_a = 0;
    clients.wait_for("steady", RUN_TIMEOUT, |line| {
        let line: Value = serde_json::from_str(line).ok()?;
        on_a += usize::from(line["event"] == "connected" && line["instance"] == "a");
        (line["event"] == "steady").then_some(())
    });

    site.kill("a");
    for _ in 0..on_a {
        wait_for_event(&mut clients, "resumed");
    }
    clients.say("stop");
    let summary = summary(&mut clients);

    let (moved, others): (Vec<&Value>, Vec<&Value>) = summary["by_client"]
        .as_array()
        .unwrap()
        .iter()
        .partition(|client| client["instances"][0] == "a");
    assert_eq!(moved.len(), on_a, "{summary:#}");
    assert_ne!(on_a, 0, "{summary:#}");
    for client in &moved {
        let instances = client["instances"].as_array().unwrap();
        assert_eq!(instances.len(), 2, "{client}");
        assert_ne!(instances[1], "a", "{client}");
        assert_eq!(client["disconnects"], 1, "{client}");
    }
    for client in &others {
        assert_eq!(client["instances"].as_array().unwrap().len(), 1, "{client}");
        assert_eq!(client["disconnects"], 0, "{client}");
        assert_eq!(client["errors"], 0, "{client}");
    }
    assert_eq!(summary["reconnects"], moved.len(), "{summary:#}");
    assert_eq!(summary["lost"], 0, "{summary:#}");
    assert_eq!(summary["mismatched"], 0, "{summary:#}");
    assert_eq!(summary["out_of_order"], 0, "{summary:#}");
    let outage = summary["outage_ms"]["max"].as_u64().unwrap();
    assert!(outage < OUTAGE_LIMIT_MS, "{outage} ms: {summary:#}");
    println!("{transports}: {} clients moved, outage {}", moved.len(), summary["outage_ms"]);
}

/// Servers die by a command of the drill; what it then tells, the clients have counted as well.
#[test]
fn a_drill_counts_what_the_clients_count() {
    let _machine = whole_machine();
    let site = Site::start("server.mjs", true);
    let mut clients = node_clients(&site, WEBSOCKET, &[]);
    wait_for_event(&mut clients, "steady");
    let (process, instance) = site.server("a");
    let scenario = format!(
        "duration: 6s\nsafety: {{ min_healthy: 2 }}\nsteps:\n  - at: 1s\n    \
         exec: {{ run: [kill, \"-9\", \"{process}\"], who: \"{instance}\" }}\n    \
         expect: {{ detect_within: 4s, rehome_within: 4s, moved: {{ at_least: 1 }} }}\n\
         expect: {{ errors: 0, needless_moves: 0 }}\n"
    );
    let [file, report] = ["scenario.yaml", "report.json"].map(|name| site.file(name));
    std::fs::write(&file, scenario).unwrap();
    let drill = std::process::Command::new(binary())
        .arg("drill")
        .arg(&file)
        .args(["--admin", site.admin(), "--allow-exec", "--json"])
        .arg(&report)
        .output()
        .expect("the drill");
    let output = String::from_utf8_lossy(&[drill.stdout, drill.stderr].concat()).into_owned();
    assert_eq!(drill.status.code(), Some(0), "{output}");
    clients.say("stop");
    let summary = summary(&mut clients);
    let report: Value = serde_json::from_slice(&std::fs::read(&report).unwrap()).unwrap();
    let on_a = summary["by_client"].as_array().unwrap().iter();
    let on_a = on_a.filter(|client| client["instances"][0] == "a").count() as u64;
    assert!(on_a > 0 && summary["moves"] == on_a, "{summary:#}");
    let told = ["error_count", "moves", "tunnels", "rehomes"].map(|key| &report[key]);
    let [errors, moves, tunnels, rehomes] = told;
    // A tunnel that broke is an error to its client, and no request that failed.
    let (broken, failed): (Vec<_>, Vec<_>) = counts(&summary["errors"])
        .into_iter()
        .partition(|(what, _)| what.contains("transport close"));
    let sum = |of: &[(String, u64)]| of.iter().map(|(_, count)| count).sum::<u64>();
    assert_eq!(*errors, sum(&failed), "{summary:#}");
    assert_eq!(tunnels["causes"]["instance"], sum(&broken), "{tunnels} {summary:#}");
    assert_eq!(moves["total"], summary["moves"], "{rehomes} {summary:#}");
    assert_eq!(counts(rehomes).values().sum::<u64>(), on_a, "{rehomes}");
    assert_eq!(tunnels["causes"]["instance"], summary["disconnects"], "{tunnels} {summary:#}");
    assert_eq!(tunnels["opened"], summary["reconnects"], "{tunnels} {summary:#}");
    println!("errors {errors}, {moves} by {rehomes}, tunnels {tunnels}");
}

fn node_clients(site: &Site, transports: &str, more: &[&str]) -> Process {
    let clients = CLIENTS.to_string();
    let arguments: Vec<&str> =
        ["--transports", transports, "--clients", &clients].iter().chain(more).copied().collect();
    site.run_clients("clients.mjs", &arguments)
}

fn wait_for_event(clients: &mut Process, event: &str) -> Value {
    clients.wait_for(event, RUN_TIMEOUT, |line| {
        let line: Value = serde_json::from_str(line).ok()?;
        (line["event"] == event).then_some(line)
    })
}

fn summary(clients: &mut Process) -> Value {
    wait_for_event(clients, "summary")
}

fn counts(value: &Value) -> BTreeMap<String, u64> {
    let object = value.as_object().unwrap();
    object.iter().map(|(key, count)| (key.clone(), count.as_u64().unwrap())).collect()
}

fn assert_unharmed(summary: &Value) {
    assert_eq!(counts(&summary["errors"]), BTreeMap::new(), "{summary:#}");
    for count in ["disconnects", "moves", "mismatched", "out_of_order"] {
        assert_eq!(summary[count], 0, "{count}: {summary:#}");
    }
}

/// Exact, as the even default promises: nothing failed, so no two instances differ by more than one.
fn assert_even_spread(summary: &Value, sessions: u64) {
    let instances = counts(&summary["instances"]);
    assert_eq!(instances.len(), 3, "{summary:#}");
    assert_eq!(instances.values().sum::<u64>(), sessions, "{summary:#}");
    let (least, most) = (instances.values().min(), instances.values().max());
    assert!(most.unwrap() - least.unwrap() <= 1, "{summary:#}");
}
