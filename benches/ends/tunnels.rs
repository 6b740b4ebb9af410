//! Clients that hold, talk or open: tunnels mostly, and idle connections.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::say;
use crate::wire::{BINARY, CLOSE, KEY, field, frame, next_head};

/// Tunnels that are opened at the same time where the pace isn't what is measured.
const OPENING: usize = 64;
/// How finely closes are told apart.
const WINDOW: Duration = Duration::from_millis(100);

/// A connection on which one request was answered, or a tunnel.
async fn connect(to: SocketAddr, tunnel: bool) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    let upgrade = format!(
        "Upgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n"
    );
    let upgrade = if tunnel { upgrade.as_str() } else { "" };
    let request = format!("GET /50 HTTP/1.1\r\nHost: bench\r\n{upgrade}\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut rest = Vec::new();
    let head = next_head(&mut stream, &mut rest).await?.context("no answer")?;
    let wanted: &[u8] = if tunnel { b"HTTP/1.1 101 " } else { b"HTTP/1.1 200 " };
    ensure!(head.starts_with(wanted), "answered {}", String::from_utf8_lossy(&head));
    let length = field(&head, "content-length").map_or(Ok(0), str::parse)?;
    while rest.len() < length {
        ensure!(stream.read_buf(&mut rest).await? > 0, "a body ended early");
    }
    ensure!(rest.len() == length, "more than an answer came");
    Ok(stream)
}

/// `count` times `connect`, at most `at_once` at the same time; `each` says what then becomes of one.
async fn many<T: 'static>(
    to: SocketAddr,
    tunnel: bool,
    count: usize,
    at_once: usize,
    each: impl AsyncFn(TcpStream) -> anyhow::Result<T> + Copy + 'static,
) -> anyhow::Result<Vec<T>> {
    let mut done = Vec::with_capacity(count);
    let local = tokio::task::LocalSet::new();
    let mut tasks = JoinSet::new();
    let work = async {
        for started in 0..count {
            if started >= at_once {
                done.push(tasks.join_next().await.context("a task")???);
            }
            tasks.spawn_local(async move { each(connect(to, tunnel).await?).await });
        }
        while let Some(one) = tasks.join_next().await {
            done.push(one??);
        }
        anyhow::Ok(())
    };
    local.run_until(work).await?;
    Ok(done)
}

/// By the lines of standard input: `N` opens as many more and keeps them, `echo` sends one message
/// on each tunnel and tells how many came back, `wait` waits until every one has ended and tells how
/// and when.
pub(crate) async fn hold(to: SocketAddr, tunnels: bool) -> anyhow::Result<()> {
    let mut held = Vec::new();
    for line in std::io::stdin().lines() {
        match line?.as_str() {
            "echo" => {
                let mut lost = 0;
                for stream in &mut held {
                    let message = frame(BINARY, b"ping");
                    lost += usize::from(exchange(stream, &message, &mut [0; 6]).await.is_err());
                }
                say(&json!({ "echoed": held.len() - lost, "lost": lost }))?;
            }
            "wait" => say(&ends(std::mem::take(&mut held)).await?)?,
            count => {
                let count = count.parse().context("a number, echo or wait")?;
                held.extend(many(to, tunnels, count, OPENING, async |stream| Ok(stream)).await?);
                say(&json!({ "open": held.len() }))?;
            }
        }
    }
    Ok(())
}

async fn exchange(stream: &mut TcpStream, out: &[u8], back: &mut [u8]) -> anyhow::Result<()> {
    stream.write_all(out).await?;
    stream.read_exact(back).await?;
    ensure!(back[0] == out[0], "another frame came back");
    Ok(())
}

/// Answers the Close of each tunnel; counts them by code, and by time since the first.
async fn ends(held: Vec<TcpStream>) -> anyhow::Result<serde_json::Value> {
    let mut tasks = JoinSet::new();
    for stream in held {
        tasks.spawn(closed(stream));
    }
    let (mut codes, mut instants) = (BTreeMap::<String, u64>::new(), Vec::new());
    while let Some(end) = tasks.join_next().await {
        let (said, when) = end?;
        *codes.entry(said).or_default() += 1;
        instants.push(when);
    }
    let first = instants.iter().min().context("nothing was held")?;
    let mut windows = Vec::new();
    for when in &instants {
        let window = ((*when - *first).as_nanos() / WINDOW.as_nanos()) as usize;
        windows.resize(windows.len().max(window + 1), 0);
        windows[window] += 1;
    }
    Ok(json!({ "ends": codes, "windows": windows }))
}

/// What the tunnel said last, and when. A Close of the server's is unmasked and short.
async fn closed(mut stream: TcpStream) -> (String, Instant) {
    let mut buffer = Vec::with_capacity(127);
    while buffer.len() < 4 || buffer.len() < 2 + usize::from(buffer[1]) {
        match stream.read_buf(&mut buffer).await {
            Ok(1..) => {}
            Ok(0) => return ("end without a Close".to_owned(), Instant::now()),
            Err(error) => return (error.to_string(), Instant::now()),
        }
    }
    let when = Instant::now();
    if buffer[0] != CLOSE {
        return ("another frame".to_owned(), when);
    }
    let code = u16::from_be_bytes([buffer[2], buffer[3]]);
    // Whether the answer still arrives is the proxy's affair.
    let _ = stream.write_all(&frame(CLOSE, &buffer[2..4])).await;
    let _ = stream.read_to_end(&mut buffer).await;
    (format!("{code} {}", String::from_utf8_lossy(&buffer[4..])), when)
}

/// Each of `count` tunnels sends its next message when the last has come back.
pub(crate) async fn talk(
    to: SocketAddr,
    count: usize,
    size: usize,
    time: Duration,
) -> anyhow::Result<()> {
    let held = many(to, true, count, OPENING, async |stream| Ok(stream)).await?;
    say(&json!({ "open": held.len() }))?;
    let out = frame(BINARY, &vec![b'x'; size]);
    let end = Instant::now() + time;
    let mut tasks = JoinSet::new();
    for mut stream in held {
        let out = out.clone();
        tasks.spawn(async move {
            let (mut back, mut waits) = (vec![0; out.len() - 4], Vec::new());
            let mut now = Instant::now();
            while now < end {
                exchange(&mut stream, &out, &mut back).await?;
                let then = std::mem::replace(&mut now, Instant::now());
                waits.push((now - then).as_nanos() as u64);
            }
            anyhow::Ok(waits)
        });
    }
    let mut waits = Vec::new();
    while let Some(one) = tasks.join_next().await {
        waits.extend(one??);
    }
    waits.sort_unstable();
    let at = |share: f64| waits[(waits.len() as f64 * share) as usize] as f64 / 1000.0;
    say(&json!({ "messages": waits.len(), "p50_us": at(0.5), "p99_us": at(0.99) }))
}

/// Opens tunnels and closes each at once, the polite way.
pub(crate) async fn open(to: SocketAddr, count: usize, at_once: usize) -> anyhow::Result<()> {
    let start = Instant::now();
    let goodbye = async |mut stream: TcpStream| {
        stream.write_all(&frame(CLOSE, &1000u16.to_be_bytes())).await?;
        let mut back = Vec::new();
        stream.read_to_end(&mut back).await?;
        ensure!(back == [CLOSE, 2, 3, 232], "the Close came back as {back:?}");
        Ok(())
    };
    let opened = many(to, true, count, at_once, goodbye).await?.len();
    say(&json!({ "opened": opened, "seconds": start.elapsed().as_secs_f64() }))
}
