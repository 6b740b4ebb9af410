//! What is known of a connection after its handshake, for the request path and the log.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{HeaderName, HeaderValue};
use rustls::{ProtocolVersion, ServerConnection};
use rustls_pki_types::CertificateDer;
use sha2::{Digest, Sha256};

use crate::config::types::{ClientCertificates, Tls};

/// A connection's session.
#[derive(Debug)]
pub struct Session {
    /// Such as `1.3`.
    pub version: &'static str,
    /// The name of the cipher suite, as IANA has it but for `TLS13_`.
    pub cipher: &'static str,
    /// The host that the client named, in lower case.
    pub sni: Option<Box<str>>,
    /// `Strict-Transport-Security` of its answers.
    pub hsts: Option<HeaderValue>,
    /// What instances are told of the client's certificate.
    pub certificate: Box<[(HeaderName, HeaderValue)]>,
}

impl Session {
    /// What `connection` has come to, at a listener that asks for what `tls` says.
    pub fn of(connection: &ServerConnection, tls: &Tls) -> Self {
        let version = match connection.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => "1.2",
            Some(ProtocolVersion::TLSv1_3) => "1.3",
            Some(_) | None => "",
        };
        let cipher = connection.negotiated_cipher_suite();
        let certificate = connection.peer_certificates().and_then(<[_]>::first);
        let asked = tls.client_certificates.as_ref();
        Self {
            version,
            cipher: cipher.and_then(|suite| suite.suite().as_str()).unwrap_or_default(),
            sni: connection.server_name().map(Into::into),
            hsts: tls.hsts.as_ref().and_then(super::server::hsts),
            certificate: asked
                .zip(certificate)
                .map(|(asked, certificate)| told(asked, certificate))
                .unwrap_or_default(),
        }
    }
}

/// What instances are told of a certificate.
fn told(
    asked: &ClientCertificates,
    certificate: &CertificateDer<'_>,
) -> Box<[(HeaderName, HeaderValue)]> {
    // RFC 9440 section 2.1: a byte sequence of RFC 8941 section 3.3.5.
    let whole = || format!(":{}:", STANDARD.encode(certificate));
    let digest = || Sha256::digest(certificate).iter().map(|byte| format!("{byte:02x}")).collect();
    let fields: [(&Option<String>, &dyn Fn() -> String); 2] =
        [(&asked.certificate_header, &whole), (&asked.fingerprint_header, &digest)];
    let field = |(name, value): (&Option<String>, &dyn Fn() -> String)| {
        let name = HeaderName::try_from(name.as_deref()?).ok()?;
        Some((name, HeaderValue::try_from(value()).ok()?))
    };
    fields.into_iter().filter_map(field).collect()
}
