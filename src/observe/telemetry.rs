//! What the sampler has found: rates of the whole process now, the last quarter of an hour, and the
//! tick of this second for whoever looks on.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tokio::sync::watch;

use crate::health::Rehome;
use crate::observe::trend::{Counted, Percentiles, Rates};

/// From one step of the history to the next.
pub const STEP: Duration = Duration::from_secs(5);
/// Steps that are kept: 15 minutes.
pub const STEPS: usize = 180;

/// The process in one step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// In this step.
    pub rates: Rates,
    /// At its end, like all that follows but the last.
    pub tunnels: u64,
    /// Client connections.
    pub connections: u64,
    /// Sessions.
    pub sessions: u64,
    /// Sessions that moved in this step, by reason.
    pub rehomes: [u64; Rehome::ALL.len()],
}

/// The whole process, as of the last second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Totals {
    /// Of about the last 10 s.
    pub rates: Rates,
    /// Open tunnels.
    pub tunnels: u64,
    /// Sessions.
    pub sessions: u64,
    /// Sessions that moved, by reason.
    pub rehomes: [u64; Rehome::ALL.len()],
}

#[derive(Debug, Default)]
struct History {
    until: Option<SystemTime>,
    /// The oldest first; `None` for one that was missed.
    steps: VecDeque<Option<Step>>,
}

/// See the module.
#[derive(Debug)]
pub struct Telemetry {
    totals: Mutex<Totals>,
    history: Mutex<History>,
    /// The tick of this second, made only while somebody is there to see it.
    pub ticks: watch::Sender<Arc<str>>,
}

impl Default for Telemetry {
    fn default() -> Self {
        let nothing = Counted::default();
        let rates = nothing.since(&nothing, Duration::ZERO);
        let rehomes = [0; Rehome::ALL.len()];
        let totals = Totals { rates, tunnels: 0, sessions: 0, rehomes };
        let ticks = watch::Sender::new(Arc::from(""));
        Self { totals: Mutex::new(totals), history: Mutex::default(), ticks }
    }
}

impl Telemetry {
    /// The whole process, as of the last second.
    pub fn totals(&self) -> Totals {
        *self.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A second is over.
    pub fn set_totals(&self, totals: Totals) {
        *self.totals.lock().unwrap_or_else(PoisonError::into_inner) = totals;
    }

    /// A step is over, and so many before it were missed.
    pub fn step(&self, step: Step, missed: usize, now: SystemTime) {
        let mut history = self.history();
        let missed = std::iter::repeat_n(None, missed.min(STEPS));
        history.steps.extend(missed.chain([Some(step)]));
        let surplus = history.steps.len().saturating_sub(STEPS);
        history.steps.drain(..surplus);
        history.until = Some(now);
    }

    /// The history as the API tells it: always as many steps, `null` for those that are missing.
    pub fn history_json(&self) -> Value {
        let history = self.history();
        let unknown = STEPS - history.steps.len();
        let series = |value: &dyn Fn(&Step) -> Value| -> Vec<Value> {
            let known = history.steps.iter().map(|step| step.as_ref().map_or(Value::Null, value));
            std::iter::repeat_n(Value::Null, unknown).chain(known).collect()
        };
        let latency = |of: fn(&Percentiles) -> f64| {
            series(&move |step| json!(step.rates.latency_seconds.as_ref().map(of)))
        };
        let rehomes: serde_json::Map<_, _> = Rehome::ALL
            .iter()
            .enumerate()
            .map(|(place, reason)| {
                (reason.label().to_owned(), json!(series(&|step| json!(step.rehomes[place]))))
            })
            .collect();
        let until = history.until.unwrap_or_else(SystemTime::now);
        json!({
            "step_seconds": STEP.as_secs(),
            "until": humantime::format_rfc3339_millis(until).to_string(),
            "series": {
                "requests_per_second": series(&|step| json!(step.rates.requests_per_second)),
                "errors_per_second": series(&|step| json!(step.rates.errors_per_second)),
                "p50": latency(|it| it.p50),
                "p90": latency(|it| it.p90),
                "p99": latency(|it| it.p99),
                "tunnels": series(&|step| json!(step.tunnels)),
                "connections": series(&|step| json!(step.connections)),
                "sessions": series(&|step| json!(step.sessions)),
                "rehomes": rehomes,
            },
        })
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sessions that moved, by the label of the reason.
pub fn rehomes_json(counts: &[u64; Rehome::ALL.len()]) -> Value {
    let pairs = Rehome::ALL.iter().zip(counts);
    Value::Object(pairs.map(|(reason, count)| (reason.label().to_owned(), json!(count))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(tunnels: u64) -> Step {
        let telemetry = Telemetry::default().totals();
        Step {
            rates: telemetry.rates,
            tunnels,
            connections: 0,
            sessions: 0,
            rehomes: telemetry.rehomes,
        }
    }

    #[test]
    fn history_is_of_a_quarter_of_an_hour_with_gaps_where_they_were() {
        let telemetry = Telemetry::default();
        let tunnels = || telemetry.history_json()["series"]["tunnels"].as_array().unwrap().clone();
        assert_eq!(tunnels(), vec![Value::Null; STEPS]);
        telemetry.step(step(1), 0, SystemTime::UNIX_EPOCH);
        telemetry.step(step(2), 1, SystemTime::UNIX_EPOCH);
        assert_eq!(tunnels()[STEPS - 4..], [Value::Null, json!(1), Value::Null, json!(2)]);
        telemetry.step(step(3), 10_000, SystemTime::UNIX_EPOCH);
        assert_eq!((tunnels().len(), &tunnels()[STEPS - 1]), (STEPS, &json!(3)));
        assert_eq!(tunnels()[STEPS - 2], Value::Null);
        let told = telemetry.history_json();
        assert_eq!(
            (&told["step_seconds"], &told["until"]),
            (&json!(5), &json!("1970-01-01T00:00:00.000Z"))
        );
        assert_eq!(told["series"]["p50"][STEPS - 1], Value::Null, "there was no answer");
        assert_eq!(told["series"]["rehomes"]["unready"][STEPS - 1], json!(0));
    }
}
