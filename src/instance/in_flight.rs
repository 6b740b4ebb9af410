//! What an instance has in flight: one guard for each request and tunnel.
//!
//! Counts fall when a guard drops, and in no other way. Where the instance has a limit, that also
//! lets the next one in that waits.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::instance::{Instance, Lane};

/// What a limit is set for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `max_requests`.
    Request,
    /// `max_tunnels`.
    Tunnel,
}

/// What a guard counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// A request.
    Request,
    /// A request for a tunnel.
    Opening,
    /// A tunnel.
    Tunnel,
}

impl Stage {
    const fn kind(self) -> Kind {
        match self {
            Self::Request => Kind::Request,
            Self::Opening | Self::Tunnel => Kind::Tunnel,
        }
    }
}

/// Counts one request or tunnel of an instance for as long as it lives.
#[derive(Debug)]
pub struct InFlight {
    instance: Arc<Instance>,
    worker: usize,
    stage: Stage,
    /// Whether nobody is called when it is given back.
    silent: bool,
    /// Whether it is counted no longer.
    over: bool,
}

impl InFlight {
    /// Takes a place for a request, or for one that asks for a tunnel; `None` if there is none.
    pub fn begin(instance: &Arc<Instance>, worker: usize, kind: Kind) -> Option<Self> {
        let stage = match kind {
            Kind::Request => Stage::Request,
            Kind::Tunnel => Stage::Opening,
        };
        let limit = instance.limit(kind);
        let mut guard = Self::count(Arc::clone(instance), worker, stage);
        guard.silent = limit > 0 && instance.taken(kind) > u64::from(limit);
        (!guard.silent).then_some(guard)
    }

    fn count(instance: Arc<Instance>, worker: usize, stage: Stage) -> Self {
        instance.lane(worker).count(stage).fetch_add(1, Ordering::SeqCst);
        Self { instance, worker, stage, silent: false, over: false }
    }

    /// The instance has switched protocols: the place is the tunnel's from now on.
    pub fn become_tunnel(&self) -> Self {
        let tunnel = Self::count(Arc::clone(&self.instance), self.worker, Stage::Tunnel);
        tunnel.lane().open();
        tunnel
    }

    /// It is over, though one may still ask whose it was.
    pub fn vacate(&mut self) {
        if std::mem::replace(&mut self.over, true) {
            return;
        }
        self.lane().count(self.stage).fetch_sub(1, Ordering::SeqCst);
        let kind = self.stage.kind();
        // A limit may be younger than what it bounds.
        if !self.silent
            && self.instance.limit(kind) > 0
            && let Some(roster) = self.instance.roster()
        {
            roster.serve(&self.instance, kind);
        }
    }

    /// Gives the place back without a word to those who wait for it.
    pub(super) fn forgo(mut self) {
        self.silent = true;
    }

    /// Whose it is.
    pub fn instance(&self) -> &Arc<Instance> {
        &self.instance
    }

    /// The worker that counts it.
    pub fn worker(&self) -> usize {
        self.worker
    }

    /// The part of the instance that this worker counts in.
    pub fn lane(&self) -> &Lane {
        self.instance.lane(self.worker)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.vacate();
    }
}
