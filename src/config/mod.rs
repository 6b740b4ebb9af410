//! Configuration
pub mod types;
