//! The corpora of the fuzz targets, replayed: what once taught a fuzzer something still holds. The
//! targets are a package of their own in `tests/fuzz`.

#[path = "fuzz/oracle/frames.rs"]
mod frames;
#[path = "fuzz/oracle/proxy_protocol.rs"]
mod proxy_protocol;
#[path = "fuzz/oracle/token.rs"]
mod token;

use std::path::Path;

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
