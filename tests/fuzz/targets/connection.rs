//! Feeds `oracle/connection.rs`.

#![no_main]

#[path = "../oracle/connection.rs"]
mod oracle;

libfuzzer_sys::fuzz_target!(|data: &[u8]| oracle::check(data));
