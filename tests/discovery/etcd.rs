//! Instances in an etcd: keys come and go, leases run out, and sessions keep to their instances. An etcd
//! that dies, stands still or forgets changes nothing.

use rcgen::{CertificateParams, DistinguishedName};
use serde_json::{Value, json};

use crate::common::{source, start};
use crate::support::api::Api;
use crate::support::burdock::scratch;
use crate::support::etcd::Etcd;
use crate::support::load::errors;
use crate::support::pebble::Port;
use crate::support::tls::Authority;
use crate::support::{Backend, Burdock, Client, HEADER, Load, pause, within};

/// Who is taken out is let go soon, and a quiet watch is made anew soon.
fn config(etcd: &str) -> String {
    format!(
        "{HEADER}session_affinity: true\ndrain: {{ timeout: 200ms, spread: 0s }}\n\
         discovery:\n  refresh: 1s\n  etcd:\n    prefix: /burdock/chat/\n{etcd}"
    )
}

fn endpoints(urls: &[String]) -> String {
    format!("    endpoints: {}\n", json!(urls))
}

fn key(name: &str) -> String {
    format!("/burdock/chat/{name}")
}

/// A session at this instance.
async fn session_at(burdock: &Burdock, name: &str) -> Client {
    within(&format!("a session at {name}"), async {
        loop {
            let mut session = burdock.session();
            let answer = session.get("/").await;
            assert_eq!(answer.status, 200);
            if answer.instance() == name {
                return session;
            }
        }
    })
    .await
}

async fn moves(session: &mut Client, from: &str) {
    within("the session moves", async {
        while session.get("/").await.instance() == from {
            pause().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_say_who_serves_and_one_that_makes_no_sense_is_left_out() {
    let (a, b, c) =
        (Backend::start("a").await, Backend::start("b").await, Backend::start("c").await);
    let directory = scratch();
    let etcd = Etcd::start(&directory).await;
    etcd.put(&key("one"), &a.address.to_string());
    etcd.put(&key("two"), &json!({ "address": b.address, "weight": 3 }).to_string());
    etcd.put("/burdock/chat2/other", "10.0.0.1:1");
    let mut burdock = start(directory, &config(&endpoints(&[etcd.url()]))).await;
    let load = Load::start(burdock.address(), 10, 200, "/");
    let mut api = Api::of(&burdock);
    let told = source(&burdock, "both are found", |it| it["instances"] == 2).await;
    assert_eq!((&told["source"], &told["problem"]), (&json!("etcd"), &Value::Null));
    assert_eq!(api.instance("two").await["weight"], 3);
    let (mut at_a, mut at_b) = (session_at(&burdock, "a").await, session_at(&burdock, "b").await);

    // A new weight, and another address of the same name: its sessions stay with it.
    etcd.put(&key("two"), &json!({ "address": b.address, "weight": 7 }).to_string());
    within("the weight", async {
        while api.instance("two").await["weight"] != 7 {
            pause().await;
        }
    })
    .await;
    assert_eq!(at_b.get("/").await.instance(), "b");
    etcd.put(&key("one"), &c.address.to_string());
    moves(&mut at_a, "a").await;
    assert_eq!(at_a.get("/").await.instance(), "c", "the same instance, at another address");
    assert_eq!(burdock.metrics().await.sum("burdock_rehomes_total", &[]), 0.0);

    // Others make mistakes; they are told of once, and harm nobody.
    for value in ["", "nonsense", "{\"adress\": 1}"] {
        etcd.put(&key("bad"), value);
        etcd.put(&key("bad"), value);
    }
    let grpc = json!({ "Op": 0, "Addr": a.address, "Metadata": { "zone": "x" } });
    etcd.put(&key("three"), &grpc.to_string());
    let told = source(&burdock, "another convention", |it| it["instances"] == 3).await;
    assert_eq!((&told["problem"], &told["ignored"]), (&Value::Null, &json!(1)));
    let metrics = burdock.metrics().await;
    assert_eq!(metrics.sum("burdock_discovery_ignored", &[]), 1.0);
    let last = |it: &Value| it["problem"].as_str().unwrap().contains("JSON that means nothing");
    let line = burdock.wait_log("discovery: a key is left out", last).await;
    assert_eq!(line["key"], key("bad"), "{line}");
    let said = burdock.log("discovery: a key is left out");
    assert!(said.len() <= 3, "each problem is told of once: {said:?}");
    etcd.delete(&key("bad"));
    source(&burdock, "it is gone", |it| it["ignored"] == 0).await;

    // Whoever has put a key there dies, and with its lease the key.
    let lease = etcd.lease(1);
    etcd.ctl(&["put", &key("two"), &b.address.to_string(), "--lease", &lease]);
    moves(&mut at_b, "b").await;
    source(&burdock, "its lease has run out", |it| it["instances"] == 2).await;
    // All are gone: that is not believed.
    etcd.ctl(&["del", "--prefix", &key("")]);
    let told = source(&burdock, "none", |it| !it["problem"].is_null()).await;
    assert!(told["problem"].as_str().unwrap().contains("minimum"), "{told}");
    assert_eq!(told["instances"], 2);
    assert_eq!(errors(&load.stop().await), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_etcd_that_is_lost_changes_nothing() {
    let (a, b, c) =
        (Backend::start("a").await, Backend::start("b").await, Backend::start("c").await);
    let directory = scratch();
    let mut etcd = Etcd::start(&directory).await;
    for backend in [&a, &b] {
        etcd.put(&key(&backend.name), &backend.address.to_string());
    }
    // Another member that nobody hears of any more.
    let nobody = Port::claim();
    let urls = [format!("http://{}", nobody.address()), etcd.url()];
    let text = config(&endpoints(&urls));
    let mut burdock = start(directory.clone(), &text).await;
    source(&burdock, "both are found", |it| it["instances"] == 2).await;
    let load = Load::start(burdock.address(), 10, 200, "/");
    let mut held = [session_at(&burdock, "a").await, session_at(&burdock, "b").await];

    etcd.kill();
    let gone = |it: &Value| it["problem"].as_str().is_some_and(|it| it.contains("connecting"));
    let told = source(&burdock, "nobody answers", gone).await;
    assert_eq!(told["instances"], 2);
    for (session, name) in held.iter_mut().zip(["a", "b"]) {
        assert_eq!(session.get("/").await.instance(), name);
    }
    // Nor does a restart of Burdock, meanwhile.
    assert_eq!(errors(&load.stop().await), Vec::<String>::new());
    burdock.signal(libc::SIGTERM);
    burdock.exit_code().await;
    let before = burdock;
    let burdock = start(directory, &text).await;
    let load = Load::start(burdock.address(), 10, 200, "/");
    let mut held = [session_at(&burdock, "a").await, session_at(&burdock, "b").await];
    etcd.again().await;
    source(&burdock, "it is heard again", |it| it["problem"].is_null()).await;

    // It stands still, which nobody says; and what it forgets meanwhile is not missed.
    etcd.stop();
    let late = |it: &Value| it["problem"].as_str().is_some_and(|it| !it.is_empty());
    let told = source(&burdock, "silence", late).await;
    assert_eq!(told["instances"], 2);
    etcd.go_on();
    etcd.put(&key("c"), &c.address.to_string());
    etcd.compact();
    source(&burdock, "all three", |it| it["instances"] == 3 && it["problem"].is_null()).await;
    session_at(&burdock, "c").await;
    for (session, name) in held.iter_mut().zip(["a", "b"]) {
        assert_eq!(session.get("/").await.instance(), name);
    }
    assert_eq!(burdock.metrics().await.sum("burdock_rehomes_total", &[]), 0.0);
    assert_eq!(errors(&load.stop().await), Vec::<String>::new());
    drop(before);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_etcd_that_wants_certificates_and_users_is_given_them() {
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    let directory = scratch();
    let authority = Authority::new("of etcd");
    std::fs::write(directory.join("ca.pem"), &authority.pem).unwrap();
    authority.issue(&["127.0.0.1", "localhost"]).save(&directory, "etcd");
    // Users by password and a common name don't go together, says etcd.
    let nameless = |params: &mut CertificateParams| {
        params.distinguished_name = DistinguishedName::new();
    };
    authority.sign(&["burdock"], nameless).save(&directory, "me");
    authority.issue(&["burdock"]).save(&directory, "named");
    let mut etcd = Etcd::secured(&directory).await;
    etcd.put(&key("a"), &a.address.to_string());
    for command in [
        "user add root:pw",
        "role add root",
        "user grant-role root root",
        "user add burdock:secret",
        "role add r",
        "role grant-permission r --prefix=true read /burdock/chat/",
        "user grant-role burdock r",
        "auth enable",
    ] {
        etcd.ctl(&command.split(' ').collect::<Vec<_>>());
    }
    etcd.by(Some("root:pw"));
    std::fs::write(directory.join("password"), "wrong\n").unwrap();
    let text = config(&endpoints(&[etcd.url()]))
        + "    ca: ca.pem\n    cert: me.pem\n    key: me.key\n    user: burdock\n    \
           password_file: password\n";
    let burdock = start(directory.clone(), &text).await;
    let told = source(&burdock, "a wrong password", |it| !it["problem"].is_null()).await;
    assert!(told["problem"].as_str().unwrap().contains("authentication failed"), "{told}");
    assert!(!burdock.output().contains("wrong\\n") && !burdock.output().contains("secret"));
    // A new password is seen without a signal.
    std::fs::write(directory.join("password.new"), "secret\n").unwrap();
    std::fs::rename(directory.join("password.new"), directory.join("password")).unwrap();
    source(&burdock, "the right one", |it| it["instances"] == 1 && it["problem"].is_null()).await;
    session_at(&burdock, "a").await;
    etcd.put(&key("b"), &b.address.to_string());
    session_at(&burdock, "b").await;
    let named = text.replace("me.pem", "named.pem").replace("me.key", "named.key");
    let line = burdock.reload(&named).await;
    assert_eq!(line["message"], "reloaded", "{line}");
    let told = source(&burdock, "a name", |it| !it["problem"].is_null()).await;
    assert!(told["problem"].as_str().unwrap().contains("CommonName"), "{told}");
    // Without the certificate nobody is let in.
    let text = text.replace("    cert: me.pem\n    key: me.key\n", "");
    let line = burdock.reload(&text).await;
    assert_eq!(line["message"], "reloaded", "{line}");
    let gone = |it: &Value| it["problem"].as_str().is_some_and(|it| !it.contains("CommonName"));
    let told = source(&burdock, "no certificate", gone).await;
    assert_eq!(told["instances"], 2);
}
