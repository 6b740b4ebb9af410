//! Bounds what a client of HTTP/2 may send that asks for nothing: resets of what it has just asked
//! for (CVE-2023-44487), settings, pings, priorities, empty frames. Each is cheap to send and not to
//! take. hyper bounds the memory that they hold, and resets only until it has looked at a stream.
//! Pure: `now` is an argument.

use std::time::{Duration, Instant};

/// What one such frame costs, and so what may come at once: [`BURST`] by this.
const COST: u32 = 2;
/// What a request gives: a client that resets one in ten may do so for ever.
const EARNED: u32 = 1;
/// 1,000 frames at once: a page that is left resets as many streams as it had, some 100.
const BURST: u32 = 2000;
/// 100 frames a second.
const REFILL: u32 = 200;
const SECOND: Duration = Duration::from_secs(1);

/// RFC 9113 section 4.1: length, type, flags and stream.
const HEADER: usize = 9;
/// RFC 9113 section 3.4.
const PREFACE: usize = 24;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;

/// What is left of a client's patience with it.
#[derive(Debug)]
pub(super) struct Calm {
    header: [u8; HEADER],
    got: usize,
    /// Bytes until the next header.
    skip: usize,
    left: u32,
    refilled: Instant,
}

impl Calm {
    /// Before the first byte of the preface.
    pub(super) fn new(now: Instant) -> Self {
        Self { header: [0; HEADER], got: 0, skip: PREFACE, left: BURST, refilled: now }
    }

    /// Takes what came next: whether that was too much.
    pub(super) fn exceeds(&mut self, mut bytes: &[u8], now: Instant) -> bool {
        let since = now.saturating_duration_since(self.refilled);
        if since >= SECOND {
            self.refilled = now;
            let refill = u64::from(REFILL).saturating_mul(since.as_secs());
            self.left = refill.saturating_add(self.left.into()).min(BURST.into()) as u32;
        }
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let size = (HEADER - self.got).min(bytes.len());
            self.header[self.got..self.got + size].copy_from_slice(&bytes[..size]);
            self.got += size;
            bytes = &bytes[size..];
            if self.got < HEADER {
                return false;
            }
            self.got = 0;
            if !self.count() {
                return true;
            }
        }
    }

    /// Counts the frame of a whole header: whether there was still something left for it.
    fn count(&mut self) -> bool {
        let [a, b, c, kind, flags, ..] = self.header;
        self.skip = u32::from_be_bytes([0, a, b, c]) as usize;
        let is_empty = self.skip == 0;
        let is_free = match kind {
            DATA => !is_empty || flags & END_STREAM != 0,
            // A client that takes an answer sends two for every part of it.
            WINDOW_UPDATE => true,
            // What follows a header of fields is bounded as they are.
            CONTINUATION => !is_empty,
            HEADERS => {
                self.left = (self.left + EARNED).min(BURST);
                true
            }
            _ => false,
        };
        if is_free {
            return true;
        }
        let enough = self.left >= COST;
        self.left = self.left.saturating_sub(COST);
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PING: u8 = 6;
    const RST_STREAM: u8 = 3;

    fn frame(kind: u8, flags: u8, length: u8) -> Vec<u8> {
        let mut frame = vec![0, 0, length, kind, flags, 0, 0, 0, 1];
        frame.resize(HEADER + length as usize, 0xff);
        frame
    }

    /// How many of these a client may send at once.
    fn allowed(frames: &[u8]) -> usize {
        let now = Instant::now();
        let mut calm = Calm::new(now);
        calm.exceeds(&[0; PREFACE], now);
        (0..10_000).take_while(|_| !calm.exceeds(frames, now)).count()
    }

    #[test]
    fn what_asks_for_nothing_has_a_bound() {
        assert_eq!(allowed(&frame(PING, 0, 8)), 1000);
        assert_eq!(allowed(&frame(DATA, 0, 0)), 1000);
        assert_eq!(allowed(&frame(CONTINUATION, 0, 0)), 1000);
        let reset = [frame(HEADERS, 5, 20), frame(RST_STREAM, 0, 4)].concat();
        assert!((1000..2100).contains(&allowed(&reset)));
        for free in [frame(DATA, 0, 1), frame(DATA, END_STREAM, 0), frame(WINDOW_UPDATE, 0, 4)] {
            assert_eq!(allowed(&free), 10_000);
        }
        let hedged = [frame(HEADERS, 5, 20).repeat(10), frame(RST_STREAM, 0, 4)].concat();
        assert_eq!(allowed(&hedged), 10_000);
    }

    #[test]
    fn pieces_make_no_difference_and_time_heals() {
        let now = Instant::now();
        let mut calm = Calm::new(now);
        let bytes = [vec![0; PREFACE], frame(PING, 0, 8).repeat(1001)].concat();
        let last = bytes.len() - 8;
        for (at, byte) in bytes.iter().enumerate() {
            assert_eq!(calm.exceeds(&[*byte], now), at + 1 == last, "{at}");
        }
        let later = now + Duration::from_secs(2);
        assert!(!calm.exceeds(&frame(PING, 0, 8).repeat(200), later));
        assert!(calm.exceeds(&frame(PING, 0, 8), later));
    }
}
