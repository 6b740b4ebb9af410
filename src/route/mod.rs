//! Host and path lead to a service.
//!
//! An exact host wins over a wildcard, a longer wildcard over a shorter one, any of them over a
//! service without hosts; within a host the longest path prefix wins. A host whose paths don't
//! match falls through to the next. Paths are compared as most instances read them. Pure.

pub mod split;

use std::borrow::Cow;
use std::collections::HashMap;

use crate::config::types::Service;

/// The services' routes, ready to be asked.
#[derive(Debug, Default)]
pub struct Router {
    exact: HashMap<String, Paths>,
    /// Suffixes that begin with a dot, longest first.
    wildcard: Vec<(String, Paths)>,
    any: Paths,
}

/// Path prefixes, longest first, with the service's index.
#[derive(Debug, Default)]
struct Paths(Vec<(String, usize)>);

/// Where a request goes, and by what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route<'a> {
    /// The index of the service.
    pub service: usize,
    /// Which of its hosts fits.
    pub host: Host<'a>,
    /// Which of its paths.
    pub path: &'a str,
}

/// A host that fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Host<'a> {
    /// This one.
    Exact(&'a str),
    /// Any that ends with this, which begins with a dot.
    Wildcard(&'a str),
    /// Any: the service has no hosts.
    Any,
}

impl Router {
    /// Builds the routes; an answer is the index of a service in `services`.
    pub fn build<'a>(services: impl Iterator<Item = &'a Service>) -> Self {
        let mut router = Self::default();
        for (index, service) in services.enumerate() {
            if service.hosts.is_empty() {
                router.any.add(&service.paths, index);
            }
            for host in &service.hosts {
                router.paths_of(host).add(&service.paths, index);
            }
        }
        router.wildcard.sort_by_key(|(suffix, _)| std::cmp::Reverse(suffix.len()));
        router
    }

    fn paths_of(&mut self, host: &str) -> &mut Paths {
        let Some(suffix) = host.strip_prefix('*') else {
            return self.exact.entry(host.to_owned()).or_default();
        };
        let place = self.wildcard.iter().position(|(known, _)| known == suffix);
        let place = place.unwrap_or_else(|| {
            self.wildcard.push((suffix.to_owned(), Paths::default()));
            self.wildcard.len() - 1
        });
        &mut self.wildcard[place].1
    }

    /// The service for a request; `authority` is the Host field, with or without a port.
    pub fn find(&self, authority: &str, path: &str) -> Option<usize> {
        self.route(authority, path).map(|route| route.service)
    }

    /// The same, and what leads there.
    pub fn route(&self, authority: &str, path: &str) -> Option<Route<'_>> {
        let path = &*plain(path);
        if self.exact.is_empty() && self.wildcard.is_empty() {
            return self.any.find(Host::Any, path);
        }
        let host = without_port(authority).to_ascii_lowercase();
        let host = host.strip_suffix('.').unwrap_or(&host);
        let exact = self.exact.get_key_value(host);
        let exact = exact.and_then(|(known, paths)| paths.find(Host::Exact(known), path));
        let wildcard = || {
            self.wildcard
                .iter()
                .filter(|(suffix, _)| host.len() > suffix.len() && host.ends_with(&**suffix))
                .find_map(|(suffix, paths)| paths.find(Host::Wildcard(suffix), path))
        };
        exact.or_else(wildcard).or_else(|| self.any.find(Host::Any, path))
    }
}

impl Paths {
    fn add(&mut self, prefixes: &[String], service: usize) {
        self.0.extend(prefixes.iter().map(|prefix| (plain(prefix).into_owned(), service)));
        self.0.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
    }

    fn find<'a>(&'a self, host: Host<'a>, path: &str) -> Option<Route<'a>> {
        let (prefix, service) = self.0.iter().find(|(prefix, _)| covers(prefix, path))?;
        Some(Route { service: *service, host, path: prefix })
    }
}

/// A path as most instances read it: escapes undone, dot segments resolved (RFC 3986 section 6.2.2),
/// slashes that follow each other one. Who may come is decided by service, so what an instance takes
/// for the path of one must not lead to another.
fn plain(path: &str) -> Cow<'_, str> {
    let is_plain = !path.contains('%') && !path.contains("//") && !path.contains("/.");
    if is_plain || !path.starts_with('/') {
        return Cow::Borrowed(path);
    }
    let decoded = unescaped(path.as_bytes());
    let decoded = String::from_utf8_lossy(&decoded);
    let mut segments: Vec<&str> = Vec::new();
    for segment in decoded.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            name => segments.push(name),
        }
    }
    Cow::Owned(format!("/{}", segments.join("/")))
}

fn unescaped(path: &[u8]) -> Vec<u8> {
    let digit = |at: usize| path.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    let (mut bytes, mut at) = (Vec::with_capacity(path.len()), 0);
    while let Some(byte) = path.get(at) {
        let escape = digit(at + 1).zip(digit(at + 2)).filter(|_| *byte == b'%');
        // Two digits are a byte.
        let decoded = escape.and_then(|(high, low)| u8::try_from(high * 16 + low).ok());
        bytes.push(decoded.unwrap_or(*byte));
        at += if decoded.is_some() { 3 } else { 1 };
    }
    bytes
}

/// `/a` covers `/a` and `/a/b` but not `/ab`; `/` covers everything, `*` of OPTIONS too.
fn covers(prefix: &str, path: &str) -> bool {
    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
    match path.strip_prefix(prefix) {
        Some(rest) => prefix.is_empty() || rest.is_empty() || rest.starts_with('/'),
        None => false,
    }
}

fn without_port(authority: &str) -> &str {
    match authority.rfind(':') {
        // The colons of an IPv6 literal are inside its brackets.
        Some(colon) if !authority[colon..].contains(']') => &authority[..colon],
        Some(_) | None => authority,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn the_most_specific_route_wins() {
        let yaml = "
services:
  any: { instances: [127.0.0.1:1] }
  api: { hosts: [example.com], paths: [/api], instances: [127.0.0.1:1] }
  site: { hosts: [example.com], instances: [127.0.0.1:1] }
  wild: { hosts: ['*.example.com'], instances: [127.0.0.1:1] }
  deep: { hosts: ['*.b.example.com'], paths: [/x/], instances: [127.0.0.1:1] }
";
        let loaded = config::parse(yaml, std::path::Path::new("t.yaml")).unwrap();
        let services = &loaded.config.services;
        let router = Router::build(services.iter());
        for (authority, path, service) in [
            ("example.com", "/", "site"),
            ("EXAMPLE.com:8080", "/api/v1", "api"),
            ("example.com.", "/apiary", "site"),
            ("a.example.com", "/", "wild"),
            ("a.b.example.com", "/x/y", "deep"),
            ("a.b.example.com", "/x", "deep"),
            ("a.b.example.com", "/xy", "wild"),
            ("[::1]:80", "/", "any"),
            ("[::1]", "*", "any"),
            ("other.org", "/api", "any"),
        ] {
            let found = router.find(authority, path).map(|index| services[index].name.as_str());
            assert_eq!(found, Some(service), "{authority} {path}");
        }
    }

    #[test]
    fn paths_that_instances_read_alike_lead_to_one_service() {
        for (path, expected) in [
            ("/a/b/", "/a/b/"),
            ("*", "*"),
            ("/%61dmin/x", "/admin/x"),
            ("/%2561", "/%61"),
            ("/a%2fb", "/a/b"),
            ("//admin///x", "/admin/x"),
            ("/x/../admin", "/admin"),
            ("/x/%2e%2E/./admin", "/admin"),
            ("/../..", "/"),
            ("/a%", "/a%"),
            ("/a%4", "/a%4"),
            ("/a%zz", "/a%zz"),
            ("/caf%c3%a9", "/caf\u{e9}"),
            ("/.well-known/x", "/.well-known/x"),
        ] {
            assert_eq!(plain(path), expected, "{path}");
        }
        let yaml = "
services:
  admin: { paths: [/admin], instances: [127.0.0.1:1] }
  site: { instances: [127.0.0.1:1] }
";
        let loaded = config::parse(yaml, std::path::Path::new("t.yaml")).unwrap();
        let router = Router::build(loaded.config.services.iter());
        let place = loaded.config.services.iter().position(|it| it.name == "admin");
        for path in ["/admin", "/%61dmin/users", "//admin/users", "/x/../admin/users"] {
            assert_eq!(router.find("a", path), place, "{path}");
        }
    }

    #[test]
    fn what_no_service_covers_is_not_found() {
        let yaml = "services: { s: { hosts: [a.org], paths: [/p], instances: ['127.0.0.1:1'] } }";
        let loaded = config::parse(yaml, std::path::Path::new("t.yaml")).unwrap();
        let router = Router::build(loaded.config.services.iter());
        assert_eq!(router.find("b.org", "/p"), None);
        assert_eq!(router.find("a.org", "/"), None);
    }
}
