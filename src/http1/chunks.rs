//! The chunks of a body (RFC 9112 section 7.1).

use bytes::{Bytes, BytesMut};
use http::header::{HeaderMap, HeaderName, HeaderValue};
use memchr::memchr;

use crate::http1::Malformed;
use crate::http1::fields::{FIELDS, number};

/// The longest line that tells the size of a chunk, with its extensions; the most bytes of all extensions
/// of a body; and of all trailers.
const LINE: usize = 16 * 1024;
const EXTENSIONS: usize = 16 * 1024;
const TRAILERS: usize = 16 * 1024;
const END: &[u8] = b"\r\n";

/// Finds the data among the lines around it.
#[derive(Debug, Default)]
pub struct Chunks {
    next: Next,
    /// Bytes of extensions that may yet come, if that has a bound.
    extensions: Option<usize>,
    /// The beginning of a line whose end has not come, or trailers.
    started: BytesMut,
}

/// What comes next.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Next {
    #[default]
    Size,
    /// So many bytes of data.
    Data(u64),
    /// The end of the line that data is.
    DataEnd,
    /// Trailers, or the empty line in their place.
    Trailers,
    Nothing,
}

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing, before more comes.
    More,
    /// Of a chunk.
    Data(Bytes),
    /// The last thing, if there are any.
    Trailers(HeaderMap),
    /// Nothing: that was all.
    Over,
}

impl Chunks {
    /// Those of somebody who may send extensions without end, which cost more than they hold.
    pub fn bounded() -> Self {
        Self { extensions: Some(EXTENSIONS), ..Self::default() }
    }

    /// Takes the next step off the front of `input`, which what comes later goes on from.
    pub fn step(&mut self, input: &mut Bytes) -> Result<Step, Malformed> {
        loop {
            match self.next {
                Next::Nothing => return Ok(Step::Over),
                Next::Size => {
                    let Some(line) = self.line(input, LINE)? else { return Ok(Step::More) };
                    let (size, extension) = size(&line)?;
                    if let Some(left) = &mut self.extensions {
                        *left = left.checked_sub(extension).ok_or(Malformed)?;
                    }
                    self.next = match size {
                        0 => Next::Trailers,
                        size => Next::Data(size),
                    };
                }
                Next::Data(left) => {
                    let part = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
                    if part == 0 {
                        return Ok(Step::More);
                    }
                    self.next = match left - part as u64 {
                        0 => Next::DataEnd,
                        left => Next::Data(left),
                    };
                    return Ok(Step::Data(input.split_to(part)));
                }
                Next::DataEnd => match self.line(input, END.len())? {
                    Some(line) if line == END => self.next = Next::Size,
                    None if END.starts_with(&self.started) => return Ok(Step::More),
                    Some(_) | None => return Err(Malformed),
                },
                Next::Trailers => {
                    // The empty line is one of them, whether or not others came before.
                    let before = self.started.len();
                    let Some(end) = memchr(b'\n', input) else {
                        return self.begin(input, TRAILERS).map(|()| Step::More);
                    };
                    let line = input.split_to(end + 1);
                    let begun = self.started[..before].iter().rposition(|byte| *byte == b'\n');
                    self.append(&line, TRAILERS)?;
                    let line = &self.started[begun.map_or(0, |at| at + 1)..];
                    if !line.ends_with(END) {
                        return Err(Malformed);
                    }
                    if line.len() > END.len() {
                        continue;
                    }
                    self.next = Next::Nothing;
                    let all = std::mem::take(&mut self.started).freeze();
                    return match all == END {
                        true => Ok(Step::Over),
                        false => trailers(&all).map(Step::Trailers),
                    };
                }
            }
        }
    }

    /// A whole line with its end, or nothing yet.
    fn line(&mut self, input: &mut Bytes, most: usize) -> Result<Option<Bytes>, Malformed> {
        let Some(end) = memchr(b'\n', input) else {
            return self.begin(input, most).map(|()| None);
        };
        let line = input.split_to(end + 1);
        if self.started.is_empty() && line.len() <= most {
            return Ok(Some(line));
        }
        self.append(&line, most)?;
        Ok(Some(std::mem::take(&mut self.started).freeze()))
    }

    fn begin(&mut self, input: &mut Bytes, most: usize) -> Result<(), Malformed> {
        self.append(&std::mem::take(input), most)
    }

    fn append(&mut self, bytes: &[u8], most: usize) -> Result<(), Malformed> {
        if self.started.len() + bytes.len() > most {
            return Err(Malformed);
        }
        self.started.extend_from_slice(bytes);
        Ok(())
    }
}

/// What a line says of the size of its chunk, and how long its extensions are, which are left out (RFC
/// 9112 section 7.1.1). Whatever another reader could take for the end of the line is refused.
fn size(line: &[u8]) -> Result<(u64, usize), Malformed> {
    let line = line.strip_suffix(END).ok_or(Malformed)?;
    if memchr(b'\r', line).is_some() {
        return Err(Malformed);
    }
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (digits, rest) = line.split_at(digits);
    match rest.iter().find(|byte| !matches!(byte, b' ' | b'\t')) {
        None | Some(b';') if !digits.is_empty() => {
            let extension = rest.trim_ascii_start().len();
            number(digits, 16).map(|size| (size, extension)).ok_or(Malformed)
        }
        _ => Err(Malformed),
    }
}

fn trailers(bytes: &[u8]) -> Result<HeaderMap, Malformed> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let Ok(httparse::Status::Complete((_, fields))) = httparse::parse_headers(bytes, &mut fields)
    else {
        return Err(Malformed);
    };
    let mut map = HeaderMap::with_capacity(fields.len());
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Malformed)?;
        map.append(name, HeaderValue::from_bytes(field.value).map_err(|_| Malformed)?);
    }
    Ok(map)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// All data, the trailers if it came to its end, and what was left.
    type Found = (Vec<u8>, Option<HeaderMap>, Bytes);

    fn found(parts: &[&[u8]]) -> Result<Found, Malformed> {
        found_by(Chunks::default(), parts)
    }

    fn found_by(mut chunks: Chunks, parts: &[&[u8]]) -> Result<Found, Malformed> {
        let mut data = Vec::new();
        let mut input = Bytes::new();
        for part in parts {
            input = [&input[..], part].concat().into();
            loop {
                match chunks.step(&mut input)? {
                    Step::More => break,
                    Step::Data(part) => data.extend_from_slice(&part),
                    Step::Trailers(map) => return Ok((data, Some(map), input)),
                    Step::Over => return Ok((data, Some(HeaderMap::new()), input)),
                }
            }
            assert!(input.is_empty());
        }
        Ok((data, None, input))
    }

    #[test]
    fn data_is_found_however_it_is_cut() {
        let text =
            b"5;a=\"b\"\r\nhello\r\n00A \t\r\n, chunks!!\r\n0\r\nX-Sum: 1\r\nx-b: 2\r\n\r\nrest";
        for size in 1..text.len() {
            let parts: Vec<&[u8]> = text.chunks(size).collect();
            let (data, trailers, rest) = found(&parts).unwrap();
            assert_eq!(data, b"hello, chunks!!");
            let trailers = trailers.unwrap();
            assert_eq!((trailers.len(), &trailers["x-sum"]), (2, &HeaderValue::from_static("1")));
            assert!(b"rest".starts_with(&rest));
        }
        let (data, trailers, rest) = found(&[b"1\r\na\r\n0\r\n\r\n!"]).unwrap();
        assert_eq!(
            (&data[..], trailers, &rest[..]),
            (&b"a"[..], Some(HeaderMap::new()), &b"!"[..])
        );
        assert_eq!(found(&[b"3\r\nab"]).unwrap().1, None);
    }

    #[test]
    fn what_has_two_meanings_is_refused() {
        let table: [&[u8]; 20] = [
            b"\r\n",
            b"g\r\n",
            b"-1\r\n",
            b"+1\r\na\r\n",
            b"0x1\r\na\r\n",
            b" 1\r\na\r\n",
            b"1 1\r\na\r\n",
            b"1\x0c\r\na\r\n",
            b"1\na\r\n",
            b"1;x\na\r\n",
            b"1;x\ry\r\na\r\n",
            b"1\r\r\na\r\n",
            b"1\r\nab\r\n",
            b"1\r\na\n",
            b"1\r\na\rX",
            b"10000000000000000\r\n",
            b"0\r\nA\r\n\r\n",
            b"0\r\nA: b\n\r\n",
            b"0\r\nA: b\r\n c\r\n\r\n",
            b"0\r\n\n",
        ];
        for text in table {
            assert_eq!(found(&[text]), Err(Malformed), "{}", text.escape_ascii());
        }
        assert_eq!(found(&[&[b'1'; LINE + 1]]), Err(Malformed));
        let endless = b"1 \t;abcdefg\r\nx\r\n".repeat(EXTENSIONS / 8 + 1);
        assert_eq!(found(&[&endless]).unwrap().0.len(), EXTENSIONS / 8 + 1);
        assert_eq!(found_by(Chunks::bounded(), &[&endless]), Err(Malformed));
        let most = &endless[..endless.len() / (EXTENSIONS / 8 + 1) * (EXTENSIONS / 8)];
        assert_eq!(found_by(Chunks::bounded(), &[most]).unwrap().0.len(), EXTENSIONS / 8);
        let trailers = [&b"0\r\n"[..], &b"a: b\r\n".repeat(TRAILERS / 6 + 1)].concat();
        assert_eq!(found(&[&trailers]), Err(Malformed));
        let trailers = [&b"0\r\n"[..], &b"a: b\r\n".repeat(FIELDS + 1), b"\r\n"].concat();
        assert_eq!(found(&[&trailers]), Err(Malformed));
    }

    proptest! {
        #[test]
        fn whatever_comes_is_data_or_refused(parts: Vec<Vec<u8>>) {
            let parts: Vec<&[u8]> = parts.iter().map(|part| &part[..]).collect();
            let whole = parts.concat();
            if let Ok((data, ..)) = found(&parts) {
                prop_assert!(data.len() <= whole.len());
                let at_once = found(&[&whole]).unwrap();
                prop_assert_eq!(data, at_once.0);
            }
        }
    }
}
