//! What fields say of a connection and of where a body ends, and how they are written.

use http::Version;
use http::header::{HeaderName, HeaderValue};

use crate::http1::Malformed;

/// The most fields of an answer's head, or of trailers.
pub const FIELDS: usize = 100;
/// The longest body that may be told of: what others count with may have a sign.
const MOST: u64 = i64::MAX as u64;

/// What the lines of `Connection` say, all of them (RFC 9110 section 7.6.1).
#[derive(Debug, Default)]
pub struct Options {
    close: bool,
    keep_alive: bool,
}

impl Options {
    /// Takes one of the lines.
    pub fn note(&mut self, line: &HeaderValue) {
        for option in line.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            self.close |= option.eq_ignore_ascii_case(b"close");
            self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
        }
    }

    /// Whether another message may follow (RFC 9112 section 9.3).
    pub fn persist(&self, version: Version) -> bool {
        !self.close && (version == Version::HTTP_11 || self.keep_alive)
    }
}

/// A length that a message tells.
pub fn length(digits: &[u8]) -> Result<u64, Malformed> {
    number(digits, 10).filter(|size| *size <= MOST).ok_or(Malformed)
}

/// A number that is nothing but digits.
pub fn number(digits: &[u8], radix: u32) -> Option<u64> {
    let text = std::str::from_utf8(digits).ok()?;
    let is_bare = text.bytes().all(|byte| char::from(byte).is_digit(radix));
    is_bare.then(|| u64::from_str_radix(text, radix).ok()).flatten()
}

/// Writes a line of a field.
pub fn line(text: &mut Vec<u8>, name: &HeaderName, value: &[u8]) {
    text.extend_from_slice(name.as_str().as_bytes());
    text.extend_from_slice(b": ");
    text.extend_from_slice(value);
    text.extend_from_slice(b"\r\n");
}
