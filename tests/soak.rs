//! Everything at once for minutes: all kinds of clients, well-behaved and not, instances that fail in
//! every way, and reloads. Afterwards nothing is open, and memory has not grown. Opt-in:
//! `BURDOCK_SOAK=600 cargo test --test soak -- --ignored --nocapture` takes ten minutes; without
//! the variable it is two.

#[path = "soak/clients.rs"]
mod clients;
mod support;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinSet;

use clients::{Kind, Tally};
use support::process::{ENTRY, Process, serve};
use support::{Burdock, eventually};

const NAMES: [&str; 4] = ["a", "b", "c", "d"];
const USUAL: u64 = 120;
/// Descriptors that may come and go by themselves: a probe, a scrape.
const SLACK: usize = 3;
/// What the second half may add to memory that no file backs: what the allocator keeps differs by
/// that much from one moment of rest to another. One leaked connection of every hundred would be
/// several times as much.
const GROWTH: u64 = 3 << 20;
/// Everything that counts what is under way.
const GAUGES: [&str; 4] = [
    "burdock_client_connections",
    "burdock_instance_requests_in_flight",
    "burdock_instance_tunnels",
    "burdock_queue_length",
];

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the other test starts it, as a process"]
async fn an_instance_in_a_process_of_its_own() {
    assert_eq!(ENTRY, "an_instance_in_a_process_of_its_own");
    serve().await;
}

/// Until it ends, or until `time` has passed; whether it goes on.
async fn goes_on_after(stop: &mut watch::Receiver<bool>, time: Duration) -> bool {
    tokio::time::timeout(time, stop.wait_for(|stop| *stop)).await.is_err()
}

/// The `n`th configuration: weights, limits and checks differ from the one before, and one
/// instance comes and goes.
fn nth(instances: &[(String, SocketAddr)], n: usize) -> String {
    let mut text = "listeners: [{ address: 127.0.0.1:0 }]\nadmin: { address: 127.0.0.1:0 }\n\
                    workers: 2\naccess_log: false\nsession_affinity: true\n\
                    timeouts: { header_read: 2s, keep_alive: 5s, connect: 500ms, first_byte: 2s, idle: 3s }\n\
                    drain: { timeout: 2s, spread: 1s }\nbalance: least_sessions\n\
                    queue: { max: 50, timeout: 500ms }\n\
                    affinity: { header: X-Burdock-Session, engine_io: true, idle_ttl: 1m }\n\
                    websocket: { max_lifetime: 5s, ping_interval: 1s, max_new_per_second: 50 }\n\
                    breaker: { failures: 3, error_share: 50%, open: 500ms, max_open: 2s }\n\
                    readiness_check: { path: /readyz, check_interval: 100ms, timeout: 250ms }\n\
                    liveness_check: { path: /healthz, check_interval: 100ms, timeout: 250ms, initial_delay: 0s }\n\
                    instances:\n"
        .to_owned();
    let kept = if n % 4 == 3 { instances.len() - 1 } else { instances.len() };
    for (place, (name, address)) in instances[..kept].iter().enumerate() {
        let (weight, most) = (1 + (place + n) % 3, 4 + n % 20);
        text.push_str(&format!(
            "  - {{ name: {name}, address: {address}, weight: {weight}, max_requests: {most} }}\n"
        ));
    }
    text
}

async fn reloads(
    burdock: &Burdock,
    instances: &[(String, SocketAddr)],
    first: usize,
    mut stop: watch::Receiver<bool>,
) -> usize {
    let mut n = first;
    while goes_on_after(&mut stop, Duration::from_secs(1)).await {
        n += 1;
        let line = burdock.reload(&nth(instances, n)).await;
        assert_eq!(line["message"], "reloaded", "{line}");
    }
    n
}

/// One after the other fails in one way after the other, and comes back.
async fn faults(instances: &mut [Process], mut stop: watch::Receiver<bool>) -> usize {
    const LASTS: Duration = Duration::from_millis(700);
    let mut n = 0;
    while goes_on_after(&mut stop, LASTS).await {
        let victim = n % instances.len();
        let victim = &mut instances[victim];
        let (breaks, mends) = match n % 5 {
            1 => ("unready", "ready"),
            2 => ("dead", "alive"),
            3 => ("refuse", "listen"),
            4 => ("hold", ""),
            _ => ("", ""),
        };
        if !breaks.is_empty() {
            victim.told(breaks).await;
            goes_on_after(&mut stop, LASTS).await;
        }
        if !mends.is_empty() {
            victim.told(mends).await;
        } else {
            // What holds requests lets go of none but by its end.
            if breaks.is_empty() {
                victim.signal(libc::SIGSTOP);
                goes_on_after(&mut stop, LASTS).await;
                victim.signal(libc::SIGCONT);
            }
            victim.kill();
            victim.restart().await;
        }
        n += 1;
    }
    n
}

/// What a stretch of the soak came to.
#[derive(Debug, Clone, Copy)]
struct Rest {
    heap: u64,
    descriptors: usize,
}

/// Clients, faults and reloads for so long; then all clients leave, and nothing may be under way.
async fn stretch(
    burdock: &Burdock,
    instances: &mut [Process],
    length: Duration,
    generation: &mut usize,
) -> (Tally, usize, Rest) {
    let (end, stop) = watch::channel(false);
    let places: Vec<_> = instances.iter().map(|it| (it.name.clone(), it.address)).collect();
    let mut clients = JoinSet::new();
    for kind in Kind::ALL {
        for seed in 0..kind.clients() {
            clients.spawn(clients::keep_coming(kind, burdock.address(), seed, stop.clone()));
        }
    }
    let timer = async {
        tokio::time::sleep(length).await;
        end.send_replace(true);
    };
    let (broken, last, ()) = tokio::join!(
        faults(instances, stop.clone()),
        reloads(burdock, &places, *generation, stop.clone()),
        timer
    );
    *generation = last;
    let mut tally = Tally::default();
    while let Some(ended) = clients.join_next().await {
        tally.add(&ended.expect("a client panicked"));
    }
    for gauge in GAUGES {
        burdock.wait_metric(gauge, &[], |value| value == 0.0).await;
    }
    (tally, broken, Rest { heap: burdock.resident_heap(), descriptors: burdock.descriptors() })
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "it takes minutes: BURDOCK_SOAK says how many seconds"]
async fn minutes_of_everything_leave_nothing_open_and_memory_flat() {
    let asked = std::env::var("BURDOCK_SOAK").ok();
    let seconds = asked.map_or(USUAL, |text| text.parse().expect("BURDOCK_SOAK is in seconds"));
    let half = Duration::from_secs(seconds) / 2;
    let mut instances = Process::several(&NAMES).await;
    let places: Vec<_> = instances.iter().map(|it| (it.name.clone(), it.address)).collect();
    let burdock = Burdock::start(&nth(&places, 0)).await;
    for name in NAMES {
        burdock.wait_health(name, "ready").await;
    }
    let (before, begun) = (burdock.descriptors(), Instant::now());
    let mut generation = 0;
    let mut rests = Vec::new();
    println!("| half | reloads | faults | visits by kind: whole, refused, broken off |");
    for n in 1..=2 {
        let first = generation;
        let (tally, broken, rest) = stretch(&burdock, &mut instances, half, &mut generation).await;
        println!("| {n} | {} | {broken} | {tally} |", generation - first);
        println!("  at rest: {} KiB of heap, {} descriptors", rest.heap / 1024, rest.descriptors);
        tally.each_kind_came_through();
        rests.push(rest);
    }
    instances.iter_mut().for_each(Process::kill);
    let closed = || (burdock.descriptors() <= before + SLACK).then(|| burdock.descriptors());
    let after = eventually("descriptors are closed", closed).await;
    println!("  {} s; descriptors before {before}, after {after}", begun.elapsed().as_secs());
    let [first, second] = [rests[0].heap, rests[1].heap];
    assert!(second < first + GROWTH, "memory went from {first} to {second} bytes");
}
