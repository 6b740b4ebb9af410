//! gRPC: calls of every kind pass between grpcio's client and server; its health protocol as a check,
//! and checks at another port.

use std::time::Duration;

use crate::support::{Backend, Burdock, HEADER, yaml};
use crate::support_clients::{listening, program};

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

/// The lines that the calls printed.
fn calls(arguments: &[&str]) -> Vec<String> {
    let mut client = program("grpc_calls.py", arguments);
    let mut lines = Vec::new();
    client.wait_for("the end of the calls", LIMIT * 4, |line| {
        lines.push(line.to_owned());
        (line == "done").then_some(())
    });
    lines
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_every_kind_pass() {
    let mut server = program("grpc_server.py", &["--name", "a"]);
    let port = listening(&mut server);
    let config =
        format!("{HEADER}instances: [{{ name: a, address: 127.0.0.1:{port} }}]\nprotocol: http2\n");
    let burdock = Burdock::start(&config).await;
    let lines = calls(&["--address", &burdock.address().to_string()]);
    let wrong: Vec<_> = lines.iter().filter(|line| !line.starts_with("ok ")).collect();
    assert_eq!(wrong, ["done"], "{lines:?}");
    assert_eq!(lines.len(), 15, "{lines:?}");
    // The deadline and the cancellation reach the server.
    for _ in 0..2 {
        server.wait_for("a call that was given up", LIMIT, |line| {
            (line == "cancelled").then_some(())
        });
    }
    let open = "burdock_instance_requests_in_flight";
    burdock.wait_metric(open, &[], |open| open == 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_nobody_can_take_is_unavailable() {
    let config = format!("{HEADER}instances: ['127.0.0.1:1']\nprotocol: http2\n");
    let burdock = Burdock::start(&config).await;
    let lines = calls(&["--address", &burdock.address().to_string(), "--unavailable"]);
    assert_eq!(lines, ["ok unavailable", "ok unavailable: its words", "done"]);
}
