//! Feeds `oracle/token.rs`.

#![no_main]

#[path = "../oracle/token.rs"]
mod oracle;

libfuzzer_sys::fuzz_target!(|data: &[u8]| oracle::check(data));
