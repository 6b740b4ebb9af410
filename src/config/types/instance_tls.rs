//! TLS on the way to instances: what is to be proved to whom, with the certificates themselves.
//!
//! Whoever reads the configuration has read the files too, so that nobody else has to.

use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::sign::CertifiedKey;

use super::CaRoots;

/// How connections to the instances of a version are secured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceTls {
    /// The file of the authorities that are trusted; `None` for the system's.
    pub ca: Option<PathBuf>,
    /// Those authorities; none where nothing is verified.
    pub roots: Arc<[CertificateDer<'static>]>,
    /// The name that certificates must have, and that instances are asked for; `None` for the host
    /// of the instance's address.
    pub server_name: Option<ServerName<'static>>,
    /// Whether certificates are verified.
    pub verify: bool,
    /// What Burdock shows to instances that ask for it.
    pub certificate: Option<ClientCertificate>,
}

impl InstanceTls {
    /// Verified by these authorities, and nothing shown of ourselves.
    pub fn trusting(ca: &CaRoots) -> Self {
        Self {
            ca: ca.file.clone(),
            roots: Arc::clone(&ca.roots),
            server_name: None,
            verify: true,
            certificate: None,
        }
    }

    /// The name that the certificate of the instance at `address` must have.
    pub fn name_at(&self, address: &str) -> Option<ServerName<'static>> {
        if self.server_name.is_some() {
            return self.server_name.clone();
        }
        let host = address.rsplit_once(':').map_or(address, |(host, _port)| host);
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        match bare.map(str::parse::<Ipv6Addr>) {
            Some(address) => Some(ServerName::IpAddress(address.ok()?.into())),
            None => ServerName::try_from(host.to_owned()).ok(),
        }
    }
}

/// A certificate of Burdock's own, and its key.
#[derive(Clone)]
pub struct ClientCertificate {
    /// The file of the certificate, and of those between it and an authority.
    pub cert: PathBuf,
    /// The file of its key.
    pub key: PathBuf,
    /// Both of them.
    pub signer: Arc<CertifiedKey>,
}

impl PartialEq for ClientCertificate {
    fn eq(&self, other: &Self) -> bool {
        // A key that fits the same certificate is the same key.
        (&self.cert, &self.key, &self.signer.cert) == (&other.cert, &other.key, &other.signer.cert)
    }
}

impl Eq for ClientCertificate {}

impl std::fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientCertificate")
            .field("cert", &self.cert)
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_asked_for_by_host_or_by_address() {
        let mut tls = InstanceTls::trusting(&CaRoots { file: None, roots: Arc::new([]) });
        let name = |tls: &InstanceTls, address: &str| {
            tls.name_at(address).map(|name| name.to_str().into_owned())
        };
        for (address, expected) in [
            ("a.example:443", Some("a.example")),
            ("_a:443", Some("_a")),
            ("10.0.0.1:443", Some("10.0.0.1")),
            ("[::1]:443", Some("::1")),
            ("a..b:443", None),
        ] {
            assert_eq!(name(&tls, address).as_deref(), expected, "{address}");
        }
        tls.server_name = ServerName::try_from("b.example").ok();
        assert_eq!(name(&tls, "10.0.0.1:443").as_deref(), Some("b.example"));
    }
}
