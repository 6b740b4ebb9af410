//! One browser: a cookie jar, and a connection that it keeps while it is kept.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::{Common, Name, Trouble};
use crate::drill::wire;

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) instance: Option<Name>,
    pub(super) status: StatusCode,
    /// Empty where the caller took it piece by piece.
    pub(super) body: Vec<u8>,
}

/// A browser.
#[derive(Debug)]
pub(super) struct Browser {
    address: SocketAddr,
    host: String,
    patience: Duration,
    jar: Jar,
    connection: Option<Connection>,
}

#[derive(Debug)]
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    task: AbortHandle,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Browser {
    pub(super) fn new(common: &Common) -> Self {
        let (address, host, patience) = (common.address, common.host.clone(), common.patience);
        Self { address, host, patience, jar: Jar::default(), connection: None }
    }

    /// Another connection of the same browser.
    pub(super) fn beside(&self, jar: Jar) -> Self {
        Self { host: self.host.clone(), jar, connection: None, ..*self }
    }

    pub(super) fn jar(&self) -> Jar {
        self.jar.clone()
    }

    /// Asks, and keeps the answer's body.
    pub(super) async fn ask(&mut self, request: Request<Bytes>) -> Result<Answer, Trouble> {
        let mut body = Vec::new();
        let mut answer = self.ask_for(request, |data| body.extend_from_slice(data)).await?;
        answer.body = body;
        Ok(answer)
    }

    /// Asks, and hands on the answer's body as it comes.
    pub(super) async fn ask_for(
        &mut self,
        request: Request<Bytes>,
        take: impl FnMut(&[u8]),
    ) -> Result<Answer, Trouble> {
        let outcome = timeout(self.patience, self.exchange(request, take)).await;
        let outcome = outcome.unwrap_or(Err(Trouble::Late));
        if outcome.is_err() {
            self.connection = None;
        }
        outcome
    }

    /// Asks for an upgrade, and gives what the connection has become.
    pub(super) async fn upgrade(
        &mut self,
        request: Request<Bytes>,
    ) -> Result<(Upgraded, Option<Name>), Trouble> {
        let patience = self.patience;
        let upgrading = async {
            // One that is kept might end while it is asked.
            self.connection = None;
            let response = self.begin(request).await?;
            if response.status() != StatusCode::SWITCHING_PROTOCOLS {
                return Err(Trouble::Status(response.status().as_u16()));
            }
            let name = named(&response);
            let upgraded = hyper::upgrade::on(response).await.map_err(|_| Trouble::Broke)?;
            Ok((upgraded, name))
        };
        timeout(patience, upgrading).await.unwrap_or(Err(Trouble::Late))
    }

    /// Sends what is asked, and keeps the cookies that come with the answer's head.
    async fn begin(&mut self, mut request: Request<Bytes>) -> Result<Response<Incoming>, Trouble> {
        let headers = request.headers_mut();
        if let Ok(host) = HeaderValue::from_str(&self.host) {
            headers.insert(header::HOST, host);
        }
        self.jar.send(headers);
        let response = self.send(request).await?;
        self.jar.keep(response.headers());
        Ok(response)
    }

    async fn exchange(
        &mut self,
        request: Request<Bytes>,
        mut take: impl FnMut(&[u8]),
    ) -> Result<Answer, Trouble> {
        let mut response = self.begin(request).await?;
        while let Some(frame) = response.body_mut().frame().await {
            let frame = frame.map_err(|_| Trouble::Cut)?;
            if let Some(data) = frame.data_ref() {
                take(data);
            }
        }
        let instance = named(&response);
        Ok(Answer { instance, status: response.status(), body: Vec::new() })
    }

    /// A kept connection that ends before anything of an answer has come is no failure: a browser
    /// sends the request again on a new one, where that is safe (RFC 9112 section 9.3.1).
    async fn send(&mut self, request: Request<Bytes>) -> Result<Response<Incoming>, Trouble> {
        let is_safe = request.method().is_safe();
        let kept = match self.connection.take() {
            Some(mut connection) => connection.sender.ready().await.is_ok().then_some(connection),
            None => None,
        };
        let is_kept = kept.is_some();
        let mut connection = match kept {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let copy = request.clone().map(Full::new);
        match connection.sender.send_request(copy).await {
            Ok(response) => {
                self.connection = Some(connection);
                Ok(response)
            }
            Err(error) if is_kept && (is_safe || error.is_canceled()) => {
                let mut connection = self.connect().await?;
                let response = connection.sender.send_request(request.map(Full::new)).await;
                self.connection = Some(connection);
                response.map_err(|_| Trouble::Broke)
            }
            Err(_) => Err(Trouble::Broke),
        }
    }

    async fn connect(&self) -> Result<Connection, Trouble> {
        let stream = TcpStream::connect(self.address).await.map_err(|_| Trouble::Refused)?;
        let _ = stream.set_nodelay(true);
        let shake = http1::handshake(TokioIo::new(stream)).await;
        let (sender, connection) = shake.map_err(|_| Trouble::Broke)?;
        // What ends it is told by the request that was on it.
        let task =
            tokio::spawn(async move { drop(connection.with_upgrades().await) }).abort_handle();
        Ok(Connection { sender, task })
    }
}

/// Who answered; answers of the balancer itself name nobody.
fn named(response: &Response<Incoming>) -> Option<Name> {
    let name = response.headers().get(wire::INSTANCE)?;
    name.to_str().ok().map(Name::from)
}

/// Cookies of one host; paths and lifetimes do not matter to a drill.
#[derive(Debug, Clone, Default)]
pub(super) struct Jar(BTreeMap<String, String>);

impl Jar {
    pub(super) fn send(&self, headers: &mut HeaderMap) {
        let pairs: Vec<_> = self.0.iter().map(|(name, value)| format!("{name}={value}")).collect();
        if let Ok(line) = HeaderValue::from_str(&pairs.join("; "))
            && !pairs.is_empty()
        {
            headers.insert(header::COOKIE, line);
        }
    }

    pub(super) fn keep(&mut self, headers: &HeaderMap) {
        for line in headers.get_all(header::SET_COOKIE) {
            let Ok(cookie) = cookie::Cookie::parse(String::from_utf8_lossy(line.as_bytes())) else {
                continue;
            };
            if cookie.max_age().is_some_and(|age| age.is_zero()) {
                self.0.remove(cookie.name());
            } else {
                self.0.insert(cookie.name().to_owned(), cookie.value().to_owned());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jar_gives_back_what_it_was_given() {
        let mut jar = Jar::default();
        let mut set = HeaderMap::new();
        for line in ["BURDOCK=abc; Path=/; HttpOnly", "x=1", "y=2; Max-Age=0"] {
            set.append(header::SET_COOKIE, HeaderValue::from_static(line));
        }
        jar.keep(&set);
        let mut sent = HeaderMap::new();
        jar.send(&mut sent);
        assert_eq!(sent[header::COOKIE], "BURDOCK=abc; x=1");
        let mut sent = HeaderMap::new();
        Jar::default().send(&mut sent);
        assert!(sent.is_empty());
    }
}
