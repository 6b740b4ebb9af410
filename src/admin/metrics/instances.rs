//! Metrics of instances. There may be many thousands, whose memory is cold: each is read once, and
//! the rows of every metric are written from what was read.

use std::time::Instant;

use crate::admin::metrics::rows::{Labels, Rows, latency_bounds};
use crate::health::breaker::Passage;
use crate::health::check::{Kind as Check, Outcome};
use crate::health::{Admin, Health};
use crate::instance::lane::CLASSES;
use crate::instance::{Instance, Kind, Lane};
use crate::observe::counters::TunnelEnd;
use crate::observe::latency::{BUCKETS, Spread};
use crate::observe::tunnels::Closer;
use crate::snapshot::Snapshot;

const ENDS: usize = TunnelEnd::ALL.len();
/// Buckets are told of up to so many instances, for nobody keeps hundreds of thousands of series to
/// look at one of them: of more there are sums and counts, and buckets by version.
const MOST_WITH_BUCKETS: usize = 1000;
const SENDERS: [Closer; 2] = [Closer::Client, Closer::Instance];

/// What was read of an instance.
pub(super) struct Figures {
    labels: Labels,
    admin: Admin,
    health: Health,
    passage: Passage,
    weight: u32,
    effective_weight: u32,
    sessions: u64,
    restarts: u64,
    limit: u32,
    probes: [[u64; Outcome::ALL.len()]; 2],
    lanes: Sums,
}

/// What all workers have counted of it.
#[derive(Default)]
struct Sums {
    answers: [u64; CLASSES],
    failures: u64,
    first_byte: Spread,
    requests: u64,
    tunnels: u64,
    opened: u64,
    ended: [u64; ENDS],
    bytes: [u64; 2],
    messages: [u64; 2],
}

/// Reads the instance of each name.
pub(super) fn read(snapshot: &Snapshot) -> Vec<Figures> {
    let now = Instant::now();
    let members = snapshot.services().iter().map(|service| service.roster.members());
    let mut figures = Vec::new();
    for members in members {
        figures.extend(members.all().iter().map(|instance| Figures::of(instance, now)));
    }
    figures
}

impl Figures {
    fn of(instance: &Instance, now: Instant) -> Self {
        let identity = instance.identity();
        Self {
            labels: Labels::of(&[
                ("service", &identity.service),
                ("version", &identity.version),
                ("instance", &identity.name),
            ]),
            admin: instance.admin(),
            health: instance.health(),
            passage: instance.passage(),
            weight: instance.weight(),
            effective_weight: instance.effective_weight(),
            sessions: instance.session_count(now),
            restarts: instance.restarts(),
            limit: instance.limit(Kind::Request),
            probes: Check::ALL.map(|kind| instance.probes.outcomes(kind)),
            lanes: Sums::of(instance.lanes()),
        }
    }
}

impl Sums {
    fn of(lanes: &[Lane]) -> Self {
        let mut sums = Self::default();
        for lane in lanes {
            for (class, sum) in sums.answers.iter_mut().enumerate() {
                *sum += lane.answers(class);
            }
            sums.failures += lane.failures();
            sums.first_byte.add(lane.first_byte());
            sums.requests += lane.requests();
            sums.tunnels += lane.tunnels();
            let opened = lane.opened();
            if opened == 0 {
                continue;
            }
            sums.opened += opened;
            for (end, sum) in TunnelEnd::ALL.into_iter().zip(&mut sums.ended) {
                *sum += lane.ended(end);
            }
            for sender in 0..SENDERS.len() {
                sums.bytes[sender] += lane.bytes(sender);
                sums.messages[sender] += lane.messages(sender);
            }
        }
        sums
    }
}

/// Writes the rows of a metric of instances; whether it is one.
pub(super) fn write(rows: &mut Rows<'_>, all: &[Figures]) -> bool {
    let none = Labels::default();
    let one = |rows: &mut Rows<'_>, value: &dyn Fn(&Figures) -> u64| {
        all.iter().for_each(|it| rows.count(&it.labels, &none, value(it)));
    };
    match rows.name {
        "burdock_failures_total" => one(rows, &|it| it.lanes.failures),
        "burdock_instance_breaker" => one(rows, &|it| match it.passage {
            Passage::Passes => 0,
            Passage::Trial => 1,
            Passage::Refuses => 2,
        }),
        "burdock_instance_weight" => one(rows, &|it| it.weight.into()),
        "burdock_instance_effective_weight" => {
            for it in all {
                rows.number(&it.labels, f64::from(it.effective_weight) / 100.0);
            }
        }
        "burdock_instance_sessions" => one(rows, &|it| it.sessions),
        "burdock_instance_restarts_total" => one(rows, &|it| it.restarts),
        "burdock_instance_requests_in_flight" => one(rows, &|it| it.lanes.requests),
        "burdock_instance_concurrency_limit" => one(rows, &|it| it.limit.into()),
        "burdock_instance_tunnels" => one(rows, &|it| it.lanes.tunnels),
        "burdock_instance_tunnels_opened_total" => one(rows, &|it| it.lanes.opened),
        _ => return write_several(rows, all),
    }
    true
}

/// Those that have several rows for an instance. Where there was no tunnel yet, or no answer, there
/// is nothing to tell of them.
fn write_several(rows: &mut Rows<'_>, all: &[Figures]) -> bool {
    let senders = || Labels::each("from", SENDERS.map(Closer::label));
    let had_tunnels = all.iter().filter(|it| it.lanes.opened > 0);
    match rows.name {
        "burdock_requests_total" => {
            let classes: [_; CLASSES] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
            let classes = Labels::each("class", classes);
            all.iter().for_each(|it| rows.counts(&it.labels, &classes, it.lanes.answers));
        }
        "burdock_instance_admin" => {
            let states = Labels::each("state", Admin::ALL.map(Admin::label));
            for it in all {
                let values = Admin::ALL.map(|admin| u64::from(it.admin == admin));
                rows.counts(&it.labels, &states, values);
            }
        }
        "burdock_instance_health" => {
            let mut states = Health::ALL.map(Health::label).to_vec();
            states.dedup();
            let labels = Labels::each("state", states.iter().copied());
            for it in all {
                let values = states.iter().map(|state| u64::from(it.health.label() == *state));
                rows.counts(&it.labels, &labels, values);
            }
        }
        "burdock_instance_first_byte_seconds" => {
            let bounds = latency_bounds();
            let first = if all.len() <= MOST_WITH_BUCKETS { 0 } else { BUCKETS - 1 };
            for it in all.iter().filter(|it| it.lanes.first_byte.count() > 0) {
                rows.spread(&it.labels, &bounds[first..], &it.lanes.first_byte);
            }
        }
        "burdock_instance_probes_total" => write_probes(rows, all),
        "burdock_instance_tunnels_ended_total" => {
            let causes = Labels::each("cause", TunnelEnd::ALL.map(TunnelEnd::label));
            had_tunnels.for_each(|it| rows.counts(&it.labels, &causes, it.lanes.ended));
        }
        "burdock_instance_tunnel_bytes_total" => {
            let senders = senders();
            had_tunnels.for_each(|it| rows.counts(&it.labels, &senders, it.lanes.bytes));
        }
        "burdock_instance_tunnel_messages_total" => {
            let senders = senders();
            had_tunnels.for_each(|it| rows.counts(&it.labels, &senders, it.lanes.messages));
        }
        _ => return false,
    }
    true
}

fn write_probes(rows: &mut Rows<'_>, all: &[Figures]) {
    for check in Check::ALL {
        let outcomes = Outcome::ALL
            .map(|outcome| Labels::of(&[("check", check.label()), ("outcome", outcome.label())]));
        // Of a check that nobody asks for there is nothing to tell.
        let probed = all.iter().filter(|it| it.probes[check as usize].iter().any(|n| *n > 0));
        probed.for_each(|it| rows.counts(&it.labels, &outcomes, it.probes[check as usize]));
    }
}
