//! Host and path lead to a service.
//!
//! An exact host wins over a wildcard, a longer wildcard over a shorter one, any of them over a
//! service without hosts; within a host the longest path prefix wins. A host whose paths don't
//! match falls through to the next. Pure.

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
        if self.exact.is_empty() && self.wildcard.is_empty() {
            return self.any.find(path);
        }
        let host = without_port(authority).to_ascii_lowercase();
        let host = host.strip_suffix('.').unwrap_or(&host);
        let exact = self.exact.get(host).and_then(|paths| paths.find(path));
        let wildcard = || {
            self.wildcard
                .iter()
                .filter(|(suffix, _)| host.len() > suffix.len() && host.ends_with(&**suffix))
                .find_map(|(_, paths)| paths.find(path))
        };
        exact.or_else(wildcard).or_else(|| self.any.find(path))
    }
}

impl Paths {
    fn add(&mut self, prefixes: &[String], service: usize) {
        self.0.extend(prefixes.iter().map(|prefix| (prefix.clone(), service)));
        self.0.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
    }

    fn find(&self, path: &str) -> Option<usize> {
        self.0.iter().find(|(prefix, _)| covers(prefix, path)).map(|(_, service)| *service)
    }
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
    fn what_no_service_covers_is_not_found() {
        let yaml = "services: { s: { hosts: [a.org], paths: [/p], instances: ['127.0.0.1:1'] } }";
        let loaded = config::parse(yaml, std::path::Path::new("t.yaml")).unwrap();
        let router = Router::build(loaded.config.services.iter());
        assert_eq!(router.find("b.org", "/p"), None);
        assert_eq!(router.find("a.org", "/"), None);
    }
}
