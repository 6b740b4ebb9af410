//! What the fleet wants, put in place as orders are; what is ordered here, sent to the fleet; and what
//! this balancer says of itself there.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use sha2::{Digest, Sha256};
use tokio::sync::oneshot;

use crate::admin::desk::Done;
use crate::admin::problem::Problem;
use crate::affinity::token::Keyring;
use crate::config::found::Found;
use crate::config::overlay::{self, Key, Overlay, Override, Shares};
use crate::config::types::Config;
use crate::config::{effective, is_name};
use crate::fleet::keyring::Keys;
use crate::fleet::summary::{MOST_SERVICES, Service, Summary};
use crate::fleet::{Fleet, Known, News, Teller};
use crate::instance::Lane;
use crate::observe::events::{Event, FleetStage};
use crate::rehearsal::guard;
use crate::run::keys::{KeyError, OwnKey};
use crate::run::server::{Server, has_affinity};
use crate::run::{state_file, steering};
use crate::snapshot::{Layers, Live, Phase, Snapshot};

/// A start waits this long for a fleet of which nothing is known, so that what it has drained is not
/// served; and so long for one that was heard by the process before.
const FIRST_WORD: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(1)];

/// The fleet of a process that begins, and what is to be served by it. What the process before it heard
/// counts until it is heard.
pub(super) async fn begin(
    layers: Layers,
    config_file: Option<&Path>,
    own_key: &mut OwnKey,
) -> Result<(Fleet, Layers), KeyError> {
    let mut fleet = Fleet::default();
    let filed = Arc::clone(&layers.filed);
    let Some(settings) = &filed.fleet else { return Ok((fleet, layers)) };
    let kept = |path: Option<PathBuf>| path.and_then(|path| state_file::load_fleet(&path));
    let orders = kept(state_file::path_of_fleet(filed.admin.as_ref(), config_file));
    let (mut keyring, mut is_known) = (None, orders.is_some());
    if settings.keyring {
        let path = state_file::path_of_keyring(filed.admin.as_ref(), config_file);
        let heard = kept(path).and_then(|text| Keys::of_text(&text).ok());
        is_known &= heard.is_some();
        keyring = Some(heard.map_or_else(|| own_key.first_of_fleet(&filed.affinity_keys), Ok)?);
    }
    let known = Known { orders: orders.as_deref(), alone: &layers.overlay, keyring };
    fleet.follow(Some(settings), &host(), known);
    let wait = FIRST_WORD[usize::from(is_known)];
    fleet.first(tokio::time::Instant::now() + wait).await;
    let layers = match fleet.overlay() {
        Some(overlay) => steering::with_shared(layers, overlay),
        None => layers,
    };
    Ok((fleet, layers))
}

/// The keyring to serve by: the fleet's, or the configuration's.
pub(super) fn keyring(
    own_key: &mut OwnKey,
    fleet: &Fleet,
    config: &Config,
) -> Result<Keyring, KeyError> {
    let is_shared = config.fleet.as_ref().is_some_and(|fleet| fleet.keyring);
    match fleet.keyring().filter(|_| is_shared) {
        Some(keys) => Ok(own_key.of_fleet(&keys, &config.affinity_keys)),
        None => own_key.keyring(&config.affinity_keys, has_affinity(config)),
    }
}

/// The name of this machine, as far as it is one for a balancer.
fn host() -> String {
    let told = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let fits = |c: char| if is_name(c.encode_utf8(&mut [0; 4])) { c } else { '-' };
    let name: String = told.trim().chars().take(63).map(fits).collect();
    if name.is_empty() { "burdock".to_owned() } else { name }
}

impl Server {
    /// What was found and what is wanted, over this file.
    pub(super) fn layered(&self, filed: Arc<Config>, found: Found) -> Layers {
        let overlay = Overlay::clone(&self.layers.overlay);
        match self.fleet.overlay() {
            None => steering::over(filed, found, overlay),
            Some(shared) => {
                let layers = steering::over(filed, found, overlay.ramps_alone());
                steering::with_shared(layers, shared)
            }
        }
    }

    /// The same with what is wanted now.
    pub(super) fn relayered(&self, layers: Layers) -> Layers {
        let overlay = Overlay::clone(&self.layers.overlay);
        match self.fleet.overlay() {
            None => steering::with_overlay(layers, overlay),
            Some(shared) => steering::with_shared(layers, shared),
        }
    }

    /// Is in the fleet that the configuration says. What this balancer was asked for alone is its word
    /// there.
    pub(super) fn follow_fleet(&mut self) {
        let settings = self.layers.filed.fleet.clone();
        let alone = Arc::clone(&self.layers.overlay);
        let is_shared = settings.as_ref().is_some_and(|fleet| fleet.keyring);
        let keyring = match self.fleet.keyring() {
            Some(keys) if is_shared => Some(keys),
            None if is_shared => self.own_key.first_of_fleet(&self.layers.filed.affinity_keys).ok(),
            Some(_) | None => None,
        };
        let known = Known { orders: None, alone: &alone, keyring };
        self.fleet.follow(settings.as_ref(), &host(), known);
    }

    /// Seals and opens tokens by the fleet's keyring from now on.
    async fn take_keyring(&mut self) {
        let Some(keys) = self.fleet.keyring() else { return };
        let keyring = self.own_key.of_fleet(&keys, &self.layers.filed.affinity_keys);
        if keyring.ids() != self.live.snapshot().keyring.ids() {
            tracing::info!(keys = keyring.len(), "affinity keys of the fleet");
            let published = self.live.publish(self.layers.clone(), Arc::new(keyring));
            self.prober.follow(published.snapshot.versions());
            self.fleet.say_now();
        }
        let admin = self.config.admin.as_ref();
        let Some(path) = state_file::path_of_keyring(admin, self.file.as_deref()) else { return };
        let (file, text) = (path.clone(), keys.to_text());
        let store = move || state_file::store_fleet(&file, &(text, false));
        if let Err(error) = steering::on_disk(store).await {
            let file = path.display();
            tracing::warn!(%file, %error, "a restart without the fleet will not know its affinity keys");
        }
    }

    /// Says in the fleet how this balancer is: nobody else of its name does.
    pub(super) fn join_fleet(&mut self) {
        let teller = teller(Arc::clone(&self.live), self.admin(), self.desk.started);
        self.fleet.publish(teller);
    }

    /// The same after a reload, which may have moved the admin address.
    pub(super) fn tell_fleet_anew(&mut self) {
        let admin = |config: &Config| config.admin.as_ref().map(|admin| admin.address);
        if self.fleet.is_published() && admin(&self.config) != admin(&self.layers.filed) {
            self.join_fleet();
        }
    }

    /// Tells the fleet what is wanted of an instance from now on.
    pub(super) fn share_wish(&mut self, key: &Key, words: (&Override, &Override), now: SystemTime) {
        self.sent.extend(self.fleet.want(key, words, now));
    }

    /// The same of the versions of a service.
    pub(super) fn share_split(
        &mut self,
        service: &str,
        (before, after): (Option<Shares>, &Option<Shares>),
        now: SystemTime,
    ) {
        let words = (before.as_ref(), after.as_ref());
        self.sent.extend(self.fleet.share(service, words, now));
    }

    /// Tells whoever asked what came of it, once the fleet has heard it, or has not for long enough.
    pub(super) fn answer(
        &mut self,
        answer: oneshot::Sender<Result<Done, Problem>>,
        settled: Result<Done, Problem>,
    ) {
        let sent = std::mem::take(&mut self.sent);
        let told = async move {
            let mut settled = settled;
            for sent in sent {
                if let Err(why) = sent.heard().await {
                    settled = settled.map(|done| done.without_others(why));
                }
            }
            // Whoever asked may be gone.
            let _ = answer.send(settled);
        };
        // Others are obeyed meanwhile.
        tokio::spawn(told);
    }

    /// Takes what is told of the fleet.
    pub(super) async fn heed_fleet(&mut self, news: News) {
        match news {
            News::Orders => self.take_shared().await,
            News::Keyring => self.take_keyring().await,
            // Whoever has a file reads it again.
            News::Config => {}
            News::Heard => {
                tracing::info!("the fleet is heard");
                self.live.journal.note(Event::Fleet(FleetStage::Heard));
            }
            News::Lost(problem) => {
                tracing::warn!(problem, "the fleet is not heard: all goes on as it is");
                self.live.journal.note(Event::Fleet(FleetStage::Lost(problem)));
            }
        }
    }

    /// Serves by what the fleet wants now.
    async fn take_shared(&mut self) {
        if self.fleet.overlay().is_none() {
            return;
        }
        let layers = self.relayered(self.layers.clone());
        let before = Arc::clone(&self.layers.overlay);
        if layers.overlay != before {
            let changed = changed(&before, &layers.overlay);
            self.tell_shared(&before, &layers.overlay, &changed);
            self.layers = layers;
            self.serve_layers(None);
            for key in &changed {
                self.hasten_known(key);
            }
        }
        if self.fleet.is_to_keep() {
            self.keep().await;
        }
    }

    fn tell_shared(&self, before: &Overlay, after: &Overlay, changed: &[Key]) {
        for key in changed {
            let now = after.of(key).cloned().unwrap_or_default();
            let (state, weight) = (now.state.map(|it| it.word()), now.weight);
            tracing::info!(instance = %key, state, weight, by = "fleet", "steered");
            if before.of(key).and_then(|it| it.state) != now.state {
                guard::yield_to(&self.live, key);
            }
        }
        let services: BTreeSet<String> =
            before.shares_rows().chain(after.shares_rows()).map(|it| it.service).collect();
        for service in services {
            let weights = |overlay: &Overlay| {
                let shares = overlay.shares(&service);
                shares.map_or("file".to_owned(), |it| overlay::told(&it.allocations))
            };
            let (from, to) = (weights(before), weights(after));
            if from != to {
                tracing::info!(service, from, to, by = "fleet", "traffic split");
                let why = "asked for in the fleet".to_owned();
                self.live.journal.note(Event::Split { service: service.clone(), from, to, why });
            }
        }
    }
}

/// Instances of which something else is wanted.
fn changed(before: &Overlay, after: &Overlay) -> Vec<Key> {
    let all: BTreeSet<Key> = before.rows().chain(after.rows()).map(|row| row.key).collect();
    let is_other = |key: &Key| {
        let word = |overlay: &Overlay| {
            let wanted = overlay.of(key).cloned().unwrap_or_default();
            Override { since: 0, ..wanted }
        };
        word(before) != word(after)
    };
    all.into_iter().filter(is_other).collect()
}

/// Says how this balancer is whenever it is asked.
fn teller(live: Arc<Live>, admin: Option<SocketAddr>, started: SystemTime) -> Teller {
    let id = format!("{:016x}", fastrand::u64(..));
    let started = humantime::format_rfc3339_millis(started).to_string();
    // Of a large configuration it takes long enough not to be made each time.
    let digest: Mutex<Option<(Arc<Config>, String)>> = Mutex::default();
    Arc::new(move || {
        let snapshot = live.snapshot();
        let mut digest = digest.lock().unwrap_or_else(PoisonError::into_inner);
        let known = digest.take().filter(|(config, _)| Arc::ptr_eq(config, &snapshot.filed));
        let of_filed = || (Arc::clone(&snapshot.filed), digest_of(&snapshot.filed));
        let (_, config) = digest.insert(known.unwrap_or_else(of_filed));
        let totals = live.telemetry.totals();
        Summary {
            id: id.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started: started.clone(),
            phase: match *live.phase().borrow() {
                Phase::Serving => "serving".to_owned(),
                Phase::Draining { .. } => "draining".to_owned(),
            },
            admin: admin.map(|address| address.to_string()),
            listeners: live.bound().iter().map(|it| it.address.to_string()).collect(),
            connections: live.counters.connections(),
            tunnels: totals.tunnels,
            sessions: totals.sessions,
            requests_per_second: totals.rates.requests_per_second,
            errors_per_second: totals.rates.errors_per_second,
            generation: snapshot.generation,
            config: config.clone(),
            keys: snapshot.keyring.ids(),
            services: services(&snapshot),
        }
    })
}

fn services(snapshot: &Snapshot) -> std::collections::BTreeMap<String, Service> {
    let now = Instant::now();
    let mut services = std::collections::BTreeMap::new();
    for version in snapshot.services() {
        let name = version.roster.service();
        if services.len() >= MOST_SERVICES && !services.contains_key(name) {
            continue;
        }
        let service: &mut Service = services.entry(name.to_owned()).or_default();
        for instance in version.roster.members().present() {
            let sum = |of: fn(&Lane) -> u64| instance.lanes().iter().map(of).sum::<u64>();
            service.instances += 1;
            service.ready += u64::from(instance.eligibility().new_sessions);
            service.sessions += instance.session_count(now);
            service.requests += sum(Lane::requests);
            service.tunnels += sum(Lane::tunnels);
        }
    }
    services
}

/// What of a configuration is to be the same in the whole fleet.
fn digest_of(config: &Config) -> String {
    let text = effective(config);
    let services = text.find("\nservices:").map_or("", |at| &text[at..]);
    Sha256::digest(services).iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}
