//! Host and path lead to a service.
//!
//! An exact host wins over a wildcard, a longer wildcard over a shorter one, any of them over a
//! service without hosts; within a host the longest path prefix wins. A host whose paths don't
//! match falls through to the next. The order in the file means nothing. Paths are compared as most
//! instances read them. Pure.

pub mod ramp;
pub mod rewrite;
pub mod split;

use std::borrow::Cow;
use std::collections::HashMap;

use crate::config::types::Service;

/// The services' routes, ready to be asked.
#[derive(Debug, Default)]
pub struct Router {
    exact: HashMap<String, Paths>,
    /// By suffixes that begin with a dot.
    wildcard: HashMap<String, Paths>,
    /// Bytes of the longest of those.
    longest: usize,
    any: Paths,
}

/// Path prefixes in the order of their bytes.
#[derive(Debug, Default)]
struct Paths(Vec<Entry>);

#[derive(Debug)]
struct Entry {
    /// Without a slash at its end.
    prefix: String,
    /// As it is told.
    shown: String,
    /// The place of the longest other prefix that this one begins with.
    parent: Option<u32>,
    service: usize,
    part: Option<usize>,
}

/// Where a request goes, and by what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route<'a> {
    /// The index of the service.
    pub service: usize,
    /// The index of that one of its `routes` which takes the request, if one does.
    pub part: Option<usize>,
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
            // A part of a service comes before the rest of it.
            for (part, route) in service.routes.iter().enumerate() {
                let hosts = if route.hosts.is_empty() { &service.hosts } else { &route.hosts };
                router.add(hosts, &route.paths, index, Some(part));
            }
            router.add(&service.hosts, &service.paths, index, None);
        }
        let by_host = router.exact.values_mut().chain(router.wildcard.values_mut());
        by_host.chain([&mut router.any]).for_each(Paths::arrange);
        router
    }

    fn add(&mut self, hosts: &[String], paths: &[String], service: usize, part: Option<usize>) {
        if hosts.is_empty() {
            self.any.add(paths, service, part);
        }
        for host in hosts {
            let known = match host.strip_prefix('*') {
                Some(suffix) => {
                    self.longest = self.longest.max(suffix.len());
                    self.wildcard.entry(suffix.to_owned()).or_default()
                }
                None => self.exact.entry(host.clone()).or_default(),
            };
            known.add(paths, service, part);
        }
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
        let host = lower(without_port(authority));
        let host = host.strip_suffix('.').unwrap_or(&host);
        let exact = self.exact.get_key_value(host);
        let exact = exact.and_then(|(known, paths)| paths.find(Host::Exact(known), path));
        exact.or_else(|| self.by_wildcard(host, path)).or_else(|| self.any.find(Host::Any, path))
    }

    /// The longest suffix first; no more of a host is looked at than a suffix may have.
    fn by_wildcard(&self, host: &str, path: &str) -> Option<Route<'_>> {
        if self.wildcard.is_empty() {
            return None;
        }
        let from = host.len().saturating_sub(self.longest).max(1);
        let tail = host.as_bytes().get(from..)?;
        let dots = memchr::memchr_iter(b'.', tail).map(|at| from + at);
        dots.filter_map(|dot| self.wildcard.get_key_value(&host[dot..]))
            .find_map(|(suffix, paths)| paths.find(Host::Wildcard(suffix), path))
    }
}

impl Paths {
    fn add(&mut self, prefixes: &[String], service: usize, part: Option<usize>) {
        self.0.extend(prefixes.iter().map(|prefix| {
            let shown = plain(prefix).into_owned();
            let prefix = shown.strip_suffix('/').unwrap_or(&shown).to_owned();
            Entry { prefix, shown, parent: None, service, part }
        }));
    }

    fn arrange(&mut self) {
        // Of equals the first stays first: that is the one which counts.
        self.0.sort_by(|one, other| one.prefix.cmp(&other.prefix));
        self.0.dedup_by(|later, earlier| later.prefix == earlier.prefix);
        let mut above: Vec<usize> = Vec::new();
        for index in 0..self.0.len() {
            while above
                .last()
                .is_some_and(|at| !self.0[index].prefix.starts_with(&self.0[*at].prefix))
            {
                above.pop();
            }
            self.0[index].parent = above.last().and_then(|at| u32::try_from(*at).ok());
            above.push(index);
        }
    }

    /// By the longest prefix that covers the path. Whatever a path begins with stands before it in the order
    /// of bytes, and all that stands between begins with it too: so it is the one before the path, or
    /// one that that begins with.
    fn find<'a>(&'a self, host: Host<'a>, path: &str) -> Option<Route<'a>> {
        let is_before = |entry: &Entry| entry.prefix.is_empty() || entry.prefix.as_str() <= path;
        let after = self.0.partition_point(is_before);
        let mut entry = self.0.get(after.checked_sub(1)?)?;
        while !covers(&entry.prefix, path) {
            entry = self.0.get(entry.parent? as usize)?;
        }
        Some(Route { service: entry.service, part: entry.part, host, path: &entry.shown })
    }
}

/// In lower case, which it mostly is.
fn lower(host: &str) -> Cow<'_, str> {
    match host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => Cow::Owned(host.to_ascii_lowercase()),
        false => Cow::Borrowed(host),
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

/// `/a` covers `/a` and `/a/b` but not `/ab`; nothing, which is `/`, covers everything, `*` of OPTIONS too.
fn covers(prefix: &str, path: &str) -> bool {
    // An empty `String` points nowhere, and some processors take 100 ns to compare nothing there.
    if prefix.is_empty() {
        return true;
    }
    match path.strip_prefix(prefix) {
        Some(rest) => rest.is_empty() || rest.starts_with('/'),
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

    /// What a slow look at all prefixes finds.
    #[test]
    fn the_longest_prefix_of_many_is_found() {
        let parts =
            ["", "/a", "/a-b", "/a/b", "/a/b/c", "/ab", "/b", "/a.b", "/a/b-c", "/%61/d", "/zz"];
        let mut paths = Paths::default();
        paths.add(&parts.map(|part| format!("{part}/")), 7, None);
        paths.arrange();
        for path in [
            "/", "/a", "/a/", "/a/x", "/a-b/x", "/a-c", "/a/b/c/d", "/a/b/cd", "/a/b-c", "/a/bb",
            "/ab/c", "/abc", "/a.b/c", "/a!/b", "/a/d/x", "/b/b", "/c", "/zz/y", "/zzz", "*",
            "/a0",
        ] {
            let covering = |part: &&str| covers(&plain(part), path);
            let expected =
                parts.iter().copied().filter(covering).max_by_key(|part| plain(part).len());
            let expected = expected.map(|part| plain(&format!("{part}/")).into_owned());
            let found = paths.find(Host::Any, path).map(|route| route.path.to_owned());
            assert_eq!(
                found.as_deref().map(|it| it.trim_end_matches('/')),
                expected.as_deref().map(|it| it.trim_end_matches('/')),
                "{path}"
            );
        }
    }

    #[test]
    fn a_part_of_a_service_comes_before_the_rest_of_it() {
        let yaml = "
services:
  s:
    hosts: [a.org]
    instances: [127.0.0.1:1]
    routes:
      - { paths: [/, /p/q], rewrite_prefix: /x }
      - { hosts: ['*.old.org', b.org], paths: [/], redirect: { to: 'https://a.org{path}' } }
";
        let loaded = config::parse(yaml, std::path::Path::new("t.yaml")).unwrap();
        let router = Router::build(loaded.config.services.iter());
        let part = |host, path| router.route(host, path).map(|route| route.part);
        assert_eq!(part("a.org", "/p/x"), Some(Some(0)));
        assert_eq!(part("b.org", "/p/x"), Some(Some(1)));
        assert_eq!(part("w.old.org", "/"), Some(Some(1)));
        assert_eq!(part("old.org", "/"), None);
    }

    /// A name that is nothing but dots must not be looked up at each of them.
    #[test]
    fn a_host_without_end_costs_no_more_than_the_longest_suffix() {
        let yaml = "services: { s: { hosts: ['*.a.org'], instances: ['127.0.0.1:1'] } }";
        let loaded = config::parse(yaml, std::path::Path::new("t.yaml")).unwrap();
        let router = Router::build(loaded.config.services.iter());
        let host = ".".repeat(60_000) + "x.a.org";
        assert_eq!(router.find(&host, "/"), Some(0));
        assert_eq!(router.find(&".".repeat(60_000), "/"), None);
        assert_eq!(router.find("", "/"), None);
        assert_eq!(router.find(".a.org", "/"), None);
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
