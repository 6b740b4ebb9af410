//! To which version of its service a request goes, where there are several: by what binds it to one, else by
//! the weights.

use std::net::IpAddr;

use http::request;

use super::{MEMORY, Session, wall_clock};
use crate::affinity::engine_io::{self, Ask};
use crate::affinity::memory::Memory;
use crate::affinity::{carriers, cookie};
use crate::config::types::ShardBy;
use crate::proxy::client::Client;
use crate::proxy::headers::Fields;
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
    let told = told(snapshot, branch, head);
    if let Told::Version(service) = told {
        return lot(service, By::Token);
    }
    let serves = |service: &&Service| branch.keeps_sessions(service);
    if let Some(service) = by_engine_io(branch, head).filter(serves) {
        return lot(service, By::EngineIo);
    }
    if let Some(service) = by_streams(branch, stream).filter(serves) {
        return lot(service, By::Streams);
    }
    let of_session = match told {
        Told::Session(mark) => Some(split::hash(&mark.to_be_bytes())),
        Told::Version(_) | Told::Nothing => None,
    };
    match branch.shard_by() {
        ShardBy::Random => {
            let number = of_session.unwrap_or_else(|| fastrand::u64(..));
            lot(branch.of_number(number), By::Random)
        }
        ShardBy::Ip => {
            let bits = snapshot.config.client_limits.ipv6_prefix;
            lot(branch.of_number(number_of(address, bits)), By::Ip)
        }
        ShardBy::Cookie => {
            if let Some(number) = by_cookie(branch, head) {
                return lot(branch.of_number(number.into()), By::Cookie);
            }
            let any = || fastrand::u32(..PLACES);
            let number = match of_session {
                Some(number) => (number % u64::from(PLACES)) as u32,
                None => stream.map_or_else(any, |client| client.number(any)),
            };
            let service = branch.of_number(number.into());
            Lot { service, by: By::Drawn, number: Some(number) }
        }
    }
}

/// What the tokens of a request say of its version.
enum Told<'a> {
    Nothing,
    /// That it is this one, which keeps its sessions.
    Version(&'a Service),
    /// That it belongs to this session, which has to leave its version: requests that come at once must
    /// not part.
    Session(u64),
}

/// By the newest token of a version that keeps its sessions and looks for it where it was, else the newest
/// of all.
fn told<'a>(snapshot: &Snapshot, branch: Branch<'a>, head: &request::Parts) -> Told<'a> {
    let now = wall_clock();
    let (mut kept, mut left) = (None, None);
    for reader in branch.carriers() {
        let Some(affinity) = &reader.version().affinity else { continue };
        let mut look = |value: &[u8], memory: &mut Memory| {
            let Ok(claim) = memory.open(&snapshot.keyring, value) else { return };
            let named = branch.named(claim.version);
            let service = named.unwrap_or(reader);
            if Session::heed(service, &claim, now).is_err() {
                return;
            }
            let is_newer = |known: Option<u64>| known.is_none_or(|known| claim.renewed > known);
            match named {
                Some(service) if branch.keeps_sessions(service) => {
                    let is_read = branch.carry_alike(service, reader);
                    if is_read && is_newer(kept.map(|(renewed, _)| renewed)) {
                        kept = Some((claim.renewed, service));
                    }
                }
                _ if is_newer(left.map(|(renewed, _)| renewed)) => {
                    left = Some((claim.renewed, claim.mark));
                }
                _ => {}
            }
        };
        carriers::peek(affinity, &head.headers, &head.uri, |values| {
            let Ok(values) = values else { return false };
            MEMORY.with_borrow_mut(|memory| {
                values.iter().for_each(|value| look(value.as_bytes(), memory));
            });
            false
        });
    }
    match (kept, left) {
        (Some((_, service)), _) => Told::Version(service),
        (None, Some((_, mark))) => Told::Session(mark),
        (None, None) => Told::Nothing,
    }
}

/// Takes what only other versions than this one look for out of what its instances will see.
pub fn take_others(
    branch: Branch<'_>,
    service: &Service,
    head: &mut request::Parts,
    fields: Fields,
) {
    let has_cookies = fields.has(Fields::COOKIE);
    for other in branch.carriers().filter(|other| !branch.carry_alike(other, service)) {
        let Some(affinity) = &other.version().affinity else { continue };
        carriers::take(affinity, &mut head.headers, &mut head.uri, has_cookies, |_, _| false);
    }
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
    let companion = stream?.companion(branch.versions().first()?.roster.service())?;
    branch.named(&companion.identity().version)
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
