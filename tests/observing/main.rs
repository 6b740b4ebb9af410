//! What a running Burdock tells: metrics, logs, traces, events.

#[path = "../support/mod.rs"]
mod support;

mod access_log;
mod admin;
mod metrics;
mod telemetry;
mod tracing;
