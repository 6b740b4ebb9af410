//! What a browser shows: pages behind Burdock, and its own dashboard.

#[path = "../support/mod.rs"]
mod support;
#[path = "../support_clients/mod.rs"]
mod support_clients;

mod browser;
mod dashboard;
