//! TLS towards instances.
//!
//! A [`Connector`] is made of what a version says; a [`Target`] is it, aimed at one instance, whose
//! sessions it resumes. Probes resume none: each is to see the certificate as it is now.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::SingleCertAndKey;
use rustls::{
    AlertDescription, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::config::types::InstanceTls;

/// Sessions kept for one instance; a server of TLS 1.3 gives out a few at a time.
const SESSIONS: usize = 8;

/// What is spoken inside (RFC 7301).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alpn {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
    /// Nothing that is named.
    None,
}

impl Alpn {
    fn names(self) -> Vec<Vec<u8>> {
        match self {
            Self::Http1 => vec![b"http/1.1".to_vec()],
            Self::Http2 => vec![b"h2".to_vec()],
            Self::None => Vec::new(),
        }
    }
}

/// What connections to the instances of a version are secured with.
#[derive(Debug)]
pub struct Connector {
    tls: InstanceTls,
    /// Resumes nothing.
    config: ClientConfig,
}

impl Connector {
    /// One that does what `tls` says.
    pub fn new(tls: &InstanceTls) -> Self {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("ring has suites for both versions of TLS");
        let builder = if tls.verify {
            let mut roots = RootCertStore::empty();
            // The system may have some that are of no use.
            roots.add_parsable_certificates(tls.roots.iter().cloned());
            builder.with_root_certificates(roots)
        } else {
            let verifier = Arc::new(Unverified(provider));
            builder.dangerous().with_custom_certificate_verifier(verifier)
        };
        let mut config = match &tls.certificate {
            Some(certificate) => {
                let signer = SingleCertAndKey::from(Arc::clone(&certificate.signer));
                builder.with_client_cert_resolver(Arc::new(signer))
            }
            None => builder.with_no_client_auth(),
        };
        config.resumption = Resumption::disabled();
        Self { tls: tls.clone(), config }
    }

    /// For requests to the instance at `address`.
    pub fn target(&self, address: &str) -> Target {
        let mut config = self.config.clone();
        config.resumption = Resumption::in_memory_sessions(SESSIONS);
        Target { config: Arc::new(config), name: self.tls.name_at(address) }
    }

    /// For connections to it that know nothing of earlier ones.
    pub fn stranger(&self, address: &str) -> Target {
        Target { config: Arc::new(self.config.clone()), name: self.tls.name_at(address) }
    }
}

/// What connections to one instance are secured with.
#[derive(Debug, Clone)]
pub struct Target {
    config: Arc<ClientConfig>,
    /// `None` where its host is nothing that a certificate could name.
    name: Option<ServerName<'static>>,
}

impl Target {
    /// Shakes hands on a new connection. A server that knows no ALPN says nothing of it, and is
    /// taken to speak HTTP/1.1 (RFC 9113 section 3.2 asks for it to be named).
    pub async fn secure(&self, stream: TcpStream, alpn: Alpn) -> io::Result<ToInstance> {
        let nameless = || io::Error::other("no certificate can have its host as a name");
        let name = self.name.clone().ok_or_else(nameless)?;
        let connector = TlsConnector::from(Arc::clone(&self.config));
        let secured = connector.with_alpn(alpn.names()).connect(name, stream).await?;
        let secured = ToInstance(secured);
        if alpn == Alpn::Http2 && secured.0.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Err(io::Error::other("the instance does not offer HTTP/2 by ALPN"));
        }
        Ok(secured)
    }
}

/// A secured connection to an instance. Dropped, it says goodbye (RFC 8446 section 6.1) if that goes
/// without waiting.
#[derive(Debug)]
pub struct ToInstance(TlsStream<TcpStream>);

impl Drop for ToInstance {
    fn drop(&mut self) {
        let (stream, session) = self.0.get_mut();
        session.send_close_notify();
        let mut socket = Unwaiting(stream);
        while session.wants_write() && session.write_tls(&mut socket).is_ok_and(|size| size > 0) {}
    }
}

/// A socket that is written to as far as it takes it.
struct Unwaiting<'a>(&'a TcpStream);

impl io::Write for Unwaiting<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsyncRead for ToInstance {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for ToInstance {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }
}

/// Whether the error says that an instance refused what Burdock showed of itself. In TLS 1.3 that
/// comes after the handshake, in the place of an answer, and before anything of the request was
/// looked at (RFC 8446 section 4.4.2.4).
pub fn is_refusal(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(cause) = next {
        // An I/O error is not the source of what it wraps, but the same thing.
        let io = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let told = io.and_then(|inner| inner.downcast_ref::<rustls::Error>());
        if let Some(rustls::Error::AlertReceived(alert)) = told.or(cause.downcast_ref()) {
            return refuses(*alert);
        }
        next = cause.source();
    }
    false
}

fn refuses(alert: AlertDescription) -> bool {
    use AlertDescription as Alert;
    matches!(
        alert,
        Alert::CertificateRequired
            | Alert::NoCertificate
            | Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::AccessDenied
            | Alert::DecryptError
            | Alert::HandshakeFailure
    )
}

/// Takes any certificate, but only from who has its key.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
