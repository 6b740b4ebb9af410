//! The PROXY protocol, versions 1 and 2: what a proxy says of its client in front of a connection.
//!
//! Pure: bytes to a [`Header`] and back. It knows no sockets, and nobody's trust: who may send a
//! header is for the listener to say. Written to haproxy's doc/proxy-protocol.txt of 2020/03/05, whose
//! sections are named below. Read [`parse`] first.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::config::types::ProxyVersion;

/// Section 2.1: the longest line, its CRLF included.
const LONGEST_LINE: usize = 107;
/// Section 2.2: what no HTTP and no TLS begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const LINE_START: &[u8] = b"PROXY ";
/// Signature, version and command, family and protocol, and the length of the rest.
const FIXED: usize = 16;
/// The most that may follow the fixed part. Addresses take 36 bytes, and what senders add (names,
/// an id, what was said of TLS) a few hundred.
pub const LONGEST_REST: usize = 4096;
/// The longest header that is read.
pub const LONGEST: usize = FIXED + LONGEST_REST;
/// Section 2.2.3: a checksum over the whole header.
const CRC32C: u8 = 0x03;
const CRC32C_LENGTH: usize = 4;

/// The two ends of a client's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// The client.
    pub source: SocketAddr,
    /// Where it connected to.
    pub destination: SocketAddr,
}

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header {
    /// The connection is the proxy's own, or its client has no IP address: LOCAL, UNKNOWN, and what
    /// did not come by TCP.
    Local,
    /// It is for this client.
    Proxied(Ends),
}

/// What a connection to an instance begins with. Two that begin differently are two clients'.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Introduction {
    /// What is said.
    pub header: Header,
    /// How.
    pub version: ProxyVersion,
}

/// What the first bytes of a connection are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// No header.
    Other,
    /// Perhaps a header, but not all of it.
    Partial,
    /// A header of this many bytes.
    Whole(Header, usize),
}

/// The bytes begin as a header does and are none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a PROXY protocol header: {0}")]
pub struct Malformed(&'static str);

/// Reads the header that `bytes` begin with. The same whether they come at once or one by one: what
/// is more than a part of a header stays what it is, whatever follows.
pub fn parse(bytes: &[u8]) -> Result<Start, Malformed> {
    let begins = |start: &[u8]| bytes.starts_with(start) || start.starts_with(bytes);
    if begins(SIGNATURE) {
        return parse_binary(bytes);
    }
    if begins(LINE_START) {
        return parse_line(bytes);
    }
    Ok(Start::Other)
}

fn parse_line(bytes: &[u8]) -> Result<Start, Malformed> {
    let longest = &bytes[..bytes.len().min(LONGEST_LINE)];
    let Some(end) = memchr::memchr(b'\r', longest) else {
        let is_full = longest.len() == LONGEST_LINE;
        return if is_full { Err(Malformed("its line is too long")) } else { Ok(Start::Partial) };
    };
    match longest.get(end + 1) {
        Some(b'\n') => {}
        Some(_) => return Err(Malformed("a CR without LF")),
        None if longest.len() == LONGEST_LINE => return Err(Malformed("its line is too long")),
        None => return Ok(Start::Partial),
    }
    let words = std::str::from_utf8(&longest[LINE_START.len()..end]);
    let header = words.ok().and_then(line).ok_or(Malformed("its line makes no sense"))?;
    Ok(Start::Whole(header, end + 2))
}

/// Section 2.1, without what precedes and follows.
fn line(text: &str) -> Option<Header> {
    let mut words = text.split(' ');
    let family = words.next()?;
    if family == "UNKNOWN" {
        return Some(Header::Local);
    }
    let mut word = || words.next();
    let (source, destination) = (word()?, word()?);
    let ports = (port(word()?)?, port(word()?)?);
    if word().is_some() {
        return None;
    }
    let address = |text: &str| match family {
        "TCP4" => text.parse::<Ipv4Addr>().ok().map(IpAddr::from),
        "TCP6" => text.parse::<Ipv6Addr>().ok().map(IpAddr::from),
        _ => None,
    };
    let source = SocketAddr::new(address(source)?, ports.0);
    Some(Header::Proxied(Ends {
        source,
        destination: SocketAddr::new(address(destination)?, ports.1),
    }))
}

/// Without sign and leading zeros.
fn port(text: &str) -> Option<u16> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let is_short = text == "0" || !text.starts_with('0');
    text.parse().ok().filter(|_| is_plain && is_short)
}

fn parse_binary(bytes: &[u8]) -> Result<Start, Malformed> {
    let local = match bytes.get(SIGNATURE.len()) {
        None => return Ok(Start::Partial),
        Some(0x20) => true,
        Some(0x21) => false,
        Some(_) => return Err(Malformed("an unknown version or command")),
    };
    let Some(fixed) = bytes.get(..FIXED) else { return Ok(Start::Partial) };
    let length = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if length > LONGEST_REST {
        return Err(Malformed("it is too long"));
    }
    let Some(whole) = bytes.get(..FIXED + length) else { return Ok(Start::Partial) };
    let rest = &whole[FIXED..];
    // Section 2.2: whatever LOCAL says of addresses is ignored.
    let (ends, block) = addresses(fixed[13], rest).or_else(|bad| match local {
        true => Ok((None, rest.len())),
        false => Err(bad),
    })?;
    verify(whole, FIXED + block)?;
    let header = ends.filter(|_| !local).map_or(Header::Local, Header::Proxied);
    Ok(Start::Whole(header, FIXED + length))
}

/// The addresses, where they are those of TCP, and how many bytes they take.
fn addresses(family: u8, rest: &[u8]) -> Result<(Option<Ends>, usize), Malformed> {
    // Section 2.2: the family is in the upper half, the transport in the lower.
    let block = match (family >> 4, family & 0xf) {
        (_, 3..) | (4.., _) => return Err(Malformed("an unknown family or transport")),
        (0, _) => 0,
        (1, _) => 12,
        (2, _) => 36,
        _ => 216,
    };
    let given = rest.get(..block).ok_or(Malformed("its addresses are cut short"))?;
    let number = |at: usize| u16::from_be_bytes([given[at], given[at + 1]]);
    let four = |at: usize| <[u8; 4]>::try_from(&given[at..at + 4]).map(IpAddr::from);
    let six = |at: usize| <[u8; 16]>::try_from(&given[at..at + 16]).map(IpAddr::from);
    let pair = match family {
        0x11 => (four(0), number(8), four(4), number(10)),
        0x21 => (six(0), number(32), six(16), number(34)),
        _ => return Ok((None, block)),
    };
    let (Ok(source), source_port, Ok(destination), destination_port) = pair else {
        return Err(Malformed("its addresses are cut short"));
    };
    let ends = Ends {
        source: SocketAddr::new(source, source_port),
        destination: SocketAddr::new(destination, destination_port),
    };
    Ok((Some(ends), block))
}

/// Section 2.2.3: what follows the addresses is a list of type, length and value. None but the
/// checksum means anything here.
fn verify(whole: &[u8], mut at: usize) -> Result<(), Malformed> {
    while at < whole.len() {
        let cut = Malformed("what it adds is cut short");
        let [kind, high, low] = *whole.get(at..at + 3).and_then(<[u8]>::first_chunk).ok_or(cut)?;
        let length = usize::from(u16::from_be_bytes([high, low]));
        let value = whole.get(at + 3..at + 3 + length).ok_or(cut)?;
        if kind == CRC32C {
            let told = *value.first_chunk::<CRC32C_LENGTH>().ok_or(cut)?;
            let found = crc32c(whole, at + 3..at + 3 + CRC32C_LENGTH);
            if length != CRC32C_LENGTH || u32::from_be_bytes(told) != found {
                return Err(Malformed("its checksum is wrong"));
            }
        }
        at += 3 + length;
    }
    Ok(())
}

/// CRC32C of `bytes` (RFC 9260 appendix A), with zeros in the place of `blank`. Bit by bit: headers
/// that carry one are short and few.
fn crc32c(bytes: &[u8], blank: std::ops::Range<usize>) -> u32 {
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    let mut crc = u32::MAX;
    for (place, byte) in bytes.iter().enumerate() {
        crc ^= if blank.contains(&place) { 0 } else { u32::from(*byte) };
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ POLYNOMIAL } else { crc >> 1 };
        }
    }
    !crc
}

/// The bytes of a header.
pub fn write(introduction: Introduction) -> Vec<u8> {
    match (introduction.version, introduction.header) {
        (ProxyVersion::V1, Header::Local) => b"PROXY UNKNOWN\r\n".to_vec(),
        (ProxyVersion::V1, Header::Proxied(ends)) => {
            let Ends { source, destination } = of_one_family(ends);
            let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
            let (from, to) = (source.ip(), destination.ip());
            let (from_port, to_port) = (source.port(), destination.port());
            format!("PROXY {family} {from} {to} {from_port} {to_port}\r\n").into_bytes()
        }
        (ProxyVersion::V2, Header::Local) => [&SIGNATURE[..], &[0x20, 0, 0, 0]].concat(),
        (ProxyVersion::V2, Header::Proxied(ends)) => {
            let Ends { source, destination } = of_one_family(ends);
            let mut bytes = SIGNATURE.to_vec();
            match (source.ip(), destination.ip()) {
                (IpAddr::V4(from), IpAddr::V4(to)) => {
                    bytes.extend([0x21, 0x11, 0, 12]);
                    bytes.extend(from.octets().into_iter().chain(to.octets()));
                }
                (from, to) => {
                    bytes.extend([0x21, 0x21, 0, 36]);
                    bytes.extend(six(from).octets().into_iter().chain(six(to).octets()));
                }
            }
            bytes.extend(source.port().to_be_bytes());
            bytes.extend(destination.port().to_be_bytes());
            bytes
        }
    }
}

/// A header has one family for both ends.
fn of_one_family(ends: Ends) -> Ends {
    let Ends { source, destination } = ends;
    if source.is_ipv4() == destination.is_ipv4() {
        return ends;
    }
    let mapped = |it: SocketAddr| SocketAddr::new(six(it.ip()).into(), it.port());
    Ends { source: mapped(source), destination: mapped(destination) }
}

fn six(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(four) => four.to_ipv6_mapped(),
        IpAddr::V6(six) => six,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ends(source: &str, destination: &str) -> Ends {
        Ends { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
    }

    fn whole(bytes: &[u8]) -> Option<(Header, usize)> {
        match parse(bytes) {
            Ok(Start::Whole(header, length)) => Some((header, length)),
            Ok(Start::Other | Start::Partial) | Err(_) => None,
        }
    }

    /// A header of version 2 with this command, family and rest.
    fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, rest].concat()
    }

    #[test]
    fn lines_say_who_the_client_is() {
        let four = Header::Proxied(ends("192.0.2.1:56324", "198.51.100.9:443"));
        let six = Header::Proxied(ends("[2001:db8::1]:1", "[::1]:65535"));
        for (line, expected) in [
            ("PROXY TCP4 192.0.2.1 198.51.100.9 56324 443\r\n", Some(four)),
            ("PROXY TCP6 2001:db8::1 ::1 1 65535\r\n", Some(six)),
            ("PROXY UNKNOWN\r\n", Some(Header::Local)),
            ("PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", Some(Header::Local)),
            ("PROXY TCP4 192.0.2.1 198.51.100.9 56324\r\n", None),
            ("PROXY TCP4 192.0.2.1 198.51.100.9 56324 443 \r\n", None),
            ("PROXY TCP4  192.0.2.1 198.51.100.9 56324 443\r\n", None),
            ("PROXY TCP4 192.0.2.1 198.51.100.9 56324 65536\r\n", None),
            ("PROXY TCP4 192.0.2.1 198.51.100.9 +1 443\r\n", None),
            ("PROXY TCP4 192.0.2.1 198.51.100.9 01 443\r\n", None),
            ("PROXY TCP4 ::1 ::1 1 2\r\n", None),
            ("PROXY TCP6 192.0.2.1 198.51.100.9 1 2\r\n", None),
            ("PROXY UDP4 192.0.2.1 198.51.100.9 1 2\r\n", None),
            ("PROXY \r\n", None),
            ("PROXY UNKNOWN\rx", None),
        ] {
            let expected = expected.map(|header| (header, line.len()));
            assert_eq!(whole(line.as_bytes()), expected, "{line:?}");
            let followed = format!("{line}GET / HTTP/1.1\r\n");
            assert_eq!(whole(followed.as_bytes()), expected, "{followed:?}");
        }
    }

    #[test]
    fn a_line_has_at_most_107_bytes() {
        let line = |length: usize| format!("PROXY UNKNOWN {:>1$}\r\n", "x", length - 16);
        assert_eq!(whole(line(107).as_bytes()), Some((Header::Local, 107)));
        assert!(parse(line(108).as_bytes()).is_err());
        assert_eq!(parse(&[b"PROXY ", &[b'x'; 100][..]].concat()), Ok(Start::Partial));
        assert!(parse(&[b"PROXY ", &[b'x'; 101][..]].concat()).is_err());
    }

    #[test]
    fn binary_headers_say_who_the_client_is() {
        let client = Header::Proxied(ends("192.0.2.1:258", "198.51.100.9:772"));
        let four = [192, 0, 2, 1, 198, 51, 100, 9, 1, 2, 3, 4];
        let added = [&four[..], &[0x04, 0, 2, 7, 7]].concat();
        let cut = [&four[..], &[0x04, 0, 3, 7, 7]].concat();
        for (bytes, expected) in [
            (binary(0x21, 0x11, &four), Some(client)),
            (binary(0x21, 0x11, &added), Some(client)),
            (binary(0x21, 0x11, &cut), None),
            (binary(0x20, 0x11, &four), Some(Header::Local)),
            (binary(0x20, 0x00, &[]), Some(Header::Local)),
            (binary(0x21, 0x00, &[]), Some(Header::Local)),
            (binary(0x21, 0x12, &four), Some(Header::Local)),
            (binary(0x21, 0x31, &[0; 216]), Some(Header::Local)),
            (binary(0x21, 0x31, &[0; 215]), None),
            (binary(0x21, 0x11, &four[..11]), None),
            (binary(0x21, 0x21, &four), None),
            (binary(0x21, 0x13, &four), None),
            (binary(0x21, 0x41, &four), None),
            (binary(0x22, 0x11, &four), None),
            (binary(0x11, 0x11, &four), None),
        ] {
            let expected = expected.map(|header| (header, bytes.len()));
            assert_eq!(whole(&bytes), expected, "{bytes:?}");
        }
        let long = [0x04, 0x0f, 0xfd].into_iter().chain([0; LONGEST_REST - 3]);
        let long: Vec<u8> = long.collect();
        assert!(whole(&binary(0x21, 0, &long)).is_some());
        assert!(parse(&binary(0x21, 0, &[&long[..], &[0]].concat())[..FIXED]).is_err());
    }

    #[test]
    fn a_checksum_is_held_to() {
        assert_eq!(crc32c(b"123456789", 0..0), 0xe306_9283, "the check value of CRC32C");
        let four = [192, 0, 2, 1, 198, 51, 100, 9, 1, 2, 3, 4];
        let rest = [&four[..], &[CRC32C, 0, 4, 0, 0, 0, 0], &[0x04, 0, 1, 9]].concat();
        let mut bytes = binary(0x21, 0x11, &rest);
        let place = FIXED + 15;
        let sum = crc32c(&bytes, 0..0).to_be_bytes();
        bytes[place..place + 4].copy_from_slice(&sum);
        assert!(whole(&bytes).is_some());
        // All but the type of the checksum: without it there is none.
        for at in (FIXED..bytes.len()).filter(|at| *at != FIXED + 12) {
            let mut altered = bytes.clone();
            altered[at] ^= 1;
            assert!(whole(&altered).is_none(), "byte {at}");
        }
    }

    #[test]
    fn what_begins_otherwise_is_let_alone() {
        for other in ["GET / HTTP/1.1", "PRI * HTTP/2.0", "PROXYGEN", "\r\nGET /", "\x16\x03\x01"] {
            assert_eq!(parse(other.as_bytes()), Ok(Start::Other), "{other:?}");
        }
        for start in ["", "P", "PR", "PROXY", "\r", "\r\n\r\n\0\r\nQUIT"] {
            assert_eq!(parse(start.as_bytes()), Ok(Start::Partial), "{start:?}");
        }
    }

    #[test]
    fn ends_of_two_families_become_one() {
        let mixed = ends("192.0.2.1:1", "[2001:db8::1]:2");
        for version in [ProxyVersion::V1, ProxyVersion::V2] {
            let bytes = write(Introduction { header: Header::Proxied(mixed), version });
            let Some((Header::Proxied(read), _)) = whole(&bytes) else { panic!("{bytes:?}") };
            assert_eq!(read.source.ip().to_canonical(), mixed.source.ip());
            assert_eq!((read.source.port(), read.destination), (1, mixed.destination));
        }
    }

    fn header() -> impl Strategy<Value = Header> {
        let four = any::<[(Ipv4Addr, u16); 2]>().prop_map(|ends| ends.map(SocketAddr::from));
        let six = any::<[(Ipv6Addr, u16); 2]>().prop_map(|ends| ends.map(SocketAddr::from));
        let proxied =
            |[source, destination]: [SocketAddr; 2]| Header::Proxied(Ends { source, destination });
        prop_oneof![Just(Header::Local), four.prop_map(proxied), six.prop_map(proxied),]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_wherever_it_is_split(
            header in header(),
            second: bool,
            follows in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let version = if second { ProxyVersion::V2 } else { ProxyVersion::V1 };
            let bytes = write(Introduction { header, version });
            for split in 0..bytes.len() {
                prop_assert_eq!(parse(&bytes[..split]), Ok(Start::Partial));
            }
            let stream = [&bytes[..], &follows].concat();
            prop_assert_eq!(parse(&stream), Ok(Start::Whole(header, bytes.len())));
        }

        #[test]
        fn a_verdict_stands_whatever_follows(
            start in prop_oneof![Just(&b"PROXY "[..]), Just(&SIGNATURE[..]), Just(&b""[..])],
            rest in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let bytes = [start, &rest].concat();
            let last = parse(&bytes);
            for split in 0..bytes.len() {
                match parse(&bytes[..split]) {
                    Ok(Start::Partial) => {}
                    settled => prop_assert_eq!(settled, last),
                }
            }
        }
    }
}
