//! The journal as the API tells it: the events that are kept, or a stream of them and of all that
//! follow.
//!
//! `GET /api/v1/events`.

use std::sync::Arc;

use http::StatusCode;
use http::header::{ACCEPT, HeaderMap, HeaderName};
use serde_json::{Value, json};

use crate::admin::desk::Desk;
use crate::admin::problem::Problem;
use crate::admin::reply::{self, Reply};
use crate::admin::router::Question;
use crate::admin::stream::{Pen, StreamBody, Streams};
use crate::observe::journal::{KEPT, Page};
use crate::snapshot::Live;

/// Events that are read at once.
const PAGE: usize = 100;
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// A stream, or with `Accept: application/json` or `?format=json` what is kept.
pub(super) fn answer(desk: &Desk, question: &Question) -> Result<Reply, Problem> {
    let seen = seen(&question.headers, question.query.one("since")?)?;
    let wants_json = match question.query.one("format")? {
        Some("json") => true,
        Some(_) => return Err(Problem::wrong("format: allowed: json")),
        None => question.headers.get(ACCEPT).is_some_and(|kind| kind == "application/json"),
    };
    if wants_json {
        return Ok(reply::json(StatusCode::OK, &kept(&desk.live, seen)));
    }
    reply::stream(stream(&desk.live, seen, &desk.streams))
}

/// The event that a client has seen last: as its browser says when it comes back, or as it asks for.
fn seen(headers: &HeaderMap, since: Option<&str>) -> Result<u64, Problem> {
    let told = headers.get(LAST_EVENT_ID).and_then(|id| id.to_str().ok()?.parse().ok());
    match (told, since) {
        (Some(told), _) => Ok(told),
        (None, None) => Ok(0),
        (None, Some(since)) => {
            since.parse().map_err(|_| Problem::wrong("since: allowed: the id of an event"))
        }
    }
}

/// The events that are kept, of those after number `seen`.
fn kept(live: &Live, seen: u64) -> Value {
    let page = live.journal.since(seen, KEPT);
    let events: Vec<_> = page.entries.iter().map(|entry| entry.to_json()).collect();
    json!({ "events": events, "missed": page.missed })
}

/// A stream of the events after number `seen`; `None` if there are too many streams.
fn stream(live: &Arc<Live>, seen: u64, streams: &Streams) -> Option<StreamBody> {
    let live = Arc::clone(live);
    streams.open(move |mut pen| async move {
        // Whoever can't be written to any more is gone.
        let _ = tell(&live, seen, &mut pen).await;
    })
}

async fn tell(live: &Live, mut seen: u64, pen: &mut Pen) -> Option<()> {
    let mut news = live.journal.follow();
    loop {
        news.borrow_and_update();
        let page = live.journal.since(seen, PAGE);
        match page.entries.last() {
            Some(last) => seen = last.id,
            None => {
                pen.wait(news.changed()).await?.ok()?;
                continue;
            }
        }
        pen.write(written(&page)).await?;
    }
}

fn written(page: &Page) -> String {
    let mut text = String::new();
    if page.missed > 0 {
        // Without an id: to come back here would miss them again.
        let gap = json!({ "missed": page.missed });
        text.push_str(&format!("event: gap\ndata: {gap}\n\n"));
    }
    for entry in &page.entries {
        let (kind, data) = (entry.event.kind().label(), entry.to_json());
        text.push_str(&format!("id: {}\nevent: {kind}\ndata: {data}\n\n", entry.id));
    }
    text
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http_body_util::BodyExt;

    use super::*;
    use crate::admin::metrics::tests::busy;
    use crate::observe::events::Event;

    #[test]
    fn a_browser_that_comes_back_says_what_it_has_seen() {
        let mut headers = HeaderMap::new();
        let asked = |headers: &HeaderMap, since| seen(headers, since).ok();
        assert_eq!(asked(&headers, None), Some(0));
        assert_eq!(asked(&headers, Some("12")), Some(12));
        assert_eq!(asked(&headers, Some("-1")), None);
        headers.insert(LAST_EVENT_ID, HeaderValue::from_static("40"));
        assert_eq!(asked(&headers, Some("12")), Some(40));
    }

    #[tokio::test]
    async fn a_stream_tells_what_was_what_is_missing_and_what_comes() {
        let live = Arc::new(busy(1));
        let note = || live.journal.note(Event::Stopping { connections: 0, tunnels: 0 });
        (0..KEPT + 5).for_each(|_| note());
        let streams = Streams::default();
        let mut body = stream(&live, 1, &streams).unwrap();
        let mut text = String::new();
        while !text.contains(&format!("id: {}\n", KEPT + 5)) {
            let frame = body.frame().await.unwrap().unwrap();
            text.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
        }
        assert!(text.contains("event: gap\ndata: {\"missed\":4}\n\nid: 6\n"), "{}", &text[..300]);
        assert_eq!(text.matches("event: drain\n").count(), KEPT);
        note();
        let frame = body.frame().await.unwrap().unwrap();
        let text = std::str::from_utf8(frame.data_ref().unwrap()).unwrap();
        assert!(text.starts_with(&format!("id: {}\nevent: drain\ndata: {{", KEPT + 6)), "{text}");
        assert!(text.ends_with("}\n\n"), "{text}");
        assert_eq!(kept(&live, 1000)["events"].as_array().unwrap().len(), 6);
    }
}
