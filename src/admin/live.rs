//! `GET /api/v1/live`: the tick of each second, as a stream.

use std::sync::Arc;

use crate::admin::desk::Desk;
use crate::admin::problem::Problem;
use crate::admin::reply::{self, Reply};
use crate::admin::stream::{StreamBody, Streams};
use crate::snapshot::Live;

pub(super) fn answer(desk: &Desk) -> Result<Reply, Problem> {
    reply::stream(stream(&desk.live, &desk.streams))
}

/// A stream of ticks; `None` if there are too many streams. A client that is slow gets fewer of them.
fn stream(live: &Arc<Live>, streams: &Streams) -> Option<StreamBody> {
    let mut ticks = live.telemetry.ticks.subscribe();
    // What is there is of whenever somebody last looked on.
    ticks.mark_unchanged();
    streams.open(move |mut pen| async move {
        while let Some(Ok(())) = pen.wait(ticks.changed()).await {
            let tick = Arc::clone(&ticks.borrow_and_update());
            if pen.write(format!("data: {tick}\n\n")).await.is_none() {
                return;
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use http_body_util::BodyExt;

    use super::*;
    use crate::admin::metrics::tests::busy;
    use crate::admin::sampler::Sampler;

    #[tokio::test]
    async fn ticks_come_for_as_long_as_somebody_is_there() {
        let live = Arc::new(busy(1));
        let mut sampler = Sampler::new(Instant::now());
        let streams = Streams::default();
        let mut body = stream(&live, &streams).unwrap();
        body.frame().await.unwrap().unwrap();
        sampler.look(&live, Instant::now());
        let frame = body.frame().await.unwrap().unwrap();
        let text = std::str::from_utf8(frame.data_ref().unwrap()).unwrap();
        assert!(text.starts_with("data: {\"at\":\"") && text.ends_with("}\n\n"), "{text}");
        drop(body);
        while live.telemetry.ticks.receiver_count() > 0 {
            tokio::task::yield_now().await;
        }
    }
}
