//! How an etcd is reached: members, certificates, a user. Shared by whatever asks one.
//!
//! The password is a secret: no message repeats it.

use std::path::PathBuf;

use http::Uri;

use super::acme::ca;
use super::instance_tls::certificate;
use super::keys::absolute;
use crate::config::node::{Fields, Node};
use crate::config::read;
use crate::config::types::{Etcd, EtcdUser, InstanceTls};

const ENDPOINT: &str = "http:// or https:// URLs with a port, such as http://127.0.0.1:2379";
const PASSWORD: &str = "one line of 1 to 1024 bytes";
/// A cluster has five members or seven.
const MOST: usize = 16;

/// What of `fields` says how an etcd is reached.
pub(super) fn etcd(fields: &mut Fields<'_>) -> Option<Etcd> {
    let endpoints = fields.take("endpoints");
    if endpoints.is_none() {
        fields.missing("endpoints", format_args!("a list of {ENDPOINT}"));
    }
    let endpoints = endpoints.and_then(|node| urls(&node));
    let secured = endpoints.iter().flatten().any(|url| url.starts_with("https:"));
    let tls = tls(fields, secured);
    let user = user(fields);
    Some(Etcd { endpoints: endpoints?, tls: tls?, user: user? })
}

fn urls(node: &Node<'_>) -> Option<Vec<String>> {
    let items = node.list(format_args!("a list of {ENDPOINT}"))?;
    if items.is_empty() || items.len() > MOST {
        node.problem(format_args!("{} members; allowed: 1 to {MOST}", items.len()));
        return None;
    }
    let urls: Vec<_> = items.iter().map(|item| item.parsed(ENDPOINT, url)).collect();
    urls.into_iter().collect()
}

/// The paths are known, and a user has a place of its own.
fn url(text: &str) -> Option<String> {
    let text = text.strip_suffix('/').unwrap_or(text);
    let url: Uri = text.parse().ok()?;
    let authority = url.authority()?;
    let is_plain = url.path() == "/" && url.query().is_none() && !text.contains(['#', '@']);
    let is_whole = !authority.host().is_empty() && authority.port_u16().is_some_and(|it| it > 0);
    let is_known = matches!(url.scheme_str(), Some("http" | "https"));
    (is_known && is_plain && is_whole).then(|| text.to_owned())
}

/// Nobody needs to be vouched for without TLS.
fn tls(fields: &mut Fields<'_>, secured: bool) -> Option<Option<InstanceTls>> {
    let is_given = |node: &Node<'_>| node.as_text() != Some("none");
    if !secured {
        for key in ["ca", "cert", "key"] {
            let given = fields.take(key).filter(is_given);
            if let Some(node) = given.filter(|node| node.as_text() != Some("system")) {
                node.problem("no endpoint is https; allowed: beside one that is");
            }
        }
        return Some(None);
    }
    let ca = ca(fields);
    let cert = fields.take("cert").filter(is_given);
    let key = fields.take("key").filter(is_given);
    let shown = match (&cert, &key) {
        (Some(cert), Some(key)) => certificate(cert, key).map(Some),
        (Some(node), None) => alone(node, "key"),
        (None, Some(node)) => alone(node, "cert"),
        (None, None) => Some(None),
    };
    Some(Some(InstanceTls { certificate: shown?, ..InstanceTls::trusting(&ca?) }))
}

fn user(fields: &mut Fields<'_>) -> Option<Option<EtcdUser>> {
    let is_given = |node: &Node<'_>| !node.is_off();
    let user = fields.take("user").filter(is_given);
    let file = fields.take("password_file").filter(is_given);
    let (user, file) = match (user, file) {
        (Some(user), Some(file)) => (user, file),
        (Some(node), None) => return alone(&node, "password_file"),
        (None, Some(node)) => return alone(&node, "user"),
        (None, None) => return Some(None),
    };
    let allowed = "a name of 1 to 255 characters, or none";
    let name = user.parsed(allowed, |text| {
        let fits = (1..=255).contains(&text.len()) && !text.contains(char::is_control);
        fits.then(|| text.to_owned())
    });
    let (password_file, password) = password(&file)?;
    Some(Some(EtcdUser { name: name?, password, password_file }))
}

fn password(node: &Node<'_>) -> Option<(PathBuf, String)> {
    let path = node.sink.resolve(node.text("the path of a file, or none")?);
    node.sink.watch(&path);
    let shown = path.display();
    let text = match read::text(&path) {
        Ok(text) => text,
        Err(error) => {
            node.problem(format_args!("cannot read {shown}: {error}; needed: {PASSWORD}"));
            return None;
        }
    };
    // It may begin or end with blanks, but not with the end of its line.
    let password = text.strip_suffix('\n').unwrap_or(&text);
    let password = password.strip_suffix('\r').unwrap_or(password);
    if !(1..=1024).contains(&password.len()) || password.contains(['\r', '\n']) {
        node.problem(format_args!("{shown} holds no password; needed: {PASSWORD}"));
        return None;
    }
    Some((absolute(path), password.to_owned()))
}

fn alone<T>(node: &Node<'_>, other: &str) -> Option<T> {
    node.problem(format_args!("`{other}` is missing beside it; allowed: both or neither"));
    None
}
