//! Holds the counter of `tunnel::frames`, which sees a stream in pieces, to a parser that sees the
//! whole of it and was written from RFC 6455 section 5.2 alone.
//!
//! Input: one byte of choices, the number of pieces, a byte for the size of each, then the stream.

use burdock::tunnel::frames::{self, Frames, Sender};

/// What a stream is made of, as far as it goes.
#[derive(Debug, Default, PartialEq, Eq)]
struct Parsed {
    /// Where whole frames end, the beginning included.
    boundaries: Vec<usize>,
    /// Whether something came that cannot be a frame.
    nonsense: bool,
    messages: u64,
    close: Option<Close>,
}

/// The first Close, once its header is there.
#[derive(Debug, PartialEq, Eq)]
struct Close {
    payload: Vec<u8>,
    whole: bool,
}

impl Parsed {
    fn of(stream: &[u8], sender: Sender) -> Self {
        let mut parsed = Self { boundaries: vec![0], ..Self::default() };
        let mut start = 0;
        while let Some(next) = parsed.frame(stream, start, sender) {
            parsed.boundaries.push(next);
            start = next;
        }
        parsed
    }

    /// Takes the frame that begins at `start`; where it ends, if it is there.
    fn frame(&mut self, stream: &[u8], start: usize, sender: Sender) -> Option<usize> {
        let frame = &stream[start..];
        let (&first, &second) = (frame.first()?, frame.get(1)?);
        let (fin, opcode) = (first >= 0x80, first % 16);
        let (masked, short) = (second >= 0x80, usize::from(second % 128));
        let allowed = match opcode {
            0..=2 => true,
            8..=10 => fin && short < 126,
            _ => false,
        };
        if !allowed || masked != (sender == Sender::Client) {
            self.nonsense = true;
            return None;
        }
        let wide = [0, 2, 8][short.saturating_sub(125)];
        let payload_at = 2 + wide + if masked { 4 } else { 0 };
        if frame.len() < payload_at {
            return None;
        }
        let size = if wide == 0 {
            short as u128
        } else {
            frame[2..2 + wide].iter().fold(0, |size, byte| size * 256 + u128::from(*byte))
        };
        if size >= 1 << 63 {
            self.nonsense = true;
            return None;
        }
        let size = usize::try_from(size).expect("63 bits fit");
        let there = &frame[payload_at..];
        let whole = there.len() >= size;
        if opcode == 8 && self.close.is_none() {
            let mask: &[u8] = if masked { &frame[payload_at - 4..payload_at] } else { &[0; 4] };
            let payload = there[..size.min(there.len())].iter();
            let payload = payload.enumerate().map(|(at, byte)| byte ^ mask[at % 4]).collect();
            self.close = Some(Close { payload, whole });
        }
        if !whole {
            return None;
        }
        self.messages += u64::from(opcode < 8 && fin);
        Some(start + payload_at + size)
    }

    fn agrees_with(&self, counter: &Frames, length: usize) {
        let between = self.boundaries.last() == Some(&length) && !self.nonsense;
        assert_eq!(counter.is_sane(), !self.nonsense);
        assert_eq!(counter.at_boundary(), between && self.close.is_none());
        assert_eq!(counter.messages(), self.messages);
        assert_eq!(counter.closed(), self.close.as_ref().is_some_and(|close| close.whole));
        let code = self.close.as_ref().map(|close| match close.payload[..] {
            [high, low, ..] => u16::from_be_bytes([high, low]),
            _ => 1005,
        });
        assert_eq!(counter.close_code(), code);
    }
}

/// Panics where the two disagree.
pub(crate) fn check(data: &[u8]) {
    let Some((&choices, rest)) = data.split_first() else { return };
    let Some((&count, rest)) = rest.split_first() else { return };
    let (sizes, stream) = rest.split_at(usize::from(count).min(rest.len()));
    let sender = if choices & 1 == 0 { Sender::Client } else { Sender::Instance };
    let mut counter = Frames::new(sender);
    let mut known = 0;
    for end in ends(sizes, stream.len()) {
        let piece = &stream[known..end];
        stops_at_boundary(&counter, stream, known, end, sender);
        counter.advance(piece);
        Parsed::of(&stream[..end], sender).agrees_with(&counter, end);
        if counter.at_boundary() {
            takes_a_frame(stream, end, sender, choices);
        }
        known = end;
    }
    let mut opaque = Frames::opaque(sender);
    opaque.advance(stream);
    assert!(!opaque.at_boundary() && !opaque.is_sane() && opaque.close_code().is_none());
}

/// Where pieces of these sizes end, the last at the end of the stream.
fn ends(sizes: &[u8], length: usize) -> Vec<usize> {
    let mut ends: Vec<usize> = Vec::new();
    for size in sizes {
        let end = ends.last().unwrap_or(&0) + usize::from(*size);
        ends.push(end.min(length));
    }
    ends.push(length);
    ends
}

fn stops_at_boundary(counter: &Frames, stream: &[u8], known: usize, end: usize, sender: Sender) {
    let mut stopping = counter.clone();
    let taken = stopping.advance_to_boundary(&stream[known..end]);
    let parsed = Parsed::of(&stream[..end], sender);
    let next = parsed.boundaries.iter().find(|boundary| **boundary > known);
    assert_eq!(known + taken, *next.unwrap_or(&end));
    Parsed::of(&stream[..known + taken], sender).agrees_with(&stopping, known + taken);
}

/// A frame of ours put in at `at` is one more frame, and leaves the others what they were.
fn takes_a_frame(stream: &[u8], at: usize, sender: Sender, choices: u8) {
    let mask = (sender == Sender::Client).then_some([choices, 0x5a, 0, 0xff]);
    let reason = "é".repeat(usize::from(choices >> 1));
    let pings = choices & 2 == 0;
    let ours = if pings { frames::ping(mask) } else { frames::close(1012, &reason, mask) };
    let (before, after) = stream.split_at(at);
    let with = [before, &ours, after].concat();

    let (plain, parsed) = (Parsed::of(stream, sender), Parsed::of(&with, sender));
    let moved = plain.boundaries.iter().map(|b| if *b < at { *b } else { *b + ours.len() });
    let mut expected: Vec<usize> = moved.chain([at]).collect();
    expected.sort_unstable();
    assert_eq!(parsed.boundaries, expected);
    assert_eq!((parsed.nonsense, parsed.messages), (plain.nonsense, plain.messages));
    if pings {
        assert_eq!(parsed.close, plain.close);
    } else {
        let close = parsed.close.as_ref().expect("the one that was put in");
        let (code, said) = close.payload.split_at(2);
        assert_eq!(code, 1012_u16.to_be_bytes());
        let said = std::str::from_utf8(said).expect("a reason that is cut between letters");
        assert!(reason.starts_with(said) && (said == reason || said.len() >= 122));
    }
    let mut counter = Frames::new(sender);
    counter.advance(&with);
    parsed.agrees_with(&counter, with.len());
}
