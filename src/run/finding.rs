//! What the sources of instances say, put in place as a reload is, and kept for the next process.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::config::found::{Found, Member, Unbelieved, Whose, asked};
use crate::config::types::{Admin, Config};
use crate::discovery::board::Outcome;
use crate::discovery::{Report, Sources};
use crate::observe::events::{self, Event};
use crate::run::server::Server;
use crate::run::{state_file, steering};

/// A start waits this long for sources of which nothing is known, so that it doesn't greet clients
/// with a 503.
const FIRST_ANSWERS: Duration = Duration::from_secs(5);

/// Sources that are asked, what is known at the start, and what they have said until then.
pub(super) struct Begun {
    pub(super) sources: Sources,
    pub(super) found: Found,
    pub(super) reports: Vec<Report>,
}

/// Asks the sources of a configuration. What the process before it has found is believed until they
/// answer; those of which nothing is known are waited for, but not for ever.
pub(super) async fn begin(filed: &Config, config_file: Option<&Path>) -> Begun {
    let mut sources = Sources::default();
    let mut unheard = sources.follow(filed);
    let mut found = Found::default();
    if !unheard.is_empty() {
        let path = state_file::path_of_found(filed.admin.as_ref(), config_file);
        found = path.map(|path| state_file::load_found(&path)).unwrap_or_default();
        found.prune(filed);
        unheard.retain(|whose| found.of(whose).is_none());
    }
    let deadline = tokio::time::Instant::now() + FIRST_ANSWERS;
    let reports = sources.first(unheard, deadline).await;
    Begun { sources, found, reports }
}

/// What a configuration asks of the source of a version.
fn minimum(config: &Config, whose: &Whose) -> u32 {
    let mut asked = asked(config);
    asked.find(|(it, _)| it == whose).map_or(0, |(_, discovery)| discovery.minimum)
}

impl Server {
    /// Takes what a source says, if it is to be believed.
    pub(super) async fn hear(&mut self, report: Report) {
        let Report { whose, told, ignored, .. } = report;
        let members = match told {
            Ok(members) => members,
            Err(problem) => return self.note(&whose, Outcome::Failed(&problem)),
        };
        self.live.sources.note_ignored(&whose, ignored);
        if let Some(own) = members.iter().find(|member| self.is_own(&member.address)) {
            let unbelieved = Unbelieved::Itself(own.address.clone());
            return self.note(&whose, Outcome::Refused(&unbelieved.to_string()));
        }
        let mut found = Found::clone(&self.layers.found);
        let before = self.layers.found.of(&whose).map(<[Member]>::to_vec).unwrap_or_default();
        match found.learn(&whose, members, minimum(&self.layers.filed, &whose)) {
            Err(unbelieved) => self.note(&whose, Outcome::Refused(&unbelieved.to_string())),
            Ok(false) => self.note(&whose, Outcome::Same(before.len())),
            Ok(true) => {
                let now = found.of(&whose).unwrap_or_default();
                tell(&whose, &before, now);
                self.note(&whose, Outcome::Changed(now.len()));
                self.layers.found = Arc::new(found);
                let layers = self.relayered(self.layers.clone());
                let forgets = layers.overlay != self.layers.overlay;
                self.layers = layers;
                self.serve_layers(None);
                if forgets {
                    self.keep().await;
                }
                self.keep_found().await;
            }
        }
    }

    /// Whether this process itself accepts connections there.
    fn is_own(&self, address: &str) -> bool {
        let Ok(address) = address.parse::<SocketAddr>() else { return false };
        let is_same = |own: SocketAddr| {
            let is_there = own.ip() == address.ip()
                || (own.ip().is_unspecified() && address.ip().is_loopback())
                || address.ip().is_unspecified();
            own.port() == address.port() && is_there
        };
        let configured = self.config.listeners.iter().map(|listener| listener.address);
        let configured = configured.chain(self.config.admin.as_ref().map(|admin| admin.address));
        configured.chain(self.addresses()).chain(self.admin()).any(is_same)
    }

    /// Says once what is wrong with a source, and that it is well again.
    fn note(&self, whose: &Whose, outcome: Outcome<'_>) {
        let is_news = self.live.sources.note(whose, outcome, SystemTime::now());
        let (service, version) = (&whose.service, &whose.version);
        match outcome {
            Outcome::Refused(problem) | Outcome::Failed(problem) if is_news => {
                tracing::warn!(service, version, problem, "discovery: nothing is learnt");
                let whose = events::Whose {
                    service: service.clone(),
                    version: version.clone(),
                    instance: None,
                };
                let message = format!("discovery: {problem}");
                self.live.journal.note(Event::Warning {
                    code: "discovery",
                    whose: Some(whose),
                    message,
                    cure: None,
                });
            }
            Outcome::Same(instances) if is_news => {
                tracing::info!(service, version, instances, "discovery: the source is heard again");
            }
            Outcome::Refused(_) | Outcome::Failed(_) | Outcome::Same(_) | Outcome::Changed(_) => {}
        }
    }

    /// What is served by where a source is new: who serves already, until it is heard.
    pub(super) fn seeded(&self, filed: &Config) -> Found {
        let mut found = Found::clone(&self.layers.found);
        // Without what was asked for at run time, which stays a layer of its own.
        let named = self.layers.named();
        for (whose, _) in asked(filed) {
            let mut services = named.services.iter();
            let service = services.find(|service| service.name == whose.service);
            let version = service.and_then(|service| service.version(&whose.version));
            if let Some(version) = version.filter(|version| version.discovery.is_none()) {
                found.seed(&whose, &version.instances);
            }
        }
        found
    }

    /// Asks the sources of this configuration from now on.
    pub(super) fn follow_sources(&mut self, filed: &Config) {
        let _new: BTreeSet<Whose> = self.sources.follow(filed);
        let found = Arc::clone(&self.layers.found);
        self.live.sources.follow(filed, |whose| found.of(whose).map_or(0, <[Member]>::len));
    }

    /// Writes what was found where the next process finds it.
    async fn keep_found(&self) {
        let admin: Option<&Admin> = self.config.admin.as_ref();
        let Some(path) = state_file::path_of_found(admin, self.file.as_deref()) else { return };
        let (file, found) = (path.clone(), Arc::clone(&self.layers.found));
        let store = move || state_file::store_found(&file, &found);
        if let Err(error) = steering::on_disk(store).await {
            let file = path.display();
            tracing::warn!(%file, %error, "a restart will not know which instances were found");
        }
    }
}

fn tell(whose: &Whose, before: &[Member], now: &[Member]) {
    let names = |members: &[Member]| -> BTreeSet<String> {
        members.iter().map(|it| it.name.clone()).collect()
    };
    let (old, new) = (names(before), names(now));
    let (added, removed) = (new.difference(&old).count(), old.difference(&new).count());
    let (service, version, instances) = (&whose.service, &whose.version, now.len());
    tracing::info!(service, version, instances, added, removed, "discovery: instances changed");
}
