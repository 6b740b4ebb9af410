//! Finds requests that are framed twice: with a length and with a coding. hyper leaves the length out
//! of such a head, and nobody behind it can tell; RFC 9112 section 6.1 wants it to end the
//! connection at the least. Pure.
//!
//! It looks at the first bytes of lines, not at where messages begin: between two empty lines there
//! is at most one head, together with what came before it. So it never misses one, and takes
//! something else for one only if a body holds both fields in one block; what it says counts for
//! requests that have a coding alone.

/// The longest that must be seen of a line.
const SEEN: usize = CODING.len();
const LENGTH: &[u8] = b"content-length:";
const CODING: &[u8] = b"transfer-encoding:";

/// What has come of a client's lines.
#[derive(Debug, Default)]
pub(super) struct Heads {
    /// The beginning of a line whose end has not come.
    start: [u8; SEEN],
    started: usize,
    length: bool,
    coding: bool,
}

impl Heads {
    /// Takes what came next: whether it ends a head that is framed twice.
    pub(super) fn see(&mut self, bytes: &[u8]) -> bool {
        let mut twice = false;
        let mut rest = bytes;
        while let Some(end) = memchr::memchr(b'\n', rest) {
            let line = &rest[..end];
            twice |= match self.started {
                0 => self.line(line),
                _ => {
                    self.begin(line);
                    let (start, size) = (self.start, std::mem::take(&mut self.started));
                    self.line(&start[..size])
                }
            };
            rest = &rest[end + 1..];
        }
        self.begin(rest);
        twice
    }

    fn begin(&mut self, bytes: &[u8]) {
        let room = &mut self.start[self.started..];
        let size = room.len().min(bytes.len());
        room[..size].copy_from_slice(&bytes[..size]);
        self.started += size;
    }

    fn line(&mut self, line: &[u8]) -> bool {
        let begins = |name: &[u8]| {
            line.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name))
        };
        match line {
            [] | [b'\r'] => std::mem::take(&mut self.length) & std::mem::take(&mut self.coding),
            [b'c' | b'C', ..] => {
                self.length |= begins(LENGTH);
                false
            }
            [b't' | b'T', ..] => {
                self.coding |= begins(CODING);
                false
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ONCE: &[u8] = b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcPOST / HTTP/1.1\r\n\
                          Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n";

    #[test]
    fn a_head_is_found_by_both_of_its_lines() {
        for (head, twice) in [
            (
                &b"GET / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"[..],
                true,
            ),
            (b"GET / HTTP/1.1\ntransfer-encoding:chunked\nX: y\nCONTENT-LENGTH:3\n\n", true),
            (b"abcGET / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding:\r\n\r\n", true),
            (ONCE, false),
            (b"GET / HTTP/1.1\r\nContent-Length: 3\r\nX-Transfer-Encoding: chunked\r\n\r\n", false),
            (b"GET / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n", false),
        ] {
            assert_eq!(Heads::default().see(head), twice, "{}", head.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(cuts in prop::collection::vec(1_usize..20, 1..40), add in any::<bool>()) {
            let more: &[u8] = if add {
                b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nX: y\r\nContent-Length: 1\r\n\r\n"
            } else {
                b"PUT / HTTP/1.1\r\n\r\n"
            };
            let whole = [ONCE, more, ONCE].concat();
            let (mut heads, mut rest, mut twice) = (Heads::default(), &whole[..], false);
            for cut in cuts.iter().cycle() {
                let (piece, more) = rest.split_at((*cut).min(rest.len()));
                twice |= heads.see(piece);
                rest = more;
                if rest.is_empty() { break }
            }
            prop_assert_eq!(twice, add);
        }
    }
}
