//! What a listener's handshakes go by.

use std::sync::Arc;

use http::header::HeaderValue;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig, SignatureAlgorithm, SupportedProtocolVersion};
use sha2::{Digest, Sha256};

use crate::config::types::{
    Certificate, ClientCertificates, Hsts, KeyKind, Tickets, Tls, TlsVersion,
};
use crate::tls::automatic::{Automatic, Subject};
use crate::tls::names::Choice;
use crate::tls::tickets::{Keys, OwnKeys, Sealer};

/// HTTP/2 by its name in ALPN (RFC 9113 section 3.1).
pub const H2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// What was read does not go together.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A certificate, its key, or both.
    #[error("{0}")]
    Certificate(#[from] rustls::Error),
    /// The certificates that clients' are held to.
    #[error("{0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// A certificate with a key that is known to be its own.
pub fn certified(certificate: &Certificate) -> Result<CertifiedKey, TlsError> {
    let mut certified = matched(certificate.chain.clone(), &certificate.private_key)?;
    certified.ocsp.clone_from(&certificate.response);
    Ok(certified)
}

/// What `key` signs with.
pub fn kind(key: &PrivateKeyDer<'_>) -> Result<KeyKind, TlsError> {
    Ok(match ring::sign::any_supported_type(key)?.algorithm() {
        SignatureAlgorithm::ED25519 => KeyKind::Ed25519,
        SignatureAlgorithm::ECDSA => KeyKind::Ecdsa,
        // ring has no other.
        _ => KeyKind::Rsa,
    })
}

/// A chain with the key that belongs to its first certificate.
pub fn matched(
    chain: Vec<CertificateDer<'static>>,
    key: &PrivateKeyDer<'_>,
) -> Result<CertifiedKey, TlsError> {
    let key = ring::sign::any_supported_type(key)?;
    let certified = CertifiedKey::new(chain, key);
    certified.keys_match()?;
    Ok(certified)
}

/// The certificates that sign those of clients.
pub fn roots(asked: &ClientCertificates) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for root in &asked.roots {
        roots.add(root.clone())?;
    }
    Ok(roots)
}

/// What a listener's handshakes share with those of others.
#[derive(Debug, Default)]
pub struct Shared {
    /// Seals tickets where the configuration names no keys.
    pub own_keys: Arc<OwnKeys>,
    /// Certificates that Burdock gets for itself.
    pub automatic: Arc<Automatic>,
}

/// Builds it.
pub fn build(tls: &Tls, http2: bool, shared: &Shared) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let versions: &[&SupportedProtocolVersion] = match tls.min_version {
        TlsVersion::Tls12 => &[&TLS13, &TLS12],
        TlsVersion::Tls13 => &[&TLS13],
    };
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)?;
    let builder = match &tls.client_certificates {
        None => builder.with_no_client_auth(),
        Some(asked) => builder.with_client_cert_verifier(verifier(asked, provider)?),
    };
    let mut config = builder.with_cert_resolver(Arc::new(choice(tls, &shared.automatic)?));
    config.alpn_protocols = match http2 {
        true => vec![H2.to_vec(), HTTP1.to_vec()],
        false => vec![HTTP1.to_vec()],
    };
    // Tickets need no memory here, and work with any worker and any replica.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    let keys = match &tls.tickets {
        Tickets::Off => None,
        Tickets::Auto => Some(Keys::Own(Arc::clone(&shared.own_keys))),
        Tickets::Shared { keys, .. } => Some(Keys::Shared(keys.clone())),
    };
    match keys {
        None => config.send_tls13_tickets = 0,
        Some(keys) => config.ticketer = Arc::new(Sealer::new(keys, context(tls))),
    }
    Ok(Arc::new(config))
}

fn verifier(
    asked: &ClientCertificates,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, TlsError> {
    let roots = Arc::new(roots(asked)?);
    let builder = WebPkiClientVerifier::builder_with_provider(roots, provider);
    Ok(match asked.required {
        true => builder.build()?,
        false => builder.allow_unauthenticated().build()?,
    })
}

fn choice(tls: &Tls, automatic: &Automatic) -> Result<Choice, TlsError> {
    let mut keys = Vec::with_capacity(tls.certificates.len());
    for certificate in &tls.certificates {
        keys.push((Arc::new(certified(certificate)?), certificate));
    }
    let first = tls.certificates.first();
    let host = first.and_then(|first| first.names.first());
    // Its like with other keys are for the same clients.
    let is_default = |certificate: &&Certificate| {
        first.is_some_and(|first| std::ptr::eq(first, *certificate))
            || host.is_some_and(|host| certificate.names.contains(host))
    };
    keys.sort_by_key(|(_, certificate)| certificate.kind);
    let defaults = keys.iter().filter(|(_, certificate)| is_default(certificate));
    let mut choice = Choice::new(defaults.map(|(key, _)| Arc::clone(key)).collect());
    for subject in tls.acme.iter().flat_map(Subject::all) {
        choice.expect(&subject.domain, automatic.place(&subject));
    }
    for (key, certificate) in &keys {
        certificate.names.iter().for_each(|name| choice.add(name, key));
    }
    Ok(choice)
}

/// What tickets are bound to: a session that was begun without showing a certificate, or one that
/// others have signed, must not pass for one that showed what is asked for here.
fn context(tls: &Tls) -> Vec<u8> {
    let Some(asked) = &tls.client_certificates else { return Vec::new() };
    let mut digest = Sha256::new();
    digest.update([u8::from(asked.required)]);
    for root in &asked.roots {
        digest.update((root.len() as u64).to_be_bytes());
        digest.update(root);
    }
    digest.finalize().to_vec()
}

/// `Strict-Transport-Security` (RFC 6797 section 6.1).
pub fn hsts(hsts: &Hsts) -> Option<HeaderValue> {
    let mut text = format!("max-age={}", hsts.max_age.as_secs());
    for (is_on, directive) in
        [(hsts.include_subdomains, "; includeSubDomains"), (hsts.preload, "; preload")]
    {
        if is_on {
            text.push_str(directive);
        }
    }
    HeaderValue::try_from(text).ok()
}
