//! Hears interim answers (RFC 9110 section 15.2) among the bytes that an instance sends. hyper tells
//! of them by a callback that each request would have to bring in a map of its own; one look at the
//! first bytes of an answer costs next to nothing. Where a head ends says the parser that hyper has.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use http::StatusCode;
use http::header::{HeaderMap, HeaderName, HeaderValue};

/// Where the first digit of a status stands (RFC 9112 section 4).
const STATUS: usize = 9;
/// Bytes of interim answers that may be held, whole or not. What comes beyond is left out.
const MOST: usize = 16 * 1024;
/// As many as hyper takes.
const FIELDS: usize = 100;

/// The status and the fields of an interim answer.
pub type Interim = (StatusCode, HeaderMap);

/// What was heard on a connection; all of it by the task that drives it, so the flags are relaxed.
#[derive(Debug, Default)]
pub(super) struct Ear {
    listens: AtomicBool,
    has_heard: AtomicBool,
    /// Whether the beginning of a head is held.
    is_inside: AtomicBool,
    heard: Mutex<Heard>,
}

#[derive(Debug, Default)]
struct Heard {
    /// The beginning of a head whose end has not come.
    start: Vec<u8>,
    whole: Vec<Interim>,
    /// Bytes of what is whole.
    size: usize,
}

impl Ear {
    /// A request is about to be sent: the head of an answer is what comes next.
    pub(super) fn listen(&self) {
        self.listens.store(true, Ordering::Relaxed);
        // What an answer before this one has left is no part of it.
        if self.is_inside.swap(false, Ordering::Relaxed) {
            self.heard.lock().unwrap_or_else(PoisonError::into_inner).start.clear();
        }
    }

    /// Takes what came next.
    pub(super) fn hear(&self, bytes: &[u8]) {
        if !self.listens.load(Ordering::Relaxed) || bytes.is_empty() {
            return;
        }
        // Most answers are of another kind by their first digit.
        let is_final = bytes.get(STATUS).is_some_and(|it| (b'2'..=b'5').contains(it));
        let begins = !self.is_inside.load(Ordering::Relaxed);
        if is_final && begins && bytes.starts_with(b"HTTP/1.") {
            return self.listens.store(false, Ordering::Relaxed);
        }
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let goes_on = heard.take_in(bytes);
        self.listens.store(goes_on, Ordering::Relaxed);
        self.is_inside.store(!heard.start.is_empty(), Ordering::Relaxed);
        self.has_heard.store(!heard.whole.is_empty(), Ordering::Relaxed);
    }

    /// What was heard and not asked for yet.
    pub(super) fn heard(&self) -> Vec<Interim> {
        if !self.has_heard.swap(false, Ordering::Relaxed) {
            return Vec::new();
        }
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.size = 0;
        std::mem::take(&mut heard.whole)
    }
}

impl Heard {
    /// Whether there may be more of them.
    fn take_in(&mut self, bytes: &[u8]) -> bool {
        let mut held = std::mem::take(&mut self.start);
        held.extend_from_slice(bytes);
        let mut rest = &held[..];
        while let Head::Interim(size, interim) = parse(rest) {
            if self.size + size <= MOST {
                self.size += size;
                self.whole.push(interim);
            }
            rest = &rest[size..];
        }
        let goes_on = rest.len() <= MOST && matches!(parse(rest), Head::Open);
        if goes_on {
            self.start = rest.to_vec();
        }
        goes_on
    }
}

enum Head {
    /// Of so many bytes.
    Interim(usize, Interim),
    /// Its end has not come.
    Open,
    /// Of an answer, or of nothing that makes sense.
    Other,
}

fn parse(bytes: &[u8]) -> Head {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let mut head = httparse::Response::new(&mut fields);
    let size = match head.parse(bytes) {
        Ok(httparse::Status::Complete(size)) => Some(size),
        Ok(httparse::Status::Partial) => None,
        Err(_not_a_head) => return Head::Other,
    };
    let Some(code) = head.code else { return Head::Open };
    let status = StatusCode::from_u16(code)
        .ok()
        .filter(|status| status.is_informational() && *status != StatusCode::SWITCHING_PROTOCOLS);
    match (status, size) {
        (None, _) => Head::Other,
        (Some(_), None) => Head::Open,
        (Some(status), Some(size)) => {
            let mut map = HeaderMap::with_capacity(head.headers.len());
            for field in head.headers.iter() {
                let name = HeaderName::from_bytes(field.name.as_bytes());
                if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(field.value)) {
                    map.append(name, value);
                }
            }
            Head::Interim(size, (status, map))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::LINK;

    const HINTS: &[u8] = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n";
    const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
    const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 44\r\n\r\n";

    fn heard(pieces: &[&[u8]]) -> Vec<u16> {
        let ear = Ear::default();
        ear.listen();
        pieces.iter().for_each(|piece| ear.hear(piece));
        ear.heard().iter().map(|(status, _)| status.as_u16()).collect()
    }

    #[test]
    fn what_one_answer_leaves_is_no_part_of_the_next() {
        let ear = Ear::default();
        ear.listen();
        ear.hear(b"HTTP/1.1 103 Early Hints\r\nx-of-another: ");
        ear.listen();
        ear.hear(b"HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\n");
        let heard = ear.heard();
        assert_eq!(heard.len(), 1);
        assert!(heard[0].1.contains_key("link") && !heard[0].1.contains_key("x-of-another"));
    }

    #[test]
    fn interim_answers_are_heard_until_their_answer_comes() {
        for (bytes, statuses) in [
            ([OK, HINTS].concat(), &[][..]),
            ([HINTS, OK, HINTS].concat(), &[103]),
            ([b"\r\n", HINTS, CONTINUE, OK].concat(), &[103, 100]),
            ([CONTINUE, b"HTTP/1.1 101 Switching\r\n\r\n", HINTS].concat(), &[100]),
            ([HINTS, b"nonsense\r\n\r\n", HINTS].concat(), &[103]),
            (HINTS[..HINTS.len() - 2].to_vec(), &[]),
        ] {
            assert_eq!(heard(&[&bytes]), statuses, "{}", bytes.escape_ascii());
            let pieces: Vec<_> = bytes.chunks(1).collect();
            assert_eq!(heard(&pieces), statuses, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn fields_are_told_and_nothing_is_heard_where_nobody_listens() {
        let ear = Ear::default();
        ear.hear(HINTS);
        assert!(ear.heard().is_empty());
        ear.listen();
        ear.hear(HINTS);
        let interim = ear.heard();
        assert_eq!(interim[0].1[LINK], "</a.css>");
        assert!(ear.heard().is_empty());
    }

    #[test]
    fn what_is_held_has_a_bound() {
        let many = HINTS.repeat(2 * MOST / HINTS.len());
        assert!(heard(&[&many, OK]).len() <= MOST / HINTS.len());
        let long = [b"HTTP/1.1 103 Early Hints\r\nLink: ", &[b'a'; 2 * MOST][..]].concat();
        let ear = Ear::default();
        ear.listen();
        ear.hear(&long);
        assert!(ear.heard.lock().unwrap().start.is_empty());
        assert!(!ear.listens.load(Ordering::Relaxed));
    }
}
