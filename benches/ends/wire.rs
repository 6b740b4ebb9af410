//! Frames of WebSocket and heads of HTTP/1.1 as both ends here need them: by their length only.

use std::net::SocketAddr;

use anyhow::ensure;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

pub(crate) const KEY: &str = "AAAAAAAAAAAAAAAAAAAAAA==";
/// What RFC 6455 section 4.2.2 makes of [`KEY`], the only key that the clients here send.
pub(crate) const ACCEPT: &str = "ICX+Yqv66kxgM0FcWaLWlFLwTAI=";

pub(crate) const BINARY: u8 = 0x82;
pub(crate) const CLOSE: u8 = 0x88;

/// A listener on every address of this machine: all of 127.0.0.0/8 are instances then.
pub(crate) fn listen(port: u16) -> anyhow::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::from(([0, 0, 0, 0], port)))?;
    Ok(socket.listen(4096)?)
}

/// How long the header of the frame at the start is, without its mask, and how long its payload.
pub(crate) fn layout(bytes: &[u8]) -> (usize, usize) {
    match bytes {
        [_, second, high, low, ..] if second & 0x7f == 126 => {
            (4, usize::from(u16::from_be_bytes([*high, *low])))
        }
        [_, second, ..] if second & 0x7f < 126 => (2, usize::from(second & 0x7f)),
        _ => (4, 0),
    }
}

/// A masked frame; the mask is zero, which leaves the payload as it is.
pub(crate) fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
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

/// Where the head at the start ends.
pub(crate) fn end_of_head(bytes: &[u8]) -> Option<usize> {
    memchr::memmem::find(bytes, b"\r\n\r\n").map(|at| at + 4)
}

/// The value of a field of a head, whose name is given in lower case.
pub(crate) fn field<'a>(head: &'a [u8], name: &str) -> Option<&'a str> {
    let head = std::str::from_utf8(head).ok()?;
    head.lines().skip(1).find_map(|line| {
        let (field, value) = line.split_once(':')?;
        field.eq_ignore_ascii_case(name).then_some(value.trim())
    })
}

/// Takes the next head off `buffer`, reading as much as that needs; none if the other end left.
pub(crate) async fn next_head(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
) -> anyhow::Result<Option<Vec<u8>>> {
    loop {
        if let Some(end) = end_of_head(buffer) {
            return Ok(Some(buffer.drain(..end).collect()));
        }
        buffer.reserve(1024);
        if stream.read_buf(buffer).await? == 0 {
            ensure!(buffer.is_empty(), "a head ended early");
            return Ok(None);
        }
    }
}
