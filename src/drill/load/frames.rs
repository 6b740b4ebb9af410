//! A client's side of a WebSocket (RFC 6455 section 5), small and literal: a Close is told with the
//! code that came, whatever that is. Nothing here is fragmented or compressed.

use std::io;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

const TEXT: u8 = 1;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;
const FINAL: u8 = 0x80;
const MASKED: u8 = 0x80;
/// Longer than any message of a drill.
const LONGEST: usize = 64 * 1024;
/// Stands for a Close without a code (RFC 6455 section 7.1.5).
const NO_CODE: u16 = 1005;
/// How long the other side may take to end the connection after its Close was answered.
const FAREWELL: Duration = Duration::from_millis(500);

/// An open WebSocket.
#[derive(Debug)]
pub(super) struct Socket {
    io: TokioIo<Upgraded>,
    come: BytesMut,
    /// The code of the Close that came.
    closed: Option<u16>,
}

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Come {
    Text(String),
    /// The end, with the code of its Close if there was one.
    End(Option<u16>),
}

impl Socket {
    pub(super) fn new(upgraded: Upgraded) -> Self {
        Self { io: TokioIo::new(upgraded), come: BytesMut::new(), closed: None }
    }

    pub(super) async fn send(&mut self, text: &str) -> io::Result<()> {
        self.put(TEXT, text.as_bytes()).await
    }

    /// What comes next. Nothing is lost where the future is dropped.
    pub(super) async fn next(&mut self) -> Come {
        loop {
            // Whoever waited for the farewell may have been called away from it.
            if self.closed.is_some() {
                return Come::End(self.closed);
            }
            let Ok(frame) = take(&mut self.come) else { return Come::End(None) };
            let Some((kind, payload)) = frame else {
                match self.io.read_buf(&mut self.come).await {
                    Ok(1..) => continue,
                    Ok(0) | Err(_) => return Come::End(None),
                }
            };
            match kind {
                TEXT => return Come::Text(String::from_utf8_lossy(&payload).into_owned()),
                CLOSE => {
                    let code = payload.first_chunk().map_or(NO_CODE, |it| u16::from_be_bytes(*it));
                    self.closed = Some(code);
                    self.answer_close(&payload).await;
                }
                // Whether it went shows with the next read.
                PING => drop(self.put(PONG, &payload).await),
                _ => {}
            }
        }
    }

    /// Answers a Close, and waits for the other side's end.
    async fn answer_close(&mut self, payload: &[u8]) {
        let _ = self.put(CLOSE, &payload[..payload.len().min(2)]).await;
        let mut rest = [0; 256];
        let ended = async { while matches!(self.io.read(&mut rest).await, Ok(1..)) {} };
        let _ = timeout(FAREWELL, ended).await;
    }

    /// Says that nothing more comes, and waits for the answer a little.
    pub(super) async fn close(mut self) {
        if self.put(CLOSE, &1000_u16.to_be_bytes()).await.is_ok() {
            let ended = async { while !matches!(self.next().await, Come::End(_)) {} };
            let _ = timeout(FAREWELL, ended).await;
        }
    }

    async fn put(&mut self, kind: u8, payload: &[u8]) -> io::Result<()> {
        // Messages of a drill are numbers, and a control frame has up to 125 bytes anyway.
        let length = u8::try_from(payload.len().min(125)).unwrap_or(125);
        let key = fastrand::u32(..).to_be_bytes();
        let mut frame = vec![FINAL | kind, MASKED | length];
        frame.extend_from_slice(&key);
        frame
            .extend(payload.iter().take(125).zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
        self.io.write_all(&frame).await
    }
}

/// What is no frame that a server may send.
#[derive(Debug, PartialEq, Eq)]
struct Malformed;

/// The first whole frame, if there is one.
fn take(come: &mut BytesMut) -> Result<Option<(u8, BytesMut)>, Malformed> {
    let Some([first, second]) = come.first_chunk::<2>().copied() else { return Ok(None) };
    let (head, length) = match second {
        length @ ..126 => (2, usize::from(length)),
        126 => match come.get(2..4) {
            Some(&[high, low]) => (4, usize::from(u16::from_be_bytes([high, low]))),
            _ => return Ok(None),
        },
        // Masked, or longer than anything a drill is sent.
        _ => return Err(Malformed),
    };
    if length > LONGEST {
        return Err(Malformed);
    }
    if come.len() < head + length {
        return Ok(None);
    }
    come.advance(head);
    Ok(Some((first & 0x0f, come.split_to(length))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_taken_whole_and_in_order() {
        let bytes = [
            &[0x81, 2, b'4', b'2', 0x88, 4, 0x03, 0xf6, b'x', b'y', 0x81, 126, 0, 200][..],
            &[b'z'; 200],
        ];
        let mut come = BytesMut::new();
        let mut taken = Vec::new();
        for byte in bytes.concat() {
            come.extend_from_slice(&[byte]);
            taken.extend(take(&mut come).unwrap());
        }
        let seen: Vec<_> = taken.iter().map(|(kind, payload)| (*kind, payload.len())).collect();
        assert_eq!(seen, [(TEXT, 2), (CLOSE, 4), (TEXT, 200)]);
        assert_eq!(taken[1].1[..2], 1014_u16.to_be_bytes());
    }

    #[test]
    fn what_no_server_may_send_is_refused() {
        for wrong in [&[0x81, 0x82][..], &[0x81, 127, 0, 0]] {
            assert_eq!(take(&mut BytesMut::from(wrong)), Err(Malformed));
        }
    }
}
