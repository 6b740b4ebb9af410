//! How a collector is reached: HTTP/1.1, one request after the other on a connection that is kept
//! while it lasts.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Request, StatusCode, Uri};
use http_body_util::Full;

use crate::config::types::{InstanceTls, Tracing};
use crate::outward::{Connection, Target, Unanswered, retry_after, whole, within};

/// One request, from the connect to the last byte of its answer. OTLP's own default.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Answers say how many spans were refused, and why. What is longer is not read: the status says enough.
const MAX_ANSWER: usize = 64 * 1024;
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// How long the collector wants to be left alone.
    pub(super) retry_after: Option<Duration>,
    /// Spans of those that were sent which it did not take.
    pub(super) rejected: u64,
}

/// A connection, and by which settings it was made.
#[derive(Debug)]
struct Kept {
    to: Arc<Tracing>,
    connection: Connection,
}

/// Sends to a collector.
#[derive(Debug, Default)]
pub(super) struct Post {
    kept: Option<Kept>,
}

impl Post {
    /// Sends one request and reads its answer.
    pub(super) async fn send(
        &mut self,
        to: &Arc<Tracing>,
        body: &Bytes,
    ) -> Result<Answer, Unanswered> {
        let answer = within(TIMEOUT, self.exchange(to, body)).await;
        if answer.is_err() {
            self.kept = None;
        }
        answer
    }

    async fn exchange(&mut self, to: &Arc<Tracing>, body: &Bytes) -> Result<Answer, Unanswered> {
        if let Some(mut kept) = self.kept.take().filter(|kept| kept.to == *to)
            && let Ok(answer) = ask(&mut kept, body).await
        {
            self.kept = Some(kept);
            return Ok(answer);
        }
        // One that was closed meanwhile says nothing.
        let tls = to.ca.as_ref().map(InstanceTls::trusting);
        let connection = Target::new(&to.endpoint, tls.as_ref())?.connect().await?;
        let mut kept = Kept { to: Arc::clone(to), connection };
        let answer = ask(&mut kept, body).await?;
        self.kept = Some(kept);
        Ok(answer)
    }
}

async fn ask(kept: &mut Kept, body: &Bytes) -> Result<Answer, Unanswered> {
    let bad = || Unanswered::Url(kept.to.endpoint.clone());
    let url: Uri = kept.to.endpoint.parse().map_err(|_invalid| bad())?;
    let mut request = Request::post(url.path_and_query().map_or("/", |path| path.as_str()))
        .body(Full::new(body.clone()))
        .map_err(|_invalid| bad())?;
    let headers = request.headers_mut();
    for (name, value) in &kept.to.headers {
        headers.insert(name.clone(), value.clone());
    }
    headers.insert(CONTENT_TYPE, JSON);
    let (head, incoming) = kept.connection.send(request).await?.into_parts();
    let body = match whole(incoming, MAX_ANSWER).await {
        Err(Unanswered::Long(_)) => Bytes::new(),
        body => body?,
    };
    Ok(Answer {
        status: head.status,
        retry_after: retry_after(&head.headers, SystemTime::now()),
        rejected: rejected(&body),
    })
}

/// What an `ExportTraceServiceResponse` says was not taken; a number, or one as text.
fn rejected(body: &[u8]) -> u64 {
    let body: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let count = &body["partialSuccess"]["rejectedSpans"];
    count.as_u64().or_else(|| count.as_str()?.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::task::JoinSet;

    use super::*;
    use crate::config::types::Trust;

    /// Answers one request on each of two connections, at greater length than anybody reads.
    async fn babble(listener: TcpListener) {
        for _ in 0..2 {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut asked = Vec::new();
            while !asked.ends_with(b"{}") {
                socket.read_buf(&mut asked).await.unwrap();
            }
            let length = 16 * MAX_ANSWER;
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
            socket.write_all(head.as_bytes()).await.unwrap();
            // Nobody may be there any more to read all of it.
            let _ = socket.write_all(&vec![b' '; length]).await;
        }
    }

    #[tokio::test]
    async fn a_long_answer_is_one_and_its_connection_is_not_used_again() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = Arc::new(Tracing {
            endpoint: format!("http://{}/", listener.local_addr().unwrap()),
            headers: Vec::new(),
            headers_file: None,
            ca: None,
            sample: 0,
            trust: Trust::None,
            service_name: "burdock".to_owned(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(babble(listener));
        let mut post = Post::default();
        for _ in 0..2 {
            let answer = post.send(&to, &Bytes::from_static(b"{}")).await.unwrap();
            assert_eq!((answer.status, answer.rejected), (StatusCode::OK, 0));
        }
        tasks.join_next().await.unwrap().unwrap();
    }

    #[test]
    fn a_collector_says_what_it_did_not_take() {
        assert_eq!(rejected(br#"{"partialSuccess":{"rejectedSpans":"3"}}"#), 3);
        assert_eq!(rejected(br#"{"partialSuccess":{"rejectedSpans":4}}"#), 4);
        for body in [&b"{}"[..], b"", b"\x0a\x00", b"[1]", br#"{"partialSuccess":{}}"#] {
            assert_eq!(rejected(body), 0);
        }
    }
}
