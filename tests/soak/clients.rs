//! The clients of the soak: those that do as they should, those that are slow, and those that don't.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::watch;

use crate::goes_on_after;
use crate::support::client::{Client, Request};
use crate::support::h2::H2;
use crate::support::wire::Conn;
use crate::support::{DEADLINE, pattern, ws};

/// What a client does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Keeps its cookies: pages, uploads, errors of the application.
    Session,
    /// Streams of one HTTP/2 connection.
    Http2,
    /// Opens a WebSocket, talks, and ends it in one of several ways.
    WebSocket,
    /// Listens to server-sent events and leaves.
    Events,
    /// Takes a large answer in small parts.
    Slow,
    /// Leaves in the middle: of its upload, or of its answer.
    Aborted,
    /// Says what is no HTTP, or only begins as such.
    Garbage,
}

impl Kind {
    pub(crate) const ALL: [Self; 7] = [
        Self::Session,
        Self::Http2,
        Self::WebSocket,
        Self::Events,
        Self::Slow,
        Self::Aborted,
        Self::Garbage,
    ];

    /// How many there are at once.
    pub(crate) const fn clients(self) -> u64 {
        match self {
            Self::Session => 16,
            Self::WebSocket | Self::Aborted => 8,
            Self::Http2 | Self::Events | Self::Slow | Self::Garbage => 4,
        }
    }
}

/// How visits ended: whole, refused with an answer that says so, or broken off.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally(BTreeMap<Kind, [u64; 3]>);

impl Tally {
    pub(crate) fn add(&mut self, other: &Self) {
        for (kind, counts) in &other.0 {
            let ours = self.0.entry(*kind).or_default();
            ours.iter_mut().zip(counts).for_each(|(ours, count)| *ours += count);
        }
    }

    /// With faults all the time some visits fail, but no kind is shut out.
    pub(crate) fn each_kind_came_through(&self) {
        for kind in Kind::ALL {
            assert!(self.0.get(&kind).is_some_and(|counts| counts[0] > 0), "{kind:?}: {self}");
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (kind, [whole, refused, broken]) in &self.0 {
            write!(f, "{kind:?} {whole}, {refused}, {broken}; ")?;
        }
        Ok(())
    }
}

/// Whether a visit was what its client came for, or was refused.
type Visit = io::Result<bool>;

/// Comes again and again.
pub(crate) async fn keep_coming(
    kind: Kind,
    address: SocketAddr,
    seed: u64,
    mut stop: watch::Receiver<bool>,
) -> Tally {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut counts = [0; 3];
    loop {
        let visit = async {
            match kind {
                Kind::Session => session(address, &mut random).await,
                Kind::Http2 => http2(address, &mut random).await,
                Kind::WebSocket => websocket(address, &mut random, &mut stop.clone()).await,
                Kind::Events => events(address, &mut random, &mut stop.clone()).await,
                Kind::Slow => slow(address, &mut random, &mut stop.clone()).await,
                Kind::Aborted => aborted(address, &mut random).await,
                Kind::Garbage => garbage(address, &mut random).await,
            }
        };
        // No limit of the configuration allows a visit to last this long.
        let ended = tokio::time::timeout(2 * DEADLINE, visit).await;
        match ended.unwrap_or_else(|_| panic!("a visit of {kind:?} hangs")) {
            Ok(true) => counts[0] += 1,
            Ok(false) => counts[1] += 1,
            Err(_broken) => counts[2] += 1,
        }
        if !goes_on_after(&mut stop, Duration::from_millis(random.u64(1..20))).await {
            return Tally(BTreeMap::from([(kind, counts)]));
        }
    }
}

async fn session(address: SocketAddr, random: &mut fastrand::Rng) -> Visit {
    let mut client = Client::session(address);
    let mut whole = true;
    for _ in 0..random.u8(1..20) {
        let body = pattern(random.usize(0..50_000));
        let request = match random.u8(0..20) {
            0..8 => Request::get("/"),
            8..11 => Request::get("/?EIO=4&transport=polling"),
            11..14 => Request::post("/echo", &body),
            14..17 => Request::post("/echo", &body).chunked(&[("x-sum", "1")]),
            17 => Request::get("/chunked/100000"),
            18 => Request::post("/early", &body),
            _ => Request::get("/status/500"),
        };
        let answer = client.try_send(&request).await?;
        if request.path == "/echo" && answer.status == 200 {
            assert_eq!(answer.body.bytes, body, "an echo");
        }
        whole &= answer.status < 502;
    }
    Ok(whole)
}

async fn http2(address: SocketAddr, random: &mut fastrand::Rng) -> Visit {
    let mut connection = H2::connect(address).await;
    let requests = (0..random.usize(1..20)).map(|n| match n % 3 {
        0 => "/sized/40000",
        _ => "/",
    });
    let mut answers = Vec::new();
    for path in requests {
        answers.push(connection.begin(crate::support::h2::get(path), false).0);
    }
    // Some are given up on.
    answers.truncate(random.usize(1..=answers.len()));
    let mut whole = true;
    for answer in answers {
        let answer = crate::support::h2::finish(answer).await.map_err(io::Error::other)?;
        whole &= answer.status == 200;
    }
    Ok(whole)
}

async fn websocket(
    address: SocketAddr,
    random: &mut fastrand::Rng,
    stop: &mut watch::Receiver<bool>,
) -> Visit {
    let mut conn = Conn::connect(address).await?;
    conn.write(ws::request("/ws", "").as_bytes()).await?;
    let head = conn.head().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
    if head.status() != 101 {
        return Ok(false);
    }
    let mask = Some([1, 2, 3, 4]);
    for _ in 0..random.u8(1..30) {
        let text = pattern(random.usize(0..5000));
        conn.write(&ws::encode(ws::TEXT, &text, mask)).await?;
        loop {
            let frame = ws::read(&mut conn).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
            match frame.opcode {
                ws::PING => conn.write(&ws::encode(ws::PONG, &frame.payload, mask)).await?,
                // An answer to a Ping of Burdock's.
                ws::PONG => {}
                // Its instance leaves, or its lifetime is over.
                ws::CLOSE => return Ok(true),
                _ => {
                    assert_eq!(frame.payload, text, "an echo");
                    break;
                }
            }
        }
        if !goes_on_after(stop, Duration::from_millis(random.u64(1..300))).await {
            break;
        }
    }
    match random.u8(0..4) {
        0 => conn.reset(),
        1 => drop(conn),
        // In the middle of a frame.
        2 => conn.write(&ws::encode(ws::TEXT, b"half of it", mask)[..9]).await?,
        _ => {
            conn.write(&ws::encode(ws::CLOSE, &1000_u16.to_be_bytes(), mask)).await?;
            conn.read_to_end().await;
        }
    }
    Ok(true)
}

async fn events(
    address: SocketAddr,
    random: &mut fastrand::Rng,
    stop: &mut watch::Receiver<bool>,
) -> Visit {
    let mut conn = Conn::connect(address).await?;
    conn.write(b"GET /events HTTP/1.1\r\nHost: app.test\r\n\r\n").await?;
    let head = conn.head().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
    if head.status() == 200 {
        goes_on_after(stop, Duration::from_millis(random.u64(1..1000))).await;
    }
    Ok(head.status() == 200)
}

async fn slow(
    address: SocketAddr,
    random: &mut fastrand::Rng,
    stop: &mut watch::Receiver<bool>,
) -> Visit {
    let mut conn = Conn::connect(address).await?;
    socket2::SockRef::from(&conn.stream).set_recv_buffer_size(8 * 1024)?;
    let kind = if random.bool() { "zeros" } else { "zeros/chunked" };
    let request = format!("GET /{kind}/2000000 HTTP/1.1\r\nHost: app.test\r\n\r\n");
    conn.write(request.as_bytes()).await?;
    let head = conn.head().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
    if head.status() != 200 {
        return Ok(false);
    }
    for _ in 0..random.usize(1..100) {
        if conn.fill().await? == 0 || !goes_on_after(stop, Duration::from_millis(10)).await {
            break;
        }
        conn.buffer.clear();
    }
    Ok(true)
}

async fn aborted(address: SocketAddr, random: &mut fastrand::Rng) -> Visit {
    let mut conn = Conn::connect(address).await?;
    if random.bool() {
        let head = "POST /echo HTTP/1.1\r\nHost: app.test\r\nContent-Length: 1000000\r\n\r\n";
        conn.write(head.as_bytes()).await?;
        conn.write(&pattern(random.usize(0..200_000))).await?;
    } else {
        conn.write(b"GET /zeros/5000000 HTTP/1.1\r\nHost: app.test\r\n\r\n").await?;
        if random.bool() {
            conn.fill().await?;
        }
    }
    if random.bool() {
        conn.reset();
    }
    Ok(true)
}

async fn garbage(address: SocketAddr, random: &mut fastrand::Rng) -> Visit {
    let mut conn = Conn::connect(address).await?;
    let starts: [&[u8]; 5] = [
        b"",
        b"GET / HTTP/1.1\r\nHost: app.test\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET /ws HTTP/1.1\r\nHost: app.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
          Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    ];
    let noise: Vec<u8> = (0..random.usize(1..3000)).map(|_| random.u8(..)).collect();
    conn.write(random.choice(starts).unwrap_or_default()).await?;
    conn.write(&noise).await?;
    // A head that never ends is waited for; most is refused at once.
    let answered = tokio::time::timeout(Duration::from_millis(300), conn.read_to_end()).await;
    Ok(answered.is_ok())
}
