//! Drills: a rehearsed failure, what its clients noticed, and a verdict.
//!
//! ```text
//! scenario ─ plan ─┬─ stage   instances with faults, the balancer as a process of its own
//!                  ├─ running or a balancer that runs already, by its admin API
//!                  ├─ load    clients that check what they are told
//!                  └─ observe what the balancer says of its instances, and watched: of its clients
//!                             all of it noted in record, weighed in verdict, told in report
//! ```
//!
//! Knows configuration types and the wire, and `running` a client of the admin API; nothing of the proxy's
//! inside. Start at [`run`].

mod balancer;
mod diary;
mod instance;
mod load;
mod observe;
mod plan;
mod record;
mod report;
pub(crate) mod reset;
mod running;
mod scenario;
mod scene;
mod stage;
mod verdict;
mod view;
mod watched;
mod wire;

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::config::types::Config;
use crate::config::{ConfigErrors, Problem};
use diary::Diary;
use observe::Seen;
use plan::Plan;
use record::Record;
use report::{Rehearsed, Report};
use running::Running;
use scenario::{Mode, Scenario, Setting};
use scene::{Scene, SceneError};
use stage::Stage;
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
    /// The running balancer to rehearse on; embedded instances where there is none.
    pub running: Option<On>,
}

/// A running balancer.
#[derive(Debug, Clone)]
pub struct On {
    /// Its admin address.
    pub admin: String,
    /// The file that holds its token.
    pub token_file: Option<PathBuf>,
    /// What clients ask for, instead of the scenario's own.
    pub load: Option<String>,
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

impl From<SceneError> for DrillError {
    fn from(error: SceneError) -> Self {
        Self::Stage(error.to_string())
    }
}

/// Rehearses, prints the summary, and leaves the report. `stop` ends it early; whatever happens, every fault
/// is undone.
pub async fn run(options: &Options, stop: impl Future<Output = ()>) -> Result<Verdict, DrillError> {
    let report = match &options.running {
        None => rehearse_embedded(options, stop).await?,
        Some(on) => rehearse_on(options, on, stop).await?,
    };
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

/// The scenario, with the seed that counts.
fn scenario_of(options: &Options, mode: &Mode) -> Result<Scenario, DrillError> {
    let mut scenario = scenario::read(&options.scenario, mode)?;
    scenario.seed = options.seed.map_or(scenario.seed, Into::into);
    Ok(scenario)
}

fn impossible(options: &Options, impossible: plan::Impossible) -> ConfigErrors {
    let (file, path) = (options.scenario.clone(), "steps".to_owned());
    let plan::Impossible { line, message } = impossible;
    ConfigErrors::new(&options.scenario, vec![Problem { file, line, path, message }])
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

/// What runs beside the plan; `Seen` is what whoever looks on gives back.
struct Beside<Seen> {
    stop: watch::Sender<bool>,
    clients: JoinSet<()>,
    observer: JoinHandle<Seen>,
}

impl<Seen: Default + Send + 'static> Beside<Seen> {
    fn begin<O: Future<Output = Seen> + Send + 'static>(
        scenario: &Scenario,
        address: Option<SocketAddr>,
        record: &Arc<Record>,
        observe: impl FnOnce(watch::Receiver<bool>) -> O,
    ) -> Self {
        let (stop, stopped) = watch::channel(false);
        let clients = match address {
            Some(address) => load::drive(scenario, address, record, &stopped),
            None => JoinSet::new(),
        };
        Self { stop, clients, observer: tokio::spawn(observe(stopped)) }
    }

    /// Waits for requests that are under way, and gives what was observed.
    async fn end(mut self, patience: Duration, is_early: bool) -> Seen {
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

async fn rehearse_embedded(
    options: &Options,
    stop: impl Future<Output = ()>,
) -> Result<Report, DrillError> {
    let scenario = scenario_of(options, &Mode::Embedded)?;
    let Setting::Embedded(config) = &scenario.setting else {
        return Err(DrillError::Stage("this scenario is for a running balancer".to_owned()));
    };
    let plan = plan::plan(&scenario, plan::cast(config), Vec::new())
        .map_err(|it| impossible(options, it))?;
    let mut stop = std::pin::pin!(stop);
    let early = Arc::new(Record::new(Instant::now()));
    let setting = Stage::set(Arc::clone(config), scenario.seed, options.allow_exec, early);
    let mut stage = tokio::select! {
        set = setting => set?,
        () = &mut stop => return Err(DrillError::Stage("stopped before it began".to_owned())),
    };
    let began = SystemTime::now();
    let record = Arc::new(Record::new(Instant::now()));
    stage.begin(Arc::clone(&record));
    let (address, admin) = (stage.balancer().address(), stage.balancer().admin());
    let observe = |stopped| observe::observe(admin, Arc::clone(&record), stopped);
    let beside = Beside::begin(&scenario, Some(address), &record, observe);
    let mut view = View::new(&scenario);
    let played = play(&scenario, &plan, &mut stage, &mut view, stop).await;
    let (impaired, lasted) = (stage.diary().impaired.clone(), record.now());
    stage.undo(&plan.undo).await;
    let is_early = !matches!(played, Ok(Played::Whole));
    let seen: Vec<Seen> = beside.end(scenario.load.patience, is_early).await;
    view.clear();
    let ended = played?;
    let notes = record.notes().clone();
    let evidence = Evidence {
        scenario: &scenario,
        plan: &plan,
        notes: &notes,
        seen: &seen,
        impaired: &impaired,
        repeated: stage.ledger.repeated(),
        weights: &weights(&scenario, config),
        watched: None,
    };
    let target = "embedded instances".to_owned();
    let rehearsed = Rehearsed { began, target, done: &stage.diary().done, ended, lasted };
    Ok(report::build(&evidence, &rehearsed))
}

async fn rehearse_on(
    options: &Options,
    on: &On,
    stop: impl Future<Output = ()>,
) -> Result<Report, DrillError> {
    let url = on.load.as_deref().map(|text| {
        let wrong = || DrillError::Stage(format!("--load {text}: allowed: http://HOST:PORT/PATH"));
        scenario::url(text).ok_or_else(wrong)
    });
    let scenario = scenario_of(options, &Mode::Running(url.transpose()?))?;
    let mark = getrandom::u64();
    let mark = mark.map_err(|error| DrillError::Stage(format!("drawing a mark: {error}")))?;
    let scenario = scenario.marked(format!("{mark:016x}"));
    let Setting::Running(safety) = &scenario.setting else {
        return Err(DrillError::Stage("this scenario is for embedded instances".to_owned()));
    };
    let found = running::find(&on.admin, on.token_file.as_deref()).await?;
    let cast = found.cast.iter().map(|(id, _)| id.clone()).collect();
    let plan = plan::plan(&scenario, cast, found.unfit).map_err(|it| impossible(options, it))?;
    let address = match &scenario.load.url {
        Some(url) => Some(resolved(&url.authority).await?),
        None => None,
    };
    let (began, record) = (SystemTime::now(), Arc::new(Record::new(Instant::now())));
    let (client, diary) = (found.client, Diary::new(Arc::clone(&record)));
    let terms = (&*scenario.name, safety, &plan);
    let mut running = Running::begin(client.clone(), terms, options.allow_exec, diary).await?;
    let target = format!("the balancer at http://{}", client.address());
    let versions = running::versions(&plan);
    let observe = |stopped| running::watch(client, versions, Arc::clone(&record), stopped);
    let beside = Beside::begin(&scenario, address, &record, observe);
    let mut view = View::new(&scenario);
    let mut played = play(&scenario, &plan, &mut running, &mut view, stop).await;
    // What it refuses once it has ended the drill is no failure of its own.
    if played.is_err()
        && let Some(reason) = running.is_over().await
    {
        played = Ok(Played::Lost(reason));
    }
    let (impaired, lasted) = (running.diary().impaired.clone(), record.now());
    running.undo(&plan.undo).await;
    let is_early = !matches!(played, Ok(Played::Whole));
    let seen: Vec<Seen> = beside.end(scenario.load.patience, is_early).await;
    view.clear();
    let ended = match played {
        Ok(ended) => ended,
        Err(error) => {
            running.end("failed").await;
            return Err(error.into());
        }
    };
    let notes = record.notes().clone();
    let weights = found.cast.iter().map(|(id, weight)| (id.to_string(), *weight)).collect();
    let evidence = Evidence {
        scenario: &scenario,
        plan: &plan,
        notes: &notes,
        seen: &seen,
        impaired: &impaired,
        repeated: 0,
        weights: &weights,
        watched: Some(&notes.watched),
    };
    let rehearsed = Rehearsed { began, target, done: &running.diary().done, ended, lasted };
    let report = report::build(&evidence, &rehearsed);
    running.end(report.verdict()).await;
    Ok(report)
}

async fn resolved(authority: &str) -> Result<SocketAddr, DrillError> {
    let failed = |what: String| DrillError::Stage(format!("looking up {authority}: {what}"));
    let found = tokio::net::lookup_host(authority).await;
    let mut found = found.map_err(|error| failed(error.to_string()))?;
    found.next().ok_or_else(|| failed("it has no address".to_owned()))
}

/// How a drill ended.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Played {
    Whole,
    Interrupted,
    /// The balancer has ended it, for this reason.
    Lost(String),
}

/// Carries out the plan.
async fn play(
    scenario: &Scenario,
    plan: &Plan,
    scene: &mut impl Scene,
    view: &mut View,
    stop: impl Future<Output = ()>,
) -> Result<Played, SceneError> {
    let mut stop = std::pin::pin!(stop);
    let mut acts = plan.acts.iter().peekable();
    loop {
        let own = scene.due();
        let next = acts.peek().map(|act| act.at);
        let due = next.into_iter().chain(own).min().unwrap_or(scenario.duration);
        let until = scene.diary().record.begin() + due.min(scenario.duration);
        tokio::select! {
            () = &mut stop => return Ok(Played::Interrupted),
            reason = scene.lost() => return Ok(Played::Lost(reason)),
            () = tokio::time::sleep_until(until.into()) => {}
            () = view.tick() => {
                view.draw(scene.diary());
                continue;
            }
        }
        if due >= scenario.duration {
            return Ok(Played::Whole);
        }
        if own == Some(due) {
            scene.attend().await?;
        } else if let Some(act) = acts.next() {
            scene.act(act).await?;
        }
        view.draw(scene.diary());
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
