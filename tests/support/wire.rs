//! HTTP/1.1 as bytes on a socket, for both ends: heads kept as they arrived, bodies by their
//! framing. Written without hyper, so that it disagrees where Burdock's engine is wrong.

use std::io;
use std::net::SocketAddr;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Bodies longer than this are counted, not kept.
const KEPT_BODY: usize = 4 << 20;

/// A request or response head.
#[derive(Debug, Clone, Default)]
pub struct Head {
    pub start: String,
    pub fields: Vec<(String, String)>,
    pub raw: Vec<u8>,
}

impl Head {
    pub fn parse(raw: &[u8]) -> Self {
        let text = String::from_utf8_lossy(raw).into_owned();
        let mut lines = text.split("\r\n");
        let start = lines.next().unwrap_or_default().to_owned();
        let fields = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
            .collect();
        Self { start, fields, raw: raw.to_vec() }
    }

    /// The first line of this name.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }

    /// Every line of this name, in order.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.fields
            .iter()
            .filter(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
            .collect()
    }

    pub fn method(&self) -> &str {
        self.start.split(' ').next().unwrap_or_default()
    }

    pub fn target(&self) -> &str {
        self.start.split(' ').nth(1).unwrap_or_default()
    }

    pub fn status(&self) -> u16 {
        self.start.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or_default()
    }

    fn says(&self, name: &str, token: &str) -> bool {
        self.all(name)
            .iter()
            .flat_map(|line| line.split(','))
            .any(|t| t.trim().eq_ignore_ascii_case(token))
    }

    pub fn wants_close(&self) -> bool {
        self.says("connection", "close")
            || (self.start.contains("HTTP/1.0") && !self.says("connection", "keep-alive"))
    }

    pub fn request_framing(&self) -> Framing {
        self.framing(Framing::None)
    }

    pub fn response_framing(&self, method: &str) -> Framing {
        match self.status() {
            100..=199 | 204 | 304 => Framing::None,
            _ if method == "HEAD" => Framing::None,
            _ => self.framing(Framing::ToEnd),
        }
    }

    fn framing(&self, otherwise: Framing) -> Framing {
        if self.says("transfer-encoding", "chunked") {
            return Framing::Chunked;
        }
        match self.field("content-length").map(str::parse) {
            Some(Ok(length)) => Framing::Length(length),
            _ => otherwise,
        }
    }
}

/// Where a body ends (RFC 9112 section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    None,
    Length(u64),
    Chunked,
    ToEnd,
}

/// A body as it arrived.
#[derive(Debug, Clone, Default)]
pub struct Body {
    pub size: u64,
    /// The whole of it, up to a few MiB.
    pub bytes: Vec<u8>,
    pub trailers: Vec<(String, String)>,
}

impl Body {
    fn take(&mut self, part: &[u8]) {
        self.size += part.len() as u64;
        let room = KEPT_BODY.saturating_sub(self.bytes.len());
        self.bytes.extend_from_slice(&part[..part.len().min(room)]);
    }
}

/// A socket and what was read of it but not yet used.
#[derive(Debug)]
pub struct Conn {
    pub stream: TcpStream,
    pub buffer: BytesMut,
}

impl Conn {
    pub fn new(stream: TcpStream) -> Self {
        drop(stream.set_nodelay(true));
        Self { stream, buffer: BytesMut::new() }
    }

    pub async fn connect(address: SocketAddr) -> io::Result<Self> {
        TcpStream::connect(address).await.map(Self::new)
    }

    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// Reads once; 0 is the end.
    pub async fn fill(&mut self) -> io::Result<usize> {
        self.buffer.reserve(64 * 1024);
        self.stream.read_buf(&mut self.buffer).await
    }

    async fn need(&mut self) -> io::Result<()> {
        match self.fill().await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// The next head, or `None` if the peer closed before its first byte.
    pub async fn head(&mut self) -> io::Result<Option<Head>> {
        let mut seen = 0;
        loop {
            let from = seen;
            if let Some(at) = self.buffer[from..].windows(4).position(|w| w == b"\r\n\r\n") {
                let raw = self.buffer.split_to(from + at + 4);
                return Ok(Some(Head::parse(&raw)));
            }
            seen = self.buffer.len().saturating_sub(3);
            if self.fill().await? == 0 {
                let empty = self.buffer.is_empty();
                return if empty { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
        }
    }

    /// The whole of a body.
    pub async fn body(&mut self, framing: Framing) -> io::Result<Body> {
        let mut body = Body::default();
        match framing {
            Framing::None => {}
            Framing::Length(length) => self.take(&mut body, length).await?,
            Framing::Chunked => self.chunks(&mut body).await?,
            Framing::ToEnd => {
                while self.fill().await? > 0 {
                    body.take(&self.buffer.split());
                }
                body.take(&self.buffer.split());
            }
        }
        Ok(body)
    }

    async fn take(&mut self, body: &mut Body, mut length: u64) -> io::Result<()> {
        while length > 0 {
            if self.buffer.is_empty() {
                self.need().await?;
            }
            let n = length.min(self.buffer.len() as u64) as usize;
            body.take(&self.buffer.split_to(n));
            length -= n as u64;
        }
        Ok(())
    }

    async fn chunks(&mut self, body: &mut Body) -> io::Result<()> {
        loop {
            let line = self.line().await?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = u64::from_str_radix(size, 16)
                .map_err(|_| io::Error::other(format!("not a chunk size: {line:?}")))?;
            if size == 0 {
                break;
            }
            self.take(body, size).await?;
            self.line().await?;
        }
        loop {
            let line = self.line().await?;
            let Some((name, value)) = line.split_once(':') else { return Ok(()) };
            body.trailers.push((name.to_owned(), value.trim().to_owned()));
        }
    }

    /// One line without its CRLF.
    pub async fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(at) = self.buffer.windows(2).position(|w| w == b"\r\n") {
                let line = self.buffer.split_to(at);
                self.buffer.advance(2);
                return Ok(String::from_utf8_lossy(&line).into_owned());
            }
            self.need().await?;
        }
    }

    /// Exactly `n` bytes.
    pub async fn exactly(&mut self, n: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < n {
            self.need().await?;
        }
        Ok(self.buffer.split_to(n).to_vec())
    }

    /// Everything until the peer closes its half; a reset counts as the end.
    pub async fn read_to_end(&mut self) -> Vec<u8> {
        while let Ok(1..) = self.fill().await {}
        self.buffer.split().to_vec()
    }

    /// Waits until the peer has closed; true if nothing arrived before.
    pub async fn closed_without_a_byte(&mut self) -> bool {
        self.read_to_end().await.is_empty()
    }

    /// Ends the connection with a reset instead of a FIN.
    pub fn reset(self) {
        let socket = socket2::SockRef::from(&self.stream);
        drop(socket.set_linger(Some(std::time::Duration::ZERO)));
    }
}

/// A chunked body of one chunk per part.
pub fn chunked(parts: &[&[u8]], trailers: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for part in parts.iter().filter(|part| !part.is_empty()) {
        out.extend(chunk(part));
    }
    out.extend_from_slice(b"0\r\n");
    for (name, value) in trailers {
        out.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    out.extend_from_slice(b"\r\n");
    out
}

/// One chunk; `part` is not empty.
pub fn chunk(part: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", part.len()).as_bytes(), part, b"\r\n"].concat()
}

/// What ends a chunked body without trailers.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";
