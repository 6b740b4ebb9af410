//! Proofs for a CA that looks whether a host is ours, for as long as it looks.
//!
//! By HTTP a proof is a text under a token (RFC 8555 section 8.3), by TLS a certificate for the host
//! (RFC 8737). Who asks for anything else gets nothing here, and goes the ordinary way.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::crypto::ring;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, version};

/// The protocol of a handshake that is only there to prove something (RFC 8737 section 6.2).
pub const ACME_TLS: &[u8] = b"acme-tls/1";
/// Where a CA asks by HTTP.
const FOLDER: &str = "/.well-known/acme-challenge/";

/// What is proved now.
#[derive(Default)]
pub struct Challenges {
    /// How many tokens there are: looked at for every request, and nearly always zero.
    pending: AtomicUsize,
    texts: Mutex<HashMap<String, String>>,
    certificates: Mutex<HashMap<String, Arc<CertifiedKey>>>,
}

impl std::fmt::Debug for Challenges {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Challenges").field("pending", &self.pending).finish_non_exhaustive()
    }
}

impl Challenges {
    /// The proof that is asked for by a GET of `path`, if one is.
    pub fn proof(&self, path: &str) -> Option<String> {
        if self.pending.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let token = path.strip_prefix(FOLDER)?;
        self.texts.lock().unwrap_or_else(PoisonError::into_inner).get(token).cloned()
    }

    /// Answers `text` to who asks for `token`, until what this gives is dropped.
    pub fn tell(self: &Arc<Self>, token: &str, text: &str) -> Shown {
        insert(&self.texts, token, text.to_owned());
        self.pending.fetch_add(1, Ordering::Relaxed);
        Shown { challenges: Arc::clone(self), what: What::Text(token.to_owned()) }
    }

    /// Shows `certificate` to who asks for `host`, until what this gives is dropped.
    pub fn show(self: &Arc<Self>, host: &str, certificate: CertifiedKey) -> Shown {
        insert(&self.certificates, host, Arc::new(certificate));
        Shown { challenges: Arc::clone(self), what: What::Certificate(host.to_owned()) }
    }
}

fn insert<V>(map: &Mutex<HashMap<String, V>>, key: &str, value: V) {
    map.lock().unwrap_or_else(PoisonError::into_inner).insert(key.to_owned(), value);
}

fn remove<K: Hash + Eq, V>(map: &Mutex<HashMap<K, V>>, key: &K) {
    map.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
}

#[derive(Debug)]
enum What {
    Text(String),
    Certificate(String),
}

/// A proof that is there until this is dropped.
#[derive(Debug)]
pub struct Shown {
    challenges: Arc<Challenges>,
    what: What,
}

impl Drop for Shown {
    fn drop(&mut self) {
        match &self.what {
            What::Text(token) => {
                self.challenges.pending.fetch_sub(1, Ordering::Relaxed);
                remove(&self.challenges.texts, token);
            }
            What::Certificate(host) => remove(&self.challenges.certificates, host),
        }
    }
}

/// Whether a client asks for a proof and for nothing else.
pub fn asks(hello: &ClientHello<'_>) -> bool {
    let mut protocols = hello.alpn().into_iter().flatten();
    protocols.next() == Some(ACME_TLS) && protocols.next().is_none()
}

#[derive(Debug)]
struct Proofs(Arc<Challenges>);

impl ResolvesServerCert for Proofs {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let host = hello.server_name()?.to_ascii_lowercase();
        let shown = self.0.certificates.lock().unwrap_or_else(PoisonError::into_inner);
        shown.get(&host).cloned()
    }
}

/// What handshakes go by that ask for a proof: no client certificate, no ticket, no other protocol.
pub fn server(challenges: &Arc<Challenges>) -> Result<Arc<ServerConfig>, rustls::Error> {
    let provider = Arc::new(ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13, &version::TLS12])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Proofs(Arc::clone(challenges))));
    config.alpn_protocols = vec![ACME_TLS.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_answered_where_it_is_asked_for_and_as_long_as_it_is_shown() {
        let challenges = Arc::new(Challenges::default());
        let path = "/.well-known/acme-challenge/t0";
        assert_eq!(challenges.proof(path), None);
        let first = challenges.tell("t0", "t0.print");
        let second = challenges.tell("t1", "t1.print");
        assert_eq!(challenges.proof(path).as_deref(), Some("t0.print"));
        for other in
            ["/t0", "/.well-known/acme-challenge/", "/.well-known/acme-challenge/t0/", "t0"]
        {
            assert_eq!(challenges.proof(other), None, "{other}");
        }
        drop(first);
        assert_eq!(challenges.proof(path), None);
        assert!(challenges.proof("/.well-known/acme-challenge/t1").is_some());
        drop(second);
        assert_eq!(challenges.pending.load(Ordering::Relaxed), 0);
    }
}
