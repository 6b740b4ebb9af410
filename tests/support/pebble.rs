//! Pebble, the CA that the makers of Let's Encrypt test ACME clients with, as a process of its own. It
//! proves hosts for real, at the ports that it is given, and turns down some of what is right.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};

use super::client::Request;
use super::tls::{Authority, Tls};
use super::{DEADLINE, pause, within};

/// A port of 127.0.0.1 that nobody else gets; whoever shares addresses can listen there.
#[derive(Debug)]
pub struct Port(TcpSocket);

impl Port {
    pub fn claim() -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_reuseaddr(true).expect("share the port with the listener");
        socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("bind to loopback");
        Self(socket)
    }

    pub fn address(&self) -> SocketAddr {
        self.0.local_addr().expect("a bound address")
    }
}

/// The CA; killed when dropped.
#[derive(Debug)]
pub struct Pebble {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    /// Signs Pebble's own certificate, in `ca.pem` of its folder.
    own: Authority,
    ports: [Port; 2],
    names: tokio::task::JoinHandle<()>,
}

/// What is said of it beforehand.
#[derive(Debug, Default)]
pub struct Ways {
    /// How long certificates are good for, in seconds.
    pub validity: Option<u64>,
    /// Hosts for which it signs nothing.
    pub blocked: Vec<String>,
    /// Accounts that it asks for, by name and key in base64url.
    pub accounts: Option<(String, String)>,
}

impl Pebble {
    /// Looks for proofs by HTTP at `http`, by TLS at `tls`. `ports` are its own; see [`ports`].
    pub async fn start(
        folder: &Path,
        (own, ports): (Authority, [Port; 2]),
        (http, tls): (SocketAddr, SocketAddr),
        ways: &Ways,
    ) -> Self {
        own.issue(&["127.0.0.1"]).save(folder, "pebble");
        let [directory, management] = [0, 1].map(|place| ports[place].address().to_string());
        let mut config = json!({
            "listenAddress": directory, "managementListenAddress": management,
            "certificate": "pebble.pem", "privateKey": "pebble.key",
            "httpPort": http.port(), "tlsPort": tls.port(), "ocspResponderURL": "",
            "externalAccountBindingRequired": ways.accounts.is_some(),
            "domainBlocklist": ways.blocked,
        });
        if let Some(validity) = ways.validity {
            config["certificateValidityPeriod"] = validity.into();
        }
        if let Some((name, key)) = &ways.accounts {
            config["externalAccountMACKeys"] = json!({ name: key });
        }
        let file = folder.join("pebble.json");
        std::fs::write(&file, json!({ "pebble": config }).to_string()).expect("write a config");
        let (resolver, names) = names().await;
        let mut child = Command::new("pebble")
            .args(["-config", "pebble.json", "-dnsserver", &resolver.to_string()])
            .current_dir(folder)
            .env("PEBBLE_VA_NOSLEEP", "1")
            .env("PEBBLE_WFE_NONCEREJECT", "10")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("pebble is there; tests/clients/install installs it");
        let lines: Arc<Mutex<Vec<String>>> = Arc::default();
        let stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let told = Arc::clone(&lines);
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                told.lock().unwrap().push(line);
            }
        });
        let pebble = Self { child, lines, own, ports, names };
        for port in &pebble.ports {
            let begun = std::time::Instant::now();
            while TcpStream::connect(port.address()).await.is_err() {
                assert!(begun.elapsed() < DEADLINE, "pebble does not listen");
                pause().await;
            }
        }
        pebble
    }

    /// How many orders were made.
    pub fn orders(&self) -> usize {
        self.told("order-plz -> calling handler")
    }

    /// How many lines of its log say `what`.
    pub fn told(&self, what: &str) -> usize {
        self.lines.lock().unwrap().iter().filter(|line| line.contains(what)).count()
    }

    pub fn output(&self) -> String {
        self.lines.lock().unwrap().join("\n")
    }

    /// A client that trusts what it signs, and nothing else.
    pub async fn client(&self) -> Tls {
        let management = self.ports[1].address();
        let mut conn = self.own.client().conn(management, "127.0.0.1").await;
        conn.write(&Request::get("/roots/0").encode(None)).await.expect("ask for the root");
        let head = within("a head", conn.head()).await.expect("read a head").expect("an answer");
        let body = within("a body", conn.body(head.response_framing("GET"))).await.expect("read");
        Tls::trusting(&body.bytes)
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        self.names.abort();
        if std::thread::panicking() {
            eprintln!("--- pebble\n{}", self.output());
        }
    }
}

/// Where a CA will be, and who signs its own certificate.
pub fn ports() -> (Authority, [Port; 2]) {
    (Authority::new("pebble's own"), [Port::claim(), Port::claim()])
}

/// Answers that every host is at 127.0.0.1 (RFC 1035 section 4).
async fn names() -> (SocketAddr, tokio::task::JoinHandle<()>) {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let address = socket.local_addr().expect("a bound address");
    let task = tokio::spawn(async move {
        let mut question = [0; 1500];
        while let Ok((size, client)) = socket.recv_from(&mut question).await {
            if let Some(answer) = answer(&question[..size]) {
                drop(socket.send_to(&answer, client).await);
            }
        }
    });
    (address, task)
}

fn answer(question: &[u8]) -> Option<Vec<u8>> {
    const HEADER: usize = 12;
    let mut end = HEADER;
    while *question.get(end)? != 0 {
        end += usize::from(question[end]) + 1;
    }
    let asked = question.get(HEADER..end + 5)?;
    let is_ipv4 = asked[asked.len() - 4..] == [0, 1, 0, 1];
    let mut answer = question[..2].to_vec();
    // A response to a recursive question, without error; one question and at most one answer.
    answer.extend([0x81, 0x80, 0, 1, 0, u8::from(is_ipv4), 0, 0, 0, 0]);
    answer.extend(asked);
    if is_ipv4 {
        // The name is at its place in the question; type A, class IN, an hour, four bytes.
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 14, 16, 0, 4, 127, 0, 0, 1]);
    }
    Some(answer)
}

/// The `acme` map for this CA; `rest` ends it.
pub fn acme((own, ports): &(Authority, [Port; 2]), folder: &Path, rest: &str) -> String {
    std::fs::write(folder.join("ca.pem"), &own.pem).expect("write the CA's root");
    let directory = ports[0].address();
    format!(
        "{{ directory: \"https://{directory}/dir\", ca: ca.pem, state: state, agree_to_terms: true, \
         {rest} }}"
    )
}

/// Every file below `folder`.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.path() {
            path if path.is_dir() => found.extend(files(&path)),
            path => found.push(path),
        }
    }
    found
}

/// The account that is kept below `folder`.
pub fn account(folder: &Path) -> Value {
    let kept = files(folder).into_iter().find(|file| file.ends_with("account.json"));
    let text = std::fs::read(kept.expect("an account")).expect("read the account");
    serde_json::from_slice(&text).expect("an account in JSON")
}
