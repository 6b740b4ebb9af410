//! Certificates that a listener gets for itself from a CA that speaks ACME (RFC 8555).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::CertificateDer;

/// What is asked of which CA, and how it may look whether the hosts are ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acme {
    /// Hosts in lower case, at least one, without wildcards; each gets a certificate of its own.
    pub domains: Vec<String>,
    /// Whom the CA may write to.
    pub email: Option<String>,
    /// Where the CA says what it offers; `https://`.
    pub directory: String,
    /// How the CA looks.
    pub challenge: Challenge,
    /// Who vouches for the CA itself.
    pub ca: CaRoots,
    /// The folder of the account, its key, the certificates and their keys.
    pub state: PathBuf,
    /// How long before its end a certificate is replaced; `None` for a third of its life.
    pub renew_before: Option<Duration>,
    /// What the CA knows us by already, if it asks for that (RFC 8555 section 7.3.4).
    pub external_account: Option<ExternalAccount>,
}

impl Acme {
    /// The default of `directory`: Let's Encrypt.
    pub const DIRECTORY: &'static str = "https://acme-v02.api.letsencrypt.org/directory";
}

/// How the CA looks whether a host is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Challenge {
    /// It asks for a file by HTTP at port 80 (RFC 8555 section 8.3).
    Http01,
    /// It shakes hands at port 443 (RFC 8737).
    #[default]
    TlsAlpn01,
}

impl Challenge {
    /// Every challenge with its word in the configuration, which is also its name in ACME.
    pub const WORDS: [(&'static str, Self); 2] =
        [("tls-alpn-01", Self::TlsAlpn01), ("http-01", Self::Http01)];

    /// Its name.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Http01 => "http-01",
            Self::TlsAlpn01 => "tls-alpn-01",
        }
    }
}

/// Who vouches for a CA's own directory.
#[derive(Clone, PartialEq, Eq)]
pub struct CaRoots {
    /// The file, in PEM; `None` for those that the system trusts.
    pub file: Option<PathBuf>,
    /// What is in it; at least one.
    pub roots: Arc<[CertificateDer<'static>]>,
}

impl std::fmt::Debug for CaRoots {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let count = self.roots.len();
        f.debug_struct("CaRoots").field("file", &self.file).field("roots", &count).finish()
    }
}

/// An account that was made with the CA by other means.
#[derive(Clone, PartialEq, Eq)]
pub struct ExternalAccount {
    /// Its name there.
    pub key_id: String,
    /// The file of its key, in base64url.
    pub key_file: PathBuf,
    /// What is in it.
    pub key: Vec<u8>,
}

impl std::fmt::Debug for ExternalAccount {
    /// The key is a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExternalAccount")
            .field("key_id", &self.key_id)
            .field("key_file", &self.key_file)
            .finish_non_exhaustive()
    }
}
