//! `discovery` of a version: who tells which instances there are.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::docker::docker;
use super::etcd::etcd;
use super::keys::absolute;
use super::kubernetes::kubernetes;
use super::names::is_host;
use crate::config::node::Node;
use crate::config::tree::Data;
use crate::config::types::{Discovery, Dns, EtcdKeys, Names, Source};

const REFRESH: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);
const SOURCES: &str = "one of dns: HOST:PORT, srv: NAME, file: PATH, etcd: { endpoints, prefix }, \
                       kubernetes: { service }, docker: { service }";
const PREFIX: &str = "1 to 1024 bytes that keys begin with, such as /burdock/chat/";

pub(super) fn discovery(node: &Node<'_>) -> Option<Discovery> {
    let mut fields = node.fields("discovery")?;
    let keys = ["dns", "srv", "file", "etcd", "kubernetes", "docker"];
    let given: Vec<_> =
        keys.into_iter().filter_map(|key| fields.take(key).map(|node| (key, node))).collect();
    let refresh = fields.take("refresh");
    let resolvers = fields.take("resolvers");
    let minimum =
        fields.take("minimum").map_or(Some(Discovery::MINIMUM), |node| node.integer(0..=10_000));
    fields.finish();
    let [(key, source)] = &given[..] else {
        let is_map = matches!(node.tree.data, Data::Map(_));
        match given.len() {
            0 if is_map => node.problem(format_args!("it names no source; needed: {SOURCES}")),
            0 => {}
            _ => node.problem(format_args!("it names more than one source; allowed: {SOURCES}")),
        }
        return None;
    };
    if *key == "etcd" {
        if let Some(other) = resolvers {
            other.problem("no effect on `etcd`; allowed: beside dns or srv");
        }
        let refresh = refresh.map_or(Some(EtcdKeys::REFRESH), |node| node.duration(REFRESH));
        let mut keys = etcd_keys(source)?;
        keys.refresh = refresh?;
        return Some(Discovery { source: Source::Etcd(keys), minimum: minimum? });
    }
    let told = match *key {
        "file" => Some(file(source).map(Source::File)),
        "kubernetes" => Some(kubernetes(source).map(Source::Kubernetes)),
        "docker" => Some(docker(source).map(Source::Docker)),
        _ => None,
    };
    if let Some(source) = told {
        for other in [refresh, resolvers].into_iter().flatten() {
            other.problem(format_args!(
                "no effect on `{key}`, which is read when it changes; allowed: beside dns, srv or etcd"
            ));
        }
        return Some(Discovery { source: source?, minimum: minimum? });
    }
    let names = match *key {
        "dns" => source.parsed("HOST:PORT, a name with A or AAAA records and a port", addresses),
        _ => source.parsed("a name with SRV records, such as _http._tcp.app.internal", services),
    };
    let refresh = refresh.map_or(Some(Dns::REFRESH), |node| node.duration(REFRESH));
    let resolvers = resolvers.map_or(Some(Vec::new()), |node| addresses_of_resolvers(&node));
    let dns = Dns { names: names?, refresh: refresh?, resolvers: resolvers? };
    Some(Discovery { source: Source::Dns(dns), minimum: minimum? })
}

fn file(node: &Node<'_>) -> Option<PathBuf> {
    let path = node.text("the path of a file")?;
    Some(absolute(node.sink.resolve(path)))
}

/// An etcd, and what keys there begin with.
pub(super) fn etcd_keys(node: &Node<'_>) -> Option<EtcdKeys> {
    let mut fields = node.fields("etcd")?;
    let etcd = etcd(&mut fields);
    let prefix = fields.take("prefix");
    if prefix.is_none() {
        fields.missing("prefix", PREFIX);
    }
    fields.finish();
    let prefix =
        prefix?.parsed(PREFIX, |text| (1..=1024).contains(&text.len()).then(|| text.to_owned()));
    Some(EtcdKeys { etcd: etcd?, prefix: prefix?, refresh: EtcdKeys::REFRESH })
}

fn addresses(text: &str) -> Option<Names> {
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port > 0)?;
    is_name(host).then(|| Names::Addresses { host: host.to_owned(), port })
}

fn services(text: &str) -> Option<Names> {
    is_name(text).then(|| Names::Services { name: text.to_owned() })
}

/// An address has no records. A dot at the end says that the name is whole.
fn is_name(text: &str) -> bool {
    let text = text.strip_suffix('.').unwrap_or(text);
    is_host(text) && text.parse::<std::net::Ipv4Addr>().is_err() && !text.starts_with('[')
}

fn addresses_of_resolvers(node: &Node<'_>) -> Option<Vec<SocketAddr>> {
    let allowed = "IP:PORT, \"[IPv6]:PORT\" in quotes";
    let items = node.list(allowed)?;
    items.iter().map(|item| item.parsed(allowed, |text| text.parse().ok())).collect()
}
