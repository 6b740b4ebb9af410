//! `GET /api/v1/fleet`: how this balancer stands in its fleet, and who else is there.

use std::collections::{BTreeMap, BTreeSet};

use http::StatusCode;
use serde::Serialize;

use crate::admin::desk::Desk;
use crate::admin::problem::Problem;
use crate::admin::reply::{self, Reply};
use crate::admin::shapes::instant;
use crate::fleet::board::{Node, Presence, Standing};
use crate::fleet::summary::Summary;

#[derive(Serialize)]
struct Fleet {
    name: String,
    connected: bool,
    since: Option<String>,
    problem: Option<String>,
    orders: Orders,
    nodes: Vec<Row>,
    warnings: Vec<String>,
}

#[derive(Serialize)]
struct Orders {
    rows: usize,
    pending: usize,
    /// Keys that are left out, and why.
    left_out: BTreeMap<String, String>,
}

#[derive(Serialize)]
struct Row {
    name: String,
    presence: &'static str,
    heard_seconds: f64,
    #[serde(flatten)]
    summary: Summary,
}

pub(super) fn answer(desk: &Desk) -> Result<Reply, Problem> {
    let board = &desk.live.fleet;
    let none = || Problem::unknown("this balancer is in no fleet; `fleet` in its configuration");
    let standing = board.standing().ok_or_else(none)?;
    let nodes = board.nodes();
    let warnings = warnings(&standing, &nodes);
    let Standing { name, connected, since, problem, orders, .. } = standing;
    let row = |Node { name, presence, heard, summary }| Row {
        name,
        presence: Presence::label(presence),
        heard_seconds: heard.as_secs_f64(),
        summary,
    };
    let told = Fleet {
        name,
        connected,
        since: since.map(instant),
        problem,
        orders: Orders { rows: orders.rows, pending: orders.pending, left_out: orders.strange },
        nodes: nodes.into_iter().map(row).collect(),
        warnings,
    };
    Ok(reply::json(StatusCode::OK, &told))
}

/// What an operator should know of it.
pub(super) fn warnings(standing: &Standing, nodes: &[Node]) -> Vec<String> {
    let mut told = Vec::new();
    if let Some(problem) = &standing.problem {
        let what = match standing.connected {
            true => "not all is written",
            false => "it is not heard, and all goes on as it is",
        };
        told.push(format!("the fleet: {what}: {problem}"));
    }
    if let Some(problem) = &standing.keyring {
        told.push(format!("the fleet's keyring: {problem}"));
    }
    if let Some(problem) = &standing.config {
        let what = "is refused, and the last good one counts";
        told.push(format!("the fleet's configuration {what}: {problem}"));
    }
    let pending = standing.orders.pending;
    if pending > 0 {
        told.push(format!(
            "{pending} of the fleet's orders are not written: others have not heard"
        ));
    }
    let left_out = standing.orders.strange.len();
    if left_out > 0 {
        told.push(format!("{left_out} of the fleet's keys are left out, since they make no sense"));
    }
    if standing.is_twin {
        let name = &standing.name;
        told.push(format!("another balancer calls itself {name} too: give each its fleet.name"));
    }
    let present = nodes.iter().filter(|node| node.presence != Presence::Gone);
    let kinds: BTreeSet<&[String]> = present.map(|node| &*node.summary.keys).collect();
    // One that only has the other's keys in another order opens all that the other seals.
    let sealed = kinds.iter().filter_map(|keys| keys.first());
    let is_opened = |key: &String| kinds.iter().all(|keys| keys.contains(key));
    if !sealed.clone().all(is_opened) {
        let why = "balancers of the fleet have different affinity keys: sessions that come from one \
                   to another move";
        told.push(why.to_owned());
    }
    told
}
