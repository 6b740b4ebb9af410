//! `tls` and `https_redirect` of a listener: what the files that they name hold, and whether it goes
//! together.
//!
//! Keys are secrets: no message repeats what is in a file.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::acme;
use super::keys::{absolute, key_file};
use super::names::is_token;
use super::{LIMIT, WAIT};
use crate::config::node::{Fields, Node};
use crate::config::read;
use crate::config::tree::Data;
use crate::config::types::{
    Certificate, ClientCertificates, Hsts, HttpsRedirect, Tickets, Tls, TlsVersion,
};
use crate::tls::names::{self, Untimely};
use crate::tls::server;

const HSTS_YEAR: Duration = Duration::from_secs(365 * 86_400);

/// How a listener speaks TLS; problems are in the sink.
pub(super) fn tls(node: &Node<'_>) -> Option<Arc<Tls>> {
    let mut fields = node.fields("tls")?;
    let acme = fields.take("acme").filter(|node| !node.is_off());
    let certificates = certificates(&mut fields, acme.is_some());
    let acme = acme.map(|node| acme::acme(&node));
    let min_version = fields.take("min_version").and_then(|node| version(&node));
    let tickets = fields.take("tickets").and_then(|node| tickets(&node));
    let client_certificates = fields.switched("client_certificates", client_certificates);
    let handshake_timeout = fields.duration("handshake_timeout", LIMIT, Tls::HANDSHAKE_TIMEOUT);
    let hsts = fields.switched("hsts", hsts);
    fields.finish();
    Some(Arc::new(Tls {
        certificates: certificates?,
        acme: acme.map_or(Some(None), |acme| acme.map(Some))?,
        min_version: min_version.unwrap_or_default(),
        tickets: tickets.unwrap_or_default(),
        client_certificates,
        handshake_timeout,
        hsts,
    }))
}

/// At least one, unless there will be others.
fn certificates(fields: &mut Fields<'_>, has_others: bool) -> Option<Vec<Certificate>> {
    let Some(node) = fields.take("certificates") else {
        if has_others {
            return Some(Vec::new());
        }
        fields.missing("certificates", "a list of { cert: PATH, key: PATH }");
        return None;
    };
    let items = node.list("{ cert: PATH, key: PATH }")?;
    if items.is_empty() && !has_others {
        node.problem("no certificate; needed: at least one, { cert: PATH, key: PATH }");
    }
    let mut known: Vec<Certificate> = Vec::new();
    for (place, item) in items.iter().enumerate() {
        let Some(certificate) = certificate(item) else { continue };
        if place > 0 && certificate.names.is_empty() {
            let message = "names no host in its subjectAltName, so that no client could ask for it; \
                 allowed: as the first of the list";
            item.problem(message);
        }
        for name in &certificate.names {
            let is_alike =
                |other: &&Certificate| other.kind == certificate.kind && other.names.contains(name);
            if let Some(other) = known.iter().find(is_alike) {
                let (kind, other) = (certificate.kind.word(), other.cert.display());
                item.problem(format_args!(
                    "{name} is also named by {other}, which has an {kind} key too; allowed: one of \
                     each kind, ECDSA and RSA"
                ));
            }
        }
        known.push(certificate);
    }
    (known.len() == items.len() && (has_others || !known.is_empty())).then_some(known)
}

fn certificate(item: &Node<'_>) -> Option<Certificate> {
    let mut fields = item.fields("certificate")?;
    let (cert, key) = (fields.take("cert"), fields.take("key"));
    for (given, key) in [(&cert, "cert"), (&key, "key")] {
        if given.is_none() {
            fields.missing(key, "the path of a PEM file");
        }
    }
    let ocsp = fields.take("ocsp").filter(|node| node.as_text() != Some("none"));
    fields.finish();
    let response = ocsp.as_ref().map(ocsp_response);
    let chain = cert.as_ref().and_then(pem_certificates);
    let private_key = key.as_ref().and_then(private_key);
    let (ocsp, response) = match response {
        Some(read) => read.map(|(path, bytes)| (Some(path), Some(bytes)))?,
        None => (None, None),
    };
    let ((cert_path, chain), (key_path, private_key)) = (chain?, private_key?);
    let names = match names::names(&chain[0]) {
        Ok(names) => names,
        Err(error) => {
            let path = cert_path.display();
            cert?.problem(format_args!("{path} holds no certificate for TLS: {error}"));
            return None;
        }
    };
    let kind = match server::kind(&private_key) {
        Ok(kind) => kind,
        Err(error) => {
            key?.problem(format_args!("{} cannot be used: {error}", key_path.display()));
            return None;
        }
    };
    let certificate = Certificate {
        cert: cert_path,
        key: key_path,
        ocsp,
        names,
        not_after: names::not_after(&chain[0]),
        chain,
        kind,
        private_key: Arc::new(private_key),
        response,
    };
    if let Err(error) = server::certified(&certificate) {
        let path = certificate.cert.display();
        key?.problem(format_args!("not the key of {path}: {error}"));
        return None;
    }
    warn_of_time(item, &certificate);
    Some(certificate)
}

/// A certificate whose time is over may be all there is: it is served, and said to be so.
fn warn_of_time(item: &Node<'_>, certificate: &Certificate) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let why = match names::timely(&certificate.chain[0], now) {
        Ok(()) => return,
        Err(Untimely::Expired) => "has expired",
        Err(Untimely::NotYet) => "is not valid yet",
    };
    let path = certificate.cert.display();
    item.sink.warnings.borrow_mut().push(format!("{}: the certificate {path} {why}", item.path));
}

/// A file and what is in it.
fn file(node: &Node<'_>) -> Option<(PathBuf, Vec<u8>)> {
    let path = node.sink.resolve(node.text("the path of a file")?);
    node.sink.watch(&path);
    match read::bytes(&path) {
        Ok(bytes) => Some((absolute(path), bytes)),
        Err(error) => {
            node.problem(format_args!("cannot read {}: {error}", path.display()));
            None
        }
    }
}

/// Only so much of it is looked at that no other kind of file is stapled.
fn ocsp_response(node: &Node<'_>) -> Option<(PathBuf, Vec<u8>)> {
    const SEQUENCE: u8 = 0x30;
    let (path, bytes) = file(node)?;
    if bytes.first() == Some(&SEQUENCE) {
        return Some((path, bytes));
    }
    node.problem(format_args!("{} holds no OCSP response; needed: DER", path.display()));
    None
}

fn pem_certificates(node: &Node<'_>) -> Option<(PathBuf, Vec<CertificateDer<'static>>)> {
    let (path, bytes) = file(node)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let problem = match found {
        Ok(chain) if chain.is_empty() => "no certificate in it".to_owned(),
        Ok(chain) => return Some((path, chain)),
        Err(error) => error.to_string(),
    };
    let path = path.display();
    node.problem(format_args!("{path}: {problem}; needed: PEM, -----BEGIN CERTIFICATE-----"));
    None
}

fn private_key(node: &Node<'_>) -> Option<(PathBuf, PrivateKeyDer<'static>)> {
    let (path, bytes) = file(node)?;
    if let Ok(key) = PrivateKeyDer::from_pem_slice(&bytes) {
        return Some((path, key));
    }
    // What the parser says might repeat some of it.
    let path = path.display();
    node.problem(format_args!(
        "{path}: no private key in it; needed: PEM without a passphrase, PKCS #8, SEC 1 or PKCS #1"
    ));
    None
}

fn version(node: &Node<'_>) -> Option<TlsVersion> {
    // YAML takes an unquoted one for a number.
    let text = match node.tree.data {
        Data::Float(number) => Some(number.to_string()),
        _ => node.as_text().map(str::to_owned),
    };
    let known = |text: &str| TlsVersion::WORDS.iter().find(|(word, _)| *word == text);
    let found = text.as_deref().and_then(known).map(|(_, version)| *version);
    found.or_else(|| node.wrong("1.2, 1.3"))
}

fn tickets(node: &Node<'_>) -> Option<Tickets> {
    if node.is_off() {
        return Some(Tickets::Off);
    }
    match (&node.tree.data, node.as_text()) {
        (_, Some("auto")) => Some(Tickets::Auto),
        (Data::Map(_), _) => {
            let mut fields = node.fields("tickets")?;
            let file = fields.take("file");
            if file.is_none() {
                fields.missing("file", "the path of a key file");
            }
            fields.finish();
            let (file, keys) = key_file(&file?)?;
            Some(Tickets::Shared { file, keys })
        }
        // Not `wrong`: it would print what may be a key.
        _ => {
            node.problem("not in a form for tickets; allowed: auto, off, { file: PATH }");
            None
        }
    }
}

fn client_certificates(node: &Node<'_>) -> Option<ClientCertificates> {
    let mut fields = node.fields("client_certificates")?;
    let ca = fields.take("ca");
    if ca.is_none() {
        fields.missing("ca", "the path of a PEM file");
    }
    let words = [("required", true), ("optional", false)];
    let required = fields.take("mode").map_or(Some(true), |node| node.word(&words));
    let certificate_header = match fields.take("certificate_header") {
        None => Some(ClientCertificates::CERTIFICATE_HEADER.to_owned()),
        Some(node) if node.is_off() => None,
        Some(node) => field(&node),
    };
    let fingerprint_header = fields.switched("fingerprint_header", field);
    fields.finish();
    if certificate_header.is_some() && certificate_header == fingerprint_header {
        node.problem("both headers have one name; allowed: a name for each");
    }
    let node = ca?;
    let (ca, roots) = pem_certificates(&node)?;
    let asked = ClientCertificates {
        ca,
        roots,
        required: required?,
        certificate_header,
        fingerprint_header,
    };
    if let Err(error) = server::roots(&asked) {
        node.problem(format_args!("{} holds what is no CA: {error}", asked.ca.display()));
        return None;
    }
    Some(asked)
}

/// Fields that mean something to HTTP or to Burdock: a client's would be taken out.
const TAKEN: [&str; 16] = [
    "authorization",
    "connection",
    "content-length",
    "content-type",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "te",
    "transfer-encoding",
    "upgrade",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-request-id",
    "keep-alive",
];

fn field(node: &Node<'_>) -> Option<String> {
    let allowed = "the name of a field of its own, such as X-Client-Cert";
    node.parsed(allowed, |text| {
        let name = text.to_ascii_lowercase();
        (is_token(text) && !TAKEN.contains(&&*name)).then_some(name)
    })
}

fn hsts(node: &Node<'_>) -> Option<Hsts> {
    let default = Hsts::default();
    if matches!(node.tree.data, Data::Bool(true)) {
        return Some(default);
    }
    let mut fields = node.fields("hsts")?;
    let age = fields.take("max_age");
    let max_age = age.as_ref().map_or(Some(default.max_age), |node| node.duration(WAIT));
    let include_subdomains = fields.boolean("include_subdomains", default.include_subdomains);
    let preload = fields.boolean("preload", default.preload);
    fields.finish();
    let max_age = max_age?;
    if let Some(node) = age.filter(|_| max_age.subsec_millis() > 0) {
        node.problem("not whole seconds; allowed: whole seconds");
    }
    if preload && (!include_subdomains || max_age < HSTS_YEAR) {
        node.problem("`preload` is refused by browsers' lists; needed: include_subdomains: true and max_age: 365d");
    }
    Some(Hsts { max_age, include_subdomains, preload })
}

/// Whether and how a plain listener sends clients to https.
pub(super) fn https_redirect(node: &Node<'_>) -> Option<HttpsRedirect> {
    let default = HttpsRedirect::default();
    if matches!(node.tree.data, Data::Bool(true)) {
        return Some(default);
    }
    if !matches!(node.tree.data, Data::Map(_)) {
        return node.wrong("true, false, { status: 308, port: 443 }");
    }
    let mut fields = node.fields("https_redirect")?;
    let status = fields.take("status").map_or(Some(u32::from(default.status)), |node| {
        node.whole("301, 302, 307, 308", |status| [301, 302, 307, 308].contains(status))
    });
    let port = fields.integer("port", 1..=u32::from(u16::MAX), u32::from(default.port));
    fields.finish();
    Some(HttpsRedirect { status: u16::try_from(status?).ok()?, port: u16::try_from(port).ok()? })
}
