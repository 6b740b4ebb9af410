//! RFC 6455 and RFC 7692 through Burdock: for each of some hundred cases, legal and not, what a client
//! gets from a WebSocket server of somebody else's is byte for byte what it gets without Burdock
//! between them, and ends the same way. `tests/clients/conformance.py` has the cases.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use crate::support::{self, Burdock};
use crate::support_clients::{listening, program};

/// Of one run over all cases, of which each takes milliseconds.
const RUN_TIMEOUT: Duration = Duration::from_secs(60);
/// A run that loses its cases on the way proves nothing.
const LEAST_CASES: usize = 400;

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_ws_see_what_they_see_without_burdock() {
    same_through_burdock("ws_server.mjs").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_websockets_see_what_they_see_without_burdock() {
    same_through_burdock("websockets_server.py").await;
}

async fn same_through_burdock(server: &str) {
    let mut server = program(server, &["--name", "a"]);
    let server_address = format!("127.0.0.1:{}", listening(&mut server));
    let yaml = format!("{}instances: [\"{server_address}\"]\n", support::HEADER);
    let burdock = Burdock::start(&yaml).await;

    let direct = transcripts(&server_address);
    let through = transcripts(&burdock.address().to_string());
    assert!(direct.len() >= LEAST_CASES, "{} cases", direct.len());
    assert_eq!(through.len(), direct.len());
    let differing: Vec<String> = direct
        .iter()
        .filter(|(case, transcript)| through[*case] != **transcript)
        .map(|(case, transcript)| format!("{case}\n  {transcript}\n  {}", through[case]))
        .collect();
    assert!(differing.is_empty(), "{} differ:\n{}", differing.len(), differing.join("\n"));
    assert!(direct.values().all(|transcript| transcript["end"] != "nothing more"));
}

/// What each case saw, by its name.
fn transcripts(address: &str) -> BTreeMap<String, Value> {
    let mut client = program("conformance.py", &["--address", address]);
    let mut found = BTreeMap::new();
    client.wait_for("the last case", RUN_TIMEOUT, |line| {
        let line: Value = serde_json::from_str(line).expect("a line of JSON");
        if line["finished"].is_null() {
            let case = line["case"].as_str().expect("the name of a case").to_owned();
            assert!(found.insert(case, line).is_none(), "a name of two cases");
            return None;
        }
        assert_eq!(line["finished"], found.len());
        Some(())
    });
    found
}
