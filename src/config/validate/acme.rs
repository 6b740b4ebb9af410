//! `acme` of a listener's `tls`: which certificates it gets for itself, from whom, and by what proof.
//!
//! Keys are secrets: no message repeats what is in a file.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use http::Uri;

use super::instance_tls::{authorities, file, system_roots};
use super::keys::absolute;
use super::names::is_host;
use crate::config::node::{Fields, Node, Sink};
use crate::config::types::{Acme, CaRoots, Challenge, ExternalAccount, Listener};

/// Of one listener: a CA's limits are per week, and a slip of the pen should not reach them.
const MOST_DOMAINS: usize = 100;
/// Where the account and the certificates are kept unless it is said, beside the configuration.
const STATE: &str = "burdock.acme";
const RENEW_BEFORE: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(365 * 86_400);

pub(super) fn acme(node: &Node<'_>) -> Option<Acme> {
    let mut fields = node.fields("acme")?;
    let domains = domains(&mut fields);
    let email = fields.switched("email", email);
    let directory = fields.take("directory");
    let directory = match directory {
        None => Some(Acme::DIRECTORY.to_owned()),
        Some(node) => node.parsed("the https:// URL of an ACME directory", directory_url),
    };
    let challenge = fields.take("challenge");
    let challenge = challenge.map_or(Some(Challenge::default()), |it| it.word(&Challenge::WORDS));
    let ca = ca(&mut fields);
    let state = match fields.take("state") {
        None => Some(node.sink.resolve(STATE)),
        Some(node) => node.text("the path of a folder").map(|path| node.sink.resolve(path)),
    };
    let renew_before = fields.take("renew_before").filter(|node| node.as_text() != Some("auto"));
    let renew_before = renew_before.and_then(|node| node.duration(RENEW_BEFORE));
    let external_account = fields.switched("external_account", external_account);
    let needed = "true, which says that you agree to the CA's terms of service";
    match fields.take("agree_to_terms") {
        None => fields.missing("agree_to_terms", needed),
        Some(node) if node.boolean() == Some(false) => {
            node.problem(format_args!("no CA signs anything without; needed: {needed}"));
        }
        Some(_) => {}
    }
    fields.finish();
    Some(Acme {
        domains: domains?,
        email,
        directory: directory?,
        challenge: challenge?,
        ca: ca?,
        state: absolute(state?),
        renew_before,
        external_account,
    })
}

/// The CA asks for its file by HTTP, and may be sent to it by a redirect from elsewhere.
pub(super) fn warn(sink: &Sink, listeners: &[Listener]) {
    let asks_by_http = |acme: &Acme| acme.challenge == Challenge::Http01;
    let mut acmes = listeners.iter().filter_map(|it| it.tls.as_ref()?.acme.as_ref());
    if acmes.any(asks_by_http) && listeners.iter().all(|listener| listener.tls.is_some()) {
        let warning = "acme: the CA proves hosts by HTTP at port 80 (challenge: http-01), and no \
                       listener is a plain one";
        sink.warnings.borrow_mut().push(warning.to_owned());
    }
}

fn domains(fields: &mut Fields<'_>) -> Option<Vec<String>> {
    let allowed = "hosts such as www.example.com";
    let Some(node) = fields.take("domains") else {
        fields.missing("domains", format_args!("a list of {allowed}"));
        return None;
    };
    let items = node.list(allowed)?;
    if items.is_empty() || items.len() > MOST_DOMAINS {
        let count = items.len();
        node.problem(format_args!("{count} hosts; allowed: 1 to {MOST_DOMAINS}"));
        return None;
    }
    let mut domains: Vec<String> = Vec::with_capacity(items.len());
    for item in items {
        let Some(text) = item.text(allowed) else { continue };
        let domain = text.to_ascii_lowercase();
        let is_name = is_host(&domain)
            && !domain.starts_with('[')
            && !domain.contains('_')
            && domain.parse::<std::net::Ipv4Addr>().is_err();
        if domain.starts_with("*.") {
            item.problem(format_args!(
                "a CA signs wildcards for proofs in the DNS only, which Burdock does not give; \
                 allowed: {allowed}"
            ));
        } else if !is_name {
            item.wrong::<()>(allowed);
        } else if domains.contains(&domain) {
            item.problem(format_args!("{domain} is listed twice; allowed: once"));
        } else {
            domains.push(domain);
        }
    }
    (!domains.is_empty()).then_some(domains)
}

/// RFC 8555 section 7.3: one address, no header fields.
fn email(node: &Node<'_>) -> Option<String> {
    node.parsed("an address such as you@example.com", |text| {
        let visible = |byte: u8| byte.is_ascii_graphic() && !b",?;<>\"".contains(&byte);
        let (user, host) = text.split_once('@')?;
        let fits = !user.is_empty() && is_host(host) && text.bytes().all(visible);
        fits.then(|| text.to_owned())
    })
}

fn directory_url(text: &str) -> Option<String> {
    let url: Uri = text.parse().ok()?;
    let has_user = url.authority()?.as_str().contains('@');
    // It is a label of a metric as well.
    let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"\\".contains(&byte));
    (url.scheme_str() == Some("https") && !has_user && is_plain).then(|| text.to_owned())
}

/// `ca`: who vouches for a server that is not an instance.
pub(super) fn ca(fields: &mut Fields<'_>) -> Option<CaRoots> {
    match fields.take("ca").filter(|node| node.as_text() != Some("system")) {
        Some(node) => {
            let (path, text) = file(&node, "system, or the path of a PEM file")?;
            let roots = authorities(&node, &path, &text)?;
            Some(CaRoots { file: Some(absolute(path)), roots })
        }
        None => Some(CaRoots { file: None, roots: system_roots(&fields.node)? }),
    }
}

fn external_account(node: &Node<'_>) -> Option<ExternalAccount> {
    let mut fields = node.fields("external_account")?;
    let (id, file) = (fields.take("key_id"), fields.take("key_file"));
    for (given, key, needed) in [
        (&id, "key_id", "the name that the CA gave"),
        (&file, "key_file", "the path of a file with the key that the CA gave, in base64url"),
    ] {
        if given.is_none() {
            fields.missing(key, needed);
        }
    }
    fields.finish();
    let key_id = id?.text("the name that the CA gave")?.to_owned();
    let (key_file, key) = mac_key(&file?)?;
    Some(ExternalAccount { key_id, key_file, key })
}

fn mac_key(node: &Node<'_>) -> Option<(PathBuf, Vec<u8>)> {
    let (path, text) = file(node, "the path of a file with a key in base64url")?;
    let text = text.trim().trim_end_matches('=');
    let key = URL_SAFE_NO_PAD.decode(text).or_else(|_| STANDARD_NO_PAD.decode(text)).ok();
    match key.filter(|key| !key.is_empty()) {
        Some(key) => Some((absolute(path), key)),
        None => {
            node.problem(format_args!("{}: no key in it; needed: base64url", path.display()));
            None
        }
    }
}
