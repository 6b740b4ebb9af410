//! The two messages of the gRPC health protocol (`grpc.health.v1.Health/Check`), by hand. Pure.
//!
//! A message comes behind five bytes: whether it is compressed, and its length. Inside are the
//! fields of protobuf: the request has the service's name as field 1, the answer a status.

/// The request target.
pub const PATH: &str = "/grpc.health.v1.Health/Check";

/// A length-delimited field 1.
const NAME: u8 = 1 << 3 | 2;
/// A varint field 1.
const STATUS: u64 = 1 << 3;

/// What the server says of the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It serves.
    Serving,
    /// It doesn't.
    NotServing,
    /// It doesn't know, or says something that the protocol doesn't.
    Unknown,
}

/// Asks for a service; its name has at most 255 bytes.
pub fn request(service: &str) -> Vec<u8> {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(NAME);
        varint(service.len() as u64, &mut message);
        message.extend_from_slice(service.as_bytes());
    }
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    [&[0], &length.to_be_bytes()[..], &message].concat()
}

/// Reads the answer; `None` if it is none.
pub fn answer(body: &[u8]) -> Option<Status> {
    let (head, message) = body.split_at_checked(5)?;
    let length = u32::from_be_bytes(head[1..].try_into().ok()?);
    if head[0] != 0 || message.len() as u64 != u64::from(length) {
        return None;
    }
    let mut rest = message;
    // The default is not written.
    let mut status = 0;
    while !rest.is_empty() {
        let key = read_varint(&mut rest)?;
        match key & 7 {
            0 if key == STATUS => status = read_varint(&mut rest)?,
            0 => drop(read_varint(&mut rest)?),
            1 => rest = rest.get(8..)?,
            2 => {
                let length = usize::try_from(read_varint(&mut rest)?).ok()?;
                rest = rest.get(length..)?;
            }
            5 => rest = rest.get(4..)?,
            _ => return None,
        }
    }
    Some(match status {
        1 => Status::Serving,
        2 => Status::NotServing,
        _ => Status::Unknown,
    })
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn read_varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for place in 0..10 {
        let (byte, more) = rest.split_first()?;
        *rest = more;
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn messages_are_those_of_the_protocol() {
        assert_eq!(request(""), [0, 0, 0, 0, 0]);
        assert_eq!(request("ab"), [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        let long = "x".repeat(200);
        assert_eq!(request(&long)[..8], [0, 0, 0, 0, 203, 0x0a, 0xc8, 1]);
        for (message, expected) in [
            (&[8, 1][..], Some(Status::Serving)),
            (&[8, 2], Some(Status::NotServing)),
            (&[], Some(Status::Unknown)),
            (&[8, 3], Some(Status::Unknown)),
            (&[0x12, 1, 9, 0x18, 5, 8, 1], Some(Status::Serving)),
            (&[8], None),
            (&[0x12, 9, 1], None),
            (&[0x0b, 1], None),
        ] {
            let body = [&[0, 0, 0, 0, message.len() as u8][..], message].concat();
            assert_eq!(answer(&body), expected, "{message:?}");
        }
        assert_eq!(answer(&[1, 0, 0, 0, 2, 8, 1]), None, "compressed");
        assert_eq!(answer(&[0, 0, 0, 0, 3, 8, 1]), None, "shorter than it says");
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_panic(body in proptest::collection::vec(any::<u8>(), 0..40)) {
            answer(&body);
        }
    }
}
