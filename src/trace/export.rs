//! Sends finished spans to the collector, in batches, by the rules of OTLP/HTTP: again after a 429,
//! 502, 503 or 504, when the collector says or ever later, and never after another error.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::StatusCode;

use crate::config::types::Tracing;
use crate::outward::Unanswered;
use crate::trace::otlp;
use crate::trace::post::{Answer, Post};
use crate::trace::queue::{Dropped, Spans};
use crate::trace::span::Span;

/// The first wait before trying again; each is twice the one before, and up to half of it less.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// After so long there are newer spans to send.
const PATIENCE: Duration = Duration::from_secs(60);
/// No collector is believed that wants to be left alone for longer.
const LONGEST_REST: Duration = Duration::from_secs(300);
/// The log tells of trouble at once, and then not again for this long.
const TOLD: Duration = Duration::from_secs(60);

/// Sends what comes, as `settings` say at the moment; runs until it is dropped. What was made before
/// tracing was switched off is sent where it would have been.
pub async fn run(spans: Arc<Spans>, settings: impl Fn() -> Option<Arc<Tracing>>) {
    let (post, rests_until) = (Post::default(), Instant::now());
    let mut exporter = Exporter { post, last: None, told: None, rests_until, settings };
    loop {
        let batch = spans.batch().await;
        let count = batch.len();
        match exporter.deliver(batch).await {
            Ok(rejected) => {
                let rejected = usize::try_from(rejected).unwrap_or(count).min(count);
                spans.settle(count - rejected, rejected, Dropped::Refused);
            }
            Err(reason) => spans.settle(0, count, reason),
        }
    }
}

struct Exporter<Settings> {
    post: Post,
    last: Option<Arc<Tracing>>,
    told: Option<Instant>,
    /// The collector is left alone until then, though new spans come.
    rests_until: Instant,
    settings: Settings,
}

impl<Settings: Fn() -> Option<Arc<Tracing>>> Exporter<Settings> {
    /// Gives how many spans the collector did not take.
    async fn deliver(&mut self, batch: Vec<Span>) -> Result<u64, Dropped> {
        tokio::time::sleep_until(self.rests_until.into()).await;
        let deadline = Instant::now() + PATIENCE;
        let mut wait = FIRST_WAIT;
        let body = otlp::request(&self.to()?.service_name, &batch);
        let body = Bytes::from(body.map_err(|_unwritable| Dropped::Refused)?);
        drop(batch);
        loop {
            let to = self.to()?;
            let pause = match self.post.send(&to, &body).await {
                Ok(Answer { status, rejected, .. }) if status.is_success() => {
                    if rejected > 0 {
                        self.tell(&to, format_args!("{rejected} spans were not taken"));
                    }
                    return Ok(rejected);
                }
                Ok(Answer { status, retry_after, .. }) if may_retry(status) => {
                    self.tell(&to, status);
                    retry_after
                }
                Ok(Answer { status, .. }) => {
                    self.tell(&to, status);
                    return Err(Dropped::Refused);
                }
                Err(error @ Unanswered::Url(_)) => {
                    self.tell(&to, error);
                    return Err(Dropped::Refused);
                }
                Err(error) => {
                    self.tell(&to, error);
                    None
                }
            };
            let pause = pause.unwrap_or_else(|| wait.mul_f64(1.0 - fastrand::f64() / 2.0));
            let pause = pause.min(LONGEST_REST);
            if Instant::now() + pause > deadline {
                self.rests_until = Instant::now() + pause;
                return Err(Dropped::Unreachable);
            }
            tokio::time::sleep(pause).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    /// Where spans go at the moment.
    fn to(&mut self) -> Result<Arc<Tracing>, Dropped> {
        if let Some(tracing) = (self.settings)() {
            self.last = Some(tracing);
        }
        self.last.clone().ok_or(Dropped::Refused)
    }

    fn tell(&mut self, to: &Tracing, error: impl std::fmt::Display) {
        if self.told.is_none_or(|told| told.elapsed() >= TOLD) {
            self.told = Some(Instant::now());
            tracing::warn!(endpoint = to.endpoint, %error, "sending spans failed");
        }
    }
}

/// OTLP/HTTP, "Retryable Response Codes".
fn may_retry(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
    )
}
