//! One probe: a question to an instance, and what its answer says.
//!
//! Each has a connection of its own: a kept one would tell nothing about new ones.

use bytes::Bytes;
use http::header::{CONNECTION, HOST, HeaderValue, USER_AGENT};
use http::{HeaderMap, Request, Response, Uri};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::config::types::Check;
use crate::health::agent::{self, Report};
use crate::health::check::Outcome;

/// What probes call themselves.
const PROBE: &str = concat!("burdock-probe/", env!("CARGO_PKG_VERSION"));

/// What came of a probe.
#[derive(Debug)]
pub(super) struct Answer {
    /// For the check.
    pub(super) outcome: Outcome,
    /// The same in words.
    pub(super) reason: String,
    /// What the instance says of itself, where it is asked to.
    pub(super) report: Option<Report>,
    /// Which of its lives it is in, where it is asked to tell.
    pub(super) incarnation: Option<String>,
}

impl Answer {
    fn new(outcome: Outcome, reason: String) -> Self {
        Self { outcome, reason, report: None, incarnation: None }
    }
}

/// Asks what `check` says; `kind` is its name in messages.
pub(super) async fn probe(check: &Check, address: &str, kind: &str) -> Answer {
    match tokio::time::timeout(check.timeout, ask(check, address, kind)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => Answer::new(Outcome::NoAnswer, format!("{kind} check: {error}")),
        Err(_elapsed) => {
            let reason = format!("{kind} check: no answer in {:?}", check.timeout);
            Answer::new(Outcome::NoAnswer, reason)
        }
    }
}

async fn ask(check: &Check, address: &str, kind: &str) -> Result<Answer, ProbeError> {
    let stream = TcpStream::connect(address).await.map_err(ProbeError::Connect)?;
    let Some(path) = &check.path else {
        return Ok(Answer::new(Outcome::Pass, format!("{kind} check passed")));
    };
    let response = get(stream, path, check.host.as_deref().unwrap_or(address)).await?;
    let status = response.status();
    let passes =
        check.expected_statuses.iter().any(|(from, to)| (*from..=*to).contains(&status.as_u16()));
    let mut answer = match passes {
        true => Answer::new(Outcome::Pass, format!("{kind} check passed")),
        false => Answer::new(Outcome::Refused, format!("{kind} check answered {status}")),
    };
    answer.report = check.agent.then(|| report(response.headers(), address));
    if let Some(value) = check.incarnation_header.as_ref().and_then(|it| response.headers().get(it))
    {
        answer.incarnation = Some(value.as_bytes().escape_ascii().to_string());
    }
    Ok(answer)
}

fn report(headers: &HeaderMap, address: &str) -> Report {
    let values = headers.get_all(agent::FIELD).iter().map(HeaderValue::as_bytes);
    let (report, unclear) = Report::read(values);
    if let Some(word) = unclear {
        tracing::debug!(instance = address, word, "a word of X-Burdock-State means nothing");
    }
    report
}

async fn get(stream: TcpStream, path: &str, host: &str) -> Result<Response<Incoming>, ProbeError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
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
        over = connection => over?,
    }
    // The connection is over; what came of the request is known.
    Ok(answer.await?)
}

/// Why a probe got no answer.
#[derive(Debug, thiserror::Error)]
enum ProbeError {
    #[error("connecting: {0}")]
    Connect(#[source] std::io::Error),
    #[error("{0}")]
    Http(#[from] hyper::Error),
    #[error("path or host is no valid request target")]
    Target,
}
