//! What a drill does to an attempt: it begins late, or is answered in the instance's place. To all else of
//! the request path that is what the instance did: it counts for its breaker, retries and hedges. Only
//! where a mark is to blame it counts not for what others notice: breaker and limits (see [`super::stay`]).

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode, request};

use crate::instance::disturbance::Blow;
use crate::proxy::coming::Coming;
use crate::proxy::forward::{Answer, Attempt, Origin};
use crate::proxy::retry::{Failure, Sent};

/// For whoever finds it in a log.
const WORDS: &str = "aborted by a drill\n";

impl Attempt<'_> {
    /// Does what there is to do to this attempt; an answer, if that is all it gets.
    pub(super) async fn disturbed(
        &self,
        worker: usize,
        head: &request::Parts,
        blow: Blow,
    ) -> Result<Option<Answer>, Failure> {
        if !blow.delay.is_zero() {
            self.linger(worker, head, blow.delay).await?;
        }
        Ok(blow.abort.map(aborted))
    }

    /// Waits as if for the instance: no longer than for a first byte, nor when it is out of reach.
    async fn linger(
        &self,
        worker: usize,
        head: &request::Parts,
        delay: Duration,
    ) -> Result<(), Failure> {
        let first_byte = self.version.timeouts.first_byte;
        let until = Instant::now() + delay.min(first_byte);
        loop {
            // Listening begins before looking, so that nothing is missed in between.
            let alarmed = self.instance.lane(worker).alarmed();
            if let Some(failure) = self.distress(Sent::Nothing, head.method.is_idempotent()) {
                return Err(failure);
            }
            tokio::select! {
                biased;
                () = alarmed => {}
                () = tokio::time::sleep_until(until.into()) => break,
            }
        }
        if delay >= first_byte { Err(Failure::FirstByteTimeout) } else { Ok(()) }
    }
}

fn aborted(status: StatusCode) -> Answer {
    let mut response = Response::new(Coming::Own(Some(Bytes::from_static(WORDS.as_bytes()))));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    Answer { response, origin: Origin::Stream(None) }
}
