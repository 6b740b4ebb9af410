//! The embedded side of a drill: instances and the balancer in front of them. Does what the plan
//! says when it is due, notes when it was done, and undoes what is left at the end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::balancer::{self, Balancer, BalancerError};
use super::instance::{Instance, Ledger};
use super::plan::{Act, Id, What};
use super::record::Record;
use super::scenario::{Fault, Upset};
use crate::config::types::{Config, State};

/// Why a drill could not be carried out.
#[derive(Debug, thiserror::Error)]
pub(super) enum StageError {
    #[error(transparent)]
    Balancer(#[from] BalancerError),
    #[error("starting the instance {0}: {1}")]
    Instance(Id, #[source] std::io::Error),
    #[error("making a folder for the balancer: {0}")]
    Folder(#[source] std::io::Error),
    #[error("`exec` runs commands of the scenario; --allow-exec lets it")]
    Exec,
    #[error("running {0:?}: {1}")]
    Command(String, String),
}

/// A time in which an instance, or all where none is named, was not what it should be.
#[derive(Debug, Clone)]
pub(super) struct Impaired {
    /// As an [`Id`] is written; `None` for the balancer itself.
    pub(super) instance: Option<String>,
    pub(super) what: String,
    pub(super) from: Duration,
    /// `None` where it has not ended.
    pub(super) until: Option<Duration>,
}

/// Something that was done.
#[derive(Debug, Clone)]
pub(super) struct Done {
    /// When it was to be done.
    pub(super) planned: Duration,
    pub(super) at: Duration,
    pub(super) what: String,
}

/// The stage.
#[derive(Debug)]
pub(super) struct Stage {
    balancer: Balancer,
    config: Arc<Config>,
    instances: BTreeMap<Id, Instance>,
    /// What operators want, over the configuration.
    wanted: BTreeMap<Id, State>,
    record: Arc<Record>,
    pub(super) ledger: Arc<Ledger>,
    seed: u64,
    may_exec: bool,
    pub(super) impaired: Vec<Impaired>,
    pub(super) done: Vec<Done>,
    /// When a killed balancer is to be started again, or a storm is over.
    upset: Option<(Upset, Duration)>,
    /// When the storm's next reload is due.
    gust: Duration,
}

impl Stage {
    pub(super) async fn set(
        config: Arc<Config>,
        seed: u64,
        may_exec: bool,
        record: Arc<Record>,
    ) -> Result<Self, StageError> {
        let ledger = Arc::new(Ledger::default());
        let mut instances = BTreeMap::new();
        join(&mut instances, &config, seed, &ledger).await?;
        let folder = balancer::folder().map_err(StageError::Folder)?;
        let wanted = BTreeMap::new();
        let balancer = Balancer::start(folder, &placed(&config, &instances, &wanted)).await?;
        Ok(Self {
            balancer,
            config,
            instances,
            wanted,
            record,
            ledger,
            seed,
            may_exec,
            impaired: Vec::new(),
            done: Vec::new(),
            upset: None,
            gust: Duration::ZERO,
        })
    }

    pub(super) fn balancer(&self) -> &Balancer {
        &self.balancer
    }

    /// The clock of the drill begins.
    pub(super) fn begin(&mut self, record: Arc<Record>) {
        self.record = record;
    }

    /// When something is due that the plan does not name; the balancer's own.
    pub(super) fn due(&self) -> Option<Duration> {
        match self.upset? {
            (Upset::ReloadStorm { .. }, until) => Some(self.gust.min(until)),
            (_, until) => Some(until),
        }
    }

    /// Does what is due by now of a kill or a storm.
    pub(super) async fn attend(&mut self) -> Result<(), StageError> {
        let Some((upset, until)) = self.upset else { return Ok(()) };
        if self.record.now() >= until {
            self.upset = None;
            return self.calm(upset, until).await;
        }
        if let Upset::ReloadStorm { every } = upset {
            self.balancer.reload_anew()?;
            self.gust = self.record.now() + every;
        }
        Ok(())
    }

    async fn calm(&mut self, upset: Upset, planned: Duration) -> Result<(), StageError> {
        match upset {
            Upset::Kill => self.balancer.start_again().await?,
            Upset::BadConfig | Upset::ReloadStorm { .. } => self.balancer.put_back()?,
            Upset::Upgrade => {}
        }
        self.over(None, upset.word());
        self.tell(planned, format!("end of {} of the balancer", upset.word()));
        Ok(())
    }

    /// Does one thing of the plan.
    pub(super) async fn act(&mut self, act: &Act) -> Result<(), StageError> {
        match &act.what {
            What::Begin(who, fault) => {
                for id in who {
                    self.fault(id, *fault).await;
                }
                self.tell(act.at, format!("{} {}", fault.word(), names(who)));
            }
            What::End(who, fault) => {
                for id in who {
                    if let Some(instance) = self.instances.get_mut(id) {
                        let ended = instance.end(*fault).await;
                        ended.map_err(|error| StageError::Instance(id.clone(), error))?;
                    }
                    self.over(Some(id), fault.word());
                }
                self.tell(act.at, format!("end of {} {}", fault.word(), names(who)));
            }
            What::Restore(who) => {
                for id in who {
                    self.restore(id).await?;
                }
                self.tell(act.at, format!("restore {}", names(who)));
            }
            What::Admin(who, state) => {
                self.admin(who, *state)?;
                self.tell(act.at, format!("{} {}", state.word(), names(who)));
            }
            What::Reload(config) => {
                self.reload(config).await?;
                self.tell(act.at, "reload".to_owned());
            }
            What::Upset(upset, lasts) => self.upset(act.at, *upset, *lasts).await?,
            What::Exec(words) => {
                self.exec(words).await?;
                self.tell(act.at, words.join(" "));
            }
        }
        Ok(())
    }

    fn tell(&mut self, planned: Duration, what: String) {
        self.done.push(Done { planned, at: self.record.now(), what });
    }

    async fn fault(&mut self, id: &Id, fault: Fault) {
        // Before it happens, so that whatever follows from it comes later.
        self.impair(Some(id), fault.word());
        if let Some(instance) = self.instances.get_mut(id) {
            instance.begin(fault).await;
        }
        if fault.is_instant() {
            self.over(Some(id), fault.word());
        }
    }

    async fn restore(&mut self, id: &Id) -> Result<(), StageError> {
        if let Some(instance) = self.instances.get_mut(id) {
            let restored = instance.restore().await;
            restored.map_err(|error| StageError::Instance(id.clone(), error))?;
        }
        let now = self.record.now();
        let (id, wanted) = (id.to_string(), State::WORDS.map(|(word, _)| word));
        let open = self.impaired.iter_mut().filter(|it| it.until.is_none());
        let of = open.filter(|it| it.instance.as_ref() == Some(&id));
        // What an operator wants of it is not restored.
        of.filter(|it| !wanted.contains(&&*it.what)).for_each(|it| it.until = Some(now));
        Ok(())
    }

    fn impair(&mut self, id: Option<&Id>, what: &str) {
        let (instance, from) = (id.map(Id::to_string), self.record.now());
        self.impaired.push(Impaired { instance, what: what.to_owned(), from, until: None });
    }

    fn over(&mut self, id: Option<&Id>, what: &str) {
        let (id, now) = (id.map(Id::to_string), self.record.now());
        let open = self.impaired.iter_mut().filter(|it| it.until.is_none());
        open.filter(|it| it.instance == id && it.what == what).for_each(|it| it.until = Some(now));
    }

    fn admin(&mut self, who: &[Id], state: State) -> Result<(), StageError> {
        for id in who {
            for word in [State::Draining, State::Disabled] {
                self.over(Some(id), word.word());
            }
            if state == State::Active {
                self.wanted.remove(id);
            } else {
                self.impair(Some(id), state.word());
                self.wanted.insert(id.clone(), state);
            }
        }
        let placed = placed(&self.config, &self.instances, &self.wanted);
        Ok(self.balancer.reload(&placed)?)
    }

    /// Instances that join are started first; those that leave stay, for the sessions that they have.
    async fn reload(&mut self, config: &Arc<Config>) -> Result<(), StageError> {
        join(&mut self.instances, config, self.seed, &self.ledger).await?;
        let present = super::plan::cast(config);
        let before = super::plan::cast(&self.config);
        for id in before.iter().filter(|id| !present.contains(id)) {
            self.impair(Some(id), "removed");
        }
        self.config = Arc::clone(config);
        let placed = placed(config, &self.instances, &self.wanted);
        Ok(self.balancer.reload(&placed)?)
    }

    async fn upset(
        &mut self,
        planned: Duration,
        upset: Upset,
        lasts: Option<Duration>,
    ) -> Result<(), StageError> {
        const DOWN: Duration = Duration::from_secs(1);
        self.impair(None, upset.word());
        self.tell(planned, format!("{} of the balancer", upset.word()));
        match upset {
            Upset::Kill => self.balancer.kill().await,
            Upset::Upgrade => {
                let upgraded = self.balancer.upgrade().await;
                self.over(None, upset.word());
                self.tell(planned, "another process of the balancer serves".to_owned());
                return Ok(upgraded?);
            }
            Upset::BadConfig => self.balancer.reload_wrong()?,
            Upset::ReloadStorm { .. } => self.gust = self.record.now(),
        }
        self.upset = Some((upset, self.record.now() + lasts.unwrap_or(DOWN)));
        Ok(())
    }

    async fn exec(&self, words: &[String]) -> Result<(), StageError> {
        if !self.may_exec {
            return Err(StageError::Exec);
        }
        execute(words).await
    }

    /// Ends every fault, whatever the plan says.
    pub(super) async fn undo(&mut self, commands: &[Vec<String>]) {
        if let Some((upset, until)) = self.upset.take() {
            let _ = self.calm(upset, until).await;
        }
        let ids: Vec<Id> = self.instances.keys().cloned().collect();
        for id in ids {
            // The instance is about to end anyway.
            let _ = self.restore(&id).await;
        }
        for words in commands {
            if let Err(error) = self.exec(words).await {
                eprintln!("burdock: undoing: {error}");
            }
        }
    }
}

/// Runs a command of the scenario.
async fn execute(words: &[String]) -> Result<(), StageError> {
    let failed = |what: String| StageError::Command(words.join(" "), what);
    let Some((program, arguments)) = words.split_first() else { return Ok(()) };
    let mut command = tokio::process::Command::new(program);
    command.args(arguments).stdin(std::process::Stdio::null()).kill_on_drop(true);
    let status = command.status().await.map_err(|error| failed(error.to_string()))?;
    if status.success() { Ok(()) } else { Err(failed(status.to_string())) }
}

/// Starts the instances of a configuration that are not there yet.
async fn join(
    instances: &mut BTreeMap<Id, Instance>,
    config: &Config,
    seed: u64,
    ledger: &Arc<Ledger>,
) -> Result<(), StageError> {
    for (number, id) in (0..).zip(super::plan::cast(config)) {
        if instances.contains_key(&id) {
            continue;
        }
        let seed = seed.wrapping_mul(31).wrapping_add(number);
        let started = Instance::start(id.clone(), Arc::clone(ledger), seed).await;
        let instance = started.map_err(|error| StageError::Instance(id.clone(), error))?;
        instances.insert(id, instance);
    }
    Ok(())
}

/// The configuration, with the addresses of embedded instances and what operators want of them.
fn placed(
    config: &Config,
    instances: &BTreeMap<Id, Instance>,
    wanted: &BTreeMap<Id, State>,
) -> Config {
    let mut config = config.clone();
    for service in &mut config.services {
        let (service, versions) = (&service.name, &mut service.versions);
        for version in versions {
            for instance in &mut version.instances {
                let (service, name) = (service.clone(), instance.name.clone());
                let id = Id { service, version: version.name.clone(), name };
                if let Some(embedded) = instances.get(&id) {
                    instance.address = embedded.address().to_string();
                }
                if let Some(state) = wanted.get(&id) {
                    instance.state = *state;
                }
            }
        }
    }
    config
}

fn names(who: &[Id]) -> String {
    let names: Vec<_> = who.iter().map(|id| &*id.name).collect();
    names.join(", ")
}
