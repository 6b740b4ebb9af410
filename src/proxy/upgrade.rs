//! The opening of a tunnel: an attempt on a connection of its own, which becomes the tunnel.
//!
//! The handshake is a request like any other; then both raw sockets are taken (see [`crate::tunnel`]).

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::header::{CONNECTION, HeaderName, HeaderValue, UPGRADE};
use http::{Method, StatusCode, Version, request};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use crate::instance::stream::Wire;
use crate::proxy::coming::Coming;
use crate::proxy::exchange::Exchange;
use crate::proxy::forward::{Answer, Attempt, Origin};
use crate::proxy::headers::{self, Fields};
use crate::proxy::http2;
use crate::proxy::retry::Failure;
use crate::tunnel::pump::Protocol;
use crate::tunnel::socket::Socket;
use crate::tunnel::{Side, Tunnel};

/// The protocol of RFC 6455.
pub(super) const WEBSOCKET: &str = "websocket";
pub(super) const SEC_WEBSOCKET_KEY: HeaderName = HeaderName::from_static("sec-websocket-key");

/// The protocol that a client wants to switch to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upgrade {
    name: HeaderValue,
    /// The key of the handshake, if it is not the client's own.
    key: Option<HeaderValue>,
}

impl Upgrade {
    /// The first of the protocols that the client names which `allowed` names too (RFC 9110 section
    /// 7.8). A WebSocket needs more than its name (RFC 6455 section 4.1); without that, and with any
    /// other protocol, the request goes on as if it had asked for none. HTTP/1.0 knows no upgrades;
    /// `translated` says that HTTP/2 asked for it.
    pub fn asked(
        head: &request::Parts,
        fields: Fields,
        allowed: &[String],
        translated: bool,
    ) -> Option<Self> {
        if !fields.has(Fields::UPGRADE)
            || head.version == Version::HTTP_10
            || !headers::has_token(&head.headers, &CONNECTION, "upgrade")
        {
            return None;
        }
        let opens = |name: &&String| match name.as_str() {
            WEBSOCKET => head.method == Method::GET && head.headers.contains_key(SEC_WEBSOCKET_KEY),
            _ => true,
        };
        let known = |asked: &[u8]| {
            let same = |name: &&String| name.as_bytes().eq_ignore_ascii_case(asked);
            allowed.iter().find(same).filter(opens)
        };
        let name = headers::tokens(&head.headers, &UPGRADE).find_map(known)?;
        let key = head.headers.get(SEC_WEBSOCKET_KEY).filter(|_| translated);
        Some(Self { name: HeaderValue::from_str(name).ok()?, key: key.cloned() })
    }

    /// Its name, in lower case.
    pub fn name(&self) -> &HeaderValue {
        &self.name
    }

    /// RFC 9110 section 7.8: the protocol switched to must be one that was asked for.
    fn is_granted(&self, answer: &http::HeaderMap) -> bool {
        let named = self.name.to_str().is_ok_and(|name| headers::has_token(answer, &UPGRADE, name));
        named && self.key.as_ref().is_none_or(|key| http2::answers_key(key, answer))
    }

    /// Whether an answer other than a 101 would say the opposite of what it means: on a stream any
    /// success opens the tunnel (RFC 9110 section 9.3.6).
    fn is_misread(&self, status: StatusCode) -> bool {
        self.key.is_some() && status.is_success()
    }

    fn protocol(&self) -> Protocol {
        if self.name == WEBSOCKET { Protocol::WebSocket } else { Protocol::Other }
    }
}

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
        let Raw { side: instance, protocol } = self.raw;
        Some(Tunnel { client, instance, protocol, account: self.exchange.into_tunnel()? })
    }

    /// Becomes the tunnel of a stream, as soon as the stream is one.
    async fn on_stream(self: Box<Self>, stream: OnUpgrade) {
        let registry = Arc::clone(&self.exchange.client.registry);
        // Otherwise the client has reset it, and the account says so.
        let Ok(upgraded) = stream.await else { return };
        let socket = Socket::Stream(Box::new(TokioIo::new(upgraded)));
        if let Some(tunnel) = self.into_tunnel(Side { socket, early: Bytes::new() }) {
            tunnel.open(&registry).await;
        }
    }

    /// Leaves the tunnel to begin when the client has its answer.
    pub fn begin(mut self: Box<Self>) {
        let client = Arc::clone(&self.exchange.client);
        match self.exchange.connect.take() {
            None => client.open(self),
            Some(stream) => drop(tokio::spawn(self.on_stream(stream))),
        }
    }
}

/// An instance's side of a tunnel, and what is spoken there.
#[derive(Debug)]
pub struct Raw {
    /// The socket.
    pub side: Side,
    /// What was switched to.
    pub protocol: Protocol,
}

impl Attempt<'_> {
    /// Asks the instance to switch. An answer other than 101 is passed on like any other.
    pub async fn upgrade(
        &self,
        worker: usize,
        head: &request::Parts,
        upgrade: &Upgrade,
    ) -> Result<Answer, Failure> {
        let mut link = self.connect(worker).await?;
        let response = self.ask(head, &mut link, Instant::now()).await?;
        if upgrade.is_misread(response.status()) {
            return Err(Failure::InvalidResponse);
        }
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let response = response.map(|()| Coming::Http1(link));
            return Ok(Answer { response, origin: Origin::Spent });
        }
        if !upgrade.is_granted(response.headers()) {
            return Err(Failure::InvalidResponse);
        }
        let (wire, early) = link.into_raw();
        let socket = match wire {
            Wire::Plain(stream) => Socket::Tcp(stream.into_inner()),
            Wire::Tls(stream) => Socket::ToInstance(stream),
        };
        let raw = Raw { side: Side { socket, early }, protocol: upgrade.protocol() };
        let response = response.map(|()| Coming::Own(None));
        Ok(Answer { response, origin: Origin::Raw(raw) })
    }
}
