//! How instances leave that are no longer named, or drain.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::types::{Config, Drain};
use crate::health::Membership;
use crate::instance::{self, Departure, Instance, Roster};
use crate::observe::events::Event;
use crate::run::server::{START_LOOK, Server};
use crate::run::steering;
use crate::snapshot::{Live, Published, drains};

impl Server {
    /// Removed and draining instances keep their sessions and tunnels until their deadline.
    /// Within `limit`, if there is one, and else as their version says.
    pub(super) fn retire(&self, published: &Published, config: &Config, limit: Option<Duration>) {
        for change in &published.changes {
            let Some(first) = change.removed.first() else { continue };
            let identity = first.identity();
            // A service that is gone with its instances drains as it was told to before.
            let services = config.services.iter().chain(&self.config.services);
            let version = services
                .filter(|service| service.name == identity.service)
                .find_map(|service| service.version(&identity.version));
            let drain = version.map(|version| version.drain).unwrap_or_default();
            let drain = limit.map_or(drain, |limit| steering::within(limit, drain));
            let check = version.and_then(|version| version.readiness_check.as_ref());
            let patience = check.map(|check| check.app_start_timeout);
            let (live, removed) = (Arc::clone(&self.live), change.removed.clone());
            match first.roster().zip(patience).filter(|(roster, _)| !is_succeeded(roster)) {
                Some((roster, patience)) => {
                    tokio::spawn(async move {
                        wait_for_successor(&roster, patience).await;
                        retire_all(&live, removed, drain);
                    });
                }
                None => retire_all(&live, removed, drain),
            }
        }
        for (instance, drain) in published.changes.iter().flat_map(|change| &change.draining) {
            // Whoever asked for it may have said until when.
            let drain = self.hasten(instance).unwrap_or(*drain);
            drains::finish(&self.live, instance, drain);
        }
        self.live.nudge();
    }
}

/// Whether somebody serves instead of instances that were removed, or nobody is meant to.
fn is_succeeded(roster: &Roster) -> bool {
    roster.is_served() || roster.members().present().is_empty()
}

/// As long as no instance that is named is ready, those that were removed are all there is: their
/// drain begins when one is, or when the new ones have had their time.
async fn wait_for_successor(roster: &Roster, patience: Duration) {
    let succeeded = async {
        while !is_succeeded(roster) {
            tokio::time::sleep(START_LOOK).await;
        }
    };
    if tokio::time::timeout(patience, succeeded).await.is_err() {
        let (service, version) = (roster.service(), roster.version());
        let timeout_s = patience.as_secs_f64();
        tracing::error!(
            service,
            version,
            timeout_s,
            "no instance became ready within app_start_timeout; the removed ones drain now"
        );
        let message = "no instance became ready within app_start_timeout: the removed ones drain";
        roster.journal.note(Event::Warning {
            code: "no_successor",
            whose: Some(roster.whose()),
            message: message.to_owned(),
            cure: None,
        });
    }
}

fn retire_all(live: &Arc<Live>, removed: Vec<Arc<Instance>>, drain: Drain) {
    // Some may have been named again while they were waited for.
    let is_removed = |instance: &Arc<Instance>| instance.membership() == Membership::Removed;
    for instance in removed.into_iter().filter(is_removed) {
        retire(live, &instance, drain);
    }
    live.nudge();
}

fn retire(live: &Arc<Live>, instance: &Arc<Instance>, drain: Drain) {
    let departure = Departure::begin(instance::Cause::Removed, drain, Instant::now());
    instance.depart(departure);
    drains::at_its_end(live, instance, departure, move |instance| {
        // Named again meanwhile, or even removed a second time.
        let is_it = instance.removal() == Some(departure);
        if let Some(roster) = instance.roster().filter(|_| is_it) {
            roster.forget(instance);
        }
        is_it
    });
}
