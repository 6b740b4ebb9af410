//! Instances in the DNS: the addresses of a name, or the targets of its SRV records (RFC 2782).
//!
//! Asked again when the first record's TTL has passed, and at the latest after `refresh`. No answer
//! is a failure; an answer that there are no records is one that names nobody. Every question is for a
//! whole name: a resolver that goes through a search list by itself goes on after failures too, and
//! what it says at the end would be about another name.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::RData;
use hickory_resolver::proto::rr::rdata::SRV;
use hickory_resolver::system_conf::read_system_conf;

use super::{Backoff, Reporter};
use crate::config::found::{MOST, Member};
use crate::config::types::{Dns, Names};

/// However short a TTL is.
const SOONEST: Duration = Duration::from_secs(1);
/// For one question to one server.
const PATIENCE: Duration = Duration::from_secs(3);
/// For all questions that an answer needs.
const LONGEST: Duration = Duration::from_secs(30);
/// The largest weight that there is here.
const MAX_WEIGHT: u64 = 1000;

/// Reports what the DNS says, again and again.
pub(super) async fn follow(dns: Dns, reporter: Reporter) {
    let mut backoff = Backoff::default();
    loop {
        let told = match tokio::time::timeout(LONGEST, ask(&dns)).await {
            Ok(told) => told,
            Err(_late) => Err(format!("no whole answer within {LONGEST:?}")),
        };
        let wait = match &told {
            Ok((_, until)) => {
                backoff.succeeded();
                let left = until.saturating_duration_since(Instant::now());
                left.clamp(SOONEST, dns.refresh.max(SOONEST))
            }
            Err(_) => backoff.failed().min(dns.refresh.max(SOONEST)),
        };
        reporter.tell(told.map(|(members, _)| members)).await;
        tokio::time::sleep(wait).await;
    }
}

/// Who there is, and until when that holds. The resolver is made anew each time, since
/// `/etc/resolv.conf` may have changed; it keeps nothing.
async fn ask(dns: &Dns) -> Result<(Vec<Member>, Instant), String> {
    let (config, mut options) = setting(&dns.resolvers).map_err(|error| error.to_string())?;
    options.cache_size = 0;
    options.timeout = PATIENCE;
    let (names, ndots) = (searched(&config), options.ndots);
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    *builder.options_mut() = options;
    let resolver = builder.build().map_err(|error| error.to_string())?;
    let mut none = (Vec::new(), forever());
    for name in whole(dns.names.name(), &names, ndots) {
        let answer = match &dns.names {
            Names::Addresses { port, .. } => {
                let found = addresses(&resolver, &name).await?;
                let members = found.addresses.iter().map(|ip| at(*ip, *port)).collect();
                (members, found.until)
            }
            Names::Services { .. } => services(&resolver, &name).await?,
        };
        if !answer.0.is_empty() {
            return Ok(answer);
        }
        none.1 = none.1.min(answer.1);
    }
    Ok(none)
}

/// Whom to ask, and how.
fn setting(servers: &[SocketAddr]) -> Result<(ResolverConfig, ResolverOpts), NetError> {
    if servers.is_empty() {
        return read_system_conf();
    }
    let server = |address: &SocketAddr| {
        let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut it| {
            it.port = address.port();
            it
        });
        NameServerConfig::new(address.ip(), true, connections.into())
    };
    let config = ResolverConfig::from_name_servers(servers.iter().map(server).collect());
    let mut options = ResolverOpts::default();
    options.use_hosts_file = ResolveHosts::Never;
    Ok((config, options))
}

/// The domains in which names without a final dot are looked for.
fn searched(config: &ResolverConfig) -> Vec<String> {
    let domains = config.search().iter().chain(config.domain());
    domains.map(|domain| domain.to_utf8()).collect()
}

/// The whole names that a name may stand for, in the order in which the system asks for them: one
/// with fewer than `ndots` dots is more likely a part.
fn whole(name: &str, searched: &[String], ndots: usize) -> Vec<String> {
    if name.ends_with('.') {
        return vec![name.to_owned()];
    }
    let itself = std::iter::once(format!("{name}."));
    let parts = searched.iter().map(|domain| format!("{name}.{}.", domain.trim_matches('.')));
    let parts = parts.filter(|part| !part.ends_with(".."));
    match name.matches('.').count() < ndots {
        true => parts.chain(itself).collect(),
        false => itself.chain(parts).collect(),
    }
}

/// Addresses of a name, in order.
struct Addresses {
    addresses: BTreeSet<IpAddr>,
    until: Instant,
}

/// Both kinds, or neither: half of an answer would take instances away.
async fn addresses(resolver: &TokioResolver, host: &str) -> Result<Addresses, String> {
    let (four, six) = tokio::join!(resolver.ipv4_lookup(host), resolver.ipv6_lookup(host));
    let mut found = Addresses { addresses: BTreeSet::new(), until: forever() };
    for lookup in [four, six] {
        let Some(lookup) = or_none(lookup, host)? else { continue };
        found.until = found.until.min(lookup.valid_until());
        let ips = lookup.answers().iter().filter_map(|record| record.data.ip_addr());
        found.addresses.extend(ips);
    }
    Ok(found)
}

async fn services(resolver: &TokioResolver, name: &str) -> Result<(Vec<Member>, Instant), String> {
    let Some(lookup) = or_none(resolver.srv_lookup(name).await, name)? else {
        return Ok((Vec::new(), forever()));
    };
    let mut until = lookup.valid_until();
    let records = lookup.answers().iter().filter_map(|record| match &record.data {
        RData::SRV(record) => Some(record),
        _ => None,
    });
    let (mut members, mut known) = (Vec::new(), BTreeMap::<String, Addresses>::new());
    for (target, port, weight) in first_choice(records) {
        if !known.contains_key(&target) {
            known.insert(target.clone(), addresses(resolver, &format!("{target}.")).await?);
        }
        let found = &known[&target];
        until = until.min(found.until);
        let is_only = found.addresses.len() == 1;
        for ip in &found.addresses {
            let named = is_only.then(|| member(&target, *ip, port)).flatten();
            let member = named.unwrap_or_else(|| at(*ip, port));
            members.push(Member { weight, ..member });
        }
        if members.len() > MOST {
            return Err(format!("{name} has more than {MOST} instances"));
        }
    }
    Ok((members, until))
}

/// The targets of the lowest priority, which are asked before all others, with weights as they are
/// here: 0 is the least that a target may be asked for, and not never.
fn first_choice<'a>(records: impl Iterator<Item = &'a SRV>) -> Vec<(String, u16, u32)> {
    let records: Vec<_> = records.filter(|record| !record.target.is_root()).collect();
    let first = records.iter().map(|record| record.priority).min();
    let chosen = records.iter().filter(|record| Some(record.priority) == first);
    let largest = chosen.clone().map(|record| u64::from(record.weight)).max().unwrap_or_default();
    let weight = |weight: u16| {
        let weight = u64::from(weight);
        let scaled = if largest > MAX_WEIGHT { weight * MAX_WEIGHT / largest } else { weight };
        u32::try_from(scaled.max(1)).unwrap_or(1)
    };
    let row = |record: &&SRV| {
        let target = record.target.to_utf8();
        (target.trim_end_matches('.').to_owned(), record.port, weight(record.weight))
    };
    chosen.map(row).collect()
}

fn at(ip: IpAddr, port: u16) -> Member {
    let address = SocketAddr::new(ip, port).to_string();
    Member { name: address.clone(), address, weight: 1, draining: false, unready: false }
}

/// One that keeps its name when its address changes; none, if that makes no name.
fn member(target: &str, ip: IpAddr, port: u16) -> Option<Member> {
    let name = format!("{target}:{port}");
    Member::new(Some(name), at(ip, port).address, 1, false).ok()
}

/// Nothing, if the answer is that there is nothing.
fn or_none(lookup: Result<Lookup, NetError>, name: &str) -> Result<Option<Lookup>, String> {
    match lookup {
        Ok(lookup) => Ok(Some(lookup)),
        Err(error) if error.is_no_records_found() => Ok(None),
        Err(error) => Err(format!("asking for {name}: {error}")),
    }
}

/// As long as nothing says less.
fn forever() -> Instant {
    Instant::now() + Duration::from_secs(86_400)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_asked_for_as_the_system_would() {
        let domains = ["corp.example.".to_owned(), "example".to_owned()];
        let all = |name: &str, ndots| whole(name, &domains, ndots);
        assert_eq!(all("chat", 1), ["chat.corp.example.", "chat.example.", "chat."]);
        assert_eq!(all("a.b", 1), ["a.b.", "a.b.corp.example.", "a.b.example."]);
        assert_eq!(all("a.b", 5), ["a.b.corp.example.", "a.b.example.", "a.b."]);
        assert_eq!(all("a.b.", 5), ["a.b."], "it is whole already");
        assert_eq!(whole("chat", &[], 1), ["chat."]);
    }

    #[test]
    fn the_lowest_priority_is_asked_with_weights_that_fit() {
        let record = |priority, weight, port, target: &str| {
            SRV::new(priority, weight, port, target.parse().unwrap())
        };
        let records =
            [record(1, 65_535, 80, "a.x."), record(1, 0, 81, "b.x."), record(0, 1, 82, ".")];
        let chosen = first_choice(records.iter());
        assert_eq!(chosen, [("a.x".to_owned(), 80, 1000), ("b.x".to_owned(), 81, 1)]);
        let records = [record(2, 5, 80, "a.x."), record(1, 7, 81, "b.x.")];
        assert_eq!(first_choice(records.iter()), [("b.x".to_owned(), 81, 7)]);
    }
}
