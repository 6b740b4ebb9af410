//! The harness of the tests in this folder: the real binary, backends with one knob per way to
//! misbehave, a client with a cookie jar, and raw sockets. It knows Burdock only by its command
//! line, its log, its metrics and the wire, never by its Rust types. Everything that waits has a
//! deadline. Read [`Burdock`], [`Backend`] and [`Client`] first.

#![allow(
    dead_code,
    unreachable_pub,
    unsafe_code,
    unused_imports,
    missing_docs,
    missing_debug_implementations,
    clippy::unwrap_used,
    clippy::needless_pass_by_value,
    clippy::print_stderr,
    reason = "each test file uses a part of the harness, and a test may panic and print"
)]

mod answer;
pub mod api;
pub mod backend;
pub mod burdock;
pub mod client;
pub mod docker;
pub mod etcd;
pub mod h2;
pub mod kubernetes;
pub mod load;
pub mod pebble;
pub mod process;
pub mod raw;
pub mod roaming;
pub mod secured;
pub mod steady;
pub mod streams;
pub mod tls;
pub mod wire;
pub mod ws;

use std::time::{Duration, Instant};

pub use api::Api;
pub use backend::{Backend, Fault};
pub use burdock::{Burdock, run_to_end};
pub use client::{Client, Request, Response};
pub use load::Load;
pub use process::Process;
pub use steady::Steady;

/// How long a test waits for anything. Long enough for a loaded machine, since a healthy run never
/// comes near it.
pub const DEADLINE: Duration = Duration::from_secs(15);

/// Looks every few milliseconds until `probe` yields a value.
pub async fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}");
        pause().await;
    }
}

/// The time between two looks; the only sleep of these tests.
pub async fn pause() {
    tokio::time::sleep(Duration::from_millis(5)).await;
}

/// Puts the deadline on a future.
pub async fn within<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(output) => output,
        Err(_) => panic!("not within {DEADLINE:?}: {what}"),
    }
}

/// A configuration over `instances`, named as the backends are, on ports that the kernel chooses.
/// `rest` is appended as it is.
pub fn yaml(instances: &[&Backend], rest: &str) -> String {
    let mut text = HEADER.to_owned();
    text.push_str("instances:\n");
    for backend in instances {
        text.push_str(&format!("  - {{ name: {}, address: {} }}\n", backend.name, backend.address));
    }
    text.push_str(rest);
    text.push('\n');
    text
}

/// The part of [`yaml`] that names no instance.
pub const HEADER: &str = "listeners: [{ address: 127.0.0.1:0 }]\n\
    admin: { address: 127.0.0.1:0 }\nworkers: 2\naccess_log: true\n";

/// Checks fast enough for a test, by the paths that every [`Backend`] answers.
pub const FAST_CHECKS: &str = "readiness_check: { path: /readyz, check_interval: 50ms, timeout: 200ms, \
     failure_threshold: 2, success_threshold: 2 }\n\
     liveness_check: { path: /healthz, check_interval: 50ms, timeout: 200ms, \
     failure_threshold: 3, success_threshold: 2, initial_delay: 0s }\n";

/// Like [`FAST_CHECKS`], readiness only.
pub const FAST_READINESS: &str = "readiness_check: { path: /readyz, check_interval: 50ms, timeout: 200ms, \
     failure_threshold: 2, success_threshold: 2 }\n";

/// Bytes that are not the same at any two nearby places, so that a lost or doubled stretch shows.
pub fn pattern(size: usize) -> Vec<u8> {
    let mut state: u32 = 0x9e37_79b9;
    (0..size)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            b'!' + (state >> 24) as u8 % 90
        })
        .collect()
}
