//! A running balancer as the place of a drill: its faults are asked for by its admin API, and it undoes them
//! by itself where it hears nothing any more.
//!
//! Knows of it what the admin API's JSON and its metrics say.

mod watch;

use std::path::Path;
use std::time::Duration;

use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::watch as channel;
use tokio::task::JoinHandle;

use super::diary::{Diary, names};
use super::plan::{Act, Id, Plan, What};
use super::scenario::{Safety, Strike};
use super::scene::{Scene, SceneError, exec, put_back};
use crate::config::units;
use crate::operate::client::{Client, ClientError};
use crate::operate::shapes::Status;

pub(super) use watch::watch;

/// Nothing heard of the drill for so long, and the balancer undoes it.
const LEASE: Duration = Duration::from_secs(5);
/// Between two signs of life.
const BEAT: Duration = Duration::from_secs(1);
/// One that takes longer is lost.
const BEAT_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest name that the balancer takes.
const LONGEST: usize = 100;

/// A balancer that is there, and what it has.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) client: Client,
    /// Its instances, with their weights.
    pub(super) cast: Vec<(Id, u32)>,
    /// Those that take no new sessions as it is.
    pub(super) unfit: Vec<Id>,
}

/// Looks at the balancer at this admin address.
pub(super) async fn find(address: &str, token_file: Option<&Path>) -> Result<Found, SceneError> {
    let client = Client::new(address, token_file)?;
    let status: Status = client.read(client.get("/api/v1/status").await?)?;
    let (mut cast, mut unfit) = (Vec::new(), Vec::new());
    for service in &status.services {
        for version in &service.versions {
            for instance in version.instances.iter().filter(|it| it.membership == "present") {
                let [service, version, name] =
                    [&service.name, &version.name, &instance.name].map(Clone::clone);
                let id = Id { service, version, name };
                let serves = instance.admin == "active" && instance.health == "ready";
                if !serves || instance.breaker == "open" || instance.weight == 0.0 {
                    unfit.push(id.clone());
                }
                cast.push((id, instance.weight as u32));
            }
        }
    }
    Ok(Found { client, cast, unfit })
}

/// The drill on it.
#[derive(Debug)]
pub(super) struct Running {
    client: Client,
    path: String,
    diary: Diary,
    /// What is wrong on purpose, by the balancer's number.
    faults: Vec<(u64, Vec<Id>, Strike)>,
    may_exec: bool,
    lost: channel::Receiver<Option<String>>,
    pulse: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.pulse.abort();
    }
}

#[derive(Deserialize)]
struct Begun {
    id: String,
}

#[derive(Deserialize)]
struct Injected {
    number: u64,
}

impl From<ClientError> for SceneError {
    fn from(error: ClientError) -> Self {
        Self::Admin(error.to_string())
    }
}

impl Running {
    /// Begins a drill of this name, within these limits.
    pub(super) async fn begin(
        client: Client,
        (name, safety, plan): (&str, &Safety, &Plan),
        may_exec: bool,
        diary: Diary,
    ) -> Result<Self, SceneError> {
        let needs_exec = plan.acts.iter().any(|act| matches!(act.what, What::Exec { .. }));
        if needs_exec && !may_exec {
            return Err(SceneError::Exec);
        }
        let versions = versions(plan).into_iter().map(|(s, v)| format!("{s}/{v}"));
        let terms = json!({
            "name": name.chars().filter(|c| !c.is_control()).take(LONGEST).collect::<String>(),
            "holder": holder(),
            "min_healthy": safety.min_healthy,
            "max_duration": units::format_duration(safety.max_duration),
            "lease": format!("{}s", LEASE.as_secs()),
            "versions": versions.collect::<Vec<_>>(),
        });
        let begun = client.send(Method::POST, "/api/v1/drill", &terms).await?;
        let Begun { id } = client.read(begun)?;
        let path = format!("/api/v1/drill/{id}");
        let (tell, lost) = channel::channel(None);
        let pulse = tokio::spawn(pulse(client.clone(), path.clone(), tell));
        Ok(Self { client, path, diary, faults: Vec::new(), may_exec, lost, pulse })
    }

    /// Tells the balancer how it went. One that does not hear it undoes everything as well.
    pub(super) async fn end(&mut self, verdict: &str) {
        self.pulse.abort();
        let path = format!("{}?verdict={verdict}", self.path);
        let ended = self.client.send(Method::DELETE, &path, &json!({})).await;
        if let Err(error) = ended
            && self.lost.borrow().is_none()
        {
            eprintln!("burdock: ending the drill: {error}");
        }
    }

    /// Why the balancer has ended it, if it has.
    pub(super) async fn is_over(&self) -> Option<String> {
        heartbeat(&self.client, &self.path).await.err().and_then(|error| match error {
            ClientError::Refused(reason) => Some(reason),
            _ => None,
        })
    }

    async fn strike(&mut self, who: &[Id], strike: &Strike) -> Result<(), SceneError> {
        // Before it happens, so that whatever follows from it comes later.
        who.iter().for_each(|id| self.diary.impair(Some(id), strike.kind));
        let mut body = strike.more.clone();
        body.insert("kind".to_owned(), strike.kind.into());
        let ids: Vec<_> = who.iter().map(|id| Value::from(id.to_string())).collect();
        body.insert("instances".to_owned(), ids.into());
        let path = format!("{}/faults", self.path);
        let injected = self.client.send(Method::POST, &path, &body.into()).await;
        if injected.is_err() {
            who.iter().for_each(|id| self.diary.over(Some(id), strike.kind));
        }
        let Injected { number } = self.client.read(injected?)?;
        self.faults.push((number, who.to_vec(), strike.clone()));
        Ok(())
    }

    /// Ends the fault at this place of the list.
    async fn lift(&mut self, place: usize) -> Result<(Vec<Id>, Strike), SceneError> {
        let (number, who, strike) = self.faults.remove(place);
        let path = format!("{}/faults/{number}", self.path);
        match self.client.send(Method::DELETE, &path, &json!({})).await {
            // The operator wanted something else of all whom it hit.
            Ok(_) => {}
            Err(ClientError::Refused(reason)) if reason.contains("has no fault") => {}
            Err(error) => return Err(error.into()),
        }
        who.iter().for_each(|id| self.diary.over(Some(id), strike.kind));
        Ok((who, strike))
    }

    async fn restore(&mut self, who: &[Id]) -> Result<(), SceneError> {
        let hit = |(_, hit, _): &(u64, Vec<Id>, Strike)| hit.iter().any(|id| who.contains(id));
        while let Some(place) = self.faults.iter().position(hit) {
            let (hit, strike) = self.lift(place).await?;
            let rest: Vec<Id> = hit.into_iter().filter(|id| !who.contains(id)).collect();
            if !rest.is_empty() {
                self.strike(&rest, &strike).await?;
            }
        }
        Ok(())
    }
}

impl Scene for Running {
    fn diary(&self) -> &Diary {
        &self.diary
    }

    fn due(&self) -> Option<Duration> {
        None
    }

    async fn attend(&mut self) -> Result<(), SceneError> {
        Ok(())
    }

    async fn act(&mut self, act: &Act) -> Result<(), SceneError> {
        match &act.what {
            What::Strike(who, strike) => {
                self.strike(who, strike).await?;
                self.diary.tell(act.at, format!("{} {}", strike.kind, names(who)));
            }
            What::Lift(who, strike) => {
                let is_it = |(_, hit, what): &(u64, Vec<Id>, Strike)| hit == who && what == strike;
                // One that was restored meanwhile is over already.
                if let Some(place) = self.faults.iter().position(is_it) {
                    self.lift(place).await?;
                    self.diary.tell(act.at, format!("end of {} {}", strike.kind, names(who)));
                }
            }
            What::Restore(who) => {
                self.restore(who).await?;
                self.diary.tell(act.at, format!("restore {}", names(who)));
            }
            What::Exec { run, who, begins } => {
                let whom = (who.as_slice(), *begins);
                exec(&mut self.diary, act.at, run, whom, self.may_exec).await?;
            }
            // No file that has these is read for a running balancer.
            What::Begin(..)
            | What::End(..)
            | What::Admin(..)
            | What::Reload(_)
            | What::Upset(..) => {}
        }
        Ok(())
    }

    async fn lost(&mut self) -> String {
        match self.lost.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            // Nobody is left who would tell.
            Err(_) => std::future::pending().await,
        }
    }

    async fn undo(&mut self, commands: &[Vec<String>]) {
        put_back(commands, self.may_exec).await;
        while !self.faults.is_empty() {
            if let Err(error) = self.lift(0).await {
                // It undoes the rest by itself.
                if self.lost.borrow().is_none() && self.is_over().await.is_none() {
                    eprintln!("burdock: undoing: {error}");
                }
                break;
            }
        }
    }
}

/// Tells the balancer again and again that somebody is there, until it says that it is over, or nothing.
async fn pulse(client: Client, path: String, lost: channel::Sender<Option<String>>) {
    let mut heard = tokio::time::Instant::now();
    loop {
        tokio::time::sleep(BEAT).await;
        let reason = match tokio::time::timeout(BEAT_TIMEOUT, heartbeat(&client, &path)).await {
            Ok(Ok(())) => {
                heard = tokio::time::Instant::now();
                continue;
            }
            Ok(Err(ClientError::Refused(reason))) => reason,
            Ok(Err(_)) | Err(_) if heard.elapsed() < LEASE => continue,
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("the balancer has not answered for {} s", LEASE.as_secs()),
        };
        lost.send_replace(Some(reason));
        return;
    }
}

async fn heartbeat(client: &Client, path: &str) -> Result<(), ClientError> {
    client.send(Method::POST, &format!("{path}/heartbeat"), &json!({})).await.map(drop)
}

fn version(id: &Id) -> (String, String) {
    (id.service.clone(), id.version.clone())
}

/// The versions that a plan touches.
pub(super) fn versions(plan: &Plan) -> Vec<(String, String)> {
    let mut versions: Vec<_> = plan.targets.iter().flatten().map(version).collect();
    versions.sort();
    versions.dedup();
    versions
}

/// Who it is, for whoever would begin another one.
fn holder() -> String {
    let user = std::env::var("USER").unwrap_or_else(|_| "somebody".to_owned());
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let at = if host.trim().is_empty() { String::new() } else { format!("@{}", host.trim()) };
    format!("{user}{at}, process {}", std::process::id())
}
