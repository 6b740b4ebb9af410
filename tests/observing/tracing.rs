//! Traces: contexts pass through untouched where Burdock does not trace; where it does, they are gone
//! on with by the rules of the W3C, and a collector gets spans in the form of OTLP.

use serde_json::Value;

use crate::support::burdock::scratch;
use crate::support::client::Request;
use crate::support::secured::{Authority, Secured};
use crate::support::{Backend, Burdock, Fault, eventually, yaml};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

fn traceparent(flags: &str) -> String {
    format!("00-{TRACE}-{PARENT}-{flags}")
}

/// A configuration that sends spans to `collector`.
fn tracing(instances: &[&Backend], collector: &Backend, more: &str) -> String {
    let endpoint = format!("http://{}/v1/traces", collector.address);
    yaml(instances, &format!("tracing: {{ endpoint: \"{endpoint}\"{more} }}\n"))
}

/// The spans in one request to a collector, whose shape is looked at.
fn spans_of(body: &[u8]) -> Vec<Value> {
    let body: Value = serde_json::from_slice(body).expect("JSON");
    let resource = &body["resourceSpans"][0];
    assert_eq!(attribute(&resource["resource"], "service.name"), "burdock", "{body}");
    let scope = &resource["scopeSpans"][0];
    assert_eq!(scope["scope"]["name"], "burdock");
    let spans = scope["spans"].as_array().expect("a list of spans").clone();
    let is_hex = |value: &Value, length: usize| {
        let text = value.as_str().unwrap_or_default();
        text.len() == length && text.bytes().all(|it| b"0123456789abcdef".contains(&it))
    };
    for span in &spans {
        assert!(is_hex(&span["traceId"], 32) && is_hex(&span["spanId"], 16), "{span}");
        assert!(span["parentSpanId"].is_null() || is_hex(&span["parentSpanId"], 16), "{span}");
        let [start, end] = ["startTimeUnixNano", "endTimeUnixNano"]
            .map(|key| span[key].as_str().and_then(|it| it.parse::<u64>().ok()).expect("a time"));
        assert!(start <= end && start > 1_700_000_000_000_000_000, "{span}");
        assert!(span["flags"].as_u64().is_some_and(|flags| flags & 1 == 1), "{span}");
    }
    spans
}

/// The value of an attribute; nothing where it is not told.
fn attribute(of: &Value, key: &str) -> Value {
    let all = of["attributes"].as_array().expect("a list of attributes");
    let found = all.iter().find(|it| it["key"] == key);
    let value = found.map(|it| it["value"].clone()).unwrap_or_default();
    let number = value["intValue"].as_str().map(|it| it.parse::<i64>().expect("a number").into());
    number.unwrap_or_else(|| value["stringValue"].clone())
}

/// All spans that a collector has got, once there are `n`.
async fn got(collector: &Backend, n: usize) -> Vec<Value> {
    eventually(&format!("{n} spans"), || {
        let bodies = collector.requests().into_iter().filter_map(|it| it.body);
        let spans: Vec<_> = bodies.flat_map(|body| spans_of(&body.bytes)).collect();
        (spans.len() >= n).then_some(spans)
    })
    .await
}

fn of_kind(spans: &[Value], kind: u64) -> Vec<&Value> {
    spans.iter().filter(|span| span["kind"] == kind).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_tracing_contexts_pass_as_they_are() {
    let a = Backend::start("a").await;
    let burdock = Burdock::start(&yaml(&[&a], "")).await;
    let fields = [
        ("traceparent", "00-not-valid"),
        ("tracestate", "foo=1"),
        ("tracestate", "foo=1,BAD"),
        ("x-cloud-trace-context", "105445aa7843bc8bf206b12000100000/1;o=1"),
    ];
    let request = fields.iter().fold(Request::get("/"), |it, (name, value)| it.with(name, value));
    burdock.client().send(&request).await;
    let head = a.last_request().head;
    for name in ["traceparent", "tracestate", "x-cloud-trace-context"] {
        let sent: Vec<_> = fields.iter().filter(|it| it.0 == name).map(|it| it.1).collect();
        assert_eq!(head.all(name), sent);
    }
    let line = &burdock.access("/", 1).await[0];
    assert!(line["trace_id"].is_null() && line["span_id"].is_null(), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_goes_on_from_the_client_over_burdock_to_the_instance() {
    let (a, collector) = (Backend::start("a").await, Backend::start("collector").await);
    let burdock = Burdock::start(&tracing(&[&a], &collector, ", sample: 0%, trust: all")).await;
    let request = Request::post("/echo?q=1", b"12345").with("traceparent", &traceparent("01"));
    let request = request.with("tracestate", "foo=1").with("tracestate", "bar=2");
    let request = request.with("x-cloud-trace-context", "1/2;o=1").with("user-agent", "tests");
    burdock.client().send(&request).await;
    let head = a.last_request().head;
    assert_eq!(head.all("tracestate"), ["foo=1,bar=2"]);
    assert_eq!(head.field("x-cloud-trace-context"), Some("1/2;o=1"));
    let spans = got(&collector, 2).await;
    let (server, client) = (of_kind(&spans, 2)[0], of_kind(&spans, 3)[0]);
    assert_eq!((&server["traceId"], &client["traceId"]), (&TRACE.into(), &TRACE.into()));
    assert_eq!((&server["parentSpanId"], &server["flags"]), (&PARENT.into(), &0x301.into()));
    assert_eq!((&client["parentSpanId"], &client["flags"]), (&server["spanId"], &0x101.into()));
    let told = format!("00-{TRACE}-{}-01", client["spanId"].as_str().unwrap_or_default());
    assert_eq!(head.all("traceparent"), [told]);
    assert_eq!((&server["traceState"], &server["name"]), (&"foo=1,bar=2".into(), &"POST".into()));
    assert!(server["status"]["code"].is_null(), "{server}");
    let expected: [(&Value, &str, Value); 18] = [
        (server, "http.request.method", "POST".into()),
        (server, "url.scheme", "http".into()),
        (server, "url.path", "/echo".into()),
        (server, "url.query", "q=1".into()),
        (server, "server.address", "app.test".into()),
        (server, "client.address", "127.0.0.1".into()),
        (server, "network.protocol.version", "1.1".into()),
        (server, "user_agent.original", "tests".into()),
        (server, "http.response.status_code", 200.into()),
        (server, "http.request.body.size", 5.into()),
        (server, "burdock.instance", "a".into()),
        (server, "burdock.affinity", "off".into()),
        (server, "burdock.attempts", 1.into()),
        (server, "error.type", Value::Null),
        (client, "http.request.method", "POST".into()),
        (client, "server.address", "127.0.0.1".into()),
        (client, "server.port", a.address.port().into()),
        (client, "url.full", format!("http://{}/echo?q=1", a.address).into()),
    ];
    for (span, key, value) in expected {
        assert_eq!(attribute(span, key), value, "{key} of {span}");
    }
    let line = &burdock.access("/echo?q=1", 1).await[0];
    assert_eq!((&line["trace_id"], &line["span_id"]), (&TRACE.into(), &server["spanId"]));
    burdock.wait_metric("burdock_trace_spans_sent_total", &[], |sent| sent == 2.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_to_be_recorded_is_not_and_who_makes_no_sense_begins_anew() {
    let (a, collector) = (Backend::start("a").await, Backend::start("collector").await);
    let text = |more: &str| tracing(&[&a], &collector, more);
    let burdock = Burdock::start(&text(", sample: 0%, trust: all")).await;
    let mut client = burdock.client();
    let mut asked = async |given: &[String]| {
        let fields = given.iter().fold(Request::get("/"), |it, line| it.with("traceparent", line));
        client.send(&fields.with("tracestate", "foo=1")).await;
        let head = a.last_request().head;
        let lines: Vec<_> = head.all("traceparent").iter().map(|it| (*it).to_owned()).collect();
        assert_eq!(lines.len(), 1, "{lines:?}");
        let parts: Vec<_> = lines[0].split('-').map(str::to_owned).collect();
        assert_eq!((parts.len(), parts[0].as_str(), parts[1].len()), (4, "00", 32), "{lines:?}");
        (parts[1].clone(), parts[3].clone(), head.field("tracestate").is_some())
    };
    let (trace, flags, has_state) = asked(&[traceparent("00")]).await;
    assert_eq!((trace.as_str(), flags.as_str(), has_state), (TRACE, "00", true));
    for given in [
        vec![],
        vec![traceparent("01").replacen("00", "ff", 1)],
        vec![traceparent("01"), traceparent("01")],
        vec![traceparent("01").to_uppercase()],
        vec![format!("{}-", traceparent("01"))],
    ] {
        let (trace, flags, has_state) = asked(&given).await;
        assert!(trace != TRACE && flags == "00" && !has_state, "{given:?}: {trace} {flags}");
    }
    let future = format!("{}-more", traceparent("01").replacen("00", "01", 1));
    burdock.reload(&text(", sample: 0%")).await;
    let (trace, flags, has_state) = asked(std::slice::from_ref(&future)).await;
    assert!(trace != TRACE && flags == "00" && !has_state, "nobody is trusted");
    let trusting = text(", sample: 0%");
    burdock.reload(&format!("{trusting}trusted_proxies: [127.0.0.1]\n")).await;
    assert_eq!(asked(&[future]).await, (TRACE.to_owned(), "01".to_owned(), true));
    burdock.reload(&text(", sample: 100%, trust: none")).await;
    let (trace, flags, has_state) = asked(&[traceparent("00")]).await;
    assert!(trace != TRACE && flags == "01" && !has_state);
    let spans = got(&collector, 4).await;
    let servers = of_kind(&spans, 2);
    assert_eq!((servers.len(), of_kind(&spans, 3).len()), (2, 2), "only what was sampled");
    assert!(
        servers.iter().any(|it| it["traceId"] == trace.as_str() && it["parentSpanId"].is_null())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn each_attempt_is_a_span_and_says_why_it_failed() {
    let backends = Backend::several(&["a", "b"]).await;
    let collector = Backend::start("collector").await;
    let all: Vec<_> = backends.iter().collect();
    let burdock = Burdock::start(&tracing(&all, &collector, ", sample: 100%")).await;
    backends.iter().for_each(|it| it.misbehaves_times(Fault::ResetBeforeAnswer, 1));
    burdock.client().get("/first").await;
    let spans = got(&collector, 3).await;
    let (server, clients) = (of_kind(&spans, 2)[0], of_kind(&spans, 3));
    assert_eq!(attribute(server, "burdock.attempts"), clients.len());
    assert!(clients.iter().all(|it| it["parentSpanId"] == server["spanId"]));
    let (failed, last) = (clients[0], clients[clients.len() - 1]);
    assert_eq!(attribute(failed, "error.type"), "instance_reset");
    assert_eq!(failed["status"]["code"], 2);
    assert_eq!(attribute(last, "http.request.resend_count"), clients.len() - 1);
    let heads: Vec<_> = backends.iter().flat_map(|it| it.requests()).collect();
    let mut told: Vec<_> = heads.iter().filter_map(|it| it.head.field("traceparent")).collect();
    told.sort_unstable();
    told.dedup();
    assert_eq!(told.len(), clients.len(), "each instance is told of its own span");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_in_trouble_is_asked_again_and_one_that_refuses_is_not() {
    let (a, collector) = (Backend::start("a").await, Backend::start("collector").await);
    let text = tracing(&[&a], &collector, ", sample: 100%, headers_file: secret.headers");
    let directory = scratch();
    std::fs::write(directory.join("secret.headers"), "Authorization: Bearer x\n").unwrap();
    let config = directory.join("burdock.yaml");
    std::fs::write(&config, text).unwrap();
    let burdock = Burdock::spawn(directory, config, &["run", "-c", "burdock.yaml"]).await;
    let later = b"HTTP/1.1 429 Slow Down\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n";
    collector.misbehaves_times(Fault::Raw(later.to_vec()), 1);
    burdock.client().get("/").await;
    burdock.wait_metric("burdock_trace_spans_sent_total", &[], |sent| sent == 2.0).await;
    let requests = collector.requests();
    let bodies: Vec<_> = requests.iter().filter_map(|it| it.body.clone()).collect();
    assert_eq!((bodies.len(), &bodies[0].bytes), (2, &bodies[1].bytes), "the same again");
    let head = &requests[1].head;
    assert_eq!((head.method(), head.target()), ("POST", "/v1/traces"));
    assert_eq!(head.field("content-type"), Some("application/json"));
    assert_eq!(head.field("authorization"), Some("Bearer x"));
    assert_eq!(burdock.log("sending spans failed").len(), 1);

    collector.misbehaves(Fault::Status(400));
    burdock.client().get("/").await;
    let labels = [("reason", "refused")];
    burdock.wait_metric("burdock_trace_spans_dropped_total", &labels, |it| it == 2.0).await;
    assert_eq!(collector.request_count(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_goes_out_by_tls_before_the_end() {
    let (a, collector) = (Backend::start("a").await, Backend::start("collector").await);
    let authority = Authority::new();
    let server = authority.issue("127.0.0.1").server(None, &[]);
    let secured = Secured::start(collector.address, server).await;
    let directory = scratch();
    std::fs::write(directory.join("ca.pem"), &authority.pem).unwrap();
    let config = directory.join("burdock.yaml");
    let endpoint = format!("https://{}/v1/traces", secured.address);
    let more = format!("tracing: {{ endpoint: \"{endpoint}\", sample: 100%, ca: ca.pem }}\n");
    std::fs::write(&config, yaml(&[&a], &more)).unwrap();
    let mut burdock = Burdock::spawn(directory, config, &["run", "-c", "burdock.yaml"]).await;
    for _ in 0..5 {
        burdock.client().get("/").await;
    }
    burdock.signal(libc::SIGTERM);
    assert_eq!(burdock.exit_code().await, 0);
    assert_eq!(got(&collector, 10).await.len(), 10);
}
