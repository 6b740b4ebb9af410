//! Instances that a Kubernetes cluster names: the endpoints in the EndpointSlices of a service.
//!
//! A list says what there is, a watch from there on what changes, as the API's conventions have it. A
//! watch is asked for a minute only, and one that is still open a while later is given up: whoever
//! is cut off without a word would wait for ever otherwise. [`slices`] is what they say, [`access`] whom to
//! ask in whose name.
//!
//! Not by the kube crates: of what they do this is a small part, and they bring a second stack of HTTP
//! clients, tower and TLS along.

mod access;
mod slices;

#[cfg(test)]
mod tests;

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::ends::Ends;
use super::query::encoded;
use super::{Backoff, Reporter};
use crate::config::types::Kubernetes;
use crate::outward::{Connection, Lines, Unanswered, whole, within};
use access::Access;
use slices::{Heard, Slices, Status};

/// Slices in a page of a list. Most have a hundred endpoints, and none more than a thousand.
const PAGE: u32 = 50;
/// A slice is kept in no more than 1.5 MiB, in a denser form than JSON.
const LONGEST_LINE: usize = 8 * 1024 * 1024;
/// Of a page.
const LONGEST_PAGE: usize = 64 * 1024 * 1024;
/// What an error has to say.
const LONGEST_ERROR: usize = 64 * 1024;
/// For that: what it says is welcome, but not needed.
const REFUSAL: Duration = Duration::from_secs(5);
/// As much of it as anybody reads.
const SHOWN: usize = 300;

/// How long things may take.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// From a question to the head of its answer.
    answer: Duration,
    /// For all pages of a list.
    list: Duration,
    /// What a watch is asked to last, give or take a quarter: not all at the same instant.
    watch: Duration,
    /// How much longer it may before it is given up.
    grace: Duration,
    /// From one change to a report, if no other follows at once: they come in a bunch.
    settle: Duration,
    /// From the first change to a report, whatever follows.
    latest: Duration,
    /// A watch that ends sooner is not begun again at once.
    steady: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            answer: Duration::from_secs(10),
            list: Duration::from_secs(60),
            watch: Duration::from_secs(60),
            grace: Duration::from_secs(10),
            settle: Duration::from_millis(50),
            latest: Duration::from_millis(500),
            steady: Duration::from_secs(1),
        }
    }
}

/// Why a watch is over.
enum End {
    /// Its time was up, or the server wants to be asked anew.
    Due,
    /// Nobody answers; it can be gone on with later.
    Failed(String),
    /// The server has forgotten what was before.
    Gone(String),
    /// It can't be gone on with.
    Lost(String),
}

/// Reports who there is, at once and whenever that changes.
pub(super) async fn follow(of: Kubernetes, reporter: Reporter) {
    let (backoff, ends) = (Backoff::default(), Ends::default());
    Follower { of, reporter, pace: Pace::default(), backoff, ends }.run().await;
}

struct Follower {
    of: Kubernetes,
    reporter: Reporter,
    pace: Pace,
    backoff: Backoff,
    ends: Ends,
}

impl Follower {
    async fn run(mut self) {
        loop {
            let listed = timeout(self.pace.list, self.list()).await;
            let late = |_| Err(format!("no whole list within {:?}", self.pace.list));
            match listed.unwrap_or_else(late) {
                Ok(slices) => {
                    self.tell(&slices).await;
                    self.watch_from(slices).await;
                }
                Err(problem) => self.fail(&problem).await,
            }
        }
    }

    async fn tell(&mut self, slices: &Slices) {
        let told = slices.members().map_err(|problem| self.says(&problem));
        if let Ok(members) = &told
            && let Some(before) = self.ends.before(members)
        {
            self.reporter.tell(Ok(before)).await;
        }
        self.reporter.tell(told).await;
    }

    /// Says what went wrong, and waits until it may be tried again.
    async fn fail(&mut self, problem: &str) {
        self.reporter.tell(Err(self.says(problem))).await;
        sleep(self.backoff.failed()).await;
    }

    fn says(&self, problem: &str) -> String {
        format!("the EndpointSlices of the service {}: {problem}", self.of.service)
    }

    /// All slices, page by page.
    async fn list(&self) -> Result<Slices, String> {
        let mut slices = Slices::new(self.of.port.clone());
        let mut next = String::new();
        loop {
            let query = format!("limit={PAGE}&continue={}", encoded(&next));
            let (answer, _connection) = self.ask(&query).await?;
            if !answer.status().is_success() {
                return Err(refusal(answer).await);
            }
            let page = whole(answer.into_body(), LONGEST_PAGE).await;
            let page = page.map_err(|error| error.to_string())?;
            // To make sense of a long page takes longer than anybody else should wait here.
            let take = move || slices.take_page(&page).map(|further| (further, slices));
            let taken = tokio::task::spawn_blocking(take).await;
            let (further, so_far) = taken.unwrap_or_else(|error| Err(error.to_string()))?;
            slices = so_far;
            match further {
                Some(further) => next = further,
                None => return Ok(slices),
            }
        }
    }

    /// Follows what changes, until only a list can tell.
    async fn watch_from(&mut self, mut slices: Slices) {
        loop {
            let begun = Instant::now();
            let end = self.watch(&mut slices).await;
            let is_steady = begun.elapsed() >= self.pace.steady;
            if is_steady {
                self.backoff.succeeded();
            }
            match end {
                End::Due if is_steady => continue,
                // Nothing to tell of, but not to be hurried either.
                End::Due => sleep(self.backoff.failed()).await,
                End::Failed(problem) => self.fail(&problem).await,
                End::Lost(problem) => return self.fail(&problem).await,
                End::Gone(why) => {
                    tracing::debug!(service = self.of.service, why, "listing EndpointSlices anew");
                    if !is_steady {
                        sleep(self.backoff.failed()).await;
                    }
                    return;
                }
            }
        }
    }

    /// One watch, to its end.
    async fn watch(&mut self, slices: &mut Slices) -> End {
        let pace = self.pace;
        let lasts = pace.watch.mul_f64(0.75 + 0.5 * fastrand::f64());
        let query = format!(
            "watch=true&allowWatchBookmarks=true&resourceVersion={}&timeoutSeconds={}",
            encoded(&slices.version),
            lasts.as_secs().max(1)
        );
        let (answer, connection) = match self.ask(&query).await {
            Ok(answer) => answer,
            Err(problem) => return End::Failed(problem),
        };
        match answer.status() {
            status if status.is_success() => {}
            StatusCode::GONE => return End::Gone(refusal(answer).await),
            _ => return End::Lost(refusal(answer).await),
        }
        // It is heard, and nothing has happened yet since it was heard last.
        self.tell(slices).await;
        let mut lines = Lines::new(answer.into_body(), connection, LONGEST_LINE);
        let until = Instant::now() + lasts + pace.grace;
        // By when a change is to be told of.
        let mut due: Option<Instant> = None;
        let end = loop {
            let patience = due.map_or(until, |due| due.min(Instant::now() + pace.settle));
            match timeout_at(patience, lines.next()).await {
                Err(_rested) if due.is_some() => {
                    due = None;
                    self.tell(slices).await;
                }
                // Whoever was cut off, or stays on the line for ever, is asked anew.
                Err(_silent) => break End::Due,
                Ok(Ok(None)) => break End::Due,
                // Asked for again it would be no shorter.
                Ok(Err(error @ Unanswered::Long(_))) => break End::Lost(error.to_string()),
                Ok(Err(error)) => break End::Failed(error.to_string()),
                Ok(Ok(Some(line))) if line.is_empty() => {}
                Ok(Ok(Some(line))) => match slices.take_line(&line) {
                    Ok(Heard::Change) => _ = due.get_or_insert(Instant::now() + pace.latest),
                    Ok(Heard::Nothing) => {}
                    Ok(Heard::Gone(why)) => break End::Gone(why),
                    Err(problem) => break End::Lost(problem),
                },
            }
        };
        if due.is_some() {
            self.tell(slices).await;
        }
        end
    }

    /// Asks for slices of the service, over a connection of its own.
    async fn ask(&self, query: &str) -> Result<(Response<Incoming>, Connection), String> {
        let Access { target, path, token } = Access::of(&self.of).await?;
        let label = encoded(&format!("kubernetes.io/service-name={}", self.of.service));
        let mut request = Request::get(format!("{path}?labelSelector={label}&{query}"))
            .header(ACCEPT, "application/json");
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, token);
        }
        let request = request.body(Full::<Bytes>::default());
        let request = request.map_err(|error| error.to_string())?;
        let asked = async {
            let mut connection = target.connect().await?;
            Ok((connection.send(request).await?, connection))
        };
        let answer = within(self.pace.answer, asked).await;
        answer.map_err(|error| format!("asking {}: {error}", target.place()))
    }
}

/// What somebody says who doesn't answer as was asked: a Status of the API, or anything.
async fn refusal(answer: Response<Incoming>) -> String {
    let code = answer.status();
    let body = timeout(REFUSAL, whole(answer.into_body(), LONGEST_ERROR)).await;
    let body = body.ok().and_then(Result::ok).unwrap_or_default();
    let status = serde_json::from_slice::<Status>(&body);
    let said = status.map_or_else(|_| String::from_utf8_lossy(&body).into_owned(), |it| it.message);
    let said: String = said.chars().filter(|it| !it.is_control()).take(SHOWN).collect();
    format!("the API server answers {code}: {said}")
}
