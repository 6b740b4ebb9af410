//! Affinity keys that balancers share by an etcd: begun by the first, rotated under load, lost by nobody.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::common::{again, fleet, heard, wait_fleet};
use crate::support::burdock::{run_in, scratch};
use crate::support::etcd::Etcd;
use crate::support::roaming::Roaming;
use crate::support::{Backend, Burdock, DEADLINE, eventually, pause, yaml};

/// What a command prints that asks this balancer.
async fn command(burdock: &Burdock, arguments: &[&str]) -> String {
    let (folder, admin): (PathBuf, _) = (burdock.directory.clone(), burdock.admin().to_string());
    let arguments: Vec<String> = arguments.iter().map(|it| (*it).to_owned()).collect();
    let run = move || {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let url = format!("http://{admin}");
        run_in(Path::new(&folder), &arguments, &[("BURDOCK_ADMIN", &url)])
    };
    let output = tokio::task::spawn_blocking(run).await.expect("a command");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

/// A balancer whose affinity keys are the fleet's; `own` are keys of its own.
async fn sharing_keys(name: &str, backends: &[&Backend], etcd: &Etcd, own: &str) -> Burdock {
    let text = yaml(
        backends,
        &format!(
            "session_affinity: true\n{own}fleet: {{ name: {name}, keyring: true, \
         etcd: {{ endpoints: [\"{}\"], prefix: /burdock/test }} }}\n",
            etcd.url()
        ),
    );
    let burdock = Burdock::start(&text).await;
    heard(&burdock, true).await;
    burdock
}

/// Ids of the keys that a balancer opens tokens with, the one that seals first.
async fn keys(burdock: &Burdock) -> Vec<String> {
    let told = fleet(burdock).await;
    let nodes = told["nodes"].as_array().expect("a list");
    let own = nodes.iter().find(|it| it["presence"] == "here").expect("its own row");
    let keys = own["keys"].as_array().expect("a list").iter();
    keys.map(|key| key.as_str().expect("text").to_owned()).collect()
}

/// Keys of its own, which it had before, may stand behind these.
async fn wait_keys(burdock: &Burdock, expected: &[String]) {
    let begun = Instant::now();
    loop {
        let told = keys(burdock).await;
        if told.starts_with(expected) {
            return;
        }
        assert!(begun.elapsed() < DEADLINE, "{told:?} is not {expected:?}");
        pause().await;
    }
}

fn ids(text: &str) -> Vec<String> {
    let id = |line: &str| line.split(' ').next().expect("an id").to_owned();
    text.lines().map(id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn affinity_keys_are_shared_and_rotated_without_a_session_that_moves() {
    let folder = scratch();
    let mut etcd = Etcd::start(&folder).await;
    let (x, y, z) =
        (Backend::start("x").await, Backend::start("y").await, Backend::start("z").await);
    let backends = [&x, &y, &z];
    // Nobody was given a key: the first one makes it, and the others take it.
    let a = sharing_keys("a", &backends, &etcd, "").await;
    let first = keys(&a).await;
    let b = sharing_keys("b", &backends, &etcd, "").await;
    wait_keys(&b, &first[..1]).await;
    let load = Roaming::start(&[&a, &b], 12, Duration::from_millis(100));
    load.passes(100).await;
    for _ in 0..2 {
        let told = command(&a, &["fleet", "keys", "rotate", "-c", "burdock.yaml"]).await;
        assert!(
            told.lines().next().is_some_and(|line| line.ends_with(" seals and opens")),
            "{told}"
        );
        load.passes(100).await;
    }
    let rotated = ids(&command(&b, &["fleet", "keys", "show", "-c", "burdock.yaml"]).await);
    assert_eq!((rotated.len(), &rotated[2]), (3, &first[0]));
    wait_keys(&b, &rotated).await;

    // What makes no sense replaces nothing, and is told of; no message has a key.
    let good = etcd.ctl(&["get", "--print-value-only", "/burdock/test/secret/keyring"]);
    etcd.put("/burdock/test/secret/keyring", "c2VjcmV0");
    let told = wait_fleet(&a, "told of", |it| it["warnings"].to_string().contains("keyring")).await;
    assert!(!told.to_string().contains("c2VjcmV0") && !a.output().contains("c2VjcmV0"));
    load.passes(100).await;
    wait_keys(&a, &rotated).await;
    etcd.put("/burdock/test/secret/keyring", good.trim());
    wait_fleet(&a, "mended", |it| !it["warnings"].to_string().contains("keyring")).await;

    // Without the etcd a balancer that restarts has the keys still, and one that lost all gets them back.
    etcd.kill();
    heard(&b, false).await;
    load.without(&b);
    b.signal(libc::SIGTERM);
    let mut ended = b;
    ended.exit_code().await;
    let b = again(&ended).await;
    assert_eq!(keys(&b).await, rotated);
    load.with(&b);
    load.passes(100).await;
    etcd.anew().await;
    heard(&b, true).await;
    let keyring = || etcd.ctl(&["get", "--print-value-only", "/burdock/test/secret/keyring"]);
    eventually("it has the keyring again", || (!keyring().trim().is_empty()).then_some(())).await;
    let begun = ids(&command(&a, &["fleet", "keys", "show", "-c", "burdock.yaml"]).await);
    assert_eq!(begun, rotated);
    let seen = load.stop().await;
    assert_eq!(seen.errors, [""; 0]);
    assert!(seen.instances.iter().all(|it| it.len() == 1), "{:?}", seen.instances);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_not_everybody_has_seals_nothing() {
    let folder = scratch();
    let etcd = Etcd::start(&folder).await;
    let x = Backend::start("x").await;
    let own = "affinity_keys: [q83vq83vq83vq83vq83vq83vq83vq83vq83vq83vq80=]\n";
    let a = sharing_keys("a", &[&x], &etcd, own).await;
    let known = keys(&a).await;
    assert_eq!(known.len(), 1, "the key of the file begins the keyring");
    etcd.put("/burdock/test/nodes/old", "{\"keys\":[\"00000000\"]}");
    let rotate = ["fleet", "keys", "rotate", "--wait", "4s", "-c", "burdock.yaml"];
    let folder = a.directory.clone();
    let output = tokio::task::spawn_blocking(move || run_in(&folder, &rotate, &[])).await.unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(
        told.contains("not every balancer has the new key yet") && told.ends_with(": old\n"),
        "{told}"
    );
    assert_eq!(ids(&command(&a, &["fleet", "keys", "show", "-c", "burdock.yaml"]).await), known);
    wait_keys(&a, &known).await;
    // A file of keys takes the place of all; what the balancer was given itself it still opens.
    std::fs::write(a.directory.join("new.keys"), "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n")
        .unwrap();
    let pushed = ids(&command(&a, &["fleet", "keys", "push", "new.keys"]).await);
    wait_keys(&a, &[&pushed[..], &known[..]].concat()).await;
}
