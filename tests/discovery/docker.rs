//! Instances that a Docker engine runs: containers come, are paused, fail their checks and stop, and
//! neither that nor the loss of the engine costs a client an answer.
//!
//! Against a stand-in of the engine; the last test against a real one, on demand.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::common::{source, start};
use crate::support::api::Api;
use crate::support::burdock::scratch;
use crate::support::docker::Engine;
use crate::support::load::errors;
use crate::support::{Backend, Burdock, HEADER, Load, within};

fn well(count: usize) -> impl Fn(&Value) -> bool {
    move |it| it["instances"] == json!(count) && it["problem"].is_null()
}

async fn is(burdock: &Burdock, name: &str, key: &str, value: &str) {
    Api::of(burdock).wait(name, |it| it[key] == value).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_come_and_go_and_nobody_meets_an_error() {
    let all = Backend::start_all(&["a", "b", "c"], 31).await;
    let port = all[0].address.port().to_string();
    let folder = scratch();
    let engine = Engine::start(&folder);
    let runs = |name: &str, version: &str| {
        let it = all.iter().find(|it| it.name == name).expect("a container of this name");
        let labels =
            [("burdock.port", &*port), ("burdock.weight", "3"), ("burdock.version", version)];
        engine.runs(name, &it.address.ip().to_string(), &labels);
    };
    runs("a", "v1");
    runs("b", "v1");
    runs("c", "v2");
    let text = format!(
        "{HEADER}session_affinity: true\ndrain: {{ timeout: 60s }}\ndiscovery: {{ docker: \
         {{ service: chat, version: v1, network: chat_default, socket: {} }} }}\n",
        engine.socket.display()
    );
    let burdock = start(folder.clone(), &text).await;
    source(&burdock, "those of the version", well(2)).await;
    assert_eq!(Api::of(&burdock).instance("a").await["weight"], 3);
    let load = Load::start(burdock.address(), 10, 200, "/");
    load.settles().await;

    // It is told to read its files anew, and goes on.
    engine.happens("b", "kill", &[("signal", "1")]);
    // Paused, then ill: its sessions move, and it keeps its name and its place.
    for (change, event, back) in [
        (json!({ "State": "paused", "Status": "Up 9 seconds (Paused)" }), "pause", "unpause"),
        (
            json!({ "Status": "Up 9 seconds (unhealthy)" }),
            "health_status: unhealthy",
            "health_status: healthy",
        ),
    ] {
        engine.becomes("a", change, event);
        is(&burdock, "a", "health", "unready").await;
        load.leaves("a").await;
        engine.becomes("a", json!({ "State": "running", "Status": "Up 9 seconds" }), back);
        is(&burdock, "a", "health", "ready").await;
    }
    assert_eq!(burdock.log("drain began").len(), 0, "it was never given up");

    assert_eq!(Api::of(&burdock).instance("b").await["admin"], "active");

    // Told to stop it drains, and then it is gone.
    let before = load.in_use();
    engine.happens("b", "kill", &[("signal", "15")]);
    is(&burdock, "b", "admin", "draining").await;
    load.passes(40).await;
    assert_eq!(load.in_use(), before, "its sessions stay until it ends");
    engine.ends("b");
    source(&burdock, "it is gone", well(1)).await;
    all[1].dies().await;
    load.leaves("b").await;
    all[1].comes_back();
    runs("b", "v1");
    source(&burdock, "it is there again", well(2)).await;
    is(&burdock, "b", "admin", "active").await;
    assert_eq!(errors(&load.stop().await), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_loss_of_the_engine_and_its_mistakes_change_nothing() {
    let all = Backend::start_all(&["a", "b"], 31).await;
    let port = all[0].address.port().to_string();
    let folder = scratch();
    let mut engine = Engine::start(&folder);
    let labels = [("burdock.port", port.as_str())];
    engine.runs("a", "127.0.0.31", &labels);
    engine.runs("b", "127.0.0.32", &labels);
    let text = format!(
        "{HEADER}session_affinity: true\ndiscovery: {{ docker: {{ service: chat, socket: {} }} }}\n",
        engine.socket.display()
    );
    let burdock = start(folder.clone(), &text).await;
    source(&burdock, "both", well(2)).await;
    let load = Load::start(burdock.address(), 10, 200, "/");
    let problem = |text: &'static str| {
        move |it: &Value| it["problem"].as_str().is_some_and(|it| it.contains(text))
    };

    engine.runs("c", "127.0.0.33", &[("burdock.port", "http")]);
    let told = source(&burdock, "a wrong label", problem("container c: label burdock.port")).await;
    assert_eq!((&told["source"], &told["instances"]), (&json!("docker"), &json!(2)));
    engine.ends("c");
    source(&burdock, "both again", well(2)).await;

    engine.refuses(Some((500, "layer does not exist")));
    engine.happens("a", "update", &[]);
    source(&burdock, "it is quoted", problem("500 Internal Server Error: layer does not")).await;
    engine.refuses(None);
    source(&burdock, "it answers again", well(2)).await;

    engine.dies();
    source(&burdock, "it is missed", problem("docker.sock")).await;
    load.passes(40).await;
    engine.comes_back();
    engine.ends("b");
    source(&burdock, "it is heard again", well(1)).await;
    engine.ends("a");
    let told = source(&burdock, "nobody is not believed", problem("minimum")).await;
    assert_eq!(told["instances"], 1);
    load.passes(40).await;
    assert_eq!(errors(&load.stop().await), Vec::<String>::new());
}

/// What `docker` says to this, if it does.
fn docker(arguments: &[&str]) -> Option<String> {
    let output = Command::new("docker").args(arguments).stdin(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Containers of a real engine; each is removed when dropped.
struct Containers(Vec<String>);

impl Drop for Containers {
    fn drop(&mut self) {
        for name in &self.0 {
            docker(&["rm", "--force", name]);
        }
    }
}

/// The image `BURDOCK_DOCKER_IMAGE` has a busybox in `/bin`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a Docker engine and an image, see tests/README.md"]
async fn a_real_engine_says_the_same() {
    let image = std::env::var("BURDOCK_DOCKER_IMAGE").expect("the name of an image");
    docker(&["info"]).expect("a Docker engine");
    let host = std::env::var("DOCKER_HOST").unwrap_or_default();
    let socket = host.strip_prefix("unix://").unwrap_or("/var/run/docker.sock").to_owned();
    let service = format!("chat-{}", std::process::id());
    let [a, b] = ["a", "b"].map(|name| format!("{service}-{name}"));
    let _removed = Containers(vec![a.clone(), b.clone()]);
    let label = format!("burdock.service={service}");
    let run = |name: &str| {
        let serve = "b=/bin/busybox; echo $NAME > /index.html; $b httpd -p 8080 -h /; \
                     trap '$b sleep 3; exit' TERM; while :; do $b sleep 0.1; done";
        let named = format!("NAME={name}");
        let run = [
            "run",
            "--detach",
            "--name",
            name,
            "--env",
            &named,
            "--label",
            &label,
            "--label",
            "burdock.port=8080",
            &image,
            "/bin/busybox",
            "sh",
            "-c",
            serve,
        ];
        docker(&run).expect("a container");
    };
    run(&a);
    run(&b);
    let folder = scratch();
    let text = format!(
        "{HEADER}session_affinity: true\ndrain: {{ timeout: 60s }}\ndiscovery: {{ docker: \
         {{ service: {service}, socket: {socket} }} }}\nbreaker: off\n"
    );
    let burdock = start(folder, &text).await;
    source(&burdock, "both", well(2)).await;
    let mut session = within("a session on a", async {
        loop {
            let mut session = burdock.session();
            if session.get("/index.html").await.text().trim() == a {
                return session;
            }
        }
    })
    .await;
    docker(&["pause", &a]).expect("it is paused");
    is(&burdock, &a, "health", "unready").await;
    assert_eq!(session.get("/index.html").await.text().trim(), b);
    docker(&["unpause", &a]).expect("it goes on");
    is(&burdock, &a, "health", "ready").await;
    // It has three seconds to do.
    let stop = Command::new("docker").args(["stop", "--time", "10", &b]).spawn();
    is(&burdock, &b, "admin", "draining").await;
    assert_eq!(session.get("/index.html").await.text().trim(), b, "it stays while it serves");
    assert!(stop.expect("docker").wait().expect("its end").success());
    source(&burdock, "it is gone", well(1)).await;
    assert_eq!(session.get("/index.html").await.text().trim(), a);
    docker(&["start", &b]).expect("another run");
    source(&burdock, "it is back", well(2)).await;
}
