//! HTTP/2 frame by frame, without a library between: what no library would send.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// How a stream, or all of them, came to an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// An answer; whether it is a 200.
    Answer(bool),
    Reset(u32),
    GoAway(u32),
    Closed,
    Nothing,
}

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short payload").to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A field as RFC 7541 section 6.2.2 has it, never remembered and not compressed.
pub fn field(name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| {
        let bytes = crate::case::bytes(text);
        // RFC 7541 section 5.1: seven bits of a length, and the rest behind.
        let mut out = Vec::new();
        match bytes.len() {
            size if size < 127 => out.push(size as u8),
            size => {
                out.push(127);
                let mut rest = size - 127;
                while rest >= 128 {
                    out.push((rest % 128) as u8 | 128);
                    rest /= 128;
                }
                out.push(rest as u8);
            }
        }
        out.extend(bytes);
        out
    };
    [vec![0], text(name), text(value)].concat()
}

pub fn fields(lines: &[(&str, &str)]) -> Vec<u8> {
    lines.iter().flat_map(|(name, value)| field(name, value)).collect()
}

/// An ordinary GET.
pub fn get(path: &str) -> Vec<u8> {
    let authority = (":authority", "a.test");
    fields(&[(":method", "GET"), (":scheme", "http"), (":path", path), authority])
}

/// One connection, begun.
pub struct Raw {
    read: OwnedReadHalf,
    write: Option<OwnedWriteHalf>,
    bytes: Vec<u8>,
}

impl Raw {
    pub async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("connect");
        let _ = stream.set_nodelay(true);
        let (read, mut write) = stream.into_split();
        let begin =
            [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(SETTINGS, 0, 0, &[])].concat();
        write.write_all(&begin).await.expect("the preface");
        Self { read, write: Some(write), bytes: Vec::new() }
    }

    /// Sends what the other side still takes.
    pub async fn send(&mut self, bytes: &[u8]) {
        if let Some(write) = &mut self.write {
            let _ = write.write_all(bytes).await;
        }
    }

    /// What is sent by, for who sends while another reads.
    pub fn sender(&mut self) -> OwnedWriteHalf {
        self.write.take().expect("it is there")
    }

    /// The next frame: kind, flags, stream, payload.
    pub async fn next(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        loop {
            if let [a, b, c, kind, flags, s @ ..] = &self.bytes[..self.bytes.len().min(9)]
                && let Ok(stream) = <[u8; 4]>::try_from(s)
            {
                let size = u32::from_be_bytes([0, *a, *b, *c]) as usize;
                if self.bytes.len() >= 9 + size {
                    let (kind, flags, stream) = (*kind, *flags, u32::from_be_bytes(stream));
                    let payload = self.bytes[9..9 + size].to_vec();
                    self.bytes.drain(..9 + size);
                    return Some((kind, flags, stream, payload));
                }
            }
            match self.read.read_buf(&mut self.bytes).await {
                Ok(1..) => {}
                Ok(0) | Err(_) => return None,
            }
        }
    }

    /// How `stream` ends, or the connection.
    pub async fn end_of(&mut self, stream: u32) -> End {
        let code = |payload: &[u8], at: usize| {
            payload
                .get(at..at + 4)
                .and_then(|code| code.try_into().ok())
                .map_or(0, u32::from_be_bytes)
        };
        let end = async {
            while let Some((kind, _, of, payload)) = self.next().await {
                match kind {
                    GOAWAY => return End::GoAway(code(&payload, 4)),
                    RST_STREAM if of == stream => return End::Reset(code(&payload, 0)),
                    HEADERS if of == stream => {
                        // RFC 7541 section 6.3 may come before it; 0x88 is `:status: 200`.
                        let first = payload.iter().find(|byte| **byte & 0xe0 != 0x20);
                        return End::Answer(first == Some(&0x88));
                    }
                    _ => {}
                }
            }
            End::Closed
        };
        timeout(Duration::from_secs(10), end).await.unwrap_or(End::Nothing)
    }
}
