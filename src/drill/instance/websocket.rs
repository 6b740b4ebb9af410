//! A WebSocket of an embedded instance: every message goes back as it came.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::header::{self, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Message, Role};

use super::answers::Broken;

/// Where the upgrade of a connection is left, so that a tunnel ends with its connection's task.
pub(super) type Slot = Mutex<Option<OnUpgrade>>;

/// Answers the opening handshake (RFC 6455 section 4.2.2).
pub(super) fn accept(
    slot: &Slot,
    mut request: Request<Incoming>,
) -> Response<UnsyncBoxBody<Bytes, Broken>> {
    let mut answer = Response::new(Full::default().map_err(|never| match never {}).boxed_unsync());
    let key = request.headers().get(header::SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes);
    let proof = key.and_then(|key| HeaderValue::from_str(&derive_accept_key(key)).ok());
    let Some(proof) = proof else {
        *answer.status_mut() = StatusCode::BAD_REQUEST;
        return answer;
    };
    let upgrade = hyper::upgrade::on(&mut request);
    *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(upgrade);
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, proof);
    answer
}

/// Echoes until either side ends it.
pub(super) async fn serve(upgrade: OnUpgrade) {
    let Ok(upgraded) = upgrade.await else { return };
    let io = TokioIo::new(upgraded);
    let mut socket = WebSocketStream::from_raw_socket(io, Role::Server, None).await;
    while let Some(Ok(message)) = socket.next().await {
        if let Message::Text(_) | Message::Binary(_) = message
            && socket.send(message).await.is_err()
        {
            return;
        }
    }
}
