//! HTTP/1.1 as a client of instances (RFC 9112), on a connection that one request at a time has for
//! itself.
//!
//! hyper's client is made for callers who know nothing of each other: a channel for requests, one for
//! each body, a task for the connection. Here one task does all of it, for each request that there is,
//! and what a small answer cost more than anything else was that side of hyper (`benches/README.md`).
//! The grammar is still httparse's; what is decided here is where a message ends, and each rule of that
//! names its section. Nothing here knows of retries, sessions or clients. Read [`answer`] first.

pub mod answer;
mod chunks;
pub mod dialog;
pub(super) mod input;
pub mod request;
mod sending;
pub mod spare;
#[cfg(test)]
mod tests;

/// What an instance sent makes no sense, or is more than is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;
