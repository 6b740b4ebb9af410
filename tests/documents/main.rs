//! What stands beside the code is true: documents, samples, tables, the source's own order, what `deploy/`
//! ships, and the harness of these tests.

#[path = "../support/mod.rs"]
mod support;

mod architecture;
mod commands;
mod deploy;
mod harness;
mod keys;
mod movement;
mod paper;
mod samples;
