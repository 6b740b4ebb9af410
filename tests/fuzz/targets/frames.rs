//! Feeds `oracle/frames.rs`.

#![no_main]

#[path = "../oracle/frames.rs"]
mod oracle;

libfuzzer_sys::fuzz_target!(|data: &[u8]| oracle::check(data));
