//! `burdock events`: what has happened, and with `-f` what happens.

use std::process::ExitCode;
use std::time::Duration;

use http_body_util::BodyExt;
use serde_json::Value;

use super::client::{Client, ClientError};
use super::shapes::Event;
use super::sse::{Assembly, Message};
use super::{client_of, paper, say, show};
use crate::cli::Access;

/// Between two tries to be told again.
const AGAIN: Duration = Duration::from_secs(1);

/// Prints the events that the balancer remembers, then those that come.
pub(super) async fn run(
    access: &Access,
    follow: bool,
    since: Option<u64>,
) -> Result<ExitCode, ClientError> {
    let client = client_of(access)?;
    let from = |id: Option<u64>| id.map(|id| format!("&since={id}")).unwrap_or_default();
    let path = format!("/api/v1/events?format=json{}", from(since));
    let mut answer = client.get(&path).await?;
    let mut last = since;
    if let Some(events) = answer.get_mut("events").and_then(Value::as_array_mut) {
        for event in events.drain(..) {
            if !tell(access, &client, event, &mut last)? {
                return Ok(ExitCode::SUCCESS);
            }
        }
    }
    if !follow {
        return Ok(ExitCode::SUCCESS);
    }
    let mut was_lost = false;
    loop {
        match listen(access, &client, &mut last).await {
            Ok(Heard::Enough) => return Ok(ExitCode::SUCCESS),
            Ok(Heard::Ended) => {}
            Err(error @ (ClientError::Connect { .. } | ClientError::Strange { .. })) => {
                // It may be on its way up again.
                if !std::mem::replace(&mut was_lost, true) {
                    eprintln!("burdock: {error}; waiting for it");
                }
            }
            Err(error) => return Err(error),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Why a stream is no longer listened to.
enum Heard {
    /// Nobody reads what is printed.
    Enough,
    /// The balancer ended it.
    Ended,
}

async fn listen(
    access: &Access,
    client: &Client,
    last: &mut Option<u64>,
) -> Result<Heard, ClientError> {
    let path = format!("/api/v1/events?since={}", last.unwrap_or_default());
    let mut body = client.stream(&path).await?;
    let mut assembly = Assembly::default();
    while let Some(Ok(frame)) = body.frame().await {
        let Ok(bytes) = frame.into_data() else { continue };
        for Message { data, .. } in assembly.feed(&bytes) {
            let Ok(event) = serde_json::from_str::<Value>(&data) else { continue };
            if !tell(access, client, event, last)? {
                return Ok(Heard::Enough);
            }
        }
    }
    Ok(Heard::Ended)
}

/// Prints an event that is not known yet; whether somebody reads it.
fn tell(
    access: &Access,
    client: &Client,
    event: Value,
    last: &mut Option<u64>,
) -> Result<bool, ClientError> {
    let line = if access.json { event.to_string() } else { String::new() };
    let event: Event = client.read(event)?;
    if last.is_some_and(|last| event.id <= last) {
        return Ok(true);
    }
    *last = Some(event.id);
    let line = if access.json { line } else { show::event(&event, paper()) };
    Ok(say(&format!("{line}\n")))
}
