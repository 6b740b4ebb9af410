//! How a collector is reached: HTTP/1.1, one request after the other on a connection that is kept
//! while it lasts.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, HeaderValue, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::config::types::Tracing;

/// One request, from the connect to the last byte of its answer. OTLP's own default.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Answers say how many spans were refused, and why. What is longer is not read: the status says enough.
const MAX_ANSWER: usize = 64 * 1024;
const NAME: HeaderValue = HeaderValue::from_static(concat!("burdock/", env!("CARGO_PKG_VERSION")));
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unanswered {
    #[error("{0} is no URL with a host")]
    Url(String),
    #[error("connecting: {0}")]
    Connect(std::io::Error),
    #[error("TLS: {0}")]
    Tls(std::io::Error),
    #[error("HTTP: {0}")]
    Http(#[from] hyper::Error),
    #[error("reading the answer: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    #[error("no answer within {t:?}", t = TIMEOUT)]
    Late,
}

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// How long the collector wants to be left alone.
    pub(super) retry_after: Option<Duration>,
    /// Spans of those that were sent which it did not take.
    pub(super) rejected: u64,
}

/// A connection, by which settings it was made, and what drives it.
#[derive(Debug)]
struct Kept {
    to: Arc<Tracing>,
    sender: SendRequest<Full<Bytes>>,
    _driver: JoinSet<hyper::Result<()>>,
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
        let answer = tokio::time::timeout(TIMEOUT, self.exchange(to, body)).await;
        let answer = answer.unwrap_or(Err(Unanswered::Late));
        if answer.is_err() {
            self.kept = None;
        }
        answer
    }

    async fn exchange(&mut self, to: &Arc<Tracing>, body: &Bytes) -> Result<Answer, Unanswered> {
        if let Some(mut kept) = self.kept.take().filter(|kept| kept.to == *to)
            && kept.sender.ready().await.is_ok()
            && let Ok(answer) = ask(&mut kept, body).await
        {
            self.kept = Some(kept);
            return Ok(answer);
        }
        // One that was closed meanwhile says nothing.
        let mut kept = connect(to).await?;
        let answer = ask(&mut kept, body).await?;
        self.kept = Some(kept);
        Ok(answer)
    }
}

async fn ask(kept: &mut Kept, body: &Bytes) -> Result<Answer, Unanswered> {
    let url = url(&kept.to)?;
    let bad = || Unanswered::Url(url.to_string());
    let authority = url.authority().ok_or_else(bad)?;
    let mut request = Request::post(url.path_and_query().map_or("/", |path| path.as_str()))
        .body(Full::new(body.clone()))
        .map_err(|_invalid| bad())?;
    let headers = request.headers_mut();
    for (name, value) in &kept.to.headers {
        headers.insert(name.clone(), value.clone());
    }
    headers.insert(HOST, HeaderValue::try_from(authority.as_str()).map_err(|_invalid| bad())?);
    headers.insert(USER_AGENT, NAME);
    headers.insert(CONTENT_TYPE, JSON);
    let (head, incoming) = kept.sender.send_request(request).await?.into_parts();
    let body = match Limited::new(incoming, MAX_ANSWER).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => Bytes::new(),
        Err(error) => return Err(Unanswered::Body(error)),
    };
    Ok(Answer {
        status: head.status,
        retry_after: retry_after(&head.headers, SystemTime::now()),
        rejected: rejected(&body),
    })
}

async fn connect(to: &Arc<Tracing>) -> Result<Kept, Unanswered> {
    let url = url(to)?;
    let bad = || Unanswered::Url(url.to_string());
    let host = url.host().ok_or_else(bad)?.trim_start_matches('[').trim_end_matches(']');
    let roots = to.ca.as_ref();
    let port = url.port_u16().unwrap_or(if roots.is_some() { 443 } else { 80 });
    let socket = TcpStream::connect((host, port)).await.map_err(Unanswered::Connect)?;
    let Some(roots) = roots else { return handshake(to, socket).await };
    let mut store = RootCertStore::empty();
    // The system may have some that are of no use.
    store.add_parsable_certificates(roots.roots.iter().cloned());
    let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has suites for both versions of TLS")
        .with_root_certificates(store)
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_owned()).map_err(|_invalid| bad())?;
    let stream = TlsConnector::from(Arc::new(tls)).connect(name, socket).await;
    handshake(to, stream.map_err(Unanswered::Tls)?).await
}

async fn handshake(
    to: &Arc<Tracing>,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<Kept, Unanswered> {
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    Ok(Kept { to: Arc::clone(to), sender, _driver: driver })
}

fn url(to: &Tracing) -> Result<Uri, Unanswered> {
    to.endpoint.parse().map_err(|_invalid| Unanswered::Url(to.endpoint.clone()))
}

/// RFC 9110 section 10.2.3: seconds, or a date.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    match text.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(now).ok(),
    }
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
    fn a_collector_says_what_it_did_not_take_and_when_to_come_back() {
        assert_eq!(rejected(br#"{"partialSuccess":{"rejectedSpans":"3"}}"#), 3);
        assert_eq!(rejected(br#"{"partialSuccess":{"rejectedSpans":4}}"#), 4);
        for body in [&b"{}"[..], b"", b"\x0a\x00", b"[1]", br#"{"partialSuccess":{}}"#] {
            assert_eq!(rejected(body), 0);
        }
        let now = httpdate::parse_http_date("Sun, 29 Nov 2026 06:00:00 GMT").unwrap();
        for (text, seconds) in
            [("7", Some(7)), ("Sun, 29 Nov 2026 06:01:00 GMT", Some(60)), ("soon", None)]
        {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(text))]);
            assert_eq!(retry_after(&headers, now), seconds.map(Duration::from_secs), "{text}");
        }
    }
}
