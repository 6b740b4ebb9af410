//! The keys of the whole file, from a tree to a [`Config`].
//!
//! Rules of one part live in that part's file. Always answers a whole value: what was wrong is in
//! the sink, and the caller throws the value away if anything is.

mod access_log;
mod acme;
mod admin;
mod affinity;
pub(super) mod checks;
mod clients;
mod discovery;
mod docker;
mod etcd;
mod fleet;
mod instance_tls;
mod instances;
pub(super) mod keys;
mod kubernetes;
mod mirror;
pub(super) mod names;
mod retry;
mod route;
mod service;
mod split;
mod tls;
mod tracing;
mod tunnels;
pub(super) mod version;

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::node::{Fields, Node};
use super::tree::Data;
use super::types::{
    AccessLog, ClientTimeouts, Config, Drain, Forwarding, Listener, Timeouts, User, Via, Workers,
};

const LONGEST: Duration = Duration::from_secs(365 * 86_400);
/// For limits that would refuse everything if they were zero.
pub(super) const LIMIT: RangeInclusive<Duration> = Duration::from_millis(1)..=LONGEST;
/// For waits that may be skipped.
const WAIT: RangeInclusive<Duration> = Duration::ZERO..=LONGEST;

/// What is each balancer's own where a fleet shares the rest.
const OWN: [&str; 9] = [
    "workers",
    "listeners",
    "trusted_proxies",
    "admin",
    "fleet",
    "affinity_keys",
    "access_log",
    "tracing",
    "user",
];
/// That rest, but for what a version may have at the top level.
const SHARED: [&str; 6] = ["services", "forwarding", "timeouts", "limits", "shutdown", "upgrade"];

pub(super) fn config(root: &Node<'_>) -> Option<Config> {
    let fields = root.fields("configuration")?;
    read(fields)
}

/// What a fleet shares of the configurations of its balancers.
pub(super) fn shared(root: &Node<'_>) -> Option<Config> {
    let mut fields = root.fields("configuration")?;
    for node in OWN.into_iter().filter_map(|key| fields.remove(key)) {
        node.problem("not a thing of the fleet; allowed: in the file of each balancer");
    }
    read(fields)
}

fn read(mut fields: Fields<'_>) -> Option<Config> {
    let workers = fields.take("workers").and_then(|node| workers(&node));
    let fleet = fields.switched("fleet", fleet::fleet).map(Arc::new);
    let is_shared = fleet.as_ref().is_some_and(|fleet| fleet.config);
    if is_shared {
        let shared = SHARED.into_iter().chain(version::VERSION_KEYS);
        for node in shared.filter_map(|key| fields.remove(key)) {
            let why = "the fleet's, since `fleet.config` is true; allowed: in what `burdock fleet push` takes";
            node.problem(why);
        }
    }
    let trusted_proxies = fields.take("trusted_proxies").map(|node| clients::networks(&node));
    let trusted_proxies = trusted_proxies.unwrap_or_default();
    let listeners = listeners(&mut fields, !trusted_proxies.is_empty());
    let forwarding = fields.take("forwarding").and_then(|node| forwarding(&node));
    let admin = admin::admin(&mut fields, &listeners);
    let affinity_keys = fields.take("affinity_keys").map(|node| keys::affinity_keys(&node));
    let access_log = fields.take("access_log");
    let access_log =
        access_log.map_or(Some(AccessLog::default()), |node| access_log::access_log(&node));
    let tracing = fields.switched("tracing", tracing::tracing).map(Arc::new);
    let (client_timeouts, timeouts) = timeouts(&mut fields);
    let (client_limits, limits) = clients::client_limits(&mut fields);
    let shutdown = drain(&mut fields, "shutdown");
    let upgrade = drain(&mut fields, "upgrade");
    let user = fields.take("user").and_then(|node| user(&node));
    let defaults = version::Defaults { timeouts, limits };
    let services = match is_shared {
        true => Vec::new(),
        false => service::services(&mut fields, defaults),
    };
    fields.finish();
    Some(Config {
        workers: workers.unwrap_or(Workers::Auto),
        listeners,
        trusted_proxies,
        forwarding: forwarding.unwrap_or_default(),
        admin,
        fleet,
        affinity_keys: affinity_keys.unwrap_or_default(),
        access_log,
        tracing,
        client_timeouts,
        client_limits,
        shutdown,
        upgrade,
        user,
        services,
    })
}

fn workers(node: &Node<'_>) -> Option<Workers> {
    if node.as_text() == Some("auto") {
        return Some(Workers::Auto);
    }
    match node.tree.data {
        Data::Integer(count @ 1..=1024) => usize::try_from(count).ok().map(Workers::Count),
        _ => node.wrong("auto, or a whole number from 1 to 1024"),
    }
}

/// Names of the system are looked up when they are needed, where this process runs.
fn user(node: &Node<'_>) -> Option<User> {
    let is_name = |name: &str| {
        let safe = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
        (1..=32).contains(&name.len()) && name.bytes().all(safe)
    };
    const ALLOWED: &str = "none, NAME or NAME:GROUP";
    let Some(text) = node.as_text() else { return node.wrong(ALLOWED) };
    if text == "none" {
        return None;
    }
    let (name, group) = match text.split_once(':') {
        Some((name, group)) => (name, Some(group)),
        None => (text, None),
    };
    if !is_name(name) || !group.is_none_or(is_name) {
        return node.wrong(ALLOWED);
    }
    Some(User { name: name.to_owned(), group: group.map(str::to_owned) })
}

/// At least one, even where all that are given are wrong.
fn listeners(fields: &mut Fields<'_>, is_anyone_trusted: bool) -> Vec<Listener> {
    const DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 8080);
    let (mut listeners, mut seen) = (Vec::new(), HashSet::new());
    let allowed = "addresses such as 0.0.0.0:8080";
    if let Some(node) = fields.take("listeners") {
        for item in node.list(allowed).unwrap_or_default() {
            let Some(listener) = listener(&item, is_anyone_trusted) else { continue };
            let address = listener.address;
            // Port 0 is another free port each time.
            if address.port() != 0 && !seen.insert(address) {
                item.problem(format_args!("{address} is listed twice; allowed: once"));
            } else {
                listeners.push(listener);
            }
        }
        if matches!(&node.tree.data, Data::List(items) if items.is_empty()) {
            node.problem("no listener; needed: at least one, such as 0.0.0.0:8080");
        }
    }
    if listeners.is_empty() {
        listeners.push(Listener::at(DEFAULT));
    }
    acme::warn(fields.node.sink, &listeners);
    listeners
}

fn listener(item: &Node<'_>, is_anyone_trusted: bool) -> Option<Listener> {
    if item.as_text().is_some() {
        return listen_address(item).map(Listener::at);
    }
    let mut fields = item.fields("listener")?;
    let address = fields.take("address");
    if address.is_none() {
        fields.missing("address", "IP:PORT or :PORT");
    }
    let http2 = fields.boolean("http2", true);
    let proxy_protocol = fields
        .take("proxy_protocol")
        .and_then(|node| clients::acceptance(&node, is_anyone_trusted));
    let proxy_protocol = proxy_protocol.unwrap_or_default();
    let access = clients::access(&mut fields);
    let tls = fields.take("tls").filter(|node| !node.is_off());
    let https_redirect = fields.take("https_redirect").filter(|node| !node.is_off());
    if let (Some(_), Some(node)) = (&tls, &https_redirect) {
        node.problem("clients of this listener speak TLS already; allowed: on a plain listener");
    }
    let tls = tls.and_then(|node| tls::tls(&node));
    let https_redirect = https_redirect.and_then(|node| tls::https_redirect(&node));
    fields.finish();
    let address = listen_address(&address?)?;
    Some(Listener { address, http2, proxy_protocol, access, tls, https_redirect })
}

fn listen_address(node: &Node<'_>) -> Option<SocketAddr> {
    node.parsed("IP:PORT such as 0.0.0.0:8080 or \"[::]:8080\", or \":8080\"", |text| {
        match text.strip_prefix(':') {
            Some(port) => format!("0.0.0.0:{port}").parse().ok(),
            None => text.parse().ok(),
        }
    })
}

fn forwarding(node: &Node<'_>) -> Option<Forwarding> {
    let mut fields = node.fields("forwarding")?;
    let default = Forwarding::default();
    let forwarding = Forwarding {
        x_forwarded: fields.boolean("x_forwarded", default.x_forwarded),
        forwarded: fields.boolean("forwarded", default.forwarded),
        request_id: fields.boolean("request_id", default.request_id),
        via: fields.take("via").map_or(default.via, |node| via(&node)),
    };
    fields.finish();
    Some(forwarding)
}

fn via(node: &Node<'_>) -> Option<Via> {
    let allowed =
        format_args!("a name such as burdock or lb-1, of up to {} bytes, or off", Via::LONGEST);
    node.parsed(allowed, |text| match text {
        "off" => Some(None),
        name => Via::new(name).map(Some),
    })?
}

/// The limits of listeners, and what a version's limits are unless it says otherwise.
fn timeouts(fields: &mut Fields<'_>) -> (ClientTimeouts, Timeouts) {
    let (client, instance) = (ClientTimeouts::default(), Timeouts::default());
    let Some(mut fields) = fields.take("timeouts").and_then(|node| node.fields("timeouts")) else {
        return (client, instance);
    };
    let client = ClientTimeouts {
        header_read: fields.duration("header_read", LIMIT, client.header_read),
        keep_alive: fields.duration("keep_alive", LIMIT, client.keep_alive),
    };
    let instance = version::timeouts(&mut fields, instance);
    fields.finish();
    (client, instance)
}

fn drain(fields: &mut Fields<'_>, key: &'static str) -> Drain {
    let default = Drain::default();
    let node = fields.take(key);
    let Some(mut fields) = node.and_then(|node| node.fields("drain")) else { return default };
    let drain = window(&mut fields, default);
    fields.finish();
    drain
}

/// How long something may take that is spread over its end.
fn window(fields: &mut Fields<'_>, default: Drain) -> Drain {
    let timeout = match fields.take("timeout") {
        None => Some(default.timeout),
        Some(node) => node.duration(WAIT),
    };
    // A timeout shorter than the default spread is no mistake of whoever wrote it.
    let spread = fields.take("spread");
    let given = spread.as_ref().and_then(|node| node.duration(WAIT));
    if let (Some(node), Some(given), Some(timeout)) = (&spread, given, timeout)
        && given > timeout
    {
        node.problem("longer than `timeout`; allowed: up to the value of `timeout`");
    }
    let timeout = timeout.unwrap_or(default.timeout);
    Drain { timeout, spread: given.unwrap_or(default.spread.min(timeout)) }
}
