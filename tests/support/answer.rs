//! What a [`Backend`](super::Backend) does on one connection: which path gets which answer.
//!
//! | path | answer |
//! |---|---|
//! | `/readyz`, `/healthz` | 200 or 503, as the knobs say |
//! | `/ws` | a WebSocket that echoes and answers Close |
//! | `/ws/refuse` | 403 with a body instead of the upgrade |
//! | `/ws/200` | 200 with a body instead of the upgrade |
//! | `/ws/greet` | a 101 and a text frame in one write, then an echo |
//! | `/ws/deaf` | a WebSocket that sends nothing, not even a Close back |
//! | `/raw` | an upgrade: bytes come back; at the client's end `bye`, then the end |
//! | `/raw/first` | an upgrade: `hello`, the end, then it reads what the client still sends |
//! | `/sized/N`, `/chunked/N` | N bytes of [`pattern`](super::pattern) |
//! | `/zeros/N`, `/zeros/chunked/N` | N bytes, written as fast as they are taken |
//! | `/trailers` | a chunked body with trailers |
//! | `/to-end` | an HTTP/1.0 answer that ends with its connection |
//! | `/status/N` | that status; 204 and 304 without a body |
//! | `/half` | half a body, then the gate, then the rest |
//! | `/gate` | the gate, then its name |
//! | `/busy/N` | its name when one of four workers has had N milliseconds for it |
//! | `/socket.io/?..&strict` | engine.io by long polling, with sessions that only their instance knows |
//! | `/events` | a stream of server-sent events, one each time the gate lets one pass |
//! | `/echo` | the body and its type |
//! | `/early` | 413 before the body was read, then the end |
//! | `/early/on` | 200 before the body was read, which is then read and recorded |
//! | `/early/shut` | 413 and a reset, with the body unread |
//! | `/early/deaf` | 413 before the body, which is never read |
//! | `/early/keep` | 401 instead of 100 Continue; then the next request is read |
//! | `/early/byte` | a head and a byte, then the body is read, then another byte |
//! | `/early/N` | N bytes while the body is read |
//! | `/both` | an answer with Content-Length beside its chunks |
//! | `/expect/refuse` | 417 instead of 100 Continue |
//! | `/cookie` | sets a cookie of its own, on two lines |
//! | `/hop` | hop-by-hop fields that must not pass |
//! | else | 200 and its name |

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::backend::{Fault, Recorded, State};
use super::pattern;
use super::wire::{Body, Conn, Framing, Head, LAST_CHUNK, chunk, chunked};
use super::ws;

/// Answers requests until the connection ends.
pub(super) async fn serve(state: &Arc<State>, mut conn: Conn, connection: usize) -> io::Result<()> {
    loop {
        state.thawed().await;
        let Some(head) = conn.head().await? else { return Ok(()) };
        state.thawed().await;
        let target = head.target().to_owned();
        if target == "/readyz" || target == "/healthz" {
            let answer = probe(state, head);
            if state.hangs_probes.load(Ordering::Acquire) {
                conn.read_to_end().await;
                return Ok(());
            }
            conn.write(&answer).await?;
            continue;
        }
        let n = record(state, &head, connection);
        match state.next_fault() {
            Fault::None => {}
            Fault::Gate => pass_gate(state).await,
            Fault::Late(time) => tokio::time::sleep(time).await,
            Fault::Status(status) => {
                read_body(state, &mut conn, &head, n).await?;
                conn.write(&sized(state, status, "", b"")).await?;
                continue;
            }
            fault => return misbehave(state, conn, &head, n, fault).await,
        }
        if head.field("upgrade").is_some() {
            return tunnel(state, conn, &head).await;
        }
        let close = respond(state, &mut conn, &head, n).await?;
        if close || head.wants_close() || state.closes_after_each.load(Ordering::Acquire) {
            return Ok(());
        }
    }
}

fn record(state: &State, head: &Head, connection: usize) -> usize {
    let mut requests = state.requests.lock().unwrap_or_else(PoisonError::into_inner);
    requests.push(Recorded { head: head.clone(), connection, body: None });
    requests.len() - 1
}

async fn read_body(state: &State, conn: &mut Conn, head: &Head, n: usize) -> io::Result<Body> {
    if head.field("expect").is_some() {
        conn.write(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
    }
    let body = conn.body(head.request_framing()).await?;
    let mut requests = state.requests.lock().unwrap_or_else(PoisonError::into_inner);
    requests[n].body = Some(body.clone());
    Ok(body)
}

fn probe(state: &State, head: Head) -> Vec<u8> {
    let passes = if head.target() == "/readyz" { &state.ready } else { &state.alive };
    let passes = passes.load(Ordering::Acquire);
    let mut script = state.script.lock().unwrap_or_else(PoisonError::into_inner);
    let scripted = if head.target() == "/readyz" { script.pop_front() } else { None };
    let status = if let Some(status) = scripted {
        status as usize
    } else if passes {
        state.ready_status.load(Ordering::Acquire)
    } else {
        503
    };
    let fields = match head.target() {
        "/readyz" => state.probe_fields.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        _ => String::new(),
    };
    state.probes.lock().unwrap_or_else(PoisonError::into_inner).push(head);
    format!("HTTP/1.1 {status} Probe\r\n{fields}Content-Length: 0\r\n\r\n").into_bytes()
}

async fn misbehave(
    state: &State,
    mut conn: Conn,
    head: &Head,
    n: usize,
    fault: Fault,
) -> io::Result<()> {
    if fault == Fault::ResetOnHead {
        conn.reset();
        return Ok(());
    }
    read_body(state, &mut conn, head, n).await?;
    match fault {
        Fault::None | Fault::Gate | Fault::Late(_) => {}
        Fault::Status(_) | Fault::CloseBeforeAnswer => {}
        Fault::ResetBeforeAnswer | Fault::ResetOnHead => conn.reset(),
        Fault::ResetMidAnswer(size) => {
            promise(state, &mut conn, size).await?;
            // A reset throws away what was not yet taken; this makes sure that it was.
            drained(&conn).await;
            conn.reset();
        }
        Fault::StallMidAnswer(size) => {
            promise(state, &mut conn, size).await?;
            conn.read_to_end().await;
        }
        Fault::Raw(bytes) => conn.write(&bytes).await?,
    }
    Ok(())
}

async fn promise(state: &State, conn: &mut Conn, size: usize) -> io::Result<()> {
    let head = answer_head(state, 200, &format!("Content-Length: {}\r\n", size + 1000));
    conn.write(&[head.as_bytes(), &pattern(size)].concat()).await
}

/// Waits until the peer's kernel has acknowledged everything.
async fn drained(conn: &Conn) {
    use std::os::fd::AsRawFd;
    let unsent = || {
        let mut left: libc::c_int = 0;
        // SAFETY: TIOCOUTQ writes one int; the descriptor is open for the life of conn.
        let code = unsafe { libc::ioctl(conn.stream.as_raw_fd(), libc::TIOCOUTQ, &raw mut left) };
        (code != 0 || left == 0).then_some(())
    };
    super::eventually("the peer takes what was sent", unsent).await;
}

async fn pass_gate(state: &State) {
    let permit = state.gate.acquire().await.expect("the gate is never closed");
    permit.forget();
}

fn answer_head(state: &State, status: u16, fields: &str) -> String {
    format!("HTTP/1.1 {status} Told\r\nX-Instance: {}\r\n{fields}\r\n", state.name)
}

fn sized(state: &State, status: u16, fields: &str, body: &[u8]) -> Vec<u8> {
    let fields = format!("{fields}Content-Length: {}\r\n", body.len());
    [answer_head(state, status, &fields).as_bytes(), body].concat()
}

fn named(state: &State) -> Vec<u8> {
    sized(state, 200, "Content-Type: text/plain\r\n", state.name.as_bytes())
}

/// A session's id begins with the name of the instance that has opened it.
fn engine_io(state: &State, target: &str) -> Vec<u8> {
    let sid = target.split_once("sid=").map(|(_, sid)| sid);
    match sid {
        None => {
            let packet = format!(r#"0{{"sid":"{}-1","upgrades":[]}}"#, state.name);
            sized(state, 200, "", packet.as_bytes())
        }
        Some(sid) if sid.starts_with(&format!("{}-", state.name)) => sized(state, 200, "", b"2"),
        Some(_) => sized(state, 400, "", br#"{"code":1,"message":"Session ID unknown"}"#),
    }
}

/// Answers one request; true ends the connection.
async fn respond(state: &State, conn: &mut Conn, head: &Head, n: usize) -> io::Result<bool> {
    let path = head.target().split('?').next().unwrap_or_default().to_owned();
    let (kind, number) = match path.rsplit_once('/') {
        Some((kind, last)) => (kind, last.parse::<usize>().ok()),
        None => ("", None),
    };
    if path == "/early" || path == "/expect/refuse" {
        let status = if path == "/early" { 413 } else { 417 };
        conn.write(&sized(state, status, "Connection: close\r\n", b"no thanks")).await?;
        conn.stream.set_nodelay(true)?;
        tokio::io::AsyncWriteExt::shutdown(&mut conn.stream).await?;
        // Closing with unread input would reset the connection and may lose the answer.
        conn.read_to_end().await;
        return Ok(true);
    }
    if path.starts_with("/early/") {
        return early(state, conn, head, n, &path).await;
    }
    let body = read_body(state, conn, head, n).await?;
    let answer = match (kind, number) {
        ("/sized", Some(size)) => sized(state, 200, "", &pattern(size)),
        ("/chunked", Some(size)) => chunks(state, &pattern(size), &[]),
        ("/busy", Some(millis)) => {
            state.work(Duration::from_millis(millis as u64)).await;
            sized(state, 200, "", state.name.as_bytes())
        }
        ("/status", Some(status @ (204 | 304))) => {
            answer_head(state, status as u16, "").into_bytes()
        }
        ("/status", Some(status)) => sized(state, status as u16, "", b"told"),
        ("/zeros", Some(size)) => {
            let length = format!("Content-Length: {size}\r\n");
            return zeros(state, conn, size, &length, false).await.map(|()| false);
        }
        ("/zeros/chunked", Some(size)) => {
            let chunked = "Transfer-Encoding: chunked\r\n";
            return zeros(state, conn, size, chunked, true).await.map(|()| false);
        }
        _ if path == "/socket.io/" && head.target().contains("&strict") => {
            engine_io(state, head.target())
        }
        _ => return by_path(state, conn, head, &path, &body).await,
    };
    state.thawed().await;
    // RFC 9112 section 6.3: the head tells the length, the body stays away.
    let end = if head.method() == "HEAD" { head_end(&answer) } else { answer.len() };
    conn.write(&answer[..end]).await?;
    Ok(false)
}

fn head_end(answer: &[u8]) -> usize {
    answer.windows(4).position(|w| w == b"\r\n\r\n").map_or(answer.len(), |at| at + 4)
}

fn chunks(state: &State, body: &[u8], trailers: &[(&str, &str)]) -> Vec<u8> {
    let names: Vec<_> = trailers.iter().map(|(name, _)| *name).collect();
    let trailer =
        if names.is_empty() { String::new() } else { format!("Trailer: {}\r\n", names.join(", ")) };
    let head = answer_head(state, 200, &format!("Transfer-Encoding: chunked\r\n{trailer}"));
    let parts: Vec<_> = body.chunks(1000).collect();
    [head.into_bytes(), chunked(&parts, trailers)].concat()
}

/// Answers before the body was read.
async fn early(
    state: &State,
    conn: &mut Conn,
    head: &Head,
    n: usize,
    path: &str,
) -> io::Result<bool> {
    match path.trim_start_matches("/early/") {
        "on" => {
            conn.write(&named(state)).await?;
            read_body(state, conn, head, n).await?;
        }
        "shut" => {
            conn.write(&sized(state, 413, "Connection: close\r\n", b"no thanks")).await?;
            return Ok(true);
        }
        "deaf" => {
            conn.write(&sized(state, 413, "", b"no thanks")).await?;
            std::future::pending::<()>().await;
        }
        "keep" => conn.write(&sized(state, 401, "", b"who are you")).await?,
        "byte" => {
            conn.write(answer_head(state, 200, "Content-Length: 2\r\n").as_bytes()).await?;
            conn.write(b"1").await?;
            read_body(state, conn, head, n).await?;
            conn.write(b"2").await?;
        }
        size => {
            let size: usize = size.parse().map_err(io::Error::other)?;
            conn.write(answer_head(state, 200, &format!("Content-Length: {size}\r\n")).as_bytes())
                .await?;
            let (mut reader, mut writer) = conn.stream.split();
            let block = vec![0; size];
            let Framing::Length(length) = head.request_framing() else { return Ok(true) };
            let mut rest =
                tokio::io::AsyncReadExt::take(&mut reader, length - conn.buffer.len() as u64);
            let mut sink = tokio::io::sink();
            let read = tokio::io::copy(&mut rest, &mut sink);
            let write = tokio::io::AsyncWriteExt::write_all(&mut writer, &block);
            tokio::try_join!(read, write)?;
            return Ok(true);
        }
    }
    Ok(false)
}

async fn by_path(
    state: &State,
    conn: &mut Conn,
    head: &Head,
    path: &str,
    body: &Body,
) -> io::Result<bool> {
    let mut close = false;
    let answer = match path {
        "/trailers" => chunks(state, b"body", &[("X-Sum", "42"), ("X-Last", "yes")]),
        "/to-end" => {
            close = true;
            let head = format!("HTTP/1.0 200 OK\r\nX-Instance: {}\r\n\r\nto the end", state.name);
            head.into_bytes()
        }
        "/half" => {
            let whole = pattern(2000);
            let head = answer_head(state, 200, "Content-Length: 2000\r\n");
            conn.write(&[head.as_bytes(), &whole[..1000]].concat()).await?;
            pass_gate(state).await;
            whole[1000..].to_vec()
        }
        "/gate" => {
            pass_gate(state).await;
            named(state)
        }
        "/events" => {
            let head = "Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n";
            conn.write(answer_head(state, 200, head).as_bytes()).await?;
            for event in 0.. {
                tokio::select! {
                    () = pass_gate(state) => {}
                    // A reader says nothing more; what comes is its end.
                    _ = conn.fill() => return Err(io::ErrorKind::ConnectionAborted.into()),
                }
                conn.write(&chunk(format!("data: {event}\n\n").as_bytes())).await?;
            }
            Vec::new()
        }
        "/echo" => {
            let kind = head.field("content-type").unwrap_or("application/octet-stream");
            sized(state, 200, &format!("Content-Type: {kind}\r\n"), &body.bytes)
        }
        "/both" => {
            let head = "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n";
            let chunks = chunked(&[b"more ", b"than three"], &[]);
            [answer_head(state, 200, head).as_bytes(), &chunks].concat()
        }
        "/cookie" => {
            let fields = "Set-Cookie: app=1; Path=/\r\nSet-Cookie: other=2; HttpOnly\r\n";
            sized(state, 200, fields, state.name.as_bytes())
        }
        "/hop" => sized(
            state,
            200,
            "Connection: X-Private\r\nX-Private: secret\r\nConnection: x-more\r\nX-More: secret\r\n\
             Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nX-Public: shown\r\n",
            state.name.as_bytes(),
        ),
        _ => named(state),
    };
    state.thawed().await;
    let end = if head.method() == "HEAD" { head_end(&answer) } else { answer.len() };
    conn.write(&answer[..end]).await?;
    Ok(close)
}

async fn zeros(
    state: &State,
    conn: &mut Conn,
    size: usize,
    framing: &str,
    in_chunks: bool,
) -> io::Result<()> {
    conn.write(answer_head(state, 200, framing).as_bytes()).await?;
    let block = vec![0; 64 * 1024];
    let mut left = size;
    while left > 0 {
        let part = &block[..left.min(block.len())];
        if in_chunks {
            conn.write(&chunk(part)).await?;
        } else {
            conn.write(part).await?;
        }
        left -= part.len();
    }
    if in_chunks { conn.write(LAST_CHUNK).await } else { Ok(()) }
}

async fn tunnel(state: &State, mut conn: Conn, head: &Head) -> io::Result<()> {
    let protocol = head.field("upgrade").unwrap_or_default();
    let key = head.field("sec-websocket-key").unwrap_or_default();
    let accept = derive_accept_key(key.as_bytes());
    let agreed: String = ["Sec-WebSocket-Extensions", "Sec-WebSocket-Protocol"]
        .iter()
        .filter_map(|name| head.field(name).map(|value| format!("{name}: {value}\r\n")))
        .collect();
    let switch = format!(
        "HTTP/1.1 101 Switching Protocols\r\nX-Instance: {}\r\nUpgrade: {protocol}\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n{agreed}\r\n",
        state.name
    );
    match head.target() {
        "/ws/refuse" => {
            conn.write(&sized(state, 403, "X-Why: closed\r\n", b"not today")).await?;
            conn.read_to_end().await;
            return Ok(());
        }
        "/ws/200" => {
            conn.write(&sized(state, 200, "", b"no such thing")).await?;
            conn.read_to_end().await;
            return Ok(());
        }
        "/ws/greet" => {
            let hello = ws::encode(ws::TEXT, b"hello", None);
            conn.write(&[switch.as_bytes(), &hello].concat()).await?;
        }
        _ => conn.write(switch.as_bytes()).await?,
    }
    match head.target() {
        "/raw" | "/raw/first" => raw(state, conn, head.target() == "/raw/first").await,
        target => websocket(state, conn, target == "/ws/deaf").await,
    }
}

async fn websocket(state: &State, mut conn: Conn, deaf: bool) -> io::Result<()> {
    while let Some(frame) = ws::read(&mut conn).await? {
        state.thawed().await;
        if let Some((code, reason)) = frame.close() {
            let mut closes = state.closes.lock().unwrap_or_else(PoisonError::into_inner);
            closes.push((code, reason, frame.masked));
        }
        if deaf {
            continue;
        }
        let opcode = if frame.opcode == ws::PING { ws::PONG } else { frame.opcode };
        conn.write(&ws::encode(opcode, &frame.payload, None)).await?;
        if frame.opcode == ws::CLOSE {
            break;
        }
    }
    Ok(())
}

async fn raw(state: &State, mut conn: Conn, first: bool) -> io::Result<()> {
    let mut seen = Vec::new();
    if first {
        conn.write(b"hello").await?;
        tokio::io::AsyncWriteExt::shutdown(&mut conn.stream).await?;
        seen = conn.read_to_end().await;
    } else {
        loop {
            let part = conn.buffer.split();
            seen.extend_from_slice(&part);
            conn.write(&part).await?;
            if conn.fill().await? == 0 {
                break;
            }
        }
        conn.write(b"bye").await?;
        tokio::io::AsyncWriteExt::shutdown(&mut conn.stream).await?;
    }
    state.tunnelled.lock().unwrap_or_else(PoisonError::into_inner).push(seen);
    Ok(())
}
