//! The worker threads, and what goes on there besides clients.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::types::{Config, Workers};
use crate::listener::Worker;
use crate::memory;
use crate::run::threads::Threads;
use crate::snapshot::{Live, Snapshot};
use crate::tunnel::registry::Registry;

/// Between two looks at idle connections.
const SWEEP: Duration = Duration::from_secs(5);
/// Between two steps of an instance that ramps up.
const RAMP_STEP: Duration = Duration::from_secs(1);

/// How many workers there are.
pub(super) fn size(config: &Config) -> usize {
    match config.workers {
        Workers::Auto => std::thread::available_parallelism().map_or(1, usize::from),
        Workers::Count(count) => count,
    }
}

/// The worker threads, with what each of them looks after besides clients.
pub(super) fn begin(live: &Arc<Live>, count: usize) -> io::Result<(Threads, Vec<Worker>)> {
    memory::settle();
    let threads = Threads::start(count)?;
    let seats = Arc::default();
    let worker = |index| Worker {
        index,
        live: Arc::clone(live),
        registry: Registry::new(),
        seats: Arc::clone(&seats),
    };
    let workers: Vec<_> = (0..count).map(worker).collect();
    for worker in &workers {
        let handle = threads.of(worker.index);
        let registry = Arc::clone(&worker.registry);
        handle.spawn(registry.watch(Arc::clone(live), worker.index));
        handle.spawn(sweep(worker.clone()));
        handle.spawn(memory::give_back());
    }
    Ok((threads, workers))
}

/// Lets instances that ramp up take a little more.
pub(super) async fn ramp(live: Arc<Live>) {
    loop {
        tokio::time::sleep(RAMP_STEP).await;
        for service in live.snapshot().services() {
            service.roster.advance_ramps(Instant::now());
        }
    }
}

/// Closes idle connections to instances in time, on the worker that owns them.
async fn sweep(worker: Worker) {
    loop {
        tokio::time::sleep(SWEEP).await;
        let now = Instant::now();
        let snapshot: Arc<Snapshot> = worker.live.snapshot();
        for service in snapshot.services() {
            for instance in service.roster.members().everyone() {
                instance.lane(worker.index).pool.sweep(now);
                if worker.index == 0 {
                    instance.sessions.turn(now);
                }
            }
            if worker.index == 0 {
                service.roster.rehomes.sweep(now);
                service.roster.sids.sweep(now);
                service.roster.bursts.sweep(now);
                service.roster.asked.sweep(now);
            }
        }
    }
}
