//! What EndpointSlices say, slice by slice, and the instances that come of all of them together.
//!
//! Pure: knows no connection and no clock. An endpoint's conditions become two of our axes, which
//! are told apart for a reason: one that is about to end (`terminating`) drains, one that can't serve
//! (neither `ready` nor `serving`) is unready, whatever its checks say, and one may be both. A pod that
//! is not ready for a moment is thus never forgotten: its sessions come back to it by its name.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;

use serde::Deserialize;

use crate::config::found::{MOST, Member};
use crate::config::types::SlicePort;

/// A pod may have an endpoint of each kind of address.
const MOST_ROWS: usize = 2 * MOST;

/// A page of a list. Lists may be null where they are empty, as Go writes them.
#[derive(Debug, Deserialize)]
pub(super) struct Page {
    pub(super) metadata: Listed,
    items: Option<Vec<Slice>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Listed {
    #[serde(default)]
    pub(super) resource_version: String,
    /// Where the next page begins; empty after the last.
    #[serde(default, rename = "continue")]
    pub(super) next: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Slice {
    metadata: Meta,
    #[serde(default)]
    address_type: String,
    endpoints: Option<Vec<Endpoint>>,
    ports: Option<Vec<Port>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Meta {
    name: String,
    resource_version: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Endpoint {
    addresses: Option<Vec<String>>,
    conditions: Option<Conditions>,
    target_ref: Option<Reference>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Conditions {
    ready: Option<bool>,
    serving: Option<bool>,
    terminating: Option<bool>,
}

#[derive(Debug, Deserialize)]
struct Reference {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    name: String,
}

#[derive(Debug, Deserialize)]
struct Port {
    name: Option<String>,
    port: Option<u16>,
    protocol: Option<String>,
}

/// What kind of line one of a watch is.
#[derive(Debug, Deserialize)]
struct Kinded {
    #[serde(rename = "type")]
    kind: String,
}

/// What it is about.
#[derive(Debug, Deserialize)]
struct About<T> {
    object: T,
}

/// What goes wrong where something was asked for.
#[derive(Debug, Deserialize)]
pub(super) struct Status {
    #[serde(default)]
    pub(super) code: u16,
    #[serde(default)]
    pub(super) message: String,
}

/// What a line of a watch came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// Another state of a slice.
    Change,
    /// Only how far it is.
    Nothing,
    /// From here on only a new list can tell what there is.
    Gone(String),
}

/// What is kept of one slice.
#[derive(Debug)]
enum Kept {
    Rows(Vec<Row>),
    /// It has endpoints, and none of its ports is asked for; those that it has.
    Portless(String),
    /// What makes no sense in it.
    Wrong(String),
}

/// An endpoint. Of several with one name or one address the least in order counts: while a pod is
/// moved from one slice to another it may stand in both, and an address may have a new owner.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    is_unready: bool,
    is_draining: bool,
    kind: Kind,
    member: Member,
}

/// In order of preference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Ipv4,
    Ipv6,
    Name,
}

/// All slices of a service.
#[derive(Debug)]
pub(super) struct Slices {
    port: Option<SlicePort>,
    kept: BTreeMap<String, Kept>,
    /// How many rows they have.
    rows: usize,
    /// Up to where they are known, in the server's own words.
    pub(super) version: String,
}

impl Slices {
    pub(super) fn new(port: Option<SlicePort>) -> Self {
        Self { port, kept: BTreeMap::new(), rows: 0, version: String::new() }
    }

    /// Takes a page of a list in. Gives where the next one begins.
    pub(super) fn take_page(&mut self, text: &[u8]) -> Result<Option<String>, String> {
        let Page { metadata, items } =
            serde_json::from_slice(text).map_err(|error| strange(&error))?;
        for slice in items.unwrap_or_default() {
            self.put(slice)?;
        }
        if metadata.resource_version.is_empty() {
            return Err("a list without a resourceVersion".to_owned());
        }
        self.version = metadata.resource_version;
        Ok(Some(metadata.next).filter(|next| !next.is_empty()))
    }

    /// Takes a line of a watch in.
    pub(super) fn take_line(&mut self, line: &[u8]) -> Result<Heard, String> {
        let Kinded { kind } = serde_json::from_slice(line).map_err(|error| strange(&error))?;
        if kind == "ERROR" {
            let About { object } = serde_json::from_slice(line).map_err(|error| strange(&error))?;
            let Status { code, message } = object;
            return match code {
                410 => Ok(Heard::Gone(message)),
                _ => Err(format!("the watch ended: {code} {message}")),
            };
        }
        let About { object: slice } =
            serde_json::from_slice::<About<Slice>>(line).map_err(|error| strange(&error))?;
        let version = slice.metadata.resource_version.clone();
        let heard = match kind.as_str() {
            "ADDED" | "MODIFIED" => {
                self.put(slice)?;
                Heard::Change
            }
            "DELETED" => {
                self.remove(&slice.metadata.name);
                Heard::Change
            }
            "BOOKMARK" => Heard::Nothing,
            // What other kinds mean can't be known, so what is known can't be trusted.
            other => return Err(format!("an event of the kind {other:?}")),
        };
        if version.is_empty() {
            return Err("an event without a resourceVersion".to_owned());
        }
        self.version = version;
        Ok(heard)
    }

    fn put(&mut self, slice: Slice) -> Result<(), String> {
        let name = slice.metadata.name.clone();
        let kept = kept(slice, self.port.as_ref());
        self.remove(&name);
        self.rows += rows(&kept).len();
        self.kept.insert(name, kept);
        if self.rows > MOST_ROWS || self.kept.len() > MOST {
            return Err(format!("more than {MOST} instances, or slices"));
        }
        Ok(())
    }

    fn remove(&mut self, name: &str) {
        if let Some(kept) = self.kept.remove(name) {
            self.rows -= rows(&kept).len();
        }
    }

    /// The instances, each once; or why they can't be told.
    pub(super) fn members(&self) -> Result<Vec<Member>, String> {
        if let Some((name, problem)) = self.kept.iter().find_map(|(name, kept)| match kept {
            Kept::Wrong(problem) => Some((name, problem)),
            Kept::Rows(_) | Kept::Portless(_) => None,
        }) {
            return Err(format!("slice {name}: {problem}"));
        }
        let mut all: Vec<&Row> = self.kept.values().flat_map(rows).collect();
        if all.is_empty()
            && let Some(ports) = self.kept.values().find_map(|kept| match kept {
                Kept::Portless(ports) => Some(ports),
                Kept::Rows(_) | Kept::Wrong(_) => None,
            })
        {
            let port = self.port.as_ref().map_or_else(|| "TCP".to_owned(), ToString::to_string);
            return Err(format!("there is no port {port}; there are: {ports}"));
        }
        all.sort_unstable();
        let (mut names, mut addresses) = (HashSet::new(), HashSet::new());
        all.retain(|Row { member, .. }| {
            !names.contains(&*member.name)
                && addresses.insert(&*member.address)
                && names.insert(&*member.name)
        });
        Ok(all.into_iter().map(|row| row.member.clone()).collect())
    }
}

fn rows(kept: &Kept) -> &[Row] {
    match kept {
        Kept::Rows(rows) => rows,
        Kept::Portless(_) | Kept::Wrong(_) => &[],
    }
}

fn kept(slice: Slice, wanted: Option<&SlicePort>) -> Kept {
    let Slice { address_type, endpoints, ports, .. } = slice;
    let (endpoints, ports) = (endpoints.unwrap_or_default(), ports.unwrap_or_default());
    let kind = match address_type.as_str() {
        "IPv4" => Kind::Ipv4,
        "IPv6" => Kind::Ipv6,
        "FQDN" => Kind::Name,
        // Of a kind that is not known yet: nobody could connect there.
        _ => return Kept::Rows(Vec::new()),
    };
    // The slice of a service without pods has no port either.
    if endpoints.is_empty() {
        return Kept::Rows(Vec::new());
    }
    let port = match port(&ports, wanted) {
        Ok(Some(port)) => port,
        Ok(None) => return Kept::Portless(listed(&ports)),
        Err(problem) => return Kept::Wrong(problem),
    };
    match endpoints.into_iter().map(|it| row(it, kind, port)).collect() {
        Ok(rows) => Kept::Rows(rows),
        Err(problem) => Kept::Wrong(problem),
    }
}

/// The number of the port that is asked for, if the slice has it. One without a number stands for all.
fn port(ports: &[Port], wanted: Option<&SlicePort>) -> Result<Option<u16>, String> {
    let mut tcp = ports.iter().filter(|it| it.protocol.as_deref().is_none_or(|it| it == "TCP"));
    let found = match wanted {
        Some(SlicePort::Number(number)) => {
            let is_it = |it: &Port| it.port.is_none_or(|port| port == *number);
            return Ok(tcp.any(is_it).then_some(*number));
        }
        Some(SlicePort::Name(name)) => tcp.find(|it| it.name.as_deref() == Some(name)),
        None => match (tcp.next(), tcp.next()) {
            (found, None) => found,
            _ => {
                let ports = listed(ports);
                return Err(format!("it has several ports; needed: `port`, one of {ports}"));
            }
        },
    };
    match found {
        Some(Port { port: Some(number), .. }) => Ok(Some(*number)),
        Some(_all) => Err("its port stands for all ports; needed: `port`, a number".to_owned()),
        None => Ok(None),
    }
}

/// What ports there are, in words.
fn listed(ports: &[Port]) -> String {
    let word = |it: &Port| {
        let name = it.name.clone().filter(|name| !name.is_empty());
        let number = it.port.map(|port| port.to_string());
        let protocol = it.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
        let what = name.or(number).unwrap_or_else(|| "all".to_owned());
        format!("{what} ({protocol})")
    };
    match ports {
        [] => "none".to_owned(),
        ports => ports.iter().map(word).collect::<Vec<_>>().join(", "),
    }
}

/// All addresses of an endpoint lead to the same pod: the first one does.
fn row(endpoint: Endpoint, kind: Kind, port: u16) -> Result<Row, String> {
    let Endpoint { addresses, conditions, target_ref } = endpoint;
    let host = addresses.and_then(|all| all.into_iter().next());
    let host = host.ok_or("an endpoint has no address")?;
    let address = match (kind, host.parse()) {
        (Kind::Ipv6, Ok(IpAddr::V6(ip))) => format!("[{ip}]:{port}"),
        (Kind::Ipv4, Ok(IpAddr::V4(_))) | (Kind::Name, _) => format!("{host}:{port}"),
        (Kind::Ipv4 | Kind::Ipv6, _) => return Err(format!("{host:?} is no address of its kind")),
    };
    let Conditions { ready, serving, terminating } = conditions.unwrap_or_default();
    // What is not said: a cluster from before there were such conditions tells of ready ones.
    let is_ready = ready.unwrap_or(true);
    let (is_serving, is_draining) = (serving.unwrap_or(is_ready), terminating.unwrap_or(false));
    // A service may want those that are not ready to count as ready (publishNotReadyAddresses).
    let is_unready = !is_ready && !is_serving;
    let pod = target_ref.filter(|it| it.kind == "Pod").map(|it| it.name);
    let named = |name| Member::new(name, address.clone(), 1, is_draining);
    // A pod may have a name that is too long for a token.
    let member = match pod.map(|name| named(Some(name))) {
        Some(Ok(member)) => member,
        Some(Err(_)) | None => named(None).map_err(|error| error.to_string())?,
    };
    Ok(Row { is_unready, is_draining, kind, member: Member { unready: is_unready, ..member } })
}

fn strange(error: &serde_json::Error) -> String {
    format!("what came is no EndpointSlice: {error}")
}
