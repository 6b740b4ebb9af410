//! What Burdock says of itself: diagnostics, the access log, counters of the whole process.
//!
//! It knows the labels of pure rooms, and makes no decision.

pub mod access;
pub mod counters;
pub mod log;
pub mod sink;
pub mod tunnels;
