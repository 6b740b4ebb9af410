//! A Docker engine at a Unix socket, for containers only: lists by label and health, and events. It
//! answers as dockerd 20.10 was seen to.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use futures_util::stream;
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::UnixListener;
use tokio::sync::broadcast;
use tokio::task::{AbortHandle, JoinSet};

type Body = BoxBody<Bytes, Infallible>;

#[derive(Debug, Default)]
struct Store {
    /// By id.
    containers: BTreeMap<String, Value>,
    /// What is answered to everything, if anything.
    refuses: Option<(u16, String)>,
}

/// The engine; it stops when dropped.
#[derive(Debug)]
pub struct Engine {
    pub socket: PathBuf,
    store: Arc<Mutex<Store>>,
    events: broadcast::Sender<String>,
    acceptor: Option<AbortHandle>,
}

impl Engine {
    pub fn start(folder: &Path) -> Self {
        let mut engine = Self {
            socket: folder.join("docker.sock"),
            store: Arc::default(),
            events: broadcast::Sender::new(64),
            acceptor: None,
        };
        engine.comes_back();
        engine
    }

    /// Listens, at a new socket.
    pub fn comes_back(&mut self) {
        // There may be none yet.
        drop(std::fs::remove_file(&self.socket));
        let listener = UnixListener::bind(&self.socket).expect("bind the socket");
        let (store, events) = (Arc::clone(&self.store), self.events.clone());
        let acceptor = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let Ok((socket, _)) = listener.accept().await else { continue };
                let (store, events) = (Arc::clone(&store), events.clone());
                connections.spawn(async move {
                    let service = service_fn(|request| {
                        let answer = answer(&store, &events, &request);
                        async { Ok::<_, Infallible>(answer) }
                    });
                    let http = hyper::server::conn::http1::Builder::new();
                    // The other side may leave when it likes.
                    drop(http.serve_connection(TokioIo::new(socket), service).await);
                });
            }
        });
        self.acceptor = Some(acceptor.abort_handle());
    }

    /// Nobody listens any more, and every connection is cut.
    pub fn dies(&mut self) {
        if let Some(acceptor) = self.acceptor.take() {
            acceptor.abort();
        }
    }

    /// A container of the service `chat` runs from now on.
    pub fn runs(&self, name: &str, ip: &str, labels: &[(&str, &str)]) {
        let mut all = json!({ "burdock.service": "chat" });
        labels.iter().for_each(|(label, value)| all[label] = json!(value));
        let container = json!({
            "Id": id(name), "Names": [format!("/{name}")], "Image": "chat:1", "Created": 1_795_973_186,
            "Ports": [], "Labels": all, "State": "running", "Status": "Up 2 seconds",
            "HostConfig": { "NetworkMode": "chat_default" }, "Mounts": [],
            "NetworkSettings": { "Networks": { "chat_default": {
                "IPAMConfig": null, "NetworkID": "f83ea26bf73b", "Gateway": "127.0.0.1",
                "IPAddress": ip, "IPPrefixLen": 24, "GlobalIPv6Address": "",
            } } },
        });
        self.store.lock().unwrap().containers.insert(id(name), container);
        self.happens(name, "start", &[]);
    }

    /// Its state is another, and this is told of.
    pub fn becomes(&self, name: &str, change: Value, event: &str) {
        let mut store = self.store.lock().unwrap();
        let container = store.containers.get_mut(&id(name)).expect("a container of this name");
        for (key, value) in change.as_object().expect("keys to change") {
            container[key] = value.clone();
        }
        drop(store);
        self.happens(name, event, &[]);
    }

    /// It has ended. As with a real engine, the next list may have it still.
    pub fn ends(&self, name: &str) {
        let mut store = self.store.lock().unwrap();
        store.containers.get_mut(&id(name)).expect("a container of this name")["ends"] =
            json!(true);
        drop(store);
        self.happens(name, "die", &[("exitCode", "0")]);
    }

    /// Something happens to it that changes nothing in the list.
    pub fn happens(&self, name: &str, action: &str, attributes: &[(&str, &str)]) {
        let mut all = json!({ "burdock.service": "chat", "image": "chat:1", "name": name });
        attributes.iter().for_each(|(key, value)| all[key] = json!(value));
        let event = json!({
            "status": action, "id": id(name), "from": "chat:1", "Type": "container",
            "Action": action, "Actor": { "ID": id(name), "Attributes": all },
            "scope": "local", "time": 1_795_973_200, "timeNano": 1_795_973_200_000_000_000_u64,
        });
        // Nobody may listen.
        drop(self.events.send(format!("{event}\n")));
    }

    /// Everything is answered so, or as it should be.
    pub fn refuses(&self, with: Option<(u16, &str)>) {
        self.store.lock().unwrap().refuses = with.map(|(code, text)| (code, text.to_owned()));
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.dies();
    }
}

fn id(name: &str) -> String {
    format!("{name:0>64}")
}

fn answer(
    store: &Mutex<Store>,
    events: &broadcast::Sender<String>,
    request: &http::Request<Incoming>,
) -> http::Response<Body> {
    let target = decoded(&request.uri().to_string());
    let mut store = store.lock().unwrap();
    if let Some((code, text)) = &store.refuses {
        let mut answer = full(json!({ "message": text }).to_string());
        *answer.status_mut() = http::StatusCode::from_u16(*code).unwrap();
        return answer;
    }
    let filters = target.split_once("?filters=").map_or("{}", |(_, filters)| filters);
    let filters: Value = serde_json::from_str(filters).expect("filters in JSON");
    let labels = filters["label"].as_array().cloned().unwrap_or_default();
    let is_asked = |container: &&Value| {
        let has = |label: &Value| {
            let (name, value) = label.as_str().unwrap().split_once('=').unwrap();
            container["Labels"][name] == *value
        };
        let status = container["Status"].as_str().unwrap_or_default();
        let is_unwell = status.contains("(unhealthy)") || status.contains("(health: starting)");
        labels.iter().all(has) && (filters["health"].is_null() || is_unwell)
    };
    match request.uri().path() {
        "/containers/json" => {
            let all: Vec<_> = store.containers.values().filter(is_asked).collect();
            let answer = full(json!(all).to_string());
            // The other list of a pair: what has ended is in no list from now on.
            if !filters["health"].is_null() {
                store.containers.retain(|_, container| container["ends"].is_null());
            }
            answer
        }
        "/events" => {
            let body = stream::unfold(events.subscribe(), |mut events| async {
                let line = events.recv().await.ok()?;
                Some((Ok::<_, Infallible>(Frame::data(Bytes::from(line))), events))
            });
            http::Response::new(BodyExt::boxed(StreamBody::new(body)))
        }
        path => panic!("nobody should ask for {path}"),
    }
}

fn full(text: String) -> http::Response<Body> {
    http::Response::new(BodyExt::boxed(Full::new(Bytes::from(text))))
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let hex = |at: usize| after.get(at).and_then(|it| char::from(*it).to_digit(16));
        match (first, hex(0), hex(1)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push(u8::try_from(high * 16 + low).unwrap());
                rest = &after[2..];
            }
            _ => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).expect("UTF-8")
}
