//! engine.io's session ids: named by requests, given out by the first packet of an instance.
//!
//! A handshake names `EIO` and `transport` and no `sid`; all further requests of that session name
//! the `sid` that the instance's open packet brought. That packet is the beginning of an answer by
//! long polling; it is looked at as it passes.

use crate::affinity::query;

/// No server gives out longer ids.
const MAX_SID: usize = 128;
/// The id stands near the beginning of a packet of about 120 bytes.
const MAX_SEEN: usize = 512;
/// Bytes of the length that protocol 3 puts before a packet, its mark included.
const LONGEST_LENGTH: usize = 8;

/// What a request asks of an engine.io server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask<'a> {
    /// A new session.
    Opens,
    /// To go on with this one.
    Continues(&'a str),
}

/// What the query of a request asks, if it is one for engine.io.
pub fn ask(query: &str) -> Option<Ask<'_>> {
    query::values(query, "EIO").next()?;
    query::values(query, "transport").next()?;
    match query::values(query, "sid").next() {
        None => Some(Ask::Opens),
        Some(sid) if is_sid(sid) => Some(Ask::Continues(sid)),
        Some(_) => None,
    }
}

fn is_sid(text: &str) -> bool {
    (1..=MAX_SID).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// An answer that tells of an unknown session is no longer than this.
pub const MAX_COMPLAINT: u64 = 256;

/// Whether an answer says that the session of a request is unknown: as engine.io's server puts it, or
/// python-engineio's.
pub fn is_unknown_session(body: &[u8]) -> bool {
    let says = |words: &[u8]| body.windows(words.len()).any(|window| window == words);
    says(b"Session ID unknown") || says(b"Invalid session")
}

/// What is known after some bytes of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// More bytes are needed.
    Nothing,
    /// The id of the session that the answer opens.
    Sid(String),
    /// The answer opens no session.
    Never,
}

/// The beginning of an answer, as it passes.
#[derive(Debug, Default)]
pub struct Opening(Vec<u8>);

impl Opening {
    /// Looks at the next bytes.
    pub fn hear(&mut self, bytes: &[u8]) -> Heard {
        let room = MAX_SEEN - self.0.len();
        self.0.extend_from_slice(&bytes[..bytes.len().min(room)]);
        let Some(packet) = packet(&self.0) else {
            let could_follow = self.0.len() <= LONGEST_LENGTH && !self.0.starts_with(b"0");
            return if could_follow { Heard::Nothing } else { Heard::Never };
        };
        // No further than that, whether or not more is there already: what is heard must not depend
        // on the pieces in which an answer comes.
        let end = packet.iter().position(|byte| *byte == b'}');
        match sid(&packet[..end.unwrap_or(packet.len())]) {
            Some(sid) => Heard::Sid(sid.to_owned()),
            None if self.0.len() == MAX_SEEN || end.is_some() => Heard::Never,
            None => Heard::Nothing,
        }
    }
}

/// The data of an open packet: `0{...`. Protocol 3 puts its length in front, as digits and a colon,
/// or in bytes between 0 and 255.
fn packet(bytes: &[u8]) -> Option<&[u8]> {
    let after = |mark: u8| {
        let head = &bytes[..bytes.len().min(LONGEST_LENGTH)];
        Some(&bytes[head.iter().position(|byte| *byte == mark)? + 1..])
    };
    let packet = match bytes.first()? {
        0 => after(0xff)?,
        b'1'..=b'9' => after(b':')?,
        _ => bytes,
    };
    packet.strip_prefix(b"0").filter(|data| data.is_empty() || data.starts_with(b"{"))
}

fn sid(packet: &[u8]) -> Option<&str> {
    const KEY: &[u8] = b"\"sid\"";
    let at = packet.windows(KEY.len()).position(|window| window == KEY)?;
    let value = packet[at + KEY.len()..].trim_ascii_start().strip_prefix(b":")?;
    let value = value.trim_ascii_start().strip_prefix(b"\"")?;
    let end = value.iter().position(|byte| *byte == b'"')?;
    std::str::from_utf8(&value[..end]).ok().filter(|sid| is_sid(sid) && !sid.contains('\\'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_query_opens_or_continues_a_session_or_is_not_for_engine_io() {
        for (query, asked) in [
            ("EIO=4&transport=polling", Some(Ask::Opens)),
            ("t=1&transport=websocket&EIO=3", Some(Ask::Opens)),
            ("EIO=4&transport=polling&t=x&sid=abc_-1", Some(Ask::Continues("abc_-1"))),
            ("EIO=4&transport=polling&sid=", None),
            ("EIO=4&sid=abc", None),
            ("transport=polling&sid=abc", None),
            ("eio=4&transport=polling", None),
            ("", None),
        ] {
            assert_eq!(ask(query), asked, "{query}");
        }
        let long = format!("EIO=4&transport=polling&sid={}", "x".repeat(MAX_SID + 1));
        assert_eq!(ask(&long), None);
    }

    const OPEN: &str = r#"0{"sid":"lv_VI97HAXpY6yYWAAAC","upgrades":["websocket"]}"#;

    #[test]
    fn the_open_packets_of_all_protocols_name_their_session() {
        let sid = Heard::Sid("lv_VI97HAXpY6yYWAAAC".into());
        let old = [format!("{}:{OPEN}", OPEN.len()), format!("{}:{OPEN}2:40", OPEN.len())];
        let binary = [b"\x00\x09\x06\xff", OPEN.as_bytes()].concat();
        let longest = [b"\x00\x00\x00\x00\x00\x09\x06\xff", OPEN.as_bytes()].concat();
        let spaced = r#"0{"upgrades": [], "sid" : "lv_VI97HAXpY6yYWAAAC"}"#;
        for body in [OPEN, &old[0], &old[1], spaced]
            .map(str::as_bytes)
            .into_iter()
            .chain([&*binary, &*longest])
        {
            assert_eq!(Opening::default().hear(body), sid, "{}", body.escape_ascii());
            let mut slow = Opening::default();
            let heard = body.iter().map(|byte| slow.hear(&[*byte]));
            let first = heard.into_iter().find(|heard| *heard != Heard::Nothing);
            assert_eq!(first, Some(sid.clone()), "{}", body.escape_ascii());
        }
    }

    #[test]
    fn other_answers_name_none() {
        let long = format!("0{{\"a\":\"{}\"", "x".repeat(MAX_SEEN));
        for body in [
            "{\"code\":1}",
            "ok and more",
            "2probe and more",
            "0{}",
            "0{\"sid\":\"\"}",
            "0{\"a\":{},\"sid\":\"x\"}",
            "0x",
            &long,
        ] {
            assert_eq!(Opening::default().hear(body.as_bytes()), Heard::Never, "{body}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_answers_never_panic(parts in proptest::collection::vec(
            proptest::collection::vec(any::<u8>(), 0..300), 0..5)) {
            let mut opening = Opening::default();
            for part in parts {
                opening.hear(&part);
            }
        }
    }
}
