//! The commands against a real running balancer: what is steered is steered, and a drain is watched
//! to its end.

use std::process::Output;

use serde_json::Value;

use crate::support::burdock::{run_in, scratch};
use crate::support::ws::WebSocket;
use crate::support::{self, Api, Backend, Burdock, Load, yaml};

/// Runs a command at the side, since traffic goes on in this process.
async fn run(burdock: &Burdock, arguments: &[&str]) -> (Option<i32>, String, String) {
    let url = format!("http://{}", burdock.admin());
    let arguments: Vec<String> = arguments.iter().map(|it| (*it).to_owned()).collect();
    let ended = tokio::task::spawn_blocking(move || {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        run_in(&scratch(), &arguments, &[("BURDOCK_ADMIN", &url)])
    });
    let Output { status, stdout, stderr } = ended.await.expect("a command that ends");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (status.code(), text(stdout), text(stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_for_is_done() {
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    let burdock = Burdock::start(&yaml(&[&a, &b], "session_affinity: true\n")).await;
    let mut api = Api::of(&burdock);
    let (code, told, _) = run(&burdock, &["status"]).await;
    assert!(code == Some(0) && told.contains("a ") && told.contains("b "), "{told}");
    let (code, told, _) = run(&burdock, &["status", "--json"]).await;
    let status: Value = serde_json::from_str(&told).unwrap();
    assert_eq!((code, &status["burdock"]["pid"]), (Some(0), &Value::from(burdock.pid())));

    assert_eq!(run(&burdock, &["drain", "a"]).await.0, Some(0));
    assert_eq!(api.instance("a").await["admin"], "draining");
    for _ in 0..4 {
        assert_eq!(burdock.client().get("/").await.instance(), "b");
    }
    let (code, _, told) = run(&burdock, &["drain", "c"]).await;
    assert!(code == Some(1) && told.contains("default/default/b"), "{told}");
    assert_eq!(run(&burdock, &["enable", "a"]).await.0, Some(0));
    assert_eq!(api.instance("a").await["admin"], "active");
    assert_eq!(run(&burdock, &["weight", "a", "0"]).await.0, Some(0));
    assert_eq!(burdock.client().get("/").await.instance(), "b");
    let (code, told, _) = run(&burdock, &["events", "--json"]).await;
    assert!(code == Some(0) && told.contains("drain"), "{told}");
    let (code, told, _) = run(&burdock, &["explain", "--url", "http://x/"]).await;
    assert!(code == Some(0) && told.contains('b'), "{told}");
    assert_eq!(run(&burdock, &["reload"]).await.0, Some(0));
    assert_eq!(run(&burdock, &["config"]).await.0, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_that_cuts_something_says_so() {
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    let rest = "session_affinity: true\ndrain: { timeout: 30s, spread: 0s }\n";
    let burdock = Burdock::start(&yaml(&[&a, &b], rest)).await;
    let mut tunnel = WebSocket::open(burdock.address(), "/ws", "").await;
    let held = tunnel.instance().to_owned();
    let arguments = ["drain", &held, "--wait", "--deadline", "1s"];
    let watched = run(&burdock, &arguments);
    let (ended, closed) = tokio::join!(watched, tunnel.closed());
    assert_eq!(closed.map(|(code, _)| code), Some(1012));
    let (code, told, progress) = &ended;
    assert!(*code == Some(5) && told.contains("the deadline has passed"), "{ended:?}");
    assert!(progress.contains("1 tunnel left, deadline in"), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_under_load_is_watched_to_its_end_and_nobody_sees_an_error() {
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    let rest = "session_affinity: true\ndrain: { timeout: 30s, spread: 2s }\n";
    let burdock = Burdock::start(&yaml(&[&a, &b], rest)).await;
    let mut tunnels = Vec::new();
    for _ in 0..8 {
        tunnels.push(WebSocket::open(burdock.address(), "/ws", "").await);
    }
    tunnels.retain(|tunnel| tunnel.instance() == "a");
    assert_eq!(tunnels.len(), 4);
    let load = Load::start(burdock.address(), 40, 200, "/");
    load.passes(80).await;
    let closed = async {
        let mut codes = Vec::new();
        for tunnel in &mut tunnels {
            codes.push(tunnel.closed().await.map(|(code, _)| code));
        }
        codes
    };
    let watched = run(&burdock, &["drain", "a", "--wait", "--deadline", "3s"]);
    let ((code, told, progress), codes) = tokio::join!(watched, closed);
    assert_eq!(code, Some(0), "{told}{progress}");
    let end = "sessions will move with their next request\n";
    assert!(told.starts_with("default/default/a: drained: ") && told.ends_with(end), "{told}");
    let begin = progress.lines().next().unwrap_or_default();
    assert!(
        begin.contains(" sessions, 4 tunnels") && begin.ends_with("deadline in 3 s"),
        "{progress}"
    );
    assert_eq!(codes, [Some(1012); 4]);
    load.leaves("a").await;
    let drained = Api::of(&burdock).instance("a").await;
    let drain = &drained["drain"];
    assert_eq!((&drain["sessions"], &drain["done"]), (&Value::from(0), &Value::from(true)));
    assert_eq!(drained["sessions"], 0, "they are counted where they have moved to");
    let (_, events) = Api::of(&burdock).get("events?format=json").await;
    let texts: Vec<_> = events["events"].as_array().expect("a list").iter().collect();
    let drains = texts.iter().filter(|event| event["kind"] == "drain").map(|it| &it["text"]);
    let told: Vec<_> = drains.collect();
    assert_eq!(told, ["a is draining, for 3 s at most", "a is drained"]);
    let seen = load.stop().await;
    assert_eq!(support::load::errors(&seen), [""; 0]);
}
