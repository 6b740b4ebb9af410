//! As much of RFC 6455 as a test needs: frames, and a client that opens a tunnel.

use std::io;
use std::net::SocketAddr;

use super::wire::{Conn, Head};
use super::within;

pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

/// The key that every client of the harness sends, and its answer: those of RFC 6455 section 1.3.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// One frame, unmasked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub opcode: u8,
    pub fin: bool,
    pub rsv: u8,
    pub masked: bool,
    pub payload: Vec<u8>,
}

impl Frame {
    /// The code and the reason of a Close.
    pub fn close(&self) -> Option<(u16, String)> {
        let code = self.payload.get(..2).filter(|_| self.opcode == CLOSE)?;
        let reason = String::from_utf8_lossy(&self.payload[2..]).into_owned();
        Some((u16::from_be_bytes([code[0], code[1]]), reason))
    }
}

/// The bytes of one frame; a client masks.
pub fn encode(opcode: u8, payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
    let mut out = vec![0x80 | opcode];
    let bit = if mask.is_some() { 0x80 } else { 0 };
    match payload.len() {
        n @ 0..=125 => out.push(bit | n as u8),
        n @ 126..=0xffff => {
            out.push(bit | 126);
            out.extend_from_slice(&(n as u16).to_be_bytes());
        }
        n => {
            out.push(bit | 127);
            out.extend_from_slice(&(n as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(mask.as_ref().map_or(&[], |key| key.as_slice()));
    let start = out.len();
    out.extend_from_slice(payload);
    if let Some(key) = mask {
        out[start..].iter_mut().enumerate().for_each(|(i, byte)| *byte ^= key[i % 4]);
    }
    out
}

/// The next frame, or `None` at the end of the stream on a frame boundary.
pub async fn read(conn: &mut Conn) -> io::Result<Option<Frame>> {
    if conn.buffer.is_empty() && conn.fill().await? == 0 {
        return Ok(None);
    }
    let first = conn.exactly(2).await?;
    let size = match first[1] & 0x7f {
        126 => {
            let bytes = conn.exactly(2).await?;
            u16::from_be_bytes([bytes[0], bytes[1]]) as usize
        }
        127 => {
            let bytes = conn.exactly(8).await?;
            u64::from_be_bytes(bytes.try_into().expect("8 bytes were asked for")) as usize
        }
        n => n as usize,
    };
    let masked = first[1] & 0x80 != 0;
    let key = if masked { conn.exactly(4).await? } else { vec![0; 4] };
    let mut payload = conn.exactly(size).await?;
    payload.iter_mut().enumerate().for_each(|(i, byte)| *byte ^= key[i % 4]);
    let (fin, rsv) = (first[0] & 0x80 != 0, first[0] >> 4 & 7);
    Ok(Some(Frame { opcode: first[0] & 0x0f, fin, rsv, masked, payload }))
}

/// The request that opens a WebSocket; `extra` is whole lines with their CRLF.
pub fn request(path: &str, extra: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: app.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n{extra}\r\n"
    )
}

/// A client's end of a WebSocket.
#[derive(Debug)]
pub struct WebSocket {
    pub conn: Conn,
    pub head: Head,
}

impl WebSocket {
    /// Opens one and expects a 101.
    pub async fn open(address: SocketAddr, path: &str, extra: &str) -> Self {
        let (conn, head) = dial(address, &request(path, extra)).await;
        assert_eq!(head.status(), 101, "{}", head.start);
        Self { conn, head }
    }

    /// The name of the backend at the other end.
    pub fn instance(&self) -> &str {
        self.head.field("x-instance").unwrap_or_default()
    }

    pub async fn send(&mut self, opcode: u8, payload: &[u8]) {
        let frame = encode(opcode, payload, Some([0x12, 0x34, 0x56, 0x78]));
        self.conn.write(&frame).await.expect("write a frame");
    }

    /// The next frame; `None` when the tunnel ended on a frame boundary.
    pub async fn next(&mut self) -> Option<Frame> {
        within("a frame", read(&mut self.conn)).await.expect("read a frame")
    }

    /// Sends text and expects the same back.
    pub async fn echo(&mut self, text: &str) {
        self.send(TEXT, text.as_bytes()).await;
        let frame = self.next().await.expect("an echo before the end");
        assert_eq!((frame.opcode, frame.payload.as_slice()), (TEXT, text.as_bytes()));
    }

    /// Skips to the Close and returns its code and reason; `None` if the stream ends without one.
    pub async fn closed(&mut self) -> Option<(u16, String)> {
        while let Some(frame) = self.next().await {
            if frame.opcode == CLOSE {
                return frame.close();
            }
        }
        None
    }
}

/// Sends `bytes` on a new connection and reads one final head.
pub async fn dial(address: SocketAddr, bytes: &str) -> (Conn, Head) {
    let mut conn = Conn::connect(address).await.expect("connect");
    conn.write(bytes.as_bytes()).await.expect("write the request");
    let head = within("an answer to an upgrade", conn.head()).await.expect("read the answer");
    (conn, head.expect("an answer before the end"))
}
