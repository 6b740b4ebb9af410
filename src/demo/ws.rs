//! The chat over a WebSocket: the handshake (RFC 6455 4.2) and the life of one tunnel. Frames are
//! tungstenite's. It must not know routes, nor who accepted the connection.
//!
//! Start at [`accept`], which leaves the upgrade in a [`Slot`], then [`serve`], which takes it.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::header::{self, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::{CapacityError, Error};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role, WebSocketConfig};

use super::chat::{Chat, MAX_MESSAGE, PostError, too_long};
use super::http::{names_token, refuse, refuse_open, reply};
use super::store::Sid;

/// A pong is the sign of life of a silent client; a third of the store's idle timeout.
const PING_INTERVAL: Duration = Duration::from_secs(20);
/// How long a client may leave its receive window closed.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may take to answer a Close before the connection is dropped.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// An accepted upgrade, waiting until its connection has sent the 101.
#[derive(Debug)]
pub(super) struct Tunnel {
    upgrade: OnUpgrade,
    sid: Sid,
    greeting: String,
}

/// Where the upgrade of one connection is left. The connection's own task goes on as the tunnel's,
/// so that a tunnel ends with its instance.
pub(super) type Slot = Mutex<Option<Tunnel>>;

/// Answers the opening handshake.
pub(super) fn accept(
    chat: &Chat,
    slot: &Slot,
    mut request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    let headers = request.headers();
    let asked = names_token(headers, header::CONNECTION, "upgrade")
        && names_token(headers, header::UPGRADE, "websocket");
    let version = headers.get(header::SEC_WEBSOCKET_VERSION).map(HeaderValue::as_bytes);
    if !asked || version != Some(b"13") {
        // RFC 6455 4.4 and RFC 9110 15.5.22: say which protocol and version would do.
        let mut refusal =
            refuse(StatusCode::UPGRADE_REQUIRED, 3, "this is a WebSocket, version 13");
        let headers = refusal.headers_mut();
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        return refusal;
    }
    // 16 random bytes in base64 are 24 characters, the last two of them padding.
    let key = headers.get(header::SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes);
    let Some(key) = key.filter(|key| key.len() == 24 && key.ends_with(b"==")) else {
        return refuse(StatusCode::BAD_REQUEST, 3, "Sec-WebSocket-Key is missing or malformed");
    };
    let Ok(proof) = HeaderValue::from_str(&derive_accept_key(key)) else {
        return refuse(StatusCode::BAD_REQUEST, 3, "Sec-WebSocket-Key is malformed");
    };
    let (sid, greeting) = match chat.open() {
        Ok(opened) => opened,
        Err(error) => return refuse_open(&error),
    };
    let upgrade = hyper::upgrade::on(&mut request);
    *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(Tunnel { upgrade, sid, greeting });
    let mut switching = reply(StatusCode::SWITCHING_PROTOCOLS, "", "");
    let headers = switching.headers_mut();
    headers.remove(header::CONTENT_TYPE);
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, proof);
    switching
}

/// Runs the tunnel until either side ends it.
pub(super) async fn serve(chat: &Chat, tunnel: Tunnel) {
    if let Ok(upgraded) = tunnel.upgrade.await {
        let config = WebSocketConfig::default()
            .read_buffer_size(MAX_MESSAGE)
            .write_buffer_size(0)
            .max_write_buffer_size(1 << 20)
            .max_message_size(Some(MAX_MESSAGE))
            .max_frame_size(Some(MAX_MESSAGE));
        let io = TokioIo::new(upgraded);
        let mut socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
        let farewell = match converse(chat, tunnel.sid, tunnel.greeting, &mut socket).await {
            Ok(()) => None,
            Err(Error::Capacity(CapacityError::MessageTooLong { .. })) => {
                Some(CloseFrame { code: CloseCode::Size, reason: too_long().into() })
            }
            Err(Error::Protocol(_) | Error::Utf8(_)) => {
                Some(CloseFrame { code: CloseCode::Protocol, reason: "malformed frame".into() })
            }
            Err(_) => None,
        };
        // The peer may be gone: a farewell is a courtesy.
        let _ = timeout(SEND_TIMEOUT, socket.close(farewell)).await;
        let _ = timeout(DRAIN_TIMEOUT, drain(socket.into_inner())).await;
    }
    // The sweep of idle sessions may have been first.
    let _ = chat.close(tunnel.sid);
}

/// Reads what the client still sends: closing over unread bytes would reset the connection, and
/// the reset could overtake the Close frame. RFC 6455 7.1.1 lets the server close first.
async fn drain(mut io: TokioIo<Upgraded>) {
    let mut scratch = [0; 1024];
    if io.shutdown().await.is_ok() {
        while matches!(io.read(&mut scratch).await, Ok(1..)) {}
    }
}

/// Returns when the client has left; an error means that it must be told to.
async fn converse(
    chat: &Chat,
    sid: Sid,
    greeting: String,
    socket: &mut Socket,
) -> Result<(), Error> {
    let mut news = chat.listen();
    let mut ping = interval(PING_INTERVAL);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ping.reset();
    send(socket, Message::text(greeting)).await?;
    loop {
        tokio::select! {
            incoming = socket.next() => match incoming {
                None | Some(Ok(Message::Close(_))) => return Ok(()),
                Some(message) => {
                    if chat.touch(sid).is_err() {
                        return Ok(());
                    }
                    receive(chat, sid, message?, socket).await?;
                }
            },
            // The chat outlives its tunnels, so the bell is never gone.
            _ = news.changed() => {
                let Ok(events) = chat.read(sid) else { return Ok(()) };
                for event in events {
                    send(socket, Message::text(&*event)).await?;
                }
            }
            _ = ping.tick() => send(socket, Message::Ping(Bytes::new())).await?,
        }
    }
}

async fn receive(
    chat: &Chat,
    sid: Sid,
    message: Message,
    socket: &mut Socket,
) -> Result<(), Error> {
    if !message.is_text() && !message.is_binary() {
        return Ok(());
    }
    match chat.post(sid, &message.into_data()) {
        // The session was swept in this very moment; the next read ends the tunnel.
        Ok(()) | Err(PostError::Store(_)) => Ok(()),
        Err(error @ PostError::Malformed) => {
            let refusal = json!({ "type": "refused", "message": error.to_string() });
            send(socket, Message::text(refusal.to_string())).await
        }
    }
}

async fn send(socket: &mut Socket, message: Message) -> Result<(), Error> {
    match timeout(SEND_TIMEOUT, socket.send(message)).await {
        Ok(sent) => sent,
        Err(_) => Err(Error::ConnectionClosed),
    }
}
