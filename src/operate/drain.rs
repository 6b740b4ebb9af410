//! `burdock drain`: begins a drain, and with `--wait` watches it to its end.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use http::Method;
use serde_json::json;

use super::client::{Client, ClientError, path};
use super::shapes::{Drain, Instance};
use super::table::safe;
use super::{client_of, print, say, steer, words};
use crate::cli::Access;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(250);
/// What is left at so little before the deadline is what the deadline cuts.
const SLACK: f64 = 0.6;
/// The deadline cut something.
const CUT: u8 = 5;
/// The drain was called off, or its end can't be told.
const FAILED: u8 = 1;

/// How a drain stands.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Progress {
    /// It goes on.
    Draining(Left),
    /// All have left by themselves.
    Left,
    /// Its deadline has passed, and these were still there.
    Cut(Left),
    /// Somebody wants something else of the instance now.
    CalledOff,
}

/// What a drain waits for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Left {
    sessions: u64,
    requests: u64,
    tunnels: u64,
    /// Seconds to the deadline, rounded up.
    seconds: Option<u64>,
}

impl Left {
    fn of(drain: &Drain) -> Self {
        let seconds = drain.deadline_seconds.map(|left| left.max(0.0).ceil() as u64);
        let (sessions, requests, tunnels) = (drain.sessions, drain.requests, drain.tunnels);
        Self { sessions, requests, tunnels, seconds }
    }

    fn is_empty(&self) -> bool {
        (self.sessions, self.requests, self.tunnels) == (0, 0, 0)
    }

    fn counts(&self) -> String {
        let mut said = vec![words::plural(self.sessions, "session")];
        said.push(words::plural(self.tunnels, "tunnel"));
        said.extend((self.requests > 0).then(|| words::plural(self.requests, "request")));
        said.join(", ")
    }

    fn line(&self) -> String {
        match self.seconds {
            Some(seconds) => format!("{} left, deadline in {seconds} s", self.counts()),
            None => format!("{} left", self.counts()),
        }
    }
}

/// What the instance now says of its drain, `last` being what was left when it was looked at before.
fn judge(instance: &Instance, last: &Left) -> Progress {
    if !matches!(instance.admin.as_str(), "draining" | "drained")
        && instance.membership != "removed"
    {
        return Progress::CalledOff;
    }
    let Some(drain) = &instance.drain else { return ended(last.clone()) };
    let left = Left::of(drain);
    let passed = drain.deadline_seconds.is_some_and(|seconds| seconds <= 0.0);
    if passed || instance.admin == "drained" {
        // What is counted after the end has been told to leave already.
        ended(last.clone())
    } else if left.is_empty() {
        Progress::Left
    } else if drain.done {
        Progress::Cut(left)
    } else {
        Progress::Draining(left)
    }
}

fn ended(left: Left) -> Progress {
    if left.is_empty() { Progress::Left } else { Progress::Cut(left) }
}

/// Drains an instance; with `wait` until that is over.
pub(super) async fn run(
    access: &Access,
    asked: &str,
    deadline: Option<&str>,
    wait: bool,
) -> Result<ExitCode, ClientError> {
    let client = client_of(access)?;
    let id = steer::instance(&client, asked).await?;
    let mut body = json!({ "state": "draining" });
    if let Some(deadline) = deadline {
        body["deadline"] = deadline.into();
    }
    let answer = client.send(Method::PATCH, &path("instances", &id), &body).await?;
    if !wait {
        return print(access, &answer, |value| {
            let instance: Instance = client.read(value)?;
            let left = Left::of(&instance.drain.unwrap_or_default());
            Ok(format!("{} drains: {}\n", safe(&id), left.line()))
        });
    }
    watch(access, &client, &id, client.read(answer)?).await
}

async fn watch(
    access: &Access,
    client: &Client,
    id: &str,
    begun: Instance,
) -> Result<ExitCode, ClientError> {
    let mut meter = Meter::new(access.json);
    let mut last = begun.drain.as_ref().map(Left::of).unwrap_or_default();
    let mut progress = match begun.drain {
        Some(_) => judge(&begun, &last),
        // A deadline of nothing is over before it is told of.
        None => ended(last.clone()),
    };
    while let Progress::Draining(left) = progress {
        meter.show(id, &left);
        let near = left.seconds.is_some_and(|seconds| seconds == 0);
        last = left;
        tokio::time::sleep(if near { LOOK / 2 } else { LOOK }).await;
        let now: Instance = client.read(client.get(&path("instances", id)).await?)?;
        // The last look before the deadline is what it cuts.
        let drain = now.drain.as_ref().filter(|drain| !drain.done);
        if let Some(drain) = drain.filter(|it| it.deadline_seconds.is_some_and(|s| s < SLACK)) {
            last = Left::of(drain);
        }
        progress = judge(&now, &last);
    }
    meter.end();
    let (code, outcome, text, left) = match progress {
        Progress::Left => (0, "left", "drained: all have left".to_owned(), Left::default()),
        Progress::Cut(left) => {
            let text = format!("the deadline has passed; cut or moved: {}", left.counts());
            (CUT, "cut", text, left)
        }
        Progress::CalledOff | Progress::Draining(_) => {
            let text = "the drain was called off: something else is wanted of it now".to_owned();
            (FAILED, "called_off", text, last)
        }
    };
    match access.json {
        true => {
            let (sessions, tunnels, requests) = (left.sessions, left.tunnels, left.requests);
            let outcome = json!({ "id": id, "outcome": outcome,
                "cut": { "sessions": sessions, "tunnels": tunnels, "requests": requests } });
            say(&format!("{outcome:#}\n"));
        }
        false => {
            say(&format!("{}: {text}\n", safe(id)));
        }
    }
    Ok(ExitCode::from(code))
}

/// The line that tells of progress: one that changes on a terminal, else one more each few seconds.
struct Meter {
    silent: bool,
    is_terminal: bool,
    looks: u32,
}

impl Meter {
    /// In a log one line for so many looks is enough.
    const EVERY: u32 = 20;

    fn new(silent: bool) -> Self {
        Self { silent, is_terminal: io::stderr().is_terminal(), looks: 0 }
    }

    fn show(&mut self, id: &str, left: &Left) {
        let is_due = self.looks.is_multiple_of(Self::EVERY);
        self.looks += 1;
        let line = format!("{}: {}", safe(id), left.line());
        match (self.silent, self.is_terminal) {
            (true, _) => {}
            (false, true) => {
                let mut errors = io::stderr().lock();
                // Whoever looks at it sees the next one.
                let _ = write!(errors, "\r\x1b[K{line}").and_then(|()| errors.flush());
            }
            (false, false) if is_due => eprintln!("{line}"),
            (false, false) => {}
        }
    }

    fn end(&self) {
        if self.is_terminal && !self.silent && self.looks > 0 {
            eprint!("\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(admin: &str, drain: Option<Drain>) -> Instance {
        Instance { admin: admin.into(), membership: "present".into(), drain, ..Instance::default() }
    }

    fn drain(seconds: f64, sessions: u64, tunnels: u64, done: bool) -> Option<Drain> {
        let deadline_seconds = Some(seconds);
        Some(Drain { deadline_seconds, sessions, tunnels, done, ..Drain::default() })
    }

    #[test]
    fn a_drain_is_told_as_it_stands() {
        let left = Left::of(&drain(17.3, 412, 37, false).unwrap());
        assert_eq!(left.line(), "412 sessions, 37 tunnels left, deadline in 18 s");
        assert_eq!(judge(&instance("draining", drain(17.3, 412, 37, false)), &left), {
            Progress::Draining(left.clone())
        });
    }

    #[test]
    fn its_end_is_judged_by_what_was_left() {
        let (some, none) = (Left { tunnels: 2, ..Left::default() }, Left::default());
        let cut = Progress::Cut(some.clone());
        for (now, last, progress) in [
            (instance("draining", drain(9.0, 0, 0, false)), &some, &Progress::Left),
            (instance("draining", drain(0.0, 0, 1, false)), &some, &cut),
            (instance("draining", drain(0.0, 3, 0, true)), &some, &cut),
            (instance("drained", None), &some, &cut),
            (instance("drained", None), &none, &Progress::Left),
            (instance("drained", drain(0.0, 9, 9, true)), &none, &Progress::Left),
            (instance("active", None), &some, &Progress::CalledOff),
            (instance("disabled", None), &some, &Progress::CalledOff),
        ] {
            assert_eq!(&judge(&now, last), progress, "{now:?}");
        }
    }
}
