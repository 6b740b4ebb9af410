//! What Burdock says of itself: diagnostics, the access log, reason labels, counters of the whole
//! process. It knows the words of the other rooms' types, and makes no decision.

pub mod access;
pub mod counters;
pub mod events;
pub mod log;
pub mod sink;
