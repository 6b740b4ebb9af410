//! Instances that a Docker engine runs: containers with the label `burdock.service`, by the Engine API
//! at its Unix socket.
//!
//! Events say that something has happened to one of them, a list what there is now: each bunch of
//! events is followed by a list. [`containers`] is what they say.

mod containers;

#[cfg(test)]
mod tests;

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use serde_json::json;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::ends::Ends;
use super::query::encoded;
use super::{Backoff, Reporter};
use crate::config::found::Member;
use crate::config::types::Docker;
use crate::outward::{Connection, Lines, Target, whole, within};
use containers::{Container, Refusal, SERVICE, Stopping, VERSION, listed, members};

/// Ten thousand containers have about a kilobyte each.
const LONGEST_LIST: usize = 64 * 1024 * 1024;
/// An event has the labels of its container.
const LONGEST_LINE: usize = 1024 * 1024;
/// What an error has to say, and as much of it as anybody reads.
const LONGEST_ERROR: usize = 64 * 1024;
const SHOWN: usize = 300;
/// From a question to its answer.
const ANSWER: Duration = Duration::from_secs(10);
/// From one event to a list, if no other follows at once: they come in a bunch.
const SETTLE: Duration = Duration::from_millis(50);
/// From the first event to a list, whatever follows.
const LATEST: Duration = Duration::from_millis(500);
/// After a list that events were the reason for there is another: the engine may tell of an end before
/// it is in its list.
const AGAIN: Duration = Duration::from_secs(1);
/// Without an event there is a list so often, should one have been missed.
const LOOK: Duration = Duration::from_secs(30);
/// Events that end sooner are not asked for again at once.
const STEADY: Duration = Duration::from_secs(5);
/// What may change an instance. The runs of health checks are events too, and nothing of them is.
const EVENTS: [&str; 9] =
    ["start", "die", "kill", "pause", "unpause", "health_status", "rename", "destroy", "update"];

/// Reports who there is, at once and whenever that changes.
pub(super) async fn follow(of: Docker, reporter: Reporter) {
    let target = Target::at_socket(of.socket.clone());
    let follower = Follower { of, target, reporter };
    let mut backoff = Backoff::default();
    loop {
        let begun = Instant::now();
        let problem = follower.listen().await;
        if begun.elapsed() >= STEADY {
            backoff.succeeded();
        }
        follower.reporter.tell(Err(problem)).await;
        sleep(backoff.failed()).await;
    }
}

struct Follower {
    of: Docker,
    target: Target,
    reporter: Reporter,
}

impl Follower {
    /// Listens to events until they end; why they did.
    async fn listen(&self) -> String {
        let ended = self.events().await;
        let place = self.target.place();
        format!("containers of {} at {place}: {ended}", self.of.service)
    }

    async fn events(&self) -> String {
        let mut filters = self.labels();
        filters["type"] = json!(["container"]);
        filters["event"] = json!(EVENTS);
        // Before the first list, so that nothing is missed between them.
        let asked = self.ask(&format!("/events?filters={}", encoded(&filters.to_string()))).await;
        let (answer, connection) = match asked {
            Ok(answer) => answer,
            Err(problem) => return problem,
        };
        let mut lines = Lines::new(answer.into_body(), connection, LONGEST_LINE);
        let (mut stopping, mut ends) = (Stopping::default(), Ends::default());
        let mut look = AGAIN;
        loop {
            match self.list(&mut stopping).await {
                Ok(members) => {
                    if let Some(before) = ends.before(&members) {
                        self.reporter.tell(Ok(before)).await;
                    }
                    self.reporter.tell(Ok(members)).await;
                }
                Err(problem) => return problem,
            }
            look = match bunch(&mut lines, &mut stopping, look).await {
                Ok(true) => AGAIN,
                Ok(false) => LOOK,
                Err(ended) => return ended,
            };
        }
    }

    /// Who there is now.
    async fn list(&self, stopping: &mut Stopping) -> Result<Vec<Member>, String> {
        let running = self.containers(self.labels()).await?;
        let mut filters = self.labels();
        filters["health"] = json!(["starting", "unhealthy"]);
        let unwell = self.containers(filters).await?;
        members(&running, &unwell, stopping, self.of.network.as_deref())
    }

    fn labels(&self) -> serde_json::Value {
        let mut labels = vec![format!("{SERVICE}={}", self.of.service)];
        labels.extend(self.of.version.iter().map(|version| format!("{VERSION}={version}")));
        json!({ "label": labels })
    }

    async fn containers(&self, filters: serde_json::Value) -> Result<Vec<Container>, String> {
        let path = format!("/containers/json?filters={}", encoded(&filters.to_string()));
        let (answer, _connection) = self.ask(&path).await?;
        let text = within(ANSWER, whole(answer.into_body(), LONGEST_LIST)).await;
        listed(&text.map_err(|error| error.to_string())?)
    }

    /// Asks over a connection of its own.
    async fn ask(&self, path: &str) -> Result<(Response<Incoming>, Connection), String> {
        let request = Request::get(path).body(Full::<Bytes>::default());
        let request = request.map_err(|error| error.to_string())?;
        let asked = async {
            let mut connection = self.target.connect().await?;
            Ok((connection.send(request).await?, connection))
        };
        let (answer, connection) = within(ANSWER, asked).await.map_err(|it| it.to_string())?;
        match answer.status().is_success() {
            true => Ok((answer, connection)),
            false => Err(refusal(answer).await),
        }
    }
}

/// Waits until there is a reason for a list, which is there after `look` at the latest. Tells whether
/// there were events; an error if no more will come.
async fn bunch(lines: &mut Lines, stopping: &mut Stopping, look: Duration) -> Result<bool, String> {
    let look = Instant::now() + look;
    // By when there is to be a list.
    let mut due: Option<Instant> = None;
    loop {
        let until = due.map_or(look, |due| due.min(Instant::now() + SETTLE));
        match timeout_at(until, lines.next()).await {
            Err(_rested) => return Ok(due.is_some()),
            Ok(Ok(None)) => return Err("the engine ended its events".to_owned()),
            Ok(Err(error)) => return Err(error.to_string()),
            Ok(Ok(Some(line))) if line.is_empty() => {}
            Ok(Ok(Some(line))) => {
                stopping.note(&line)?;
                due.get_or_insert(Instant::now() + LATEST);
            }
        }
    }
}

/// What somebody says who doesn't answer as was asked.
async fn refusal(answer: Response<Incoming>) -> String {
    let code = answer.status();
    let body = timeout(ANSWER, whole(answer.into_body(), LONGEST_ERROR)).await;
    let body = body.ok().and_then(Result::ok).unwrap_or_default();
    let said = match serde_json::from_slice::<Refusal>(&body) {
        Ok(refusal) => refusal.message,
        Err(_) => String::from_utf8_lossy(&body).into_owned(),
    };
    let said: String = said.chars().filter(|it| !it.is_control()).take(SHOWN).collect();
    format!("the engine answers {code}: {said}")
}
