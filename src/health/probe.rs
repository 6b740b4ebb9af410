//! One probe: a question to an instance, and what its answer says.
//!
//! Each has a connection of its own: a kept one would tell nothing about new ones.

use std::future::poll_fn;
use std::io;
use std::pin::pin;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HOST, HeaderValue, TE, USER_AGENT};
use http::{HeaderMap, HeaderName, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::BufWriter;
use tokio::net::{TcpSocket, TcpStream, lookup_host};

use crate::config::types::{Check, Protocol, ProxyVersion};
use crate::health::agent::{self, Report};
use crate::health::check::{Kind, Outcome};
use crate::health::grpc;
use crate::instance::stream::{OpenError, Wire};
use crate::proxy_protocol::{Header, Introduction};
use crate::tls::client::{Alpn, Target};

/// What probes call themselves.
const PROBE: &str = concat!("burdock-probe/", env!("CARGO_PKG_VERSION"));

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// A health message has a few bytes.
const LONGEST_ANSWER: usize = 4096;
/// What a call has to say before it is answered.
const CALL: usize = 512;

/// What came of a probe.
#[derive(Debug)]
pub(super) struct Answer {
    /// For the check.
    pub(super) outcome: Outcome,
    /// What the instance said, or why it said nothing.
    pub(super) said: String,
    /// What the instance says of itself, where it is asked to.
    pub(super) report: Option<Report>,
    /// Which of its lives it is in, where it is asked to tell.
    pub(super) incarnation: Option<String>,
}

impl Answer {
    fn new(outcome: Outcome, said: &(impl ToString + ?Sized)) -> Self {
        Self { outcome, said: said.to_string(), report: None, incarnation: None }
    }

    /// The outcome of a check of this kind in words.
    pub(super) fn reason(&self, kind: Kind) -> String {
        let (kind, said) = (kind.label(), &self.said);
        match self.outcome {
            Outcome::Pass => format!("{kind} check passed"),
            Outcome::Refused => format!("{kind} check answered {said}"),
            Outcome::NoAnswer => format!("{kind} check: {said}"),
        }
    }
}

/// Where an instance is asked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    /// Its address.
    pub(super) address: &'a str,
    /// How connections to it are secured, if they are.
    pub(super) target: Option<&'a Target>,
    /// What requests to it are made by.
    pub(super) protocol: Protocol,
    /// In what version of the PROXY protocol a connection says that it is Burdock's own, if it does.
    pub(super) proxy_protocol: Option<ProxyVersion>,
}

/// What is spoken in probes of `check`; there is a port of its own for somebody who speaks HTTP/1.1.
fn alpn(check: &Check, protocol: Protocol) -> Alpn {
    match (&check.grpc, &check.path, protocol) {
        (Some(_), _, _) => Alpn::Http2,
        (None, Some(_), Protocol::Http2) if check.port.is_none() => Alpn::Http2,
        (None, Some(_), Protocol::Http1 | Protocol::Http2) => Alpn::Http1,
        (None, None, _) => Alpn::None,
    }
}

/// Asks at `place` what `check` says.
pub(super) async fn probe(check: &Check, place: Place<'_>) -> Answer {
    match tokio::time::timeout(check.timeout, ask(check, place)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => Answer::new(Outcome::NoAnswer, &error),
        Err(_elapsed) => {
            Answer::new(Outcome::NoAnswer, &format_args!("no answer in {:?}", check.timeout))
        }
    }
}

async fn ask(check: &Check, place: Place<'_>) -> Result<Answer, ProbeError> {
    let Place { address, target, protocol, proxy_protocol } = place;
    let elsewhere = check.port.map(|port| at_port(address, port));
    let address = elsewhere.as_deref().unwrap_or(address);
    let alpn = alpn(check, protocol);
    let stream = connect(address).await.map_err(OpenError::Connect)?;
    // Nobody knows what another port expects.
    let version = proxy_protocol.filter(|_| elsewhere.is_none());
    let introduction = version.map(|version| Introduction { header: Header::Local, version });
    let stream = Wire::begin(stream, introduction, target, alpn).await?;
    let host = check.host.as_deref().unwrap_or(address);
    let scheme = if target.is_some() { "https" } else { "http" };
    let server = format!("{scheme}://{host}");
    if let Some(service) = &check.grpc {
        return Ok(match ask_grpc(stream, service, &server).await? {
            Ok(()) => Answer::new(Outcome::Pass, "SERVING"),
            Err(said) => Answer::new(Outcome::Refused, &said),
        });
    }
    let Some(path) = &check.path else {
        return Ok(Answer::new(Outcome::Pass, "connected"));
    };
    let response = match alpn {
        Alpn::Http2 => get_on_stream(stream, path, &server).await?,
        Alpn::Http1 | Alpn::None => get(stream, path, host).await?,
    };
    let status = response.status();
    let passes =
        check.expected_statuses.iter().any(|(from, to)| (*from..=*to).contains(&status.as_u16()));
    let outcome = if passes { Outcome::Pass } else { Outcome::Refused };
    let mut answer = Answer::new(outcome, &status);
    // An answer of somebody else in its place, a sidecar's 502, says nothing of what it wants.
    let speaks = passes || response.headers().contains_key(agent::FIELD);
    answer.report = (check.agent && speaks).then(|| report(response.headers(), address));
    if let Some(value) = check.incarnation_header.as_ref().and_then(|it| response.headers().get(it))
    {
        answer.incarnation = Some(value.as_bytes().escape_ascii().to_string());
    }
    Ok(answer)
}

/// Opens a connection as `TcpStream::connect` does, but for the last packet of the handshake: it
/// waits for the first of the request, so that there is one packet less, and the instance is woken
/// once.
async fn connect(address: &str) -> io::Result<TcpStream> {
    let mut failure = None;
    for address in lookup_host(address).await? {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        #[cfg(target_os = "linux")]
        socket2::SockRef::from(&socket).set_tcp_quickack(false)?;
        match socket.connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = Some(error),
        }
    }
    let nowhere = || io::Error::new(io::ErrorKind::InvalidInput, "the name has no address");
    Err(failure.unwrap_or_else(nowhere))
}

/// The same host at another port.
fn at_port(address: &str, port: u16) -> String {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    format!("{host}:{port}")
}

fn report(headers: &HeaderMap, address: &str) -> Report {
    let values = headers.get_all(agent::FIELD).iter().map(HeaderValue::as_bytes);
    let (report, unclear) = Report::read(values);
    if let Some(word) = unclear {
        tracing::debug!(instance = address, word, "a word of X-Burdock-State means nothing");
    }
    report
}

async fn get(stream: Wire, path: &str, host: &str) -> Result<Response<Incoming>, ProbeError> {
    let (mut sender, mut connection) = http1::handshake(TokioIo::new(stream)).await?;
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.uri_mut() = Uri::try_from(path).map_err(|_bad| ProbeError::Target)?;
    let headers = request.headers_mut();
    headers.insert(HOST, HeaderValue::from_str(host).map_err(|_bad| ProbeError::Target)?);
    headers.insert(USER_AGENT, HeaderValue::from_static(PROBE));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    let answer = sender.send_request(request);
    tokio::pin!(answer);
    tokio::select! {
        biased;
        answer = &mut answer => return Ok(answer?),
        // It is closed as soon as the answer is there: ending its direction before that is a call more.
        over = poll_fn(|cx| connection.poll_without_shutdown(cx)) => over?,
    }
    // The connection is over; what came of the request is known.
    Ok(answer.await?)
}

/// The same by HTTP/2.
async fn get_on_stream(
    stream: Wire,
    path: &str,
    server: &str,
) -> Result<Response<Incoming>, ProbeError> {
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    let request = Request::get(format!("{server}{path}"))
        .header(USER_AGENT, PROBE)
        .body(Empty::<Bytes>::new())
        .map_err(|_bad| ProbeError::Target)?;
    let mut answer = pin!(sender.send_request(request));
    tokio::select! {
        biased;
        answer = answer.as_mut() => return Ok(answer?),
        over = connection => over?,
    }
    Ok(answer.await?)
}

/// What a server of the gRPC health protocol says: that the service serves, or what else.
async fn ask_grpc(
    stream: Wire,
    service: &str,
    server: &str,
) -> Result<Result<(), String>, ProbeError> {
    // The preface, the settings and the request are put out one by one, and sent together.
    let io = TokioIo::new(BufWriter::with_capacity(CALL, stream));
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
    let request = Request::post(format!("{server}{}", grpc::PATH))
        .header(CONTENT_TYPE, "application/grpc")
        .header(TE, "trailers")
        .header(USER_AGENT, PROBE)
        .body(Full::new(Bytes::from(grpc::request(service))))
        .map_err(|_bad| ProbeError::Target)?;
    let answer = async move {
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, LONGEST_ANSWER).collect().await.map_err(ProbeError::Body)?;
        Ok::<_, ProbeError>((head, body))
    };
    let mut answer = pin!(answer);
    let (head, body) = tokio::select! {
        biased;
        answer = &mut answer => answer?,
        over = connection => {
            over?;
            answer.await?
        }
    };
    if head.status != StatusCode::OK {
        return Ok(Err(head.status.to_string()));
    }
    // An answer without a message has its status in the head.
    let trailers = body.trailers().unwrap_or(&head.headers);
    let code = trailers.get(GRPC_STATUS).map(HeaderValue::as_bytes);
    if code != Some(b"0") {
        let code = code.map_or_else(|| "none".to_owned(), |code| code.escape_ascii().to_string());
        return Ok(Err(format!("grpc-status {code}")));
    }
    Ok(match grpc::answer(&body.to_bytes()) {
        Some(grpc::Status::Serving) => Ok(()),
        Some(grpc::Status::NotServing) => Err("NOT_SERVING".to_owned()),
        Some(grpc::Status::Unknown) => Err("UNKNOWN".to_owned()),
        None => Err("what is no health message".to_owned()),
    })
}

/// Why a probe got no answer.
#[derive(Debug, thiserror::Error)]
enum ProbeError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("{0}")]
    Http(#[from] hyper::Error),
    #[error("{0}")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("path or host is no valid request target")]
    Target,
}

#[cfg(test)]
mod tests {
    use super::at_port;

    #[test]
    fn another_port_keeps_the_host() {
        assert_eq!(at_port("10.0.0.1:80", 9), "10.0.0.1:9");
        assert_eq!(at_port("[::1]:80", 9), "[::1]:9");
        assert_eq!(at_port("a.example:80", 9), "a.example:9");
    }
}
