//! Clients with a WebSocket: each numbered message must come back once and in its turn. One that
//! ends is opened again, as a browser's script would.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, header};
use tokio::time::timeout;

use super::browser::Browser;
use super::frames::{Come, Socket};
use super::{Client, Flaw, Name, Trouble};
use crate::drill::record::End;
use crate::drill::wire;

/// Between an end and the next opening; up to twice that, so that clients don't come all at once.
const PAUSE: Duration = Duration::from_millis(100);
/// Any 16 bytes in base64 (RFC 6455 section 4.1); a client that is no browser gains nothing by chance.
const KEY: &str = "YnVyZG9jayBkcmlsbHMgIQ==";

/// An open tunnel.
struct Tunnel {
    socket: Socket,
    to: Name,
}

/// How a wait ended.
enum Waited {
    Due(Duration),
    /// The tunnel ended, with this code if there was one.
    Ended(Option<u16>),
    Over,
}

/// Sends until the end.
pub(super) async fn run(mut client: Client) {
    let (mut browser, mut number) = (Browser::new(&client.common), 0_u64);
    let mut tunnel: Option<Tunnel> = None;
    while let Some(due) = client.upcoming() {
        let open = match &mut tunnel {
            Some(open) => open,
            None => {
                if !client.sleep(due.min(client.common.record.now())).await {
                    return;
                }
                let begun = client.common.record.now();
                match open(&mut client, &mut browser).await {
                    Ok(open) => tunnel.insert(open),
                    Err(trouble) => {
                        client.note(begun, Some(trouble));
                        let pause = PAUSE.mul_f64(1.0 + client.rng.f64());
                        client.sleep(client.common.record.now() + pause).await;
                        continue;
                    }
                }
            }
        };
        let waited = tokio::select! {
            goes_on = client.sleep(due) => if goes_on { Waited::Due(due) } else { Waited::Over },
            code = end(&client, &mut open.socket) => Waited::Ended(code),
        };
        let ended = match waited {
            Waited::Over => break,
            Waited::Ended(code) => Err(Lost::Ended(code)),
            Waited::Due(due) => {
                client.advance();
                let echoed = echo(&client, open, number + 1);
                let echoed = timeout(client.common.patience, echoed).await;
                let echoed = echoed.unwrap_or(Err(Lost::Late));
                if echoed.is_ok() {
                    number += 1;
                    let name = Arc::clone(&open.to);
                    client.answered_by(&name);
                    client.note(due, None);
                }
                echoed
            }
        };
        if let Err(lost) = ended {
            leave(&client, &open.to, lost);
            tunnel = None;
            let pause = PAUSE.mul_f64(1.0 + client.rng.f64());
            client.sleep(client.common.record.now() + pause).await;
        }
    }
    if let Some(open) = tunnel {
        open.socket.close().await;
    }
}

/// Why a tunnel is no more.
#[derive(Clone, Copy)]
enum Lost {
    Ended(Option<u16>),
    Late,
}

/// Notes the end of a tunnel. One with a Close is what was agreed on; the message that was under
/// way is sent again on the next.
fn leave(client: &Client, from: &Name, lost: Lost) {
    let record = &client.common.record;
    let at = record.now();
    let code = match lost {
        Lost::Ended(code) => code,
        Lost::Late => {
            client.note(at, Some(Trouble::Late));
            None
        }
    };
    if code.is_none() {
        client.note(at, Some(Trouble::Unclosed));
    }
    record.notes().ends.push(End { at, from: Arc::clone(from), code });
}

async fn open(client: &mut Client, browser: &mut Browser) -> Result<Tunnel, Trouble> {
    let request = Request::builder()
        .uri(wire::WEBSOCKET)
        .header(header::CONNECTION, "upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_VERSION, "13")
        .header(header::SEC_WEBSOCKET_KEY, KEY);
    let request = request.body(Bytes::new()).unwrap_or_default();
    let (upgraded, name) = browser.upgrade(request).await?;
    let to = name.unwrap_or_default();
    client.answered_by(&to);
    let record = &client.common.record;
    record.notes().opened.push((record.now(), Arc::clone(&to)));
    Ok(Tunnel { socket: Socket::new(upgraded), to })
}

/// Sends a number and waits for it.
async fn echo(client: &Client, tunnel: &mut Tunnel, number: u64) -> Result<(), Lost> {
    let socket = &mut tunnel.socket;
    // What the other side said before it left is still to be read.
    let _ = socket.send(&number.to_string()).await;
    loop {
        match socket.next().await {
            Come::Text(text) => match text.parse::<u64>() {
                Ok(come) if come == number => return Ok(()),
                Ok(come) if come < number => client.flaw(Flaw::Duplicated),
                Ok(_) => client.flaw(Flaw::Reordered),
                Err(_) => client.flaw(Flaw::Wrong),
            },
            Come::End(code) => return Err(Lost::Ended(code)),
        }
    }
}

/// Resolves at the end of a tunnel on which nothing is expected, with the code of its Close.
async fn end(client: &Client, socket: &mut Socket) -> Option<u16> {
    loop {
        match socket.next().await {
            Come::Text(_) => client.flaw(Flaw::Duplicated),
            Come::End(code) => return code,
        }
    }
}
