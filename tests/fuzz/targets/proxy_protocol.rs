//! Feeds `oracle/proxy_protocol.rs`.

#![no_main]

#[path = "../oracle/proxy_protocol.rs"]
mod oracle;

libfuzzer_sys::fuzz_target!(|data: &[u8]| oracle::check(data));
