//! How the clients of an address are served: what the configuration says of it, ready for use.

use std::sync::Arc;

use tokio_rustls::TlsAcceptor;

use crate::config::types::{Listener, Tls};
use crate::tls::server::{self, TlsError};
use crate::tls::tickets::OwnKeys;

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
}

impl std::fmt::Debug for Secure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secure").field("tls", &self.tls).finish_non_exhaustive()
    }
}

impl Manner {
    /// Makes it; `own` seals session tickets where the configuration names no keys.
    pub fn new(listener: Listener, own: &Arc<OwnKeys>) -> Result<Self, TlsError> {
        let secure = match &listener.tls {
            None => None,
            Some(tls) => {
                let acceptor = server::build(tls, listener.http2, own)?.into();
                Some(Secure { acceptor, tls: Arc::clone(tls) })
            }
        };
        Ok(Self { listener, secure })
    }
}
