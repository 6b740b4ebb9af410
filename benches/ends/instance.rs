//! An instance: `/N` is answered with N bytes that begin with its port, a body is read to its end
//! first, and an upgrade becomes a WebSocket that echoes.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use anyhow::{Context, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::wire::{ACCEPT, CLOSE, field, layout, listen, next_head};

/// What is not asked for by number.
const SIZE: usize = 50;
/// An answer is this long at most.
const MOST: usize = 16 << 20;

/// By port and size.
type Answers = HashMap<(u16, usize), Arc<[u8]>>;

thread_local! {
    /// Each is made once.
    static ANSWERS: RefCell<Answers> = RefCell::default();
}

/// Answers on these ports for as long as it runs.
pub(crate) async fn serve_all(ports: &[&str]) -> anyhow::Result<()> {
    let mut listeners = JoinSet::new();
    for port in ports {
        let port = port.parse()?;
        listeners.spawn(accept(listen(port)?, port));
    }
    listeners.join_next().await.context("no port")??
}

async fn accept(listener: TcpListener, port: u16) -> anyhow::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        // A client that goes as it likes is not this server's error.
        tokio::spawn(async move { drop(serve(stream, port).await) });
    }
}

async fn serve(mut stream: TcpStream, port: u16) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::new();
    while let Some(head) = next_head(&mut stream, &mut buffer).await? {
        if field(&head, "upgrade").is_some_and(|to| to.eq_ignore_ascii_case("websocket")) {
            return echo(stream, buffer).await;
        }
        let length = field(&head, "content-length").map_or(Ok(0), str::parse)?;
        ensure!(field(&head, "transfer-encoding").is_none(), "a body in chunks is not understood");
        skip(&mut stream, &mut buffer, length).await?;
        stream.write_all(&answer(&head, port)).await?;
        if field(&head, "connection").is_some_and(|c| c.eq_ignore_ascii_case("close")) {
            break;
        }
        // An idle connection holds no memory here.
        buffer.shrink_to(buffer.len());
    }
    Ok(stream.shutdown().await?)
}

async fn skip(stream: &mut TcpStream, buffer: &mut Vec<u8>, length: usize) -> anyhow::Result<()> {
    let here = length.min(buffer.len());
    buffer.drain(..here);
    let mut left = length - here;
    let mut scratch = vec![0; left.min(64 << 10)];
    while left > 0 {
        let most = left.min(scratch.len());
        let taken = stream.read(&mut scratch[..most]).await?;
        ensure!(taken > 0, "a body ended early");
        left -= taken;
    }
    Ok(())
}

fn answer(head: &[u8], port: u16) -> Arc<[u8]> {
    let path = head.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
    let size = std::str::from_utf8(path).ok().and_then(|path| path.get(1..)?.parse().ok());
    let size = size.unwrap_or(SIZE).min(MOST);
    let make = || {
        let mut bytes = format!(
            "HTTP/1.1 200 OK\r\nServer: instance\r\nContent-Type: text/plain\r\n\
             Content-Length: {size}\r\n\r\n"
        );
        let end = bytes.len() + size;
        bytes.push_str(&format!("{port} "));
        let mut bytes = bytes.into_bytes();
        bytes.resize(end, b'x');
        Arc::from(bytes)
    };
    ANSWERS.with_borrow_mut(|known| known.entry((port, size)).or_insert_with(make).clone())
}

async fn echo(mut stream: TcpStream, mut buffer: Vec<u8>) -> anyhow::Result<()> {
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
