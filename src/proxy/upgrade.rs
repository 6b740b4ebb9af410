//! The opening of a WebSocket: an attempt on a connection of its own, which becomes the tunnel.
//!
//! hyper speaks the handshake; then both raw sockets are taken back (see [`crate::tunnel`]).

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use http::header::UPGRADE;
use http::{StatusCode, request};
use hyper::client::conn::http1::Connection;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::config::types::Websocket;
use crate::instance::body::RequestBody;
use crate::proxy::exchange::Exchange;
use crate::proxy::forward::{Answer, Attempt, failure};
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
        let (mut sender, mut connection) = self.connect(worker).await?;
        let request = self.request(head);
        let sent = sender.try_send_request(request);
        let both = self.in_time(drive(&mut connection, sent));
        let result = self.or_alarm(worker, Sent::Something, true, both).await??;
        let response = result.map_err(|error| match error.message() {
            Some(_) => Failure::Reset(Sent::Nothing),
            None => failure(error.error()),
        })?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            tokio::spawn(async move {
                let _ = connection.await;
            });
            // It was opened for a tunnel and is not for the pool.
            return Ok(Answer { response, sender: None, raw: None });
        }
        // RFC 9110 section 7.8: the protocol switched to must be one that was asked for.
        if !headers::has_token(response.headers(), &UPGRADE, "websocket") {
            return Err(Failure::InvalidResponse);
        }
        let parts = connection
            .without_shutdown()
            .await
            .map_err(|_broken| Failure::Reset(Sent::Something))?;
        let limits = self.version.websocket;
        let side = Side { stream: parts.io.into_inner(), early: parts.read_buf };
        Ok(Answer { response, sender: None, raw: Some(Raw { side, limits }) })
    }
}

/// Polls a connection and the request on it until the request has its answer.
async fn drive<T>(
    connection: &mut Connection<TokioIo<TcpStream>, RequestBody>,
    answer: impl Future<Output = T>,
) -> T {
    let mut answer = pin!(answer);
    poll_fn(|cx| {
        if let Poll::Ready(answer) = answer.as_mut().poll(cx) {
            return Poll::Ready(answer);
        }
        // An error reaches the request, which is polled again below.
        let _ = connection.poll_without_shutdown(cx);
        answer.as_mut().poll(cx)
    })
    .await
}
