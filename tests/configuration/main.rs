//! What is told to Burdock beforehand: arguments and files, what is said about them, what a new file changes.

#[path = "../support/mod.rs"]
mod support;

mod cli;
mod doctor;
mod explain;
mod reload;
