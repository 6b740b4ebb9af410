//! Which instance a session's requests reach, how new sessions are spread, and what moves one.

#[path = "../support/mod.rs"]
mod support;

mod affinity;
mod balance;
mod carriers;
mod failover;
mod keyed;
mod orders;
mod strict;
