//! Feeds `oracle/agent.rs`.

#![no_main]

#[path = "../oracle/agent.rs"]
mod oracle;

libfuzzer_sys::fuzz_target!(|data: &[u8]| oracle::check(data));
