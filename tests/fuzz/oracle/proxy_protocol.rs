//! Whatever bytes a connection begins with: reading a PROXY protocol header never panics, comes to one
//! verdict however the bytes are cut, and takes what it says from where a slower reader finds it.
//!
//! Input: one byte of choices, which may put a line's start or a signature in front, then the bytes.

use std::net::{IpAddr, SocketAddr};

use burdock::config::types::ProxyVersion;
use burdock::proxy_protocol::{self as protocol, Header, Introduction, LONGEST, Start};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Panics where a verdict is wrong, or not the only one.
pub(crate) fn check(data: &[u8]) {
    let Some((&choices, rest)) = data.split_first() else { return };
    let start: &[u8] = match choices & 3 {
        0 => b"",
        1 => b"PROXY ",
        2 => SIGNATURE,
        _ => b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c",
    };
    let bytes = [start, rest].concat();
    let last = protocol::parse(&bytes);
    // Every cut of what is short, and some of what is long.
    let step = 1 + bytes.len() / 300;
    for cut in (0..bytes.len()).step_by(step) {
        match protocol::parse(&bytes[..cut]) {
            Ok(Start::Partial) => assert!(cut < LONGEST),
            settled => assert_eq!(settled, last, "cut at {cut}"),
        }
    }
    if let Ok(Start::Whole(header, length)) = last {
        whole(&bytes[..length], header);
    }
}

fn whole(bytes: &[u8], header: Header) {
    assert!(bytes.len() <= LONGEST);
    let found = if bytes.starts_with(SIGNATURE) { binary(bytes) } else { line(bytes) };
    let Header::Proxied(ends) = header else { return assert_eq!(found, None) };
    assert_eq!(found, Some([ends.source, ends.destination]));
    for version in [ProxyVersion::V1, ProxyVersion::V2] {
        let again = protocol::write(Introduction { header, version });
        assert_eq!(protocol::parse(&again), Ok(Start::Whole(header, again.len())));
    }
}

/// The ends in a header of version 2 that is known to be good.
fn binary(bytes: &[u8]) -> Option<[SocketAddr; 2]> {
    let (command, family, rest) = (bytes[12], bytes[13], &bytes[16..]);
    let size = match (command, family) {
        (0x21, 0x11) => 4,
        (0x21, 0x21) => 16,
        _ => return None,
    };
    let address = |at: usize| -> IpAddr {
        let bytes = &rest[at..at + size];
        match <[u8; 4]>::try_from(bytes) {
            Ok(four) => four.into(),
            Err(_) => <[u8; 16]>::try_from(bytes).expect("16 bytes").into(),
        }
    };
    let port = |at: usize| u16::from(rest[at]) << 8 | u16::from(rest[at + 1]);
    Some([(address(0), port(2 * size)).into(), (address(size), port(2 * size + 2)).into()])
}

/// The ends in a line that is known to be good.
fn line(bytes: &[u8]) -> Option<[SocketAddr; 2]> {
    let text = bytes.strip_suffix(b"\r\n").expect("an end");
    if text.starts_with(b"PROXY UNKNOWN") {
        return None;
    }
    let text = std::str::from_utf8(text).expect("text");
    let words: Vec<_> = text.split_whitespace().collect();
    let [_, _, source, destination, from, to] = words[..] else { panic!("{text:?}") };
    let end = |address: &str, port: &str| {
        SocketAddr::new(address.parse().expect("an address"), port.parse().expect("a port"))
    };
    Some([end(source, from), end(destination, to)])
}
