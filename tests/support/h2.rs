//! A client that speaks HTTP/2 with prior knowledge, and a WebSocket on one of its streams.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::ext::Protocol;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Method, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::wire::{Conn, Head};
use super::within;
use super::ws::WebSocket;

/// One connection.
#[derive(Debug)]
pub struct H2 {
    pub send: SendRequest<Bytes>,
    /// How it ends.
    pub ended: JoinHandle<Result<(), h2::Error>>,
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub fields: HeaderMap,
    pub body: Vec<u8>,
    pub trailers: Option<HeaderMap>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn instance(&self) -> &str {
        self.fields.get("x-instance").and_then(|name| name.to_str().ok()).unwrap_or_default()
    }
}

impl H2 {
    pub async fn connect(address: SocketAddr) -> Self {
        Self::with_window(address, 1 << 20).await
    }

    /// A client that takes this much of each answer before it is read.
    pub async fn with_window(address: SocketAddr, window: u32) -> Self {
        Self::over(TcpStream::connect(address).await.expect("connect"), window).await
    }

    /// On a connection of any kind.
    pub async fn over(
        stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
        window: u32,
    ) -> Self {
        let mut builder = h2::client::Builder::new();
        // Answers may be read one after the other, whatever order they come in.
        builder.initial_window_size(window).initial_connection_window_size(1 << 28);
        let handshake = builder.handshake(stream);
        let (send, connection) = within("the settings", handshake).await.expect("a handshake");
        let ended = tokio::spawn(connection);
        let send = within("room for a stream", send.ready()).await.expect("an open connection");
        Self { send, ended }
    }

    /// Begins a request; without `open` it has no body.
    pub fn begin(
        &mut self,
        request: Request<()>,
        open: bool,
    ) -> (ResponseFuture, SendStream<Bytes>) {
        self.send.send_request(request, !open).expect("send a request")
    }

    pub async fn get(&mut self, path: &str) -> Answer {
        let (answer, _) = self.begin(get(path), false);
        finish(answer).await.expect("an answer")
    }

    /// Whether the server has said that it knows RFC 8441.
    pub async fn opens_websockets(&self) -> bool {
        for _ in 0..200 {
            if self.send.is_extended_connect_protocol_enabled() {
                return true;
            }
            super::pause().await;
        }
        false
    }

    /// Asks for a WebSocket; the head of the answer, and the stream.
    pub async fn dial(
        &mut self,
        path: &str,
        extra: &[(&str, &str)],
    ) -> (Head, RecvStream, SendStream<Bytes>) {
        assert!(self.opens_websockets().await);
        let mut request = Request::builder()
            .method(Method::CONNECT)
            .uri(format!("http://app.test{path}"))
            .header("sec-websocket-version", "13")
            .extension(Protocol::from_static("websocket"));
        for (name, value) in extra {
            request = request.header(*name, *value);
        }
        let (answer, send) = self.begin(request.body(()).unwrap(), true);
        let (head, body) = within("a head", answer).await.expect("an answer").into_parts();
        let mut lines = format!("HTTP/2 {}\r\n", head.status.as_u16());
        for (name, value) in &head.headers {
            lines.push_str(&format!("{name}: {}\r\n", value.to_str().unwrap()));
        }
        (Head::parse(lines.as_bytes()), body, send)
    }

    /// A WebSocket on a stream. What reads and writes it is a socket, as for every other.
    pub async fn websocket(&mut self, path: &str) -> WebSocket {
        let (head, receive, send) = self.dial(path, &[]).await;
        assert_eq!(head.status(), 200, "{head:?}");
        WebSocket { conn: bridge(receive, send).await, head }
    }
}

pub fn get(path: &str) -> Request<()> {
    Request::builder().uri(format!("http://app.test{path}")).body(()).unwrap()
}

/// Reads an answer to its end.
pub async fn finish(answer: ResponseFuture) -> Result<Answer, h2::Error> {
    let (head, mut body) = within("a head", answer).await?.into_parts();
    let mut bytes = Vec::new();
    while let Some(part) = within("a part of a body", body.data()).await {
        let part = part?;
        body.flow_control().release_capacity(part.len())?;
        bytes.extend_from_slice(&part);
    }
    let trailers = within("trailers", body.trailers()).await?;
    let (status, fields) = (head.status.as_u16(), head.headers);
    Ok(Answer { status, fields, body: bytes, trailers })
}

/// Sends all of `bytes` as the stream takes them, and its end if `last`.
pub async fn send_all(
    stream: &mut SendStream<Bytes>,
    mut bytes: Bytes,
    last: bool,
) -> Result<(), h2::Error> {
    while !bytes.is_empty() {
        stream.reserve_capacity(bytes.len());
        let room = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await;
        let room = room.ok_or(h2::Reason::STREAM_CLOSED)??;
        let part = bytes.split_to(room.min(bytes.len()));
        stream.send_data(part, last && bytes.is_empty())?;
    }
    Ok(())
}

/// A socket whose other end is the stream.
async fn bridge(mut receive: RecvStream, mut send: SendStream<Bytes>) -> Conn {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let here = TcpStream::connect(listener.local_addr().unwrap()).await.expect("connect");
    let (there, _) = listener.accept().await.expect("accept");
    let (mut read, mut write) = there.into_split();
    tokio::spawn(async move {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(size @ 1..) = read.read(&mut buffer).await {
            let part = Bytes::copy_from_slice(&buffer[..size]);
            if send_all(&mut send, part, false).await.is_err() {
                return;
            }
        }
        drop(send.send_data(Bytes::new(), true));
    });
    tokio::spawn(async move {
        while let Some(Ok(part)) = receive.data().await {
            drop(receive.flow_control().release_capacity(part.len()));
            if write.write_all(&part).await.is_err() {
                return;
            }
        }
        drop(write.shutdown().await);
    });
    Conn::new(here)
}
