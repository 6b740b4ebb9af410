//! What is asked of a running server: each order changes the layer over the file, which is then put
//! in place as a reload is, and kept for the next process.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::StatusCode;

use crate::admin::desk::{Asked, Done, Order, Wish};
use crate::admin::problem::Problem;
use crate::config::found::Found;
use crate::config::overlay::{self, Added, Key, MAX_ADDED, Overlay, Override, Shares};
use crate::config::types::{Config, Drain, Service, State};
use crate::discovery::Report;
use crate::fleet::News;
use crate::instance::{Departure, Instance};
use crate::observe::events::Event;
use crate::rehearsal::guard;
use crate::run::server::Server;
use crate::run::{ramps, state_file};
use crate::snapshot::{Layers, drains};
use crate::tunnel::rebalance;

/// What a running server is told.
pub(super) enum Word {
    /// To do something.
    Asked(Asked),
    /// Which instances there are.
    Told(Report),
    /// To look at ramps.
    Ramps,
    /// What the fleet wants, or that it is not heard.
    Shared(News),
}

/// A disk that takes longer to keep an overlay is told of, and waited for no longer.
const DISK: Duration = Duration::from_secs(2);

/// The layers of a process that begins: what the one before it leaves, or what was kept. Told whether to
/// keep less from now on.
pub(super) fn layers(
    filed: Arc<Config>,
    found: Found,
    inherited: Option<Overlay>,
    config_file: Option<&Path>,
) -> (Layers, bool) {
    let is_own = inherited.is_none();
    let kept =
        || state_file::path(filed.admin.as_ref(), config_file).map(|it| state_file::load(&it));
    let overlay = inherited.or_else(kept).unwrap_or_default();
    let layers = over(filed, found, overlay.clone());
    // While another process serves, its file is its own.
    let is_less = is_own && *layers.overlay != overlay;
    (layers, is_less)
}

/// What was found, and what of the overlay has a place over that and this file, over them.
pub(super) fn over(filed: Arc<Config>, mut found: Found, overlay: Overlay) -> Layers {
    found.prune(&filed);
    let layers = Layers { filed, found: Arc::new(found), overlay: Arc::default() };
    with_overlay(layers, overlay)
}

/// The same with another overlay.
pub(super) fn with_overlay(layers: Layers, mut overlay: Overlay) -> Layers {
    for forgotten in overlay.prune(&layers.named()) {
        tracing::warn!("forgotten what was asked for at run time: {forgotten}");
    }
    Layers { overlay: Arc::new(overlay), ..layers }
}

/// The same with what the fleet wants: what has no place here has one elsewhere, and is not forgotten. Ramps
/// are this balancer's own.
pub(super) fn with_shared(layers: Layers, mut overlay: Overlay) -> Layers {
    for (service, ramp) in layers.overlay.ramps() {
        overlay.set_ramp(service.to_owned(), ramp.clone());
    }
    for passed_over in overlay.prune(&layers.named()) {
        tracing::debug!("what the fleet wants has no place here: {passed_over}");
    }
    Layers { overlay: Arc::new(overlay), ..layers }
}

/// A drain that is over at this time from now on.
pub(super) fn within(timeout: Duration, drain: Drain) -> Drain {
    Drain { timeout, spread: drain.spread.min(timeout) }
}

/// The file is not taken.
pub(super) fn rejected(problems: Vec<String>) -> Problem {
    let detail = "the configuration is rejected, and nothing has changed".to_owned();
    Problem { status: StatusCode::UNPROCESSABLE_ENTITY, detail, problems }
}

/// Another process has been told already what it begins with.
pub(super) fn under_way() -> Problem {
    let detail = "another process is taking over; ask again in a moment";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail)
}

impl Server {
    /// The next word of anybody.
    pub(super) async fn word(&mut self) -> Word {
        let ramps = at(self.ramps_due());
        tokio::select! {
            // Closed as the server ends.
            Some(asked) = self.orders.recv() => Word::Asked(asked),
            report = self.sources.next() => Word::Told(report),
            () = ramps => Word::Ramps,
            news = self.fleet.next() => Word::Shared(news),
        }
    }

    /// Whoever asks from now on is told that it is too late.
    pub(super) fn refuse_orders(&mut self) {
        self.orders.close();
        while self.orders.try_recv().is_ok() {}
    }

    /// Obeys while something else goes on, for those who have no file.
    pub async fn obey_until<T>(&mut self, until: impl Future<Output = T>) -> T {
        let mut until = std::pin::pin!(until);
        loop {
            let word = tokio::select! {
                done = until.as_mut() => return done,
                word = self.word() => word,
            };
            match word {
                Word::Asked(Asked { order, answer }) => {
                    let settled = self.obey(order).await;
                    self.answer(answer, settled);
                }
                Word::Told(report) => self.hear(report).await,
                Word::Ramps => self.look_at_ramps().await,
                Word::Shared(news) => self.heed_fleet(news).await,
            }
        }
    }

    /// Counts configurations that were read.
    pub(super) fn generation(&self) -> u64 {
        self.live.snapshot().generation
    }

    /// Does what is asked for.
    pub(super) async fn obey(&mut self, order: Order) -> Result<Done, Problem> {
        let now = SystemTime::now();
        match order {
            Order::Reload => Err(Problem::conflict("there is no file to read again")),
            Order::Steer { key, wish } => self.steer(&key, &wish, now).await,
            Order::Add { key, address, weight } => self.add(key, address, weight, now).await,
            Order::Remove { key, deadline } => self.remove(&key, deadline).await,
            Order::Split { service, allocations } => self.split(service, allocations, now).await,
            Order::Ramp { service, wish } => self.ramp(service, wish).await,
            Order::Rebalance { service, version } => self.rebalance(&service, &version),
        }
    }

    async fn steer(&mut self, key: &Key, wish: &Wish, now: SystemTime) -> Result<Done, Problem> {
        let named = self.named();
        let version = overlay::version(&named, key);
        let version = version.ok_or_else(|| Problem::unknown(format!("no version of {key}")))?;
        let file = overlay::file_instance(version, &key.name);
        let before = self.layers.overlay.of(key).cloned().unwrap_or_default();
        let mut wanted = before.clone();
        let added = wanted.added.as_ref().map(|added| added.weight);
        let Some(by_file) = file.map(|it| (it.state, it.weight)).or(Some(State::Active).zip(added))
        else {
            return Err(Problem::conflict(format!("{key} is removed, and what is left drains")));
        };
        let was = before.state.unwrap_or(by_file.0);
        if let Some(state) = wish.state {
            guard::yield_to(&self.live, key);
            wanted.state = state.filter(|state| *state != by_file.0);
        }
        if let Some(weight) = wish.weight {
            wanted.weight = weight.filter(|weight| *weight != by_file.1);
        }
        let is = wanted.state.unwrap_or(by_file.0);
        // Kept as an instant: a restart must not begin a drain anew.
        let timeout = wish.deadline.or((was != is).then_some(version.drain.timeout));
        wanted.deadline = match (is, timeout) {
            (State::Draining, Some(timeout)) => Some(millis(now + timeout)),
            (State::Draining, None) => before.deadline,
            (State::Active | State::Disabled, _) if wish.deadline.is_some() => {
                return Err(Problem::conflict(format!("{key} does not drain: no deadline")));
            }
            (State::Active | State::Disabled, _) => None,
        };
        if wanted != before {
            wanted.since = millis(now);
            let (state, weight) = (is.word(), wanted.weight.unwrap_or(by_file.1));
            tracing::info!(instance = %key, state, weight, by = "api", "steered");
            let mut overlay = Overlay::clone(&self.layers.overlay);
            let is_hastened = wanted.deadline != before.deadline && was == is;
            self.share_wish(key, (&before, &wanted), now);
            overlay.set(key.clone(), wanted);
            self.put(overlay, None).await;
            if is_hastened {
                self.hasten_known(key);
            }
        }
        Ok(Done::steered())
    }

    async fn add(
        &mut self,
        key: Key,
        address: String,
        weight: u32,
        now: SystemTime,
    ) -> Result<Done, Problem> {
        let version = overlay::version(&self.config, &key);
        let version = version.ok_or_else(|| Problem::unknown(format!("no version of {key}")))?;
        if let Some(known) = overlay::file_instance(version, &key.name) {
            return match known.address == address {
                true => Ok(Done::steered()),
                false => Err(Problem::conflict(format!("{key} is at {}", known.address))),
            };
        }
        if let Some(twin) = version.instances.iter().find(|it| it.address == address) {
            return Err(Problem::conflict(format!("{address} is that of {}", twin.name)));
        }
        if self.layers.overlay.added() >= MAX_ADDED {
            return Err(Problem::conflict(format!("{MAX_ADDED} instances are added already")));
        }
        tracing::info!(instance = %key, address, weight, by = "api", "instance added");
        let added = Some(Added { address, weight });
        let mut overlay = Overlay::clone(&self.layers.overlay);
        let wanted = Override { added, since: millis(now), ..Override::default() };
        self.share_wish(&key, (&Override::default(), &wanted), now);
        overlay.set(key, wanted);
        self.put(overlay, None).await;
        Ok(Done::Steered { is_new: true, untold: None })
    }

    async fn remove(&mut self, key: &Key, deadline: Option<Duration>) -> Result<Done, Problem> {
        let mut overlay = Overlay::clone(&self.layers.overlay);
        let is_added = overlay.of(key).is_some_and(|wanted| wanted.added.is_some());
        let is_named = |config: &Config| {
            overlay::version(config, key)
                .is_some_and(|version| overlay::file_instance(version, &key.name).is_some())
        };
        if is_named(&self.named()) {
            let by = if is_named(&self.layers.filed) { "of the file" } else { "that was found" };
            let detail = format!("{key} is one {by}: remove it there, or disable it");
            return Err(Problem::conflict(detail));
        }
        if is_added {
            tracing::info!(instance = %key, by = "api", "instance removed");
            if let Some(before) = overlay.remove(key) {
                let now = SystemTime::now();
                self.share_wish(key, (&before, &Override::default()), now);
            }
            self.put(overlay, deadline).await;
        }
        Ok(Done::steered())
    }

    async fn split(
        &mut self,
        name: String,
        allocations: Option<BTreeMap<String, u32>>,
        now: SystemTime,
    ) -> Result<Done, Problem> {
        let filed = self.layers.filed.services.iter().find(|service| service.name == name);
        let filed = filed.and_then(|service| Some((service, service.split.as_ref()?)));
        let (service, split) =
            filed.ok_or_else(|| Problem::unknown(format!("{name} has no traffic_split")))?;
        if let Some(wanted) = &allocations {
            check(service, wanted)?;
        }
        if let Some(ramp) = self.layers.overlay.ramp(&name).filter(|it| it.stage.is_active()) {
            return Err(ramps::under_way(&name, ramp));
        }
        let wanted = allocations.filter(|wanted| *wanted != split.allocations);
        let before = self.layers.overlay.shares(&name).map(|shares| &shares.allocations);
        if before != wanted.as_ref() {
            let from = overlay::told(before.unwrap_or(&split.allocations));
            let to = overlay::told(wanted.as_ref().unwrap_or(&split.allocations));
            tracing::info!(service = name, from, to, by = "api", "traffic split");
            let why = "asked for by the API".to_owned();
            self.live.journal.note(Event::Split { service: name.clone(), from, to, why });
            let mut overlay = Overlay::clone(&self.layers.overlay);
            let since = millis(now);
            // It has no say in these any more, nor a way back from them.
            overlay.forget_ramp(&name);
            let wanted = wanted.map(|allocations| Shares { allocations, since });
            self.share_split(&name, (overlay.shares(&name).cloned(), &wanted), now);
            overlay.set_shares(name, wanted);
            self.put(overlay, None).await;
        }
        Ok(Done::Split { untold: None })
    }

    /// Tells of shares that the file leaves no place for any more; gives a sentence on each.
    pub(super) fn reconsider_shares(&self, before: &Overlay) -> Vec<String> {
        let mut told = Vec::new();
        for row in before.shares_rows() {
            let (service, was) = (row.service, row.wanted.allocations);
            let now = self.layers.overlay.shares(&service).map(|shares| &shares.allocations);
            if now == Some(&was) {
                continue;
            }
            let filed = self.layers.filed.services.iter().find(|it| it.name == service);
            let split = filed.and_then(|service| service.split.as_ref());
            let now = now.or_else(|| split.map(|split| &split.allocations));
            let (from, to) = (overlay::told(&was), now.map(overlay::told).unwrap_or_default());
            told.push(format!(
                "{service}: shares asked for at run time are {to} now, no longer {from}"
            ));
            let why = "the file has not all of the versions any more".to_owned();
            self.live.journal.note(Event::Split { service, from, to, why });
        }
        told
    }

    fn rebalance(&self, service: &str, version: &str) -> Result<Done, Problem> {
        let snapshot = self.live.snapshot();
        let mut services = snapshot.services().iter();
        let known =
            services.find(|it| it.roster.service() == service && it.roster.version() == version);
        let unknown = || Problem::unknown(format!("no version {service}/{version}"));
        let known = known.ok_or_else(unknown)?;
        let registries: Vec<_> =
            self.workers.iter().map(|worker| Arc::clone(&worker.registry)).collect();
        let tunnels =
            rebalance::ask(&known.roster, &registries, known.version().rebalance.tolerance);
        tracing::info!(service, version, tunnels, by = "api", "rebalancing");
        Ok(Done::Rebalancing { tunnels })
    }

    /// Serves by the file with this over it. What it removes drains within `limit`.
    pub(super) async fn put(&mut self, overlay: Overlay, limit: Option<Duration>) {
        self.layers.overlay = Arc::new(overlay);
        self.serve_layers(limit);
        self.keep().await;
    }

    /// Serves by the layers as they are now. What is gone from them drains within `limit`.
    pub(super) fn serve_layers(&mut self, limit: Option<Duration>) {
        let keyring = Arc::clone(&self.live.snapshot().keyring);
        let published = self.live.publish(self.layers.clone(), keyring);
        let config = Arc::clone(&published.snapshot.config);
        self.prober.follow(published.snapshot.versions());
        self.retire(&published, &config, limit);
        self.config = config;
    }

    /// What the file says, with what was found.
    fn named(&self) -> Arc<Config> {
        Arc::clone(&self.live.snapshot().named)
    }

    /// Writes the overlay where the next process finds it.
    pub(super) async fn keep(&self) {
        let path = state_file::path(self.config.admin.as_ref(), self.file.as_deref());
        let shared = state_file::path_of_fleet(self.config.admin.as_ref(), self.file.as_deref());
        let mut problem = None;
        if let Some(path) = path {
            let (file, overlay) = (path.clone(), Arc::clone(&self.layers.overlay));
            let shared = shared.zip(self.fleet.to_text());
            let store = move || {
                state_file::store(&file, &overlay)?;
                shared.map_or(Ok(()), |(file, text)| state_file::store_fleet(&file, &text))
            };
            if let Err(error) = on_disk(store).await {
                let told = format!("writing {}: {error}", path.display());
                tracing::warn!("a restart would forget what was changed at run time: {told}");
                problem = Some(told);
            }
        }
        self.desk.kept(problem, SystemTime::now());
    }

    /// Gives a drain the end that was asked for, if one was.
    pub(super) fn hasten(&self, instance: &Instance) -> Option<Departure> {
        let key = Key::from(instance.identity());
        let deadline = self.layers.overlay.of(&key)?.deadline?;
        let left = Duration::from_millis(deadline.saturating_sub(millis(SystemTime::now())));
        let drain = overlay::version(&self.config, &key)?.drain;
        instance.drain_by(within(left, drain))
    }

    pub(super) fn hasten_known(&self, key: &Key) {
        let snapshot = self.live.snapshot();
        let Some(roster) = snapshot.roster(&key.service, &key.version) else { return };
        let members = roster.members();
        let known = members.present().iter().find(|it| it.identity().name == key.name);
        if let Some(instance) = known
            && let Some(drain) = self.hasten(instance)
        {
            drains::finish(&self.live, instance, drain);
            self.live.nudge();
        }
    }
}

/// Resolves then, or never.
async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant.into()).await,
        None => std::future::pending().await,
    }
}

/// Writes something; a slow disk holds nobody else up.
pub(super) async fn on_disk(
    store: impl FnOnce() -> std::io::Result<()> + Send + 'static,
) -> std::io::Result<()> {
    let stored = tokio::time::timeout(DISK, tokio::task::spawn_blocking(store)).await?;
    stored.unwrap_or_else(|error| Err(std::io::Error::other(error)))
}

/// Whether these weights can be those of a service.
fn check(service: &Service, wanted: &BTreeMap<String, u32>) -> Result<(), Problem> {
    wanted.keys().try_for_each(|name| ramps::known(service, name))?;
    match wanted.values().any(|weight| *weight > 0) {
        true => Ok(()),
        false => Err(Problem::wrong("allocations: no version has a weight; needed: one above 0")),
    }
}

/// Since the Unix epoch.
pub(super) fn millis(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::affinity::token::Keyring;
    use crate::config;
    use crate::health::Admin;
    use crate::snapshot::Live;

    #[tokio::test]
    async fn a_deadline_that_is_given_again_and_again_is_waited_for_once() {
        let text = "instances: [{ name: a, address: 127.0.0.1:1, state: draining }]\n";
        let config = config::parse(text, Path::new("c.yaml")).unwrap().config;
        let keyring = Arc::new(Keyring::new(&[[1; 32]]).unwrap());
        let live = Arc::new(Live::new(Arc::new(config), keyring, 1).0);
        let roster = Arc::clone(&live.snapshot().services()[0].roster);
        let instance = Arc::clone(&roster.members().all()[0]);
        let by = |seconds| {
            let timeout = Duration::from_secs(seconds);
            let drain = instance.drain_by(within(timeout, Drain::default())).unwrap();
            drains::finish(&live, &instance, drain);
        };
        (0..100).for_each(|_| by(60));
        // Those that are called off end when they are next looked at.
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
        let waiting = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
        assert_eq!((waiting(), instance.admin()), (1, Admin::Draining));
        by(0);
        while waiting() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(instance.admin(), Admin::Drained);
    }
}
