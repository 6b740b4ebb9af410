//! `services`, and the short forms that leave them or their versions out.
//!
//! Knows where a version may stand, not what is in it.

use std::collections::HashSet;

use super::clients;
use super::names::{NAME, is_host, is_name, is_path};
use super::split;
use super::version::{self, Defaults, VERSION_KEYS};
use crate::config::node::{Fields, Node};
use crate::config::tree::Data;
use crate::config::types::{Access, Service, Version};

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
            split: None,
        }];
    };
    report_misplaced(fields, "services.SERVICE.versions.VERSION, since `services` is given");
    let entries = node.named("a map of services by name").unwrap_or_default();
    if matches!(&node.tree.data, Data::Map(all) if all.is_empty()) {
        node.problem("no service; needed: at least one");
    }
    let mut services: Vec<Service> = Vec::new();
    for (name, node) in entries {
        report_bad_name(name, &node);
        let Some(service) = service(name, &node, defaults) else { continue };
        report_overlap(&services, &service, &node);
        services.push(service);
    }
    services
}

fn service(name: &str, node: &Node<'_>, defaults: Defaults) -> Option<Service> {
    let mut fields = node.fields("service")?;
    let hosts = fields.take("hosts").map(|node| hosts(&node)).unwrap_or_default();
    let paths = fields.take("paths").map(|node| paths(&node)).unwrap_or_else(every_path);
    let access = clients::access(&mut fields);
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
    Some(Service { name: name.to_owned(), hosts, paths, access, versions: versions?, split })
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

fn hosts(node: &Node<'_>) -> Vec<String> {
    let allowed = "a host name without port, `*.` allowed in front";
    distinct(node, "host names", allowed, |text| {
        let host = text.to_ascii_lowercase();
        let name = host.strip_prefix("*.").unwrap_or(&host);
        is_host(name).then_some(host)
    })
}

fn paths(node: &Node<'_>) -> Vec<String> {
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

/// Two services must not both be meant by one host and path.
fn report_overlap(services: &[Service], service: &Service, node: &Node<'_>) {
    for other in services {
        let host = match (&service.hosts[..], &other.hosts[..]) {
            ([], []) => Some("every host"),
            (own, others) => own.iter().find(|host| others.contains(host)).map(String::as_str),
        };
        let path = service.paths.iter().find(|path| other.paths.contains(path));
        if let (Some(host), Some(path)) = (host, path) {
            node.problem(format_args!(
                "`{}` and `{}` both serve {path} of {host}; allowed: one service for each host \
                 and path",
                other.name.escape_debug(),
                service.name.escape_debug()
            ));
        }
    }
}
