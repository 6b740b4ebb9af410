//! What a drill found, as data that outlives it: written as JSON, read again to be compared, shown
//! on a terminal and as a page.

mod build;
mod chart;
mod compare;
mod html;
mod real;
mod text;

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

pub(super) use build::{Rehearsed, build};
pub(super) use compare::compare;
pub(super) use html::page;
pub(super) use text::summary;

/// A whole report. Times are seconds since the beginning unless they say otherwise.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Report {
    /// Of this format.
    pub(super) format: u32,
    pub(super) name: String,
    pub(super) about: String,
    pub(super) burdock: String,
    /// When it began, RFC 3339.
    pub(super) began: String,
    /// What it ran on.
    pub(super) target: String,
    pub(super) seed: u64,
    pub(super) duration_seconds: f64,
    pub(super) passed: bool,
    /// Whether somebody ended it before its time.
    pub(super) interrupted: bool,
    /// Why the balancer ended it before its time.
    #[serde(default)]
    pub(super) aborted: Option<String>,
    pub(super) limits: Vec<Judged>,
    pub(super) requests: u64,
    pub(super) errors: Vec<Error>,
    pub(super) error_count: u64,
    pub(super) moves: Moves,
    /// Milliseconds.
    pub(super) latency: BTreeMap<String, Latency>,
    pub(super) faults: Vec<Fault>,
    pub(super) events: Vec<Event>,
    /// One for each second.
    pub(super) seconds: Vec<Second>,
    /// Sessions bound to each instance, one row for each second.
    pub(super) instances: Vec<Instance>,
    pub(super) tunnels: Tunnels,
    /// Re-homed sessions by reason, as a running balancer counted them.
    #[serde(default)]
    pub(super) rehomes: BTreeMap<String, u64>,
}

impl Report {
    /// In a word.
    pub(super) fn verdict(&self) -> &'static str {
        match (self.passed, self.interrupted) {
            (true, _) => "passed",
            (false, true) => "interrupted",
            (false, false) => "missed",
        }
    }
}

/// A limit, and what was measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Judged {
    /// `whole drill`, or what the step does.
    pub(super) of: String,
    pub(super) measure: String,
    pub(super) allowed: String,
    pub(super) measured: String,
    pub(super) met: bool,
}

/// Errors of one kind.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Error {
    pub(super) clients: String,
    pub(super) what: String,
    pub(super) count: u64,
}

/// Sessions that changed their instance.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Moves {
    pub(super) total: u64,
    pub(super) needless: u64,
    /// Clients that have a session.
    pub(super) sessions: u64,
}

/// Milliseconds, from when a request was to begin.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Latency {
    pub(super) count: u64,
    pub(super) p50: f64,
    pub(super) p90: f64,
    pub(super) p99: f64,
    pub(super) max: f64,
}

/// A time in which something was wrong on purpose.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Fault {
    /// `balancer` for the balancer itself.
    pub(super) instance: String,
    pub(super) what: String,
    pub(super) from: f64,
    /// Absent where it lasted to the end.
    pub(super) until: Option<f64>,
}

/// Something that happened.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Event {
    pub(super) at: f64,
    /// When the plan has it; only for what the drill did.
    pub(super) planned: Option<f64>,
    /// `drill` or `balancer`.
    pub(super) by: String,
    pub(super) what: String,
}

/// One second of the drill.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Second {
    pub(super) answers: u64,
    pub(super) errors: u64,
    pub(super) moves: u64,
    /// Milliseconds; absent where nothing was answered.
    pub(super) p50: Option<f64>,
    pub(super) p99: Option<f64>,
}

/// One instance, second by second.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Instance {
    pub(super) name: String,
    pub(super) sessions: Vec<u64>,
}

/// Ends of tunnels.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Tunnels {
    pub(super) opened: u64,
    /// By Close code; `none` where there was none.
    pub(super) ended: BTreeMap<String, u64>,
    /// By cause, as a running balancer counted them.
    #[serde(default)]
    pub(super) causes: BTreeMap<String, u64>,
}

/// What this program writes and reads.
const FORMAT: u32 = 1;

/// Reads a report that was written before.
pub(super) fn read(path: &Path) -> Result<Report, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("cannot read it: {error}"))?;
    let report: Report = serde_json::from_str(&text)
        .map_err(|error| format!("no report of `burdock drill --json`: {error}"))?;
    match report.format {
        FORMAT => Ok(report),
        other => Err(format!("format {other}; this program reads format {FORMAT}")),
    }
}
