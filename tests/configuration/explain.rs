//! What `burdock explain` says is what happens, and asking changes nothing; what `check --against` says is
//! what a reload then does.

use serde_json::Value;

use crate::support::burdock::{Burdock, run_in};
use crate::support::{Backend, FAST_READINESS, yaml};

/// Exit code, and what was printed.
fn ask(burdock: &Burdock, arguments: &[&str]) -> (Option<i32>, String, String) {
    let admin = format!("http://{}", burdock.admin());
    let output = run_in(&burdock.directory, arguments, &[("BURDOCK_ADMIN", &admin)]);
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn explained(burdock: &Burdock, more: &[&str]) -> Value {
    let url = format!("http://{}/", burdock.address());
    let arguments = [&["explain", "--json", "--url", &url], more].concat();
    let (code, out, err) = ask(burdock, &arguments);
    assert_eq!(code, Some(0), "{err}");
    serde_json::from_str(&out).expect("JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn new_sessions_go_where_explain_says() {
    let (a, b, c) =
        (Backend::start("a").await, Backend::start("b").await, Backend::start("c").await);
    let burdock = Burdock::start(&yaml(&[&a, &b, &c], "session_affinity: true")).await;
    for _ in 0..7 {
        let said = explained(&burdock, &[]);
        assert_eq!(
            (&said["outcome"], &said["token"]["verdict"]),
            (&"new".into(), &"absent".into())
        );
        let answer = burdock.client().get("/").await;
        assert_eq!(said["choice"], answer.instance(), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_goes_where_explain_says_before_and_after_its_instance_fails() {
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    let rest = format!("session_affinity: true\n{FAST_READINESS}");
    let burdock = Burdock::start(&yaml(&[&a, &b], &rest)).await;
    burdock.wait_health("a", "ready").await;
    burdock.wait_health("b", "ready").await;
    let mut session = burdock.session();
    let home = session.get("/").await;
    let token = home.cookie("BURDOCK").expect("a cookie");
    let said = explained(&burdock, &["--cookie", &token]);
    assert_eq!((&said["choice"], &said["outcome"]), (&home.instance().into(), &"kept".into()));
    assert_eq!(said["token"]["instance"], home.instance());
    let (failed, other) = if home.instance() == "a" { (&a, "b") } else { (&b, "a") };
    failed.ready(false);
    burdock.wait_health(home.instance(), "unready").await;
    let said = explained(&burdock, &["--cookie", &token]);
    assert_eq!((&said["choice"], &said["outcome"]), (&other.into(), &"rehomed".into()), "{said}");
    let out = said["candidates"].as_array().unwrap().iter().find(|it| it["in"] == false).unwrap();
    assert_eq!(out["reason"], "unready: it answered a readiness probe with no");
    assert_eq!(session.get("/").await.instance(), other);
}

#[tokio::test(flavor = "multi_thread")]
async fn asking_moves_no_counter() {
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    let burdock = Burdock::start(&yaml(&[&a, &b], "session_affinity: true")).await;
    let token = burdock.client().get("/").await.cookie("BURDOCK").expect("a cookie");
    burdock.wait_metric("burdock_client_connections", &[], |open| open == 0.0).await;
    let before = burdock.metrics().await.series;
    for cookie in [token.as_str(), "junk", "x=y"] {
        explained(&burdock, &["--cookie", cookie]);
        explained(&burdock, &["--cookie", cookie, "--method", "POST", "--client", "192.0.2.7"]);
    }
    assert_eq!(burdock.metrics().await.series, before);
    assert_eq!((a.request_count() + b.request_count()), 1, "no instance was asked");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_reads_why() {
    let a = Backend::start("a").await;
    let burdock = Burdock::start(&yaml(&[&a], "")).await;
    let url = format!("http://{}/x", burdock.address());
    let (code, out, _) = ask(&burdock, &["explain", "--url", &url]);
    assert_eq!(code, Some(0));
    for line in ["goes to     a (off)", "because     session_affinity is off; a has the turn"] {
        assert!(out.contains(line), "{line} in\n{out}");
    }
    let (code, out, err) = ask(&burdock, &["explain", "--url", "nonsense"]);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(err.contains("url: must be http://HOST/PATH"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_says_what_the_reload_then_does() {
    let (a, b, c) =
        (Backend::start("a").await, Backend::start("b").await, Backend::start("c").await);
    let mut burdock = Burdock::start(&yaml(&[&a, &b], "session_affinity: true")).await;
    let mut sessions = Vec::new();
    for _ in 0..4 {
        let mut session = burdock.session();
        session.get("/").await;
        sessions.push(session);
    }
    let text = yaml(&[&b, &c], "session_affinity: true\nbalance: random");
    std::fs::write(burdock.directory.join("new.yaml"), &text).unwrap();
    let admin = burdock.admin().to_string();
    let check = ["check", "new.yaml", "--against", &admin, "--json"];
    let (code, out, err) = ask(&burdock, &check);
    assert_eq!(code, Some(0), "{err}");
    let plan: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(plan["instances"]["added"][0], "default/default/c");
    assert_eq!(plan["instances"]["removed"][0], "default/default/a");
    assert_eq!(plan["touches"]["sessions"], 2, "those of a: {plan}");
    assert_eq!(burdock.metrics().await.sum("burdock_config_generation", &[]), 1.0);
    let line = burdock.reload(&text).await;
    let changes: Vec<_> =
        plan["changes"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!(line["changes"], changes.join("; "));
    let (_, out, _) = ask(&burdock, &["check", "burdock.yaml", "--against", &admin]);
    assert_eq!(out, "A reload would change nothing.\n");
    std::fs::write(burdock.directory.join("new.yaml"), "nonsense: 1\n").unwrap();
    let (code, out, err) = ask(&burdock, &check);
    assert_eq!((code, out.as_str()), (Some(3), ""));
    assert!(err.contains("new.yaml:1: nonsense: "), "{err}");
    burdock.signal(libc::SIGTERM);
    assert_eq!(burdock.exit_code().await, 0);
}
