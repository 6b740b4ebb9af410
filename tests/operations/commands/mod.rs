//! The commands that ask and steer a running balancer: what they print, what they send, how they end.
//! Against the admin API's JSON as it is written down; `operate.rs` has some against a real one.

#![allow(
    unreachable_pub,
    missing_docs,
    missing_debug_implementations,
    clippy::unwrap_used,
    reason = "a test may panic, and nobody reads its documentation elsewhere"
)]

mod stub;

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use stub::{Answer, Asked, Stub};

use crate::support::burdock::{run_in, scratch};

/// Exit code, standard output, standard error.
fn run(stub: &Stub, arguments: &[&str]) -> (Option<i32>, String, String) {
    run_with(arguments, &[("BURDOCK_ADMIN", &stub.url())])
}

fn run_with(arguments: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let folder = scratch();
    let output = run_in(&folder, arguments, variables);
    drop(std::fs::remove_dir_all(folder));
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// A page that somebody has looked at.
fn looked_at(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/operations/commands");
    std::fs::read_to_string(folder.join(name).with_extension("txt")).unwrap()
}

fn instance(id: &str, rest: &Value) -> Value {
    let name = id.rsplit('/').next().unwrap();
    let mut instance = json!({
        "id": id, "name": name, "address": "127.0.0.1:9001", "source": "file", "weight": 1,
        "effective_weight": 1, "membership": "present", "admin": "active", "health": "ready",
        "breaker": "closed", "takes": { "new": true, "bound": true, "reason": null },
        "drain": null, "sessions": 10, "requests": 3, "tunnels": 4,
        "rates": { "requests_total": 9, "failures_total": 0, "requests_per_second": 12.5,
                   "errors_per_second": 0.0,
                   "latency_seconds": { "p50": 0.001, "p90": 0.002, "p99": 0.0042 } },
        "probes": { "readiness": { "at": "2026-11-29T06:00:00.000Z", "ok": true,
                                   "detail": "200 in 3 ms" }, "liveness": null },
        "restarts": 0, "something_new": [1],
    });
    for (key, value) in rest.as_object().unwrap() {
        instance[key] = value.clone();
    }
    instance
}

fn status() -> Value {
    let drain = json!({ "cause": "draining", "deadline_seconds": 17.2, "sessions": 412,
                        "tunnels": 37, "requests": 3, "done": false });
    let b = json!({ "admin": "draining", "drain": drain, "sessions": 412, "tunnels": 37 });
    let c = json!({ "health": "unready", "effective_weight": 0.5, "sessions": 0, "tunnels": 0,
        "rates": { "errors_per_second": 1.5, "latency_seconds": null },
        "probes": { "readiness": { "ok": false, "detail": "503 from /readyz\u{1b}[2J" },
                    "liveness": null } });
    json!({
        "burdock": { "version": "0.1.0", "pid": 4711, "started": "2026-11-29T06:00:00.000Z",
                     "uptime_seconds": 7300.5, "workers": 2, "phase": "serving" },
        "config": { "generation": 3, "file": "/etc/burdock.yaml",
                    "last_reload": { "ok": false, "at": "x", "problems": ["a", "b"] } },
        "connections": { "open": 12, "total": 345 },
        "descriptors": { "max": 1024, "short": false },
        "totals": { "requests_per_second": 37.5, "errors_per_second": 1.5,
                    "latency_seconds": { "p50": 0.0012, "p90": 0.004, "p99": 0.0081 } },
        "listeners": [{ "address": "127.0.0.1:8080", "tls": false, "http2": true,
                        "proxy_protocol": "off" }],
        "services": [
            { "name": "chat", "hosts": ["*"], "paths": ["/"], "versions": [{ "name": "v1",
              "session_affinity": true, "balance": "even", "panic": false, "queue": 0,
              "rates": {}, "affinity": {}, "rehomes": { "unready": 5, "dead": 1 },
              "instances": [instance("chat/v1/a", &json!({})), instance("chat/v1/b", &b),
                            instance("chat/v1/c", &c)] }] },
            { "name": "shop", "versions": [{ "name": "default", "balance": "random",
              "instances": [instance("shop/default/a", &json!({}))] }] }],
        "drill": { "id": "0f", "name": "game day", "holder": "ann@desk", "elapsed_seconds": 12.7,
            "faults": [{ "kind": "eject", "detail": "as dead", "instances": ["chat/v1/c"] }] },
        "differences": [{ "id": "chat/v1/b", "what": "state", "file": "active", "now": "draining",
                          "since": "2026-11-29T06:00:00.000Z", "by": "api" }],
        "warnings": [{ "code": "sid_unknown", "message": "instances do not know their sessions",
                       "cure": "session_affinity: true", "since": "x", "count": 12 }],
    })
}

fn usual(asked: &Asked) -> Answer {
    let path = asked.target.split('?').next().unwrap();
    match (asked.method.as_str(), path) {
        ("GET", "/api/v1/status") => Answer::json(&status()),
        ("PATCH", "/api/v1/instances/chat/v1/b") => {
            let body: Value = serde_json::from_str(&asked.body).unwrap();
            let state = body["state"].as_str().unwrap_or("active");
            let drain = json!({ "deadline_seconds": 30.0, "sessions": 412, "tunnels": 37,
                                "requests": 0, "done": false });
            let drain = if state == "draining" { drain } else { Value::Null };
            let drained = json!({ "admin": state, "drain": drain });
            Answer::json(&instance("chat/v1/b", &drained))
        }
        ("POST", "/api/v1/versions/shop/default/rebalance") => {
            Answer::json(&json!({ "tunnels": 37 }))
        }
        _ => Answer::problem(404, "no such thing here", &[]),
    }
}

#[test]
fn status_is_a_page_of_80_columns() {
    let stub = Stub::start(usual);
    let (code, out, err) = run_with(
        &["status", "--admin", &stub.url()],
        &[("COLUMNS", "80"), ("BURDOCK_ADMIN", "http://127.0.0.1:1")],
    );
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert_eq!(out, looked_at("status"), "\n{out}");
    assert!(out.lines().all(|line| line.chars().count() <= 80), "{out}");
}

#[test]
fn json_is_what_the_balancer_says() {
    let stub = Stub::start(usual);
    let (code, out, _) = run(&stub, &["status", "--json"]);
    assert_eq!((code, serde_json::from_str::<Value>(&out).unwrap()), (Some(0), status()));
}

#[test]
fn an_instance_is_named_by_as_much_of_its_id_as_is_its_own() {
    let stub = Stub::start(usual);
    for name in ["b", "v1/b", "chat/v1/b"] {
        let (code, out, err) = run(&stub, &["drain", name]);
        assert_eq!((code, err.as_str()), (Some(0), ""));
        assert_eq!(out, "chat/v1/b drains: 412 sessions, 37 tunnels left, deadline in 30 s\n");
    }
    let (code, out, _) = run(&stub, &["enable", "b"]);
    assert_eq!((code, out.as_str()), (Some(0), "chat/v1/b: ready, weight 1\n"));
    let asked = stub.asked();
    let changes: Vec<_> = asked.iter().filter(|it| it.method == "PATCH").collect();
    assert!(changes.iter().all(|it| it.field("content-type") == Some("application/json")));
    assert_eq!(changes[0].body, r#"{"state":"draining"}"#);
    assert_eq!(changes[3].body, r#"{"state":"active"}"#);
    for (name, told) in [
        (
            "a",
            "\"a\" may be chat/v1/a, shop/default/a; give as much of it as makes it one instance",
        ),
        ("x", "no instance \"x\"; there are chat/v1/a, chat/v1/b, chat/v1/c, shop/default/a"),
    ] {
        let (code, out, err) = run(&stub, &["disable", name]);
        assert_eq!((code, out.as_str()), (Some(1), ""));
        assert_eq!(err, format!("burdock: {told}\n"));
    }
    assert_eq!(stub.asked().iter().filter(|it| it.method == "PATCH").count(), 4);
}

#[test]
fn weights_deadlines_and_rebalancing_are_passed_on() {
    let stub = Stub::start(usual);
    assert_eq!(run(&stub, &["weight", "b", "3"]).0, Some(0));
    assert_eq!(run(&stub, &["weight", "b", "file"]).0, Some(0));
    assert_eq!(run(&stub, &["drain", "b", "--deadline", "90s"]).0, Some(0));
    let (code, out, _) = run(&stub, &["rebalance", "default"]);
    assert_eq!((code, out.as_str()), (Some(0), "shop/default: 37 tunnels to be moved\n"));
    let asked = stub.asked();
    let bodies: Vec<_> = asked.iter().filter(|it| it.method != "GET").map(|it| &*it.body).collect();
    let drain = r#"{"deadline":"90s","state":"draining"}"#;
    assert_eq!(bodies, [r#"{"weight":3}"#, r#"{"weight":null}"#, drain, "{}"]);
    assert_eq!(run(&stub, &["weight", "b", "much"]).0, Some(2));
}

/// A balancer whose drain goes through these: seconds to the deadline, to the first close, sessions,
/// tunnels. The last one stays, in the state `then`.
fn draining(steps: &'static [(f64, f64, u64, u64)], then: &'static str) -> Stub {
    let looks = AtomicUsize::new(0);
    Stub::start(move |asked| {
        if !asked.target.starts_with("/api/v1/instances/") {
            return usual(asked);
        }
        let look = looks.fetch_add(1, Ordering::Relaxed);
        let (deadline, closing, sessions, tunnels) = steps[look.min(steps.len() - 1)];
        let admin = if look < steps.len() { "draining" } else { then };
        let drain = json!({ "cause": "draining", "deadline_seconds": deadline,
                            "closing_seconds": closing, "done": sessions + tunnels == 0,
                            "sessions": sessions, "tunnels": tunnels, "requests": 0 });
        Answer::json(&instance("chat/v1/b", &json!({ "admin": admin, "drain": drain })))
    })
}

#[test]
fn a_drain_is_watched_to_its_end_and_the_exit_code_tells_which() {
    let left = draining(&[(18.0, 8.0, 412, 37), (17.6, 7.6, 3, 0), (17.0, 7.0, 0, 0)], "draining");
    let (code, out, err) = run(&left, &["drain", "b", "--wait"]);
    assert_eq!((code, out.as_str()), (Some(0), "chat/v1/b: drained: all have left\n"), "{err}");
    assert_eq!(err, "chat/v1/b: 412 sessions, 37 tunnels left, deadline in 18 s\n");
    let moved = draining(&[(0.8, 0.0, 5, 2), (0.0, 0.0, 0, 1), (0.0, 0.0, 0, 0)], "draining");
    let (code, out, _) = run(&moved, &["drain", "b", "--wait"]);
    let told = "chat/v1/b: drained: 5 sessions will move with their next request\n";
    assert_eq!((code, out.as_str()), (Some(0), told));
    let cut = draining(&[(0.8, 0.8, 5, 2), (0.3, 0.3, 4, 1), (0.0, 0.0, 0, 1)], "draining");
    let (code, out, _) = run(&cut, &["drain", "b", "--wait"]);
    let told = "chat/v1/b: the deadline has passed; cut: 1 tunnel\n";
    assert_eq!((code, out.as_str()), (Some(5), told));
    let cut = draining(&[(0.4, 0.4, 0, 1), (0.0, 0.0, 0, 0)], "draining");
    let (code, out, err) = run(&cut, &["drain", "b", "--wait", "--json"]);
    assert_eq!((code, err.as_str()), (Some(5), ""));
    let told: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&told["outcome"], &told["cut"]["tunnels"]), (&json!("cut"), &json!(1)));
    let called_off = draining(&[(18.0, 8.0, 5, 2)], "active");
    let (code, out, _) = run(&called_off, &["drain", "b", "--wait"]);
    assert_eq!(code, Some(1));
    assert!(out.contains("called off"), "{out}");
}

#[test]
fn errors_say_what_to_do() {
    let html = Stub::start(|_| Answer { status: 200, kind: "text/html", body: "<p>".to_owned() });
    let locked = Stub::start(|_| Answer::problem(401, "no token", &[]));
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let free = format!("http://{free}");
    let token = [("BURDOCK_ADMIN_TOKEN", "0123456789abcdef-secret")];
    for (address, variables, hints) in [
        (free.as_str(), &[][..], &["nothing answers at", "is burdock running", "--admin"][..]),
        (&html.url(), &[], &["no burdock with an admin API", "--admin"]),
        (&locked.url(), &[], &["wants a token", "--token-file", "BURDOCK_ADMIN_TOKEN"]),
        (&locked.url(), &token, &["refused the token", "token_file"]),
        ("https://127.0.0.1:1", &[], &["http://HOST:PORT", "ssh -L"]),
    ] {
        let (code, out, err) = run_with(&["status", "--admin", address], variables);
        assert_eq!((code, out.as_str()), (Some(1), ""), "{err}");
        assert!(hints.iter().all(|hint| err.contains(hint)), "{hints:?} in {err}");
        assert!(!err.contains("secret") && err.lines().count() == 1, "{err}");
    }
    let (code, _, err) = run_with(&["status", "--token-file", "nowhere"], &[]);
    assert_eq!(code, Some(1));
    assert!(err.contains("reading the admin token from nowhere"), "{err}");
}

#[test]
fn a_token_is_sent_from_a_file_or_the_environment() {
    let stub = Stub::start(usual);
    let folder = scratch();
    std::fs::write(folder.join("token"), "from-a-file-0123456789\n").unwrap();
    let admin = stub.url();
    let variables =
        [("BURDOCK_ADMIN_TOKEN", "from-the-environment-01"), ("BURDOCK_ADMIN", &*admin)];
    assert!(run_in(&folder, &["status"], &variables).status.success());
    assert!(run_in(&folder, &["status", "--token-file", "token"], &variables).status.success());
    let tokens: Vec<_> =
        stub.asked().iter().map(|it| it.field("authorization").unwrap().to_owned()).collect();
    assert_eq!(tokens, ["Bearer from-the-environment-01", "Bearer from-a-file-0123456789"]);
    drop(std::fs::remove_dir_all(folder));
}

fn event(id: u64) -> Value {
    json!({ "id": id, "at": "2026-11-29T06:24:42.123Z", "kind": "health", "severity": "error",
            "instance": "chat/v1/a", "text": format!("number {id}"), "fields": {} })
}

#[test]
fn events_are_printed_once_each_and_followed_over_a_lost_connection() {
    let stub = Stub::start(|asked| match asked.target.as_str() {
        target if target.contains("format=json") => {
            Answer::json(&json!({ "events": [event(6), event(7)] }))
        }
        "/api/v1/events?since=7" => Answer::stream(&[event(7), event(8)]),
        "/api/v1/events?since=8" => Answer::stream(&[event(9)]),
        _ => Answer::problem(404, "the test is over", &[]),
    });
    let line = |id| format!("06:24:42.123  health     chat/v1/a  number {id}\n");
    let (code, out, _) = run(&stub, &["events"]);
    assert_eq!((code, out), (Some(0), line(6) + &line(7)));
    let (code, out, err) = run(&stub, &["events", "-f"]);
    assert_eq!((code, out), (Some(1), (6..=9).map(line).collect()));
    assert_eq!(err, "burdock: the test is over\n");
    let (code, out, _) = run(&stub, &["events", "--json", "--since", "6"]);
    assert_eq!((code, out), (Some(0), format!("{}\n", event(7))));
}

#[test]
fn explain_asks_for_what_was_given_and_tells_the_answer() {
    let stub = Stub::start(|asked| match asked.target.split('?').next() {
        Some("/api/v1/explain") => Answer::json(&json!({
            "listener": "127.0.0.1:8080", "service": "chat",
            "why_service": "it takes any host, path / covers it", "version": "v1",
            "token": { "verdict": "bound", "reason": null, "carrier": "cookie",
                       "issued": "2026-11-29T06:00:00.000Z", "key": "1 of 2", "instance": "a",
                       "age_seconds": 90 },
            "candidates": [{ "instance": "a", "in": true, "reason": "ready" },
                           { "instance": "b", "in": false, "reason": "draining" }],
            "choice": "a", "why": "bound to a by its token, and a serves it", "outcome": "kept",
        })),
        _ => usual(asked),
    });
    let arguments = [
        "explain",
        "--url",
        "http://a.test/x?y=1&z=2",
        "--cookie",
        "a=b; c",
        "--client",
        "192.0.2.7",
        "--header",
        "x: y",
    ];
    let (code, out, err) = run(&stub, &arguments);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert_eq!(out, looked_at("explain"), "\n{out}");
    assert_eq!(
        stub.asked()[0].target,
        "/api/v1/explain?url=http%3A%2F%2Fa.test%2Fx%3Fy%3D1%26z%3D2&method=GET\
         &cookie=a%3Db%3B%20c&client=192.0.2.7&header=x%3A%20y"
    );
    assert_eq!(run(&stub, &["explain"]).0, Some(0));
    let last = stub.asked().pop().unwrap().target;
    assert!(last.starts_with("/api/v1/explain?url=http%3A%2F%2F127.0.0.1%3A8080%2F&"), "{last}");
}

#[test]
fn a_file_is_checked_against_a_running_balancer() {
    let stub = Stub::start(|asked| match asked.body.contains("nonsense") {
        true => Answer::problem(422, "rejected", &["c.yaml:2: nonsense: unknown key"]),
        false => Answer::json(&json!({
            "changes": ["chat/v1: weight of a: 1 -> 2", "workers: needs a restart"],
            "instances": { "added": ["chat/v1/d"], "removed": [], "drained": ["chat/v1/b"],
                           "reweighted": ["chat/v1/a"] },
            "touches": { "sessions": 412, "tunnels": 1 }, "warnings": ["mind the gap"],
            "restart_needed": ["workers"],
        })),
    });
    let folder = scratch();
    std::fs::write(folder.join("c.yaml"), "instances: [127.0.0.1:1]\n").unwrap();
    let url = stub.url();
    let check = |arguments: &[&str]| {
        let arguments = [&["check", "c.yaml", "--against", &url], arguments].concat();
        run_in(&folder, &arguments, &[])
    };
    let output = check(&[]);
    let out = String::from_utf8(output.stdout).unwrap();
    assert_eq!((output.status.code(), &*out), (Some(0), &*looked_at("plan")), "\n{out}");
    let sent: Value = serde_json::from_str(&stub.asked()[0].body).unwrap();
    assert_eq!(sent["text"], "instances: [127.0.0.1:1]\n");
    assert!(sent["file"].as_str().unwrap().ends_with("/c.yaml"), "{sent}");
    let output = check(&["--json"]);
    assert_eq!(serde_json::from_slice::<Value>(&output.stdout).unwrap()["touches"]["tunnels"], 1);
    std::fs::write(folder.join("c.yaml"), "instances: [127.0.0.1:1]\nnonsense: 1\n").unwrap();
    let output = check(&[]);
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(output.stderr, b"c.yaml:2: nonsense: unknown key\n");
    drop(std::fs::remove_dir_all(folder));
}

#[test]
fn a_reload_tells_what_it_changed_or_why_it_was_rejected() {
    let reloads = AtomicUsize::new(0);
    let stub = Stub::start(move |_| match reloads.fetch_add(1, Ordering::Relaxed) {
        0 => Answer::json(&json!({ "generation": 4, "changes": ["a: b"], "warnings": [] })),
        1 => Answer::json(&json!({ "generation": 4, "changes": [], "warnings": [] })),
        _ => Answer::problem(422, "rejected", &["c.yaml:1: a: b", "c.yaml:2: c: d"]),
    });
    assert_eq!(run(&stub, &["reload"]).1, "generation 4\n  a: b\n");
    assert_eq!(run(&stub, &["reload"]).1, "generation 4: nothing has changed\n");
    let (code, out, err) = run(&stub, &["reload"]);
    assert_eq!((code, out.as_str()), (Some(3), ""));
    assert_eq!(err, "c.yaml:1: a: b\nc.yaml:2: c: d\n");
}

#[test]
fn config_is_text_that_check_takes() {
    let stub = Stub::start(|_| {
        Answer::json(&json!({ "generation": 3, "file": "c.yaml", "effective": "workers: 2\n",
            "differences": [{ "id": "chat/v1/d", "what": "added", "by": "api" }] }))
    });
    let (code, out, err) = run(&stub, &["config"]);
    assert_eq!((code, out.as_str()), (Some(0), "workers: 2\n"));
    assert_eq!(err, "not as the file says: chat/v1/d: added by api\n");
}

#[test]
fn completions_and_manual_pages_know_every_command() {
    let commands = [
        "run",
        "check",
        "status",
        "top",
        "drain",
        "enable",
        "disable",
        "weight",
        "rebalance",
        "reload",
        "explain",
        "events",
        "config",
    ];
    for shell in ["bash", "zsh", "fish"] {
        let (code, out, _) = run_with(&["completions", shell], &[]);
        assert_eq!(code, Some(0));
        assert!(commands.iter().all(|command| out.contains(command)), "{shell}");
    }
    assert_eq!(run_with(&["completions", "tcsh-or-so"], &[]).0, Some(2));
    let (code, page, _) = run_with(&["man"], &[]);
    assert_eq!(code, Some(0));
    assert!(
        page.contains(".TH burdock 1") && commands.iter().all(|it| page.contains(it)),
        "{page}"
    );
    let folder = scratch();
    assert!(run_in(&folder, &["man", "--into", "pages"], &[]).status.success());
    for command in commands {
        let page = folder.join(format!("pages/burdock-{command}.1"));
        assert!(page.is_file(), "{}", page.display());
    }
    drop(std::fs::remove_dir_all(folder));
}

#[test]
fn top_without_a_terminal_says_what_else_there_is() {
    let (code, out, err) = run_with(&["top"], &[]);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(err.contains("terminal") && err.contains("burdock status"), "{err}");
}
