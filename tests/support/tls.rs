//! Certificates that are made for one test, and a client that speaks TLS. What it reads and writes is
//! a socket of the harness, whose other end is the connection.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::client::Resumption;
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::wire::Conn;
use super::within;

/// Somebody who signs certificates.
#[derive(Debug)]
pub struct Authority {
    params: CertificateParams,
    key: KeyPair,
    pub certificate: CertificateDer<'static>,
    pub pem: String,
}

/// A certificate with its key.
#[derive(Debug)]
pub struct Issued {
    pub certificate: CertificateDer<'static>,
    pub pem: String,
    pub key: KeyPair,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self { params, key, pem: certificate.pem(), certificate: certificate.der().clone() }
    }

    /// Signs a certificate for these hosts.
    pub fn issue(&self, names: &[&str]) -> Issued {
        self.sign(names, |_| {})
    }

    pub fn sign(&self, names: &[&str], alter: impl Fn(&mut CertificateParams)) -> Issued {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        alter(&mut params);
        let key = KeyPair::generate().unwrap();
        let issuer = rcgen::Issuer::from_params(&self.params, &self.key);
        let certificate = params.signed_by(&key, &issuer).unwrap();
        Issued { pem: certificate.pem(), certificate: certificate.der().clone(), key }
    }

    /// A client that trusts this one, and nobody else.
    pub fn client(&self) -> Tls {
        Tls { roots: vec![self.certificate.clone()], ..Tls::default() }
    }
}

impl Issued {
    /// Writes `NAME.pem` and `NAME.key`; each is replaced in one rename, the key first.
    pub fn save(&self, folder: &Path, name: &str) {
        for (end, text) in [("key", self.key.serialize_pem()), ("pem", self.pem.clone())] {
            let beside = folder.join(format!(".{name}.{end}.new"));
            std::fs::write(&beside, text).unwrap();
            std::fs::rename(&beside, folder.join(format!("{name}.{end}"))).unwrap();
        }
    }
}

/// How a client speaks TLS.
#[derive(Debug, Clone, Default)]
pub struct Tls {
    roots: Vec<CertificateDer<'static>>,
    protocols: Vec<Vec<u8>>,
    versions: Option<&'static SupportedProtocolVersion>,
    identity: Option<(CertificateDer<'static>, Vec<u8>)>,
}

impl Tls {
    /// Trusts the certificate in `pem`, and nothing else.
    pub fn trusting(pem: &[u8]) -> Self {
        let root = CertificateDer::from_pem_slice(pem).expect("a certificate");
        Self { roots: vec![root], ..Self::default() }
    }

    #[must_use]
    pub fn alpn(mut self, protocol: &str) -> Self {
        self.protocols.push(protocol.as_bytes().to_vec());
        self
    }

    #[must_use]
    pub fn only(mut self, version: &'static SupportedProtocolVersion) -> Self {
        self.versions = Some(version);
        self
    }

    /// Shows this certificate when asked.
    #[must_use]
    pub fn showing(mut self, certificate: &Issued) -> Self {
        self.identity = Some((certificate.certificate.clone(), certificate.key.serialize_der()));
        self
    }

    /// What sessions are remembered in.
    pub fn config(&self) -> Arc<ClientConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        for root in &self.roots {
            roots.add(root.clone()).unwrap();
        }
        let versions: &[_] = match &self.versions {
            Some(version) => &[*version],
            None => rustls::ALL_VERSIONS,
        };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let key = PrivateKeyDer::try_from(key.clone()).unwrap();
                builder.with_client_auth_cert(vec![certificate.clone()], key).unwrap()
            }
        };
        config.alpn_protocols.clone_from(&self.protocols);
        config.resumption = Resumption::in_memory_sessions(8);
        Arc::new(config)
    }

    /// A connection on which the handshake is over.
    pub async fn connect(&self, address: SocketAddr, host: &str) -> TlsStream<TcpStream> {
        connect(&self.config(), address, host).await.expect("a handshake")
    }

    /// Why there is none.
    pub async fn refused(&self, address: SocketAddr, host: &str) -> String {
        match connect(&self.config(), address, host).await {
            Err(error) => error.to_string(),
            // RFC 8446: a client has finished before the server has looked at its certificate.
            Ok(mut stream) => match within("an end", stream.read_u8()).await {
                Err(error) => error.to_string(),
                Ok(byte) => panic!("a byte instead of an end: {byte}"),
            },
        }
    }

    /// The same as a socket of the harness.
    pub async fn conn(&self, address: SocketAddr, host: &str) -> Conn {
        bridge(self.connect(address, host).await).await
    }
}

/// Connects; sessions are remembered in `config`.
pub async fn connect(
    config: &Arc<ClientConfig>,
    address: SocketAddr,
    host: &str,
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from(host.to_owned()).expect("a name of a host");
    let connector = TlsConnector::from(Arc::clone(config));
    within("a handshake", connector.connect(name, stream)).await
}

/// The hosts in the certificate that was shown.
pub fn shown(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().expect("a certificate")[0].clone().into_owned()
}

/// A socket whose other end is `stream`.
pub async fn bridge(stream: TlsStream<TcpStream>) -> Conn {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let here = TcpStream::connect(listener.local_addr().unwrap()).await.expect("connect");
    let (there, _) = listener.accept().await.expect("accept");
    let (mut read, mut write) = there.into_split();
    let (mut from, mut to) = tokio::io::split(stream);
    tokio::spawn(async move {
        if tokio::io::copy(&mut read, &mut to).await.is_ok() {
            drop(to.shutdown().await);
        }
    });
    tokio::spawn(async move {
        // An end that is none is passed on as a reset.
        match tokio::io::copy(&mut from, &mut write).await {
            Ok(_) => drop(write.shutdown().await),
            Err(_cut) => {
                let socket = socket2::SockRef::from(write.as_ref());
                drop(socket.set_linger(Some(std::time::Duration::ZERO)));
            }
        }
    });
    Conn::new(here)
}
