//! Drills: a rehearsed failure, what its clients noticed, and a verdict.
//!
//! ```text
//! scenario ─ plan ─┬─ stage   instances with faults, the balancer as a process of its own
//!                  ├─ load    clients that check what they are told
//!                  └─ observe what the balancer says of its instances
//!                             all of it noted in record, weighed in verdict, told in report
//! ```
//!
//! Knows configuration types and the wire; nothing of the proxy's inside. Start at [`run`].

mod balancer;
mod instance;
mod load;
mod observe;
mod plan;
mod record;
mod report;
mod scenario;
mod stage;
mod verdict;
mod view;
mod wire;

use std::collections::BTreeMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::config::types::Config;
use crate::config::{ConfigErrors, Problem};
use observe::Seen;
use plan::Plan;
use record::Record;
use report::{Rehearsed, Report};
use scenario::Scenario;
use stage::{Stage, StageError};
use verdict::Evidence;
use view::View;

/// What to rehearse, and where to leave the report.
#[derive(Debug, Clone)]
pub struct Options {
    /// The scenario file.
    pub scenario: PathBuf,
    /// Instead of the scenario's own.
    pub seed: Option<u32>,
    /// Where the report goes as JSON.
    pub json: Option<PathBuf>,
    /// Where it goes as a page.
    pub html: Option<PathBuf>,
    /// Whether commands of the scenario may be run.
    pub allow_exec: bool,
}

/// Whether every limit was met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// All of them.
    Passed,
    /// Not all, or it ended before its time.
    Missed,
}

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
pub enum DrillError {
    /// The scenario.
    #[error(transparent)]
    Scenario(#[from] ConfigErrors),
    /// Something that the drill needs did not work; all faults are undone.
    #[error("the drill could not go on: {0}")]
    Stage(String),
    /// A report that is to be written, or compared.
    #[error("{path}: {message}")]
    Report {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
}

impl From<StageError> for DrillError {
    fn from(error: StageError) -> Self {
        Self::Stage(error.to_string())
    }
}

/// Rehearses with embedded instances and a balancer of its own, prints the summary, and leaves the
/// report. `stop` ends it early; whatever happens, every fault is undone.
pub async fn run(options: &Options, stop: impl Future<Output = ()>) -> Result<Verdict, DrillError> {
    let mut scenario = scenario::read(&options.scenario)?;
    scenario.seed = options.seed.map_or(scenario.seed, Into::into);
    let refuse = |line, path: &str, message: String| {
        let (file, path) = (options.scenario.clone(), path.to_owned());
        ConfigErrors::new(&options.scenario, vec![Problem { file, line, path, message }])
    };
    let config = Arc::clone(&scenario.config);
    let plan = plan::plan(&scenario, plan::cast(&config))
        .map_err(|impossible| refuse(impossible.line, "steps", impossible.message))?;
    let report = rehearse(&scenario, &plan, config, options.allow_exec, stop).await?;
    print!("{}", report::summary(&report));
    if let Some(path) = &options.json {
        let json = serde_json::to_string_pretty(&report).map_err(|error| error.to_string());
        leave(path, json)?;
    }
    if let Some(path) = &options.html {
        leave(path, Ok(report::page(&report)))?;
    }
    Ok(if report.passed { Verdict::Passed } else { Verdict::Missed })
}

/// Prints what differs between two reports; missed where the second is worse by a limit.
pub fn compare(a: &Path, b: &Path) -> Result<Verdict, DrillError> {
    let read = |path: &Path| {
        let failed = |message| DrillError::Report { path: path.to_owned(), message };
        report::read(path).map_err(failed)
    };
    let (text, is_worse) = report::compare(&read(a)?, &read(b)?);
    print!("{text}");
    Ok(if is_worse { Verdict::Missed } else { Verdict::Passed })
}

fn leave(path: &Path, text: Result<String, String>) -> Result<(), DrillError> {
    let failed = |message| DrillError::Report { path: path.to_owned(), message };
    let written = std::fs::write(path, text.map_err(failed)?);
    written.map_err(|error| failed(format!("cannot write it: {error}")))
}

/// What runs beside the plan.
struct Beside {
    stop: watch::Sender<bool>,
    clients: JoinSet<()>,
    observer: JoinHandle<Vec<Seen>>,
}

impl Beside {
    fn begin(scenario: &Scenario, stage: &Stage, record: &Arc<Record>) -> Self {
        let (stop, stopped) = watch::channel(false);
        let (address, admin) = (stage.balancer().address(), stage.balancer().admin());
        let Scenario { load, duration, seed, .. } = scenario;
        let clients = load::drive(load, address, *duration, *seed, record, &stopped);
        let observer = observe::observe(admin, Arc::clone(record), stopped);
        Self { stop, clients, observer: tokio::spawn(observer) }
    }

    /// Waits for requests that are under way, and gives what was observed.
    async fn end(mut self, patience: Duration, is_early: bool) -> Vec<Seen> {
        if is_early {
            self.stop.send_replace(true);
        }
        let all = async { while self.clients.join_next().await.is_some() {} };
        // Who is not done by then has lost patience, and noted that.
        let _ = tokio::time::timeout(patience + Duration::from_secs(1), all).await;
        self.stop.send_replace(true);
        self.observer.await.unwrap_or_default()
    }
}

async fn rehearse(
    scenario: &Scenario,
    plan: &Plan,
    config: Arc<Config>,
    may_exec: bool,
    stop: impl Future<Output = ()>,
) -> Result<Report, DrillError> {
    let mut stop = std::pin::pin!(stop);
    let early = Arc::new(Record::new(Instant::now()));
    let setting = Stage::set(Arc::clone(&config), scenario.seed, may_exec, early);
    let mut stage = tokio::select! {
        set = setting => set?,
        () = &mut stop => return Err(DrillError::Stage("stopped before it began".to_owned())),
    };
    let began = SystemTime::now();
    let record = Arc::new(Record::new(Instant::now()));
    stage.begin(Arc::clone(&record));
    let beside = Beside::begin(scenario, &stage, &record);
    let mut view = View::new(scenario);
    let played = play(scenario, plan, &mut stage, &record, &mut view, stop).await;
    let (impaired, lasted) = (stage.impaired.clone(), record.now());
    stage.undo(&plan.undo).await;
    let is_early = !matches!(played, Ok(Played::Whole));
    let seen = beside.end(scenario.load.patience, is_early).await;
    view.clear();
    let interrupted = played? == Played::Interrupted;
    let notes = record.notes().clone();
    let evidence = Evidence {
        scenario,
        plan,
        notes: &notes,
        seen: &seen,
        impaired: &impaired,
        repeated: stage.ledger.repeated(),
        weights: &weights(scenario, &config),
    };
    let target = "embedded instances".to_owned();
    let rehearsed = Rehearsed { began, target, done: &stage.done, interrupted, lasted };
    Ok(report::build(&evidence, &rehearsed))
}

/// How a drill ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Played {
    Whole,
    Interrupted,
}

/// Carries out the plan.
async fn play(
    scenario: &Scenario,
    plan: &Plan,
    stage: &mut Stage,
    record: &Record,
    view: &mut View,
    stop: impl Future<Output = ()>,
) -> Result<Played, StageError> {
    let mut stop = std::pin::pin!(stop);
    let mut acts = plan.acts.iter().peekable();
    loop {
        let own = stage.due();
        let next = acts.peek().map(|act| act.at);
        let due = next.into_iter().chain(own).min().unwrap_or(scenario.duration);
        let until = record.begin() + due.min(scenario.duration);
        tokio::select! {
            () = &mut stop => return Ok(Played::Interrupted),
            () = tokio::time::sleep_until(until.into()) => {}
            () = view.tick() => {
                view.draw(record, stage);
                continue;
            }
        }
        if due >= scenario.duration {
            return Ok(Played::Whole);
        }
        if own == Some(due) {
            stage.attend().await?;
        } else if let Some(act) = acts.next() {
            stage.act(act).await?;
        }
        view.draw(record, stage);
    }
}

/// The weights of all instances that are ever there, as the configuration that names them last says.
fn weights(scenario: &Scenario, config: &Config) -> BTreeMap<String, u32> {
    let mut weights = BTreeMap::new();
    let reloads = scenario.steps.iter().filter_map(|step| match &step.action {
        scenario::Action::Reload(config) => Some(&**config),
        _ => None,
    });
    for config in std::iter::once(config).chain(reloads) {
        for id in plan::cast(config) {
            let service = config.services.iter().find(|service| service.name == id.service);
            let version = service.and_then(|service| service.version(&id.version));
            let instance = version.and_then(|version| {
                version.instances.iter().find(|instance| instance.name == id.name)
            });
            weights.insert(id.to_string(), instance.map_or(1, |instance| instance.weight));
        }
    }
    weights
}
