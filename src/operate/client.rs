//! A client of the admin API: one request on each connection, and errors that say what to do.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::operate::shapes::Problem;

/// The variable that holds a token.
pub const TOKEN: &str = "BURDOCK_ADMIN_TOKEN";
/// A machine that is there answers sooner.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A reload may resolve names and read certificates.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// The status of ten thousand instances has ten megabytes.
const MAX_ANSWER: usize = 256 * 1024 * 1024;

/// Why there is no answer, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No address.
    #[error(
        "{0:?} is no admin address; needed: http://HOST:PORT (it speaks no TLS: from another machine use a tunnel, such as ssh -L)"
    )]
    Address(String),
    /// The token can't be read.
    #[error("reading the admin token from {}: {cause}", path.display())]
    TokenFile {
        /// Where from.
        path: PathBuf,
        /// Why not.
        cause: std::io::Error,
    },
    /// It is none.
    #[error("the admin token of {0} is empty or has characters that no token has")]
    Token(String),
    /// Nobody is there.
    #[error(
        "nothing answers at {address} ({cause}); is burdock running there? `admin: {{ address: .. }}` in \
         its configuration says where it listens, --admin URL or BURDOCK_ADMIN where to ask"
    )]
    Connect {
        /// Where.
        address: String,
        /// Why not.
        cause: String,
    },
    /// Somebody is there and says nothing that can be understood.
    #[error(
        "what answers at {address} is no burdock with an admin API ({cause}); --admin URL or BURDOCK_ADMIN names another address"
    )]
    Strange {
        /// Where.
        address: String,
        /// What it said.
        cause: String,
    },
    /// It wants a token.
    #[error(
        "{address} wants a token: --token-file FILE or {TOKEN}; `admin: {{ token_file: .. }}` in its configuration says which"
    )]
    TokenNeeded {
        /// Who.
        address: String,
    },
    /// It wants another token.
    #[error(
        "{address} refused the token; it is not (or no longer) the one in the `token_file` of its configuration"
    )]
    TokenRefused {
        /// Who.
        address: String,
    },
    /// It says no.
    #[error("{0}")]
    Refused(String),
    /// It refuses a configuration.
    #[error("{}", .0.join("\n"))]
    Rejected(Vec<String>),
}

impl ClientError {
    /// Whether it is a configuration that was refused.
    pub fn is_rejection(&self) -> bool {
        matches!(self, Self::Rejected(_))
    }
}

/// A balancer that can be asked.
#[derive(Debug, Clone)]
pub struct Client {
    authority: String,
    token: Option<HeaderValue>,
}

impl Client {
    /// The one at `address`, with the token in this file or in the environment.
    pub fn new(address: &str, token_file: Option<&Path>) -> Result<Self, ClientError> {
        let authority = authority(address)?;
        let token = match token_file {
            Some(path) => {
                let text = std::fs::read_to_string(path);
                let text =
                    text.map_err(|cause| ClientError::TokenFile { path: path.to_owned(), cause })?;
                Some(bearer(&text, &path.display().to_string())?)
            }
            None => match std::env::var(TOKEN) {
                Ok(text) => Some(bearer(&text, TOKEN)?),
                Err(_) => None,
            },
        };
        Ok(Self { authority, token })
    }

    /// Where it asks.
    pub fn address(&self) -> &str {
        &self.authority
    }

    /// What is at this path.
    pub async fn get(&self, path: &str) -> Result<Value, ClientError> {
        self.ask(Method::GET, path, None).await
    }

    /// What is at this path as text.
    pub async fn text(&self, path: &str) -> Result<String, ClientError> {
        let answer = self.begin(Method::GET, path, None, "text/plain").await?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
        let bytes = body.map_err(|error| self.strange(format!("{path}: {error}")))?.to_bytes();
        match status {
            StatusCode::OK => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            _ => self.judge(path, status, &bytes).map(|value| value.to_string()),
        }
    }

    /// What comes of changing something.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        body: &Value,
    ) -> Result<Value, ClientError> {
        self.ask(method, path, Some(body)).await
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, ClientError> {
        let asked = async {
            let answer = self.begin(method, path, body, "application/json").await?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
            let bytes = body.map_err(|error| self.strange(format!("{path}: {error}")))?.to_bytes();
            self.judge(path, status, &bytes)
        };
        let late = || self.strange(format!("{path}: no answer in {} s", ANSWER_TIMEOUT.as_secs()));
        tokio::time::timeout(ANSWER_TIMEOUT, asked).await.map_err(|_| late())?
    }

    /// A stream of server-sent events.
    pub async fn stream(&self, path: &str) -> Result<Incoming, ClientError> {
        let begun = self.begin(Method::GET, path, None, "text/event-stream").await?;
        if begun.status() == StatusCode::OK {
            return Ok(begun.into_body());
        }
        let status = begun.status();
        let body = Limited::new(begun.into_body(), MAX_ANSWER).collect().await;
        let bytes = body.map_err(|error| self.strange(format!("{path}: {error}")))?.to_bytes();
        self.judge(path, status, &bytes)?;
        Err(self.strange(format!("{path}: {status}")))
    }

    async fn begin(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        wanted: &'static str,
    ) -> Result<Response<Incoming>, ClientError> {
        let connect = |cause: String| ClientError::Connect { address: self.url(), cause };
        let opened = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(&self.authority));
        let opened = opened.await.map_err(|_| connect("it does not even refuse".to_owned()))?;
        let socket = opened.map_err(|error| connect(error.to_string()))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(socket))
            .await
            .map_err(|error| self.strange(error.to_string()))?;
        // It ends with its answer's body; what breaks it, the body tells.
        tokio::spawn(connection);
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, &self.authority)
            .header(ACCEPT, wanted);
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, token);
        }
        let text = body.map(Value::to_string).unwrap_or_default();
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let request = request
            .body(Full::new(Bytes::from(text)))
            .map_err(|error| ClientError::Refused(format!("{path}: {error}")))?;
        sender.send_request(request).await.map_err(|error| self.strange(error.to_string()))
    }

    fn judge(&self, path: &str, status: StatusCode, bytes: &[u8]) -> Result<Value, ClientError> {
        let address = || self.url();
        let value = serde_json::from_slice::<Value>(bytes);
        match status {
            StatusCode::UNAUTHORIZED if self.token.is_some() => {
                return Err(ClientError::TokenRefused { address: address() });
            }
            StatusCode::UNAUTHORIZED => {
                return Err(ClientError::TokenNeeded { address: address() });
            }
            _ => {}
        }
        let value = value.map_err(|_| self.strange(format!("{path}: {status}, and no JSON")))?;
        if status.is_success() {
            return Ok(value);
        }
        let problem: Problem = self.read(value)?;
        if status == StatusCode::UNPROCESSABLE_ENTITY && !problem.problems.is_empty() {
            return Err(ClientError::Rejected(problem.problems));
        }
        let title = || format!("{path}: {status} {}", problem.title);
        Err(ClientError::Refused(problem.detail.clone().unwrap_or_else(title)))
    }

    /// A value in its shape.
    pub fn read<T: DeserializeOwned>(&self, value: Value) -> Result<T, ClientError> {
        serde_json::from_value(value).map_err(|error| self.strange(format!("its JSON: {error}")))
    }

    fn url(&self) -> String {
        format!("http://{}", self.authority)
    }

    fn strange(&self, cause: String) -> ClientError {
        ClientError::Strange { address: self.url(), cause }
    }
}

/// Host and port of an address, which may leave out its scheme.
fn authority(address: &str) -> Result<String, ClientError> {
    let bad = || ClientError::Address(address.to_owned());
    let whole = match address.contains("://") {
        true => address.to_owned(),
        false => format!("http://{address}"),
    };
    let uri: Uri = whole.parse().map_err(|_| bad())?;
    let authority = uri.authority().ok_or_else(bad)?;
    let is_root = matches!(uri.path(), "" | "/") && uri.query().is_none();
    if uri.scheme_str() != Some("http") || !is_root || authority.as_str().contains('@') {
        return Err(bad());
    }
    match authority.port_u16() {
        Some(_) => Ok(authority.to_string()),
        None => Ok(format!("{}:80", authority.host())),
    }
}

fn bearer(text: &str, from: &str) -> Result<HeaderValue, ClientError> {
    let text = text.trim();
    let bad = || ClientError::Token(from.to_owned());
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(bad());
    }
    let mut value = HeaderValue::try_from(format!("Bearer {text}")).map_err(|_| bad())?;
    value.set_sensitive(true);
    Ok(value)
}

/// The path of an instance or version, each part of its id escaped.
pub fn path(room: &str, id: &str) -> String {
    let parts: Vec<_> = id.splitn(3, '/').map(escaped).collect();
    format!("/api/v1/{room}/{}", parts.join("/"))
}

/// Text as part of a path or query (RFC 3986 section 2.3).
pub fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match plain(byte) {
            true => out.push(char::from(byte)),
            false => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port() {
        for (address, found) in [
            ("http://127.0.0.1:9900", Some("127.0.0.1:9900")),
            ("127.0.0.1:9900", Some("127.0.0.1:9900")),
            ("http://[::1]:9900/", Some("[::1]:9900")),
            ("localhost", Some("localhost:80")),
            ("https://a:1", None),
            ("http://a:1/x", None),
            ("http://user@a:1", None),
            ("", None),
            ("a b", None),
        ] {
            assert_eq!(authority(address).ok().as_deref(), found, "{address}");
        }
    }

    #[test]
    fn ids_are_escaped_part_by_part() {
        let escaped = path("instances", "chat/v 1/10.0.0.1:80");
        assert_eq!(escaped, "/api/v1/instances/chat/v%201/10.0.0.1%3A80");
        assert_eq!(path("versions", "a/b?c"), "/api/v1/versions/a/b%3Fc");
    }

    #[test]
    fn a_token_is_one_word() {
        assert!(bearer("abc\n", "x").is_ok_and(|value| value == "Bearer abc"));
        assert!(["", " \n", "a b", "a\nb", "\u{e9}"].iter().all(|text| bearer(text, "x").is_err()));
    }
}
