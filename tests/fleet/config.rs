//! Balancers whose configuration is their fleet's: a text in an etcd that is pushed once and served by
//! all, and that replaces nothing where it makes no sense.

use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Instant;

use serde_json::Value;

use crate::common::again;
use crate::support::burdock::{run_in, scratch};
use crate::support::etcd::Etcd;
use crate::support::load::errors;
use crate::support::{self, Api, Backend, Burdock, DEADLINE, Load, pause};

const CONFIG: &str = "/burdock/test/shared/config";

/// What is a balancer's own.
fn own(name: &str, etcd: &str) -> String {
    format!(
        "{}affinity_keys: [q83vq83vq83vq83vq83vq83vq83vq83vq83vq83vq80=]\n\
         fleet: {{ name: {name}, config: true, etcd: {{ endpoints: [\"{etcd}\"], prefix: /burdock/test }} }}\n",
        support::HEADER
    )
}

/// What is the fleet's.
fn shared(backends: &[&Backend]) -> String {
    let row = |it: &&Backend| format!("  - {{ name: {}, address: {} }}\n", it.name, it.address);
    let rows: String = backends.iter().map(row).collect();
    format!("session_affinity: true\ndrain: {{ timeout: 120s, spread: 1s }}\ninstances:\n{rows}")
}

/// Runs `burdock fleet` in a folder with a balancer's own file.
async fn fleet(folder: &Path, arguments: &[&str]) -> Output {
    let folder: PathBuf = folder.to_owned();
    let arguments: Vec<String> = arguments.iter().map(|it| (*it).to_owned()).collect();
    let run = move || {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        run_in(&folder, &[&["fleet"], &arguments[..]].concat(), &[])
    };
    tokio::task::spawn_blocking(run).await.expect("a command")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Puts a text in the fleet's place.
async fn push(folder: &Path, config: &str) -> Output {
    std::fs::write(folder.join("shared.yaml"), config).expect("write the text");
    fleet(folder, &["push", "shared.yaml"]).await
}

/// Names of the instances that a balancer serves by, once there are so many.
async fn instances(burdock: &Burdock, count: usize) -> Vec<String> {
    let begun = Instant::now();
    loop {
        let status = Api::of(burdock).status().await;
        let all =
            status["services"][0]["versions"][0]["instances"].as_array().expect("a list").clone();
        let is_present = |it: &&Value| it["membership"] == "present";
        let name = |it: &Value| it["name"].as_str().expect("a name").to_owned();
        let names: Vec<_> = all.iter().filter(is_present).map(name).collect();
        if names.len() == count {
            return names;
        }
        assert!(begun.elapsed() < DEADLINE, "{names:?} are not {count}");
        pause().await;
    }
}

async fn warnings(burdock: &Burdock) -> String {
    Api::of(burdock).get("fleet").await.1["warnings"].to_string()
}

async fn wait_warnings(burdock: &Burdock, wanted: impl Fn(&str) -> bool) -> String {
    let begun = Instant::now();
    loop {
        let told = warnings(burdock).await;
        if wanted(&told) {
            return told;
        }
        assert!(begun.elapsed() < DEADLINE, "never told: {told}");
        pause().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_pushed_once_is_served_by_all_and_a_mistake_by_nobody() {
    let folder = scratch();
    let mut etcd = Etcd::start(&folder).await;
    let (x, y, z) =
        (Backend::start("x").await, Backend::start("y").await, Backend::start("z").await);
    let file = folder.join("burdock.yaml");
    std::fs::write(&file, own("nobody", &etcd.url())).unwrap();

    // There is nothing to serve by yet, and a mistake is refused before it comes there.
    let run_folder = folder.clone();
    let started = move || run_in(&run_folder, &["run", "-c", "burdock.yaml"], &[]);
    let started = tokio::task::spawn_blocking(started).await.unwrap();
    let told = text(&started.stderr);
    assert_eq!(started.status.code(), Some(1), "{told}");
    assert!(told.contains("`burdock fleet push FILE`"), "{told}");
    let refused = push(&folder, "instances: [a:1]\nworkers: 2\nnonsense: 1\n").await;
    let told = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(3), "{told}");
    assert!(
        told.contains("shared.yaml:2: workers: ") && told.contains("shared.yaml:3: nonsense: "),
        "{told}"
    );
    let pushed = push(&folder, &shared(&[&x, &y])).await;
    assert!(pushed.status.success(), "{}", text(&pushed.stderr));

    let mut a = Burdock::start(&own("a", &etcd.url())).await;
    let b = Burdock::start(&own("b", &etcd.url())).await;
    assert_eq!(instances(&a, 2).await, ["x", "y"]);
    let load = Load::start(b.address(), 12, 200, "/");
    load.passes(100).await;

    // What changes is told before, and comes to all without a session that moves.
    std::fs::write(folder.join("more.yaml"), shared(&[&x, &y, &z])).unwrap();
    let told = text(&fleet(&folder, &["diff", "more.yaml"]).await.stdout);
    assert_eq!(told, "default/default: instance z added\n");
    assert!(push(&folder, &shared(&[&x, &y, &z])).await.status.success());
    for it in [&a, &b] {
        assert_eq!(instances(it, 3).await, ["x", "y", "z"]);
    }
    assert_eq!(text(&fleet(&folder, &["show"]).await.stdout), shared(&[&x, &y, &z]));
    load.passes(100).await;

    // Somebody puts a mistake there all the same: it is told of by its line, and changes nothing.
    etcd.put(CONFIG, "session_affinity: true\ninstances: [x]\n");
    for it in [&a, &b] {
        let told = wait_warnings(it, |told| told.contains("refused")).await;
        assert!(told.contains("etcd:/burdock/test/shared/config:2: instances[0]: "), "{told}");
        it.wait_metric("burdock_config_last_reload_success", &[], |it| it == 0.0).await;
        assert_eq!(instances(it, 3).await.len(), 3);
    }
    // A balancer's own file is read meanwhile, and one that restarts serves by the last good text.
    let own_change = own("a", &etcd.url()).replace("access_log: true", "access_log: false");
    assert_eq!(a.reload(&own_change).await["message"], "reloaded");
    a.signal(libc::SIGTERM);
    a.exit_code().await;
    let mut a = again(&a).await;
    assert_eq!(instances(&a, 3).await.len(), 3);
    assert!(push(&folder, &shared(&[&x, &y])).await.status.success());
    for it in [&a, &b] {
        assert_eq!(instances(it, 2).await, ["x", "y"]);
        wait_warnings(it, |told| !told.contains("refused")).await;
    }

    // So does one that restarts without the etcd.
    etcd.kill();
    a.signal(libc::SIGTERM);
    a.exit_code().await;
    let a = again(&a).await;
    assert_eq!(instances(&a, 2).await, ["x", "y"]);
    load.passes(100).await;
    let kept = std::fs::metadata(a.directory.join("burdock.yaml.shared")).unwrap();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&kept.permissions()) & 0o777, 0o600);
    etcd.again().await;
    assert!(push(&folder, &shared(&[&x, &y, &z])).await.status.success());
    for it in [&a, &b] {
        instances(it, 3).await;
    }
    let seen = load.stop().await;
    assert_eq!(errors(&seen), [""; 0]);
    assert_eq!(seen.iter().map(support::load::Seen::moves).sum::<usize>(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_checked_with_what_is_shared() {
    let folder = scratch();
    let etcd = Etcd::start(&folder).await;
    let x = Backend::start("x").await;
    std::fs::write(folder.join("burdock.yaml"), own("nobody", &etcd.url())).unwrap();
    assert!(push(&folder, &shared(&[&x])).await.status.success());
    let a = Burdock::start(&own("a", &etcd.url())).await;
    let changed = own("a", &etcd.url()).replace("access_log: true", "access_log: false");
    let body = serde_json::json!({ "file": a.config, "text": changed });
    let (status, plan) = Api::of(&a).post("check", body).await;
    assert_eq!((status, &plan["changes"]), (200, &serde_json::json!(["access_log: changed"])));
    let run_folder = folder.clone();
    let check = move || run_in(&run_folder, &["check", "burdock.yaml"], &[]);
    let told = tokio::task::spawn_blocking(check).await.unwrap();
    assert!(text(&told.stdout).contains("the rest is the fleet's"), "{}", text(&told.stderr));
}
