//! A client's connection through Burdock to instances, with arbitrary bytes from both ends: nothing
//! panics, nothing stays open, instances get no request that the client did not send or that could
//! be read in two ways, and the client gets answers to what it asked and to nothing else.
//!
//! Input: one byte of choices, then the client's bytes and what the instances answer to each request,
//! with a line `%%` between two of them. An answer that ends with `%close` or `%reset` ends its
//! connection too. Real sockets on loopback and the proxy as it is; only what accepts is not.

#[path = "connection/answers.rs"]
mod answers;
#[path = "connection/http1.rs"]
mod http1;

use std::cell::Cell;
use std::net::{Ipv4Addr, TcpListener as StdListener};
use std::path::Path;
use std::sync::{Arc, Mutex, Once};
use std::time::{Duration, Instant};

use burdock::affinity::token::Keyring;
use burdock::config;
use burdock::config::types::{Config, Listener};
use burdock::listener::manner::Manner;
use burdock::listener::{Worker, connection};
use burdock::snapshot::Live;
use burdock::tls::server::Shared;
use burdock::tunnel::registry::Registry;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::task::{JoinSet, yield_now};
use tokio::time::timeout;

use answers::{Answer, Then};
use http1::Request;

/// Between two parts of an input.
const MARK: &[u8] = b"\n%%\n";
/// A connection that says nothing for this long has nothing more to say; most end without it.
const QUIET: Duration = Duration::from_millis(4);
/// What is under way has to be over by then, on a busy machine too.
const SETTLED: Duration = Duration::from_secs(5);
/// Pieces of the client's bytes; what is left comes at once.
const MAX_PIECES: usize = 64;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

thread_local! {
    static RIG: Rig = Rig::new();
    /// Whether anything panicked: the runtime, which is this thread's own, catches what tasks throw.
    static PANICKED: Cell<bool> = const { Cell::new(false) };
}

/// Panics where one of the promises is broken.
pub(crate) fn check(data: &[u8]) {
    let Some((&choices, rest)) = data.split_first() else { return };
    RIG.with(|rig| rig.runtime.block_on(rig.converse(choices, rest)));
    assert!(!PANICKED.get(), "a task panicked");
}

struct Rig {
    runtime: Runtime,
    front: TcpListener,
    instances: Arc<TcpListener>,
    /// The same socket, for who was not accepted in time.
    backlog: StdListener,
    configs: Vec<Arc<Config>>,
}

/// What instances saw.
#[derive(Default)]
struct Seen {
    /// The bytes of each connection, until it became a tunnel.
    connections: Vec<Vec<u8>>,
    /// Answers given.
    given: usize,
}

impl Rig {
    fn new() -> Self {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let before = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                PANICKED.set(true);
                before(panic);
            }));
        });
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let front = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
        let backlog = StdListener::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a socket");
        backlog.set_nonblocking(true).expect("a socket that does not wait");
        let port = backlog.local_addr().expect("a bound address").port();
        let instances = {
            let _inside = runtime.enter();
            let same = backlog.try_clone().expect("a descriptor");
            TcpListener::from_std(same).expect("a socket")
        };
        let configs = (0..4).map(|choices| Arc::new(configuration(port, choices))).collect();
        let (front, instances) = (front.expect("a socket"), Arc::new(instances));
        Self { runtime, front, instances, backlog, configs }
    }

    async fn converse(&self, choices: u8, parts: &[u8]) {
        let mut parts = split(parts).into_iter();
        let said = parts.next().unwrap_or_default();
        let answers: Vec<Answer> = parts.enumerate().map(|(n, it)| Answer::new(n, it)).collect();
        let asked = Request::understood(said);
        let answers = Arc::new(answers);
        let seen = Arc::new(Mutex::new(Seen::default()));
        let instances = Arc::clone(&self.instances);
        let instances = tokio::spawn(accept(instances, Arc::clone(&answers), Arc::clone(&seen)));

        let config = Arc::clone(&self.configs[usize::from(choices >> 1 & 3)]);
        let keyring = Arc::new(Keyring::new(&[[7; 32]]).expect("a key"));
        let (live, _) = Live::new(config, keyring, 1);
        let worker = Worker {
            index: 0,
            live: Arc::new(live),
            registry: Registry::new(),
            seats: Arc::default(),
        };
        let watch = Arc::clone(&worker.registry).watch(Arc::clone(&worker.live), 0);
        let watch = tokio::spawn(watch);
        let address = self.front.local_addr().expect("a bound address");
        let connected = tokio::join!(TcpStream::connect(address), self.front.accept());
        let (client, (served, peer)) = (connected.0.expect("open"), connected.1.expect("open"));
        let http2 = choices & 1 != 0;
        let listener = Listener { http2, ..Listener::at(address) };
        let manner = Manner::new(listener, &Shared::default()).expect("a plain listener");
        connection::spawn(&worker, served, peer, (Arc::new(manner), Arc::default()));
        let received = talk(client, choices, said, &asked).await;

        instances.abort();
        let _aborted = instances.await;
        nothing_stays(&worker).await;
        watch.abort();
        // What is left there would pass for a request of the next input.
        while self.backlog.accept().is_ok() {}
        let seen = std::mem::take(&mut *seen.lock().expect("nobody panicked"));
        if http2 && said.starts_with(PREFACE) {
            each_is_flawless(&seen);
        } else {
            each_was_asked(&seen, &asked);
            answers::each_is_flawless(&received, &asked, &answers);
        }
    }
}

fn configuration(port: u16, choices: u8) -> Config {
    let mut text = format!(
        "listeners: [127.0.0.1:0]\nadmin: off\naccess_log: false\n\
         instances: [127.0.0.1:{port}, 127.0.0.2:{port}]\nupgrades: [websocket, chat]\n\
         timeouts: {{ header_read: 30ms, keep_alive: 30ms, connect: 500ms, first_byte: 30ms, idle: 30ms }}\n"
    );
    if choices & 1 != 0 {
        text.push_str(
            "session_affinity: true\naffinity: { header: x-burdock-session, engine_io: true, \
             cross_site_cookie: true, instance_header: x-burdock-affinity, idle_ttl: 30m }\n",
        );
    }
    if choices & 2 != 0 {
        text.push_str("trusted_proxies: [127.0.0.0/8]\nforwarding: { forwarded: true }\n");
    }
    config::parse(&text, Path::new("fuzz.yaml")).expect("a valid configuration").config
}

fn split(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    while let Some(at) = bytes.windows(MARK.len()).position(|window| window == MARK) {
        parts.push(&bytes[..at]);
        bytes = &bytes[at + MARK.len()..];
    }
    parts.push(bytes);
    parts
}

/// The client: says all it has to say, waits for answers as long as some may come, and leaves.
async fn talk(mut client: TcpStream, choices: u8, said: &[u8], asked: &[Request]) -> Vec<u8> {
    let size = [usize::MAX, 1, 7, 61][usize::from(choices >> 3 & 3)];
    // With a FIN behind it a reset would undo what it was to deliver.
    drop(client.set_zero_linger());
    drop(client.set_nodelay(true));
    let mut rest = said;
    for piece in 0.. {
        let size = if piece < MAX_PIECES { size.min(rest.len()) } else { rest.len() };
        if rest.is_empty() || client.write_all(&rest[..size]).await.is_err() {
            break;
        }
        rest = &rest[size..];
        yield_now().await;
        yield_now().await;
    }
    let mut received = Vec::new();
    if choices & 32 == 0 {
        while !answers::are_whole(&received, asked) {
            match timeout(QUIET, client.read_buf(&mut received)).await {
                Ok(Ok(1..)) => {}
                Ok(Ok(0) | Err(_)) => return received,
                Err(_quiet) => break,
            }
        }
    }
    drop(client.shutdown().await);
    while let Ok(Ok(1..)) = timeout(QUIET, client.read_buf(&mut received)).await {}
    received
}

/// The instances: as many connections as there come, all gone when this is dropped.
async fn accept(listener: Arc<TcpListener>, answers: Arc<Vec<Answer>>, seen: Arc<Mutex<Seen>>) {
    let mut connections = JoinSet::new();
    for n in 0.. {
        let Ok((stream, _)) = listener.accept().await else { continue };
        drop(stream.set_zero_linger());
        seen.lock().expect("nobody panicked").connections.push(Vec::new());
        connections.spawn(serve(stream, n, Arc::clone(&answers), Arc::clone(&seen)));
    }
}

async fn serve(mut stream: TcpStream, n: usize, answers: Arc<Vec<Answer>>, seen: Arc<Mutex<Seen>>) {
    let (mut answered, mut buffer) = (0, [0; 4096]);
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        let known = {
            let mut seen = seen.lock().expect("nobody panicked");
            seen.connections[n].extend_from_slice(&buffer[..count]);
            Request::flawless(&seen.connections[n]).map_or(0, |requests| requests.len())
        };
        while answered < known {
            answered += 1;
            let given = {
                let mut seen = seen.lock().expect("nobody panicked");
                seen.given += 1;
                seen.given - 1
            };
            let usual = Answer::usual(given);
            let answer = answers.get(given).unwrap_or(&usual);
            if stream.write_all(&answer.bytes).await.is_err() || answer.then == Then::Reset {
                return;
            }
            if answer.then == Then::Close {
                drop(stream.shutdown().await);
            }
            if answer.switches {
                // From here on it is a tunnel, and its bytes are no requests.
                while let Ok(1..) = stream.read(&mut buffer).await {}
                return;
            }
        }
    }
}

/// Waits until Burdock has noticed that both ends are gone.
async fn nothing_stays(worker: &Worker) {
    let begun = Instant::now();
    loop {
        let open = still_open(worker);
        if open == [0; 5] {
            return;
        }
        let named = "[connections, tunnels, in flight, tunnels of instances, queued]";
        assert!(begun.elapsed() < SETTLED, "still open: {open:?} of {named}");
        match begun.elapsed() < QUIET {
            true => yield_now().await,
            false => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    }
}

fn still_open(worker: &Worker) -> [u64; 5] {
    let mut open = [worker.live.counters.connections(), worker.registry.count() as u64, 0, 0, 0];
    for service in worker.live.snapshot().services() {
        for instance in service.roster.members().everyone() {
            open[2] += instance.lane(0).requests();
            open[3] += instance.lane(0).tunnels();
        }
        open[4] += service.roster.queue.len() as u64;
    }
    open
}

fn each_is_flawless(seen: &Seen) -> Vec<Vec<Request>> {
    let read = |bytes: &Vec<u8>| match Request::flawless(bytes) {
        Ok(requests) => requests,
        Err(wrong) => panic!("an instance got {wrong}: {}", bytes.escape_ascii()),
    };
    seen.connections.iter().map(read).collect()
}

/// Instances got what the client sent, in its order, and nothing twice that must not be.
fn each_was_asked(seen: &Seen, asked: &[Request]) {
    let connections = each_is_flawless(seen);
    let same = |got: &Request, asked: &Request| {
        got.head.start[0] == asked.head.start[0]
            && got.head.start[1] == asked.target()
            && asked.body.data.starts_with(&got.body.data)
            && (got.body.length.is_none() || asked.body.length.is_some())
    };
    for connection in &connections {
        let mut left = asked.iter();
        for got in connection {
            let is_known = left.any(|asked| same(got, asked));
            assert!(is_known, "nobody asked for {got:?}\nbut for {asked:#?}");
        }
    }
    let all: Vec<&Request> = connections.iter().flatten().collect();
    for got in &all {
        let method = got.head.start[0].as_slice();
        let safe = [&b"GET"[..], b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"];
        let times = all.iter().filter(|it| it.head.start == got.head.start).count();
        let wanted = asked
            .iter()
            .filter(|it| it.head.start[0] == method && it.target() == got.head.start[1]);
        assert!(safe.contains(&method) || times <= wanted.count(), "sent again: {got:?}");
    }
}
