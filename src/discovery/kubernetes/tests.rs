//! What slices mean, by tables and by what a real API server has said; and what becomes of a watch
//! that ends, fails or falls silent.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::*;
use crate::config::found::{MOST, Member, Whose};
use crate::config::types::SlicePort;
use crate::discovery::Report;

/// Two pages of a list, four lines of a watch and one of another: as kube-apiserver 1.20.2 sent them.
const RECORDED: &str = include_str!("recorded.jsonl");

/// A pod's endpoint, with conditions that are true, false or not given.
fn endpoint(pod: &str, address: &str, [ready, serving, terminating]: [Option<bool>; 3]) -> Value {
    let conditions = json!({ "ready": ready, "serving": serving, "terminating": terminating });
    json!({ "addresses": [address], "conditions": conditions, "targetRef": { "kind": "Pod", "name": pod } })
}

const READY: [Option<bool>; 3] = [Some(true), Some(true), Some(false)];
const UNREADY: [Option<bool>; 3] = [Some(false), Some(false), Some(false)];
const ENDING: [Option<bool>; 3] = [Some(false), Some(true), Some(true)];

fn slice(name: &str, kind: &str, ports: Value, endpoints: Value) -> Value {
    let metadata = json!({ "name": name, "resourceVersion": "7" });
    let mut slice = json!({ "metadata": metadata, "addressType": kind });
    slice["ports"] = ports;
    slice["endpoints"] = endpoints;
    slice
}

fn http() -> Value {
    json!([{ "name": "http", "port": 80, "protocol": "TCP" }])
}

fn listed(port: Option<SlicePort>, items: &[Value]) -> Result<Slices, String> {
    let page = json!({ "metadata": { "resourceVersion": "7" }, "items": items });
    let mut slices = Slices::new(port);
    slices.take_page(page.to_string().as_bytes())?;
    Ok(slices)
}

/// The instances of one slice of these endpoints, in short.
fn told(endpoints: Value) -> Vec<(String, String, bool, bool)> {
    let slices = listed(None, &[slice("a", "IPv4", http(), endpoints)]).unwrap();
    short(slices.members().unwrap())
}

fn short(members: Vec<Member>) -> Vec<(String, String, bool, bool)> {
    members.into_iter().map(|it| (it.name, it.address, it.draining, it.unready)).collect()
}

fn line(kind: &str, object: Value) -> Vec<u8> {
    let mut line = json!({ "type": kind });
    line["object"] = object;
    line.to_string().into_bytes()
}

#[test]
fn conditions_become_two_axes() {
    let (yes, no) = (Some(true), Some(false));
    for (conditions, draining, unready) in [
        ([None, None, None], false, false),
        (READY, false, false),
        ([yes, None, None], false, false),
        ([no, None, None], false, true),
        (UNREADY, false, true),
        (ENDING, true, false),
        ([no, no, yes], true, true),
        ([no, None, yes], true, true),
        // publishNotReadyAddresses: the service wants them all the same.
        ([yes, no, no], false, false),
        ([yes, no, yes], true, false),
    ] {
        let members = told(json!([endpoint("a", "10.0.0.1", conditions)]));
        let expected = ("a".to_owned(), "10.0.0.1:80".to_owned(), draining, unready);
        assert_eq!(members, [expected], "{conditions:?}");
    }
}

#[test]
fn a_pod_has_its_name_and_others_have_their_address() {
    let long = "a".repeat(64);
    let row = |name: &str, address: &str| (name.to_owned(), address.to_owned(), false, false);
    let members = told(json!([
        endpoint("web-0", "10.0.0.1", READY),
        endpoint(&long, "10.0.0.2", READY),
        { "addresses": ["10.0.0.3", "10.0.0.4"], "targetRef": { "kind": "Node", "name": "n" } },
    ]));
    let expected = [("web-0", 1), ("10.0.0.2:80", 2), ("10.0.0.3:80", 3)];
    let expected = expected.map(|(name, last)| row(name, &format!("10.0.0.{last}:80")));
    assert_eq!(BTreeSet::from_iter(members), BTreeSet::from(expected));

    let six = slice("a", "IPv6", http(), json!([{ "addresses": ["fd00::0:1"] }]));
    let name = slice("b", "FQDN", http(), json!([{ "addresses": ["a.example"] }]));
    let new = slice("c", "Carrier", http(), json!([{ "addresses": ["pigeon"] }]));
    let members = listed(None, &[six, name, new]).unwrap().members().unwrap();
    let expected = [row("[fd00::1]:80", "[fd00::1]:80"), row("a.example:80", "a.example:80")];
    assert_eq!(short(members), expected);
}

#[test]
fn of_two_that_are_the_same_the_better_counts() {
    let four = |name: &str, endpoints: Value| slice(name, "IPv4", http(), endpoints);
    // Both families of a pod; a pod that moves from slice to slice; an address with a new owner.
    let slices = [
        slice("a", "IPv6", http(), json!([endpoint("x", "fd00::1", READY)])),
        four("b", json!([endpoint("x", "10.0.0.1", READY), endpoint("y", "10.0.0.2", ENDING)])),
        four("c", json!([endpoint("y", "10.0.0.2", READY), endpoint("old", "10.0.0.3", UNREADY)])),
        four("d", json!([endpoint("new", "10.0.0.3", READY)])),
    ];
    let row = |name: &str, last: u8| (name.to_owned(), format!("10.0.0.{last}:80"), false, false);
    let expected = BTreeSet::from([row("x", 1), row("y", 2), row("new", 3)]);
    for order in [[0, 1, 2, 3], [3, 2, 1, 0]] {
        let slices = listed(None, &order.map(|at: usize| slices[at].clone())).unwrap();
        assert_eq!(BTreeSet::from_iter(short(slices.members().unwrap())), expected);
    }
}

#[test]
fn the_port_is_found_by_name_or_number_or_as_the_only_one() {
    let both = json!([{ "name": "http", "port": 80 }, { "name": "admin", "port": 81 }]);
    let udp =
        json!([{ "name": "http", "port": 80 }, { "name": "quic", "port": 443, "protocol": "UDP" }]);
    let all = json!([{ "name": "", "port": null }]);
    let name = |name: &str| Some(SlicePort::Name(name.to_owned()));
    let number = |number| Some(SlicePort::Number(number));
    for (wanted, ports, expected) in [
        (None, &http(), Ok(80)),
        (None, &udp, Ok(80)),
        (None, &both, Err("several ports; needed: `port`, one of http (TCP), admin (TCP)")),
        (None, &all, Err("stands for all ports; needed: `port`, a number")),
        (None, &json!(null), Err("there is no port TCP; there are: none")),
        (name("admin"), &both, Ok(81)),
        (name("quic"), &udp, Err("there is no port quic; there are: http (TCP), quic (UDP)")),
        (number(81), &both, Ok(81)),
        (number(82), &both, Err("there is no port 82")),
        (number(82), &all, Ok(82)),
    ] {
        let endpoints = json!([endpoint("a", "10.0.0.1", READY)]);
        let slices = listed(wanted, &[slice("a", "IPv4", ports.clone(), endpoints)]).unwrap();
        match (slices.members(), expected) {
            (Ok(members), Ok(port)) => assert_eq!(members[0].address, format!("10.0.0.1:{port}")),
            (Err(problem), Err(told)) => assert!(problem.contains(told), "{problem}"),
            (found, expected) => panic!("{ports}: {found:?}, not {expected:?}"),
        }
    }
    // Pods of one service need not all have a port; a service without pods has none either.
    let (with, without) =
        (json!([endpoint("a", "10.0.0.1", READY)]), json!([endpoint("b", "10.0.0.2", READY)]));
    let slices = [slice("a", "IPv4", both.clone(), with), slice("b", "IPv4", http(), without)];
    assert_eq!(listed(name("admin"), &slices).unwrap().members().unwrap().len(), 1);
    let nobody = slice("a", "IPv4", json!(null), json!(null));
    assert_eq!(listed(name("admin"), &[nobody]).unwrap().members(), Ok(Vec::new()));
}

#[test]
fn what_makes_no_sense_is_told_of_and_what_is_too_much_is_refused() {
    for (endpoints, told) in [
        (json!([{ "addresses": [] }]), "slice a: an endpoint has no address"),
        (json!([{ "addresses": ["a.example"] }]), "is no address of its kind"),
        (json!([{ "addresses": ["fd00::1"] }]), "is no address of its kind"),
    ] {
        let slices = listed(None, &[slice("a", "IPv4", http(), endpoints)]).unwrap();
        let problem = slices.members().unwrap_err();
        assert!(problem.contains(told), "{problem}");
    }
    let many: Vec<_> =
        (0..=MOST).map(|at| slice(&at.to_string(), "IPv4", http(), json!([]))).collect();
    assert!(listed(None, &many).unwrap_err().contains("more than 10000"));
    let many: Vec<_> = (0..1000).map(|at| endpoint(&at.to_string(), "10.0.0.1", READY)).collect();
    let many: Vec<_> =
        (0..21).map(|at| slice(&at.to_string(), "IPv4", http(), many.clone().into())).collect();
    assert!(listed(None, &many).unwrap_err().contains("more than 10000"));

    let mut slices = listed(None, &[]).unwrap();
    for bad in ["", "{}", "[]", r#"{"type":"ADDED"}"#, r#"{"type":"ADDED","object":[]}"#] {
        assert!(slices.take_line(bad.as_bytes()).is_err(), "{bad}");
    }
    let nameless = json!({ "metadata": { "name": "a" } });
    assert!(slices.take_line(&line("ADDED", nameless)).unwrap_err().contains("resourceVersion"));
    let other = slice("a", "IPv4", http(), json!([]));
    assert!(slices.take_line(&line("RENAMED", other)).unwrap_err().contains("RENAMED"));
    let error = json!({ "code": 500, "message": "etcd is gone" });
    assert!(slices.take_line(&line("ERROR", error)).unwrap_err().contains("500 etcd is gone"));
    assert!(slices.take_page(b"{\"metadata\":{},\"items\":[]}").is_err(), "nowhere to go on from");
}

#[test]
fn what_a_real_api_server_says_is_understood() {
    let mut lines = RECORDED.lines().map(str::as_bytes);
    let mut next = || lines.next().unwrap();
    let mut slices = Slices::new(Some(SlicePort::Name("http".to_owned())));
    let further = slices.take_page(next()).unwrap().unwrap();
    assert!(further.starts_with("eyJ2I"), "{further}");
    assert_eq!(slices.take_page(next()), Ok(None));
    let row = |last: u8, draining, unready| {
        (format!("pod-web-{last}"), format!("10.1.0.{last}:8080"), draining, unready)
    };
    assert_eq!(short(slices.members().unwrap()), [row(1, false, false), row(2, false, false)]);
    assert_eq!(slices.take_line(next()), Ok(Heard::Change));
    assert_eq!(short(slices.members().unwrap()), [row(2, false, false), row(1, true, false)]);
    assert_eq!(slices.take_line(next()), Ok(Heard::Change));
    assert_eq!(slices.take_line(next()), Ok(Heard::Change));
    assert_eq!(short(slices.members().unwrap()), [row(2, false, false), row(3, false, true)]);
    assert_eq!(slices.take_line(next()), Ok(Heard::Nothing));
    assert_eq!(slices.version, "244");
    let gone = "too old resource version: 1 (204)".to_owned();
    assert_eq!(slices.take_line(next()), Ok(Heard::Gone(gone)));
}

/// A server that answers each connection's only question with what `answer` makes of the target.
struct Server {
    url: String,
    asked: mpsc::Receiver<(String, TcpStream)>,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (sender, asked) = mpsc::channel(16);
        tokio::spawn(async move {
            loop {
                let (mut socket, _) = listener.accept().await.unwrap();
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    socket.read_buf(&mut head).await.unwrap();
                }
                let head = String::from_utf8(head).unwrap();
                let target = head.split(' ').nth(1).unwrap().to_owned();
                if sender.send((target, socket)).await.is_err() {
                    return;
                }
            }
        });
        Self { url, asked }
    }

    async fn next(&mut self) -> (String, TcpStream) {
        let next = tokio::time::timeout(Duration::from_secs(10), self.asked.recv()).await;
        next.expect("a question in time").unwrap()
    }

    /// Answers the next question, which must be for a list, with a slice of this pod.
    async fn list(&mut self, pod: &str, version: u32) {
        let (target, mut socket) = self.next().await;
        assert!(target.contains("&limit=50&continue=") && !target.contains("watch"), "{target}");
        let item = slice("a", "IPv4", http(), json!([endpoint(pod, "10.0.0.1", READY)]));
        let page =
            json!({ "metadata": { "resourceVersion": version.to_string() }, "items": [item] });
        let page = page.to_string();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", page.len());
        socket.write_all((head + &page).as_bytes()).await.unwrap();
    }

    /// The next question, which must be for a watch from there, with the head of its answer sent.
    async fn watch(&mut self, version: u32) -> TcpStream {
        let (target, mut socket) = self.next().await;
        let wanted = format!(
            "?labelSelector=kubernetes.io%2fservice-name%3dweb&watch=true\
             &allowWatchBookmarks=true&resourceVersion={version}&timeoutSeconds=1"
        );
        assert!(target.ends_with(&wanted), "{target}");
        socket.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        socket
    }
}

/// One that is quick to give up, and where it reports.
fn follower(url: &str) -> mpsc::Receiver<Report> {
    let (sender, reports) = mpsc::channel(64);
    let whose = Whose::of("default", "default");
    let (api, namespace) = (Some(url.to_owned()), Some("chat".to_owned()));
    let of = Kubernetes {
        service: "web".to_owned(),
        namespace,
        port: None,
        api,
        token_file: None,
        ca: None::<PathBuf>,
    };
    let millis = Duration::from_millis;
    let pace =
        Pace { watch: millis(200), grace: millis(100), steady: millis(0), ..Pace::default() };
    let reporter = Reporter { whose, serial: 0, sender };
    let (backoff, ends) = (Backoff::default(), Ends::default());
    tokio::spawn(Follower { of, reporter, pace, backoff, ends }.run());
    reports
}

/// The next report that says something else than the one before.
async fn report(reports: &mut mpsc::Receiver<Report>, last: &mut Option<Arc<str>>) -> Arc<str> {
    loop {
        let report = tokio::time::timeout(Duration::from_secs(10), reports.recv()).await;
        let told = report.expect("a report in time").unwrap().told;
        let told =
            told.map(|members| members.into_iter().map(|it| it.name).collect::<Vec<_>>().join(","));
        let told: Arc<str> = told.unwrap_or_else(|problem| problem).into();
        if last.as_ref() != Some(&told) {
            *last = Some(Arc::clone(&told));
            return told;
        }
    }
}

#[tokio::test]
async fn a_watch_that_falls_silent_is_given_up_and_gone_on_with_where_it_was() {
    let mut server = Server::start().await;
    let mut reports = follower(&server.url);
    let mut last = None;
    server.list("x", 7).await;
    assert_eq!(&*report(&mut reports, &mut last).await, "x");
    let mut first = server.watch(7).await;
    let change = slice("a", "IPv4", http(), json!([endpoint("y", "10.0.0.2", READY)]));
    let change = String::from_utf8(line("MODIFIED", change)).unwrap().replace("\"7\"", "\"8\"");
    let (half, rest) = change.split_at(change.len() / 2);
    first.write_all(half.as_bytes()).await.unwrap();
    first.flush().await.unwrap();
    first.write_all(format!("{rest}\n").as_bytes()).await.unwrap();
    assert_eq!(&*report(&mut reports, &mut last).await, "y");
    // It stays open without a word, and nobody waits for it any longer.
    let second = server.watch(8).await;
    drop(second);
    let mut third = server.watch(8).await;
    let bookmark = json!({ "metadata": { "resourceVersion": "9" } });
    let mut bookmark = line("BOOKMARK", bookmark);
    bookmark.push(b'\n');
    third.write_all(&bookmark).await.unwrap();
    drop(third);
    let mut fourth = server.watch(9).await;
    // What was is forgotten there: a list says what there is.
    fourth.write_all(RECORDED.lines().last().unwrap().as_bytes()).await.unwrap();
    drop(fourth);
    server.list("z", 20).await;
    assert_eq!(&*report(&mut reports, &mut last).await, "z");
    drop(first);
}

#[tokio::test]
async fn a_server_that_refuses_is_quoted_and_asked_again() {
    let mut server = Server::start().await;
    let mut reports = follower(&server.url);
    let mut last = None;
    let (_, mut socket) = server.next().await;
    let status =
        json!({ "kind": "Status", "message": "endpointslices is\u{7} forbidden", "code": 403 });
    let status = status.to_string();
    let head = format!("HTTP/1.1 403 Forbidden\r\nContent-Length: {}\r\n\r\n", status.len());
    socket.write_all((head + &status).as_bytes()).await.unwrap();
    assert_eq!(
        &*report(&mut reports, &mut last).await,
        "the EndpointSlices of the service web: the API server answers 403 Forbidden: \
         endpointslices is forbidden"
    );
    server.list("x", 7).await;
    assert_eq!(&*report(&mut reports, &mut last).await, "x");
    // A server of another kind altogether.
    let (_, mut socket) = server.next().await;
    socket.write_all(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 4\r\n\r\n<br>").await.unwrap();
    let told = report(&mut reports, &mut last).await;
    assert!(told.ends_with("the API server answers 502 Bad Gateway: <br>"), "{told}");
    server.list("y", 8).await;
    assert_eq!(&*report(&mut reports, &mut last).await, "y");
    // One that says 200 and then makes no sense: nothing that it said before is built upon.
    let mut watch = server.watch(8).await;
    watch.write_all(b"{\"type\":\"ADDED\",\"object\":7}\n").await.unwrap();
    let told = report(&mut reports, &mut last).await;
    assert!(told.contains("what came is no EndpointSlice"), "{told}");
    server.list("z", 9).await;
    assert_eq!(&*report(&mut reports, &mut last).await, "z");
}
