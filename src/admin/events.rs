//! The journal as the API tells it: the events that are kept, or a stream of them and of all that
//! follow.

use std::sync::Arc;

use http::{HeaderMap, HeaderName};
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::admin::stream::{Pen, StreamBody, Streams};
use crate::observe::journal::{KEPT, Page};
use crate::snapshot::Live;

/// Events that are read at once.
const PAGE: usize = 100;
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// The event that a client has seen last: as its browser says when it comes back, or as it asks for.
pub fn seen(headers: &HeaderMap, query: &str) -> u64 {
    let told = headers.get(LAST_EVENT_ID).and_then(|value| value.to_str().ok());
    let asked = query.split('&').find_map(|pair| pair.strip_prefix("since="));
    told.or(asked).and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// The events that are kept, of those after number `seen`.
pub fn kept(live: &Live, seen: u64) -> Value {
    let page = live.journal.since(seen, KEPT);
    let events: Vec<_> = page.entries.iter().map(|entry| entry.to_json()).collect();
    json!({ "events": events, "missed": page.missed })
}

/// A stream of the events after number `seen`; `None` if there are too many streams.
pub fn stream(
    live: &Arc<Live>,
    seen: u64,
    streams: &Streams,
    cut: Arc<Notify>,
) -> Option<StreamBody> {
    let live = Arc::clone(live);
    streams.open(cut, move |pen| async move {
        // Whoever can't be written to any more is gone.
        let _ = tell(&live, seen, &pen).await;
    })
}

async fn tell(live: &Live, mut seen: u64, pen: &Pen) -> Option<()> {
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
        assert_eq!(seen(&headers, ""), 0);
        assert_eq!(seen(&headers, "format=x&since=12"), 12);
        assert_eq!(seen(&headers, "since=-1"), 0);
        headers.insert(LAST_EVENT_ID, HeaderValue::from_static("40"));
        assert_eq!(seen(&headers, "since=12"), 40);
    }

    #[tokio::test]
    async fn a_stream_tells_what_was_what_is_missing_and_what_comes() {
        let live = Arc::new(busy(1));
        let note = || live.journal.note(Event::Stopping { connections: 0, tunnels: 0 });
        (0..KEPT + 5).for_each(|_| note());
        let mut body = stream(&live, 1, &Streams::default(), Arc::default()).unwrap();
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
