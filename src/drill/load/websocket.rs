//! Clients with a WebSocket: each numbered message must come back once and in its turn. One that
//! ends is opened again, as a browser's script would.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use http::header::{self, HeaderValue};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use super::browser::Jar;
use super::{Client, Flaw, Name, Trouble};
use crate::drill::record::End;
use crate::drill::wire;

/// Between an end and the next opening; up to twice that, so that clients don't come all at once.
const PAUSE: Duration = Duration::from_millis(100);
/// How long a Close may take to be answered.
const FAREWELL: Duration = Duration::from_millis(500);

/// An open tunnel.
struct Tunnel {
    socket: WebSocketStream<TcpStream>,
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
    let (mut jar, mut number) = (Jar::default(), 0_u64);
    let mut tunnel: Option<Tunnel> = None;
    while let Some(due) = client.upcoming() {
        let open = match &mut tunnel {
            Some(open) => open,
            None => {
                if !client.sleep(due.min(client.common.record.now())).await {
                    return;
                }
                let begun = client.common.record.now();
                match open(&mut client, &mut jar).await {
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
            code = end(&mut open.socket) => Waited::Ended(code),
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
    if let Some(mut open) = tunnel {
        let _ = timeout(FAREWELL, open.socket.close(None)).await;
    }
}

/// Why a tunnel is no more.
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

async fn open(client: &mut Client, jar: &mut Jar) -> Result<Tunnel, Trouble> {
    let patience = client.common.patience;
    let opening = async {
        let address = client.common.address;
        let stream = TcpStream::connect(address).await.map_err(|_| Trouble::Refused)?;
        let _ = stream.set_nodelay(true);
        let url = format!("ws://{address}{}", wire::WEBSOCKET);
        let mut request = url.into_client_request().map_err(|_| Trouble::Refused)?;
        if let Ok(host) = HeaderValue::from_str(&client.common.host) {
            request.headers_mut().insert(header::HOST, host);
        }
        jar.send(request.headers_mut());
        match client_async(request, stream).await {
            Ok(opened) => Ok(opened),
            Err(Error::Http(answer)) => Err(Trouble::Status(answer.status().as_u16())),
            Err(_) => Err(Trouble::Broke),
        }
    };
    let (socket, answer) = timeout(patience, opening).await.unwrap_or(Err(Trouble::Late))?;
    jar.keep(answer.headers());
    let name = answer.headers().get(wire::INSTANCE).and_then(|name| name.to_str().ok());
    let to = Name::from(name.unwrap_or_default());
    client.answered_by(&to);
    let record = &client.common.record;
    record.notes().opened.push((record.now(), Arc::clone(&to)));
    Ok(Tunnel { socket, to })
}

/// Sends a number and waits for it.
async fn echo(client: &Client, tunnel: &mut Tunnel, number: u64) -> Result<(), Lost> {
    let socket = &mut tunnel.socket;
    if socket.send(Message::text(number.to_string())).await.is_err() {
        // What the other side said before it left is still to be read.
        return Err(Lost::Ended(end(socket).await));
    }
    loop {
        match socket.next().await {
            Some(Ok(Message::Text(text))) => match text.parse::<u64>() {
                Ok(come) if come == number => return Ok(()),
                Ok(come) if come < number => client.flaw(Flaw::Duplicated),
                Ok(_) => client.flaw(Flaw::Reordered),
                Err(_) => client.flaw(Flaw::Wrong),
            },
            Some(Ok(Message::Close(frame))) => {
                let code = frame.map_or(1005, |frame| u16::from(frame.code));
                // The answer to the Close goes out with the next look.
                let _ = timeout(FAREWELL, socket.next()).await;
                return Err(Lost::Ended(Some(code)));
            }
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return Err(Lost::Ended(None)),
        }
    }
}

/// Resolves at the end of a tunnel on which nothing is expected, with the code of its Close.
async fn end(socket: &mut WebSocketStream<TcpStream>) -> Option<u16> {
    let mut code = None;
    loop {
        match socket.next().await {
            Some(Ok(Message::Close(frame))) => {
                code = Some(frame.map_or(1005, |frame| u16::from(frame.code)));
            }
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return code,
        }
    }
}
