//! Instances that are found at run time: in a file, by the DNS. What a source says is served by at
//! once; what it says by mistake, and that it is gone, changes nothing.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::common::{source, start};
use crate::support::api::Api;
use crate::support::burdock::{scratch, send_signal};
use crate::support::load::errors;
use crate::support::pebble::Port;
use crate::support::{Backend, Burdock, Client, HEADER, Load, eventually, pause, within};

/// Who is taken out is let go soon.
const AFFINITY: &str = "session_affinity: true\ndrain: { timeout: 200ms, spread: 0s }\n";

/// Replaces a file as deployments do.
fn put(file: &Path, text: &str) {
    let new = file.with_extension("new");
    std::fs::write(&new, text).expect("write the file");
    std::fs::rename(new, file).expect("put it in place");
}

/// A line for each backend, with its name.
fn listed(backends: &[&Backend]) -> String {
    let row = |it: &&Backend| format!("- {{ name: {}, address: \"{}\" }}\n", it.name, it.address);
    backends.iter().map(row).collect()
}

/// Sessions, until there is one on each of these.
async fn sessions(burdock: &Burdock, names: &[&str]) -> Vec<Client> {
    let mut sessions: Vec<Option<Client>> = names.iter().map(|_| None).collect();
    within("a session on each", async {
        while sessions.iter().any(Option::is_none) {
            let mut session = burdock.session();
            let answer = session.get("/").await;
            assert_eq!(answer.status, 200);
            if let Some(at) = names.iter().position(|name| *name == answer.instance()) {
                sessions[at].get_or_insert(session);
            }
        }
    })
    .await;
    sessions.into_iter().flatten().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_says_who_serves_and_its_mistakes_change_nothing() {
    let (a, b, c) =
        (Backend::start("a").await, Backend::start("b").await, Backend::start("c").await);
    let directory = scratch();
    let file = directory.join("instances.yaml");
    put(&file, &listed(&[&a, &b]));
    let text = format!("{HEADER}{AFFINITY}discovery: {{ file: instances.yaml, minimum: 2 }}\n");
    let mut burdock = start(directory.clone(), &text).await;
    let load = Load::start(burdock.address(), 10, 200, "/");
    let mut held = sessions(&burdock, &["a", "b"]).await;

    put(&file, &listed(&[&b, &c]));
    source(&burdock, "the change", |it| it["instances"] == 2 && it["problem"].is_null()).await;
    within("a's session moves", async {
        while held[0].get("/").await.instance() == "a" {
            pause().await;
        }
    })
    .await;
    assert_eq!(held[1].get("/").await.instance(), "b", "nobody else moves");

    for mistake in ["[]", "- { adress: x }", "- 10.0.0.1\n", &listed(&[&b])] {
        let before = source(&burdock, "the file is well", |it| it["problem"].is_null()).await;
        put(&file, mistake);
        let told = source(&burdock, mistake, |it| !it["problem"].is_null()).await;
        assert_eq!((&told["instances"], &told["heard"]), (&json!(2), &before["heard"]), "{told}");
        put(&file, &listed(&[&c, &b]));
    }
    let told = source(&burdock, "it is well again", |it| it["problem"].is_null()).await;
    assert_eq!((&told["source"], &told["instances"]), (&json!("file"), &json!(2)));
    let metrics = burdock.metrics().await;
    let sum = |name: &str, labels: &[(&str, &str)]| metrics.sum(name, labels);
    assert_eq!(sum("burdock_discovery_instances", &[]), 2.0);
    assert_eq!(sum("burdock_discovery_success", &[]), 1.0);
    assert!(sum("burdock_discovery_failures_total", &[("reason", "refused")]) >= 2.0);
    assert!(sum("burdock_discovery_failures_total", &[("reason", "unheard")]) >= 2.0);
    assert!(sum("burdock_discovery_last_success_timestamp_seconds", &[]) > 1.7e9);
    assert_eq!(errors(&load.stop().await), Vec::<String>::new());

    // What was found outlives the process, should the source be gone with it.
    burdock.signal(libc::SIGTERM);
    burdock.exit_code().await;
    std::fs::remove_file(&file).expect("remove the file");
    let before = burdock;
    let burdock = start(directory, &text).await;
    sessions(&burdock, &["b", "c"]).await;
    let told = source(&burdock, "the file is missed", |it| !it["problem"].is_null()).await;
    assert!(told["problem"].as_str().unwrap().contains("instances.yaml"), "{told}");
    // Its folder goes with it.
    drop(before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_takes_over_from_a_list_and_its_instances_can_be_steered() {
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    let directory = scratch();
    let file = directory.join("found.json");
    let listed_here = format!("{HEADER}{AFFINITY}instances:\n  {}", listed(&[&a]));
    let burdock = start(directory, &listed_here).await;
    let mut session = burdock.session();
    assert_eq!(session.get("/").await.instance(), "a");

    // The file is not there yet, and nobody is without an instance meanwhile.
    let found = format!("{HEADER}{AFFINITY}discovery: {{ file: found.json }}\n");
    let line = burdock.reload(&found).await;
    assert_eq!(line["message"], "reloaded", "{line}");
    source(&burdock, "the file is missed", |it| !it["problem"].is_null()).await;
    assert_eq!(session.get("/").await.instance(), "a");

    let groups = json!([{ "targets": [b.address.to_string()], "labels": { "job": "chat" } }]);
    put(&file, &groups.to_string());
    source(&burdock, "the file is heard", |it| it["problem"].is_null()).await;
    within("the session moves", async {
        while session.get("/").await.instance() == "a" {
            pause().await;
        }
    })
    .await;

    let mut api = Api::of(&burdock);
    let name = b.address.to_string();
    let steered = api.steer(&name, json!({ "weight": 7 })).await;
    assert_eq!((&steered["weight"], &steered["source"]), (&json!(7), &json!("discovery")));
    let path = format!("instances/default/default/{name}");
    let answer = api.delete(&path).await;
    assert_eq!(answer.0, 409);
    assert!(answer.1["detail"].as_str().unwrap().contains("was found"), "{answer:?}");
    // It is told of as different from what was found, and the next word of the source leaves it so.
    put(&file, &json!([{ "targets": [b.address.to_string(), a.address.to_string()] }]).to_string());
    source(&burdock, "another one", |it| it["instances"] == 2).await;
    assert_eq!(api.instance(&name).await["weight"], 7);
    assert_eq!(api.status().await["differences"][0]["file"], "1");
    // Nor does it forget that when it misses the instance for a moment.
    put(&file, &json!([{ "targets": [a.address.to_string()] }]).to_string());
    source(&burdock, "only the other one", |it| it["instances"] == 1).await;
    assert_eq!(api.status().await["differences"], json!([]));
    put(&file, &json!([{ "targets": [b.address.to_string(), a.address.to_string()] }]).to_string());
    source(&burdock, "both again", |it| it["instances"] == 2).await;
    assert_eq!(api.instance(&name).await["weight"], 7);

    // By its own address clients would come in at the back.
    for own in [burdock.admin(), burdock.address()] {
        put(&file, &json!([{ "targets": [own.to_string()] }]).to_string());
        let told = source(&burdock, "itself", |it| !it["problem"].is_null()).await;
        assert!(told["problem"].as_str().unwrap().contains("Burdock's own"), "{told}");
        put(&file, &json!([{ "targets": [b.address.to_string()] }]).to_string());
        source(&burdock, "another again", |it| it["problem"].is_null()).await;
    }
}

/// A name server that says what its files say; killed when dropped.
struct Dnsmasq {
    child: Child,
    hosts: PathBuf,
}

impl Dnsmasq {
    async fn start(port: &Port, folder: &Path, hosts: &str, more: &[&str]) -> Self {
        let file = folder.join("hosts");
        std::fs::write(&file, hosts).expect("write the hosts");
        let address = port.address();
        let log = std::fs::File::create(folder.join("dnsmasq.log")).expect("a log");
        let child = Command::new("dnsmasq")
            .args([
                "--no-daemon",
                "--conf-file=/dev/null",
                "--no-resolv",
                "--no-hosts",
                "--user=root",
            ])
            .args(["--bind-interfaces", "--listen-address=127.0.0.1", "--local-ttl=1"])
            .args(["--local=/internal/", "--log-queries", "--pid-file="])
            .arg(format!("--port={}", address.port()))
            .arg(format!("--addn-hosts={}", file.display()))
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("dnsmasq, which tests/clients/install installs");
        eventually("the name server listens", || std::net::TcpStream::connect(address).ok()).await;
        Self { child, hosts: file }
    }

    fn says(&self, hosts: &str) {
        std::fs::write(&self.hosts, hosts).expect("write the hosts");
        send_signal(&self.child, libc::SIGHUP);
    }
}

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dns_says_who_serves_and_its_loss_changes_nothing() {
    let pods = Backend::start_all(&["a", "b", "c"], 11).await;
    let (folder, port) = (scratch(), Port::claim());
    let two = "127.0.0.11 app.internal\n127.0.0.12 app.internal\n";
    let server = Dnsmasq::start(&port, &folder, two, &[]).await;
    let text = format!(
        "{HEADER}{AFFINITY}discovery: {{ dns: \"app.internal:{}\", refresh: 1s, \
         resolvers: [\"{}\"] }}\n",
        pods[0].address.port(),
        port.address()
    );
    let burdock = start(folder.clone(), &text).await;
    let load = Load::start(burdock.address(), 10, 200, "/");
    let mut held = sessions(&burdock, &["a", "b"]).await;

    server.says("127.0.0.12 app.internal\n127.0.0.13 app.internal\n");
    sessions(&burdock, &["b", "c"]).await;
    within("a's session moves", async {
        while held[0].get("/").await.instance() == "a" {
            pause().await;
        }
    })
    .await;
    assert_eq!(held[1].get("/").await.instance(), "b", "nobody else moves");

    server.says("");
    let told = source(&burdock, "none is not believed", |it| !it["problem"].is_null()).await;
    assert!(told["problem"].as_str().unwrap().contains("minimum"), "{told}");
    drop(server);
    let gone = |it: &Value| it["problem"].as_str().is_some_and(|it| it.contains("app.internal"));
    let told = source(&burdock, "nobody answers", gone).await;
    assert_eq!((&told["source"], &told["instances"]), (&json!("dns"), &json!(2)));
    sessions(&burdock, &["b", "c"]).await;

    let _server = Dnsmasq::start(&port, &folder, two, &[]).await;
    source(&burdock, "it is heard again", |it| it["problem"].is_null()).await;
    sessions(&burdock, &["a", "b"]).await;
    assert_eq!(errors(&load.stop().await), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_of_srv_records_keeps_its_sessions_when_its_address_changes() {
    let pods = Backend::start_all(&["one", "two", "one-again", "reserve"], 11).await;
    let (folder, port) = (scratch(), Port::claim());
    let at = pods[0].address.port();
    let record = |target: &str, priority: u32, weight: u32| {
        format!("--srv-host=_http._tcp.app.internal,{target}.app.internal,{at},{priority},{weight}")
    };
    let records = [record("web-0", 1, 10), record("web-1", 1, 30), record("spare", 2, 10)];
    let records: Vec<&str> = records.iter().map(String::as_str).collect();
    let hosts = "127.0.0.11 web-0.app.internal\n127.0.0.12 web-1.app.internal\n\
                 127.0.0.14 spare.app.internal\n";
    let server = Dnsmasq::start(&port, &folder, hosts, &records).await;
    let text = format!(
        "{HEADER}{AFFINITY}discovery: {{ srv: _http._tcp.app.internal, refresh: 1s, \
         resolvers: [\"{}\"] }}\n",
        port.address()
    );
    let burdock = start(folder, &text).await;
    let mut held = sessions(&burdock, &["one", "two"]).await;
    let mut api = Api::of(&burdock);
    let name = |target: &str| format!("{target}.app.internal:{at}");
    assert_eq!(api.instance(&name("web-0")).await["weight"], 10);
    assert_eq!(api.instance(&name("web-1")).await["weight"], 30);
    source(&burdock, "the spare is asked when nobody else is there", |it| it["instances"] == 2)
        .await;

    server.says(&hosts.replace("127.0.0.11", "127.0.0.13"));
    within("web-0 has moved, its session with it", async {
        while held[0].get("/").await.instance() != "one-again" {
            pause().await;
        }
    })
    .await;
    assert_eq!(held[1].get("/").await.instance(), "two");
    let metrics = burdock.metrics().await;
    assert_eq!(metrics.sum("burdock_rehomes_total", &[]), 0.0, "no session has");
}
