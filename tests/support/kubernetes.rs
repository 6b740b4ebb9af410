//! An API server of a Kubernetes cluster, for EndpointSlices only: lists in pages, watches from a
//! resourceVersion on, bookmarks, 410 for what was compacted, tokens, TLS. It answers as kube-apiserver
//! 1.20 was seen to. Where `BURDOCK_KUBERNETES` names a folder with `url`, `ca.pem` and `token`, that
//! server is asked instead, and there are no knobs.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::stream;
use http_body_util::{BodyExt, StreamBody, combinators::BoxBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use super::secured::Authority;

type Body = BoxBody<Bytes, Infallible>;

/// The label that says of which service a slice is.
const SERVICE: &str = "kubernetes.io/service-name";
const NAMESPACE: &str = "burdock";

/// What the server knows, and how it behaves.
#[derive(Debug, Default)]
struct Store {
    version: u64,
    slices: BTreeMap<String, Value>,
    /// Since `oldest`: of which version, and the event.
    history: Vec<(u64, Value)>,
    oldest: u64,
    token: String,
    /// The lists that are being paged through, by their version.
    listed: BTreeMap<u64, Vec<Value>>,
    /// Bytes in a chunk of a watch; 0 for whole lines.
    chunk: usize,
    /// What is answered to everything, if anything.
    refuses: Option<(u16, String)>,
}

/// The stand-in.
#[derive(Debug)]
pub struct StandIn {
    store: Arc<Mutex<Store>>,
    changed: watch::Sender<u64>,
    asked: Arc<Mutex<Vec<String>>>,
    acceptor: Option<AbortHandle>,
}

/// A server, and the folder that says how to reach it.
#[derive(Debug)]
pub struct Cluster {
    folder: PathBuf,
    url: String,
    service: String,
    /// Unless it is a real one.
    stand_in: Option<StandIn>,
}

impl Cluster {
    /// The real one that `BURDOCK_KUBERNETES` names, or a stand-in.
    pub async fn any(folder: &Path) -> Self {
        static SERVICES: AtomicUsize = AtomicUsize::new(0);
        let Some(real) = std::env::var_os("BURDOCK_KUBERNETES").map(PathBuf::from) else {
            return Self::stand_in(folder).await;
        };
        let url = std::fs::read_to_string(real.join("url")).expect("the URL of the API server");
        let n = SERVICES.fetch_add(1, Ordering::AcqRel);
        let service = format!("web-{}-{n}", std::process::id());
        Self { folder: real, url: url.trim().to_owned(), service, stand_in: None }
    }

    /// A stand-in, whose knobs may be turned.
    pub async fn stand_in(folder: &Path) -> Self {
        let authority = Authority::new();
        let issued = authority.issue("127.0.0.1");
        std::fs::write(folder.join("ca.pem"), &authority.pem).expect("write the CA");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind to loopback");
        let url = format!("https://{}", listener.local_addr().expect("an address"));
        let chain = CertificateDer::from_pem_slice(issued.cert.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap();
        let tls = rustls::ServerConfig::builder_with_provider(Arc::new(
            rustls::crypto::ring::default_provider(),
        ));
        let tls = tls.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let tls = TlsAcceptor::from(Arc::new(tls.with_single_cert(vec![chain], key).unwrap()));
        let store = Store { version: 100, oldest: 100, ..Store::default() };
        let mut stand_in = StandIn {
            store: Arc::new(Mutex::new(store)),
            changed: watch::Sender::new(0),
            asked: Arc::default(),
            acceptor: None,
        };
        stand_in.listen(listener, tls);
        let service = "web".to_owned();
        let cluster = Self { folder: folder.to_owned(), url, service, stand_in: Some(stand_in) };
        cluster.rotates("first");
        cluster
    }

    /// What a version says of it.
    pub fn discovery(&self) -> String {
        format!("{{ kubernetes: {{ api: '{}', {} }} }}", self.url, self.keys())
    }

    /// The same where only the environment says where the server is, as in a pod.
    pub fn discovery_inside(&self) -> (String, [(&'static str, String); 2]) {
        let (host, port) = self.url.trim_start_matches("https://").split_once(':').expect("a port");
        let names = ["KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"];
        let variables = [(names[0], host.to_owned()), (names[1], port.to_owned())];
        (format!("{{ kubernetes: {{ {} }} }}", self.keys()), variables)
    }

    fn keys(&self) -> String {
        let [ca, token] = ["ca.pem", "token"].map(|name| self.folder.join(name));
        let (ca, token) = (ca.display(), token.display());
        format!(
            "ca: {ca}, token_file: {token}, namespace: {NAMESPACE}, service: {}, port: http",
            self.service
        )
    }

    /// Puts a slice of the service in place, at this name.
    pub fn put(&self, name: &str, port: u16, endpoints: &[Value]) {
        let full = format!("{}-{name}", self.service);
        let mut slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": { "name": full, "namespace": NAMESPACE, "labels": { SERVICE: self.service } },
            "addressType": "IPv4", "endpoints": endpoints,
            "ports": [{ "name": "http", "port": port, "protocol": "TCP" }],
        });
        match &self.stand_in {
            Some(stand_in) => stand_in.put(&full, slice),
            None => {
                let before = self.curl("GET", &full, None);
                let version = &before["metadata"]["resourceVersion"];
                if version.is_string() {
                    slice["metadata"]["resourceVersion"] = version.clone();
                    self.curl("PUT", &full, Some(&slice));
                } else {
                    self.curl("POST", "", Some(&slice));
                }
            }
        }
    }

    pub fn delete(&self, name: &str) {
        let full = format!("{}-{name}", self.service);
        match &self.stand_in {
            Some(stand_in) => stand_in.delete(&full),
            None => _ = self.curl("DELETE", &full, None),
        }
    }

    fn curl(&self, method: &str, name: &str, body: Option<&Value>) -> Value {
        let [ca, admin] = ["ca.pem", "admin"].map(|name| self.folder.join(name));
        let admin = std::fs::read_to_string(admin).expect("the token of an administrator");
        let url = format!(
            "{}/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices/{name}",
            self.url
        );
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--cacert"]).arg(ca).args(["-X", method]);
        command.args(["-H", &format!("Authorization: Bearer {}", admin.trim())]);
        if let Some(body) = body {
            let body = body.to_string();
            command.args(["-H", "Content-Type: application/json", "--data-binary", &body]);
        }
        let url = url.trim_end_matches('/');
        let output = command.arg(url).stdin(Stdio::null()).output().expect("run curl");
        serde_json::from_slice(&output.stdout).expect("an answer in JSON")
    }

    /// The stand-in, where the test needs one.
    pub fn knobs(&self) -> &StandIn {
        self.stand_in.as_ref().expect("a stand-in")
    }

    /// Another token is good from now on, and in the file.
    pub fn rotates(&self, token: &str) {
        self.knobs().store.lock().unwrap().token = token.to_owned();
        let new = self.folder.join("token.new");
        std::fs::write(&new, token).expect("write the token");
        std::fs::rename(new, self.folder.join("token")).expect("put it in place");
    }

    /// Nobody listens any more, and every connection is cut.
    pub fn dies(&mut self) {
        self.stand_in.take();
    }
}

/// A pod's endpoint.
pub fn endpoint(pod: &str, address: &str, [ready, serving, terminating]: [bool; 3]) -> Value {
    json!({
        "addresses": [address],
        "conditions": { "ready": ready, "serving": serving, "terminating": terminating },
        "nodeName": "node-1", "zone": "zone-1",
        "targetRef": { "kind": "Pod", "name": pod, "namespace": NAMESPACE },
    })
}

impl StandIn {
    fn listen(&mut self, listener: TcpListener, tls: TlsAcceptor) {
        let (store, asked) = (Arc::clone(&self.store), Arc::clone(&self.asked));
        let changed = self.changed.subscribe();
        let acceptor = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let Ok((socket, _)) = listener.accept().await else { continue };
                let (store, asked) = (Arc::clone(&store), Arc::clone(&asked));
                let (tls, changed) = (tls.clone(), changed.clone());
                connections.spawn(async move {
                    let Ok(stream) = tls.accept(socket).await else { return };
                    let service = service_fn(|request| {
                        let answer = answer(&store, &asked, changed.clone(), &request);
                        async { Ok::<_, Infallible>(answer) }
                    });
                    let http = hyper::server::conn::http1::Builder::new();
                    // The other side may leave when it likes.
                    drop(http.serve_connection(TokioIo::new(stream), service).await);
                });
            }
        });
        self.acceptor = Some(acceptor.abort_handle());
    }

    fn put(&self, name: &str, mut slice: Value) {
        let mut store = self.store.lock().unwrap();
        store.version += 1;
        slice["metadata"]["resourceVersion"] = store.version.to_string().into();
        let kind = if store.slices.contains_key(name) { "MODIFIED" } else { "ADDED" };
        let event = (store.version, json!({ "type": kind, "object": slice }));
        store.slices.insert(name.to_owned(), slice);
        store.history.push(event);
        drop(store);
        self.changed.send_modify(|n| *n += 1);
    }

    fn delete(&self, name: &str) {
        let mut store = self.store.lock().unwrap();
        store.version += 1;
        let mut slice = store.slices.remove(name).expect("a slice of this name");
        slice["metadata"]["resourceVersion"] = store.version.to_string().into();
        let event = (store.version, json!({ "type": "DELETED", "object": slice }));
        store.history.push(event);
        drop(store);
        self.changed.send_modify(|n| *n += 1);
    }

    /// What has changed until now can't be watched any more, and watches are told so.
    pub fn compacts(&self) {
        let mut store = self.store.lock().unwrap();
        store.version += 1;
        store.oldest = store.version;
        store.history.clear();
        drop(store);
        self.changed.send_modify(|n| *n += 1);
    }

    /// Watches come in chunks of so many bytes.
    pub fn chunks(&self, bytes: usize) {
        self.store.lock().unwrap().chunk = bytes;
    }

    /// Everything is answered so, or as it should be.
    pub fn refuses(&self, with: Option<(u16, &str)>) {
        self.store.lock().unwrap().refuses = with.map(|(code, text)| (code, text.to_owned()));
    }

    /// What has been asked, in order.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        if let Some(acceptor) = self.acceptor.take() {
            acceptor.abort();
        }
    }
}

fn answer(
    store: &Arc<Mutex<Store>>,
    asked: &Mutex<Vec<String>>,
    changed: watch::Receiver<u64>,
    request: &http::Request<Incoming>,
) -> http::Response<Body> {
    let target = request.uri().to_string();
    asked.lock().unwrap().push(target.clone());
    let held = store.lock().unwrap();
    let shown = request.headers().get("authorization").and_then(|it| it.to_str().ok());
    if shown != Some(&format!("Bearer {}", held.token)) {
        return status(401, "Unauthorized");
    }
    if let Some((code, text)) = &held.refuses {
        return status(*code, text);
    }
    let folder = format!("/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices");
    if request.uri().path() != folder {
        return status(404, "the server could not find the requested resource");
    }
    let query = request.uri().query().unwrap_or_default();
    let value = |name: &str| {
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find(|pair| pair.0 == name).map(|pair| pair.1.to_owned())
    };
    let number = |name: &str| value(name).and_then(|text| text.parse::<u64>().ok());
    let label = value("labelSelector").unwrap_or_default().replace("%2f", "/").replace("%3d", "=");
    let service = label.strip_prefix(&format!("{SERVICE}=")).unwrap_or_default().to_owned();
    drop(held);
    if value("watch").as_deref() == Some("true") {
        let from = number("resourceVersion").expect("a watch from somewhere on");
        let lasts = Duration::from_secs(number("timeoutSeconds").expect("a watch that ends"));
        let (sender, lines) = mpsc::channel(16);
        let store = Arc::clone(store);
        tokio::spawn(async move {
            drop(tokio::time::timeout(lasts, tell(store, changed, (service, from), sender)).await);
        });
        let body = stream::unfold(lines, |mut lines| async {
            let line: Bytes = lines.recv().await?;
            Some((Ok::<_, Infallible>(Frame::data(line)), lines))
        });
        return http::Response::new(BodyExt::boxed(StreamBody::new(body)));
    }
    let limit = number("limit").unwrap_or(u64::MAX);
    let next = value("continue").unwrap_or_default();
    page(&mut store.lock().unwrap(), &service, limit, &next)
}

/// A page of the list as it was when its first page was asked for.
fn page(store: &mut Store, service: &str, limit: u64, next: &str) -> http::Response<Body> {
    let (version, begin) = match next.split_once('.') {
        Some((version, begin)) => (version.parse().unwrap(), begin.parse::<usize>().unwrap()),
        None => {
            let is_of = |it: &&Value| it["metadata"]["labels"][SERVICE] == *service;
            let all = store.slices.values().filter(is_of).cloned().collect();
            store.listed.insert(store.version, all);
            (store.version, 0)
        }
    };
    if version < store.oldest {
        return status(410, "The provided continue parameter is too old");
    }
    let all = &store.listed[&version];
    let end = all.len().min(begin + usize::try_from(limit).unwrap_or(usize::MAX).min(all.len()));
    let next = if end < all.len() { format!("{version}.{end}") } else { String::new() };
    let page = json!({
        "kind": "EndpointSliceList", "apiVersion": "discovery.k8s.io/v1",
        "metadata": { "resourceVersion": version.to_string(), "continue": next },
        "items": all[begin..end],
    });
    http::Response::new(full(page.to_string()))
}

/// Sends what changes, line by line, until the other side or the time is gone.
async fn tell(
    store: Arc<Mutex<Store>>,
    mut changed: watch::Receiver<u64>,
    (service, mut from): (String, u64),
    sender: mpsc::Sender<Bytes>,
) {
    loop {
        let (lines, chunk, is_over) = {
            let store = store.lock().unwrap();
            let mut lines = Vec::new();
            let is_over = from < store.oldest;
            if is_over {
                let message = format!("too old resource version: {from} ({})", store.oldest);
                lines.push(json!({ "type": "ERROR", "object": {
                    "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                    "message": message, "reason": "Expired", "code": 410,
                } }));
            }
            let is_new = |it: &&(u64, Value)| it.0 > from;
            for (version, event) in store.history.iter().filter(is_new) {
                if event["object"]["metadata"]["labels"][SERVICE] == *service {
                    lines.push(event.clone());
                }
                lines.push(json!({ "type": "BOOKMARK", "object": {
                    "kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1",
                    "metadata": { "resourceVersion": version.to_string() },
                } }));
            }
            from = store.version.max(from);
            (lines, store.chunk, is_over)
        };
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let chunk = if chunk == 0 { text.len().max(1) } else { chunk };
        for piece in text.as_bytes().chunks(chunk) {
            if sender.send(Bytes::copy_from_slice(piece)).await.is_err() {
                return;
            }
        }
        if is_over || changed.changed().await.is_err() {
            return;
        }
    }
}

fn status(code: u16, message: &str) -> http::Response<Body> {
    let body = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                       "message": message, "code": code });
    let mut answer = http::Response::new(full(body.to_string()));
    *answer.status_mut() = http::StatusCode::from_u16(code).unwrap();
    answer
}

fn full(text: String) -> Body {
    BodyExt::boxed(http_body_util::Full::new(Bytes::from(text)))
}
