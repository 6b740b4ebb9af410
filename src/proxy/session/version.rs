//! To which version of its service a request goes, where there are several: by what binds it to one, else by
//! the weights.

use std::net::IpAddr;

use http::request;

use super::{MEMORY, Session, wall_clock};
use crate::affinity::cookie::Values;
use crate::affinity::engine_io::{self, Ask};
use crate::affinity::{Rejection, carriers, cookie};
use crate::config::types::ShardBy;
use crate::proxy::client::Client;
use crate::route::split::{self, By, PLACES};
use crate::snapshot::{Branch, Service, Snapshot};

/// Which version, and why that one.
#[derive(Debug, Clone, Copy)]
pub struct Lot<'a> {
    /// The version.
    pub service: &'a Service,
    /// What decided.
    pub by: By,
    /// What the client's cookie is to hold from now on.
    pub number: Option<u32>,
}

/// Draws the version of a request from this address. `stream` is its stream, if others of its connection
/// are its client's too.
pub fn draw<'a>(
    snapshot: &'a Snapshot,
    branch: Branch<'a>,
    head: &request::Parts,
    address: IpAddr,
    stream: Option<&Client>,
) -> Lot<'a> {
    let lot = |service, by| Lot { service, by, number: None };
    if let Some(service) = by_token(snapshot, branch, head) {
        return lot(service, By::Token);
    }
    let serves = |service: &&Service| branch.keeps_sessions(service);
    if let Some(service) = by_engine_io(branch, head).filter(serves) {
        return lot(service, By::EngineIo);
    }
    if let Some(service) = by_streams(branch, stream).filter(serves) {
        return lot(service, By::Streams);
    }
    match branch.shard_by() {
        ShardBy::Random => lot(branch.of_number(fastrand::u64(..)), By::Random),
        ShardBy::Ip => {
            let bits = snapshot.config.client_limits.ipv6_prefix;
            lot(branch.of_number(number_of(address, bits)), By::Ip)
        }
        ShardBy::Cookie => {
            if let Some(number) = by_cookie(branch, head) {
                return lot(branch.of_number(number.into()), By::Cookie);
            }
            let number = fastrand::u32(..PLACES);
            let service = branch.of_number(number.into());
            // With a token the client will hold what tells more.
            let is_bound = service.version().affinity.as_ref().is_some_and(|it| it.by.is_none());
            Lot { service, by: By::Drawn, number: (!is_bound).then_some(number) }
        }
    }
}

/// The version that a token names which would be honoured there, if it keeps its sessions.
fn by_token<'a>(
    snapshot: &Snapshot,
    branch: Branch<'a>,
    head: &request::Parts,
) -> Option<&'a Service> {
    let now = wall_clock();
    let named = |values: Result<Values, Rejection>| {
        let values = values.ok()?;
        let mut newest: Option<(u64, u64, &Service)> = None;
        for value in values.iter() {
            MEMORY.with_borrow_mut(|memory| {
                let Ok(claim) = memory.open(&snapshot.keyring, value.as_bytes()) else { return };
                let Some(service) = branch.named(claim.version) else { return };
                let is_newer = newest.is_none_or(|(renewed, ..)| claim.renewed > renewed);
                if is_newer && Session::heed(service, &claim, now).is_ok() {
                    newest = Some((claim.renewed, claim.issued, service));
                }
            });
        }
        newest.map(|(_, issued, service)| (service, issued))
    };
    let mut affinities = branch.carriers().filter_map(|it| it.version().affinity.as_ref());
    let found = affinities.find_map(|affinity| {
        let mut found = None;
        carriers::peek(affinity, &head.headers, &head.uri, |values| {
            found = named(values);
            found.is_some()
        });
        found
    });
    let (service, issued) = found?;
    branch.keeps_session(service, issued).then_some(service)
}

/// The version that issued the engine.io session which the request belongs to.
fn by_engine_io<'a>(branch: Branch<'a>, head: &request::Parts) -> Option<&'a Service> {
    let is_heeded = |service: &&Service| {
        service.version().affinity.as_ref().is_some_and(|affinity| affinity.engine_io)
    };
    let mut versions = branch.versions().iter().filter(is_heeded).peekable();
    versions.peek()?;
    let Some(Ask::Continues(sid)) = head.uri.query().and_then(engine_io::ask) else { return None };
    let now = std::time::Instant::now();
    versions.find(|service| {
        let sids = &service.roster.sids;
        sids.peek(sids.key(sid), now).is_some()
    })
}

/// The version of the streams that are in flight beside this one.
fn by_streams<'a>(branch: Branch<'a>, stream: Option<&Client>) -> Option<&'a Service> {
    let companion = stream?.companion()?;
    let identity = companion.identity();
    let service = branch.named(&identity.version)?;
    (service.roster.service() == identity.service).then_some(service)
}

fn by_cookie(branch: Branch<'_>, head: &request::Parts) -> Option<u32> {
    let name = &branch.versions().first()?.settings().split.as_ref()?.cookie;
    let values = cookie::peek(&head.headers, name).ok()??;
    let number = |text: &[u8]| {
        let is_plain = (1..=6).contains(&text.len()) && text.iter().all(u8::is_ascii_digit);
        std::str::from_utf8(text).ok().filter(|_| is_plain)?.parse().ok()
    };
    values.iter().find_map(|value| number(value.as_bytes()))
}

/// Of an IPv6 address only the first bits say whose it is.
fn number_of(address: IpAddr, bits: u8) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(address) => split::hash(&address.octets()),
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(u32::from(128 - bits.min(128))).unwrap_or_default();
            split::hash(&(address.to_bits() & mask).to_be_bytes())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_client_has_one_number_in_all_its_network() {
        let number = |text: &str, bits| number_of(text.parse().unwrap(), bits);
        assert_eq!(number("2001:db8::1", 64), number("2001:db8::ffff:2", 64));
        assert_ne!(number("2001:db8::1", 128), number("2001:db8::2", 128));
        assert_ne!(number("2001:db8:0:1::1", 64), number("2001:db8:0:2::1", 64));
        assert_eq!(number("::ffff:192.0.2.7", 64), number("192.0.2.7", 64));
        assert_ne!(number("192.0.2.7", 64), number("192.0.2.8", 64));
    }
}
