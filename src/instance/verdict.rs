//! What an instance counts as: what its checks say, unless its source says that it can't serve, or a drill
//! has it count as less. The worst counts, and each goes on beneath the others.

use std::sync::MutexGuard;
use std::time::Instant;

use crate::config::types::Drain;
use crate::health::Health;
use crate::instance::{Axes, Cause, Departure, Instance, events};

impl Axes {
    /// What it counts as.
    pub(super) fn seen(&self) -> Health {
        match (self.drilled, self.undrilled()) {
            (None, health) => health,
            (Some(Health::Dead), _) | (Some(_), Health::Dead) => Health::Dead,
            (Some(_), Health::Unanswered) => Health::Unanswered,
            (Some(drilled), Health::Unknown | Health::Ready | Health::Unready) => drilled,
        }
    }

    /// The same, whatever a drill says.
    pub(super) fn undrilled(&self) -> Health {
        match self.health {
            Health::Unknown | Health::Ready if self.unready => Health::Unready,
            health => health,
        }
    }
}

impl Instance {
    /// A verdict of health checks.
    pub fn set_health(&self, health: Health, reason: &str) {
        let mut axes = self.axes();
        let before = axes.seen();
        if std::mem::replace(&mut axes.health, health) == health {
            return;
        }
        // What the breaker learnt is older than a check that has just passed.
        let change = if health == Health::Ready { axes.breaker.reset() } else { None };
        self.see(axes, before, reason);
        self.tell(change);
    }

    /// Whether its source says that it can't serve.
    pub fn is_called_unready(&self) -> bool {
        self.axes().unready
    }

    /// Its source says that it can't serve, or that it can. Whoever says so publishes.
    pub(super) fn hear(&self, unready: bool) {
        let mut axes = self.axes();
        let before = axes.seen();
        if std::mem::replace(&mut axes.unready, unready) == unready {
            return;
        }
        let health = axes.seen();
        self.fold(&axes);
        drop(axes);
        let reason = if unready {
            "its source says that it is not ready"
        } else {
            "its source says that it is ready"
        };
        self.tell_health(before, health, reason);
    }

    /// Lets everybody see what it counts as now.
    pub(super) fn see(&self, axes: MutexGuard<'_, Axes>, before: Health, reason: &str) {
        let health = axes.seen();
        self.publish(axes);
        self.tell_health(before, health, reason);
    }

    fn tell_health(&self, before: Health, health: Health, reason: &str) {
        if before != health {
            self.departs(Cause::Dead, before == Health::Dead, health == Health::Dead);
            self.departs(Cause::Unready, is_unready(before), is_unready(health));
            events::health_changed(self, before, health, reason);
        }
    }

    fn departs(&self, cause: Cause, did: bool, does: bool) {
        if did && !does {
            self.departures.call_off(cause);
        } else if does
            && !did
            && let Some(roster) = self.roster.upgrade()
        {
            let window = cause.window(&roster.websocket().closes, Drain::default());
            self.depart(Departure::begin(cause, window, Instant::now()));
        }
    }
}

fn is_unready(health: Health) -> bool {
    matches!(health, Health::Unready | Health::Unanswered)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::types::Version;
    use crate::health::Rehome;
    use crate::instance::Roster;

    fn version(unready: bool) -> Version {
        let text = "instances: [a:1, b:1]\n";
        let loaded = crate::config::parse(text, std::path::Path::new("burdock.yaml"));
        let mut version = loaded.unwrap().config.services.remove(0).versions.remove(0);
        version.instances[0].unready = unready;
        version
    }

    #[test]
    fn one_that_its_source_calls_unready_is_so_whatever_its_checks_say() {
        let roster = Arc::new(Roster::new("default", "default", Instant::now()));
        roster.reconcile(&version(true), 1);
        let a = Arc::clone(&roster.members().all()[0]);
        assert_eq!((a.health(), a.eligibility().new_sessions), (Health::Unready, false));
        assert!(!a.is_sound(), "no drill may count on it");
        a.set_health(Health::Ready, "200 OK");
        assert_eq!(a.health(), Health::Unready);
        assert_eq!(roster.bound("a:1", 0).map(drop), Err(Rehome::Unready));
        a.set_health(Health::Dead, "no answer");
        assert_eq!(a.health(), Health::Dead, "the worst counts");

        roster.reconcile(&version(false), 1);
        assert_eq!(a.health(), Health::Dead, "its checks go on beneath");
        a.set_health(Health::Ready, "200 OK");
        assert!(roster.bound("a:1", 0).is_ok_and(|bound| Arc::ptr_eq(&bound, &a)));
        assert!(a.eligibility().new_sessions && a.is_sound());

        roster.reconcile(&version(true), 1);
        let chosen = roster.choose(
            crate::balance::Draw { key: None, random: 0 },
            crate::instance::Kind::Request,
            &[],
        );
        assert_eq!(chosen.unwrap().identity().name, "b:1", "others take its sessions");
    }
}
