//! Feeds `oracle/forwarded.rs`.

#![no_main]

#[path = "../oracle/forwarded.rs"]
mod oracle;

libfuzzer_sys::fuzz_target!(|data: &[u8]| oracle::check(data));
