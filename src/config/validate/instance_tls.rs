//! `tls` of a version and of a check: authorities, names, and a certificate of Burdock's own.
//!
//! Every certificate and key is read and looked at here, so that a bad one is refused with the
//! configuration and not met by a request. No message repeats a key.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::CertifiedKey;

use crate::config::node::{Fields, Node};
use crate::config::read;
use crate::config::tree::Data;
use crate::config::types::{CheckTls, ClientCertificate, InstanceTls};

/// `tls` of a version.
pub(super) fn of_version(fields: &mut Fields<'_>) -> Option<InstanceTls> {
    fields.switched("tls", |node| tls(node, "off, true, { ca, server_name, verify, cert, key }"))
}

/// `tls` of a check.
pub(super) fn of_check(node: &Node<'_>) -> Option<CheckTls> {
    let allowed = "auto, off, on, { ca, server_name, verify, cert, key }";
    match node.as_text() {
        Some("auto") => Some(CheckTls::Auto),
        Some("on") => with_defaults(node).map(CheckTls::On),
        _ if node.is_off() => Some(CheckTls::Off),
        _ => tls(node, allowed).map(CheckTls::On),
    }
}

fn tls(node: &Node<'_>, allowed: &str) -> Option<InstanceTls> {
    match node.tree.data {
        Data::Bool(true) => with_defaults(node),
        Data::Map(_) => from_map(node),
        _ => node.wrong(allowed),
    }
}

fn with_defaults(node: &Node<'_>) -> Option<InstanceTls> {
    let roots = system_roots(node)?;
    Some(InstanceTls { ca: None, roots, server_name: None, verify: true, certificate: None })
}

fn from_map(node: &Node<'_>) -> Option<InstanceTls> {
    let mut fields = node.fields("instance tls")?;
    let is_given = |node: &Node<'_>| node.as_text() != Some("none");
    let ca = fields.take("ca").filter(is_given);
    let server_name = fields.optional("server_name", None, |node| {
        let name = |text: &str| ServerName::try_from(text.to_owned()).ok();
        node.parsed("a host name or an IP address, none", name)
    });
    let verify = fields.boolean("verify", true);
    let cert = fields.take("cert").filter(is_given);
    let key = fields.take("key").filter(is_given);
    fields.finish();
    let ca_file = ca.as_ref().and_then(|node| file(node, "the path of a PEM file"));
    let roots = match (&ca, &ca_file) {
        (Some(node), Some((path, text))) => authorities(node, path, text),
        (Some(_), None) => None,
        (None, _) if verify => system_roots(node),
        (None, _) => Some(Arc::default()),
    };
    let certificate = match (&cert, &key) {
        (Some(cert), Some(key)) => certificate(cert, key),
        (Some(node), None) => node.wrong_alone("key"),
        (None, Some(node)) => node.wrong_alone("cert"),
        (None, None) => None,
    };
    let ca = ca_file.map(|(path, _)| absolute(path));
    Some(InstanceTls { ca, roots: roots?, server_name, verify, certificate })
}

impl Node<'_> {
    fn wrong_alone<T>(&self, other: &str) -> Option<T> {
        self.problem(format_args!("`{other}` is missing beside it; allowed: both or neither"));
        None
    }
}

/// The authorities of the system, read once for each reading of the configuration.
pub(super) fn system_roots(node: &Node<'_>) -> Option<Arc<[CertificateDer<'static>]>> {
    match node.sink.system_roots.get_or_init(read::system_roots) {
        Ok(roots) => Some(Arc::clone(roots)),
        Err(why) => {
            node.problem(format_args!(
                "the system has no certificates of authorities: {why}; needed: `ca`, a PEM file"
            ));
            None
        }
    }
}

pub(super) fn file(node: &Node<'_>, allowed: &str) -> Option<(PathBuf, String)> {
    let path = node.sink.resolve(node.text(allowed)?);
    node.sink.watch(&path);
    match read::text(&path) {
        Ok(text) => Some((path, text)),
        Err(error) => {
            node.problem(format_args!(
                "cannot read {}: {error}; needed: {allowed}",
                path.display()
            ));
            None
        }
    }
}

/// The certificates in a file; at least one.
fn certificates(node: &Node<'_>, path: &Path, text: &str) -> Option<Vec<CertificateDer<'static>>> {
    let read: Result<Vec<_>, pem::Error> =
        CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    let problem = match read {
        Ok(found) if !found.is_empty() => return Some(found),
        Ok(_) => "no certificate in it".to_owned(),
        Err(error) => error.to_string(),
    };
    node.problem(format_args!("{}: {problem}; needed: certificates in PEM", path.display()));
    None
}

pub(super) fn authorities(
    node: &Node<'_>,
    path: &Path,
    text: &str,
) -> Option<Arc<[CertificateDer<'static>]>> {
    let found = certificates(node, path, text)?;
    let mut store = RootCertStore::empty();
    for (index, certificate) in found.iter().enumerate() {
        if let Err(error) = store.add(certificate.clone()) {
            node.problem(format_args!(
                "{}: certificate {} cannot be trusted: {error}; needed: certificates of authorities",
                path.display(),
                index + 1
            ));
            return None;
        }
    }
    Some(found.into())
}

pub(super) fn certificate(cert: &Node<'_>, key: &Node<'_>) -> Option<ClientCertificate> {
    let chain = file(cert, "the path of a PEM file");
    let chain = chain.and_then(|(path, text)| Some((certificates(cert, &path, &text)?, path)));
    let (key_path, text) = file(key, "the path of a PEM file")?;
    let (chain, cert_path) = chain?;
    let Ok(secret) = PrivateKeyDer::from_pem_slice(text.as_bytes()) else {
        let path = key_path.display();
        key.problem(format_args!(
            "{path}: no private key in it; needed: one in PEM, not encrypted"
        ));
        return None;
    };
    match CertifiedKey::from_der(chain, secret, &rustls::crypto::ring::default_provider()) {
        Ok(signer) => Some(ClientCertificate {
            cert: absolute(cert_path),
            key: absolute(key_path),
            signer: Arc::new(signer),
        }),
        Err(error) => {
            let path = key_path.display();
            key.problem(format_args!(
                "{path}: cannot be used with {}: {error}; needed: the key of that certificate",
                cert_path.display()
            ));
            None
        }
    }
}

/// The same file from whatever folder the effective configuration is loaded again.
fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}
