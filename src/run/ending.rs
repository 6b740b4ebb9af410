//! The end of a server: it takes nothing new, finishes what it has, and cuts what is left.

use std::future::Future;
use std::time::{Duration, Instant};

use crate::config::types::Drain;
use crate::listener::Worker;
use crate::observe::events::Event;
use crate::rehearsal::guard;
use crate::run::server::Server;

/// At the end of a drain beside another process, what was asked at the last moment is answered.
const LAST_ANSWER: Duration = Duration::from_secs(2);
/// A collector gets this long for the spans that are left.
const LAST_SPANS: Duration = Duration::from_secs(2);
/// Between two looks at what a drain still waits for.
const DRAIN_LOOK: Duration = Duration::from_millis(20);
/// What is cut gets this long to notice.
const CUT_GRACE: Duration = Duration::from_millis(200);

/// How a drain went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// Everything was finished.
    Clean,
    /// Something was cut.
    Cut,
}

impl Server {
    /// Stops accepting, finishes what is under way, closes tunnels spread over their window; at
    /// the deadline, or when `cut` resolves, drops the rest.
    pub async fn drain(mut self, cut: impl Future<Output = ()>) -> Drained {
        let Drain { timeout, spread } = self.config.shutdown;
        self.refuse_orders();
        guard::abort(&self.live, "the balancer is stopping");
        self.keeper.stop();
        self.doors.close();
        self.say_draining(timeout);
        self.fleet.leave().await;
        let now = Instant::now();
        let drained = tokio::select! {
            biased;
            () = self.finish((now, now + spread), now) => Drained::Clean,
            () = tokio::time::sleep(timeout) => Drained::Cut,
            () = cut => Drained::Cut,
        };
        self.end(drained).await;
        drained
    }

    /// The same beside a process that has taken over: there is no hurry, so tunnels and kept
    /// connections may stay to the end of `upgrade.timeout`. Gives nothing when `stopped` resolves
    /// before that; a [`Server::drain`] must follow.
    pub(super) async fn withdraw(&mut self, stopped: impl Future<Output = ()>) -> Option<Drained> {
        let Drain { timeout, spread } = self.config.upgrade;
        self.refuse_orders();
        guard::abort(&self.live, "another process has taken over");
        self.keeper.stop();
        self.doors.close();
        self.doors.close_admin();
        self.desk.streams.end();
        self.say_draining(timeout);
        self.fleet.leave().await;
        let until = Instant::now() + timeout;
        let versions = self.config.services.iter().flat_map(|service| &service.versions);
        let graces = versions.map(|version| version.websocket.close_grace);
        let grace = graces.max().unwrap_or_default() + LAST_ANSWER;
        let drained = tokio::select! {
            biased;
            () = self.finish((until - spread, until), until) => Drained::Clean,
            () = tokio::time::sleep_until((until + grace).into()) => Drained::Cut,
            () = stopped => return None,
        };
        self.end(drained).await;
        Some(drained)
    }

    fn say_draining(&self, timeout: Duration) {
        let (connections, tunnels) = self.under_way();
        tracing::info!(connections, tunnels, deadline_s = timeout.as_secs_f64(), "draining");
        self.live.journal.note(Event::Stopping { connections, tunnels });
    }

    async fn end(&mut self, drained: Drained) {
        let (connections, tunnels) = self.under_way();
        self.live.cut();
        self.stop().await;
        self.live.spans.flush(LAST_SPANS).await;
        match drained {
            Drained::Clean => tracing::info!("stopped"),
            Drained::Cut => tracing::warn!(connections, tunnels, "stopped; what was left is cut"),
        }
    }

    /// Resolves when nothing is under way and nothing can be any more. Tunnels are closed in
    /// `window`, and kept connections may rest until `rest`.
    async fn finish(&mut self, window: (Instant, Instant), rest: Instant) {
        self.doors.closed().await;
        // Connections count themselves when they are first polled; and one that hasn't found its
        // request by the time of the drain, although it is there, would pass for an idle one.
        self.lap().await;
        self.live.drain(window, rest);
        loop {
            if self.under_way() == (0, 0) {
                // The last connection may have become a tunnel that is not in its table yet.
                self.lap().await;
                if self.under_way() == (0, 0) {
                    return;
                }
            }
            tokio::time::sleep(DRAIN_LOOK).await;
        }
    }

    /// Resolves when every worker has polled what was spawned on it before, and what its sockets
    /// had to say.
    pub(super) async fn lap(&self) {
        let Some(threads) = &self.threads else { return };
        // A task that yields comes last in the queue of its worker, after a look at the sockets.
        let lap = |worker: &Worker| threads.of(worker.index).spawn(tokio::task::yield_now());
        let laps: Vec<_> = self.workers.iter().map(lap).collect();
        for lap in laps {
            // A worker that panicked has nothing under way.
            let _ = lap.await;
        }
    }

    /// Client connections and tunnels that are open.
    fn under_way(&self) -> (u64, usize) {
        let tunnels = self.workers.iter().map(|worker| worker.registry.count()).sum();
        (self.live.counters.connections(), tunnels)
    }

    async fn stop(&mut self) {
        self.doors.close_admin();
        if let Some(threads) = self.threads.take() {
            let joined = tokio::task::spawn_blocking(move || threads.stop(CUT_GRACE));
            // Only a panic while joining could be told of here, and it has been.
            let _ = joined.await;
        }
    }
}
