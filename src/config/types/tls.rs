//! TLS on listeners: what was read from the files that the configuration names.
//!
//! Keys are secrets: nothing here shows one.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::Acme;

/// How a listener speaks TLS.
#[derive(Debug, Clone, PartialEq)]
pub struct Tls {
    /// At least one, or else `acme` is there; the first is for clients that name no host, or one that
    /// no certificate has.
    pub certificates: Vec<Certificate>,
    /// More of them, which Burdock gets by itself.
    pub acme: Option<Acme>,
    /// The oldest version that is spoken.
    pub min_version: TlsVersion,
    /// What resumes a session.
    pub tickets: Tickets,
    /// Whether clients are asked for a certificate.
    pub client_certificates: Option<ClientCertificates>,
    /// From the accept to the end of the handshake.
    pub handshake_timeout: Duration,
    /// `Strict-Transport-Security` of answers that have none (RFC 6797).
    pub hsts: Option<Hsts>,
}

impl Tls {
    /// The default of `handshake_timeout`.
    pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
}

/// A certificate with its chain and its key.
#[derive(Clone, PartialEq)]
pub struct Certificate {
    /// The file of the chain, in PEM.
    pub cert: PathBuf,
    /// The file of the key, in PEM.
    pub key: PathBuf,
    /// The file of an OCSP response, in DER.
    pub ocsp: Option<PathBuf>,
    /// The host names in it, in lower case; `*.` may be the first label.
    pub names: Vec<String>,
    /// When it expires, in seconds since the Unix epoch.
    pub not_after: u64,
    /// The certificate, then those that lead to its root.
    pub chain: Vec<CertificateDer<'static>>,
    /// What its key signs with.
    pub kind: KeyKind,
    /// The key that belongs to it.
    pub private_key: Arc<PrivateKeyDer<'static>>,
    /// Stapled to it (RFC 6066 section 8).
    pub response: Option<Vec<u8>>,
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("cert", &self.cert)
            .field("key", &self.key)
            .field("ocsp", &self.ocsp)
            .field("names", &self.names)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// What a key signs with, those that go first being the better ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyKind {
    /// RFC 8032.
    Ed25519,
    /// On a curve of NIST.
    Ecdsa,
    /// Slow, and known to every client.
    Rsa,
}

impl KeyKind {
    /// Its name in messages.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ed25519 => "Ed25519",
            Self::Ecdsa => "ECDSA",
            Self::Rsa => "RSA",
        }
    }
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TlsVersion {
    /// RFC 5246.
    #[default]
    Tls12,
    /// RFC 8446.
    Tls13,
}

impl TlsVersion {
    /// Every version with its word in the configuration.
    pub const WORDS: [(&'static str, Self); 2] = [("1.2", Self::Tls12), ("1.3", Self::Tls13)];
}

/// What seals session tickets.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Tickets {
    /// Keys that the process makes, all workers share, and time replaces.
    #[default]
    Auto,
    /// There are none: no session is resumed.
    Off,
    /// Keys that replicas share.
    Shared {
        /// A file with one base64 key of 32 bytes per line, read again at each reload.
        file: PathBuf,
        /// Newest first; at least one.
        keys: Vec<[u8; 32]>,
    },
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("Auto"),
            Self::Off => f.write_str("Off"),
            Self::Shared { file, keys } => {
                f.debug_struct("Shared").field("file", file).field("keys", &keys.len()).finish()
            }
        }
    }
}

/// What is asked of clients.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientCertificates {
    /// The file of those whose signature counts, in PEM.
    pub ca: PathBuf,
    /// What is in it; at least one.
    pub roots: Vec<CertificateDer<'static>>,
    /// Whether a client without one is refused.
    pub required: bool,
    /// The field that tells instances of the certificate (RFC 9440), by its lower-case name.
    pub certificate_header: Option<String>,
    /// The field that tells them of its SHA-256, by its lower-case name.
    pub fingerprint_header: Option<String>,
}

impl ClientCertificates {
    /// The default of `certificate_header` (RFC 9440 section 2.2).
    pub const CERTIFICATE_HEADER: &'static str = "client-cert";

    /// The fields that only Burdock may fill.
    pub fn headers(&self) -> impl Iterator<Item = &str> {
        [&self.certificate_header, &self.fingerprint_header]
            .into_iter()
            .filter_map(Option::as_deref)
    }
}

impl fmt::Debug for ClientCertificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientCertificates")
            .field("ca", &self.ca)
            .field("roots", &self.roots.len())
            .field("required", &self.required)
            .field("certificate_header", &self.certificate_header)
            .field("fingerprint_header", &self.fingerprint_header)
            .finish()
    }
}

/// What browsers are told to remember: to come by https only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hsts {
    /// For how long.
    pub max_age: Duration,
    /// Whether it holds for all hosts below as well.
    pub include_subdomains: bool,
    /// Whether browsers may ship it in their lists.
    pub preload: bool,
}

impl Default for Hsts {
    fn default() -> Self {
        let max_age = Duration::from_secs(365 * 86_400);
        Self { max_age, include_subdomains: false, preload: false }
    }
}

/// What a plain listener answers instead of passing requests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HttpsRedirect {
    /// 301, 302, 307 or 308.
    pub status: u16,
    /// Where https is spoken; 443 is left out of the URL.
    pub port: u16,
}

impl Default for HttpsRedirect {
    fn default() -> Self {
        Self { status: 308, port: 443 }
    }
}
