//! A real etcd, as processes of its own, with `etcdctl` to write there; and a relay that can go silent.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::burdock::send_signal;
use super::client::{Client, Request};
use super::eventually;
use super::pebble::Port;

/// A member of an etcd; killed when dropped.
#[derive(Debug)]
pub struct Etcd {
    child: Child,
    arguments: Vec<String>,
    folder: PathBuf,
    /// Where clients ask it.
    pub address: SocketAddr,
    secured: bool,
    user: Option<&'static str>,
    _ports: [Port; 2],
}

impl Etcd {
    /// One that is an etcd of its own.
    pub async fn start(folder: &Path) -> Self {
        Self::alone(folder, &[]).await
    }

    /// One that speaks TLS by `etcd.pem` and `etcd.key`, to those who show what `ca.pem` stands for.
    pub async fn secured(folder: &Path) -> Self {
        let path = |name: &str| folder.join(name).display().to_string();
        let [ca, cert, key] = [path("ca.pem"), path("etcd.pem"), path("etcd.key")];
        let ours = ["--client-cert-auth", "--trusted-ca-file", &ca, "--cert-file", &cert];
        Self::alone(folder, &[&ours[..], &["--key-file", &key]].concat()).await
    }

    async fn alone(folder: &Path, more: &[&str]) -> Self {
        let ports = [Port::claim(), Port::claim()];
        let cluster = format!("m=http://{}", ports[1].address());
        let member = Self::member(folder, "m", ports, &cluster, more);
        member.listens().await;
        member.leads("a leader").await;
        member
    }

    /// Three that are one; two of them are enough.
    pub async fn three(folder: &Path) -> Vec<Self> {
        let ports: Vec<_> = (0..3).map(|_| [Port::claim(), Port::claim()]).collect();
        let peers = ports.iter().enumerate();
        let peers = peers.map(|(at, it)| format!("m{at}=http://{}", it[1].address()));
        let cluster = peers.collect::<Vec<_>>().join(",");
        let members = ports.into_iter().enumerate();
        let members: Vec<_> = members
            .map(|(at, ports)| Self::member(folder, &format!("m{at}"), ports, &cluster, &[]))
            .collect();
        for member in &members {
            member.listens().await;
            member.leads("a leader of three").await;
        }
        members
    }

    fn member(folder: &Path, name: &str, ports: [Port; 2], cluster: &str, more: &[&str]) -> Self {
        let secured = more.contains(&"--cert-file");
        let address = ports[0].address();
        let scheme = if secured { "https" } else { "http" };
        let (clients, peers) =
            (format!("{scheme}://{address}"), format!("http://{}", ports[1].address()));
        let mut arguments: Vec<_> = ["--listen-client-urls", "--advertise-client-urls"]
            .into_iter()
            .flat_map(|key| [key.to_owned(), clients.clone()])
            .collect();
        for key in ["--listen-peer-urls", "--initial-advertise-peer-urls"] {
            arguments.extend([key.to_owned(), peers.clone()]);
        }
        let data = folder.join(format!("{name}.etcd")).display().to_string();
        let rest =
            ["--name", name, "--data-dir", &data, "--initial-cluster", cluster, "--logger", "zap"];
        arguments.extend(rest.iter().chain(more).map(|it| (*it).to_owned()));
        let child = run(folder, &arguments);
        let folder = folder.to_owned();
        Self { child, arguments, folder, address, secured, user: None, _ports: ports }
    }

    async fn listens(&self) {
        eventually("etcd listens", || std::net::TcpStream::connect(self.address).ok()).await;
    }

    /// Waits until it can say anything at all.
    pub async fn leads(&self, what: &str) {
        eventually(what, || self.tried(&["get", "nothing"]).ok()).await;
    }

    /// Its URL.
    pub fn url(&self) -> String {
        let scheme = if self.secured { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// `NAME:PASSWORD` of whoever writes from now on.
    pub fn by(&mut self, user: Option<&'static str>) {
        self.user = user;
    }

    /// What `etcdctl` says.
    pub fn ctl(&self, arguments: &[&str]) -> String {
        self.tried(arguments).unwrap_or_else(|told| panic!("etcdctl {arguments:?}: {told}"))
    }

    fn tried(&self, arguments: &[&str]) -> Result<String, String> {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").arg("--endpoints").arg(self.url());
        command.args(["--dial-timeout=5s", "--command-timeout=5s"]);
        if self.secured {
            for (key, file) in [("--cacert", "ca.pem"), ("--cert", "me.pem"), ("--key", "me.key")] {
                command.arg(key).arg(self.folder.join(file));
            }
        }
        if let Some(user) = self.user {
            command.args(["--user", user]);
        }
        let output = command.args(arguments).stdin(Stdio::null()).output();
        let output = output.expect("etcdctl, which tests/clients/install installs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match output.status.success() {
            true => Ok(text(&output.stdout)),
            false => Err(text(&output.stderr)),
        }
    }

    /// Puts a value at a key.
    pub fn put(&self, key: &str, value: &str) {
        self.ctl(&["put", key, value]);
    }

    /// Takes a key away.
    pub fn delete(&self, key: &str) {
        self.ctl(&["del", key]);
    }

    /// A lease; its ID in hexadecimal digits.
    pub fn lease(&self, seconds: u32) -> String {
        let told = self.ctl(&["lease", "grant", &seconds.to_string()]);
        told.split_whitespace().nth(1).expect("lease ID granted").to_owned()
    }

    /// Forgets all changes before now.
    pub fn compact(&self) {
        let told: Value = serde_json::from_str(&self.ctl(&["get", "nothing", "-w", "json"]))
            .expect("what etcdctl says is JSON");
        let revision = told["header"]["revision"].to_string();
        self.ctl(&["compact", &revision]);
    }

    /// Puts many at once, by the gateway.
    pub async fn fill(&self, pairs: &BTreeMap<String, String>) {
        use base64::Engine;
        let text = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
        let pairs: Vec<_> = pairs.iter().collect();
        let mut client = Client::new(self.address);
        for some in pairs.chunks(100) {
            let puts: Vec<_> = some
                .iter()
                .map(|(key, value)| json!({ "request_put": { "key": text(key), "value": text(value) } }))
                .collect();
            let body = json!({ "success": puts }).to_string();
            let answer = client.send(&Request::post("/v3/kv/txn", body.as_bytes())).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
    }

    /// As `kill -9` does it.
    pub fn kill(&mut self) {
        self.child.kill().expect("kill etcd");
        self.child.wait().expect("reap etcd");
    }

    /// Another process of what was killed, with its data.
    pub async fn again(&mut self) {
        self.child = run(&self.folder, &self.arguments);
        self.listens().await;
        self.leads("etcd is back").await;
    }

    /// Another process of what was killed, with no data at all.
    pub async fn anew(&mut self) {
        std::fs::remove_dir_all(self.folder.join("m.etcd")).expect("remove the data");
        self.again().await;
    }

    /// Stands still; the kernel goes on to accept connections.
    pub fn stop(&self) {
        send_signal(&self.child, libc::SIGSTOP);
    }

    /// Goes on.
    pub fn go_on(&self) {
        send_signal(&self.child, libc::SIGCONT);
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn run(folder: &Path, arguments: &[String]) -> Child {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(folder.join("etcd.log"));
    Command::new("etcd")
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log.expect("a log"))
        .spawn()
        .expect("etcd, which tests/clients/install installs")
}

/// A way to somewhere that can swallow everything, without a word.
#[derive(Debug)]
pub struct Relay {
    pub address: SocketAddr,
    silent: Arc<watch::Sender<u64>>,
    accepting: AbortHandle,
}

impl Relay {
    pub async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind to loopback");
        let address = listener.local_addr().expect("a bound address");
        let silent = Arc::new(watch::channel(0).0);
        let told = Arc::clone(&silent);
        let accepting = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let Ok(far) = TcpStream::connect(target).await else { continue };
                let (mut near, mut far) = (near.into_split(), far.into_split());
                // What was said before they came means others.
                let (mut out, mut back) = (told.subscribe(), told.subscribe());
                tokio::spawn(async move { pass(&mut near.0, &mut far.1, &mut out).await });
                tokio::spawn(async move { pass(&mut far.0, &mut near.1, &mut back).await });
            }
        });
        Self { address, silent, accepting: accepting.abort_handle() }
    }

    /// Lets nothing more through on the connections that there are. New ones work.
    pub fn swallow(&self) {
        self.silent.send_modify(|count| *count += 1);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn pass(
    from: &mut tokio::net::tcp::OwnedReadHalf,
    to: &mut tokio::net::tcp::OwnedWriteHalf,
    silent: &mut watch::Receiver<u64>,
) {
    let mut bytes = vec![0; 16 * 1024];
    loop {
        let read = tokio::select! {
            read = from.read(&mut bytes) => read,
            // Nothing is read any more, and neither end is told.
            _ = silent.changed() => std::future::pending().await,
        };
        match read {
            Ok(n) if n > 0 && to.write_all(&bytes[..n]).await.is_ok() => {}
            _ => break,
        }
    }
    let _ = to.shutdown().await;
}
