//! Asks an etcd, of one member after the other.
//!
//! Each question is bounded in time at each member; answers are bounded in length. What changes
//! something only if nothing has changed before is asked again only where it has certainly not arrived.

use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Request, StatusCode};
use http_body_util::Full;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::watch::Watch;
use super::wire::{self, Pair};
use super::{EtcdError, is_unsent};
use crate::config::types::{Etcd, EtcdUser, InstanceTls};
use crate::outward::{Connection, Lines, Target, Unanswered, whole, within};

/// For one question to one member, from the connect to the last byte of the answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// For the connect alone: another member is asked before whoever waits for the first answer gives up.
const CONNECT: Duration = Duration::from_secs(2);
/// Keys in one answer.
const PAGE: usize = 1000;
/// The longest answer, and the longest message of a watch.
const LONGEST: usize = 16 * 1024 * 1024;
/// All keys and values of a listing.
const MOST_BYTES: usize = 64 * 1024 * 1024;
/// A listing is begun anew so often because what it began with is forgotten meanwhile.
const LISTINGS: usize = 3;
const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// A watch of a member that has lost its leader is to end, rather than to say nothing for ever.
const HAS_LEADER: HeaderName = HeaderName::from_static("grpc-metadata-hasleader");

/// Asks an etcd.
#[derive(Debug)]
pub struct Client {
    endpoints: Vec<String>,
    tls: Option<InstanceTls>,
    user: Option<EtcdUser>,
    patience: Duration,
    /// Which member is asked.
    at: usize,
    token: Token,
    kept: Option<Connection>,
}

/// What shows who asks.
#[derive(Clone)]
enum Token {
    Unknown,
    /// This etcd knows no users.
    Needless,
    Is(HeaderValue),
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

/// Whether a question may be asked again of another member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Again {
    /// It does the same however often it is asked.
    Always,
    /// It must not arrive twice.
    IfUnsent,
}

/// What stands under a prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// When it did.
    pub revision: i64,
    /// The cluster that said so.
    pub cluster: u64,
    /// In order of their keys.
    pub pairs: Vec<Pair>,
}

/// What became of a compare-and-set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Swapped {
    /// It is done, with this revision.
    Done(i64),
    /// The key had changed; this is there instead.
    Found(Option<Pair>),
}

impl Client {
    /// One that asks the members of `etcd`; a random one first, so that not all ask the same.
    pub fn new(etcd: &Etcd) -> Self {
        Self {
            endpoints: etcd.endpoints.clone(),
            tls: etcd.tls.clone(),
            user: etcd.user.clone(),
            patience: PATIENCE,
            at: fastrand::usize(..etcd.endpoints.len().max(1)),
            token: Token::Unknown,
            kept: None,
        }
    }

    /// Waits so long for each member, instead of 5 s.
    #[must_use]
    pub fn patient_for(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// All that stands under `prefix`, as it was at one moment. More than `most` keys are an error.
    pub async fn list(&mut self, prefix: &[u8], most: usize) -> Result<Listing, EtcdError> {
        let mut listed = self.pages(prefix, most).await;
        for _ in 1..LISTINGS {
            if !listed.as_ref().is_err_and(EtcdError::is_compacted) {
                break;
            }
            listed = self.pages(prefix, most).await;
        }
        listed
    }

    async fn pages(&mut self, prefix: &[u8], most: usize) -> Result<Listing, EtcdError> {
        let (mut from, end) = (prefix.to_vec(), wire::end_of(prefix));
        let mut listing = Listing { revision: 0, cluster: 0, pairs: Vec::new() };
        let (mut limit, mut bytes) = (PAGE, 0);
        let shown = || String::from_utf8_lossy(prefix).into_owned();
        loop {
            let question = wire::range(&from, &end, limit, listing.revision);
            let answer: Result<wire::Ranged, _> = self.ask("kv/range", &question).await;
            let answer = match answer {
                // Values may be long, and fewer of them are shorter.
                Err(error) if error.is_too_long() && limit > 1 => {
                    limit = (limit / 8).max(1);
                    continue;
                }
                answer => answer?,
            };
            if listing.revision == 0 {
                (listing.revision, listing.cluster) =
                    (answer.header.revision, answer.header.cluster_id);
            }
            let (more, count) = (answer.more, answer.count);
            let pairs = answer.pairs().map_err(|why| self.nonsense(why))?;
            bytes += pairs.iter().map(|it| it.key.len() + it.value.len()).sum::<usize>();
            if listing.pairs.len() + pairs.len() > most || count > most as i64 {
                return Err(EtcdError::TooMany(most, shown()));
            }
            if bytes > MOST_BYTES {
                return Err(EtcdError::TooLong(MOST_BYTES, shown()));
            }
            let is_ahead = pairs.first().is_none_or(|pair| pair.key >= from);
            if listing.revision <= 0 || !is_ahead || !pairs.is_sorted_by(|a, b| a.key < b.key) {
                return Err(self.nonsense("keys out of order, or without a revision".to_owned()));
            }
            let last = pairs.last().map(|pair| pair.key.clone());
            listing.pairs.extend(pairs);
            match last.filter(|_| more) {
                // The next key that there can be.
                Some(last) => from = [&last[..], &[0]].concat(),
                None => return Ok(listing),
            }
        }
    }

    /// What stands at one key.
    pub async fn look(&mut self, key: &[u8]) -> Result<Option<Pair>, EtcdError> {
        let answer: wire::Ranged = self.ask("kv/range", &wire::key(key)).await?;
        Ok(answer.pairs().map_err(|why| self.nonsense(why))?.pop())
    }

    /// Puts a value at a key, for as long as a lease lasts; for ever if that is 0. Gives the revision.
    pub async fn put(&mut self, key: &[u8], value: &[u8], lease: i64) -> Result<i64, EtcdError> {
        let answer: wire::Done = self.ask("kv/put", &wire::put(key, value, lease)).await?;
        Ok(answer.header.revision)
    }

    /// Takes a key away, if it is there. Gives the revision.
    pub async fn delete(&mut self, key: &[u8]) -> Result<i64, EtcdError> {
        let answer: wire::Done = self.ask("kv/deleterange", &wire::key(key)).await?;
        Ok(answer.header.revision)
    }

    /// Puts a value at a key whose last change was at `revision`, and 0 means that it is not there.
    /// After an error it may have been put or not.
    pub async fn swap(
        &mut self,
        key: &[u8],
        revision: i64,
        value: &[u8],
        lease: i64,
    ) -> Result<Swapped, EtcdError> {
        let question = wire::swap(key, revision, value, lease);
        let answer: wire::Compared = self.ask_with("kv/txn", &question, Again::IfUnsent).await?;
        if answer.succeeded {
            return Ok(Swapped::Done(answer.header.revision));
        }
        answer.found().map(Swapped::Found).map_err(|why| self.nonsense(why))
    }

    /// A lease that lasts so long, if it is not kept alive; at least a second. Gives its ID, and how
    /// long it really lasts.
    pub async fn grant(&mut self, ttl: Duration) -> Result<(i64, Duration), EtcdError> {
        let seconds = ttl.as_secs().max(1);
        let told: wire::Granted = self.ask("lease/grant", &wire::grant(seconds)).await?;
        if told.id == 0 {
            return Err(self.nonsense("a lease without an ID".to_owned()));
        }
        Ok((told.id, lasts(told.ttl)))
    }

    /// Lets a lease last as long again as when it began; tells how long. Nothing, if it is no more.
    pub async fn keep_alive(&mut self, lease: i64) -> Result<Option<Duration>, EtcdError> {
        let told: wire::Streamed<wire::Granted> =
            self.ask("lease/keepalive", &wire::lease(lease)).await?;
        match told.refusal() {
            Some(refusal) => Err(EtcdError::Refused(self.place(), refusal)),
            None => Ok((told.result.ttl > 0).then(|| lasts(told.result.ttl))),
        }
    }

    /// Ends a lease, and with it all its keys. One that is no more is fine.
    pub async fn revoke(&mut self, lease: i64) -> Result<(), EtcdError> {
        let told: Result<wire::Done, _> = self.ask("lease/revoke", &wire::lease(lease)).await;
        match told {
            Err(error) if error.is_without_lease() => Ok(()),
            told => told.map(|_| ()),
        }
    }

    /// Changes under `prefix` from revision `from` on, by a connection of their own.
    pub async fn watch(&mut self, prefix: &[u8], from: i64) -> Result<Watch, EtcdError> {
        let question = Bytes::from(wire::watch(prefix, from).to_string());
        let mut begun = self.watch_here(&question).await;
        for _ in 1..self.endpoints.len() {
            if !begun.as_ref().is_err_and(EtcdError::is_of_the_member) {
                break;
            }
            self.turn();
            begun = self.watch_here(&question).await;
        }
        begun
    }

    async fn watch_here(&mut self, question: &Bytes) -> Result<Watch, EtcdError> {
        let begun = self.begin(question).await;
        if self.user.is_none() || !begun.as_ref().is_err_and(EtcdError::wants_token) {
            return begun;
        }
        self.token = Token::Unknown;
        self.begin(question).await
    }

    async fn begin(&mut self, question: &Bytes) -> Result<Watch, EtcdError> {
        let token = self.authenticated().await?;
        let (place, patience) = (self.place(), self.patience);
        let request = request("watch", question, &token);
        let asked = async {
            let mut connection = self.connect().await?;
            let answer = connection.send(request).await?;
            let status = answer.status();
            if status == StatusCode::OK {
                let lines = Lines::new(answer.into_body(), connection, LONGEST);
                return Ok(Ok(Watch::begun(lines, place.clone()).await));
            }
            Ok(Err((status, whole(answer.into_body(), LONGEST).await?)))
        };
        match self.judged(within(patience, asked).await)? {
            Ok(begun) => begun,
            Err((status, body)) => {
                Err(EtcdError::Refused(place, wire::refusal(status.as_u16(), &body)))
            }
        }
    }

    async fn ask<A: DeserializeOwned>(
        &mut self,
        path: &'static str,
        question: &Value,
    ) -> Result<A, EtcdError> {
        self.ask_with(path, question, Again::Always).await
    }

    /// Asks the members in turn until one answers.
    async fn ask_with<A: DeserializeOwned>(
        &mut self,
        path: &'static str,
        question: &Value,
        again: Again,
    ) -> Result<A, EtcdError> {
        let question = Bytes::from(question.to_string());
        let may_turn = |error: &EtcdError| {
            error.is_of_the_member() && (again == Again::Always || error.is_unsent())
        };
        let mut answer = self.ask_here(path, &question, again).await;
        for _ in 1..self.endpoints.len() {
            if !answer.as_ref().is_err_and(may_turn) {
                break;
            }
            self.turn();
            answer = self.ask_here(path, &question, again).await;
        }
        wire::answer(&answer?).map_err(|why| self.nonsense(why))
    }

    /// Asks one member; with a new token, if the one that there was is not known any more.
    async fn ask_here(
        &mut self,
        path: &'static str,
        question: &Bytes,
        again: Again,
    ) -> Result<Bytes, EtcdError> {
        let token = self.authenticated().await?;
        let answer = self.post(path, question, &token, again).await;
        if self.user.is_none() || !answer.as_ref().is_err_and(EtcdError::wants_token) {
            return answer;
        }
        self.token = Token::Unknown;
        let token = self.authenticated().await?;
        self.post(path, question, &token, again).await
    }

    /// What shows who asks; asked for, if it is not known.
    async fn authenticated(&mut self) -> Result<Token, EtcdError> {
        let Some(user) = &self.user else { return Ok(Token::Needless) };
        if matches!(self.token, Token::Unknown) {
            let question = Bytes::from(wire::user(&user.name, &user.password).to_string());
            let path = "auth/authenticate";
            let told = self.post(path, &question, &Token::Needless, Again::Always).await;
            self.token = match told {
                Err(EtcdError::Refused(_, refusal)) if refusal.is_without_users() => {
                    Token::Needless
                }
                Err(error) => return Err(error),
                Ok(told) => self.token_in(&told)?,
            };
        }
        Ok(self.token.clone())
    }

    fn token_in(&self, told: &[u8]) -> Result<Token, EtcdError> {
        let told: wire::Authenticated = wire::answer(told).map_err(|why| self.nonsense(why))?;
        let value = HeaderValue::try_from(told.token).ok().filter(|value| !value.is_empty());
        let mut value =
            value.ok_or_else(|| self.nonsense("a token that cannot be sent".to_owned()))?;
        value.set_sensitive(true);
        Ok(Token::Is(value))
    }

    /// One request, whose answer is one that was asked for.
    async fn post(
        &mut self,
        path: &'static str,
        question: &Bytes,
        token: &Token,
        again: Again,
    ) -> Result<Bytes, EtcdError> {
        let patience = self.patience;
        let answer = within(patience, self.exchange(path, question, token, again)).await;
        let (status, body) = self.judged(answer)?;
        match status {
            StatusCode::OK => Ok(body),
            _ => {
                let refusal = wire::refusal(status.as_u16(), &body);
                Err(EtcdError::Refused(self.place(), refusal))
            }
        }
    }

    async fn exchange(
        &mut self,
        path: &'static str,
        question: &Bytes,
        token: &Token,
        again: Again,
    ) -> Result<(StatusCode, Bytes), Unanswered> {
        // Left here only if its answer was read to the end.
        if let Some(mut kept) = self.kept.take() {
            match told(&mut kept, request(path, question, token)).await {
                Ok(answer) => {
                    self.kept = Some(kept);
                    return Ok(answer);
                }
                Err(error @ (Unanswered::Long(_) | Unanswered::Late(_))) => return Err(error),
                // It may have been closed since.
                Err(error) if again == Again::Always || is_unsent(&error) => {}
                Err(error) => return Err(error),
            }
        }
        let mut connection = self.connect().await?;
        let answer = told(&mut connection, request(path, question, token)).await?;
        self.kept = Some(connection);
        Ok(answer)
    }

    async fn connect(&self) -> Result<Connection, Unanswered> {
        let target = Target::new(self.endpoint(), self.tls.as_ref())?;
        match within(CONNECT.min(self.patience), target.connect()).await {
            // Nothing was asked yet.
            Err(Unanswered::Late(_)) => {
                let late = std::io::ErrorKind::TimedOut.into();
                Err(Unanswered::Connect(target.place(), late))
            }
            connected => connected,
        }
    }

    fn judged<T>(&mut self, answer: Result<T, Unanswered>) -> Result<T, EtcdError> {
        answer.map_err(|error| {
            if matches!(error, Unanswered::Late(_)) {
                // A member waits for what it has not heard of, such as the token of a cluster that
                // was here before it.
                self.token = Token::Unknown;
            }
            EtcdError::Unanswered(self.place(), error)
        })
    }

    /// Asks the next member from now on.
    pub(super) fn turn(&mut self) {
        self.kept = None;
        self.at = (self.at + 1) % self.endpoints.len().max(1);
    }

    fn endpoint(&self) -> &str {
        self.endpoints.get(self.at).map_or("", String::as_str)
    }

    /// Whom it asks, without what a reader knows anyway.
    fn place(&self) -> String {
        let endpoint = self.endpoint();
        endpoint.split_once("://").map_or(endpoint, |(_, place)| place).to_owned()
    }

    fn nonsense(&self, why: String) -> EtcdError {
        EtcdError::Nonsense(self.place(), why)
    }
}

async fn told(
    connection: &mut Connection,
    request: Request<Full<Bytes>>,
) -> Result<(StatusCode, Bytes), Unanswered> {
    let answer = connection.send(request).await?;
    let status = answer.status();
    Ok((status, whole(answer.into_body(), LONGEST).await?))
}

fn request(path: &'static str, question: &Bytes, token: &Token) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(question.clone()));
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() =
        format!("/v3/{path}").parse().expect("the paths of this file are ones of a URL");
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, JSON);
    headers.insert(HAS_LEADER, HeaderValue::from_static("true"));
    if let Token::Is(token) = token {
        headers.insert(AUTHORIZATION, token.clone());
    }
    request
}

fn lasts(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
}
