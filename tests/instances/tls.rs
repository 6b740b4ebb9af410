//! TLS to instances: who is believed, what happens where it fails, and that everything that passes
//! plainly passes by it too.

use std::time::Duration;

use tokio::io::AsyncWriteExt;

use crate::support::burdock::scratch;
use crate::support::secured::{Authority, Manners, Secured};
use crate::support::ws::{self, WebSocket};
use crate::support::{self, Backend, Burdock, HEADER, Request, eventually, pattern, within};
use crate::support_clients::{listening, program};

const RAW: &str = "GET /raw HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// Burdock with `ca.pem` of this authority beside its file; `{ca}` in `rest` is where.
struct Site {
    burdock: Burdock,
    folder: std::path::PathBuf,
}

fn folder(authority: &Authority) -> std::path::PathBuf {
    let folder = scratch();
    std::fs::write(folder.join("ca.pem"), &authority.pem).expect("write the authority");
    folder
}

async fn serve(folder: std::path::PathBuf, instances: &str, rest: &str) -> Site {
    let text = format!("{HEADER}instances: [{instances}]\n{rest}");
    let config = folder.join("burdock.yaml");
    std::fs::write(&config, text).expect("write the config");
    let path = config.display().to_string();
    let burdock = Burdock::spawn(folder.clone(), config, &["run", "-c", &path]).await;
    Site { burdock, folder }
}

impl Site {
    /// Replaces a file beside the configuration, and gives the line that tells what became of it.
    async fn replace(&self, name: &str, content: &str) -> serde_json::Value {
        let before = self.burdock.reloads().len();
        let beside = self.folder.join(".new");
        std::fs::write(&beside, content).expect("write the new file");
        std::fs::rename(&beside, self.folder.join(name)).expect("move it into place");
        self.burdock.reload_after(before).await
    }
}

/// A backend behind TLS, and Burdock before it, which trusts it.
async fn trusted() -> (Backend, Secured, Site) {
    let (authority, a) = (Authority::new(), Backend::start("a").await);
    let server = authority.issue("127.0.0.1").server(None, &["http/1.1"]);
    let front = Secured::start(a.address, server).await;
    let instance = format!("{{ name: a, address: {} }}", front.address);
    let site = serve(folder(&authority), &instance, "tls: { ca: ca.pem }\n").await;
    (a, front, site)
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_every_size_pass_by_tls_on_connections_that_are_kept() {
    let (a, front, site) = trusted().await;
    let mut client = site.burdock.client();
    for size in [0, 1, 1023, 1025, 16_384, 16_385, 300_000, 4 << 20] {
        let answer = client.get(&format!("/sized/{size}")).await;
        assert!(answer.body.bytes == pattern(size), "{size}");
        let answer = client.post("/echo", &pattern(size)).await;
        assert!(answer.body.bytes == pattern(size), "{size}");
    }
    let answer = client.send(&Request::post("/echo", b"in parts").chunked(&[])).await;
    assert_eq!(answer.text(), "in parts");
    assert_eq!(a.connections(), 1, "one connection for all of them");
    let shaken = &front.handshakes()[0];
    assert_eq!((shaken.alpn.as_deref(), &shaken.server_name), (Some("http/1.1"), &None));
    let early = client.post("/early/on", &pattern(1 << 20)).await;
    assert_eq!(early.status, 200, "an answer before the body was read");
}

#[tokio::test(flavor = "multi_thread")]
async fn later_connections_resume_the_session_and_probes_do_not() {
    let (authority, a) = (Authority::new(), Backend::start("a").await);
    let front = Secured::start(a.address, authority.issue("127.0.0.1").server(None, &[])).await;
    a.closes_after_each(true);
    let instance = format!("{{ name: a, address: {} }}", front.address);
    let site = serve(folder(&authority), &instance, "tls: { ca: ca.pem }\n").await;
    for _ in 0..4 {
        assert_eq!(site.burdock.client().get("/").await.instance(), "a");
    }
    let resumed: Vec<_> = front.handshakes().iter().map(|shaken| shaken.resumed).collect();
    assert!(!resumed[0] && resumed[1..].iter().all(|it| *it), "{resumed:?}");
    let checked = format!(
        "{HEADER}instances: [{instance}]\ntls: {{ ca: ca.pem }}\n\
         readiness_check: {{ path: /readyz, check_interval: 30ms }}\n"
    );
    assert_eq!(site.burdock.reload(&checked).await["message"], "reloaded");
    let before = front.handshakes().len();
    a.probed(4).await;
    assert!(front.handshakes()[before..].iter().all(|shaken| !shaken.resumed));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_name_is_that_of_the_address_unless_server_name_says_otherwise() {
    let (authority, a) = (Authority::new(), Backend::start("a").await);
    let front = Secured::start(a.address, authority.issue("localhost").server(None, &[])).await;
    let port = front.address.port();
    let by_name = format!("{{ name: a, address: 'localhost:{port}' }}");
    let by_address = format!("{{ name: a, address: '127.0.0.1:{port}' }}");
    let site = serve(folder(&authority), &by_name, "tls: { ca: ca.pem }\n").await;
    assert_eq!(site.burdock.client().get("/").await.instance(), "a");
    assert_eq!(front.handshakes()[0].server_name.as_deref(), Some("localhost"));

    let text = |tls: &str| format!("{HEADER}instances: [{by_address}]\ntls: {tls}\n");
    let site = serve(folder(&authority), &by_address, "tls: { ca: ca.pem }\n").await;
    assert_eq!(site.burdock.client().get("/").await.text(), "502 tls_failed\n");
    site.burdock.reload(&text("{ ca: ca.pem, server_name: localhost }")).await;
    assert_eq!(site.burdock.client().get("/").await.instance(), "a");
    assert_eq!(front.handshakes().last().unwrap().server_name.as_deref(), Some("localhost"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_not_believed_is_a_failed_connect() {
    let authority = Authority::new();
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    let good = Secured::start(b.address, authority.issue("127.0.0.1").server(None, &[])).await;
    let foreign = Authority::new().issue("127.0.0.1").server(None, &[]);
    let bad = Secured::start(a.address, foreign).await;
    let instances = format!(
        "{{ name: a, address: {} }}, {{ name: b, address: {}, weight: 1 }}",
        bad.address, good.address
    );
    let rest = "tls: { ca: ca.pem }\nbreaker: { failures: 3, open: 1h, max_open: 1h }\n";
    let site = serve(folder(&authority), &instances, rest).await;
    let burdock = &site.burdock;
    for _ in 0..8 {
        let answer = burdock.client().post("/echo", b"whatever the method").await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "whatever the method"));
    }
    assert_eq!(a.request_count(), 0, "nothing was sent to who could not prove itself");
    let opened = burdock.metrics().await.sum("burdock_breaker_opened_total", &[]);
    assert_eq!(opened, 1.0, "the breaker counts it");

    for (server, told) in [
        (authority.issue_expired("127.0.0.1"), "expired"),
        (authority.issue("other.example"), "another name"),
        (Authority::new().issue("127.0.0.1"), "another authority"),
    ] {
        let front = Secured::start(a.address, server.server(None, &[])).await;
        let instance = format!("{{ name: a, address: {} }}", front.address);
        let site = serve(folder(&authority), &instance, "tls: { ca: ca.pem }\n").await;
        let answer = site.burdock.client().get("/").await;
        assert_eq!((answer.status, answer.text().as_str()), (502, "502 tls_failed\n"), "{told}");
        let labels = [("reason", "tls_failed")];
        let counted = site.burdock.metrics().await.sum("burdock_errors_total", &labels);
        assert_eq!(counted, 1.0, "{told}");
        eventually("the alert", || front.failures().first().cloned()).await;
    }
    assert_eq!(a.request_count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn unverified_certificates_pass_and_are_warned_of_once() {
    let (authority, a) = (Authority::new(), Backend::start("a").await);
    let server = authority.issue_expired("other.example").server(None, &[]);
    let front = Secured::start(a.address, server).await;
    let instance = format!("{{ name: a, address: {} }}", front.address);
    let rest = "tls: { verify: false }\n";
    let mut site = serve(folder(&authority), &instance, rest).await;
    assert_eq!(site.burdock.client().get("/").await.instance(), "a");
    let warning = "tls.verify is off: anybody may pose as an instance";
    let line = site.burdock.wait_log(warning, |_| true).await;
    assert_eq!((&line["level"], &line["service"]), (&"WARN".into(), &"default".into()));
    let text = format!("{HEADER}instances: [{instance}]\n{rest}retry: off\n");
    site.burdock.reload(&text).await;
    assert_eq!(site.burdock.log(warning).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_that_ask_for_a_certificate_get_burdocks() {
    let (authority, a) = (Authority::new(), Backend::start("a").await);
    let server = authority.issue("127.0.0.1").server(Some(&authority), &[]);
    let front = Secured::start(a.address, server).await;
    let instance = format!("{{ name: a, address: {} }}", front.address);
    let folder = folder(&authority);
    authority.issue("burdock.example").write(&folder, "own.pem", "own.key");
    let rest = "tls: { ca: ca.pem, cert: own.pem, key: own.key }\n";
    let site = serve(folder, &instance, rest).await;
    assert_eq!(site.burdock.client().get("/").await.instance(), "a");
    assert!(front.handshakes()[0].known);

    // In TLS 1.3 the client learns of a refusal only where it waits for an answer.
    let stranger = Authority::new().issue("burdock.example");
    stranger.write(&site.folder, "own.pem.new", "own.key.new");
    let before = site.burdock.reloads().len();
    for name in ["own.key", "own.pem"] {
        let from = site.folder.join(format!("{name}.new"));
        std::fs::rename(from, site.folder.join(name)).unwrap();
    }
    site.burdock.reload_after(before).await;
    let reloaded = || site.burdock.log("reloaded").last().cloned();
    eventually("both files are read", reloaded).await;
    let answer = site.burdock.client().post("/echo", b"x").await;
    assert_eq!(answer.text(), "502 tls_failed\n");
    let without = format!("{HEADER}instances: [{instance}]\ntls: {{ ca: ca.pem }}\n");
    site.burdock.reload(&without).await;
    let answer = site.burdock.client().get("/").await;
    assert_eq!(answer.text(), "502 tls_failed\n");
    assert_eq!(a.request_count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_that_hangs_or_breaks_is_no_answer() {
    let (_a, front, site) = trusted().await;
    let text = format!(
        "{HEADER}instances: [{{ name: a, address: {} }}]\ntls: {{ ca: ca.pem }}\n\
         timeouts: {{ connect: 200ms }}\n",
        front.address
    );
    site.burdock.reload(&text).await;
    front.behaves(Manners::Silent);
    let answer = site.burdock.client().get("/").await;
    assert_eq!((answer.status, answer.text().as_str()), (504, "504 connect_timeout\n"));
    front.behaves(Manners::Curt);
    let answer = site.burdock.client().get("/").await;
    assert_eq!((answer.status, answer.text().as_str()), (502, "502 tls_failed\n"));
    front.behaves(Manners::Good);
    assert_eq!(site.burdock.client().get("/").await.instance(), "a");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_cut_off_is_not_taken_for_a_whole_one() {
    let (_a, front, site) = trusted().await;
    front.behaves(Manners::Abrupt);
    let answer = site.burdock.client().get("/sized/100000").await;
    assert_eq!(answer.body.bytes.len(), 100_000, "a length is a length");
    let answer = site.burdock.client().try_send(&Request::get("/to-end")).await;
    assert!(answer.is_err(), "{answer:?}");
    let lines = site.burdock.access("/to-end", 1).await;
    assert_eq!(lines[0]["error"], "response_broken");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_authority_counts_at_once_and_old_connections_are_used_no_more() {
    let (a, front, site) = trusted().await;
    let mut client = site.burdock.client();
    let mut socket = WebSocket::open(site.burdock.address(), "/ws", "").await;
    socket.echo("before").await;
    assert_eq!(client.get("/").await.instance(), "a");
    let shaken = front.handshakes().len();

    let rejected = site.replace("ca.pem", "nonsense").await;
    assert_eq!(rejected["message"], "reload rejected");
    let error = rejected["error"].as_str().unwrap();
    assert!(error.contains("burdock.yaml:") && error.contains(": tls.ca: "), "{error}");
    assert_eq!(client.get("/").await.instance(), "a");
    assert_eq!(front.handshakes().len(), shaken, "a bad file changes nothing");

    let authority = Authority::new();
    let reloaded = site.replace("ca.pem", &authority.pem).await;
    assert_eq!(
        (&reloaded["message"], &reloaded["changes"]),
        (&"reloaded".into(), &"default/default: tls changed".into())
    );
    assert_eq!(client.get("/").await.text(), "502 tls_failed\n");
    front.shows(authority.issue("127.0.0.1").server(None, &[]));
    assert_eq!(client.get("/").await.instance(), "a");
    socket.echo("a tunnel lives on").await;
    assert!(a.request_count() >= 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_under_way_ends_on_the_connection_that_it_began_on() {
    let (a, front, site) = trusted().await;
    let mut client = site.burdock.client();
    let half = tokio::spawn(async move { client.get("/half").await });
    a.request(1).await;
    let text = std::fs::read_to_string(&site.burdock.config).unwrap();
    let same = text.replace("{ ca: ca.pem }", "{ ca: ca.pem, server_name: 127.0.0.1 }");
    site.burdock.reload(&same).await;
    a.open_gate(1);
    assert_eq!(within("the answer", half).await.unwrap().status, 200);
    let goodbye = || (!front.goodbyes().is_empty()).then(|| front.goodbyes());
    assert_eq!(eventually("its end", goodbye).await, [true], "it is not kept, and says so");
    assert_eq!(site.burdock.client().get("/").await.instance(), "a");
    assert_eq!(front.handshakes().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn websockets_pass_by_tls_and_end_with_a_close() {
    let (a, front, site) = trusted().await;
    let mut socket = WebSocket::open(site.burdock.address(), "/ws", "").await;
    for size in [0, 125, 126, 65_536, 1 << 20] {
        socket.send(ws::BINARY, &pattern(size)).await;
        assert!(socket.next().await.expect("an echo").payload == pattern(size), "{size}");
    }
    let text = std::fs::read_to_string(&site.burdock.config).unwrap();
    let short = format!("{text}websocket: {{ max_lifetime: 1ms, close_grace: 2s }}\n");
    site.burdock.reload(&short).await;
    assert_eq!(socket.closed().await.unwrap().0, 1001);
    let told = || a.closes().first().cloned();
    let (code, _, masked) = eventually("a Close at the instance", told).await;
    assert_eq!((code, masked), (1001, true));
    let goodbye = || front.goodbyes().last().copied();
    assert!(eventually("the end of the connection", goodbye).await, "said goodbye in TLS");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_and_half_closes_pass_by_tls() {
    let (a, _front, site) = trusted().await;
    let (conn, head) = ws::dial(site.burdock.address(), RAW).await;
    assert_eq!(head.status(), 101);
    let flood = pattern(8 << 20);
    let (mut read, mut write) = conn.stream.into_split();
    let sent = flood.clone();
    let writer = tokio::spawn(async move {
        write.write_all(&sent).await.unwrap();
        write.shutdown().await.unwrap();
    });
    let mut back = Vec::new();
    within("the flood", tokio::io::AsyncReadExt::read_to_end(&mut read, &mut back)).await.unwrap();
    writer.await.unwrap();
    assert!(back == [flood.as_slice(), b"bye"].concat());
    eventually("the instance's end", || (!a.tunnelled().is_empty()).then_some(())).await;

    let first = RAW.replace("/raw", "/raw/first");
    let (mut conn, _) = ws::dial(site.burdock.address(), &first).await;
    assert_eq!(within("the instance's half", conn.read_to_end()).await, b"hello");
    conn.write(b"still talking").await.unwrap();
    conn.stream.shutdown().await.unwrap();
    let told = || (a.tunnelled().last().unwrap() == b"still talking").then_some(());
    eventually("the record", told).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_hangs_up_after_its_close_has_not_broken_off() {
    let (_a, front, site) = trusted().await;
    front.behaves(Manners::Abrupt);
    let mut socket = WebSocket::open(site.burdock.address(), "/ws", "").await;
    socket.send(ws::CLOSE, &1000_u16.to_be_bytes()).await;
    assert_eq!(socket.closed().await.map(|close| close.0), Some(1000));
    drop(socket);
    let ended = [("cause", "client")];
    site.burdock.wait_metric("burdock_tunnels_ended_total", &ended, |ended| ended == 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn checks_use_tls_where_requests_do_and_say_what_is_wrong() {
    let (authority, a) = (Authority::new(), Backend::start("a").await);
    let front = Secured::start(a.address, authority.issue("127.0.0.1").server(None, &[])).await;
    let instance = format!("{{ name: a, address: {} }}", front.address);
    let rest = |tls: &str, check: &str| {
        format!("tls: {tls}\nreadiness_check: {{ check_interval: 30ms, timeout: 2s, {check} }}\n")
    };
    let good = rest("{ ca: ca.pem }", "path: /readyz");
    let mut site = serve(folder(&authority), &instance, &good).await;
    site.burdock.wait_health("a", "ready").await;
    let text = |rest: &str| format!("{HEADER}instances: [{instance}]\n{rest}");
    for (tls, check, reason) in [
        // The backend's own port, without TLS.
        ("{ ca: ca.pem }", format!("path: /readyz, tls: off, port: {}", a.address.port()), None),
        ("{ ca: ca.pem, server_name: b }", "path: /readyz".to_owned(), Some("NotValidForName")),
        ("{ ca: ca.pem }", String::new(), None),
        ("{ ca: ca.pem, server_name: b }", String::new(), Some("NotValidForName")),
        ("off", "tls: { ca: ca.pem }, path: /readyz".to_owned(), None),
        ("off", "tls: { ca: ca.pem, server_name: b }".to_owned(), Some("NotValidForName")),
    ] {
        site.burdock.reload(&text(&rest(tls, &check))).await;
        match reason {
            None => site.burdock.wait_health("a", "ready").await,
            Some(_) => {
                site.burdock.wait_health("a", "unready").await;
                let words = "readiness check: TLS: invalid peer certificate: ";
                let told = |line: &serde_json::Value| {
                    line["reason"].as_str().is_some_and(|reason| reason.starts_with(words))
                };
                site.burdock.wait_log("health changed", told).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_checks_go_by_tls_too() {
    let authority = Authority::new();
    let folder = folder(&authority);
    authority.issue("127.0.0.1").write(&folder, "server.pem", "server.key");
    let [cert, key] = ["server.pem", "server.key"].map(|name| folder.join(name));
    let [cert, key] = [cert, key].map(|path| path.display().to_string());
    let arguments = ["--name", "a", "--cert", &cert, "--key", &key];
    let mut server = program("grpc_health_server.py", &arguments);
    let port = listening(&mut server);
    server.say("- SERVING");
    server.wait_for("its answer", Duration::from_secs(15), |line| (line == "set").then_some(()));
    let instance = format!("{{ name: a, address: '127.0.0.1:{port}' }}");
    let rest =
        "tls: { ca: ca.pem }\nreadiness_check: { grpc: \"\", check_interval: 30ms, timeout: 2s }\n";
    let site = serve(folder, &instance, rest).await;
    site.burdock.wait_health("a", "ready").await;
}

#[test]
fn the_systems_authorities_are_trusted_where_none_are_named() {
    let authority = Authority::new();
    let folder = folder(&authority);
    std::fs::write(folder.join("burdock.yaml"), "instances: [a:1]\ntls: true\n").unwrap();
    let check = |bundle: &str| {
        std::process::Command::new(support::burdock::binary())
            .args(["check", "burdock.yaml"])
            .current_dir(&folder)
            .env("SSL_CERT_FILE", folder.join(bundle))
            .env_remove("SSL_CERT_DIR")
            .output()
            .unwrap()
    };
    let output = check("ca.pem");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(told.contains("tls:\n          ca: none\n"), "{told}");
    let output = check("absent.pem");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{told}");
    assert!(told.contains("burdock.yaml:2: tls: the system has no certificates"), "{told}");
}
