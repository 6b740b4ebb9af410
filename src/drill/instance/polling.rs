//! Long polling in the manner of engine.io 4: a session is opened by a GET without an id, read by
//! GETs and written to by POSTs, and is known only to the instance that opened it.

use std::time::Duration;

use http::StatusCode;
use serde_json::json;

use super::State;
use super::memory::Poll;

/// How long a poll is held; engine.io pings about as often.
const HOLD: Duration = Duration::from_secs(2);
/// What engine.io answers, to the byte.
const UNKNOWN: &str = r#"{"code":1,"message":"Session ID unknown"}"#;

/// Packets of engine.io.
const OPEN: char = '0';
const PING: &str = "2";
const MESSAGE: char = '4';
/// Stands between packets.
const BETWEEN: &str = "\u{1e}";

pub(super) fn open(state: &State) -> (StatusCode, String) {
    let sid = format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
    let shake = json!({
        "sid": sid, "upgrades": [], "pingInterval": 2000, "pingTimeout": 20000, "maxPayload": 100_000
    });
    state.memory().polls.insert(sid, Poll::default());
    (StatusCode::OK, format!("{OPEN}{shake}"))
}

pub(super) async fn read(state: &State, sid: &str) -> (StatusCode, String) {
    let Some(poll) = find(state, sid) else { return unknown() };
    let rung = tokio::time::timeout(HOLD, async {
        loop {
            let unread = poll.take();
            if !unread.is_empty() {
                return unread;
            }
            poll.bell.notified().await;
        }
    });
    let packets = rung.await.unwrap_or_else(|_| vec![PING.to_owned()]);
    (StatusCode::OK, packets.join(BETWEEN))
}

/// Each message comes back to its session.
pub(super) fn write(state: &State, sid: &str, body: &str) -> (StatusCode, String) {
    let Some(poll) = find(state, sid) else { return unknown() };
    for packet in body.split(BETWEEN).filter(|packet| packet.starts_with(MESSAGE)) {
        poll.push(packet.to_owned());
    }
    (StatusCode::OK, "ok".to_owned())
}

fn find(state: &State, sid: &str) -> Option<Poll> {
    state.memory().polls.get(sid).cloned()
}

fn unknown() -> (StatusCode, String) {
    (StatusCode::BAD_REQUEST, UNKNOWN.to_owned())
}
