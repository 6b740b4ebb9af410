//! Traces: a request's place in a distributed trace (W3C Trace Context), and spans on their way to a
//! collector (OTLP).
//!
//! [`context`] reads and writes the fields, [`span`] is what is told of one request and of each
//! attempt, [`queue`] holds what is finished, [`export`] sends it by `post` in the form of `otlp`.
//! Without `tracing` in the configuration nothing of this is looked at.

pub mod context;
pub mod export;
mod otlp;
mod post;
pub mod queue;
pub mod span;
