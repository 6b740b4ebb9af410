//! What whoever looks on is told: events from where a client left off, a tick each second, rates,
//! probes and the last quarter of an hour.

use serde_json::{Value, json};

use crate::support::wire::Conn;
use crate::support::{
    self, Api, Backend, Burdock, FAST_READINESS, Fault, pause, raw, within, yaml,
};

/// A stream of server-sent events, read as it comes.
struct Stream {
    conn: Conn,
    text: String,
}

impl Stream {
    async fn open(burdock: &Burdock, path: &str, fields: &str) -> Self {
        let request = format!("GET /api/v1/{path} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n");
        let mut conn = raw::open(burdock.admin(), request).await;
        let head = within("a head", conn.head()).await.expect("readable").expect("a head");
        assert_eq!(head.status(), 200, "{head:?}");
        assert_eq!(head.field("content-type"), Some("text/event-stream"));
        Self { conn, text: String::new() }
    }

    /// The next message that `wanted` is true for; those before it are gone.
    async fn next(&mut self, what: &str, wanted: impl Fn(&Message) -> bool) -> Message {
        within(what, async {
            loop {
                let read = self.conn.buffer.split();
                self.text.push_str(&String::from_utf8_lossy(&read));
                while let Some((message, rest)) = self.text.split_once("\n\n") {
                    let message = Message::parse(message);
                    self.text = rest.to_owned();
                    if let Some(message) = message.filter(&wanted) {
                        return message;
                    }
                }
                assert!(self.conn.fill().await.expect("readable") > 0, "{what}: it has ended");
            }
        })
        .await
    }

    /// The next event with such words.
    async fn event(&mut self, text: &str) -> Message {
        self.next(text, |it| it.data["text"].as_str().is_some_and(|it| it.contains(text))).await
    }
}

#[derive(Debug)]
struct Message {
    id: Option<u64>,
    event: String,
    data: Value,
}

impl Message {
    /// Lines that are none of a message are those of the transfer coding.
    fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
        let data = serde_json::from_str(field("data: ")?).expect("JSON");
        let id = field("id: ").map(|id| id.parse().expect("a number"));
        Some(Self { id, event: field("event: ").unwrap_or_default().to_owned(), data })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_told_as_they_happen_and_from_where_a_client_left_off() {
    let backends = Backend::several(&["a", "b"]).await;
    let all: Vec<_> = backends.iter().collect();
    let text = yaml(&all, FAST_READINESS);
    let burdock = Burdock::start(&text).await;
    burdock.wait_health("a", "ready").await;
    let mut stream = Stream::open(&burdock, "events", "").await;
    backends[0].ready(false);
    let unready = stream.event("a is unready: readiness check answered 503").await;
    assert_eq!((unready.event.as_str(), &unready.data["severity"]), ("health", &json!("warning")));
    assert_eq!(unready.data["instance"], "default/default/a");
    assert_eq!(unready.data["fields"]["to"], "unready");
    let seen = unready.id.expect("an id");
    burdock.reload("instances: 5\n").await;
    let rejected = stream.event("configuration rejected: ").await;
    assert_eq!(rejected.data["fields"]["ok"], false);
    assert!(rejected.data["fields"]["problems"][0].to_string().contains(":1: instances"));
    burdock.reload(&yaml(&all[..1], FAST_READINESS)).await;
    stream.event("b removed").await;
    stream.event("configuration 2 taken over").await;
    let mut again = Stream::open(&burdock, "events", &format!("Last-Event-ID: {seen}\r\n")).await;
    let first = again.next("what came since", |_| true).await;
    assert_eq!(first.id, Some(seen + 1));
    let (status, kept) = Api::of(&burdock).get(&format!("events?format=json&since={seen}")).await;
    assert_eq!((status, &kept["events"][0]["id"]), (200, &json!(seen + 1)));
    let (status, problem) = Api::of(&burdock).get("events?since=yesterday").await;
    assert_eq!(status, 422, "{problem}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_is_told_from_its_beginning_to_its_end() {
    let backends = Backend::several(&["a", "b"]).await;
    let all: Vec<_> = backends.iter().collect();
    let burdock = Burdock::start(&yaml(&all, "")).await;
    let mut stream = Stream::open(&burdock, "events", "").await;
    let mut api = Api::of(&burdock);
    api.steer("a", json!({ "state": "draining", "deadline": "50ms" })).await;
    let began = stream.event("a is draining").await;
    assert_eq!((began.event.as_str(), &began.data["fields"]["stage"]), ("drain", &json!("began")));
    stream.event("a is drained").await;
    api.steer("a", json!({ "state": "active" })).await;
    stream.event("a takes new sessions again").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_breaker_that_opens_is_told_with_its_cause() {
    let backends = Backend::several(&["a", "b"]).await;
    let all: Vec<_> = backends.iter().collect();
    let burdock = Burdock::start(&yaml(&all, "breaker: { failures: 2 }\n")).await;
    let mut stream = Stream::open(&burdock, "events", "").await;
    backends[0].misbehaves(Fault::CloseBeforeAnswer);
    let mut client = burdock.client();
    for _ in 0..6 {
        client.get("/").await;
    }
    let opened = stream.event("the breaker of a is open").await;
    assert_eq!((opened.event.as_str(), &opened.data["fields"]["to"]), ("breaker", &json!("open")));
    assert_eq!(opened.data["fields"]["cause"], "failures");
}

#[tokio::test(flavor = "multi_thread")]
async fn rates_probes_ticks_and_history_agree_with_what_was_done() {
    let a = Backend::start("a").await;
    let burdock = Burdock::start(&yaml(&[&a], FAST_READINESS)).await;
    burdock.wait_health("a", "ready").await;
    let mut stream = Stream::open(&burdock, "live", "").await;
    let mut client = burdock.client();
    for _ in 0..20 {
        client.get("/").await;
    }
    let is_counted = |it: &Message| it.data["totals"]["requests_total"] == 20;
    let tick = stream.next("a tick with all of them", is_counted).await.data;
    let instance = &tick["instances"]["default/default/a"];
    assert!(instance["rps"].as_f64().expect("a rate") > 0.0, "{tick}");
    assert!(instance["p99"].as_f64().expect("a time") > 0.0, "{tick}");
    assert_eq!(instance["health"], "ready");
    assert_eq!(tick["rehomes_total"]["unready"], 0);
    let mut api = Api::of(&burdock);
    let told = api.instance("a").await;
    assert_eq!(told["rates"]["requests_total"], 20, "{told}");
    assert!(told["rates"]["latency_seconds"]["p50"].is_number(), "{told}");
    let probe = &told["probes"]["readiness"];
    assert_eq!(probe["ok"], true, "{told}");
    assert!(probe["detail"].as_str().expect("words").starts_with("200 OK in "), "{told}");
    assert_eq!(told["probes"]["liveness"], Value::Null);
    a.stops_listening().await;
    let refused = |it: &Value| it["probes"]["readiness"]["ok"] == false;
    let detail = api.wait("a", refused).await["probes"]["readiness"]["detail"].to_string();
    assert!(detail.contains("connecting: Connection refused"), "{detail}");
    let requests = within("a step of the history", async {
        loop {
            let (_, history) = api.get("history").await;
            let rates = history["series"]["requests_per_second"].as_array().expect("a series");
            assert_eq!(rates.len(), 180);
            let sum: f64 = rates.iter().filter_map(Value::as_f64).sum();
            if sum > 0.0 {
                return sum * history["step_seconds"].as_f64().expect("seconds");
            }
            pause().await;
        }
    })
    .await;
    // A step is a little longer or shorter on a busy machine.
    assert!((10.0..=30.0).contains(&requests), "{requests}");
}

#[tokio::test(flavor = "multi_thread")]
async fn there_are_only_so_many_streams_and_those_that_end_make_room() {
    let a = Backend::start("a").await;
    let burdock = Burdock::start(&yaml(&[&a], "")).await;
    let mut streams = Vec::new();
    for _ in 0..32 {
        streams.push(Stream::open(&burdock, "live", "").await);
    }
    let mut api = Api::of(&burdock);
    assert_eq!(api.get("live").await.0, 503);
    assert_eq!(api.get("history").await.0, 200, "all else is answered");
    streams.clear();
    within("room", async {
        let room = |status: &str| status.starts_with("HTTP/1.1 200");
        loop {
            let request =
                "HEAD /api/v1/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
            if room(&raw::exchange_text(burdock.admin(), request).await) {
                return;
            }
            pause().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_end_with_the_address_that_they_came_from() {
    let a = Backend::start("a").await;
    let text = yaml(&[&a], "");
    let burdock = Burdock::start(&text).await;
    let mut stream = Stream::open(&burdock, "live", "").await;
    stream.next("a tick", |_| true).await;
    burdock.reload(&text.replace("admin: { address: 127.0.0.1:0 }", "admin: off")).await;
    within("the end of the stream", async {
        while stream.conn.fill().await.is_ok_and(|read| read > 0) {}
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_end_where_the_token_changes_that_they_were_opened_with() {
    let a = Backend::start("a").await;
    let directory = support::burdock::scratch();
    let (token, config) = (directory.join("admin.token"), directory.join("burdock.yaml"));
    let admin = "admin: { address: 127.0.0.1:0, token_file: admin.token }";
    let text = yaml(&[&a], "").replace("admin: { address: 127.0.0.1:0 }", admin);
    std::fs::write(&token, "the-first-token-of-the-operator\n").expect("write the token");
    std::fs::write(&config, &text).expect("write the config");
    let burdock = Burdock::spawn(directory, config, &["run", "-c", "burdock.yaml"]).await;
    let field = "Authorization: Bearer the-first-token-of-the-operator\r\n";
    let mut streams = [
        Stream::open(&burdock, "live", field).await,
        Stream::open(&burdock, "events", field).await,
    ];
    // Another change leaves them open: the event that tells of it arrives.
    burdock.reload(&format!("{text}drain: {{ timeout: 7s }}\n")).await;
    streams[1].event("configuration 2 taken over").await;
    let beside = burdock.directory.join("new.token");
    std::fs::write(&beside, "another-token-of-the-operator\n").expect("write the token");
    std::fs::rename(&beside, &token).expect("move it into place");
    within("the end of both streams", async {
        for stream in &mut streams {
            while stream.conn.fill().await.is_ok_and(|read| read > 0) {}
        }
    })
    .await;
}
