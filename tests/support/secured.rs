//! TLS in front of a backend, in the test's own process, and authorities whose certificates are made
//! for one test.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{HandshakeKind, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;

/// Who signs certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub pem: String,
}

/// A certificate and its key, in PEM.
#[derive(Debug, Clone)]
pub struct Issued {
    pub cert: String,
    pub key: String,
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A certificate for this host name or address.
    pub fn issue(&self, name: &str) -> Issued {
        self.issue_as(name, |_params| {})
    }

    /// A certificate that was good until yesterday.
    pub fn issue_expired(&self, name: &str) -> Issued {
        self.issue_as(name, |params| {
            params.not_before = rcgen::date_time_ymd(2020, 1, 1);
            params.not_after = rcgen::date_time_ymd(2020, 1, 2);
        })
    }

    fn issue_as(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Issued {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        change(&mut params);
        let cert = params.signed_by(&key, &self.issuer).unwrap().pem();
        Issued { cert, key: key.serialize_pem() }
    }
}

impl Issued {
    /// Writes both into a folder.
    pub fn write(&self, folder: &Path, cert: &str, key: &str) {
        std::fs::write(folder.join(cert), &self.cert).unwrap();
        std::fs::write(folder.join(key), &self.key).unwrap();
    }

    /// A server that shows it, and asks clients for one of `clients`.
    pub fn server(&self, clients: Option<&Authority>, alpn: &[&str]) -> ServerConfig {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots.add(certificate(&authority.pem)).unwrap();
                let roots = Arc::new(roots);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap();
        let mut config = builder.with_single_cert(vec![certificate(&self.cert)], key).unwrap();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        config
    }
}

fn certificate(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

/// A handshake as the server saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shaken {
    pub server_name: Option<String>,
    pub alpn: Option<String>,
    pub resumed: bool,
    /// Whether the client showed a certificate.
    pub known: bool,
}

/// How a connection is met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Manners {
    #[default]
    Good,
    /// Accepted, and never answered.
    Silent,
    /// Closed when the client's first message is there.
    Curt,
    /// Without a goodbye at the end.
    Abrupt,
}

#[derive(Debug, Default)]
struct Seen {
    handshakes: Mutex<Vec<Shaken>>,
    failures: Mutex<Vec<String>>,
    /// Whether the last client that ended said so in TLS.
    goodbyes: Mutex<Vec<bool>>,
    manners: Mutex<Manners>,
}

/// TLS in front of a backend; it stops when dropped.
pub struct Secured {
    pub address: SocketAddr,
    config: Arc<Mutex<Arc<ServerConfig>>>,
    seen: Arc<Seen>,
    acceptor: AbortHandle,
}

impl Secured {
    /// Speaks TLS as `config` says, and plainly to `backend`.
    pub async fn start(backend: SocketAddr, config: ServerConfig) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let config = Arc::new(Mutex::new(Arc::new(config)));
        let seen = Arc::new(Seen::default());
        let (shared, state) = (Arc::clone(&config), Arc::clone(&seen));
        let task = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                let (config, state) = (Arc::clone(&shared.lock().unwrap()), Arc::clone(&state));
                tokio::spawn(async move { serve(stream, config, backend, &state).await });
            }
        });
        Self { address, config, seen, acceptor: task.abort_handle() }
    }

    /// New connections meet this from now on.
    pub fn shows(&self, config: ServerConfig) {
        *self.config.lock().unwrap() = Arc::new(config);
    }

    pub fn behaves(&self, manners: Manners) {
        *self.seen.manners.lock().unwrap() = manners;
    }

    pub fn handshakes(&self) -> Vec<Shaken> {
        self.seen.handshakes.lock().unwrap().clone()
    }

    /// Why handshakes failed.
    pub fn failures(&self) -> Vec<String> {
        self.seen.failures.lock().unwrap().clone()
    }

    /// For each connection that the client ended, whether it said so in TLS.
    pub fn goodbyes(&self) -> Vec<bool> {
        self.seen.goodbyes.lock().unwrap().clone()
    }
}

impl Drop for Secured {
    fn drop(&mut self) {
        self.acceptor.abort();
    }
}

async fn serve(mut stream: TcpStream, config: Arc<ServerConfig>, backend: SocketAddr, seen: &Seen) {
    let manners = *seen.manners.lock().unwrap();
    match manners {
        Manners::Silent => {
            let mut rest = Vec::new();
            drop(stream.read_to_end(&mut rest).await);
            return;
        }
        Manners::Curt => {
            drop(stream.readable().await);
            return;
        }
        Manners::Good | Manners::Abrupt => {}
    }
    let mut secured = match TlsAcceptor::from(config).accept(stream).await {
        Ok(secured) => secured,
        Err(error) => {
            seen.failures.lock().unwrap().push(error.to_string());
            return;
        }
    };
    let session = secured.get_ref().1;
    seen.handshakes.lock().unwrap().push(Shaken {
        server_name: session.server_name().map(str::to_owned),
        alpn: session.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned()),
        resumed: session.handshake_kind() == Some(HandshakeKind::Resumed),
        known: session.peer_certificates().is_some(),
    });
    let mut plain = TcpStream::connect(backend).await.expect("the backend listens");
    if manners == Manners::Abrupt {
        let (mut from, mut to) = plain.split();
        let (mut reads, mut writes) = tokio::io::split(secured);
        tokio::select! {
            _ = tokio::io::copy(&mut reads, &mut to) => {}
            _ = tokio::io::copy(&mut from, &mut writes) => {}
        }
        return;
    }
    let ended = copy_bidirectional(&mut secured, &mut plain).await;
    let cut = ended.is_err_and(|error| error.kind() == std::io::ErrorKind::UnexpectedEof);
    seen.goodbyes.lock().unwrap().push(!cut);
}
