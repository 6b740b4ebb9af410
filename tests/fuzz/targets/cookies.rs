//! Feeds `oracle/cookies.rs`.

#![no_main]

#[path = "../oracle/cookies.rs"]
mod oracle;

libfuzzer_sys::fuzz_target!(|data: &[u8]| oracle::check(data));
