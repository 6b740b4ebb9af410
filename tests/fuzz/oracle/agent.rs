//! What instances say in answers to probes: reading it never panics, and nothing is read into it.
//!
//! Input: one byte of choices, then the lines of `X-Burdock-State`, or a message of the gRPC health
//! protocol.

use burdock::config::types::State;
use burdock::health::agent::Report;
use burdock::health::grpc::{self, Status};

/// Panics where a report holds what no word said.
pub(crate) fn check(data: &[u8]) {
    let Some((&choices, rest)) = data.split_first() else { return };
    if choices & 1 == 0 {
        reports_what_was_said(rest);
    } else {
        serves_only_where_it_says_so(rest);
    }
}

fn reports_what_was_said(text: &[u8]) {
    let lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').collect();
    let (report, unclear) = Report::read(lines.iter().copied());
    let said = text.to_ascii_lowercase();
    let blank = |byte: &u8| *byte == b',' || byte.is_ascii_whitespace();
    let words: Vec<&[u8]> = said.split(blank).filter(|word| !word.is_empty()).collect();
    let has = |word: &str| words.contains(&word.as_bytes());
    let state = if has("maint") {
        State::Disabled
    } else if has("drain") {
        State::Draining
    } else {
        State::Active
    };
    assert_eq!(report.state, state);
    let weights = (0..=100_u32).flat_map(|n| ["", "0", "00"].map(|zeros| (n, zeros)));
    let weights = weights.map(|(n, zeros)| (n, format!("weight={zeros}{n}%")));
    let weights: Vec<(u32, String)> = weights.filter(|(_, text)| text.len() <= 11).collect();
    let meant = |word: &[u8]| weights.iter().find(|(_, text)| text.as_bytes() == word);
    let last = words.iter().rev().find_map(|word| meant(word));
    assert_eq!(report.percent, last.map_or(100, |(percent, _)| *percent));
    let known = |word: &&&[u8]| {
        [&b"ready"[..], b"drain", b"maint"].contains(*word) || meant(word).is_some()
    };
    let strange = words.iter().find(|word| !known(word));
    assert_eq!(unclear, strange.map(|word| word.escape_ascii().to_string()));
}

fn serves_only_where_it_says_so(body: &[u8]) {
    let Some(status) = grpc::answer(body) else { return };
    let length = u32::try_from(body.len() - 5).expect("an input is short");
    assert_eq!(body[..5], [&[0], &length.to_be_bytes()[..]].concat());
    // The field of the status, and the one byte that means that it serves.
    let says = body[5..].windows(2).any(|pair| pair[0] == 8 && pair[1] & 0x7f == 1);
    let overlong = body[5..].iter().any(|byte| *byte & 0x80 != 0);
    assert!(status != Status::Serving || says || overlong);
    if let Ok(name) = std::str::from_utf8(&body[5..]) {
        // A question is a message too, without a status.
        assert_eq!(grpc::answer(&grpc::request(name)), Some(Status::Unknown));
    }
}
