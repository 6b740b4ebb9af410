//! WebSockets and event streams: what passes, what ends them, and what both sides are told.

#[path = "../support/mod.rs"]
mod support;
#[path = "../support_clients/mod.rs"]
mod support_clients;

mod conformance;
mod policies;
mod websocket;
