//! TLS with clients: which certificate, which version, which protocol; what becomes of requests,
//! WebSockets and certificates behind it; what a reload of its files changes.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, HandshakeKind};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;

use crate::support::burdock::scratch;
use crate::support::h2::H2;
use crate::support::tls::{Authority, Tls, connect, shown};
use crate::support::wire::Conn;
use crate::support::ws::{self, WebSocket};
use crate::support::{self, Backend, Burdock, Client, Request, eventually, raw, within, yaml};

/// A balancer with TLS in a folder of its own.
struct Site {
    ca: Authority,
    backend: Backend,
    burdock: Burdock,
}

/// The configuration: `tls` ends the map of that name.
fn text(backend: &Backend, tls: &str, rest: &str) -> String {
    let listener = format!(
        "listeners:\n  - address: 127.0.0.1:0\n    tls: {{ certificates: [{{ cert: a.pem, key: a.key }}], {tls} }}\n"
    );
    yaml(&[backend], rest).replace("listeners: [{ address: 127.0.0.1:0 }]\n", &listener)
}

/// A folder with a certificate for a.test, and a configuration in it.
fn prepared(text: &str) -> (Authority, PathBuf, PathBuf) {
    let (ca, folder) = (Authority::new("ca"), scratch());
    ca.issue(&["a.test", "localhost"]).save(&folder, "a");
    let config = folder.join("burdock.yaml");
    std::fs::write(&config, text).expect("write the config");
    (ca, folder, config)
}

async fn spawn(folder: PathBuf, config: PathBuf) -> Burdock {
    let path = config.display().to_string();
    Burdock::spawn(folder, config, &["run", "-c", &path]).await
}

impl Site {
    async fn open(tls: &str, rest: &str) -> Self {
        Self::with(tls, rest, |_, _| {}).await
    }

    /// `prepare` puts more files into the folder.
    async fn with(tls: &str, rest: &str, prepare: impl Fn(&Authority, &PathBuf)) -> Self {
        let backend = Backend::start("a").await;
        let (ca, folder, config) = prepared(&text(&backend, tls, rest));
        prepare(&ca, &folder);
        let burdock = spawn(folder, config).await;
        Self { ca, backend, burdock }
    }

    async fn conn(&self, client: &Tls) -> Conn {
        client.conn(self.burdock.address(), "a.test").await
    }

    async fn outcomes(&self, outcome: &str, wanted: f64) {
        let labels = [("outcome", outcome)];
        self.burdock.wait_metric("burdock_tls_handshakes_total", &labels, |v| v == wanted).await;
    }
}

/// The answer to a GET of `path` on `conn`.
async fn get(conn: &mut Conn, path: &str) -> (support::wire::Head, String) {
    conn.write(&Request::get(path).encode(None)).await.expect("write a request");
    answer_to(conn).await
}

async fn answer_to(conn: &mut Conn) -> (support::wire::Head, String) {
    let head = within("a head", conn.head()).await.expect("read a head").expect("an answer");
    let body =
        within("a body", conn.body(head.response_framing("GET"))).await.expect("read a body");
    (head, String::from_utf8_lossy(&body.bytes).into_owned())
}

async fn open_socket(mut conn: Conn) -> WebSocket {
    conn.write(ws::request("/ws", "").as_bytes()).await.expect("write the request");
    let head = within("an answer to an upgrade", conn.head())
        .await
        .expect("read the answer")
        .expect("an answer");
    assert_eq!(head.status(), 101, "{}", head.start);
    WebSocket { conn, head }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_come_by_https_and_instances_are_told_so() {
    let site = Site::open("", "session_affinity: true\nforwarding: { forwarded: true }").await;
    for version in [&TLS12, &TLS13] {
        let mut conn = site.conn(&site.ca.client().only(version)).await;
        for _ in 0..2 {
            let (head, _) = get(&mut conn, "/https").await;
            assert_eq!((head.status(), head.field("x-instance")), (200, Some("a")));
            let cookie = head.field("set-cookie").expect("a cookie");
            assert!(cookie.contains("; Secure"), "{cookie}");
        }
        let seen = site.backend.last_request();
        assert_eq!(seen.head.field("x-forwarded-proto"), Some("https"));
        assert!(seen.head.field("forwarded").is_some_and(|it| it.ends_with(";proto=https")));
    }
    let lines = site.burdock.access("/https", 4).await;
    assert_eq!(
        (&lines[0]["tls_version"], &lines[3]["tls_version"]),
        (&"1.2".into(), &"1.3".into())
    );
    assert_eq!(lines[3]["sni"], "a.test");
    assert!(lines[3]["tls_cipher"].as_str().is_some_and(|name| name.starts_with("TLS13_")));
    site.outcomes("full", 2.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_every_size_pass_both_ways() {
    let site = Site::open("", "").await;
    let mut conn = site.conn(&site.ca.client()).await;
    for size in [0, 1, 16_383, 16_384, 16_385, 300_000, 3_000_000] {
        let body = support::pattern(size);
        let request = Request::post("/echo", &body).encode(None);
        let (mut read, mut write) = conn.stream.split();
        let mut back = Vec::new();
        let sent = async { write.write_all(&request).await };
        let came = async {
            let mut part = vec![0; 65536];
            loop {
                let end = back.windows(4).position(|w| w == b"\r\n\r\n");
                if end.is_some_and(|end| back.len() == end + 4 + size) {
                    return;
                }
                let count = read.read(&mut part).await.unwrap();
                assert!(count > 0, "an end after {} bytes", back.len());
                back.extend_from_slice(&part[..count]);
            }
        };
        let (sent, ()) = within("an echo", async { tokio::join!(sent, came) }).await;
        sent.unwrap();
        assert!(back.ends_with(&body), "{size} bytes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_certificate_is_that_of_the_host_and_the_first_one_for_all_others() {
    let site = Site::with("min_version: 1.2", "", |ca, folder| {
        ca.issue(&["*.b.test"]).save(folder, "b");
        ca.issue(&["c.b.test", "c.test"]).save(folder, "c");
    })
    .await;
    let more = text(&site.backend, "", "").replace(
        "key: a.key }",
        "key: a.key }, { cert: b.pem, key: b.key }, { cert: c.pem, key: c.key }",
    );
    assert_eq!(site.burdock.reload(&more).await["message"], "reloaded");
    let address = site.burdock.address();
    let config = site.ca.client().config();
    for (host, fits) in [
        ("a.test", true),
        ("x.b.test", true),
        ("c.b.test", true),
        ("c.test", true),
        ("A.Test", true),
        ("x.x.b.test", false),
        ("b.test", false),
        ("other.test", false),
        ("127.0.0.1", false),
    ] {
        let found = connect(&config, address, host).await;
        match found {
            Ok(_) => assert!(fits, "{host}"),
            // The default is for a.test.
            Err(error) => assert!(!fits && error.to_string().contains("a.test"), "{host}: {error}"),
        }
    }
    site.outcomes("refused_by_client", 4.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_below_the_least_is_refused() {
    let site = Site::open("min_version: '1.3'", "").await;
    let old = site.ca.client().only(&TLS12);
    let why = old.refused(site.burdock.address(), "a.test").await;
    assert!(why.contains("ProtocolVersion"), "{why}");
    site.outcomes("incompatible", 1.0).await;
    site.conn(&site.ca.client()).await;
    site.outcomes("full", 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_passes_and_gets_its_close() {
    let site = Site::open("", "websocket: { max_lifetime: 1s, lifetime_jitter: 0% }").await;
    for version in [&TLS12, &TLS13] {
        let mut socket = open_socket(site.conn(&site.ca.client().only(version)).await).await;
        socket.echo("hello").await;
        for size in [0, 126, 65_536, 1 << 20] {
            let message = support::pattern(size);
            socket.send(ws::BINARY, &message).await;
            assert!(socket.next().await.expect("an echo").payload == message, "{size} bytes");
        }
        assert_eq!(socket.closed().await.map(|close| close.0), Some(1001));
        socket.send(ws::CLOSE, &1001_u16.to_be_bytes()).await;
        // In order, with a close_notify: otherwise the harness would pass on a reset.
        assert_eq!(within("the end", socket.conn.fill()).await.unwrap(), 0);
    }
    let tunnels =
        eventually("two lines", || Some(site.burdock.log("tunnel")).filter(|it| it.len() == 2));
    assert_eq!(tunnels.await[1]["tls_version"], "1.3");
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_is_agreed_on_by_alpn_and_carries_requests_and_websockets() {
    let site = Site::open("hsts: true", "").await;
    let client = site.ca.client().alpn("h2").alpn("http/1.1");
    let stream = client.connect(site.burdock.address(), "a.test").await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let mut h2 = H2::over(stream, 1 << 20).await;
    let answer = h2.get("/sized/100000").await;
    assert_eq!((answer.status, answer.body == support::pattern(100_000)), (200, true));
    assert_eq!(answer.fields["strict-transport-security"], "max-age=31536000");
    let mut socket = h2.websocket("/ws").await;
    socket.echo("on a stream").await;
    let seen = site.backend.last_request();
    assert_eq!(seen.head.field("x-forwarded-proto"), Some("https"));

    let plain = client_without_h2(&site).await;
    assert_eq!(plain.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    // RFC 9113 section 3.2: with TLS nobody begins with it unasked.
    let mut conn = site.conn(&site.ca.client()).await;
    conn.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    let (head, text) = answer_to(&mut conn).await;
    assert_eq!((head.status(), text.as_str()), (400, "400 bad_request\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_frames_is_told_to_calm_down() {
    let site = Site::open("hsts: true", "").await;
    let client = site.ca.client().alpn("h2");
    let mut stream = client.connect(site.burdock.address(), "a.test").await;
    let ping = [0, 0, 8, 6, 0, 0, 0, 0, 0, 7, 7, 7, 7, 7, 7, 7, 7];
    let flood = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"[..], &ping.repeat(1500)];
    stream.write_all(&flood.concat()).await.unwrap();
    let mut came = Vec::new();
    within("an end", stream.read_to_end(&mut came)).await.expect("a close_notify");
    // ENHANCE_YOUR_CALM (RFC 9113 section 7).
    assert!(came.ends_with(&[0, 0, 0, 0x0b]), "{}", came.escape_ascii());
    let labels = [("reason", "flood")];
    site.burdock.wait_metric("burdock_errors_total", &labels, |v| v == 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn interim_answers_come_before_their_answer() {
    let instance = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let rest = "breaker: off\n";
    let backend = Backend::start("a").await;
    let elsewhere = instance.local_addr().unwrap().to_string();
    let text = text(&backend, "hsts: true", rest).replace(&backend.address.to_string(), &elsewhere);
    let (ca, folder, config) = prepared(&text);
    let burdock = spawn(folder, config).await;
    let mut conn = ca.client().conn(burdock.address(), "a.test").await;
    conn.write(&Request::get("/").encode(None)).await.unwrap();
    let (stream, _) = within("a connection", instance.accept()).await.unwrap();
    let mut stream = Conn::new(stream);
    // What comes before its request is no answer to it.
    within("a request", stream.head()).await.unwrap().expect("a request");
    stream.write(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n").await.unwrap();
    let hints = within("hints", conn.head()).await.unwrap().expect("hints");
    assert_eq!((hints.status(), hints.field("link")), (103, Some("</a>")));
    stream.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
    assert_eq!(answer_to(&mut conn).await.1, "ok");
}

async fn client_without_h2(site: &Site) -> TlsStream<TcpStream> {
    site.ca.client().alpn("http/1.1").connect(site.burdock.address(), "a.test").await
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_resumed_on_every_worker_and_by_replicas_with_the_same_keys() {
    let keys = |name: &str| format!("tickets: {{ file: {name} }}");
    let file = |folder: &Path, name: &str, letters: &[&str]| {
        let lines: Vec<_> = letters.iter().map(|it| format!("{}A=", it.repeat(42))).collect();
        std::fs::write(folder.join(name), lines.join("\n")).unwrap();
    };
    let site = Site::with(&keys("t.keys"), "", |_, folder| {
        file(folder, "t.keys", &["A"]);
        file(folder, "new.keys", &["B", "A"]);
        file(folder, "other.keys", &["B"]);
    })
    .await;
    let folder = scratch();
    for end in ["pem", "key"] {
        let name = format!("a.{end}");
        std::fs::copy(site.burdock.directory.join(&name), folder.join(&name)).unwrap();
    }
    file(&folder, "t.keys", &["A"]);
    let config = folder.join("burdock.yaml");
    std::fs::write(&config, text(&site.backend, &keys("t.keys"), "")).unwrap();
    let replica = spawn(folder, config).await;
    for version in [&TLS12, &TLS13] {
        let client = site.ca.client().only(version).config();
        assert_eq!(kind(&client, site.burdock.address()).await, HandshakeKind::Full);
        for _ in 0..12 {
            assert_eq!(kind(&client, site.burdock.address()).await, HandshakeKind::Resumed);
        }
        assert_eq!(kind(&client, replica.address()).await, HandshakeKind::Resumed);
    }
    site.outcomes("resumed", 24.0).await;
    let client = site.ca.client().config();
    kind(&client, site.burdock.address()).await;
    for (name, expected) in
        [("new.keys", HandshakeKind::Resumed), ("other.keys", HandshakeKind::Resumed)]
    {
        let text = text(&site.backend, &keys(name), "");
        assert_eq!(site.burdock.reload(&text).await["message"], "reloaded");
        assert_eq!(kind(&client, site.burdock.address()).await, expected, "{name}");
    }
    file(&site.burdock.directory, "other.keys", &["C"]);
    eventually("another reload", || (site.burdock.reloads().len() == 3).then_some(())).await;
    assert_eq!(kind(&client, site.burdock.address()).await, HandshakeKind::Full);
    let off = text(&site.backend, "tickets: off", "");
    assert_eq!(site.burdock.reload(&off).await["message"], "reloaded");
    for _ in 0..2 {
        assert_eq!(kind(&client, site.burdock.address()).await, HandshakeKind::Full);
    }
}

/// How a handshake went, after a request: before it no ticket need have come.
async fn kind(client: &Arc<ClientConfig>, address: SocketAddr) -> HandshakeKind {
    let mut stream = connect(client, address, "a.test").await.expect("a handshake");
    let request = Request::get("/kind").with("Connection", "close").encode(None);
    stream.write_all(&request).await.expect("write a request");
    let mut rest = Vec::new();
    within("an answer and its end", stream.read_to_end(&mut rest)).await.expect("an end in order");
    stream.get_ref().1.handshake_kind().expect("a handshake")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_is_for_new_connections_and_a_bad_one_for_none() {
    let site = Site::open("", "").await;
    let (address, folder) = (site.burdock.address(), site.burdock.directory.clone());
    let client = site.ca.client();
    let first = shown(&client.connect(address, "a.test").await);
    let mut old = site.conn(&client).await;
    get(&mut old, "/before").await;
    let mut socket = open_socket(site.conn(&client).await).await;

    std::fs::write(folder.join("a.pem"), "nothing").unwrap();
    let refused = site.burdock.reload_after(0).await;
    assert_eq!(refused["message"], "reload rejected");
    let why = refused["error"].as_str().unwrap();
    assert!(why.contains("listeners[0].tls.certificates[0].cert: "), "{why}");
    assert!(shown(&client.connect(address, "a.test").await) == first);

    let next = site.ca.issue(&["a.test"]);
    next.save(&folder, "a");
    eventually("the new certificate", || {
        site.burdock.reloads().iter().any(|line| line["message"] == "reloaded").then_some(())
    })
    .await;
    assert!(shown(&client.connect(address, "a.test").await) == next.certificate);
    socket.echo("still here").await;
    assert_eq!(get(&mut old, "/after").await.0.status(), 200);
    let labels = [("certificate", "a.test")];
    let name = "burdock_tls_certificate_expiry_timestamp_seconds";
    site.burdock.wait_metric(name, &labels, |v| v > 1_700_000_000.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_are_told_of_a_clients_certificate_by_burdock_alone() {
    let plain = "  - address: 127.0.0.2:0\n";
    let asked = |mode: &str| {
        format!("client_certificates: {{ ca: ca.pem, mode: {mode}, fingerprint_header: X-Print }}")
    };
    let site = Site::with(&asked("optional"), "", |ca, folder| {
        std::fs::write(folder.join("ca.pem"), &ca.pem).unwrap();
    })
    .await;
    let spoof = Request::get("/who")
        .with("Client-Cert", ":c3Bvb2Y=:")
        .with("client_cert", "spoof")
        .with("X-Print", "spoof")
        // Nor may a client have it taken out again.
        .with("Connection", "client-cert, x-print");
    let names = ["client-cert", "client_cert", "x-print"];
    let told = || names.map(|name| site.backend.last_request().head.field(name).map(str::to_owned));

    let stranger = site.ca.client();
    let mut conn = site.conn(&stranger).await;
    conn.write(&spoof.encode(None)).await.unwrap();
    answer_to(&mut conn).await;
    assert_eq!(told(), [None, None, None]);

    let me = site.ca.issue(&["me"]);
    let mut conn = site.conn(&stranger.clone().showing(&me)).await;
    conn.write(&spoof.encode(None)).await.unwrap();
    answer_to(&mut conn).await;
    let print = Sha256::digest(&me.certificate).iter().map(|byte| format!("{byte:02x}")).collect();
    let whole = format!(":{}:", STANDARD.encode(&me.certificate));
    assert_eq!(told(), [Some(whole), None, Some(print)]);
    // What an outsider has signed counts for nobody.
    let outsider = Authority::new("other").issue(&["me"]);
    let why = stranger.clone().showing(&outsider).refused(site.burdock.address(), "a.test").await;
    assert!(why.contains("alert"), "{why}");
    site.outcomes("client_certificate", 1.0).await;

    // A session that began without one is none where one is required.
    let session = stranger.config();
    kind(&session, site.burdock.address()).await;
    assert_eq!(kind(&session, site.burdock.address()).await, HandshakeKind::Resumed);
    let mut required = text(&site.backend, &asked("required"), "");
    let at = required.find("admin:").unwrap();
    required.insert_str(at, plain);
    assert_eq!(site.burdock.reload(&required).await["message"], "reloaded");
    let why = stranger.refused(site.burdock.address(), "a.test").await;
    assert!(why.contains("CertificateRequired"), "{why}");
    let refused = connect(&session, site.burdock.address(), "a.test").await;
    let mut stream = refused.expect("a client finishes first");
    assert_eq!(stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
    assert!(within("an end", stream.read_u8()).await.is_err());
    let mut known = site.conn(&stranger.clone().showing(&me)).await;
    assert_eq!(get(&mut known, "/known").await.0.status(), 200);
    // On a plain listener nobody has a certificate, and nobody may say so.
    let mut elsewhere = Client::new(listening(&site.burdock, 1));
    elsewhere.send(&spoof).await;
    assert_eq!(told(), [None, None, None]);
}

/// Where the `n`th listener is.
fn listening(burdock: &Burdock, n: usize) -> SocketAddr {
    burdock.log("listening")[n]["address"]
        .as_str()
        .expect("an address in the line")
        .parse()
        .expect("an address in the line")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_handshake_is_answered_or_ended_in_time() {
    let site = Site::open("handshake_timeout: 300ms", "").await;
    let address = site.burdock.address();
    let told = raw::exchange_text(address, "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    assert!(told.starts_with("HTTP/1.1 400 ") && told.ends_with("400 plain_http\n"), "{told}");
    site.outcomes("plain_http", 1.0).await;
    assert!(raw::exchange(address, b"\0\0\0").await.is_empty());
    // A record of a handshake that holds none gets an alert (RFC 8446 section 6).
    let alert = raw::exchange(address, b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\xff").await;
    assert_eq!(alert.first(), Some(&21));
    site.outcomes("malformed", 2.0).await;
    // Silence, and a hello that does not come to its end.
    for start in [&b""[..], b"\x16\x03\x01\x02\x00\x01"] {
        assert!(raw::exchange(address, start).await.is_empty());
    }
    site.outcomes("timeout", 2.0).await;
    drop(raw::open(address, b"\x16").await);
    site.outcomes("closed", 1.0).await;
    site.burdock.wait_metric("burdock_client_connections", &[], |v| v == 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_may_end_in_one_direction_and_go_on_in_the_other() {
    let site = Site::open("", "").await;
    for version in [&TLS12, &TLS13] {
        let client = site.ca.client().only(version);
        let mut conn = site.conn(&client).await;
        conn.write(ws::request("/raw", "").as_bytes()).await.unwrap();
        assert_eq!(within("a head", conn.head()).await.unwrap().unwrap().status(), 101);
        conn.write(b"last words").await.unwrap();
        conn.stream.shutdown().await.unwrap();
        assert_eq!(within("the end", conn.read_to_end()).await, b"last wordsbye");

        let mut conn = site.conn(&client).await;
        conn.write(ws::request("/raw/first", "").as_bytes()).await.unwrap();
        assert_eq!(within("a head", conn.head()).await.unwrap().unwrap().status(), 101);
        assert_eq!(within("the end", conn.read_to_end()).await, b"hello");
        conn.write(b"still talking").await.unwrap();
        conn.stream.shutdown().await.unwrap();
        let heard = || site.backend.tunnelled().last() == Some(&b"still talking".to_vec());
        eventually("the record", || heard().then_some(())).await;
    }
    site.burdock.wait_metric("burdock_instance_tunnels", &[], |v| v == 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_gets_everything_and_one_that_has_stopped_is_cut() {
    let site = Site::open("", "timeouts: { idle: 1s }").await;
    let client = site.ca.client();
    let mut socket = open_socket(site.conn(&client).await).await;
    let message = support::pattern(1 << 20);
    for _ in 0..8 {
        socket.send(ws::BINARY, &message).await;
    }
    for _ in 0..8 {
        assert!(socket.next().await.expect("an echo").payload == message);
    }
    let mut stopped = client.connect(site.burdock.address(), "a.test").await;
    stopped.write_all(&Request::get("/zeros/200000000").encode(None)).await.unwrap();
    let labels = [("reason", "client_idle_timeout")];
    site.burdock.wait_metric("burdock_errors_total", &labels, |v| v == 1.0).await;
    let mut rest = vec![0; 1 << 20];
    let error = loop {
        match within("a part or the end", stopped.read(&mut rest)).await {
            Ok(0) => panic!("an answer that was cut looks whole"),
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(error.kind() != std::io::ErrorKind::WouldBlock, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resting_connection_and_a_tunnel_are_ended_in_order() {
    let mut site =
        Site::open("", "timeouts: { keep_alive: 300ms }\nshutdown: { timeout: 5s, spread: 200ms }")
            .await;
    let client = site.ca.client();
    let mut conn = site.conn(&client).await;
    get(&mut conn, "/once").await;
    // A close_notify: the harness would pass on anything else as a reset.
    assert_eq!(within("the end", conn.fill()).await.unwrap(), 0);
    let mut socket = open_socket(site.conn(&client).await).await;
    let silent = raw::open(site.burdock.address(), b"").await;
    site.burdock.signal(libc::SIGTERM);
    assert_eq!(socket.closed().await.map(|close| close.0), Some(1012));
    drop(socket);
    assert_eq!(site.burdock.exit_code().await, 0);
    drop(silent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_listener_sends_its_clients_to_https() {
    let backend = Backend::start("a").await;
    let text = |redirect: &str| {
        let plain = format!("{{ address: 127.0.0.1:0, https_redirect: {redirect} }}");
        let rest = "trusted_proxies: [127.0.0.9]\n";
        yaml(&[&backend], rest).replace("{ address: 127.0.0.1:0 }]", &format!("{plain}]"))
    };
    let burdock = Burdock::start(&text("{ status: 301, port: 8443 }")).await;
    let mut client = burdock.client();
    let answer = client.get("/a/b?c=d").await;
    assert_eq!(answer.status, 301);
    assert_eq!(answer.field("location"), Some("https://app.test:8443/a/b?c=d"));
    assert_eq!(
        (answer.field("strict-transport-security"), answer.text()),
        (None, "301 https_redirect\n".to_owned())
    );
    assert_eq!(burdock.reload(&text("true")).await["message"], "reloaded");
    client.disconnect();
    let answer = client.send(&Request::post("/p", b"body")).await;
    assert_eq!((answer.status, answer.field("location")), (308, Some("https://app.test/p")));
    let mut h2 = H2::connect(burdock.address()).await;
    let answer = h2.get("/h2").await;
    assert_eq!(
        (answer.status, &answer.fields["location"]),
        (308, &"https://app.test/h2".parse().unwrap())
    );
    let line = &burdock.access("/a/b?c=d", 1).await[0];
    assert_eq!((&line["status"], &line["instance"]), (&301.into(), &"".into()));
    let none = raw::exchange_text(burdock.address(), "GET / HTTP/1.0\r\n\r\n").await;
    assert!(none.starts_with("HTTP/1.1 400 ") || none.starts_with("HTTP/1.0 400 "), "{none}");
    // Whoever came by https to a trusted proxy has arrived.
    let trusting = text("true").replace("127.0.0.9", "127.0.0.1");
    assert_eq!(burdock.reload(&trusting).await["message"], "reloaded");
    client.disconnect();
    let arrived = client.send(&Request::get("/").with("X-Forwarded-Proto", "https")).await;
    assert_eq!((arrived.status, arrived.instance()), (200, "a"));
    assert_eq!(client.send(&Request::get("/").with("X-Forwarded-Proto", "http")).await.status, 308);
}

#[tokio::test(flavor = "multi_thread")]
async fn browsers_are_told_to_stay_with_https_on_every_answer_by_it() {
    let hsts = "hsts: { max_age: 365d, include_subdomains: true, preload: true }";
    let site = Site::open(hsts, "").await;
    let mut conn = site.conn(&site.ca.client()).await;
    let expected = Some("max-age=31536000; includeSubDomains; preload");
    let (head, _) = get(&mut conn, "/").await;
    assert_eq!((head.status(), head.field("strict-transport-security")), (200, expected));
    let request = Request::get("/").with("Host", "no/host").encode(None);
    conn.write(&request).await.unwrap();
    let (head, _) = answer_to(&mut conn).await;
    assert_eq!((head.status(), head.field("strict-transport-security")), (400, expected));
}
