//! What Burdock says of itself: diagnostics, the access log, counters of the whole process.
//!
//! It knows the labels of pure rooms, and makes no decision.

pub mod access;
pub mod counters;
mod drill_stage;
pub mod events;
pub mod journal;
pub mod judged;
pub mod latency;
pub mod log;
pub mod output;
mod ramp_stage;
pub mod red;
pub mod sink;
pub mod telemetry;
pub mod trend;
pub mod tunnels;
