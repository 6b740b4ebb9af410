//! Several balancers and an etcd that they share: orders, keys, configuration.

#[path = "../support/mod.rs"]
mod support;

mod common;
mod config;
mod keys;
mod orders;
