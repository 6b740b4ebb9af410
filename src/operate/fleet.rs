//! `burdock status --fleet`: every balancer of the fleet, as the one that is asked knows them.

use std::collections::BTreeMap;
use std::process::ExitCode;

use serde::Deserialize;

use super::client::ClientError;
use super::table::{Cell, Paper, Side, Table, Tone, safe};
use super::{client_of, paper, print, words};
use crate::cli::Access;

/// `GET /api/v1/fleet`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Fleet {
    name: String,
    connected: bool,
    orders: Orders,
    nodes: Vec<Node>,
    warnings: Vec<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Orders {
    rows: u64,
    left_out: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Node {
    name: String,
    presence: String,
    heard_seconds: f64,
    version: String,
    phase: String,
    admin: Option<String>,
    connections: u64,
    tunnels: u64,
    sessions: u64,
    requests_per_second: f64,
    errors_per_second: f64,
    config: String,
    services: BTreeMap<String, Service>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Service {
    instances: u64,
    ready: u64,
}

/// Shows all of them.
pub(super) async fn status(access: &Access) -> Result<ExitCode, ClientError> {
    let client = client_of(access)?;
    let answer = client.get("/api/v1/fleet").await?;
    print(access, &answer, |value| Ok(show(&client.read::<Fleet>(value)?, paper())))
}

fn show(fleet: &Fleet, paper: Paper) -> String {
    let (heard, tone) = match fleet.connected {
        true => ("heard", Tone::Good),
        false => ("not heard: what is told of others is of before", Tone::Bad),
    };
    let mut text = format!(
        "as {} knows it, the fleet is {}; {} of it\n\n",
        paper.paint(&safe(&fleet.name), Tone::Strong),
        paper.paint(heard, tone),
        words::plural(fleet.orders.rows, "order"),
    );
    text.push_str(&table(fleet, paper));
    for (key, why) in &fleet.orders.left_out {
        let line = format!("left out {}: {}", safe(key), safe(why));
        text.push_str(&format!("{}\n", paper.paint(&line, Tone::Warn)));
    }
    for warning in &fleet.warnings {
        let head = paper.paint("warning:", Tone::Warn);
        text.push_str(&format!("{head} {}\n", safe(warning)));
    }
    text
}

fn table(fleet: &Fleet, paper: Paper) -> String {
    let mut table = Table::new(&[
        ("BALANCER", Side::Cut),
        ("STATE", Side::Cut),
        ("ADMIN", Side::Cut),
        ("VERSION", Side::Cut),
        ("CONFIG", Side::Cut),
        ("READY", Side::Right),
        ("CONN", Side::Right),
        ("TUNNELS", Side::Right),
        ("SESSIONS", Side::Right),
        ("REQ/S", Side::Right),
        ("ERR/S", Side::Right),
    ]);
    let own = fleet.nodes.iter().find(|node| node.presence == "here");
    for node in &fleet.nodes {
        let is_gone = node.presence == "gone";
        // What it last said of that says nothing any more.
        let now = |text: String| if is_gone { "-".to_owned() } else { text };
        let is_other = own.is_some_and(|own| own.config != node.config);
        let failing = node.errors_per_second > 0.0 && !is_gone;
        let sum = |of: fn(&Service) -> u64| node.services.values().map(of).sum::<u64>();
        let (ready, all) = (sum(|it| it.ready), sum(|it| it.instances));
        table.row(vec![
            safe(&node.name).into(),
            state(node),
            safe(node.admin.as_deref().unwrap_or("-")).into(),
            safe(&node.version).into(),
            Cell::new(safe(&node.config), if is_other { Tone::Warn } else { Tone::Plain }),
            now(format!("{ready}/{all}")).into(),
            now(words::count(node.connections)).into(),
            now(words::count(node.tunnels)).into(),
            now(words::count(node.sessions)).into(),
            now(words::rate(node.requests_per_second)).into(),
            Cell::new(
                now(words::rate(node.errors_per_second)),
                if failing { Tone::Bad } else { Tone::Plain },
            ),
        ]);
    }
    table.render(paper, 0)
}

fn state(node: &Node) -> Cell {
    let ago = words::seconds(node.heard_seconds.floor());
    match node.presence.as_str() {
        "gone" => Cell::new(format!("gone, heard {ago} ago"), Tone::Bad),
        "stale" => Cell::new(format!("stale, heard {ago} ago"), Tone::Warn),
        _ if node.phase == "serving" => Cell::new("serving".to_owned(), Tone::Good),
        _ => Cell::new(safe(&node.phase), Tone::Warn),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn who_is_gone_who_is_stale_and_what_differs_is_seen() {
        let fleet = json!({
            "name": "a", "connected": false, "orders": { "rows": 2, "left_out": { "/f/x": "no" } },
            "warnings": ["so it is"],
            "nodes": [
                { "name": "a", "presence": "here", "phase": "serving", "version": "1.0",
                  "config": "11", "admin": "10.0.0.1:9900", "connections": 5,
                  "services": { "s": { "ready": 2, "instances": 3 } } },
                { "name": "b\u{1b}[31m", "presence": "stale", "heard_seconds": 9.5, "config": "22" },
                { "name": "c", "presence": "gone", "heard_seconds": 70.0, "connections": 7 },
            ],
        });
        let fleet: Fleet = serde_json::from_value(fleet).unwrap();
        let text = show(&fleet, Paper { colour: false, width: None });
        let has =
            |words: &[&str]| text.lines().any(|line| words.iter().all(|it| line.contains(it)));
        assert!(has(&["as a knows it", "not heard", "2 orders"]), "{text}");
        assert!(has(&["a", "serving", "10.0.0.1:9900", "1.0", "11", "2/3", "5"]), "{text}");
        assert!(has(&["stale, heard 9 s ago", "22"]), "{text}");
        assert!(has(&["c", "gone, heard 70 s ago", "-"]) && !text.contains(" 7 "), "{text}");
        assert!(has(&["left out /f/x: no"]) && has(&["warning: so it is"]), "{text}");
        assert!(!text.contains('\u{1b}'));
    }
}
