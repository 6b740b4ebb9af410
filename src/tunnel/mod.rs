//! Upgraded connections: two raw sockets, and a polite end.
//!
//! [`pump`] moves bytes and holds none while idle; [`frames`] knows where a Close may be put;
//! [`registry`] says when a tunnel must end, and why. A tunnel keeps its instance, never a
//! snapshot: one old WebSocket must not pin an old configuration.

pub mod frames;
pub mod pump;
pub mod registry;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use tokio::net::TcpStream;

use crate::config::types::Websocket;
use crate::instance::roster::count;
use crate::instance::{InFlight, Roster};
use crate::observe::access;
use crate::observe::counters::TunnelEnd;
use crate::tunnel::pump::{Flow, Pump};
use crate::tunnel::registry::Registry;

/// The close code and the reason that a peer is told (RFC 6455 section 7.4).
const fn words(end: TunnelEnd) -> (u16, &'static str) {
    match end {
        TunnelEnd::Lifetime => (1001, "the connection reached its lifetime"),
        TunnelEnd::Idle => (1001, "the connection was idle"),
        TunnelEnd::Removed => (1012, "the instance is being taken out"),
        TunnelEnd::Shutdown => (1012, "the balancer is restarting"),
        TunnelEnd::Dead | TunnelEnd::Instance => (1014, "the instance is gone"),
        TunnelEnd::Client => (1001, "the client is gone"),
    }
}

/// What is known of a tunnel until it ends; it lives long, so it is small.
#[derive(Debug)]
pub struct Account {
    /// Its version.
    pub roster: Arc<Roster>,
    /// The client's address, as trusted proxies tell it.
    pub address: Box<str>,
    /// When the 101 was sent.
    pub started: Instant,
    /// Path and query of the request that opened it.
    pub path: Box<str>,
    /// Its Host field.
    pub host: Box<str>,
    /// Its id.
    pub request_id: Box<str>,
    /// What became of its session: outcome and reason.
    pub affinity: (&'static str, Option<&'static str>),
    /// Whether a line is written at its end.
    pub logged: bool,
    /// Counts it.
    pub in_flight: InFlight,
}

/// One side of a tunnel: a socket whose HTTP is over.
#[derive(Debug)]
pub struct Side {
    /// The socket.
    pub stream: TcpStream,
    /// What was read from it beyond the handshake.
    pub early: Bytes,
}

/// A tunnel that is ready to begin.
#[derive(Debug)]
pub struct Tunnel {
    /// The client's side.
    pub client: Side,
    /// The instance's side.
    pub instance: Side,
    /// How long it may live.
    pub limits: Websocket,
    /// What is told of it.
    pub account: Account,
}

/// A tunnel that is open. Written by hand: an `async fn` keeps what it is called with beside what it
/// makes of it, which would more than double the size of every idle tunnel.
#[derive(Debug)]
pub struct Open {
    pump: Pump,
    account: Option<Account>,
}

impl Tunnel {
    /// Begins to relay, until either side, or Burdock, ends it. To be run as a task of its own.
    pub fn open(self, registry: &Arc<Registry>) -> Open {
        let Self { client, instance, limits, account } = self;
        count(&account.roster.tally.tunnels);
        let served_by = Arc::clone(account.in_flight.instance());
        let entry = registry.enter(served_by, &limits, account.started);
        let mut pump = Pump::new(client.stream, instance.stream, entry, limits.close_grace);
        pump.start_with(client.early, instance.early);
        Open { pump, account: Some(account) }
    }
}

impl Future for Open {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let flow = ready!(self.pump.poll(cx));
        if let Some(account) = self.account.take() {
            account.close(&flow);
        }
        Poll::Ready(())
    }
}

impl Account {
    fn close(self, flow: &Flow) {
        count(&self.roster.tally.ended[flow.end as usize]);
        if !self.logged {
            return;
        }
        let (affinity, affinity_reason) = self.affinity;
        access::write(&access::Line {
            message: "tunnel",
            client: &self.address,
            method: "GET",
            path: &self.path,
            host: &self.host,
            status: 101,
            service: self.roster.service(),
            version: self.roster.version(),
            instance: &self.in_flight.instance().identity().name,
            affinity,
            affinity_reason,
            attempts: 1,
            request_bytes: flow.bytes[0],
            response_bytes: flow.bytes[1],
            first_byte: None,
            duration: self.started.elapsed(),
            request_id: &self.request_id,
            error: Some(flow.end.label()),
            close_codes: flow.close_codes,
        });
    }
}
