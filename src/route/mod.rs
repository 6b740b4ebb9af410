//! Host and path lead to a service.
//!
//! An exact host wins over a wildcard, a longer wildcard over a shorter one, any of them over a
//! service without hosts; within a host the longest path prefix wins. A host whose paths don't
//! match falls through to the next. The order in the file means nothing. Paths are compared as
//! instances read them, and one that leads to several places by several readings leads nowhere. Pure.

pub mod ramp;
pub mod reading;
pub mod rewrite;
pub mod split;

use std::borrow::Cow;
use std::collections::HashMap;

use crate::config::types::Service;
use crate::route::reading::{Readings, plain};

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

/// Why a request goes nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unrouted {
    /// No service takes it.
    Nobody,
    /// Instances may read its path in ways that lead to different services or routes.
    Ambiguous,
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

    /// Where a request goes, and what leads there; `authority` is the Host field, with or without a port.
    pub fn route(&self, authority: &str, path: &str) -> Result<Route<'_>, Unrouted> {
        // Without hosts none is looked at.
        let host = if self.has_hosts() { lower(without_port(authority)) } else { Cow::default() };
        let host = host.strip_suffix('.').unwrap_or(&host);
        let found = self.read(host, &plain(path));
        let place = |found: Option<Route<'_>>| found.map(|route| (route.service, route.part));
        let mut others = self.tells_apart().then(|| Readings::of(path).others());
        match others
            .iter_mut()
            .flatten()
            .any(|other| place(self.read(host, &other)) != place(found))
        {
            true => Err(Unrouted::Ambiguous),
            false => found.ok_or(Unrouted::Nobody),
        }
    }

    /// Whether there is more than one place to go.
    fn tells_apart(&self) -> bool {
        let is_only = matches!(&*self.any.0, [entry] if entry.prefix.is_empty());
        self.has_hosts() || !is_only
    }

    fn has_hosts(&self) -> bool {
        !self.exact.is_empty() || !self.wildcard.is_empty()
    }

    /// By one reading of a path.
    fn read(&self, host: &str, path: &str) -> Option<Route<'_>> {
        if !self.has_hosts() {
            return self.any.find(Host::Any, path);
        }
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
            let found = router.route(authority, path);
            let found = found.map(|route| services[route.service].name.as_str());
            assert_eq!(found, Ok(service), "{authority} {path}");
        }
    }

    #[test]
    fn what_may_lead_to_two_places_leads_nowhere() {
        let yaml = "
services:
  admin: { paths: [/admin], instances: [127.0.0.1:1] }
  site: { instances: [127.0.0.1:1], routes: [{ paths: [/api], rewrite_prefix: /app }] }
";
        let loaded = config::parse(yaml, std::path::Path::new("t.yaml")).unwrap();
        let services = &loaded.config.services;
        let router = Router::build(services.iter());
        let service = |path: &str| {
            let found = router.route("a", path);
            found.map(|route| (services[route.service].name.as_str(), route.part))
        };
        for path in ["/admin", "/%61dmin/users", "//admin/users", "/x/../admin/%2e/users;v=1"] {
            assert_eq!(service(path), Ok(("admin", None)), "{path}");
        }
        for path in ["/x;y=1", "/a%2fb", "/adm%69n2", "/x/..;/y", "//x//..//y", "/x%5cy", "/%"] {
            assert_eq!(service(path), Ok(("site", None)), "{path}");
        }
        for path in ["/api/x%2fy", "/api/;v=1", "/api/x/..;/y"] {
            assert_eq!(service(path), Ok(("site", Some(0))), "{path}");
        }
        for path in [
            "/admin;x=1",
            "/;/admin",
            "/x/..;/admin/users",
            "/x%5c..%5cadmin",
            "/%5Cadmin",
            "/admin/..%2fx",
            "/admin//../x",
            "/admin%2fx",
            "/api/..;/manager",
        ] {
            assert_eq!(service(path), Err(Unrouted::Ambiguous), "{path}");
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
        assert_eq!(part("a.org", "/p/x"), Ok(Some(0)));
        assert_eq!(part("b.org", "/p/x"), Ok(Some(1)));
        assert_eq!(part("w.old.org", "/"), Ok(Some(1)));
        assert_eq!(part("old.org", "/"), Err(Unrouted::Nobody));
    }

    /// A name that is nothing but dots must not be looked up at each of them.
    #[test]
    fn a_host_without_end_costs_no_more_than_the_longest_suffix() {
        let yaml = "services: { s: { hosts: ['*.a.org'], instances: ['127.0.0.1:1'] } }";
        let loaded = config::parse(yaml, std::path::Path::new("t.yaml")).unwrap();
        let router = Router::build(loaded.config.services.iter());
        let host = ".".repeat(60_000) + "x.a.org";
        assert!(router.route(&host, "/").is_ok());
        assert_eq!(router.route(&".".repeat(60_000), "/"), Err(Unrouted::Nobody));
        assert_eq!(router.route("", "/"), Err(Unrouted::Nobody));
        assert_eq!(router.route(".a.org", "/"), Err(Unrouted::Nobody));
    }

    #[test]
    fn what_no_service_covers_is_not_found() {
        let yaml = "services: { s: { hosts: [a.org], paths: [/p], instances: ['127.0.0.1:1'] } }";
        let loaded = config::parse(yaml, std::path::Path::new("t.yaml")).unwrap();
        let router = Router::build(loaded.config.services.iter());
        assert_eq!(router.route("b.org", "/p"), Err(Unrouted::Nobody));
        assert_eq!(router.route("a.org", "/"), Err(Unrouted::Nobody));
    }
}
