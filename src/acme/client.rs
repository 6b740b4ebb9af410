//! How a CA is reached: HTTP/1.1 over TLS, one connection for each question, all of it bounded.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{CONNECTION, HOST, HeaderValue, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

/// One question, from the connect to the last byte of its answer.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The longest chain of certificates is a part of this.
const MAX_ANSWER: usize = 1024 * 1024;
/// No CA is believed that wants to be left alone for longer.
const LONGEST_WAIT: Duration = Duration::from_secs(86_400);
/// RFC 8555 section 6.1 asks for a name.
const NAME: HeaderValue =
    HeaderValue::from_static(concat!("burdock/", env!("CARGO_PKG_VERSION"), " (instant-acme)"));

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum Unanswered {
    #[error("{0} is no https URL with a host")]
    Url(Uri),
    #[error("connecting to {0}: {1}")]
    Connect(String, std::io::Error),
    #[error("TLS with {0}: {1}")]
    Tls(String, std::io::Error),
    #[error("HTTP with {0}: {1}")]
    Http(String, hyper::Error),
    #[error("reading the answer of {0}: {1}")]
    Body(String, Box<dyn std::error::Error + Send + Sync>),
    #[error("no answer of {0} within {t:?}", t = TIMEOUT)]
    Late(String),
}

/// Asks a CA.
#[derive(Clone)]
pub(super) struct Client {
    tls: Arc<ClientConfig>,
    wait: Arc<Mutex<Option<Duration>>>,
}

impl Client {
    /// One that believes a CA whose own certificate one of `roots` stands for.
    pub(super) fn new(roots: &[CertificateDer<'static>]) -> Self {
        let mut store = RootCertStore::empty();
        // The system may have some that are of no use.
        store.add_parsable_certificates(roots.iter().cloned());
        let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring has suites for both versions of TLS")
            .with_root_certificates(store)
            .with_no_client_auth();
        Self { tls: Arc::new(tls), wait: Arc::default() }
    }

    /// How long the CA asked to be left alone, if it did (RFC 8555 section 6.6).
    pub(super) fn wait(&self) -> Option<Duration> {
        *self.wait.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ask(self, request: Request<BodyWrapper<Bytes>>) -> Result<BytesResponse, Error> {
        let host = request.uri().host().unwrap_or_default().to_owned();
        let answered = tokio::time::timeout(TIMEOUT, exchange(self.tls, request)).await;
        let response = answered.unwrap_or(Err(Unanswered::Late(host)));
        let response = response.map_err(|error| Error::Other(Box::new(error)))?;
        if [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE]
            .contains(&response.status())
        {
            let wait = retry_after(response.headers(), SystemTime::now());
            *self.wait.lock().unwrap_or_else(PoisonError::into_inner) = wait;
        }
        Ok(BytesResponse::from(response))
    }
}

impl HttpClient for Client {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        Box::pin(self.clone().ask(request))
    }
}

/// One question and its answer.
async fn exchange(
    tls: Arc<ClientConfig>,
    mut request: Request<BodyWrapper<Bytes>>,
) -> Result<Response<Full<Bytes>>, Unanswered> {
    let url = request.uri().clone();
    let bad = || Unanswered::Url(url.clone());
    let authority =
        url.authority().filter(|_| url.scheme_str() == Some("https")).ok_or_else(bad)?;
    let to = authority.to_string();
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let name = ServerName::try_from(host.to_owned()).map_err(|_| bad())?;
    let target = url.path_and_query().map_or("/", |target| target.as_str());
    let fields = HeaderValue::try_from(authority.as_str()).map_err(|_| bad())?;
    *request.uri_mut() = target.parse().map_err(|_| bad())?;
    let headers = request.headers_mut();
    headers.insert(HOST, fields);
    headers.insert(USER_AGENT, NAME);
    headers.insert(CONNECTION, HeaderValue::from_static("close"));

    let socket = TcpStream::connect((host, authority.port_u16().unwrap_or(443))).await;
    let socket = socket.map_err(|error| Unanswered::Connect(to.clone(), error))?;
    let stream = TlsConnector::from(tls).connect(name, socket).await;
    let stream = stream.map_err(|error| Unanswered::Tls(to.clone(), error))?;
    let http = |error| Unanswered::Http(to.clone(), error);
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(http)?;
    // It ends with this question, however that ends.
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let (head, body) = sender.send_request(request).await.map_err(http)?.into_parts();
    let body = Limited::new(body, MAX_ANSWER).collect().await;
    let body = body.map_err(|error| Unanswered::Body(to.clone(), error))?;
    Ok(Response::from_parts(head, Full::new(body.to_bytes())))
}

/// RFC 9110 section 10.2.3: seconds, or a date.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(now).ok()?,
    };
    Some(wait.min(LONGEST_WAIT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ca_says_how_long_it_wants_to_be_left_alone() {
        let now = httpdate::parse_http_date("Sun, 29 Nov 2026 06:00:00 GMT").unwrap();
        for (text, seconds) in [
            ("120", Some(120)),
            ("Sun, 29 Nov 2026 07:00:00 GMT", Some(3600)),
            ("Sun, 29 Nov 2026 05:00:00 GMT", None),
            ("99999999", Some(86_400)),
            ("soon", None),
        ] {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(text))]);
            assert_eq!(retry_after(&headers, now), seconds.map(Duration::from_secs), "{text}");
        }
    }
}
