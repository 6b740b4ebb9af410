//! Where the frames of a WebSocket stream begin and end (RFC 6455 section 5.2).
//!
//! Headers are parsed, payload is skipped, nothing is stored or judged. The one question that
//! matters is [`Frames::at_boundary`]: may a Close be put here? After nonsense the answer is no
//! for good, since nobody can say any more where a frame ends. Pure.

/// The longest header: 2 bytes, 8 of length, 4 of mask.
const MAX_HEADER: usize = 14;
/// A Close frame's payload is at most 125 bytes, two of them the code (RFC 6455 section 5.5).
const MAX_REASON: usize = 123;

/// Who sends in this direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sender {
    /// Its frames are masked.
    Client,
    /// Its frames are not.
    Instance,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// In a header, this many bytes of which are known; 0 is a boundary.
    Header(u8),
    /// In a payload with this much left.
    Payload(u64),
    /// Lost: nonsense came.
    Nowhere,
}

/// The frames of one direction of a tunnel.
#[derive(Debug, Clone)]
pub struct Frames {
    at: At,
    sender: Sender,
    header: [u8; MAX_HEADER],
    /// Payload bytes of the first Close frame seen so far, of which the first two are its code.
    close_seen: Option<u8>,
    /// Whether that frame has passed in full.
    closed: bool,
    code: u16,
    messages: u64,
}

impl Sender {
    /// The other side.
    pub const fn other(self) -> Self {
        match self {
            Self::Client => Self::Instance,
            Self::Instance => Self::Client,
        }
    }
}

impl Frames {
    /// A direction that begins with a frame.
    pub fn new(sender: Sender) -> Self {
        Self {
            at: At::Header(0),
            sender,
            header: [0; MAX_HEADER],
            close_seen: None,
            closed: false,
            code: 0,
            messages: 0,
        }
    }

    /// A direction of which nothing is known, so that no Close can be put into it.
    pub fn opaque(sender: Sender) -> Self {
        Self { at: At::Nowhere, ..Self::new(sender) }
    }

    /// Whether a frame may be put in here: between two frames, and no Close has passed.
    pub fn at_boundary(&self) -> bool {
        self.at == At::Header(0) && self.close_seen.is_none()
    }

    /// Whether boundaries are still known.
    pub fn is_sane(&self) -> bool {
        self.at != At::Nowhere
    }

    /// Whether a Close frame has passed in full.
    pub fn closed(&self) -> bool {
        self.closed
    }

    /// The code of the Close that passed; 1005 for one without (RFC 6455 section 7.4.1).
    pub fn close_code(&self) -> Option<u16> {
        match self.close_seen? {
            0 | 1 => Some(1005),
            _ => Some(self.code),
        }
    }

    /// Complete data messages that have passed.
    pub fn messages(&self) -> u64 {
        self.messages
    }

    /// Takes the next bytes of the stream, however they are split.
    pub fn advance(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            bytes = match self.at {
                At::Nowhere => return,
                At::Payload(left) => self.skip(bytes, left),
                At::Header(known) => self.read_header(bytes, usize::from(known)),
            };
        }
    }

    /// Takes bytes up to the next boundary, or all of them; how many.
    pub fn advance_to_boundary(&mut self, bytes: &[u8]) -> usize {
        let mut rest = bytes;
        while !rest.is_empty() {
            rest = match self.at {
                At::Nowhere => return bytes.len(),
                At::Payload(left) => self.skip(rest, left),
                At::Header(known) => self.read_header(rest, usize::from(known)),
            };
            if self.at == At::Header(0) {
                break;
            }
        }
        bytes.len() - rest.len()
    }

    fn skip<'a>(&mut self, bytes: &'a [u8], left: u64) -> &'a [u8] {
        let taken = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        if let Some(seen) = self.close_seen
            && !self.closed
        {
            self.read_code(&bytes[..taken.min(2)], seen);
        }
        self.await_payload(left - taken as u64);
        &bytes[taken..]
    }

    /// Where the frame has ended when nothing of it is left.
    fn await_payload(&mut self, left: u64) {
        if left > 0 {
            self.at = At::Payload(left);
            return;
        }
        self.at = At::Header(0);
        let first = self.header[0];
        match first & 0x0f {
            // The last frame of a message ends it; control frames may stand between its parts.
            0..=2 => self.messages += u64::from(first >> 7),
            8 => self.closed = true,
            _ => {}
        }
    }

    /// Only the first two payload bytes matter, and a client's are masked.
    fn read_code(&mut self, bytes: &[u8], seen: u8) {
        let mut seen = seen;
        for byte in bytes.iter().take(2usize.saturating_sub(usize::from(seen))) {
            let mask = match self.sender {
                Sender::Client => self.header[self.header_length() - 4 + usize::from(seen)],
                Sender::Instance => 0,
            };
            self.code = self.code << 8 | u16::from(byte ^ mask);
            seen += 1;
        }
        self.close_seen = Some(seen);
    }

    fn read_header<'a>(&mut self, bytes: &'a [u8], known: usize) -> &'a [u8] {
        let mut known = known;
        let mut rest = bytes;
        while known < 2 || known < self.header_length() {
            let Some((byte, after)) = rest.split_first() else {
                self.at = At::Header(known as u8);
                return rest;
            };
            self.header[known] = *byte;
            known += 1;
            rest = after;
            if known == 2 && !self.makes_sense() {
                self.at = At::Nowhere;
                return rest;
            }
        }
        self.begin_payload();
        rest
    }

    fn header_length(&self) -> usize {
        let length = match self.header[1] & 0x7f {
            126 => 4,
            127 => 10,
            _ => 2,
        };
        if self.header[1] & 0x80 == 0 { length } else { length + 4 }
    }

    /// Extensions may use the reserved bits (RFC 6455 section 5.2), so those are not looked at.
    fn makes_sense(&self) -> bool {
        let [first, second, ..] = self.header;
        let masked = second & 0x80 != 0;
        let control = first & 0x08 != 0;
        let opcode_known = matches!(first & 0x0f, 0..=2 | 8..=10);
        let control_whole = !control || (first & 0x80 != 0 && second & 0x7f <= 125);
        opcode_known && control_whole && masked == (self.sender == Sender::Client)
    }

    fn begin_payload(&mut self) {
        let [first, second, ..] = self.header;
        let length = match second & 0x7f {
            126 => u64::from(u16::from_be_bytes([self.header[2], self.header[3]])),
            127 => {
                let bytes = self.header[2..10].try_into().expect("ten bytes hold eight after two");
                u64::from_be_bytes(bytes)
            }
            short => u64::from(short),
        };
        if length >> 63 != 0 {
            self.at = At::Nowhere;
            return;
        }
        if first & 0x0f == 8 {
            self.close_seen.get_or_insert(0);
        }
        self.await_payload(length);
    }
}

/// A Close frame; a client's is masked with `mask`. The reason is cut at 123 bytes.
pub fn close(code: u16, reason: &str, mask: Option<[u8; 4]>) -> Vec<u8> {
    let most = reason.len().min(MAX_REASON);
    let end = (0..=most).rev().find(|end| reason.is_char_boundary(*end)).unwrap_or(0);
    control(0x8, &[&code.to_be_bytes(), &reason.as_bytes()[..end]].concat(), mask)
}

/// A Ping without a payload.
pub fn ping(mask: Option<[u8; 4]>) -> Vec<u8> {
    control(0x9, &[], mask)
}

/// A control frame; its payload is at most 125 bytes (RFC 6455 section 5.5).
fn control(opcode: u8, payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
    let mut frame =
        vec![0x80 | opcode, payload.len() as u8 | if mask.is_some() { 0x80 } else { 0 }];
    frame.extend(mask.iter().flatten());
    let mask = mask.unwrap_or_default().into_iter().cycle();
    frame.extend(payload.iter().zip(mask).map(|(byte, mask)| byte ^ mask));
    frame
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(sender: Sender, fin: bool, opcode: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![opcode | if fin { 0x80 } else { 0 }];
        let mask_bit = if sender == Sender::Client { 0x80 } else { 0 };
        match payload.len() {
            length @ 0..=125 => bytes.push(length as u8 | mask_bit),
            length @ 126..=65535 => {
                bytes.push(126 | mask_bit);
                bytes.extend_from_slice(&(length as u16).to_be_bytes());
            }
            length => {
                bytes.push(127 | mask_bit);
                bytes.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        if sender == Sender::Client {
            bytes.extend_from_slice(&[1, 2, 3, 4]);
        }
        bytes.extend(payload.iter().enumerate().map(|(index, byte)| {
            if sender == Sender::Client { byte ^ [1, 2, 3, 4][index % 4] } else { *byte }
        }));
        bytes
    }

    #[test]
    fn boundaries_lie_between_frames_of_every_length() {
        for sender in [Sender::Client, Sender::Instance] {
            for length in [0, 1, 125, 126, 65535, 65536, 1 << 20] {
                let bytes = frame(sender, true, 2, &vec![0xff; length]);
                let mut frames = Frames::new(sender);
                frames.advance(&bytes[..bytes.len() - 1]);
                assert!(!frames.at_boundary(), "{length}");
                frames.advance(&bytes[bytes.len() - 1..]);
                assert!(frames.at_boundary() && frames.messages() == 1, "{length}");
            }
        }
    }

    #[test]
    fn nonsense_is_never_a_boundary_again() {
        for (sender, first, second) in [
            (Sender::Client, 0x81, 0x00),
            (Sender::Instance, 0x81, 0x80),
            (Sender::Instance, 0x83, 0x00),
            (Sender::Instance, 0x8b, 0x00),
            (Sender::Instance, 0x08, 0x00),
            (Sender::Instance, 0x89, 126),
        ] {
            let mut frames = Frames::new(sender);
            frames.advance(&[first, second]);
            frames.advance(&frame(sender, true, 1, b"sane"));
            assert!(!frames.is_sane() && !frames.at_boundary(), "{first:x} {second:x}");
        }
        let mut frames = Frames::new(Sender::Instance);
        frames.advance(&[0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0]);
        assert!(!frames.is_sane());
    }

    #[test]
    fn a_close_is_recognised_with_its_code_and_ends_the_direction() {
        for sender in [Sender::Client, Sender::Instance] {
            let mut frames = Frames::new(sender);
            for byte in frame(sender, true, 8, &[0x03, 0xf4, b'x']) {
                assert!(!frames.closed());
                frames.advance(&[byte]);
            }
            assert!(frames.closed() && !frames.at_boundary());
            assert_eq!(frames.close_code(), Some(1012));
            let mut frames = Frames::new(sender);
            frames.advance(&frame(sender, true, 8, &[]));
            assert_eq!(frames.close_code(), Some(1005));
        }
    }

    #[test]
    fn what_follows_a_close_changes_nothing_of_it() {
        for later in
            [frame(Sender::Instance, true, 1, b"hi"), frame(Sender::Instance, true, 8, &[3, 232])]
        {
            let mut frames = Frames::new(Sender::Instance);
            frames.advance(&[frame(Sender::Instance, true, 8, &[]), later].concat());
            assert_eq!(frames.close_code(), Some(1005));
            frames.advance(&[0x81]);
            assert!(frames.closed() && !frames.at_boundary());
        }
    }

    #[test]
    fn a_message_counts_once_its_last_byte_has_passed() {
        let message = frame(Sender::Client, true, 2, &[7; 300]);
        let mut frames = Frames::new(Sender::Client);
        frames.advance(&message[..message.len() - 1]);
        assert_eq!(frames.messages(), 0);
        frames.advance(&message[message.len() - 1..]);
        assert_eq!(frames.messages(), 1);
    }

    #[test]
    fn our_own_close_reads_back() {
        for (sender, mask) in [(Sender::Client, Some([9, 8, 7, 6])), (Sender::Instance, None)] {
            let mut frames = Frames::new(sender);
            frames.advance(&close(1001, &"ü".repeat(100), mask));
            assert!(frames.closed());
            assert_eq!(frames.close_code(), Some(1001));
        }
    }

    proptest! {
        #[test]
        fn any_split_of_any_frames_gives_the_same_boundaries(
            payloads in proptest::collection::vec((0usize..70_000, any::<bool>(), 0u8..3), 1..6),
            cuts in proptest::collection::vec(1usize..9000, 0..60),
            client: bool,
        ) {
            let sender = if client { Sender::Client } else { Sender::Instance };
            let mut stream = Vec::new();
            let mut ends = std::collections::HashSet::from([0]);
            let mut messages = 0;
            for (length, fin, kind) in payloads {
                // Control frames between the parts of a message are as legal as anything else.
                let (fin, opcode, length) = match kind {
                    0 => (fin, 2, length),
                    1 => (fin, 0, length),
                    _ => (true, 9, length % 126),
                };
                messages += u64::from(fin && opcode < 8);
                stream.extend(frame(sender, fin, opcode, &vec![0x5a; length]));
                ends.insert(stream.len());
            }
            let mut frames = Frames::new(sender);
            let mut at = 0usize;
            for cut in cuts.into_iter().chain([usize::MAX]) {
                let end = at.saturating_add(cut).min(stream.len());
                frames.advance(&stream[at..end]);
                at = end;
                prop_assert_eq!(frames.at_boundary(), ends.contains(&at));
            }
            prop_assert_eq!(frames.messages(), messages);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..4000)) {
            let mut frames = Frames::new(Sender::Client);
            frames.advance(&bytes);
            let _ = frames.close_code();
        }
    }
}
