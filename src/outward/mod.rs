//! What Burdock asks on its own account: a CA, a collector of spans, whoever knows of instances.
//! HTTP/1.1 by TCP, TLS or a Unix socket; nothing here is on the way of a client's request.
//!
//! A [`Target`] is where, a [`Connection`] one connection to it, which ends when it is dropped. Times
//! are the caller's to bound; what is read is bounded by [`whole`] and [`Lines`].

mod lines;

pub use lines::Lines;

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{HOST, HeaderValue, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, Request, Response, Uri};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;

use crate::config::types::InstanceTls;
use crate::tls::client::{Alpn, Connector};

const NAME: HeaderValue = HeaderValue::from_static(concat!("burdock/", env!("CARGO_PKG_VERSION")));

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    /// It is not known whom to ask.
    #[error("{0} is no http or https URL with a host")]
    Url(String),
    /// Nobody is there.
    #[error("connecting to {0}: {1}")]
    Connect(String, std::io::Error),
    /// Somebody is, and is not who was looked for, or doesn't want to talk.
    #[error("TLS with {0}: {1}")]
    Tls(String, std::io::Error),
    /// What came is no answer, or none came.
    #[error("HTTP with {0}: {1}")]
    Http(String, hyper::Error),
    /// It ended too early.
    #[error("reading the answer: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    /// It is longer than anybody wants to read.
    #[error("the answer is longer than {0} bytes")]
    Long(usize),
    /// It takes too long.
    #[error("no answer within {0:?}")]
    Late(Duration),
}

/// Whom to ask.
#[derive(Debug, Clone)]
pub struct Target {
    way: Way,
    /// As it stands in `Host`, and in errors.
    authority: String,
}

#[derive(Debug, Clone)]
enum Way {
    Tcp { host: String, port: u16 },
    Tls { host: String, port: u16, tls: Box<InstanceTls> },
    Unix(PathBuf),
}

impl Target {
    /// What a URL names; its path is left alone. `https` needs `tls`.
    pub fn new(url: &str, tls: Option<&InstanceTls>) -> Result<Self, Unanswered> {
        let bad = || Unanswered::Url(url.to_owned());
        let uri: Uri = url.parse().map_err(|_invalid| bad())?;
        let authority = uri.authority().filter(|it| !it.as_str().contains('@')).ok_or_else(bad)?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err(bad());
        }
        let port = authority.port_u16();
        let way = match (uri.scheme_str(), tls) {
            (Some("http"), _) => Way::Tcp { host, port: port.unwrap_or(80) },
            (Some("https"), Some(tls)) => {
                Way::Tls { host, port: port.unwrap_or(443), tls: Box::new(tls.clone()) }
            }
            _ => return Err(bad()),
        };
        Ok(Self { way, authority: authority.to_string() })
    }

    /// Whoever listens at a Unix socket.
    pub fn at_socket(path: PathBuf) -> Self {
        Self { way: Way::Unix(path), authority: "localhost".to_owned() }
    }

    /// Where that is, in words.
    pub fn place(&self) -> String {
        match &self.way {
            Way::Unix(path) => path.display().to_string(),
            Way::Tcp { .. } | Way::Tls { .. } => self.authority.clone(),
        }
    }

    /// A new connection.
    pub async fn connect(&self) -> Result<Connection, Unanswered> {
        let failed = |error| Unanswered::Connect(self.place(), error);
        match &self.way {
            Way::Tcp { host, port } => {
                let socket = TcpStream::connect((host.as_str(), *port)).await.map_err(failed)?;
                self.speak(socket).await
            }
            Way::Tls { host, port, tls } => {
                let socket = TcpStream::connect((host.as_str(), *port)).await.map_err(failed)?;
                let address = match host.contains(':') {
                    true => format!("[{host}]:{port}"),
                    false => format!("{host}:{port}"),
                };
                let stranger = Connector::new(tls).stranger(&address);
                let stream = stranger.secure(socket, Alpn::Http1).await;
                self.speak(stream.map_err(|error| Unanswered::Tls(self.place(), error))?).await
            }
            Way::Unix(path) => self.speak(UnixStream::connect(path).await.map_err(failed)?).await,
        }
    }

    async fn speak(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> Result<Connection, Unanswered> {
        let bad = |_invalid| Unanswered::Url(self.authority.clone());
        let host = HeaderValue::try_from(&self.authority).map_err(bad)?;
        let failed = |error| Unanswered::Http(self.place(), error);
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
        let mut driver = JoinSet::new();
        driver.spawn(connection);
        Ok(Connection { place: self.place(), host, sender, _driver: driver })
    }
}

/// A connection. A body that comes over it ends with it.
#[derive(Debug)]
pub struct Connection {
    place: String,
    host: HeaderValue,
    sender: SendRequest<Full<Bytes>>,
    _driver: JoinSet<hyper::Result<()>>,
}

impl Connection {
    /// Sends a request, whose target is a path, and waits for the head of its answer. The one before
    /// it must have been read to its end.
    pub async fn send(
        &mut self,
        mut request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, Unanswered> {
        let headers = request.headers_mut();
        headers.insert(HOST, self.host.clone());
        headers.entry(USER_AGENT).or_insert(NAME);
        let failed = |error| Unanswered::Http(self.place.clone(), error);
        self.sender.ready().await.map_err(failed)?;
        self.sender.send_request(request).await.map_err(failed)
    }
}

/// All of a body that has no more than `most` bytes.
pub async fn whole(body: Incoming, most: usize) -> Result<Bytes, Unanswered> {
    match Limited::new(body, most).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Unanswered::Long(most)),
        Err(error) => Err(Unanswered::Body(error)),
    }
}

/// What happens within `limit`.
pub async fn within<T>(
    limit: Duration,
    answer: impl Future<Output = Result<T, Unanswered>>,
) -> Result<T, Unanswered> {
    tokio::time::timeout(limit, answer).await.unwrap_or(Err(Unanswered::Late(limit)))
}

/// How long whoever answered wants to be left alone. RFC 9110 section 10.2.3: seconds, or a date.
pub fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    match text.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(now).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_url_with_a_host() {
        let place = |url| Target::new(url, None).map(|target| target.place());
        assert_eq!(place("http://a.example/x").unwrap(), "a.example");
        assert_eq!(place("http://[::1]:2379").unwrap(), "[::1]:2379");
        for bad in ["", "a.example", "/x", "ftp://a", "http://u@a", "http://", "https://a"] {
            let told = place(bad).unwrap_err().to_string();
            assert!(told.ends_with("is no http or https URL with a host"), "{bad}: {told}");
        }
    }

    #[test]
    fn whoever_answers_says_how_long_it_wants_to_be_left_alone() {
        let now = httpdate::parse_http_date("Sun, 29 Nov 2026 06:00:00 GMT").unwrap();
        for (text, seconds) in [
            ("120", Some(120)),
            ("0", Some(0)),
            ("Sun, 29 Nov 2026 07:00:00 GMT", Some(3600)),
            ("Sun, 29 Nov 2026 05:00:00 GMT", None),
            ("soon", None),
        ] {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(text))]);
            assert_eq!(retry_after(&headers, now), seconds.map(Duration::from_secs), "{text}");
        }
    }
}
