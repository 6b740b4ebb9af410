//! What operators do with a running Burdock: the API and its commands, drains, upgrades, drills, systemd.

#[path = "../support/mod.rs"]
mod support;
#[path = "../support_clients/mod.rs"]
mod support_clients;

mod api;
mod commands;
mod drain;
mod drill;
mod live_drill;
mod openapi;
mod operate;
mod steering;
mod systemd;
mod upgrade;
