//! The versions of a service, and how requests are shared among them.

use std::ops::Range;

use crate::config::types::{self, AtZero, ShardBy};
use crate::route::split::Sharing;
use crate::snapshot::Service;

/// The versions of a service among all those of the snapshot.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) versions: Range<usize>,
    /// Where there are several.
    several: Option<Box<Several>>,
}

#[derive(Debug)]
struct Several {
    sharing: Sharing,
    shard_by: ShardBy,
    at_zero: AtZero,
    /// By version, the first one that carries tokens in the same way; none without tokens.
    carriers: Box<[Option<usize>]>,
}

/// The versions of one service.
#[derive(Debug, Clone, Copy)]
pub struct Branch<'a> {
    services: &'a [Service],
    several: Option<&'a Several>,
}

impl Place {
    /// Of the versions of `service`, the first of which is at `first`.
    pub(super) fn new(service: &types::Service, first: usize) -> Self {
        let versions = first..first + service.versions.len();
        let split = service.split.as_ref().filter(|_| service.versions.len() > 1);
        let several = split.map(|split| {
            let weights = service.versions.iter().map(|it| (&*it.name, split.weight(&it.name)));
            Box::new(Several {
                sharing: Sharing::new(weights),
                shard_by: split.shard_by,
                at_zero: split.at_zero,
                carriers: carriers(service),
            })
        });
        Self { versions, several }
    }

    pub(super) fn of<'a>(&'a self, services: &'a [Service]) -> Branch<'a> {
        let services = &services[self.versions.clone()];
        Branch { services, several: self.several.as_deref() }
    }
}

/// Which version is the first that carries tokens as each does.
fn carriers(service: &types::Service) -> Box<[Option<usize>]> {
    let by_token = |version: &types::Version| {
        let affinity = version.affinity.as_ref().filter(|affinity| affinity.by.is_none())?;
        let (cookie, header) = (affinity.cookie.name.clone(), affinity.header.clone());
        Some((cookie, header, affinity.query.clone(), affinity.cross_site_cookie))
    };
    let ways: Vec<_> = service.versions.iter().map(by_token).collect();
    let first = |way| ways.iter().position(|it| it == way).filter(|_| Option::is_some(way));
    ways.iter().map(first).collect()
}

impl<'a> Branch<'a> {
    /// The version, where it is the only one.
    pub fn only(self) -> Option<&'a Service> {
        if self.several.is_some() { None } else { self.services.first() }
    }

    /// All of them.
    pub fn versions(self) -> &'a [Service] {
        self.services
    }

    /// The version of this name.
    pub fn named(self, version: &str) -> Option<&'a Service> {
        self.services.iter().find(|service| service.roster.version() == version)
    }

    /// What decides where there are several.
    pub fn shard_by(self) -> ShardBy {
        self.several.map_or(ShardBy::Random, |several| several.shard_by)
    }

    /// The version of clients with this number.
    pub fn of_number(self, number: u64) -> &'a Service {
        let place = self.several.map_or(0, |several| several.sharing.of(number));
        &self.services[place]
    }

    /// Versions whose tokens are looked for, one of each way to carry them.
    pub fn carriers(self) -> impl Iterator<Item = &'a Service> {
        let firsts = self.several.map_or(&[][..], |several| &several.carriers);
        let is_first = |(place, first): &(usize, &Option<usize>)| **first == Some(*place);
        firsts.iter().enumerate().filter(is_first).map(move |(place, _)| &self.services[place])
    }

    /// Whether two versions carry tokens in the same way.
    pub fn carry_alike(self, one: &Service, other: &Service) -> bool {
        let way = |version| self.several?.carriers[self.place(version)?];
        way(one).is_some() && way(one) == way(other)
    }

    fn place(self, version: &Service) -> Option<usize> {
        self.services.iter().position(|known| std::ptr::eq(known, version))
    }

    /// Whether a version keeps the sessions that it has.
    pub fn keeps_sessions(self, version: &Service) -> bool {
        let Some(several) = self.several else { return true };
        let has_weight = |place| several.sharing.has_weight(place);
        several.at_zero == AtZero::Keep || self.place(version).is_some_and(has_weight)
    }
}
