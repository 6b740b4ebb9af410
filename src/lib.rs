//! Burdock
pub mod config;
