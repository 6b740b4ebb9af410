//! The embedded side of a drill: instances and the balancer in front of them. Does what the plan
//! says when it is due, notes when it was done, and undoes what is left at the end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::balancer::{self, Balancer};
use super::diary::{Diary, names};
use super::instance::{Instance, Ledger};
use super::plan::{Act, Id, What};
use super::record::Record;
use super::scenario::{Fault, Upset};
use super::scene::{Scene, SceneError, exec, put_back};
use crate::config::types::{Config, State};

/// The stage.
#[derive(Debug)]
pub(super) struct Stage {
    balancer: Balancer,
    config: Arc<Config>,
    instances: BTreeMap<Id, Instance>,
    /// What operators want, over the configuration.
    wanted: BTreeMap<Id, State>,
    diary: Diary,
    pub(super) ledger: Arc<Ledger>,
    seed: u64,
    may_exec: bool,
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
    ) -> Result<Self, SceneError> {
        let ledger = Arc::new(Ledger::default());
        let mut instances = BTreeMap::new();
        join(&mut instances, &config, seed, &ledger).await?;
        let folder = balancer::folder().map_err(SceneError::Folder)?;
        let wanted = BTreeMap::new();
        let balancer = Balancer::start(folder, &placed(&config, &instances, &wanted)).await?;
        Ok(Self {
            balancer,
            config,
            instances,
            wanted,
            diary: Diary::new(record),
            ledger,
            seed,
            may_exec,
            upset: None,
            gust: Duration::ZERO,
        })
    }

    pub(super) fn balancer(&self) -> &Balancer {
        &self.balancer
    }

    /// The clock of the drill begins.
    pub(super) fn begin(&mut self, record: Arc<Record>) {
        self.diary.record = record;
    }

    async fn calm(&mut self, upset: Upset, planned: Duration) -> Result<(), SceneError> {
        match upset {
            Upset::Kill => self.balancer.start_again().await?,
            Upset::BadConfig | Upset::ReloadStorm { .. } => self.balancer.put_back()?,
            Upset::Upgrade => {}
        }
        self.diary.over(None, upset.word());
        self.diary.tell(planned, format!("end of {} of the balancer", upset.word()));
        Ok(())
    }

    async fn fault(&mut self, id: &Id, fault: Fault) {
        // Before it happens, so that whatever follows from it comes later.
        self.diary.impair(Some(id), fault.word());
        if let Some(instance) = self.instances.get_mut(id) {
            instance.begin(fault).await;
        }
        if fault.is_instant() {
            self.diary.over(Some(id), fault.word());
        }
    }

    async fn restore(&mut self, id: &Id) -> Result<(), SceneError> {
        if let Some(instance) = self.instances.get_mut(id) {
            let restored = instance.restore().await;
            restored.map_err(|error| SceneError::Instance(id.clone(), error))?;
        }
        let now = self.diary.record.now();
        let (id, wanted) = (id.to_string(), State::WORDS.map(|(word, _)| word));
        let open = self.diary.impaired.iter_mut().filter(|it| it.until.is_none());
        let of = open.filter(|it| it.instance.as_ref() == Some(&id));
        // What an operator wants of it is not restored.
        of.filter(|it| !wanted.contains(&&*it.what)).for_each(|it| it.until = Some(now));
        Ok(())
    }

    fn admin(&mut self, who: &[Id], state: State) -> Result<(), SceneError> {
        for id in who {
            for word in [State::Draining, State::Disabled] {
                self.diary.over(Some(id), word.word());
            }
            if state == State::Active {
                self.wanted.remove(id);
            } else {
                self.diary.impair(Some(id), state.word());
                self.wanted.insert(id.clone(), state);
            }
        }
        let placed = placed(&self.config, &self.instances, &self.wanted);
        Ok(self.balancer.reload(&placed)?)
    }

    /// Instances that join are started first; those that leave stay, for the sessions that they have.
    async fn reload(&mut self, config: &Arc<Config>) -> Result<(), SceneError> {
        join(&mut self.instances, config, self.seed, &self.ledger).await?;
        let present = super::plan::cast(config);
        let before = super::plan::cast(&self.config);
        for id in before.iter().filter(|id| !present.contains(id)) {
            self.diary.impair(Some(id), "removed");
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
    ) -> Result<(), SceneError> {
        const DOWN: Duration = Duration::from_secs(1);
        self.diary.impair(None, upset.word());
        self.diary.tell(planned, format!("{} of the balancer", upset.word()));
        match upset {
            Upset::Kill => self.balancer.kill().await,
            Upset::Upgrade => {
                let upgraded = self.balancer.upgrade().await;
                self.diary.over(None, upset.word());
                self.diary.tell(planned, "another process of the balancer serves".to_owned());
                return Ok(upgraded?);
            }
            Upset::BadConfig => self.balancer.reload_wrong()?,
            Upset::ReloadStorm { .. } => self.gust = self.diary.record.now(),
        }
        self.upset = Some((upset, self.diary.record.now() + lasts.unwrap_or(DOWN)));
        Ok(())
    }
}

impl Scene for Stage {
    fn diary(&self) -> &Diary {
        &self.diary
    }

    fn due(&self) -> Option<Duration> {
        match self.upset? {
            (Upset::ReloadStorm { .. }, until) => Some(self.gust.min(until)),
            (_, until) => Some(until),
        }
    }

    async fn attend(&mut self) -> Result<(), SceneError> {
        let Some((upset, until)) = self.upset else { return Ok(()) };
        if self.diary.record.now() >= until {
            self.upset = None;
            return self.calm(upset, until).await;
        }
        if let Upset::ReloadStorm { every } = upset {
            self.balancer.reload_anew()?;
            self.gust = self.diary.record.now() + every;
        }
        Ok(())
    }

    async fn act(&mut self, act: &Act) -> Result<(), SceneError> {
        match &act.what {
            What::Begin(who, fault) => {
                for id in who {
                    self.fault(id, *fault).await;
                }
                self.diary.tell(act.at, format!("{} {}", fault.word(), names(who)));
            }
            What::End(who, fault) => {
                for id in who {
                    if let Some(instance) = self.instances.get_mut(id) {
                        let ended = instance.end(*fault).await;
                        ended.map_err(|error| SceneError::Instance(id.clone(), error))?;
                    }
                    self.diary.over(Some(id), fault.word());
                }
                self.diary.tell(act.at, format!("end of {} {}", fault.word(), names(who)));
            }
            What::Restore(who) => {
                for id in who {
                    self.restore(id).await?;
                }
                self.diary.tell(act.at, format!("restore {}", names(who)));
            }
            What::Admin(who, state) => {
                self.admin(who, *state)?;
                self.diary.tell(act.at, format!("{} {}", state.word(), names(who)));
            }
            What::Reload(config) => {
                self.reload(config).await?;
                self.diary.tell(act.at, "reload".to_owned());
            }
            What::Upset(upset, lasts) => self.upset(act.at, *upset, *lasts).await?,
            What::Exec { run, who, begins } => {
                let whom = (who.as_slice(), *begins);
                exec(&mut self.diary, act.at, run, whom, self.may_exec).await?;
            }
            // No file that has these is read for embedded instances.
            What::Strike(..) | What::Lift(..) => {}
        }
        Ok(())
    }

    /// It has no end of its own.
    async fn lost(&mut self) -> String {
        std::future::pending().await
    }

    async fn undo(&mut self, commands: &[Vec<String>]) {
        if let Some((upset, until)) = self.upset.take() {
            let _ = self.calm(upset, until).await;
        }
        let ids: Vec<Id> = self.instances.keys().cloned().collect();
        for id in ids {
            // The instance is about to end anyway.
            let _ = self.restore(&id).await;
        }
        put_back(commands, self.may_exec).await;
    }
}

/// Starts the instances of a configuration that are not there yet.
async fn join(
    instances: &mut BTreeMap<Id, Instance>,
    config: &Config,
    seed: u64,
    ledger: &Arc<Ledger>,
) -> Result<(), SceneError> {
    for (number, id) in (0..).zip(super::plan::cast(config)) {
        if instances.contains_key(&id) {
            continue;
        }
        let seed = seed.wrapping_mul(31).wrapping_add(number);
        let started = Instance::start(id.clone(), Arc::clone(ledger), seed).await;
        let instance = started.map_err(|error| SceneError::Instance(id.clone(), error))?;
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
