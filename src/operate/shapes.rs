//! The JSON of the admin API, as far as it is shown.
//!
//! What is missing has a default and what is unknown is ignored, so that another version's balancer can be
//! asked too.

use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// `GET /api/v1/status`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Status {
    /// The process.
    pub burdock: Process,
    /// What it runs with.
    pub config: ConfigState,
    /// Of clients.
    pub connections: Connections,
    /// Of all services.
    pub totals: Rates,
    /// Where clients are accepted.
    pub listeners: Vec<Listener>,
    /// Who takes their requests.
    pub services: Vec<Service>,
    /// The drill that runs.
    pub drill: Option<Drill>,
    /// What is not as the file says.
    pub differences: Vec<Difference>,
    /// What an operator should know.
    pub warnings: Vec<Warning>,
}

/// A drill on the balancer.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Drill {
    /// What it is called.
    pub name: String,
    /// Who holds it.
    pub holder: String,
    /// Since its beginning.
    pub elapsed_seconds: f64,
    /// What is wrong on purpose.
    pub faults: Vec<Fault>,
}

/// A fault of a drill.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Fault {
    /// `eject`, `drain`, `disable`, `delay` or `abort`.
    pub kind: String,
    /// The rest of what is said of it.
    pub detail: String,
    /// Whom it hits.
    pub instances: Vec<String>,
}

/// The process.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Process {
    /// Of the program.
    pub version: String,
    /// Its id.
    pub pid: u32,
    /// Since its start.
    pub uptime_seconds: f64,
    /// Threads.
    pub workers: u32,
    /// `serving` or `draining`.
    pub phase: String,
}

/// What the process runs with.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ConfigState {
    /// Counts configurations.
    pub generation: u64,
    /// Where it was read.
    pub file: Option<String>,
    /// How the last reload went.
    pub last_reload: Option<Reload>,
}

/// How a reload went.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Reload {
    /// Whether it was taken.
    pub ok: bool,
    /// When.
    pub at: Option<String>,
    /// Why not.
    pub problems: Vec<String>,
}

/// Connections of clients.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Connections {
    /// Now.
    pub open: u64,
}

/// Where clients are accepted.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Listener {
    /// At this address.
    pub address: String,
    /// By TLS.
    pub tls: bool,
    /// Whether they may speak HTTP/2.
    pub http2: bool,
    /// Whether they come behind a PROXY header.
    pub proxy_protocol: String,
}

/// A service.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Of which one ramps up, or did.
    pub ramp: Option<Ramp>,
    /// Its versions.
    pub versions: Vec<Version>,
}

/// `/api/v1/services/SERVICE/split`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Split {
    /// The service.
    pub service: String,
    /// What decides.
    pub shard_by: String,
    /// `file` or `api`.
    pub source: String,
    /// Of the requests that are bound to none, by version, from 0 to 1.
    pub shares: BTreeMap<String, f64>,
}

/// `/api/v1/services/SERVICE/ramp`; shares are from 0 to 1.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Ramp {
    /// The service.
    pub service: String,
    /// The version that grows.
    pub version: String,
    /// `running`, `held`, `paused`, `done`, `cancelled` or `rolled_back`.
    pub stage: String,
    /// Why.
    pub reason: Option<String>,
    /// Now.
    pub share: f64,
    /// At its beginning.
    pub from: f64,
    /// At its end.
    pub to: f64,
    /// In this time at the least.
    pub over: String,
    /// Steps made.
    pub step: u32,
    /// Of so many.
    pub steps: u32,
    /// Until it is done, if nothing holds it.
    pub left_seconds: Option<f64>,
    /// So many more errors than others hold it.
    pub hold_on_errors: Option<f64>,
    /// Or roll it back.
    pub roll_back_on_errors: Option<f64>,
    /// As does this latency.
    pub hold_on_latency: Option<String>,
    /// And this one.
    pub roll_back_on_latency: Option<String>,
    /// Which latency.
    pub latency_quantile: f64,
    /// Requests that are needed to judge.
    pub min_requests: u64,
    /// Since the last step, while it is under way.
    pub seen: Option<RampSides>,
}

/// What was seen of the versions that are compared.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct RampSides {
    /// Of the one that grows.
    pub version: RampSide,
    /// Of all others.
    pub others: RampSide,
}

/// What was seen of one side.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct RampSide {
    /// Requests that say something of it.
    pub requests: u64,
    /// Of these, those that it has failed.
    pub errors: u64,
    /// How long its good answers took.
    pub latency_seconds: Option<f64>,
}

/// A version.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Version {
    /// Its name.
    pub name: String,
    /// Of the requests that are bound to no version, from 0 to 1.
    pub share: Option<f64>,
    /// Whether sessions stay at their instance.
    pub session_affinity: bool,
    /// How new ones are spread.
    pub balance: String,
    /// Whether unready instances serve.
    pub panic: bool,
    /// Requests that wait.
    pub queue: u64,
    /// Of all its instances.
    pub rates: Rates,
    /// Why sessions moved.
    pub rehomes: BTreeMap<String, u64>,
    /// Its instances.
    pub instances: Vec<Instance>,
}

/// An instance.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Instance {
    /// `service/version/name`.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Where it listens.
    pub address: String,
    /// `file` or `api`.
    pub source: String,
    /// Its share.
    pub weight: f64,
    /// Its share now.
    pub effective_weight: f64,
    /// `present` or `removed`.
    pub membership: String,
    /// `active`, `draining`, `drained` or `disabled`.
    pub admin: String,
    /// `unknown`, `ready`, `unready` or `dead`.
    pub health: String,
    /// `closed`, `half-open` or `open`.
    pub breaker: String,
    /// Its drain, if it is in one.
    pub drain: Option<Drain>,
    /// Bound to it.
    pub sessions: u64,
    /// In flight.
    pub requests: u64,
    /// Open.
    pub tunnels: u64,
    /// Of its answers.
    pub rates: Rates,
    /// The last probes.
    pub probes: Probes,
}

/// A drain.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Drain {
    /// Why.
    pub cause: String,
    /// Until its end.
    pub deadline_seconds: Option<f64>,
    /// Until tunnels begin to be closed.
    pub closing_seconds: Option<f64>,
    /// Still bound.
    pub sessions: u64,
    /// Still open.
    pub tunnels: u64,
    /// Still in flight.
    pub requests: u64,
    /// Whether it is over.
    pub done: bool,
}

/// The last probes of each kind.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Probes {
    /// Whether it may get traffic.
    pub readiness: Option<Probe>,
    /// Whether it is alive.
    pub liveness: Option<Probe>,
}

/// What a probe found.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Probe {
    /// Whether it passed.
    pub ok: bool,
    /// In words.
    pub detail: String,
}

/// Rates of the last seconds.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Rates {
    /// Answers in a second.
    pub requests_per_second: f64,
    /// Errors among them.
    pub errors_per_second: f64,
    /// How long they took, if there were any.
    pub latency_seconds: Option<Latency>,
}

/// How long answers took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Latency {
    /// Half of them.
    pub p50: f64,
    /// Nine of ten.
    pub p90: f64,
    /// All but one of a hundred.
    pub p99: f64,
}

/// What is not as the file says.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Difference {
    /// Of which instance.
    pub id: String,
    /// What.
    pub what: String,
    /// In the file.
    pub file: Value,
    /// In force.
    pub now: Value,
    /// Since when.
    pub since: Option<String>,
    /// By whom.
    pub by: Option<String>,
}

/// What an operator should know.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Warning {
    /// Names it.
    pub code: String,
    /// Tells it.
    pub message: String,
    /// What to write into the file.
    pub cure: Option<String>,
    /// How often it was seen.
    pub count: u64,
}

/// Something that happened.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Event {
    /// Counts events.
    pub id: u64,
    /// When.
    pub at: String,
    /// What kind.
    pub kind: String,
    /// `info`, `warning` or `error`.
    pub severity: String,
    /// To which instance.
    pub instance: Option<String>,
    /// In words.
    pub text: String,
}

/// `GET /api/v1/events?format=json`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Events {
    /// Oldest first.
    pub events: Vec<Event>,
}

/// A second of `GET /api/v1/live`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Tick {
    /// When.
    pub at: String,
    /// Of all services.
    pub totals: Rates,
    /// Of clients.
    pub connections: u64,
    /// Of all instances.
    pub tunnels: u64,
    /// Of all instances.
    pub sessions: u64,
    /// Why sessions moved, since the start.
    pub rehomes_total: BTreeMap<String, u64>,
    /// By id.
    pub instances: BTreeMap<String, Load>,
    /// More than there are in `instances`.
    pub instances_left_out: u64,
    /// The name of the drill that runs.
    pub drill: Option<String>,
}

/// An instance in a second.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Load {
    /// Answers in a second.
    pub rps: f64,
    /// Errors among them.
    pub eps: f64,
    /// How long they took.
    pub p99: Option<f64>,
    /// In flight.
    pub requests: u64,
    /// Open.
    pub tunnels: u64,
    /// Bound to it.
    pub sessions: u64,
    /// As in [`Instance`].
    pub admin: String,
    /// As in [`Instance`].
    pub health: String,
    /// As in [`Instance`].
    pub breaker: String,
    /// Its share.
    pub weight: f64,
}

/// `GET /api/v1/explain`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Explanation {
    /// Where it would come in.
    pub listener: Option<String>,
    /// Who would take it.
    pub service: Option<String>,
    /// By which host and path.
    pub why_service: String,
    /// The version.
    pub version: Option<String>,
    /// Why that one of several.
    pub why_version: Option<String>,
    /// What its token comes to.
    pub token: Option<Token>,
    /// Every instance.
    pub candidates: Vec<Candidate>,
    /// Where it would go.
    pub choice: Option<String>,
    /// Why there.
    pub why: String,
    /// What would become of its session.
    pub outcome: String,
}

/// What a token comes to.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Token {
    /// `absent`, `bound` or `rejected`.
    pub verdict: String,
    /// Why it was rejected.
    pub reason: Option<String>,
    /// Where it was.
    pub carrier: Option<String>,
    /// When its session began.
    pub issued: Option<String>,
    /// When it was last renewed.
    pub renewed: Option<String>,
    /// Which key sealed it.
    pub key: Option<String>,
    /// The instance it names.
    pub instance: Option<String>,
    /// How long ago its session began.
    pub age_seconds: Option<f64>,
}

/// An instance that could be chosen.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Candidate {
    /// Its name.
    pub instance: String,
    /// Whether it may be.
    pub r#in: bool,
    /// Why, or why not.
    pub reason: String,
}

/// `POST /api/v1/check`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Plan {
    /// In the operator's words.
    pub changes: Vec<String>,
    /// Whose.
    pub instances: BTreeMap<String, Vec<String>>,
    /// Whom it touches.
    pub touches: Touched,
    /// What would trouble clients.
    pub warnings: Vec<String>,
    /// What would not change before a restart.
    pub restart_needed: Vec<String>,
}

/// Live sessions and tunnels.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Touched {
    /// Sessions.
    pub sessions: u64,
    /// Tunnels.
    pub tunnels: u64,
}

/// `POST /api/v1/reload`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Reloaded {
    /// Counts configurations.
    pub generation: u64,
    /// In the operator's words.
    pub changes: Vec<String>,
    /// What will trouble clients.
    pub warnings: Vec<String>,
}

/// `GET /api/v1/config`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Effective {
    /// The whole configuration.
    pub effective: String,
    /// What is not as the file says.
    pub differences: Vec<Difference>,
}

/// An error (RFC 9457).
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Problem {
    /// Of the status.
    pub title: String,
    /// Of this case.
    pub detail: Option<String>,
    /// Of a configuration.
    pub problems: Vec<String>,
}
