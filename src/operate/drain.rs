//! `burdock drain`: begins a drain, and with `--wait` watches it to its end.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use http::Method;
use serde_json::json;

use super::client::{Client, ClientError, path};
use super::shapes::{Drain, Instance};
use super::table::safe;
use super::{client_of, print, say, steer, words};
use crate::cli::Access;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(250);
/// Tunnels that were told to leave are gone so long after the deadline, and are cut else.
const FAREWELL: Duration = Duration::from_secs(10);
/// A request that is under way at the deadline is waited for as long as a long poll takes.
const PATIENCE: Duration = Duration::from_secs(60);
/// The first and the last tunnel are closed at once, if less than this is between them.
const AT_ONCE: f64 = 0.05;
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
    /// All but so many sessions, which move elsewhere with their next request.
    Moved(u64),
    /// Its deadline has passed, and these noticed.
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
    /// Whether all tunnels are closed at the deadline, and none before.
    at_once: bool,
}

impl Left {
    fn of(drain: &Drain) -> Self {
        let seconds = drain.deadline_seconds.map(|left| left.max(0.0).ceil() as u64);
        let ends = drain.deadline_seconds.zip(drain.closing_seconds);
        let at_once = ends.is_some_and(|(last, first)| last - first < AT_ONCE);
        let (sessions, requests, tunnels) = (drain.sessions, drain.requests, drain.tunnels);
        Self { sessions, requests, tunnels, seconds, at_once }
    }

    fn is_empty(&self) -> bool {
        (self.sessions, self.requests, self.tunnels) == (0, 0, 0)
    }

    fn counts(&self) -> String {
        let is_over = self.seconds == Some(0);
        let mut said = Vec::new();
        // Those move unnoticed.
        said.extend((!is_over).then(|| words::plural(self.sessions, "session")));
        said.push(words::plural(self.tunnels, "tunnel"));
        said.extend((self.requests > 0).then(|| words::plural(self.requests, "request")));
        said.join(", ")
    }

    fn line(&self) -> String {
        match self.seconds {
            Some(0) => format!("{} left, the deadline has passed", self.counts()),
            Some(seconds) => format!("{} left, deadline in {seconds} s", self.counts()),
            None => format!("{} left", self.counts()),
        }
    }
}

/// What the instance now says of its drain, `last` being what was left when it was looked at before,
/// and `late` how long the deadline has passed.
fn judge(instance: &Instance, last: &Left, late: Duration) -> Progress {
    if !matches!(instance.admin.as_str(), "draining" | "drained")
        && instance.membership != "removed"
    {
        return Progress::CalledOff;
    }
    let Some(drain) = &instance.drain else { return Progress::Left };
    let left = Left::of(drain);
    if !has_passed(drain) {
        return if left.is_empty() { Progress::Left } else { Progress::Draining(left) };
    }
    // Nobody was told to leave before.
    if last.at_once && last.tunnels > 0 {
        return Progress::Cut(Left { sessions: 0, requests: 0, ..last.clone() });
    }
    let is_cut = left.tunnels > 0 && late >= FAREWELL || left.requests > 0 && late >= PATIENCE;
    match (left.tunnels + left.requests, last.sessions) {
        (1.., _) if is_cut => Progress::Cut(left),
        (1.., _) => Progress::Draining(left),
        (0, 0) => Progress::Left,
        (0, sessions) => Progress::Moved(sessions),
    }
}

fn has_passed(drain: &Drain) -> bool {
    drain.deadline_seconds.is_some_and(|seconds| seconds <= 0.0)
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
    steer::warn(&answer);
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
    // The last look before the deadline tells what the deadline meets.
    let mut last = begun.drain.as_ref().map(Left::of).unwrap_or_default();
    let mut passed = None;
    let mut progress = judge(&begun, &last, Duration::ZERO);
    while let Progress::Draining(left) = progress {
        meter.show(id, &left);
        let is_near = left.seconds.is_some_and(|seconds| seconds <= 1);
        tokio::time::sleep(if is_near { LOOK / 2 } else { LOOK }).await;
        let now: Instance = client.read(client.get(&path("instances", id)).await?)?;
        match now.drain.as_ref() {
            Some(drain) if has_passed(drain) => passed = passed.or(Some(Instant::now())),
            Some(drain) => (last, passed) = (Left::of(drain), None),
            None => {}
        }
        let late = passed.map(|at| at.elapsed()).unwrap_or_default();
        progress = judge(&now, &last, late);
    }
    meter.end();
    Ok(tell(access, id, progress))
}

/// Tells how it has ended, and gives the exit code for that.
fn tell(access: &Access, id: &str, ended: Progress) -> ExitCode {
    let (code, outcome, text) = match &ended {
        Progress::Left => (0, "left", "drained: all have left".to_owned()),
        Progress::Moved(sessions) => {
            let sessions = words::plural(*sessions, "session");
            (0, "moved", format!("drained: {sessions} will move with their next request"))
        }
        Progress::Cut(left) => {
            let met = Left { seconds: Some(0), ..left.clone() };
            (CUT, "cut", format!("the deadline has passed; cut: {}", met.counts()))
        }
        Progress::CalledOff | Progress::Draining(_) => {
            let text = "the drain was called off: something else is wanted of it now".to_owned();
            (FAILED, "called_off", text)
        }
    };
    if access.json {
        let moved = if let Progress::Moved(sessions) = ended { sessions } else { 0 };
        let cut = if let Progress::Cut(left) = ended { left } else { Left::default() };
        let outcome = json!({ "id": id, "outcome": outcome, "moved": { "sessions": moved },
            "cut": { "tunnels": cut.tunnels, "requests": cut.requests } });
        say(&format!("{outcome:#}\n"));
    } else {
        say(&format!("{}: {text}\n", safe(id)));
    }
    ExitCode::from(code)
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

    fn drain(seconds: f64, sessions: u64, tunnels: u64, requests: u64) -> Option<Drain> {
        let deadline_seconds = Some(seconds);
        let closing_seconds = Some((seconds - 10.0).max(0.0));
        let cause = "draining".to_owned();
        let done = (sessions, tunnels, requests) == (0, 0, 0);
        Some(Drain { cause, deadline_seconds, closing_seconds, sessions, tunnels, requests, done })
    }

    #[test]
    fn a_drain_is_told_as_it_stands() {
        let left = Left::of(&drain(17.3, 412, 37, 0).unwrap());
        assert_eq!(left.line(), "412 sessions, 37 tunnels left, deadline in 18 s");
        let late = Left::of(&drain(0.0, 0, 1, 2).unwrap());
        assert_eq!(late.line(), "1 tunnel, 2 requests left, the deadline has passed");
        let now = instance("draining", drain(17.3, 412, 37, 0));
        assert_eq!(judge(&now, &left, Duration::ZERO), Progress::Draining(left.clone()));
    }

    #[test]
    fn its_end_is_judged_by_who_noticed() {
        let none = Left::default();
        let bound = Left { sessions: 412, ..Left::default() };
        let spread = Left { tunnels: 2, ..Left::default() };
        let at_once = Left { at_once: true, ..spread.clone() };
        let (soon, late) = (Duration::from_secs(1), Duration::from_secs(60));
        let over = |sessions, tunnels, requests| {
            let drain = drain(0.0, sessions, tunnels, requests);
            (instance("draining", drain.clone()), Left::of(&drain.unwrap()))
        };
        let [gone, tunnel, request] = [over(0, 0, 0), over(0, 1, 0), over(0, 0, 1)];
        for (now, last, after, progress) in [
            (instance("draining", drain(9.0, 0, 0, 0)), &bound, Duration::ZERO, Progress::Left),
            (gone.0.clone(), &none, soon, Progress::Left),
            (gone.0.clone(), &bound, soon, Progress::Moved(412)),
            (gone.0.clone(), &spread, soon, Progress::Left),
            (gone.0.clone(), &at_once, soon, Progress::Cut(at_once.clone())),
            (tunnel.0.clone(), &spread, soon, Progress::Draining(tunnel.1.clone())),
            (tunnel.0, &spread, late, Progress::Cut(tunnel.1)),
            (request.0.clone(), &bound, soon, Progress::Draining(request.1.clone())),
            (request.0, &bound, late, Progress::Cut(request.1)),
            (instance("active", None), &spread, soon, Progress::CalledOff),
            (instance("disabled", None), &spread, soon, Progress::CalledOff),
        ] {
            assert_eq!(judge(&now, last, after), progress, "{now:?}");
        }
    }
}
