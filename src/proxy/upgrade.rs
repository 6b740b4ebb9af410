//! The opening of a WebSocket: an attempt on a connection of its own, which becomes the tunnel.
//!
//! hyper speaks the handshake; then both raw sockets are taken back (see [`crate::tunnel`]).

use http::header::UPGRADE;
use http::{StatusCode, request};

use crate::config::types::Websocket;
use crate::proxy::exchange::Exchange;
use crate::proxy::forward::{Answer, Attempt, Origin};
use crate::proxy::headers;
use crate::proxy::retry::{Failure, Sent};
use crate::tunnel::{Side, Tunnel};

/// A tunnel whose client is about to get its 101.
#[derive(Debug)]
pub struct Opening {
    /// The instance's side.
    pub raw: Raw,
    /// The request that asked for it.
    pub exchange: Box<Exchange>,
}

impl Opening {
    /// The tunnel, now that the client has its 101; the request's account is closed.
    pub fn into_tunnel(self, client: Side) -> Option<Tunnel> {
        let Raw { side: instance, limits } = self.raw;
        Some(Tunnel { client, instance, limits, account: self.exchange.into_tunnel()? })
    }
}

/// An instance's side of a tunnel, and how long that may live.
#[derive(Debug)]
pub struct Raw {
    /// The socket.
    pub side: Side,
    /// The limits of its version.
    pub limits: Websocket,
}

impl Attempt<'_> {
    /// Asks the instance to upgrade. An answer other than 101 is passed on like any other.
    pub async fn upgrade(&self, worker: usize, head: &request::Parts) -> Result<Answer, Failure> {
        let mut link = self.connect(worker).await?;
        let response = self.ask(worker, head, &mut link).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Ok(Answer { response, origin: Origin::Spent(link) });
        }
        // RFC 9110 section 7.8: the protocol switched to must be one that was asked for.
        if !headers::has_token(response.headers(), &UPGRADE, "websocket") {
            return Err(Failure::InvalidResponse);
        }
        let (stream, early) = link.into_raw().await.ok_or(Failure::Reset(Sent::Something))?;
        let raw = Raw { side: Side { stream, early }, limits: self.version.websocket };
        Ok(Answer { response, origin: Origin::Raw(raw) })
    }
}
