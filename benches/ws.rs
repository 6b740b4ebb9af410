//! The two ends of the tunnels that `benches/tunnels.py` measures: an echo server, and clients that
//! hold, talk or open. Frames are laid out by hand and checked by their length only, so that this
//! program costs less than any proxy between its ends. Results are JSON, one object per line.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

const USAGE: &str = "ws echo PORT... | ws hold ADDRESS COUNT | \
                     ws talk ADDRESS COUNT SIZE SECONDS | ws open ADDRESS COUNT AT_ONCE";

const KEY: &str = "AAAAAAAAAAAAAAAAAAAAAA==";
/// What RFC 6455 section 4.2.2 makes of [`KEY`], the only key that the clients here send.
const ACCEPT: &str = "ICX+Yqv66kxgM0FcWaLWlFLwTAI=";

const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;
/// Tunnels that are opened at the same time where the pace isn't what is measured.
const OPENING: usize = 64;
/// How finely closes are told apart.
const WINDOW: Duration = Duration::from_millis(100);

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["echo", ref ports @ ..] if !ports.is_empty() => echo(ports).await,
        ["hold", to, count] => hold(to.parse()?, count.parse()?).await,
        ["talk", to, count, size, seconds] => {
            let time = Duration::from_secs(seconds.parse()?);
            talk(to.parse()?, count.parse()?, size.parse()?, time).await
        }
        ["open", to, count, at_once] => open(to.parse()?, count.parse()?, at_once.parse()?).await,
        _ => bail!(USAGE),
    }
}

fn say(line: &serde_json::Value) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

/// Echoes on these ports for as long as it runs.
async fn echo(ports: &[&str]) -> anyhow::Result<()> {
    let mut listeners = JoinSet::new();
    for port in ports {
        let socket = tokio::net::TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(SocketAddr::from(([127, 0, 0, 1], port.parse()?)))?;
        let listener = socket.listen(4096)?;
        listeners.spawn(accept(listener));
    }
    listeners.join_next().await.context("no port")??
}

async fn accept(listener: TcpListener) -> anyhow::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        // A client that goes as it likes is not this server's error.
        tokio::spawn(async move { drop(serve(stream).await) });
    }
}

async fn serve(mut stream: TcpStream) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::new();
    read_head(&mut stream, &mut buffer).await?;
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
    );
    stream.write_all(answer.as_bytes()).await?;
    loop {
        let (head, size) = layout(&buffer);
        if buffer.len() < head + 4 + size {
            // An idle tunnel holds no memory here either.
            buffer.shrink_to(if buffer.is_empty() { 0 } else { head + 4 + size });
            buffer.reserve(1024.max(head + 4 + size - buffer.len()));
            ensure!(stream.read_buf(&mut buffer).await? > 0, "the client left");
            continue;
        }
        let mut frame: Vec<u8> = buffer.drain(..head + 4 + size).collect();
        let mask: [u8; 4] = frame[head..head + 4].try_into()?;
        frame.drain(head..head + 4);
        frame[1] &= 0x7f;
        frame[head..].iter_mut().zip(mask.into_iter().cycle()).for_each(|(byte, key)| *byte ^= key);
        stream.write_all(&frame).await?;
        if frame[0] == CLOSE {
            return Ok(stream.shutdown().await?);
        }
    }
}

/// How long the header of the frame at the start is, without its mask, and how long its payload.
fn layout(bytes: &[u8]) -> (usize, usize) {
    match bytes {
        [_, second, high, low, ..] if second & 0x7f == 126 => {
            (4, usize::from(u16::from_be_bytes([*high, *low])))
        }
        [_, second, ..] if second & 0x7f < 126 => (2, usize::from(second & 0x7f)),
        _ => (4, 0),
    }
}

/// A masked frame; the mask is zero, which leaves the payload as it is.
fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![kind];
    match u8::try_from(payload.len()) {
        Ok(short @ ..=125) => frame.push(0x80 | short),
        _ => {
            frame.push(0x80 | 126);
            frame.extend((payload.len() as u16).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

async fn read_head(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> anyhow::Result<()> {
    let end = loop {
        if let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        buffer.reserve(1024);
        ensure!(stream.read_buf(buffer).await? > 0, "no answer");
    };
    let head: Vec<u8> = buffer.drain(..end).collect();
    let line = String::from_utf8_lossy(&head);
    ensure!(line.starts_with("GET ") || line.starts_with("HTTP/1.1 101 "), "answered {line}");
    Ok(())
}

async fn connect(to: SocketAddr) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    let request = format!(
        "GET /ws HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut rest = Vec::new();
    read_head(&mut stream, &mut rest).await?;
    ensure!(rest.is_empty(), "more than a head came");
    Ok(stream)
}

/// `count` times `connect`, at most `at_once` at the same time; `each` says what then becomes of one.
async fn many<T: 'static>(
    to: SocketAddr,
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
            tasks.spawn_local(async move { each(connect(to).await?).await });
        }
        while let Some(one) = tasks.join_next().await {
            done.push(one??);
        }
        anyhow::Ok(())
    };
    local.run_until(work).await?;
    Ok(done)
}

/// Opens tunnels and keeps them. Then, by the lines of standard input: `echo` sends one message on
/// each, `wait` waits until every one has ended and tells how and when.
async fn hold(to: SocketAddr, count: usize) -> anyhow::Result<()> {
    let mut held = many(to, count, OPENING, async |stream| Ok(stream)).await?;
    say(&json!({ "open": held.len() }))?;
    for line in std::io::stdin().lines() {
        match line?.as_str() {
            "echo" => {
                for stream in &mut held {
                    exchange(stream, &frame(BINARY, b"ping"), &mut [0; 6]).await?;
                }
                say(&json!({ "echoed": held.len() }))?;
            }
            "wait" => return say(&ends(std::mem::take(&mut held)).await?),
            other => bail!("no command: {other}"),
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
async fn talk(to: SocketAddr, count: usize, size: usize, time: Duration) -> anyhow::Result<()> {
    let held = many(to, count, OPENING, async |stream| Ok(stream)).await?;
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
async fn open(to: SocketAddr, count: usize, at_once: usize) -> anyhow::Result<()> {
    let start = Instant::now();
    let goodbye = async |mut stream: TcpStream| {
        stream.write_all(&frame(CLOSE, &1000u16.to_be_bytes())).await?;
        let mut back = Vec::new();
        stream.read_to_end(&mut back).await?;
        ensure!(back == [CLOSE, 2, 3, 232], "the Close came back as {back:?}");
        Ok(())
    };
    let opened = many(to, count, at_once, goodbye).await?.len();
    say(&json!({ "opened": opened, "seconds": start.elapsed().as_secs_f64() }))
}
