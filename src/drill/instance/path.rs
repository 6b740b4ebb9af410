//! The path to an embedded instance: a socket that may stall, delay what comes and limit what goes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Sleep;

use super::Faults;

/// How soon a stalled path finds out that it may go on.
const LOOK: Duration = Duration::from_millis(10);
/// Bytes that may be held back at once.
const HELD: usize = 16 * 1024;
/// A limited path is written to in pieces of so long.
const PIECE: Duration = Duration::from_millis(50);

/// A socket on a bad path.
pub(super) struct Path {
    stream: TcpStream,
    faults: watch::Receiver<Faults>,
    /// Bytes that have come and are still on their way, and when they arrive.
    held: Option<(Vec<u8>, Instant)>,
    reading: Timer,
    writing: Timer,
    /// Bytes that may be written at once, and since when more may be.
    allowance: (f64, Instant),
}

impl Path {
    pub(super) fn new(stream: TcpStream, faults: watch::Receiver<Faults>) -> Self {
        let (reading, writing) = (Timer::default(), Timer::default());
        let allowance = (0.0, Instant::now());
        Self { stream, faults, held: None, reading, writing, allowance }
    }

    /// Pending while nothing moves.
    fn poll_moving(
        faults: &watch::Receiver<Faults>,
        timer: &mut Timer,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        while faults.borrow().hang {
            ready!(timer.poll(LOOK, cx));
        }
        Poll::Ready(())
    }
}

/// A sleep that is begun when it is first asked for.
#[derive(Default)]
struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
    fn poll(&mut self, time: Duration, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = self.0.get_or_insert_with(|| Box::pin(tokio::time::sleep(time)));
        ready!(sleep.as_mut().poll(cx));
        self.0 = None;
        Poll::Ready(())
    }
}

impl AsyncRead for Path {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(Self::poll_moving(&this.faults, &mut this.reading, cx));
        let delay = this.faults.borrow().delay;
        if this.held.is_none() {
            if delay.is_zero() {
                return Pin::new(&mut this.stream).poll_read(cx, buffer);
            }
            let mut bytes = vec![0; HELD.min(buffer.remaining())];
            let mut read = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut this.stream).poll_read(cx, &mut read))?;
            let length = read.filled().len();
            bytes.truncate(length);
            this.held = Some((bytes, Instant::now() + delay));
        }
        let Some((bytes, due)) = this.held.take() else { return Poll::Pending };
        let left = due.saturating_duration_since(Instant::now());
        if !left.is_zero() && this.reading.poll(left, cx).is_pending() {
            this.held = Some((bytes, due));
            return Poll::Pending;
        }
        let now = bytes.len().min(buffer.remaining());
        buffer.put_slice(&bytes[..now]);
        if now < bytes.len() {
            this.held = Some((bytes[now..].to_vec(), due));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Path {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        ready!(Self::poll_moving(&this.faults, &mut this.writing, cx));
        let Some(rate) = this.faults.borrow().throttle else {
            return Pin::new(&mut this.stream).poll_write(cx, bytes);
        };
        let now = Instant::now();
        let piece = rate as f64 * PIECE.as_secs_f64();
        let (left, since) = this.allowance;
        let gained = rate as f64 * now.duration_since(since).as_secs_f64();
        // Never less than a byte, or nothing would ever go.
        this.allowance = ((left + gained).min(piece.max(1.0)), now);
        if this.allowance.0 < 1.0 {
            if this.writing.poll(LOOK, cx).is_ready() {
                cx.waker().wake_by_ref();
            }
            return Poll::Pending;
        }
        let most = (this.allowance.0 as usize).min(bytes.len());
        let written = ready!(Pin::new(&mut this.stream).poll_write(cx, &bytes[..most]))?;
        this.allowance.0 -= written as f64;
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
