//! Certificates by ACME: from a CA that looks for itself, by both of its ways; kept over restarts,
//! replaced in time, and no trouble for anybody when the CA says no or says nothing.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustls_pki_types::CertificateDer;

use crate::support::burdock::{scratch, signal_process};
use crate::support::pebble::{Pebble, Port, Ways, account, acme, files, ports};
use crate::support::tls::{Authority, Tls, connect, shown};
use crate::support::wire::Conn;
use crate::support::{self, Backend, Burdock, Client, Request, pause, raw, within, yaml};

/// A balancer with a plain and a secured listener, and a CA that knows both.
struct Site {
    backend: Backend,
    folder: PathBuf,
    plain: Port,
    secured: Port,
    ca: Option<(Authority, [Port; 2])>,
}

impl Site {
    async fn new() -> Self {
        Self {
            backend: Backend::start("a").await,
            folder: scratch(),
            plain: Port::claim(),
            secured: Port::claim(),
            ca: Some(ports()),
        }
    }

    async fn pebble(&mut self, ways: &Ways) -> Pebble {
        let (plain, secured) = (self.plain.address(), self.secured.address());
        let ca = self.ca.take().expect("one CA");
        Pebble::start(&self.folder, ca, (plain, secured), ways).await
    }

    /// The configuration: `rest` ends the map `acme`, `more` the map `tls`.
    fn text(&self, rest: &str, more: &str) -> String {
        let acme = acme(self.ca.as_ref().expect("a CA to come"), &self.folder, rest);
        let listeners = format!(
            "listeners:\n  - {{ address: \"{}\", https_redirect: true }}\n  \
             - address: \"{}\"\n    tls: {{ acme: {acme}, {more} }}\n",
            self.plain.address(),
            self.secured.address(),
        );
        let text = yaml(&[&self.backend], "session_affinity: true\naccess_log: true");
        let text = text.replace("access_log: true\ninstances", "instances");
        text.replace("listeners: [{ address: 127.0.0.1:0 }]\n", &listeners)
    }

    async fn burdock(&self, text: &str) -> Burdock {
        let config = self.folder.join("burdock.yaml");
        std::fs::write(&config, text).expect("write the config");
        let path = config.display().to_string();
        Burdock::spawn(self.folder.clone(), config, &["run", "-c", &path, "--pid-file", "pid"])
            .await
    }

    /// The certificate that clients of `host` see who trust whom `client` does.
    async fn seen(&self, client: &Tls, host: &str) -> Option<CertificateDer<'static>> {
        let stream = connect(&client.config(), self.secured.address(), host).await;
        stream.ok().map(|stream| shown(&stream))
    }
}

async fn issued(burdock: &Burdock, count: usize) {
    let labels = [("outcome", "issued")];
    let is = |value| value >= count as f64;
    burdock.wait_metric("burdock_acme_orders_total", &labels, is).await;
}

async fn status(conn: &mut Conn, path: &str) -> u16 {
    conn.write(&Request::get(path).encode(None)).await.expect("write a request");
    let head = within("a head", conn.head()).await.expect("read a head").expect("an answer");
    within("a body", conn.body(head.response_framing("GET"))).await.expect("read a body");
    head.status()
}

/// Nothing that is kept may be read by others, and nothing that is secret is told.
fn is_kept_secret(burdock: &Burdock, state: &Path) {
    let files = files(state);
    let secrets = files.iter().filter(|file| file.extension().is_some_and(|it| it == "pem"));
    let mut secrets: Vec<_> = secrets.map(|file| second_line(file)).collect();
    let key = account(state)["credentials"]["key_pkcs8"].as_str().expect("a key").to_owned();
    secrets.push(key);
    let shown = support::run_to_end(&burdock.directory, &["check", "burdock.yaml"]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("agree_to_terms: true"), "{shown}");
    for secret in secrets {
        assert!(!burdock.output().contains(&secret) && !shown.contains(&secret));
    }
    for file in files {
        let mode = |path: &Path| path.metadata().expect("a file").permissions().mode() & 0o777;
        assert_eq!(
            (mode(&file), mode(file.parent().expect("a folder"))),
            (0o600, 0o700),
            "{file:?}"
        );
    }
}

/// Some of what a PEM file holds.
fn second_line(file: &Path) -> String {
    let text = std::fs::read_to_string(file).expect("read a file");
    text.lines().nth(1).expect("a second line").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn both_challenges_bring_certificates_that_outlive_a_restart() {
    for challenge in ["http-01", "tls-alpn-01"] {
        let mut site = Site::new().await;
        let rest = format!("challenge: {challenge}, domains: [a.test, B.test], email: x@a.test");
        let text = site.text(&rest, "");
        let pebble = site.pebble(&Ways::default()).await;
        let mut burdock = site.burdock(&text).await;
        issued(&burdock, 2).await;
        let client = pebble.client().await;
        let mut first = Vec::new();
        for host in ["a.test", "b.test"] {
            first.push(site.seen(&client, host).await.expect("a certificate that counts"));
            assert_eq!(
                status(&mut client.conn(site.secured.address(), host).await, "/").await,
                200
            );
        }
        // Whoever names no such host gets the first.
        assert!(site.seen(&client, "other.test").await.is_none());
        let labels = [("certificate", "b.test")];
        let expiry = "burdock_tls_certificate_expiry_timestamp_seconds";
        assert!(burdock.metrics().await.sum(expiry, &labels) > 1.8e9);
        assert_eq!(burdock.metrics().await.sum("burdock_acme_failures", &[]), 0.0);
        if challenge == "http-01" {
            // It was answered where everything else is redirected, and is not any more.
            let proofs = burdock.access_lines();
            let proofs = proofs.iter().filter(|line| line["status"] == 200);
            let well_known = |line: &&serde_json::Value| {
                line["path"].as_str().unwrap().starts_with("/.well-known/acme-challenge/")
            };
            assert!(proofs.filter(well_known).count() >= 2);
        } else {
            let proofs = [("outcome", "acme_proof")];
            burdock.wait_metric("burdock_tls_handshakes_total", &proofs, |it| it >= 2.0).await;
        }
        let mut plain = Client::new(site.plain.address());
        assert_eq!(plain.get("/.well-known/acme-challenge/none").await.status, 308);
        is_kept_secret(&burdock, &site.folder.join("state"));

        let orders = pebble.orders();
        burdock.signal(libc::SIGTERM);
        assert_eq!(burdock.exit_code().await, 0);
        let again = site.burdock(&text).await;
        for (host, before) in ["a.test", "b.test"].into_iter().zip(first) {
            assert_eq!(site.seen(&client, host).await, Some(before), "{host}");
        }
        assert_eq!(pebble.orders(), orders, "{}", pebble.output());
        assert_eq!(again.metrics().await.sum("burdock_acme_orders_total", &[]), 0.0);
        assert_eq!(account(&site.folder)["email"], "x@a.test");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_replaced_in_time_while_connections_go_on() {
    let mut site = Site::new().await;
    let text = site.text("domains: [a.test]", "");
    let pebble = site.pebble(&Ways { validity: Some(8), ..Ways::default() }).await;
    let burdock = site.burdock(&text).await;
    issued(&burdock, 1).await;
    let client = pebble.client().await;
    let before = site.seen(&client, "a.test").await.expect("a certificate that counts");
    let mut kept = client.conn(site.secured.address(), "a.test").await;
    let begun = std::time::Instant::now();
    while burdock.metrics().await.sum("burdock_acme_orders_total", &[("outcome", "issued")]) < 2.0 {
        assert!(begun.elapsed() < support::DEADLINE, "{}", burdock.output());
        assert_eq!(status(&mut kept, "/").await, 200);
        assert!(site.seen(&client, "a.test").await.is_some(), "there is always one that counts");
        pause().await;
    }
    let after = site.seen(&client, "a.test").await.expect("a certificate that counts");
    assert_ne!(before, after);
    assert_eq!(status(&mut kept, "/").await, 200);
    assert_eq!(burdock.reloads().len(), 0);
}

/// A process that nobody here has started, ended when dropped.
struct Heir(i32);

impl Drop for Heir {
    fn drop(&mut self) {
        signal_process(self.0, libc::SIGKILL);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_an_upgrade_the_process_that_serves_renews() {
    let mut site = Site::new().await;
    let text = site.text("domains: [a.test], renew_before: 10s", "");
    let text = format!("{text}upgrade: {{ timeout: 0s, spread: 0s }}\n");
    let pebble = site.pebble(&Ways { validity: Some(20), ..Ways::default() }).await;
    let mut burdock = site.burdock(&text).await;
    issued(&burdock, 1).await;
    let client = pebble.client().await;
    let before = site.seen(&client, "a.test").await.expect("a certificate that counts");
    burdock.signal(libc::SIGUSR2);
    assert_eq!(burdock.exit_code().await, 0, "{}", burdock.output());
    let named = std::fs::read_to_string(site.folder.join("pid")).expect("a pid file");
    let _heir = Heir(named.trim().parse().expect("a number"));
    assert_eq!(site.seen(&client, "a.test").await.as_ref(), Some(&before), "what was kept");
    // It counts from zero.
    issued(&burdock, 1).await;
    let after = site.seen(&client, "a.test").await.expect("a certificate that counts");
    assert_ne!(before, after);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ca_that_refuses_or_is_away_leaves_what_is_in_use_alone_and_is_quoted() {
    let mut site = Site::new().await;
    let own = Authority::new("ca");
    own.issue(&["a.test"]).save(&site.folder, "a");
    let certificates = "certificates: [{ cert: a.pem, key: a.key }]";
    let rest = "domains: [a.test], challenge: http-01";
    let text = site.text(rest, certificates);
    let mut burdock = site.burdock(&text).await;
    let line = burdock.wait_log("no certificate issued", |_| true).await;
    let error = line["error"].as_str().unwrap().to_owned();
    assert!(error.starts_with("asking the CA: connecting to 127.0.0.1:"), "{error}");
    assert_eq!((&line["domain"], &line["has_one"]), (&"a.test".into(), &false.into()));
    let labels = [("domain", "a.test")];
    burdock.wait_metric("burdock_acme_failures", &labels, |failures| failures == 1.0).await;
    let client = own.client();
    assert!(site.seen(&client, "a.test").await.is_some(), "the file's stays in use");

    // It is there now, and says no.
    let ways = Ways { blocked: vec!["a.test".to_owned()], ..Ways::default() };
    let pebble = site.pebble(&ways).await;
    burdock.signal(libc::SIGHUP);
    let refused = |line: &serde_json::Value| {
        let error = line["error"].as_str().unwrap();
        error.contains("rejectedIdentifier") && error.contains("the CA says: ")
    };
    burdock.wait_log("no certificate issued", refused).await;
    burdock.wait_metric("burdock_acme_failures", &labels, |failures| failures == 2.0).await;
    let outcome = |outcome| [("outcome", outcome)];
    let metrics = burdock.metrics().await;
    for (label, count) in [("unreachable", 1.0), ("refused", 1.0), ("issued", 0.0), ("failed", 0.0)]
    {
        assert_eq!(metrics.sum("burdock_acme_orders_total", &outcome(label)), count, "{label}");
    }
    let mut conn = client.conn(site.secured.address(), "a.test").await;
    assert_eq!(status(&mut conn, "/").await, 200);
    drop(pebble);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proof_that_is_not_found_is_told_in_the_words_of_the_ca() {
    let mut site = Site::new().await;
    // The CA looks where somebody else listens.
    let elsewhere = Backend::start("elsewhere").await;
    let text = site.text("domains: [a.test], challenge: http-01", "");
    let ca = site.ca.take().expect("one CA");
    let ways = Ways::default();
    let at = (elsewhere.address, site.secured.address());
    let _pebble = Pebble::start(&site.folder, ca, at, &ways).await;
    let mut burdock = site.burdock(&text).await;
    let line = burdock.wait_log("no certificate issued", |_| true).await;
    let error = line["error"].as_str().unwrap();
    assert!(error.starts_with("the CA did not find the proof: "), "{error}");
    assert!(error.contains("urn:ietf:params:acme:error:"), "{error}");
    // Nothing is there yet: a handshake is refused, and counted as what it is.
    let refused = Tls::default().refused(site.secured.address(), "a.test").await;
    assert!(refused.contains("AccessDenied"), "{refused}");
    let labels = [("outcome", "no_certificate")];
    burdock.wait_metric("burdock_tls_handshakes_total", &labels, |count| count == 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_begins_and_ends_it_and_a_proof_is_for_whoever_proves() {
    let mut site = Site::new().await;
    let own = Authority::new("ca");
    own.issue(&["a.test"]).save(&site.folder, "a");
    let certificates = "certificates: [{ cert: a.pem, key: a.key }]";
    let text = site.text("domains: [a.test]", certificates);
    let without = {
        let (head, tail) = text.split_once("acme: {").unwrap();
        format!("{head}{}", tail.split_once("}, ").unwrap().1)
    };
    let pebble = site.pebble(&Ways::default()).await;
    let burdock = site.burdock(&without).await;
    let mut kept = own.client().conn(site.secured.address(), "a.test").await;
    assert_eq!(status(&mut kept, "/").await, 200);
    let prover = own.client().alpn("acme-tls/1");
    let none = prover.refused(site.secured.address(), "a.test").await;
    assert!(none.contains("NoApplicationProtocol"), "{none}");

    assert_eq!(burdock.reload(&text).await["message"], "reloaded");
    issued(&burdock, 1).await;
    let client = pebble.client().await;
    assert!(site.seen(&client, "a.test").await.is_some(), "it goes before the file's");
    assert_eq!(status(&mut kept, "/").await, 200);
    let none = prover.refused(site.secured.address(), "a.test").await;
    assert!(none.contains("AccessDenied"), "{none}");
    let both = own.client().alpn("http/1.1").alpn("acme-tls/1");
    let why = both.refused(site.secured.address(), "a.test").await;
    assert!(why.contains("UnknownIssuer"), "an ordinary handshake: {why}");

    assert_eq!(burdock.reload(&without).await["message"], "reloaded");
    assert!(site.seen(&own.client(), "a.test").await.is_some(), "the file's is in use again");
    assert_eq!(status(&mut kept, "/").await, 200);
    assert_eq!(burdock.reload(&text).await["message"], "reloaded");
    assert!(site.seen(&client, "a.test").await.is_some(), "the kept one, without an order");
    let mut plain = raw::open(site.plain.address(), "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    let head = within("an answer", plain.head()).await.unwrap().unwrap();
    assert_eq!(head.status(), 308);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ca_that_knows_its_customers_is_told_who_this_is() {
    let key = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
    let accounts = Some(("kid-1".to_owned(), key.to_owned()));
    let mut site = Site::new().await;
    std::fs::write(site.folder.join("eab.key"), key).unwrap();
    let rest = "domains: [a.test], external_account: { key_id: kid-1, key_file: eab.key }";
    let text = site.text(rest, "");
    let pebble = site.pebble(&Ways { accounts, ..Ways::default() }).await;
    let burdock = site.burdock(&text).await;
    issued(&burdock, 1).await;
    assert!(site.seen(&pebble.client().await, "a.test").await.is_some());
    is_kept_secret(&burdock, &site.folder.join("state"));
    assert!(!burdock.output().contains(key));

    // One that does not know the account that is kept is asked for another.
    let file = files(&site.folder).into_iter().find(|file| file.ends_with("account.json")).unwrap();
    let mut strange = account(&site.folder);
    let id = strange["credentials"]["id"].as_str().unwrap().to_owned();
    strange["credentials"]["id"] = format!("{id}0").into();
    std::fs::write(file, strange.to_string()).unwrap();
    let more = text.replace("domains: [a.test]", "domains: [a.test, b.test]");
    assert_eq!(burdock.reload(&more).await["message"], "reloaded");
    issued(&burdock, 2).await;
    assert_eq!(burdock.log("the CA does not know the account any more").len(), 1);
    assert_ne!(account(&site.folder)["credentials"]["id"], strange["credentials"]["id"]);
}
