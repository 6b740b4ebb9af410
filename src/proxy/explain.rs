//! Where a request would go and why, for an operator who asks.
//!
//! It asks the functions that the path of a request asks, and they decide: the router, the session and
//! its token, the balance. What it adds is words. No turn is taken, no counter moves, nothing is
//! remembered. Read [`explain`] first.

mod words;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::header::{COOKIE, HOST, HeaderName, HeaderValue};
use http::{Method, Request, Uri, request};
use serde::Serialize;

use crate::config::types::Listener;
use crate::health::Membership;
use crate::instance::{Instance, Kind};
use crate::proxy::error::Reason;
use crate::proxy::headers::{self, Fields, Origin};
use crate::proxy::part;
use crate::proxy::session::{self, Lot, Outcome, Seen, Session, Visit};
use crate::proxy::upgrade::Upgrade;
use crate::route::Unrouted;
use crate::snapshot::{Branch, Service, Snapshot};

/// A request that nobody makes.
#[derive(Debug)]
pub struct Question {
    head: request::Parts,
    https: bool,
    port: u16,
    client: IpAddr,
    /// The text of a token without the name of its cookie, which depends on where the request goes.
    token: Option<String>,
}

/// Why a question has no meaning; displays as one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuestionError {
    /// No URL.
    #[error("url: must be http://HOST/PATH or https://HOST/PATH, not {0:?}")]
    Url(String),
    /// No method.
    #[error("method: {0:?} is none")]
    Method(String),
    /// No field.
    #[error("header: must be NAME:VALUE, not {0:?}")]
    Header(String),
    /// No cookie.
    #[error("cookie: {0:?} can be in no request")]
    Cookie(String),
}

/// Where a request would go and why.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explanation {
    /// Where it would come in.
    pub listener: Option<String>,
    /// Who would take it.
    pub service: Option<String>,
    /// By which host and path.
    pub why_service: String,
    /// The version.
    pub version: Option<String>,
    /// Why that one; nothing where the service has no other.
    pub why_version: Option<String>,
    /// What its token comes to.
    pub token: Option<Token>,
    /// Every instance, and whether new sessions may go there.
    pub candidates: Vec<Candidate>,
    /// Where it would go.
    pub choice: Option<String>,
    /// Why there.
    pub why: String,
    /// What would become of its session, or the reason of the error.
    pub outcome: String,
}

/// What a token comes to.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Token {
    /// `absent`, `bound` or `rejected`.
    pub verdict: &'static str,
    /// Why it was rejected.
    pub reason: Option<&'static str>,
    /// Where it was.
    pub carrier: Option<&'static str>,
    /// When its session began.
    pub issued: Option<String>,
    /// When it was last renewed.
    pub renewed: Option<String>,
    /// Which key sealed it.
    pub key: Option<String>,
    /// The instance it names.
    pub instance: Option<String>,
    /// How long ago its session began.
    pub age_seconds: Option<u64>,
}

/// An instance, as one that is bound to none sees it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Candidate {
    /// Its name.
    pub instance: String,
    /// Whether it may be chosen.
    pub r#in: bool,
    /// Why, or why not.
    pub reason: String,
}

impl Explanation {
    /// It goes nowhere, for this reason.
    fn refuse(&mut self, reason: Reason) {
        let (label, status) = reason.outward();
        self.outcome = label.to_owned();
        self.why = match status {
            Some(status) => format!("answered with {}: {label}", status.as_u16()),
            None => format!("its connection is closed: {label}"),
        };
    }
}

impl Question {
    /// A request of `client` for `url`. `cookie` is the value of a Cookie field, or a token alone;
    /// `fields` are as `name:value`.
    pub fn new(
        url: &str,
        method: &str,
        cookie: Option<&str>,
        client: IpAddr,
        fields: &[String],
    ) -> Result<Self, QuestionError> {
        let bad_url = || QuestionError::Url(url.to_owned());
        let uri: Uri = url.parse().map_err(|_| bad_url())?;
        let https = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            Some(_) | None => return Err(bad_url()),
        };
        let authority = uri.authority().ok_or_else(bad_url)?;
        let port = authority.port_u16().unwrap_or(if https { 443 } else { 80 });
        let host = headers::host_of(authority).map_err(|_| bad_url())?;
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        let target = if target.starts_with('?') { format!("/{target}") } else { target.to_owned() };
        let known = Method::from_bytes(method.as_bytes());
        let known = known.map_err(|_| QuestionError::Method(method.to_owned()))?;
        let request = Request::builder().uri(target).method(known).body(());
        let (mut head, ()) = request.map_err(|_| bad_url())?.into_parts();
        head.headers.insert(HOST, host);
        for line in fields {
            let (name, value) = field(line).ok_or_else(|| QuestionError::Header(line.clone()))?;
            match name == HOST {
                true => drop(head.headers.insert(name, value)),
                false => drop(head.headers.append(name, value)),
            }
        }
        let (token, line) = match cookie {
            Some(text) if text.contains('=') => (None, Some(text)),
            text => (text.map(str::to_owned), None),
        };
        if let Some(line) = line {
            let bad = |_| QuestionError::Cookie(line.to_owned());
            head.headers.append(COOKIE, HeaderValue::from_str(line).map_err(bad)?);
        }
        Ok(Self { head, https, port, client, token })
    }

    /// Puts a token that was given without a name where the service looks for it.
    fn carry_token(&mut self, service: &Service) {
        let Some(token) = self.token.take() else { return };
        let Some(affinity) = &service.version().affinity else { return };
        if let Ok(line) = HeaderValue::try_from(format!("{}={token}", affinity.cookie.name)) {
            self.head.headers.append(COOKIE, line);
        }
    }
}

fn field(line: &str) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = line.split_once(':')?;
    Some((name.trim().parse().ok()?, HeaderValue::from_str(value.trim()).ok()?))
}

/// Where this request would go and why.
pub fn explain(snapshot: &Snapshot, mut question: Question) -> Explanation {
    let config = &snapshot.config;
    let listener = listener(&config.listeners, question.https, question.port);
    let peer_text = HeaderValue::from_static("");
    let trusted = headers::is_trusted(question.client, &config.trusted_proxies);
    let (peer, version) = (question.client, question.head.version);
    let origin = Origin { peer, peer_text: &peer_text, trusted, version, https: question.https };
    let client = headers::client_address(&question.head.headers, origin, &config.trusted_proxies);
    let https = headers::is_https(&question.head.headers, origin);
    let host = question.head.headers.get(HOST).and_then(|host| host.to_str().ok());
    let host = host.unwrap_or_default().to_owned();
    let mut explanation = Explanation {
        listener: listener.map(|it| it.address.to_string()),
        service: None,
        why_service: words::no_route(&host, question.head.uri.path()),
        version: None,
        why_version: None,
        token: None,
        candidates: Vec::new(),
        choice: None,
        why: "answered with 404: no service takes this host and path".to_owned(),
        outcome: "no_service".to_owned(),
    };
    if let Some((outcome, why)) = listener.and_then(|it| words::stopped(it, peer, https)) {
        (explanation.outcome, explanation.why) = (outcome.to_owned(), why);
        return explanation;
    }
    let fields = Fields::of(&question.head.headers);
    if let Err(bad) = headers::check(&question.head, fields, None) {
        explanation.refuse(bad.into());
        return explanation;
    }
    let (branch, route) = match snapshot.route(&host, question.head.uri.path()) {
        Ok(found) => found,
        Err(Unrouted::Nobody) => return explanation,
        Err(why @ Unrouted::Ambiguous) => {
            explanation.why_service = words::ambiguous(question.head.uri.path());
            explanation.refuse(why.into());
            return explanation;
        }
    };
    let first = &branch.versions()[0];
    explanation.service = Some(first.roster.service().to_owned());
    explanation.why_service = words::route(&host, route);
    if !first.access().admits(client) {
        explanation.outcome = "denied".to_owned();
        explanation.why = format!("answered with 403: `access` of the service keeps {client} out");
        return explanation;
    }
    if let Some(index) = route.part
        && !treat(&mut explanation, &mut question, (first, index), route.path, (https, &host))
    {
        return explanation;
    }
    question.carry_token(branch.carriers().next().unwrap_or(first));
    let service = branch.only().unwrap_or_else(|| {
        let lot = session::draw(snapshot, branch, &question.head, client, None);
        explanation.why_version = Some(words::lot(branch, lot));
        lot.service
    });
    explanation.version = Some(service.roster.version().to_owned());
    go(&mut explanation, snapshot, service, question, (client, https));
    explanation
}

/// What one of the service's `routes` does to it; whether it goes on after that.
fn treat(
    explanation: &mut Explanation,
    question: &mut Question,
    (service, index): (&Service, usize),
    path: &str,
    origin: (bool, &str),
) -> bool {
    let part = &service.settings().routes[index];
    explanation.why_service += &words::treated(part, index);
    if let Some(redirect) = &part.redirect {
        let to = part::elsewhere(redirect, path, &question.head, origin);
        let to = to.map(|(_, to)| to.to_str().unwrap_or_default().to_owned());
        explanation.outcome = "redirected".to_owned();
        explanation.why = match to {
            Ok(to) => format!("answered with {}: it sends its clients to {to}", redirect.status),
            Err(reason) => format!("answered with an error: {}", reason.label()),
        };
        return false;
    }
    if let Some(to) = &part.rewrite_prefix
        && let Err(reason) = part::rewrite(&mut question.head, path, to)
    {
        explanation.refuse(reason);
        return false;
    }
    true
}

/// The part of it within a service.
fn go(
    explanation: &mut Explanation,
    snapshot: &Snapshot,
    service: &Service,
    question: Question,
    (client, https): (IpAddr, bool),
) {
    let mut head = question.head;
    let fields = Fields::of(&head.headers);
    let upgrade = Upgrade::asked(&head, fields, &service.version().upgrades, false);
    let kind = if upgrade.is_some() { Kind::Tunnel } else { Kind::Request };
    let tokens = session::tokens(snapshot, service, &head);
    let client = client.to_string();
    let visit = Visit { https, kind, client: &client, stream: None, fields, only_asks: true };
    let session = Session::read(snapshot, service, &mut head, visit);
    let now = Instant::now();
    let chosen = session.foresee(now);
    let affinity = service.version().affinity.as_ref();
    let is_by_token = affinity.is_some_and(|affinity| affinity.by.is_none());
    explanation.token = is_by_token.then(|| token(&tokens, snapshot.keyring.len()));
    let members = service.roster.members();
    explanation.candidates = members.everyone().iter().map(|it| candidate(it, kind)).collect();
    let waits = chosen.is_err() && service.roster.is_full(kind, &[]);
    explanation.outcome = match (&chosen, session.outcome()) {
        (Ok(_), outcome) => outcome.labels().0.to_owned(),
        (Err(_), _) if waits => "queued".to_owned(),
        (Err(reason), _) => reason.label().to_owned(),
    };
    let story = words::Story {
        outcome: session.outcome(),
        tokens: &tokens,
        by_memory: session.is_known_by_memory(now),
        has_key: session.has_key(),
        waits,
    };
    explanation.why = words::why(service, &story, chosen.as_ref().map(Arc::as_ref));
    explanation.choice = chosen.ok().map(|instance| instance.identity().name.clone());
}

/// The listener of this port; where none has it, the only one of its kind: a port in front may be mapped.
fn listener(listeners: &[Listener], https: bool, port: u16) -> Option<&Listener> {
    let alike = || listeners.iter().filter(|listener| listener.tls.is_some() == https);
    let of_port = alike().find(|listener| listener.address.port() == port);
    let only = || alike().next().filter(|_| alike().count() == 1);
    of_port.or_else(only)
}

/// What the tokens come to: the one that is honoured, else the first.
fn token(tokens: &[Seen], keys: usize) -> Token {
    let honoured = tokens.iter().find(|seen| seen.verdict.is_ok());
    let Some(seen) = honoured.or_else(|| tokens.first()) else {
        return Token { verdict: "absent", ..Token::default() };
    };
    let said = seen.says.as_ref();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    Token {
        verdict: if seen.verdict.is_ok() { "bound" } else { "rejected" },
        reason: seen.verdict.err().map(|reason| reason.label()),
        carrier: Some(seen.carrier.label()),
        issued: said.map(|said| instant(said.issued)),
        renewed: said.map(|said| instant(said.renewed)),
        key: seen.key.map(|place| format!("{place} of {keys}")),
        instance: said.map(|said| said.instance.clone()),
        age_seconds: said.map(|said| now.saturating_sub(said.issued)),
    }
}

fn instant(seconds: u64) -> String {
    let at = UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).unwrap_or(UNIX_EPOCH);
    humantime::format_rfc3339_millis(at).to_string()
}

fn candidate(instance: &Arc<Instance>, kind: Kind) -> Candidate {
    let out = words::out(instance, kind);
    Candidate {
        instance: instance.identity().name.clone(),
        r#in: out.is_none(),
        reason: out.unwrap_or_else(|| words::within(instance)),
    }
}

#[cfg(test)]
mod tests;
