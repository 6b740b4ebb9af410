//! Instances that a Kubernetes cluster names: pods come, end and flap as their EndpointSlices say, and
//! nothing that the API server does or fails to do costs a client an answer.
//!
//! Against a stand-in of the server; the first two scenarios against a real one where
//! `BURDOCK_KUBERNETES` names it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::source;
use crate::support::api::Api;
use crate::support::burdock::{binary, scratch};
use crate::support::kubernetes::{Cluster, endpoint};
use crate::support::load::errors;
use crate::support::ws::WebSocket;
use crate::support::{Backend, Burdock, HEADER, Load, eventually, run_to_end, within};

/// Ready, serving, terminating.
const STARTING: [bool; 3] = [false, false, false];
const READY: [bool; 3] = [true, true, false];
const ENDING: [bool; 3] = [false, true, true];
const ENDED: [bool; 3] = [false, false, true];

/// The pods of a service, as its one slice has them.
struct Service<'a> {
    cluster: &'a Cluster,
    port: u16,
    endpoints: Vec<(String, String, [bool; 3])>,
}

impl<'a> Service<'a> {
    fn of(cluster: &'a Cluster, pods: &[Backend]) -> Self {
        let mut service = Self { cluster, port: pods[0].address.port(), endpoints: Vec::new() };
        for pod in pods {
            service.endpoints.push((pod.name.clone(), pod.address.ip().to_string(), READY));
        }
        service.publish();
        service
    }

    fn publish(&self) {
        let rows = self.endpoints.iter();
        let rows: Vec<Value> =
            rows.map(|(pod, address, state)| endpoint(pod, address, *state)).collect();
        self.cluster.put("a", self.port, &rows);
    }

    /// This pod is in this state now.
    fn set(&mut self, pod: &Backend, state: [bool; 3]) {
        let (name, address) = (pod.name.clone(), pod.address.ip().to_string());
        self.endpoints.retain(|row| row.0 != name);
        self.endpoints.push((name, address, state));
        self.publish();
    }

    fn remove(&mut self, pod: &Backend) {
        self.endpoints.retain(|row| row.0 != pod.name);
        self.publish();
    }
}

async fn start(folder: PathBuf, text: &str, variables: &[(&str, String)]) -> Burdock {
    let config = folder.join("burdock.yaml");
    std::fs::write(&config, text).expect("write the config");
    let mut command = Command::new(binary());
    command.arg("run").arg("-c").arg(&config).stdin(Stdio::null());
    command.envs(variables.iter().map(|(name, value)| (name, value)));
    Burdock::of(folder, config, command).await
}

async fn is(burdock: &Burdock, pod: &Backend, key: &str, value: &str) {
    Api::of(burdock).wait(&pod.name, |it| it[key] == value).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_deployment_moves_a_session_only_when_its_pod_ends() {
    let pods =
        Backend::start_all(&["old-1", "old-2", "old-3", "new-1", "new-2", "new-3"], 21).await;
    let (old, new) = pods.split_at(3);
    let folder = scratch();
    let cluster = Cluster::any(&folder).await;
    let mut service = Service::of(&cluster, old);
    let text = format!(
        "{HEADER}session_affinity: true\ndrain: {{ timeout: 60s }}\ndiscovery: {}\n",
        cluster.discovery()
    );
    let burdock = start(folder.clone(), &text, &[]).await;
    source(&burdock, "three pods", |it| it["instances"] == 3 && it["problem"].is_null()).await;
    let load = Load::start(burdock.address(), 30, 300, "/");
    load.settles().await;

    for (old, new) in old.iter().zip(new) {
        service.set(new, STARTING);
        is(&burdock, new, "health", "unready").await;
        load.passes(60).await;
        assert_eq!(new.request_count(), 0, "it is not ready");
        service.set(new, READY);
        is(&burdock, new, "health", "ready").await;

        let bound = load.in_use().contains(&old.name);
        service.set(old, ENDING);
        is(&burdock, old, "admin", "draining").await;
        load.passes(60).await;
        assert_eq!(load.in_use().contains(&old.name), bound, "its sessions stay while it serves");
        // A pod may be gone before anybody says that it doesn't serve any more.
        if old.name != "old-3" {
            service.set(old, ENDED);
            load.leaves(&old.name).await;
        }
        service.remove(old);
        source(&burdock, "it is gone", |it| it["instances"] == 3).await;
        load.leaves(&old.name).await;
        is(&burdock, old, "health", "unready").await;
        old.dies().await;
    }
    load.passes(60).await;
    let seen = load.stop().await;
    assert_eq!(errors(&seen), Vec::<String>::new());
    for seen in seen {
        let mut ways = seen.instances.clone();
        ways.dedup();
        let distinct: BTreeSet<_> = ways.iter().collect();
        assert_eq!(distinct.len(), ways.len(), "nobody comes back: {ways:?}");
        let (last, left) = ways.split_last().unwrap();
        assert!(last.starts_with("new-"), "{ways:?}");
        assert!(left.iter().all(|it| it.starts_with("old-")), "only from pods that end: {ways:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_is_not_ready_for_a_moment_keeps_its_name_and_its_tunnels() {
    let pods = Backend::start_all(&["a", "b"], 21).await;
    let folder = scratch();
    let cluster = Cluster::any(&folder).await;
    let mut service = Service::of(&cluster, &pods);
    let text = format!(
        "{HEADER}session_affinity: true\ndiscovery: {}\nreadiness_check: {{ path: /readyz, \
         check_interval: 50ms, initial_state: ready }}\n",
        cluster.discovery()
    );
    let burdock = start(folder.clone(), &text, &[]).await;
    source(&burdock, "two pods", |it| it["instances"] == 2).await;
    let load = Load::start(burdock.address(), 10, 200, "/");
    let mut tunnel = within("a tunnel to a", async {
        loop {
            let tunnel = WebSocket::open(burdock.address(), "/ws", "").await;
            if tunnel.instance() == "a" {
                return tunnel;
            }
        }
    })
    .await;

    for _ in 0..3 {
        service.set(&pods[0], STARTING);
        is(&burdock, &pods[0], "health", "unready").await;
        load.leaves("a").await;
        // Its own checks go on, and pass, and change nothing.
        let probes = pods[0].probes().len();
        pods[0].probed(probes + 3).await;
        load.passes(20).await;
        assert!(!load.in_use().contains("a"));
        tunnel.echo("still here").await;
        let admin = format!("http://{}", burdock.admin());
        let asked = ["explain", "--url", "http://x/", "--admin", &admin];
        let told = run_to_end(&burdock.directory, &asked).stdout;
        let told = String::from_utf8_lossy(&told);
        assert!(told.contains("unready: its source says so"), "{told}");
        service.set(&pods[0], READY);
        is(&burdock, &pods[0], "health", "ready").await;
        within("a new session on a", async {
            while burdock.session().get("/").await.instance() != "a" {}
        })
        .await;
    }
    tunnel.echo("and again").await;
    assert_eq!(errors(&load.stop().await), Vec::<String>::new());
    let reasons = burdock.log("health changed");
    let told = |it: &&Value| it["reason"] == "its source says that it is not ready";
    assert_eq!(reasons.iter().filter(told).count(), 3, "{reasons:?}");
    assert_eq!(burdock.log("drain began").len(), 0, "it was never given up");
}

/// How many lists were asked for.
fn lists(cluster: &Cluster) -> usize {
    cluster.knobs().asked().iter().filter(|it| it.contains("&limit=")).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_the_api_server_does_those_that_are_known_serve() {
    let pods = Backend::start_all(&["a", "b", "c"], 21).await;
    let folder = scratch();
    let mut cluster = Cluster::stand_in(&folder).await;
    let mut service = Service::of(&cluster, &pods[..2]);
    let (discovery, variables) = cluster.discovery_inside();
    let text = format!(
        "{HEADER}session_affinity: true\ndrain: {{ timeout: 200ms, spread: 0s }}\ndiscovery: {discovery}\n"
    );
    let burdock = start(folder.clone(), &text, &variables).await;
    let well =
        |count: usize| move |it: &Value| it["instances"] == json!(count) && it["problem"].is_null();
    source(&burdock, "two pods", well(2)).await;
    let load = Load::start(burdock.address(), 10, 200, "/");

    // Lines come in pieces, and a slice that is of another service means nothing.
    cluster.knobs().chunks(7);
    service.set(&pods[2], READY);
    source(&burdock, "a third pod", well(3)).await;
    assert_eq!(lists(&cluster), 1, "changes come by the watch");

    // What was is forgotten: a list tells, and the token that it is asked with is the one of today.
    cluster.rotates("second");
    cluster.knobs().compacts();
    eventually("another list", || (lists(&cluster) == 2).then_some(())).await;
    service.remove(&pods[2]);
    source(&burdock, "two pods again", well(2)).await;

    for (code, text) in [
        (403, "endpointslices.discovery.k8s.io is forbidden: User \"x\" cannot list resource"),
        (429, "too many requests, please try again later"),
        (500, "etcdserver: leader changed"),
    ] {
        cluster.knobs().refuses(Some((code, text)));
        cluster.knobs().compacts();
        let told = |it: &Value| it["problem"].as_str().is_some_and(|it| it.contains(text));
        let told = source(&burdock, text, told).await;
        assert!(told["problem"].as_str().unwrap().contains(&code.to_string()), "{told}");
        assert_eq!((&told["source"], &told["instances"]), (&json!("kubernetes"), &json!(2)));
        cluster.knobs().refuses(None);
        source(&burdock, "it answers again", well(2)).await;
        // One that is well for a moment only is asked less and less often.
        load.passes(250).await;
    }

    // Old tokens end before the new one is seen.
    std::fs::write(folder.join("token"), "stale").expect("write a token");
    cluster.knobs().compacts();
    let told = |it: &Value| it["problem"].as_str().is_some_and(|it| it.contains("401"));
    source(&burdock, "its token is refused", told).await;
    cluster.rotates("third");
    source(&burdock, "the new one is shown", well(2)).await;
    load.passes(250).await;

    cluster.delete("a");
    let told = |it: &Value| it["problem"].as_str().is_some_and(|it| it.contains("minimum"));
    source(&burdock, "nobody is not believed", told).await;
    service.publish();
    source(&burdock, "they are back", well(2)).await;

    cluster.dies();
    let told = |it: &Value| it["problem"].as_str().is_some_and(|it| it.contains("connecting to"));
    let told = source(&burdock, "nobody answers", told).await;
    assert_eq!(told["instances"], 2);
    load.passes(50).await;
    assert_eq!(errors(&load.stop().await), Vec::<String>::new());
    assert!(!burdock.output().contains("Bearer") && !burdock.output().contains("stale"));
    restarted(burdock, &folder, &text, &variables).await;
}

/// What was found outlives the process.
async fn restarted(mut before: Burdock, folder: &Path, text: &str, variables: &[(&str, String)]) {
    before.signal(libc::SIGTERM);
    before.exit_code().await;
    let burdock = start(folder.to_owned(), text, variables).await;
    let answer = burdock.client().get("/").await;
    assert!(["a", "b"].contains(&answer.instance()), "{answer:?}");
    let told = source(&burdock, "the server is missed", |it| !it["problem"].is_null()).await;
    assert_eq!(told["instances"], 2);
    // Its folder goes with it.
    drop(before);
}

/// Processor time that a process has had, in milliseconds.
fn cpu(pid: i32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("its figures");
    let after = stat.rsplit_once(") ").expect("a name in brackets").1;
    let ticks: u64 =
        after.split(' ').skip(11).take(2).map(|it| it.parse::<u64>().expect("a number")).sum();
    ticks * 10
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_pods_come_in_pages_and_one_of_them_in_one_line() {
    let folder = scratch();
    let cluster = Cluster::stand_in(&folder).await;
    let rows = |slice: usize, state: [bool; 3]| -> Vec<Value> {
        let row = |at: usize| {
            let pod = format!("web-7d4b9c6f5-{slice:03}{at:02}");
            let state = if at == 0 { state } else { READY };
            endpoint(&pod, &format!("127.1.{slice}.{at}"), state)
        };
        (0..100).map(row).collect()
    };
    for slice in 0..100 {
        cluster.put(&format!("{slice:03}"), 9, &rows(slice, READY));
    }
    let text = format!("{HEADER}session_affinity: true\ndiscovery: {}\n", cluster.discovery());
    let begun = Instant::now();
    let mut burdock = start(folder.clone(), &text, &[]).await;
    let changed = "discovery: instances changed";
    burdock.wait_log(changed, |it| it["instances"] == 10_000).await;
    let (took, spent) = (begun.elapsed(), cpu(burdock.pid()));
    assert_eq!(lists(&cluster), 2, "pages of fifty slices");

    let mut api = Api::of(&burdock);
    let one = "web-7d4b9c6f5-04200";
    let before = cpu(burdock.pid());
    const CHANGES: u32 = 10;
    for n in 0..CHANGES {
        let (state, health) = if n % 2 == 0 { (STARTING, "unready") } else { (READY, "ready") };
        cluster.put("042", 9, &rows(42, state));
        api.wait(one, |it| it["health"] == health).await;
    }
    let each = (cpu(burdock.pid()) - before) / u64::from(CHANGES);
    eprintln!(
        "10,000 pods: {took:?} and {spent} ms of CPU to the first; {each} ms of CPU a change"
    );
    assert_eq!(lists(&cluster), 2, "nobody asks for all of them again");
    assert!(took < Duration::from_secs(15), "{took:?}");
}

/// The documents of a manifest.
fn manifest<const N: usize>(name: &str) -> [Value; N] {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/kubernetes").join(name);
    let text = std::fs::read_to_string(file).expect("the manifest");
    let documents = text.split("\n---\n").map(|it| serde_yaml::from_str(it).expect("YAML"));
    documents.collect::<Vec<_>>().try_into().expect("so many documents")
}

#[test]
fn the_manifest_allows_what_is_asked_for_and_nothing_else() {
    let [role, binding] = manifest("rbac.yaml");
    let [account] = manifest("serviceaccount.yaml");
    let slices = json!([{
        "apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"],
        "verbs": ["get", "list", "watch"],
    }]);
    assert_eq!((&role["kind"], &role["rules"]), (&json!("Role"), &slices));
    assert_eq!(binding["roleRef"]["name"], role["metadata"]["name"]);
    let subject = json!([{ "kind": "ServiceAccount", "name": account["metadata"]["name"] }]);
    assert_eq!((&binding["kind"], &binding["subjects"]), (&json!("RoleBinding"), &subject));
}
