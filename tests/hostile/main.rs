//! Hostile and odd messages, from clients and from instances: what has one meaning passes with that
//! meaning, everything else is refused, and nobody is ever out of step. The corpus is data, see
//! README.md beside this file; the same replay says what HAProxy and nginx do with it.

#![allow(
    unreachable_pub,
    missing_docs,
    missing_debug_implementations,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may panic, and nobody reads its documentation elsewhere"
)]

#[path = "../support/mod.rs"]
mod support;

mod case;
mod floods;
mod frames;
mod framing;
mod interim;
mod judge;
mod origin;
mod peers;
mod streams;
mod strict;

use std::net::SocketAddr;
use std::time::Duration;

use case::Group;
use judge::{Measure, Seen};
use origin::Origin;
use peers::Peer;
use support::Burdock;

const FILES: [&str; 2] = ["requests.yaml", "responses.yaml"];

fn config(origin: &Origin) -> String {
    format!(
        "{}instances: [{}]\nbreaker: off\nsession_affinity: true\n",
        support::HEADER,
        origin.address
    )
}

const EXACT: Measure = Measure { exact: true, patience: Duration::from_secs(3) };

/// What came of one case.
struct Replayed {
    name: String,
    seen: Seen,
    verdict: Result<(), String>,
}

/// Replays the cases of one group, one after the other: some are about what is left behind.
async fn run(proxy: SocketAddr, origin: &Origin, group: &Group, measure: Measure) -> Vec<Replayed> {
    let mut all = Vec::new();
    for case in &group.cases {
        let seen = judge::replay(proxy, origin, case, measure).await;
        let verdict = judge::verdict(case, &seen, measure);
        all.push(Replayed { name: case.name.clone(), seen, verdict });
    }
    all
}

async fn replay(file: &str) {
    let origin = Origin::start().await;
    let burdock = Burdock::start(&config(&origin)).await;
    let mut wrong = Vec::new();
    let mut count = 0;
    for group in case::load(file) {
        for case in run(burdock.address(), &origin, &group, EXACT).await {
            count += 1;
            if let Err(why) = case.verdict {
                wrong.push(format!("{} ({}): {}\n    {why}", group.category, group.rfc, case.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_passed_in_their_one_meaning_or_refused() {
    replay(FILES[0]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_passed_in_their_one_meaning_or_refused() {
    replay(FILES[1]).await;
}

/// `cargo test --test hostile -- --ignored --nocapture` prints how many cases of each category each
/// gets right, by any of the outcomes that the RFC allows.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs haproxy and nginx"]
async fn beside_haproxy_and_nginx() {
    let origin = Origin::start().await;
    let burdock = Burdock::start(&config(&origin)).await;
    let peers = [Peer::haproxy(&origin).await, Peer::nginx(&origin).await];
    let lenient = Measure { exact: false, patience: Duration::from_millis(500) };
    let mut proxies = vec![("burdock", burdock.address())];
    proxies.extend(peers.iter().map(|peer| (peer.name.as_str(), peer.address)));
    let mut totals = vec![(0, 0); proxies.len()];
    let names: Vec<_> = proxies.iter().map(|(name, _)| *name).collect();
    let (mut details, mut count) = (Vec::new(), 0);
    println!("| category | cases | {} |", names.join(" | "));
    println!("|---|---{}|", "|---".repeat(proxies.len()));
    for group in FILES.iter().flat_map(|file| case::load(file)) {
        let mut row = format!("| {} | {}", group.category, group.cases.len());
        count += group.cases.len();
        for ((name, proxy), total) in proxies.iter().zip(&mut totals) {
            let measure = if *name == "burdock" { EXACT } else { lenient };
            let replayed = run(*proxy, &origin, &group, measure).await;
            let right = replayed.iter().filter(|case| case.verdict.is_ok()).count();
            total.0 += right;
            total.1 += replayed.iter().filter(|case| case.seen.desync.is_some()).count();
            row.push_str(&format!(" | {right}"));
            let wrong =
                replayed.into_iter().filter_map(|case| Some((case.name, case.verdict.err()?)));
            details.extend(
                wrong.map(|(case, why)| format!("{name}: {}: {case}: {why}", group.category)),
            );
        }
        println!("{row} |");
    }
    let column = |of: fn(&(usize, usize)) -> usize| {
        totals.iter().map(|total| format!(" | {}", of(total))).collect::<String>()
    };
    println!("| all | {count}{} |", column(|total| total.0));
    println!("| out of step | {} |", column(|total| total.1).trim_start_matches([' ', '|']));
    println!("\n{}", details.join("\n"));
    assert_eq!(totals[0], (count, 0));
}
