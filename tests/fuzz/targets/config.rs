//! Feeds `oracle/config.rs`.

#![no_main]

#[path = "../oracle/config.rs"]
mod oracle;

libfuzzer_sys::fuzz_target!(|data: &[u8]| oracle::check(data));
