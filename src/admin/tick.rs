//! The state of everything in one second, for those who look on: small enough to be sent each second
//! however many instances there are.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use serde_json::{Map, Value, json};

use crate::admin::shapes::{admin, breaker, id};
use crate::health::breaker::Passage;
use crate::health::{Admin, Health};
use crate::instance::{Instance, Lane};
use crate::observe::telemetry::rehomes_json;
use crate::observe::trend::round;
use crate::snapshot::{Live, Snapshot};

/// Instances beyond this many are left out unless they are worth a look.
const BUSIEST: usize = 200;
/// The most of those that are worth a look for their state.
const WORTH_A_LOOK: usize = 1000;

/// The tick of this second.
pub fn of(live: &Live, snapshot: &Snapshot, now: Instant) -> Value {
    let totals = live.telemetry.totals();
    let mut instances = Vec::new();
    for service in snapshot.services() {
        instances.extend(service.roster.members().all().iter().map(Arc::clone));
    }
    let all = instances.len();
    let told = chosen(instances, now);
    let left_out = all - told.len();
    let instances: Map<_, _> =
        told.iter().map(|instance| (id(instance.identity()), tell(instance, now))).collect();
    let mut tick = json!({
        "at": humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
        "totals": totals.rates,
        "connections": live.counters.connections(),
        "tunnels": totals.tunnels,
        "sessions": totals.sessions,
        "rehomes_total": rehomes_json(&totals.rehomes),
        "instances": instances,
        "last_event": live.journal.last(),
    });
    if let Some(name) = live.rehearsals.name() {
        tick["drill"] = json!(name);
    }
    if left_out > 0 {
        tick["instances_left_out"] = json!(left_out);
    }
    tick
}

/// All of them if they are few; else the busiest, and those that are not as they should be.
fn chosen(all: Vec<Arc<Instance>>, now: Instant) -> Vec<Arc<Instance>> {
    if all.len() <= BUSIEST {
        return all;
    }
    let mut ranked: Vec<_> = all.into_iter().map(|it| (load(&it, now), it)).collect();
    ranked.select_nth_unstable_by_key(BUSIEST - 1, |(load, _)| Reverse(*load));
    let rest = ranked.split_off(BUSIEST);
    let busiest = ranked.into_iter().map(|(_, instance)| instance);
    let odd = rest.into_iter().map(|(_, instance)| instance).filter(|it| !is_well(it));
    busiest.chain(odd.take(WORTH_A_LOOK)).collect()
}

/// How busy it is: requests a second, and what it has in flight.
fn load(instance: &Instance, now: Instant) -> u64 {
    instance.pace(now) as u64 + instance.load()
}

fn is_well(instance: &Instance) -> bool {
    instance.admin() == Admin::Active
        && instance.health() == Health::Ready
        && instance.passage() == Passage::Passes
}

fn tell(instance: &Instance, now: Instant) -> Value {
    let rates = instance.rates(now);
    let sum = |of: fn(&Lane) -> u64| instance.lanes().iter().map(of).sum::<u64>();
    json!({
        "rps": rates.requests_per_second,
        "eps": rates.errors_per_second,
        "p99": rates.latency_seconds.map(|latency| latency.p99),
        "requests": sum(Lane::requests),
        "tunnels": sum(Lane::tunnels),
        "sessions": instance.session_count(now),
        "admin": admin(instance.admin()),
        "health": instance.health().label(),
        "breaker": breaker(instance.passage()),
        "weight": round(f64::from(instance.effective_weight()) / 100.0),
    })
}
