//! Much of one thing: reloads under load with tunnels open, and bodies far larger than the memory
//! that they may take. `cargo test --test scale -- --nocapture` prints the figures; with
//! `BURDOCK_FULL=1` a body is 2 GiB, and `BURDOCK_BIN` measures another build.

mod support;

use std::time::Instant;

use support::process::{ENTRY, Process, serve};
use support::steady::{failures, homes, stays};
use support::wire::{Conn, Framing, LAST_CHUNK, chunk};
use support::ws::WebSocket;
use support::{
    Backend, Burdock, Client, Request, Steady, eventually, pause, raw, within, ws, yaml,
};

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
const SESSIONS: usize = 100;
const RATE: usize = 500;
const TUNNELS: usize = 500;
const RELOADS: usize = 200;
/// What a body may add to resident memory, however large it is.
const GROWTH: u64 = 1 << 20;
const SLACK: usize = 3;
/// A large body.
const LARGE: usize = 2 << 30;
/// Large enough for one whose peer rests.
const LASTING: usize = 256 << 20;

/// The figures are taken one case at a time.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the other tests start it, as a process"]
async fn an_instance_in_a_process_of_its_own() {
    assert_eq!(ENTRY, "an_instance_in_a_process_of_its_own");
    serve().await;
}

/// The `n`th configuration: a weight and a check's interval differ from the one before, and for
/// five out of ten there is an extra instance.
fn nth(instances: &[Process], extra: &Process, n: usize) -> String {
    let mut text = "listeners: [{ address: 127.0.0.1:0 }]\nadmin: { address: 127.0.0.1:0 }\n\
                    workers: 2\naccess_log: false\nsession_affinity: true\n\
                    drain: { timeout: 200ms, spread: 0s }\ninstances:\n"
        .to_owned();
    let extra = (n / 5 % 2 == 1).then_some(extra);
    for (place, process) in instances.iter().chain(extra).enumerate() {
        let weight = 1 + usize::from(place == n % instances.len()) + place / instances.len() * 9;
        let (name, address) = (&process.name, process.address);
        text.push_str(&format!("  - {{ name: {name}, address: {address}, weight: {weight} }}\n"));
    }
    let interval = 200 + n % 7;
    text.push_str(&format!(
        "readiness_check: {{ path: /readyz, check_interval: {interval}ms, timeout: 1s, \
         initial_state: ready }}\n"
    ));
    text
}

/// Sessions that began while the extra instance was there and keep asking.
#[derive(Default)]
struct Guests {
    clients: Vec<(Client, String)>,
    begun: usize,
    requests: usize,
    moved: usize,
    errors: Vec<String>,
}

impl Guests {
    /// One more session; it stays if the extra instance took it in.
    async fn invite(&mut self, burdock: &Burdock) {
        self.begun += 1;
        let mut client = burdock.session();
        if let Some(instance) = self.ask(&mut client).await
            && instance == "extra"
        {
            self.clients.push((client, instance));
        }
    }

    /// Every guest asks once more; one that has moved is shown out.
    async fn all_ask(&mut self) {
        let clients = std::mem::take(&mut self.clients);
        for (mut client, home) in clients {
            match self.ask(&mut client).await {
                Some(instance) if instance != home => self.moved += 1,
                _ => self.clients.push((client, home)),
            }
        }
    }

    async fn ask(&mut self, client: &mut Client) -> Option<String> {
        self.requests += 1;
        match client.try_send(&Request::get("/")).await {
            Ok(answer) if answer.status == 200 => return Some(answer.instance().to_owned()),
            Ok(answer) => self.errors.push(answer.text()),
            Err(error) => self.errors.push(error.to_string()),
        }
        None
    }
}

/// How many tunnels don't bring `text` back.
async fn lost(tunnels: &mut [WebSocket], text: &str) -> usize {
    let mut lost = 0;
    for tunnel in tunnels {
        let frame = ws::encode(ws::TEXT, text.as_bytes(), Some([1, 2, 3, 4]));
        let sent = tunnel.conn.write(&frame).await.is_ok();
        let back = within("an echo", ws::read(&mut tunnel.conn)).await;
        let whole = matches!(back, Ok(Some(frame)) if frame.payload == text.as_bytes());
        lost += usize::from(!sent || !whole);
    }
    lost
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_reloads_under_load_lose_neither_a_request_nor_a_tunnel() {
    let _turn = TURN.lock().await;
    let mut instances = Process::several(&NAMES).await;
    let mut extra = Process::start("extra").await;
    let burdock = Burdock::start(&nth(&instances, &extra, 0)).await;
    for name in NAMES {
        burdock.wait_health(name, "ready").await;
    }
    let descriptors = burdock.descriptors();
    let mut tunnels = Vec::new();
    for _ in 0..TUNNELS {
        tunnels.push(WebSocket::open(burdock.address(), "/ws", "").await);
    }
    let load = Steady::start(burdock.address(), SESSIONS, RATE).await;
    let homes = homes(&load.so_far());
    let (begun, mut guests, mut lost_tunnels) = (Instant::now(), Guests::default(), 0);
    for n in 1..=RELOADS {
        let line = burdock.reload(&nth(&instances, &extra, n)).await;
        assert_eq!(line["message"], "reloaded", "{line}");
        assert_ne!(line["changes"].as_array().map(Vec::len), Some(0), "it changed something");
        guests.invite(&burdock).await;
        guests.all_ask().await;
        if n % 50 == 0 {
            lost_tunnels += lost(&mut tunnels, &format!("after {n}")).await;
        }
    }
    let took = begun.elapsed();
    let answers = load.stop().await;
    let moved: Vec<_> = stays(&answers).into_iter().filter(|(_, s)| s.len() > 1).collect();
    let errors = [failures(&answers), std::mem::take(&mut guests.errors)].concat();
    let reconnects: usize = answers.iter().map(|answered| answered.reconnects).sum();
    println!(
        "| reloads | took | requests | errors | needless moves | moves off the extra | tunnels | lost |"
    );
    println!(
        "| {RELOADS} | {} ms | {} | {} | {} | {} | {TUNNELS} | {lost_tunnels} |",
        took.as_millis(),
        answers.len() + guests.requests,
        errors.len(),
        moved.len(),
        guests.moved,
    );
    assert_eq!((errors, reconnects, lost_tunnels), (Vec::<String>::new(), 0, 0));
    assert!(moved.is_empty(), "their instances never left: {moved:?} of {homes:?}");
    assert!(guests.moved > 0, "sessions of the extra instance moved when it went");
    drop((tunnels, guests));
    for gauge in ["burdock_instance_requests_in_flight", "burdock_instance_tunnels"] {
        burdock.wait_metric(gauge, &[], |value| value == 0.0).await;
    }
    instances.iter_mut().for_each(Process::kill);
    extra.kill();
    let closed = || (burdock.descriptors() <= descriptors + SLACK).then_some(());
    eventually("descriptors are closed", closed).await;
    println!("  descriptors before {descriptors}, after {}", burdock.descriptors());
}

/// How a peer takes or gives a body.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Pace {
    /// As fast as it can.
    Quick,
    /// A rest after each of the first parts, so that the other side has run into a full buffer.
    Slow,
}

/// The largest resident memory seen, whole and without what files back.
#[derive(Debug, Clone, Copy, Default)]
struct Most {
    all: u64,
    heap: u64,
}

impl Most {
    fn look(&mut self, burdock: &Burdock) {
        self.all = self.all.max(burdock.resident());
        self.heap = self.heap.max(burdock.resident_heap());
    }
}

async fn rest(pace: Pace, parts: usize) {
    if pace == Pace::Slow && parts < 100 {
        pause().await;
    }
}

/// Downloads `bytes` and looks at Burdock's memory all along.
async fn download(burdock: &Burdock, bytes: usize, chunked: bool, pace: Pace) -> Most {
    let kind = if chunked { "zeros/chunked" } else { "zeros" };
    let request = format!("GET /{kind}/{bytes} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let mut conn = raw::open(burdock.address(), request).await;
    let head = within("the head", conn.head()).await.expect("a head").expect("not the end");
    let framing = if chunked { Framing::Chunked } else { Framing::Length(bytes as u64) };
    assert_eq!(head.response_framing("GET"), framing);
    let (mut most, mut taken, mut parts) = (Most::default(), conn.buffer.len(), 0);
    conn.buffer.clear();
    loop {
        rest(pace, parts).await;
        let n = within("a part", conn.fill()).await.expect("readable");
        if n == 0 {
            break;
        }
        taken += n;
        if parts % 256 == 0 {
            most.look(burdock);
        }
        parts += 1;
        conn.buffer.clear();
    }
    most.look(burdock);
    // What frames the chunks comes on top.
    let room = if chunked { bytes / 100 + 100 } else { 0 };
    assert!((bytes..=bytes + room).contains(&taken), "{taken} of {bytes} bytes");
    most
}

/// Uploads `bytes` and looks at Burdock's memory all along.
async fn upload(burdock: &Burdock, bytes: usize, chunked: bool, pace: Pace) -> Most {
    let framing = match chunked {
        true => "Transfer-Encoding: chunked".to_owned(),
        false => format!("Content-Length: {bytes}"),
    };
    let head = format!("POST /count HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n");
    let mut conn: Conn = raw::open(burdock.address(), head).await;
    let block = vec![0; 64 * 1024];
    let block = if chunked { chunk(&block) } else { block };
    let mut most = Most::default();
    for parts in 0..bytes / (64 * 1024) {
        rest(pace, parts).await;
        within("room to write", conn.write(&block)).await.expect("writable");
        if parts % 256 == 0 {
            most.look(burdock);
        }
    }
    if chunked {
        conn.write(LAST_CHUNK).await.expect("writable");
    }
    let answer = within("an answer", conn.head()).await.expect("an answer").expect("not the end");
    assert_eq!(answer.status(), 200);
    most.look(burdock);
    most
}

async fn one_body(burdock: &Burdock, bytes: usize, up: bool, chunked: bool, pace: Pace) -> Most {
    if up {
        upload(burdock, bytes, chunked, pace).await
    } else {
        download(burdock, bytes, chunked, pace).await
    }
}

/// Warms a process up with small bodies of the same kind, then holds a large one to the promise.
async fn a_body_takes_no_memory(up: bool, chunked: bool, pace: Pace) {
    let _turn = TURN.lock().await;
    let a = Backend::start("a").await;
    let burdock = Burdock::start(&yaml(&[&a], "")).await;
    let idle = burdock.resident();
    // Both workers see each kind of body.
    for _ in 0..8 {
        one_body(&burdock, 8 << 20, up, chunked, Pace::Quick).await;
    }
    let mut before = Most::default();
    before.look(&burdock);
    let (begun, bytes) = (Instant::now(), if pace == Pace::Quick { LARGE } else { LASTING });
    let most = one_body(&burdock, bytes, up, chunked, pace).await;
    let took = begun.elapsed();
    if up {
        assert_eq!(a.last_request().body.expect("a body").size, bytes as u64);
    }
    burdock.wait_metric("burdock_instance_requests_in_flight", &[], |v| v == 0.0).await;
    let kib = |after: u64, before: u64| (after as i64 - before as i64) / 1024;
    println!(
        "| {} MiB {} | {} | {pace:?} | {} ms | idle {} KiB, warm {} KiB | grew {} KiB, heap {} KiB |",
        bytes >> 20,
        if up { "up" } else { "down" },
        if chunked { "chunked" } else { "sized" },
        took.as_millis(),
        idle / 1024,
        before.all / 1024,
        kib(most.all, before.all),
        kib(most.heap, before.heap),
    );
    assert!(most.all < before.all + GROWTH, "{before:?} grew to {most:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sized_download_takes_no_memory() {
    a_body_takes_no_memory(false, false, Pace::Quick).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunked_download_takes_no_memory() {
    a_body_takes_no_memory(false, true, Pace::Quick).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sized_upload_takes_no_memory() {
    a_body_takes_no_memory(true, false, Pace::Quick).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunked_upload_takes_no_memory() {
    a_body_takes_no_memory(true, true, Pace::Quick).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_takes_no_memory() {
    a_body_takes_no_memory(false, false, Pace::Slow).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_writer_takes_no_memory() {
    a_body_takes_no_memory(true, true, Pace::Slow).await;
}
