//! `instances`: addresses, names, weights, states, limits.
//!
//! Knows nothing of what else a version says.

use std::net::SocketAddr;

use super::names::{NAME, is_address, is_name};
use crate::config::node::{Fields, Node};
use crate::config::tree::Data;
use crate::config::types::{Instance, State};

const ADDRESS: &str = "IP:PORT, \"[IPv6]:PORT\" in quotes or HOST:PORT, port 1 to 65535";
const DEFAULT_WEIGHT: u32 = 1;

/// Where more are found at run time, none need be named.
pub(super) fn instances(fields: &mut Fields<'_>, more_are_found: bool) -> Vec<Instance> {
    let Some(node) = fields.take("instances") else {
        if !more_are_found {
            let needed = "a list of addresses such as 127.0.0.1:9001, or the key discovery";
            fields.missing("instances", needed);
        }
        return Vec::new();
    };
    let Some(items) = node.list("addresses such as 127.0.0.1:9001") else { return Vec::new() };
    if items.is_empty() && !more_are_found {
        node.problem("no instance; needed: at least one");
        return Vec::new();
    }
    let read: Vec<(Node<'_>, Instance)> =
        items.into_iter().filter_map(|item| instance(&item).map(|found| (item, found))).collect();
    report_duplicates(&read);
    if !more_are_found && !read.is_empty() && read.iter().all(|(_, instance)| instance.weight == 0)
    {
        node.problem("every weight is 0; needed: at least one above 0");
    }
    read.into_iter().map(|(_, instance)| instance).collect()
}

fn instance(item: &Node<'_>) -> Option<Instance> {
    if item.as_text().is_some() {
        return address(item).map(Instance::at);
    }
    if !matches!(item.tree.data, Data::Map(_)) {
        let keys = "name, address, weight, state, max_requests, max_tunnels";
        return item.wrong(format_args!("{ADDRESS}, or {{ {keys} }}"));
    }
    let mut fields = item.fields("instance")?;
    let address_node = fields.take("address");
    if address_node.is_none() {
        fields.missing("address", ADDRESS);
    }
    let name = fields.take("name").map(|node| {
        node.parsed(NAME, |text| is_name(text).then(|| text.to_owned())).unwrap_or_default()
    });
    let weight = fields.integer("weight", 0..=1000, DEFAULT_WEIGHT);
    let state = fields.take("state").and_then(|node| node.word(&State::WORDS));
    let limit = |node: &Node<'_>| node.integer(1..=1_000_000);
    let max_requests = fields.optional("max_requests", None, limit);
    let max_tunnels = fields.optional("max_tunnels", None, limit);
    fields.finish();
    let default = Instance::at(address(&address_node?)?);
    Some(Instance {
        name: name.unwrap_or(default.name),
        address: default.address,
        weight,
        state: state.unwrap_or_default(),
        max_requests,
        max_tunnels,
        unready: false,
    })
}

fn address(node: &Node<'_>) -> Option<String> {
    node.parsed(ADDRESS, |text| is_address(text).then(|| text.to_owned()))
}

/// Two instances of one identity could not be told apart by a token, and two identities at one
/// address would get a double share unasked.
fn report_duplicates(read: &[(Node<'_>, Instance)]) {
    let mut names = std::collections::HashSet::new();
    let mut addresses = std::collections::HashSet::new();
    for (node, instance) in read {
        let is_new_address = addresses.insert(canonical(&instance.address));
        // A bad name was reported where it was read, and is empty since.
        let is_new_name = instance.name.is_empty() || names.insert(&instance.name);
        if !is_new_address {
            let address = &instance.address;
            node.problem(format_args!("address {address} is listed twice; allowed: once"));
        } else if !is_new_name {
            let name = &instance.name;
            node.problem(format_args!("name {name} is given twice; allowed: once"));
        }
    }
}

/// One text for all ways to write an address.
fn canonical(address: &str) -> String {
    match address.parse::<SocketAddr>() {
        Ok(parsed) => parsed.to_string(),
        Err(_) => address.to_ascii_lowercase(),
    }
}
