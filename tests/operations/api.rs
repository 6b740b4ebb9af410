//! The admin API: what it tells, whom it tells it, and what it refuses.

use serde_json::{Value, json};

use crate::support::client::Request;
use crate::support::raw;
use crate::support::ws::WebSocket;
use crate::support::{self, Api, Backend, Burdock, Client, FAST_CHECKS, within, yaml};

const TOKEN: &str = "correct-horse-battery-staple";

/// The same configuration with a token beside it, or another admin key.
fn with_admin(text: &str, admin: &str) -> String {
    text.replace("admin: { address: 127.0.0.1:0 }", &format!("admin: {admin}"))
}

async fn behind_a_token(text: &str) -> Burdock {
    let directory = support::burdock::scratch();
    std::fs::write(directory.join("admin.token"), format!("{TOKEN}\n")).expect("write the token");
    let config = directory.join("burdock.yaml");
    let admin = "{ address: 127.0.0.1:0, token_file: admin.token }";
    std::fs::write(&config, with_admin(text, admin)).expect("write the config");
    Burdock::spawn(directory, config, &["run", "-c", "burdock.yaml"]).await
}

fn json_post(path: &str) -> Request {
    Request::post(path, b"{}").with("Content-Type", "application/json")
}

#[tokio::test(flavor = "multi_thread")]
async fn status_tells_everything_at_one_look() {
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    let text = yaml(&[&a, &b], &format!("session_affinity: true\n{FAST_CHECKS}"));
    let burdock = Burdock::start(&text).await;
    burdock.wait_health("a", "ready").await;
    burdock.wait_health("b", "ready").await;
    let mut session = burdock.session();
    session.get("/").await;
    let name = session.get("/").await.instance().to_owned();
    let socket = WebSocket::open(burdock.address(), "/ws", "").await;
    let held = socket.instance().to_owned();
    let mut api = Api::of(&burdock);
    api.wait(&held, |it| it["tunnels"] == 1).await;
    let status = api.status().await;
    assert_eq!(status["burdock"]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(status["burdock"]["pid"], burdock.pid());
    assert_eq!(status["burdock"]["phase"], "serving");
    assert_eq!(status["config"]["generation"], 1);
    assert_eq!(status["config"]["last_reload"]["ok"], true);
    assert!(status["totals"]["requests_total"].as_u64() >= Some(2), "{status}");
    let listener = &status["listeners"][0];
    assert_eq!(listener["address"], burdock.address().to_string(), "where it is bound");
    assert_eq!(listener["configured"], "127.0.0.1:0");
    let service = &status["services"][0];
    assert_eq!((&service["name"], &service["hosts"]), (&json!("default"), &json!(["*"])));
    let version = &service["versions"][0];
    assert_eq!(version["session_affinity"], true);
    assert_eq!(version["affinity"]["kept"], 1);
    assert_eq!(version["checks"], json!({ "readiness": true, "liveness": true }));
    let instances = version["instances"].as_array().unwrap();
    let names: Vec<_> = instances.iter().map(|it| it["id"].as_str().unwrap()).collect();
    assert_eq!(names, ["default/default/a", "default/default/b"]);
    for instance in instances {
        assert_eq!(*instance, api.instance(instance["name"].as_str().unwrap()).await);
        let axes = ["membership", "admin", "health", "breaker"].map(|axis| &instance[axis]);
        assert_eq!(axes, ["present", "active", "ready", "closed"]);
        assert_eq!(instance["takes"], json!({ "new": true, "bound": true, "reason": null }));
        assert_eq!((&instance["source"], &instance["drain"]), (&json!("file"), &Value::Null));
    }
    let bound = instances.iter().find(|it| it["name"] == *name).unwrap();
    assert!(bound["sessions"].as_u64() >= Some(1), "{bound}");
    let (_, narrow) = api.get("status?instances=false").await;
    assert!(narrow["services"][0]["versions"][0]["instances"].is_null(), "{narrow}");
    assert_eq!(api.get("status?services=default").await.0, 200);
    let (status, told) = api.get("status?services=chat").await;
    assert_eq!((status, &told["detail"]), (404, &json!("no service chat; there are default")));
    assert_eq!(api.get("status?instances=maybe").await.0, 422);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_keeps_browsers_from_making_more_of_it() {
    let a = Backend::start("a").await;
    let burdock = Burdock::start(&yaml(&[&a], "")).await;
    let mut client = Client::admin(burdock.admin());
    for path in ["/healthz", "/metrics", "/api/v1/status", "/api/v1/nothing", "/x", "/%ff"] {
        let answer = client.get(path).await;
        assert_eq!(answer.field("x-content-type-options"), Some("nosniff"), "{path}");
        assert_eq!(answer.field("cache-control"), Some("no-store"), "{path}");
        assert_eq!(answer.field("referrer-policy"), Some("no-referrer"), "{path}");
        let policy = answer.field("content-security-policy").unwrap();
        assert!(policy.contains("frame-ancestors 'none'"), "{path}: {policy}");
        assert!(!answer.head.all("access-control-allow-origin").iter().any(|_| true), "{path}");
    }
    let preflight = Request::new("OPTIONS", "/api/v1/status").with("Origin", "http://evil.example");
    let answer = client.send(&preflight).await;
    assert_eq!((answer.status, answer.field("allow")), (405, Some("GET, HEAD")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_problem_is_a_document_that_names_its_cure() {
    let a = Backend::start("a").await;
    let burdock = Burdock::start(&yaml(&[&a], "")).await;
    let mut client = Client::admin(burdock.admin());
    let answer = client.get("/api/v1/instances/default/default/x").await;
    assert_eq!(answer.field("content-type"), Some("application/problem+json"));
    let told: Value = serde_json::from_str(&answer.text()).unwrap();
    let expected = json!({ "type": "about:blank", "title": "Not Found", "status": 404,
        "detail": "no instance default/default/x; there are a" });
    assert_eq!(told, expected);
    let mut api = Api::of(&burdock);
    let (status, told) = api.get("instances/chat/v1/x").await;
    let detail = json!("no version chat/v1; there are default/default");
    assert_eq!((status, &told["detail"]), (404, &detail));
    for (wish, part) in [
        (json!({ "state": "asleep" }), "active, draining, disabled"),
        (json!({ "weight": 1001 }), "0 to 1000"),
        (json!({ "weight": -1 }), "0 to 1000"),
        (json!({ "weight": 1.5 }), "0 to 1000"),
        (json!({ "deadline": "soon", "state": "draining" }), "such as 30s"),
        (json!({ "deadline": "8d", "state": "draining" }), "7d"),
        (json!({ "deadline": "1s", "state": "active" }), "draining only"),
        (json!({ "stat": "active" }), "unknown field"),
        (json!([]), "no JSON object"),
    ] {
        let (status, told) = api.patch("instances/default/default/a", wish.clone()).await;
        assert_eq!(status, 422, "{wish}");
        assert!(told["detail"].to_string().contains(part), "{wish}: {told}");
    }
    let broken = Request::new("PATCH", "/api/v1/instances/default/default/a")
        .with("Content-Type", "application/json");
    assert_eq!(client.send(&broken.body(b"{")).await.status, 400);
    let (status, told) =
        api.patch("instances/default/default/a", json!({ "deadline": "1s" })).await;
    assert_eq!(status, 409, "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_asked_of_everybody() {
    let a = Backend::start("a").await;
    let burdock = behind_a_token(&yaml(&[&a], "")).await;
    let mut client = Client::new(burdock.admin());
    for path in ["/metrics", "/api/v1/status", "/api/v1/openapi.json", "/api/v1/nothing", "/x"] {
        let answer = client.get(path).await;
        assert_eq!((answer.status, answer.field("www-authenticate")), (401, Some("Bearer")));
        assert!(!answer.text().contains(TOKEN));
    }
    assert_eq!(client.get("/healthz").await.status, 200);
    assert_eq!(Api::with_token(&burdock, "correct-horse-battery-stapl").get("status").await.0, 401);
    let mut api = Api::with_token(&burdock, TOKEN);
    // By whatever name it is called.
    let request = Request::get("/api/v1/status").with("Host", "lb.internal");
    assert_eq!(api.raw(request).await.status, 200);
    let (_, told) = api.get("config").await;
    assert!(told["effective"].to_string().contains("token_file"), "{told}");
    assert!(!told.to_string().contains(TOKEN) && !burdock.output().contains(TOKEN));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_is_read_again_at_a_reload() {
    let a = Backend::start("a").await;
    let mut burdock = behind_a_token(&yaml(&[&a], "")).await;
    let path = burdock.directory.join("admin.token");
    let beside = burdock.directory.join("new.token");
    std::fs::write(&beside, "another-token-of-the-operator\n").unwrap();
    std::fs::rename(&beside, &path).unwrap();
    burdock.wait_log("reloaded", |line| line["changes"] == "admin: changed").await;
    assert_eq!(Api::with_token(&burdock, TOKEN).get("status").await.0, 401);
    let mut api = Api::with_token(&burdock, "another-token-of-the-operator");
    assert_eq!(api.get("status").await.0, 200);
    std::fs::write(&path, "short\n").unwrap();
    let (status, told) = api.post("reload", json!({})).await;
    assert_eq!(status, 422, "{told}");
    assert!(told["problems"][0].to_string().contains("holds no token"), "{told}");
    assert_eq!(api.get("status").await.0, 200, "the old one still counts");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_others_reach_needs_a_token() {
    let a = Backend::start("a").await;
    let directory = support::burdock::scratch();
    let config = directory.join("burdock.yaml");
    std::fs::write(&config, with_admin(&yaml(&[&a], ""), "{ address: 0.0.0.0:0 }")).unwrap();
    let run = support::run_to_end(&directory, &["run", "-c", "burdock.yaml"]);
    let error = String::from_utf8_lossy(&run.stderr).into_owned();
    assert_eq!(run.status.code(), Some(3), "{error}");
    assert!(error.contains("there is no `token_file`"), "{error}");
    std::fs::write(&config, yaml(&[&a], "")).unwrap();
    let arguments = ["run", "-c", "burdock.yaml", "--admin", "0.0.0.0:0"];
    let run = support::run_to_end(&directory, &arguments);
    let error = String::from_utf8_lossy(&run.stderr).into_owned();
    assert_eq!(run.status.code(), Some(3), "{error}");
    assert!(error.contains("`admin.token_file`"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_page_of_somebody_else_reads_or_changes_anything() {
    let a = Backend::start("a").await;
    let burdock = Burdock::start(&yaml(&[&a], "")).await;
    let mut client = Client::admin(burdock.admin());
    for host in ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:9900", ""] {
        for path in ["/metrics", "/api/v1/status", "/api/v1/nothing"] {
            let answer = client.send(&Request::get(path).with("Host", host)).await;
            assert_eq!(answer.status, 421, "{host} {path}");
        }
    }
    for host in ["127.0.0.1", "localhost:9900", "[::1]:9900"] {
        let request = Request::get("/api/v1/status").with("Host", host);
        assert_eq!(client.send(&request).await.status, 200, "{host}");
    }
    let form = Request::post("/api/v1/reload", b"x=1");
    for kind in ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data"] {
        let request = form.clone().with("Content-Type", kind);
        assert_eq!(client.send(&request).await.status, 415, "{kind}");
    }
    assert_eq!(client.send(&form).await.status, 415);
    for (name, value) in [
        ("Origin", "http://evil.example"),
        ("Origin", "null"),
        ("Sec-Fetch-Site", "cross-site"),
        ("Sec-Fetch-Site", "same-site"),
    ] {
        let request = json_post("/api/v1/reload").with(name, value);
        assert_eq!(client.send(&request).await.status, 403, "{name}: {value}");
    }
    let own = json_post("/api/v1/reload")
        .with("Origin", "http://127.0.0.1")
        .with("Sec-Fetch-Site", "same-origin");
    assert_eq!(client.send(&own).await.status, 200);
    burdock.reload_after(0).await;
    assert_eq!(burdock.reloads().len(), 1, "and nothing else was done");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_has_a_limit_and_connections_are_kept() {
    let a = Backend::start("a").await;
    let burdock = Burdock::start(&yaml(&[&a], "")).await;
    let mut client = Client::admin(burdock.admin());
    let large = vec![b' '; 1024 * 1024 + 1];
    let post = json_post("/api/v1/instances/default/default").body(&large);
    // It may be answered, or cut off in the middle; it is never taken.
    if let Ok(answer) = client.try_send(&post).await {
        assert_eq!(answer.status, 413);
    }
    let mut client = Client::admin(burdock.admin());
    for _ in 0..5 {
        assert_eq!(client.get("/api/v1/status").await.status, 200);
    }
    assert_eq!(client.reconnects, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_mean_what_they_say() {
    let a = Backend::start("a").await;
    let address = a.address.to_string();
    let text = format!("{}instances: [\"{address}\"]\n", support::HEADER);
    let burdock = Burdock::start(&text).await;
    let mut client = Client::admin(burdock.admin());
    let id = format!("/api/v1/instances/default/default/{address}");
    let encoded = id.replace(':', "%3A");
    for path in [&id, &encoded] {
        assert_eq!(client.get(path).await.status, 200, "{path}");
    }
    for (path, status) in [
        ("/api/v1/status/", 404),
        ("/api/v1//status", 404),
        ("//api/v1/status", 404),
        ("/api/v1/../v1/status", 404),
        ("/api/v1/%2e%2e/v1/status", 404),
        ("/api%2Fv1%2Fstatus", 404),
        ("/API/v1/status", 404),
        ("/api/v1/st%61tus", 200),
        ("/api/v1/status%00", 404),
        ("/api/v1/status%", 400),
        ("/api/v1/instances/default/default/%C3%A9", 404),
        ("/api/v1/instances/default/default/%ff", 400),
        ("/api/v1/status?services=%ff", 400),
        ("/api/v1/instances/default/default", 405),
        ("/api/v1/reload", 405),
    ] {
        assert_eq!(client.get(path).await.status, status, "{path}");
    }
    let absolute = format!(
        "GET http://evil.example/api/v1/status HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    );
    let answer = raw::exchange(burdock.admin(), &absolute);
    let answer = String::from_utf8_lossy(&within("an answer", answer).await).into_owned();
    assert!(answer.starts_with("HTTP/1.1 200 "), "by its Host field: {answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn reload_tells_what_came_of_it() {
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    let burdock = Burdock::start(&yaml(&[&a], "")).await;
    let mut api = Api::of(&burdock);
    let (status, told) = api.post("reload", json!({})).await;
    assert_eq!((status, told), (200, json!({ "generation": 1, "changes": [], "warnings": [] })));
    // The watcher may be first; then there is nothing left to change.
    assert_eq!(burdock.reload(&yaml(&[&a, &b], "")).await["message"], "reloaded");
    let (status, told) = api.post("reload", json!({})).await;
    assert_eq!((status, &told["generation"]), (200, &json!(2)));
    std::fs::write(&burdock.config, "instances: []\nbalanc: even\n").unwrap();
    let (status, told) = api.post("reload", json!({})).await;
    assert_eq!((status, told["status"].as_u64()), (422, Some(422)));
    let problems = told["problems"].to_string();
    assert!(problems.contains("burdock.yaml:1: instances") && problems.contains("balance"));
    let status = api.status().await;
    assert_eq!(status["config"]["last_reload"]["ok"], false);
    assert_eq!(status["config"]["last_reload"]["problems"], told["problems"]);
    assert_eq!(status["config"]["generation"], 2);
}
