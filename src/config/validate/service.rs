//! `services`, and the short forms that leave them or their versions out.
//!
//! Knows where a version may stand, not what is in it.

use std::collections::{HashMap, HashSet};

use super::clients;
use super::names::{NAME, is_host, is_name, is_path};
use super::version::{self, Defaults, VERSION_KEYS};
use super::{route, split};
use crate::config::node::{Fields, Node};
use crate::config::tree::Data;
use crate::config::types::{Access, Service, Version};
use crate::route::reading;

/// Routes of one service.
const MAX_ROUTES: usize = 60_000;

/// The services of the file; without `services`, the file itself is the one version of one.
pub(super) fn services(fields: &mut Fields<'_>, defaults: Defaults) -> Vec<Service> {
    let Some(node) = fields.take("services") else {
        let version = version::version(fields, "default", defaults);
        return vec![Service {
            name: "default".to_owned(),
            hosts: Vec::new(),
            paths: every_path(),
            access: Access::default(),
            versions: vec![version],
            routes: Vec::new(),
            split: None,
        }];
    };
    report_misplaced(fields, "services.SERVICE.versions.VERSION, since `services` is given");
    let entries = node.named("a map of services by name").unwrap_or_default();
    if matches!(&node.tree.data, Data::Map(all) if all.is_empty()) {
        node.problem("no service; needed: at least one");
    }
    let (mut services, mut taken) = (Vec::new(), HashMap::new());
    for (name, node) in entries {
        report_bad_name(name, &node);
        let Some(service) = service(name, &node, defaults) else { continue };
        report_overlap(&mut taken, &service, &node);
        services.push(service);
    }
    services
}

fn service(name: &str, node: &Node<'_>, defaults: Defaults) -> Option<Service> {
    let mut fields = node.fields("service")?;
    let hosts = fields.take("hosts").map(|node| hosts(&node)).unwrap_or_default();
    let paths = fields.take("paths").map(|node| paths(&node)).unwrap_or_else(every_path);
    let access = clients::access(&mut fields);
    let routes = route::routes(&mut fields);
    let split = fields.take("traffic_split");
    let versions = match fields.take("versions") {
        None => Some(vec![version::version_with_limits(&mut fields, "default", defaults)]),
        Some(versions) => {
            report_misplaced(&mut fields, "`versions`, under the version's name");
            for node in ["timeouts", "limits"].into_iter().filter_map(|key| fields.remove(key)) {
                node.problem("misplaced; it belongs in `versions`, under the version's name");
            }
            self::versions(&versions, defaults)
        }
    };
    let split = versions.as_ref().and_then(|it| split::split(&fields.node, split.as_ref(), it));
    fields.finish();
    let name = name.to_owned();
    if routes.len() > MAX_ROUTES {
        node.problem(format_args!("{} routes; allowed: {MAX_ROUTES} in a service", routes.len()));
    }
    let service = Service { name, hosts, paths, access, versions: versions?, routes, split };
    report_ours(&service, node);
    Some(service)
}

fn versions(node: &Node<'_>, defaults: Defaults) -> Option<Vec<Version>> {
    let entries = node.named("a map of versions by name")?;
    let mut versions = Vec::new();
    for (name, node) in &entries {
        report_bad_name(name, node);
        let Some(mut fields) = node.fields("version") else { continue };
        versions.push(version::version_with_limits(&mut fields, name, defaults));
        fields.finish();
    }
    if matches!(&node.tree.data, Data::Map(all) if all.is_empty()) {
        node.problem("no version; needed: at least one");
    }
    Some(versions).filter(|versions| !versions.is_empty())
}

fn report_misplaced(fields: &mut Fields<'_>, place: &str) {
    for key in VERSION_KEYS {
        if let Some(node) = fields.remove(key) {
            node.problem(format_args!("misplaced; it belongs in {place}"));
        }
    }
}

fn report_bad_name(name: &str, node: &Node<'_>) {
    if !is_name(name) {
        node.problem(format_args!("{name:?} is no name; allowed: {NAME}"));
    }
}

fn every_path() -> Vec<String> {
    vec!["/".to_owned()]
}

pub(super) fn hosts(node: &Node<'_>) -> Vec<String> {
    let allowed = "a host name without port, `*.` allowed in front";
    distinct(node, "host names", allowed, |text| {
        let host = text.to_ascii_lowercase();
        let name = host.strip_prefix("*.").unwrap_or(&host);
        is_host(name).then_some(host)
    })
}

pub(super) fn paths(node: &Node<'_>) -> Vec<String> {
    let allowed = "a path that starts with /, without query, space or control character, and without * as \
                   it takes all below it";
    let paths = distinct(node, "paths", allowed, |text| {
        (is_path(text) && !text.contains(['?', '*'])).then(|| text.to_owned())
    });
    if matches!(&node.tree.data, Data::List(all) if all.is_empty()) {
        node.problem("no path; needed: at least one, / takes every path");
    }
    paths
}

/// The items of a list of texts, each valid and different from the others.
fn distinct(
    node: &Node<'_>,
    items: &str,
    allowed: &str,
    parse: impl Fn(&str) -> Option<String>,
) -> Vec<String> {
    let (mut found, mut seen) = (Vec::new(), HashSet::new());
    for item in node.list(items).unwrap_or_default() {
        let Some(text) = item.parsed(allowed, &parse) else { continue };
        if seen.insert(text.clone()) {
            found.push(text);
        } else {
            item.problem(format_args!("{text} is listed twice; allowed: once"));
        }
    }
    found
}

/// A field that carries tokens, or instances' orders about them, is no other's to change.
fn report_ours(service: &Service, node: &Node<'_>) {
    let affinities = service.versions.iter().filter_map(|version| version.affinity.as_ref());
    let fields = affinities.flat_map(|affinity| [&affinity.header, &affinity.instance_header]);
    let ours: HashSet<&str> = fields.flatten().map(String::as_str).collect();
    let edits = service.routes.iter().flat_map(|it| [&it.request_headers, &it.response_headers]);
    let mut names = edits.flat_map(|edits| {
        let pairs = edits.set.iter().chain(&edits.add).map(|(name, _)| name);
        edits.remove.iter().chain(pairs)
    });
    if let Some(name) = names.find(|name| ours.contains(name.as_str())) {
        node.problem(format_args!("`routes` change {name}, which is a field of `affinity`"));
    }
}

/// Who has which path, as it is compared, of which host; an empty one is every host. `None` is a service itself, which its
/// own routes may take parts of.
type Taken = HashMap<(String, String), (String, Option<usize>)>;

/// Two services, or two routes of one, must not both be meant by one host and path.
fn report_overlap(taken: &mut Taken, service: &Service, node: &Node<'_>) {
    let own = (&service.hosts, &service.paths, None);
    let routes = service.routes.iter().enumerate().map(|(index, route)| {
        let hosts = if route.hosts.is_empty() { &service.hosts } else { &route.hosts };
        (hosts, &route.paths, Some(index))
    });
    let mut told = HashSet::new();
    for (hosts, paths, index) in std::iter::once(own).chain(routes) {
        let every = [String::new()];
        let hosts = if hosts.is_empty() { &every[..] } else { &hosts[..] };
        for (host, path) in hosts.iter().flat_map(|host| paths.iter().map(move |path| (host, path)))
        {
            let mine = (service.name.clone(), index);
            let read = reading::plain(path).trim_end_matches('/').to_owned();
            let Some((name, by)) = taken.insert((host.clone(), read), mine) else {
                continue;
            };
            let is_own = name == service.name;
            let may_share = is_own && (by.is_none() || index.is_none());
            if may_share || !told.insert(name.clone()) {
                continue;
            }
            let host = if host.is_empty() { "every host" } else { host };
            let (one, other) = (name.escape_debug(), service.name.escape_debug());
            match is_own {
                true => node.problem(format_args!(
                    "two `routes` are for {path} of {host}; allowed: one for each host and path"
                )),
                false => node.problem(format_args!(
                    "`{one}` and `{other}` both serve {path} of {host}; allowed: one service for \
                     each host and path"
                )),
            }
        }
    }
}
