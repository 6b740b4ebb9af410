//! Clients that poll as engine.io does: one request is always there for what comes, another brings
//! each numbered message, and the message must come back once and in its turn.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use serde_json::Value;

use super::browser::{Answer, Browser, Jar};
use super::{Client, Flaw, Trouble};
use crate::drill::wire;

/// Between two tries to open a session.
const PAUSE: Duration = Duration::from_millis(200);
/// Stands between packets.
const BETWEEN: char = '\u{1e}';

/// Polls until the end.
pub(super) async fn run(mut client: Client) {
    let mut number = 0_u64;
    let (mut session, mut jar) = (None, Jar::default());
    while let Some(due) = client.next().await {
        let mut open = match session.take() {
            Some(open) => open,
            None => match Session::open(&mut client, &mut jar).await {
                Ok(open) => open,
                Err(trouble) => {
                    client.note(due, Some(trouble));
                    client.sleep(client.common.record.now() + PAUSE).await;
                    continue;
                }
            },
        };
        number += 1;
        match open.converse(&mut client, number).await {
            Ok(()) => {
                client.note(due, None);
                session = Some(open);
            }
            Err(trouble) => client.note(due, Some(trouble)),
        }
    }
}

/// An open session: two connections with one jar.
struct Session {
    path: String,
    reader: Browser,
    writer: Browser,
}

impl Session {
    async fn open(client: &mut Client, jar: &mut Jar) -> Result<Self, Trouble> {
        let mut reader = Browser::new(&client.common).beside(jar.clone());
        let path = format!("{}?EIO=4&transport=polling", wire::POLL);
        let answer = good(reader.ask(request(Method::GET, &path, "")).await?)?;
        let shake = answer.body.strip_prefix(b"0").unwrap_or_default();
        let shake: Value = serde_json::from_slice(shake).unwrap_or_default();
        let Some(sid) = shake["sid"].as_str() else { return Err(Trouble::Broke) };
        *jar = reader.jar();
        if let Some(name) = &answer.instance {
            client.answered_by(name);
        }
        let writer = reader.beside(jar.clone());
        Ok(Self { path: format!("{path}&sid={sid}"), reader, writer })
    }

    /// Sends one message, and waits until it has come back.
    async fn converse(&mut self, client: &mut Client, number: u64) -> Result<(), Trouble> {
        let Self { path, reader, writer } = self;
        let patience = client.common.patience;
        let conversation = async {
            let coming = poll(client, reader, path, number);
            let sent = async {
                let request = request(Method::POST, path, &format!("4{number}"));
                good(writer.ask(request).await?).map(drop)
            };
            tokio::try_join!(sent, coming).map(drop)
        };
        tokio::time::timeout(patience, conversation).await.unwrap_or(Err(Trouble::Late))
    }
}

/// Polls until message `number` has come.
async fn poll(
    client: &mut Client,
    reader: &mut Browser,
    path: &str,
    number: u64,
) -> Result<(), Trouble> {
    loop {
        let answer = good(reader.ask(request(Method::GET, path, "")).await?)?;
        if let Some(name) = &answer.instance {
            client.answered_by(name);
        }
        let body = String::from_utf8_lossy(&answer.body).into_owned();
        let messages = body.split(BETWEEN).filter_map(|packet| packet.strip_prefix('4'));
        let mut has_come = false;
        for message in messages {
            match message.parse::<u64>() {
                Ok(come) if come == number && !has_come => has_come = true,
                Ok(come) if come <= number => client.flaw(Flaw::Duplicated),
                Ok(_) => client.flaw(Flaw::Lost),
                Err(_) => client.flaw(Flaw::Wrong),
            }
        }
        if has_come {
            return Ok(());
        }
    }
}

fn request(method: Method, path: &str, body: &str) -> Request<Bytes> {
    let request = Request::builder().method(method).uri(path);
    request.body(Bytes::from(body.to_owned())).unwrap_or_default()
}

/// The answer, if it is one of an instance that knows the session.
fn good(answer: Answer) -> Result<Answer, Trouble> {
    match answer.status {
        StatusCode::OK => Ok(answer),
        StatusCode::BAD_REQUEST if answer.instance.is_some() => Err(Trouble::UnknownSession),
        status => Err(Trouble::Status(status.as_u16())),
    }
}
