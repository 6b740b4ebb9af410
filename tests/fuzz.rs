//! The corpora of the fuzz targets, replayed: what once taught a fuzzer something still holds. The
//! targets are a package of their own in `tests/fuzz`.

#[path = "fuzz/oracle/agent.rs"]
mod agent;
#[path = "fuzz/oracle/config.rs"]
mod config;
#[path = "fuzz/oracle/connection.rs"]
mod connection;
#[path = "fuzz/oracle/cookies.rs"]
mod cookies;
#[path = "fuzz/oracle/forwarded.rs"]
mod forwarded;
#[path = "fuzz/oracle/frames.rs"]
mod frames;
#[path = "fuzz/oracle/proxy_protocol.rs"]
mod proxy_protocol;
#[path = "fuzz/oracle/token.rs"]
mod token;

use std::path::Path;

#[test]
fn what_instances_say_to_probes_is_read_as_it_was_said() {
    replay("agent", agent::check);
}

#[test]
fn a_file_is_refused_with_places_or_comes_back_equal() {
    replay("config", config::check);
}

#[test]
fn a_connection_of_any_bytes_leaves_nothing_open_and_mixes_nothing_up() {
    replay("connection", connection::check);
}

#[test]
fn the_token_is_taken_out_of_a_request_and_nothing_else() {
    replay("cookies", cookies::check);
}

#[test]
fn nobody_is_believed_who_is_not_trusted() {
    replay("forwarded", forwarded::check);
}

#[test]
fn frames_are_counted_as_a_parser_of_the_whole_stream_counts_them() {
    replay("frames", frames::check);
}

#[test]
fn a_proxy_protocol_header_is_read_alike_however_it_comes() {
    replay("proxy_protocol", proxy_protocol::check);
}

#[test]
fn a_token_that_was_altered_never_opens() {
    replay("token", token::check);
}

fn replay(target: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target);
    let mut replayed = 0;
    for entry in std::fs::read_dir(folder).expect("a corpus") {
        let path = entry.expect("an entry").path();
        let data = std::fs::read(&path).expect("a readable input");
        // A failure names its input.
        println!("{}", path.display());
        check(&data);
        replayed += 1;
    }
    assert!(replayed >= 20, "{replayed} inputs");
}
