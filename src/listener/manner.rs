//! How the clients of an address are served: what the configuration says of it, ready for use.

use std::sync::Arc;

use rustls::ServerConfig;
use tokio_rustls::TlsAcceptor;

use crate::config::types::{Challenge, Listener, Tls};
use crate::tls::challenges;
use crate::tls::server::{self, Shared, TlsError};

/// See the module.
#[derive(Debug)]
pub struct Manner {
    /// What it was made from.
    pub listener: Listener,
    /// `None` on a plain listener.
    pub(super) secure: Option<Secure>,
}

/// What handshakes go by.
pub(super) struct Secure {
    pub(super) acceptor: TlsAcceptor,
    pub(super) tls: Arc<Tls>,
    /// For a CA that looks by a handshake whether a host is ours.
    pub(super) proving: Option<Arc<ServerConfig>>,
}

impl std::fmt::Debug for Secure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secure").field("tls", &self.tls).finish_non_exhaustive()
    }
}

impl Manner {
    /// Makes it.
    pub fn new(listener: Listener, shared: &Shared) -> Result<Self, TlsError> {
        let secure = match &listener.tls {
            None => None,
            Some(tls) => {
                let acceptor = server::build(tls, listener.http2, shared)?.into();
                let proves =
                    tls.acme.as_ref().is_some_and(|it| it.challenge == Challenge::TlsAlpn01);
                let proving = match proves {
                    true => Some(challenges::server(&shared.automatic.challenges)?),
                    false => None,
                };
                Some(Secure { acceptor, tls: Arc::clone(tls), proving })
            }
        };
        Ok(Self { listener, secure })
    }
}
