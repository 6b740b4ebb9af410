//! `access`, `limits`, `rate_limit`, `proxy_protocol`: who may come, and what for.
//!
//! Knows no place in the file but the keys of these maps.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use ipnet::IpNet;

use super::version;
use crate::config::node::{Fields, Node};
use crate::config::types::{Acceptance, Access, ClientLimits, HashKey, Limits, RateLimit};

const PER: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);
const KIB: usize = 1024;
/// A terabyte: beyond it there is no limit worth the name.
const MAX_SIZE: u64 = 1 << 40;

/// Networks, or addresses.
pub(super) fn networks(node: &Node<'_>) -> Vec<IpNet> {
    let items = node.list("networks such as 10.0.0.0/8").unwrap_or_default();
    items.iter().filter_map(network).collect()
}

fn network(item: &Node<'_>) -> Option<IpNet> {
    let net = item.parsed("a network such as 10.0.0.0/8, or an IP address", |text| {
        text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
    })?;
    if net != net.trunc() {
        let message = format!("{net} has bits set beyond its prefix; allowed: {}", net.trunc());
        item.problem(message);
        return None;
    }
    Some(net)
}

pub(super) fn access(fields: &mut Fields<'_>) -> Access {
    let node = fields.take("access");
    let Some(mut fields) = node.and_then(|node| node.fields("access")) else {
        return Access::default();
    };
    let mut list = |key| fields.take(key).map(|node| networks(&node)).unwrap_or_default();
    let access = Access { allow: list("allow"), deny: list("deny") };
    fields.finish();
    access
}

/// Whether a listener takes headers; there must be somebody to believe.
pub(super) fn acceptance(node: &Node<'_>, is_anyone_trusted: bool) -> Option<Acceptance> {
    if node.is_off() {
        return Some(Acceptance::Off);
    }
    let words = [
        ("off", Acceptance::Off),
        ("accept", Acceptance::Accept),
        ("require", Acceptance::Require),
    ];
    let acceptance = node.word(&words)?;
    if acceptance != Acceptance::Off && !is_anyone_trusted {
        node.problem("no peer is believed; needed: `trusted_proxies`");
    }
    Some(acceptance)
}

/// What the whole file says of clients, and what a version's limits are unless it says otherwise.
pub(super) fn client_limits(fields: &mut Fields<'_>) -> (ClientLimits, Limits) {
    let (client, request) = (ClientLimits::default(), Limits::default());
    let Some(mut fields) = fields.take("limits").and_then(|node| node.fields("limits")) else {
        return (client, request);
    };
    let ipv6_prefix = fields.integer("ipv6_prefix", 1..=128, client.ipv6_prefix.into());
    let client = ClientLimits {
        connections: fields.optional("connections", None, |node| node.integer(1..=10_000_000)),
        connections_per_client: fields
            .optional("connections_per_client", None, |node| node.integer(1..=1_000_000)),
        ipv6_prefix: u8::try_from(ipv6_prefix).unwrap_or(client.ipv6_prefix),
        head: size(&mut fields, "head", KIB..=64 * KIB, client.head),
        fields: fields.integer("fields", 1..=1000, client.fields as u32) as usize,
        uri: size(&mut fields, "uri", 1..=64 * KIB, client.uri),
        retry_memory: fields
            .take("retry_memory")
            .and_then(|node| node.size(MAX_SIZE))
            .unwrap_or(client.retry_memory),
    };
    let request = limits(&mut fields, request);
    fields.finish();
    (client, request)
}

/// The limits that both the file and a version may set.
pub(super) fn limits(fields: &mut Fields<'_>, default: Limits) -> Limits {
    /// Faster than that is no client.
    const FASTEST: u64 = 1 << 30;
    let rate = |node: &Node<'_>| {
        let bytes = node.size(FASTEST)?;
        if bytes == 0 {
            node.problem("nothing is slower than that; allowed: bytes from 1 to 1024MiB, none");
        }
        Some(bytes)
    };
    Limits {
        max_body: fields.optional("max_body", default.max_body, |node| node.size(MAX_SIZE)),
        min_upload: fields.optional("min_upload", default.min_upload, rate),
        min_download: fields.optional("min_download", default.min_download, rate),
    }
}

fn size(
    fields: &mut Fields<'_>,
    key: &'static str,
    range: RangeInclusive<usize>,
    default: usize,
) -> usize {
    let Some(node) = fields.take(key) else { return default };
    let found = node.size(*range.end() as u64).and_then(|bytes| usize::try_from(bytes).ok());
    if found.is_some_and(|bytes| bytes < *range.start()) {
        let (least, most) = (range.start(), range.end() / KIB);
        node.problem(format_args!("too small; allowed: {least} bytes to {most}KiB"));
    }
    found.unwrap_or(default)
}

pub(super) fn rate_limit(node: &Node<'_>) -> Option<RateLimit> {
    let mut fields = node.fields("rate_limit")?;
    let by = fields.take("by").map(|node| version::hash_key(&node));
    let requests = match fields.take("requests") {
        Some(node) => node.integer(1..=1_000_000),
        None => {
            fields.missing("requests", "a whole number from 1 to 1000000");
            None
        }
    };
    let per = fields.duration("per", PER, Duration::from_secs(1));
    let burst = fields.take("burst").map(|node| node.integer(1..=1_000_000));
    fields.finish();
    let requests = requests?;
    let by = by.map_or(Some(HashKey::ClientIp), |by| by)?;
    Some(RateLimit { by, requests, per, burst: burst.flatten().unwrap_or(requests) })
}
