//! Upgraded connections: two raw sockets, and a polite end.
//!
//! [`pump`] moves bytes and holds none while idle; [`frames`] knows where a Close may be put;
//! [`registry`] says when a tunnel must end, and why; [`rebalance`] moves some to instances that have
//! too few. A tunnel keeps its instance, never a
//! snapshot: one old WebSocket must not pin an old configuration.

pub mod frames;
pub mod pump;
pub mod rebalance;
pub mod registry;
pub mod socket;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use http::Method;

use crate::instance::body::Hold;
use crate::instance::roster::count;
use crate::instance::{InFlight, Roster};
use crate::observe::access::{self, Agent};
use crate::observe::tunnels::Closer;
use crate::tls::session::Session;
use crate::tunnel::pump::{Flow, Protocol, Pump};
use crate::tunnel::registry::Registry;
use crate::tunnel::socket::Socket;

/// What is known of a tunnel until it ends; it lives long, so it is small.
#[derive(Debug)]
pub struct Account {
    /// Its version.
    pub roster: Arc<Roster>,
    /// When the 101 was sent.
    pub started: Instant,
    /// What its line says of the request that opened it, if one is written at its end.
    pub told: Option<Box<Told>>,
    /// What the session's token is remembered by, if it has one.
    pub session: Option<u64>,
    /// Counts it.
    pub in_flight: InFlight,
    /// Keeps the connection that it is a stream of, if it is one.
    pub hold: Option<Hold>,
}

/// What the line of a tunnel says of the request that opened it.
#[derive(Debug)]
pub struct Told {
    /// Its method.
    pub method: Method,
    /// What it said.
    pub words: Words,
    /// What became of its session: outcome and reason.
    pub affinity: (&'static str, Option<&'static str>),
    /// By what it came to its version, where its service has several.
    pub split: Option<&'static str>,
    /// Instances tried until one switched protocols.
    pub attempts: u32,
    /// The protocol that they came by, as a line names it.
    pub protocol: &'static str,
    /// What a line says of the client's program, if that is asked for.
    pub agent: Option<Agent>,
    /// The trace of the request that opened it, and its span there.
    pub trace: Option<(u128, u64)>,
    /// Of its client's connection, if that is TLS.
    pub tls: Option<Arc<Session>>,
}

/// What a request said, as one text.
#[derive(Debug)]
pub struct Words {
    text: Box<str>,
    /// Where the words end but the last.
    ends: [u32; 3],
}

impl Words {
    /// The client's address as trusted proxies tell it, the path with its query, the Host field and
    /// the request's id.
    pub fn of(words: [&str; 4]) -> Self {
        let mut end = 0;
        let ends = [0, 1, 2].map(|at: usize| {
            // A head is much shorter.
            end += u32::try_from(words[at].len()).unwrap_or_default();
            end
        });
        Self { text: words.concat().into(), ends }
    }

    /// The same words.
    pub fn get(&self) -> [&str; 4] {
        let [a, b, c] = self.ends.map(|end| end as usize);
        [&self.text[..a], &self.text[a..b], &self.text[b..c], &self.text[c..]]
    }
}

/// One side of a tunnel, on which HTTP is over.
#[derive(Debug)]
pub struct Side {
    /// Where its bytes come from and go to.
    pub socket: Socket,
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
    /// What is spoken in it.
    pub protocol: Protocol,
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
        let Self { client, instance, protocol, account } = self;
        count(&account.roster.tally.tunnels);
        let served_by = Arc::clone(account.in_flight.instance());
        let entry = registry.enter_tunnel(served_by, account.session, account.started);
        let mut pump = Pump::new(client.socket, instance.socket, protocol, entry);
        pump.start_with(client.early, instance.early, account.in_flight.lane());
        Open { pump, account: Some(account) }
    }
}

impl Future for Open {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Self { pump, account } = &mut *self;
        let Some(open) = account else { return Poll::Ready(()) };
        let flow = ready!(pump.poll(open, cx));
        if let Some(account) = account.take() {
            account.close(&flow);
        }
        Poll::Ready(())
    }
}

impl Account {
    fn close(self, flow: &Flow) {
        let (tally, lifetime) = (&self.roster.tally, self.started.elapsed());
        count(&tally.ended[flow.end as usize]);
        self.in_flight.lane().end(flow.end);
        tally.tunnel_lifetimes.count(lifetime);
        let [client, instance] = flow.close_codes;
        tally.tunnel_closes.count(Closer::Client, client);
        tally.tunnel_closes.count(Closer::Instance, instance);
        tally.tunnel_closes.count(Closer::Burdock, flow.told);
        let Some(told) = &self.told else { return };
        let [client, path, host, request_id] = told.words.get();
        let (affinity, affinity_reason) = told.affinity;
        access::write(&access::Line {
            message: "tunnel",
            client,
            method: told.method.as_str(),
            protocol: told.protocol,
            path,
            host,
            // RFC 8441 section 5: a stream has nothing to switch.
            status: if told.method == Method::CONNECT { 200 } else { 101 },
            service: self.roster.service(),
            version: self.roster.version(),
            instance: &self.in_flight.instance().identity().name,
            affinity,
            affinity_reason,
            split: told.split,
            attempts: told.attempts,
            request_bytes: flow.bytes[0],
            response_bytes: flow.bytes[1],
            first_byte: None,
            duration: lifetime,
            request_id,
            error: Some(flow.end.label()),
            tls: told.tls.as_deref(),
            tunnel: Some(access::Tunnel { messages: flow.messages, close_codes: flow.close_codes }),
            agent: told.agent.as_ref().map_or_else(Default::default, Agent::bytes),
            must: false,
            trace: told.trace,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With the rest of its task it takes 512 bytes, in steps of 128.
    #[test]
    fn an_idle_tunnel_stays_small() {
        assert!(size_of::<Open>() <= 416, "{} bytes", size_of::<Open>());
    }

    #[test]
    fn words_are_kept_apart() {
        let words = ["192.0.2.1", "/a?b=c", "", "id"];
        assert_eq!(Words::of(words).get(), words);
    }
}
