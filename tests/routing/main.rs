//! Where a request goes before it is known which instance: routes, the shares of versions and how they
//! move, copies for another version.

#[path = "../support/mod.rs"]
mod support;

mod mirror;
mod ramp;
mod routes;
mod versions;
