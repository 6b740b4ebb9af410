//! `traffic_split`: how requests are shared among the versions of a service.

use std::collections::BTreeMap;

use super::affinity;
use crate::config::node::Node;
use crate::config::tree::Data;
use crate::config::types::{AtZero, SHARE_UNIT, ShardBy, Split, Version};

/// What the name of a cookie ends in that is paired with another one.
const PAIRED: &str = "_XS";
/// The largest weight; shares are what weights are of their sum.
const HIGHEST: u32 = 10_000;

/// The split of a service with these versions; `owner` is the service itself.
pub(super) fn split(
    owner: &Node<'_>,
    node: Option<&Node<'_>>,
    versions: &[Version],
) -> Option<Split> {
    let given = node.filter(|node| !node.is_off());
    let several = versions.len() > 1;
    let Some(node) = given else {
        if several {
            node.unwrap_or(owner).problem(format_args!(
                "{} versions and no `traffic_split`; needed: `traffic_split: {{ allocations: .. }}` \
                 with a weight for each",
                versions.len()
            ));
        }
        return None;
    };
    let mut fields = node.fields("traffic_split")?;
    let shard_by = fields.take("shard_by").and_then(|node| node.word(&ShardBy::WORDS));
    let shard_by = shard_by.unwrap_or_default();
    let given = fields.take("cookie");
    let cookie = given.as_ref().and_then(|node| cookie(node, shard_by));
    let cookie = cookie.unwrap_or_else(|| Split::COOKIE.to_owned());
    if shard_by == ShardBy::Cookie && carries_tokens(&cookie, versions) {
        given.as_ref().unwrap_or(node).problem(format_args!(
            "{cookie} is the cookie of an affinity token; allowed: another name"
        ));
    }
    let at_zero = fields.take("sessions_at_zero").and_then(|node| node.word(&AtZero::WORDS));
    let allocations = match fields.take("allocations") {
        Some(node) => allocations(&node, versions),
        None => {
            fields
                .missing("allocations", "a weight for each version, such as { v1: 0.9, v2: 0.1 }");
            None
        }
    };
    fields.finish();
    Some(Split {
        shard_by,
        cookie,
        allocations: allocations?,
        at_zero: at_zero.unwrap_or_default(),
        recall: None,
    })
}

fn cookie(node: &Node<'_>, shard_by: ShardBy) -> Option<String> {
    if shard_by != ShardBy::Cookie {
        node.problem("says nothing here; needed: `shard_by: cookie`");
    }
    affinity::cookie_name(node)
}

/// Whether a version has tokens in a cookie of this name.
fn carries_tokens(name: &str, versions: &[Version]) -> bool {
    let mut affinities = versions.iter().filter_map(|version| version.affinity.as_ref());
    affinities.any(|affinity| {
        let paired = name.strip_suffix(PAIRED).filter(|_| affinity.cross_site_cookie);
        affinity.by.is_none() && [Some(name), paired].contains(&Some(&affinity.cookie.name))
    })
}

fn allocations(node: &Node<'_>, versions: &[Version]) -> Option<BTreeMap<String, u32>> {
    let entries = node.named("a map of weights by version")?;
    let (mut weights, count) = (BTreeMap::new(), entries.len());
    for (name, node) in entries {
        if versions.iter().all(|version| version.name != name) {
            let known: Vec<_> = versions.iter().map(|version| &*version.name).collect();
            let known = known.join(", ");
            node.problem(format_args!("{name:?} is no version of the service; allowed: {known}"));
        }
        if let Some(weight) = weight(&node) {
            weights.insert(name.to_owned(), weight);
        }
    }
    if weights.len() == count && weights.values().all(|weight| *weight == 0) {
        node.problem("no version has a weight; needed: one above 0");
    }
    Some(weights)
}

/// In ten-thousandths.
fn weight(node: &Node<'_>) -> Option<u32> {
    let allowed = "a number from 0 to 10000 with at most 4 decimals, such as 0.9 or 90";
    let unit = f64::from(SHARE_UNIT);
    let parts = match node.tree.data {
        Data::Integer(whole) => u32::try_from(whole).ok().map(|whole| f64::from(whole) * unit),
        Data::Float(number) => Some(number * unit),
        _ => None,
    };
    let range = 0.0..=f64::from(HIGHEST) * unit;
    // Decimals have no exact value in binary.
    let is_fine = |parts: &f64| (parts - parts.round()).abs() < 1e-4;
    let parts = parts.filter(|parts| range.contains(parts)).filter(is_fine);
    parts.map(|parts| parts.round() as u32).or_else(|| node.wrong(allowed))
}
