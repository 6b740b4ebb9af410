//! How a CA is reached: HTTP/1.1 over TLS, one connection for each question, all of it bounded.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{CONNECTION, HeaderValue, USER_AGENT};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};

use crate::config::types::{CaRoots, InstanceTls};
use crate::outward::{Target, Unanswered, retry_after, whole, within};

/// One question, from the connect to the last byte of its answer.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The longest chain of certificates is a part of this.
const MAX_ANSWER: usize = 1024 * 1024;
/// No CA is believed that wants to be left alone for longer.
const LONGEST_WAIT: Duration = Duration::from_secs(86_400);
/// RFC 8555 section 6.1 asks for a name.
const NAME: HeaderValue =
    HeaderValue::from_static(concat!("burdock/", env!("CARGO_PKG_VERSION"), " (instant-acme)"));

/// Asks a CA.
#[derive(Clone)]
pub(super) struct Client {
    tls: Arc<InstanceTls>,
    wait: Arc<Mutex<Option<Duration>>>,
}

impl Client {
    /// One that believes a CA for which `ca` vouches.
    pub(super) fn new(ca: &CaRoots) -> Self {
        Self { tls: Arc::new(InstanceTls::trusting(ca)), wait: Arc::default() }
    }

    /// How long the CA asked to be left alone, if it did (RFC 8555 section 6.6).
    pub(super) fn wait(&self) -> Option<Duration> {
        *self.wait.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ask(self, request: Request<BodyWrapper<Bytes>>) -> Result<BytesResponse, Error> {
        let response = within(TIMEOUT, exchange(&self.tls, request)).await;
        let response = response.map_err(|error| Error::Other(Box::new(error)))?;
        if [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE]
            .contains(&response.status())
        {
            let wait = retry_after(response.headers(), SystemTime::now());
            let wait = wait.map(|wait| wait.min(LONGEST_WAIT));
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
    tls: &InstanceTls,
    request: Request<BodyWrapper<Bytes>>,
) -> Result<Response<Full<Bytes>>, Unanswered> {
    let url = request.uri().clone();
    let bad = || Unanswered::Url(url.to_string());
    if url.scheme_str() != Some("https") {
        return Err(bad());
    }
    let target = Target::new(&url.to_string(), Some(tls))?;
    let (mut head, body) = request.into_parts();
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    head.uri = path.parse().map_err(|_invalid| bad())?;
    head.headers.insert(USER_AGENT, NAME);
    head.headers.insert(CONNECTION, HeaderValue::from_static("close"));
    let Ok(body) = body.collect().await;
    let mut connection = target.connect().await?;
    let request = Request::from_parts(head, Full::new(body.to_bytes()));
    let (head, body) = connection.send(request).await?.into_parts();
    Ok(Response::from_parts(head, Full::new(whole(body, MAX_ANSWER).await?)))
}
