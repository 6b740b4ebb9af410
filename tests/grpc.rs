//! The gRPC health protocol as a check, against grpcio's own server, and checks at another port.

mod support;
mod support_clients;

use std::time::Duration;

use support::{Backend, Burdock, HEADER, yaml};
use support_clients::{listening, program};

const LIMIT: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_serves_passes_and_nothing_else_does() {
    let mut server = program("grpc_health_server.py", &["--name", "a"]);
    let port = listening(&mut server);
    let mut set = |status: &str| {
        server.say(status);
        server.wait_for("its answer", LIMIT, |line| (line == "set").then_some(()));
    };
    let rest = "readiness_check: { grpc: chat.Chat, check_interval: 30ms, timeout: 1s }\n";
    let config = format!("{HEADER}{rest}instances: [{{ name: a, address: 127.0.0.1:{port} }}]\n");
    let mut burdock = Burdock::start(&config).await;
    let reason = async |burdock: &mut Burdock, reason: &str| {
        let reason = format!("readiness check answered {reason}");
        burdock.wait_log("health changed", |line| line["reason"] == reason.as_str()).await;
    };
    // NOT_FOUND: it knows no such service.
    reason(&mut burdock, "grpc-status 5").await;
    set("chat.Chat SERVING");
    burdock.wait_health("a", "ready").await;
    set("chat.Chat NOT_SERVING");
    reason(&mut burdock, "NOT_SERVING").await;
    set("- SERVING");
    assert_eq!(burdock.reload(&config.replace("chat.Chat", "\"\"")).await["message"], "reloaded");
    burdock.wait_health("a", "ready").await;
    set("- UNKNOWN");
    burdock.wait_health("a", "unready").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_grpc_does_not_pass() {
    let a = Backend::start("a").await;
    let rest = "readiness_check: { grpc: \"\", check_interval: 50ms, timeout: 300ms }\n";
    let burdock = Burdock::start(&yaml(&[&a], rest)).await;
    burdock.wait_health("a", "unready").await;
    assert_eq!(burdock.client().get("/").await.text(), "503 no_instance\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_go_to_the_port_that_the_check_names() {
    let (a, side) = (Backend::start("a").await, Backend::start("side").await);
    side.ready(false);
    let port = side.address.port();
    let rest = format!(
        "readiness_check: {{ path: /readyz, port: {port}, check_interval: 30ms, timeout: 300ms }}\n"
    );
    let burdock = Burdock::start(&yaml(&[&a], &rest)).await;
    burdock.wait_health("a", "unready").await;
    side.ready(true);
    burdock.wait_health("a", "ready").await;
    assert_eq!(burdock.client().get("/").await.instance(), "a", "requests go to its own");
    assert!(a.probes().is_empty());
    let host = side.address.to_string();
    assert_eq!(side.probes()[0].field("host"), Some(host.as_str()));
}
