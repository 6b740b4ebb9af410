//! News from the admin API: the live seconds, the events, a status now and then. Each source is asked
//! again when it ends.

use std::time::Duration;

use http::Method;
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::sync::mpsc::Sender;

use super::state::{News, Wanted};
use crate::operate::client::{Client, ClientError, path};
use crate::operate::shapes::{Event, Events, Status, Tick};
use crate::operate::sse::Assembly;

/// Instances come with the live seconds.
pub(super) const STATUS: &str = "/api/v1/status?instances=false";
/// Between two looks at the status.
const STATUS_INTERVAL: Duration = Duration::from_secs(3);
/// Between two tries.
const AGAIN: Duration = Duration::from_secs(1);

/// Lets all sources send their news until nobody hears them.
pub(super) fn begin(client: &Client, news: &Sender<News>) {
    tokio::spawn(live(client.clone(), news.clone()));
    tokio::spawn(events(client.clone(), news.clone()));
    tokio::spawn(status(client.clone(), news.clone()));
}

/// Asks for a change, and sends what comes of it.
pub(super) fn steer(client: &Client, news: &Sender<News>, id: String, wanted: Wanted) {
    let (client, news) = (client.clone(), news.clone());
    tokio::spawn(async move {
        let body = json!({ "state": wanted.word() });
        let done = client.send(Method::PATCH, &path("instances", &id), &body).await;
        let said = match done {
            Ok(_) => Ok(format!("{id}: {}", wanted.done())),
            Err(error) => Err(format!("{id}: {error}")),
        };
        let _ = news.send(News::Steered(said)).await;
    });
}

async fn status(client: Client, news: Sender<News>) {
    loop {
        tokio::time::sleep(STATUS_INTERVAL).await;
        let asked = async { client.read::<Status>(client.get(STATUS).await?) };
        let heard = match asked.await {
            Ok(status) => News::Status(Box::new(status)),
            Err(error) => News::Lost(error.to_string()),
        };
        if news.send(heard).await.is_err() {
            return;
        }
    }
}

async fn live(client: Client, news: Sender<News>) {
    loop {
        let ended = follow(&client, "/api/v1/live", |tick: Tick| {
            let news = &news;
            async move { news.send(News::Tick(Box::new(tick))).await.is_ok() }
        });
        let why = match ended.await {
            Ok(true) => return,
            Ok(false) => "the balancer ended the connection".to_owned(),
            Err(error) => error.to_string(),
        };
        if news.send(News::Lost(why)).await.is_err() {
            return;
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn events(client: Client, news: Sender<News>) {
    let mut last = 0;
    let asked = async { client.read::<Events>(client.get("/api/v1/events?format=json").await?) };
    // A lost balancer is told of by the other sources.
    for event in asked.await.unwrap_or_default().events {
        last = event.id;
        if news.send(News::Event(event)).await.is_err() {
            return;
        }
    }
    loop {
        let from = format!("/api/v1/events?since={last}");
        let ended = follow(&client, &from, |event: Event| {
            last = last.max(event.id);
            let news = &news;
            async move { news.send(News::Event(event)).await.is_ok() }
        });
        if matches!(ended.await, Ok(true)) {
            return;
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Follows a stream of server-sent events; whether it was left because nobody wants more.
async fn follow<T: DeserializeOwned, F: Future<Output = bool>>(
    client: &Client,
    path: &str,
    mut tell: impl FnMut(T) -> F,
) -> Result<bool, ClientError> {
    let mut body = client.stream(path).await?;
    let mut assembly = Assembly::default();
    while let Some(Ok(frame)) = body.frame().await {
        let Ok(bytes) = frame.into_data() else { continue };
        for message in assembly.feed(&bytes) {
            let Ok(told) = serde_json::from_str(&message.data) else { continue };
            if !tell(told).await {
                return Ok(true);
            }
        }
    }
    Ok(false)
}
