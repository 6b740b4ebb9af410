//! Moves bytes between the two sockets of a tunnel.
//!
//! Nothing is held while idle: bytes are read into a scratch buffer that all tunnels of a worker
//! share, written at once, and kept only as far as the other side is slow. A side that ends its
//! direction ends only that: what the other still sends arrives. When Burdock ends the tunnel,
//! both sides get a Close on a frame boundary and are given a while to answer it.
//!
//! A process that dies ends its direction like one that has merely said everything. So an instance
//! that does so without a Close is asked whether it still listens; if not, its client is told.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::instance::{Instance, Lane};
use crate::observe::counters::TunnelEnd;
use crate::tunnel::Account;
use crate::tunnel::frames::{self, Frames, Sender};
use crate::tunnel::registry::Entry;
use crate::tunnel::socket::Socket;

/// What is read at once, at most.
const SCRATCH: usize = 64 * 1024;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; SCRATCH]);
}

/// How a tunnel went. Pairs are client's, instance's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// Who or what ended it.
    pub end: TunnelEnd,
    /// Bytes that each side sent.
    pub bytes: [u64; 2],
    /// Complete data messages among them.
    pub messages: [u64; 2],
    /// The codes of their Close frames.
    pub close_codes: [Option<u16>; 2],
    /// The code of Burdock's own.
    pub told: Option<u16>,
}

/// A socket failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// The one that is read from.
    Read,
    /// The one that is written to.
    Write,
}

/// One direction.
#[derive(Debug)]
struct Direction {
    sender: Sender,
    frames: Frames,
    /// What the receiver hasn't taken yet; boxed, as is what else an idle tunnel has not.
    pending: Option<Box<Backlog>>,
    bytes: u64,
    /// A Ping to be put in at the next boundary.
    ping: bool,
    /// A Close to be put in at the next boundary.
    close: Option<Box<[u8]>>,
    /// Our Close is in: what still comes is read and dropped.
    sealed: bool,
    /// The sender has ended it.
    ended: bool,
    /// Whether the receiver may be told so.
    may_end: bool,
    /// The receiver knows.
    finished: bool,
}

/// Bytes that wait for a receiver.
#[derive(Debug, Default)]
struct Backlog {
    bytes: Vec<u8>,
    taken: usize,
}

impl Direction {
    fn new(sender: Sender, protocol: Protocol) -> Self {
        let frames = match protocol {
            Protocol::WebSocket => Frames::new(sender),
            Protocol::Other => Frames::opaque(sender),
        };
        Self {
            sender,
            frames,
            pending: None,
            bytes: 0,
            ping: false,
            close: None,
            sealed: false,
            ended: false,
            may_end: sender == Sender::Client,
            finished: false,
        }
    }

    /// Moves what can be moved; ready when the sender's end has been passed on. The `last` direction
    /// to end need not pass it on where closing the sockets, which follows, says as much.
    fn poll(
        &mut self,
        (from, to): (&mut Socket, &mut Socket),
        (entry, lane): (&Entry, &Lane),
        last: bool,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Fault>> {
        if self.finished {
            return Poll::Ready(Ok(()));
        }
        loop {
            ready!(self.flush(to, cx)).map_err(|_broken| Fault::Write)?;
            if self.put_in(entry) {
                continue;
            }
            if self.ended {
                if !self.may_end {
                    return Poll::Pending;
                }
                if last && to.ends_by_closing() {
                    self.finished = true;
                    return Poll::Ready(Ok(()));
                }
                let ended = ready!(Pin::new(&mut *to).poll_shutdown(cx));
                self.finished = true;
                // A receiver that is gone needs no end.
                return Poll::Ready(if self.sealed {
                    Ok(())
                } else {
                    ended.map_err(|_| Fault::Write)
                });
            }
            let moved = BUFFER.with_borrow_mut(|buffer| {
                let mut buffer = ReadBuf::new(buffer);
                match ready!(Pin::new(&mut *from).poll_read(cx, &mut buffer)) {
                    // After its Close nothing more was to come that could have been cut off.
                    Err(error) if is_cut_off(&error) && self.frames.closed() => {}
                    read => read.map_err(|_broken| Fault::Read)?,
                }
                entry.touch(self.sender);
                let before = self.frames.messages();
                let passed = self.pass(buffer.filled(), to, entry, cx);
                let messages = self.frames.messages() - before;
                lane.passed(self.sender as usize, buffer.filled().len() as u64, messages);
                Poll::Ready(passed)
            });
            ready!(moved)?;
        }
    }

    /// Takes bytes that were just read, and hands on what may be handed on.
    fn pass(
        &mut self,
        bytes: &[u8],
        to: &mut Socket,
        entry: &Entry,
        cx: &mut Context<'_>,
    ) -> Result<(), Fault> {
        if bytes.is_empty() {
            self.ended = true;
            return Ok(());
        }
        self.bytes += bytes.len() as u64;
        if self.sealed {
            self.frames.advance(bytes);
            return Ok(());
        }
        // Before what waits to be put in, only the rest of the frame under way may still go.
        let (before, after) = match self.ping || self.close.is_some() {
            true => bytes.split_at(self.frames.advance_to_boundary(bytes)),
            false => {
                self.frames.advance(bytes);
                (bytes, &[][..])
            }
        };
        let written = match Pin::new(to).poll_write(cx, before) {
            Poll::Ready(written) => written.map_err(|_broken| Fault::Write)?,
            Poll::Pending => 0,
        };
        self.wait(&before[written..]);
        if !after.is_empty() {
            self.put_in(entry);
            self.frames.advance(after);
            if !self.sealed {
                self.wait(after);
            }
        }
        Ok(())
    }

    /// Puts in what waits, if this is the place for it; whether it was.
    fn put_in(&mut self, entry: &Entry) -> bool {
        if self.close.is_some() { self.put_close() } else { self.ping && self.put_ping(entry) }
    }

    fn put_close(&mut self) -> bool {
        if self.frames.is_sane() && !self.frames.at_boundary() {
            return false;
        }
        let close = self.close.take().unwrap_or_default();
        // Behind nonsense a Close would be more nonsense; behind a Close it would be too much.
        if self.frames.at_boundary() {
            self.wait(&close);
        }
        self.sealed = true;
        true
    }

    fn put_ping(&mut self, entry: &Entry) -> bool {
        if !self.frames.at_boundary() {
            return false;
        }
        self.ping = false;
        self.wait(&frames::ping(self.mask()));
        entry.pinged(self.sender.other());
        true
    }

    /// Frames towards an instance are masked (RFC 6455 section 5.3).
    fn mask(&self) -> Option<[u8; 4]> {
        (self.sender == Sender::Client).then(|| fastrand::u32(..).to_be_bytes())
    }

    /// Has the receiver told that it is over, at the next boundary.
    fn close(&mut self, code: u16, reason: &str) {
        self.close = Some(frames::close(code, reason, self.mask()).into());
    }

    /// Has these bytes wait for the receiver, if there are any.
    fn wait(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.pending.get_or_insert_default().bytes.extend_from_slice(bytes);
        }
    }

    fn flush(&mut self, to: &mut Socket, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(Backlog { bytes, taken }) = self.pending.as_deref_mut() {
            *taken += ready!(Pin::new(&mut *to).poll_write(cx, &bytes[*taken..]))?;
            if *taken == bytes.len() {
                self.pending = None;
            }
        }
        // What TLS has taken may still wait for room in the socket.
        to.poll_drained(cx)
    }

    /// Whether nothing more is to be expected from its sender after a Close of ours.
    fn is_answered(&self) -> bool {
        self.ended || self.frames.closed() || !self.frames.is_sane()
    }
}

/// Whether TLS ended without its own goodbye (RFC 8446 section 6.1).
fn is_cut_off(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::UnexpectedEof
}

/// The end that Burdock makes.
struct Ending {
    end: TunnelEnd,
    code: Option<u16>,
    grace: Pin<Box<dyn Future<Output = ()> + Send + Sync>>,
}

/// Whether an instance that has ended its direction still listens.
type Question = Pin<Box<dyn Future<Output = bool> + Send + Sync>>;

/// What is spoken in a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Frames (RFC 6455).
    WebSocket,
    /// Nothing that Burdock knows.
    Other,
}

/// The two sockets of a tunnel and what is between them.
pub struct Pump {
    client: Socket,
    instance: Socket,
    up: Direction,
    down: Direction,
    entry: Arc<Entry>,
    question: Option<Question>,
    ending: Option<Box<Ending>>,
    /// Who sent the first Close or FIN.
    first: Option<TunnelEnd>,
}

impl std::fmt::Debug for Pump {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pump")
            .field("up", &self.up)
            .field("down", &self.down)
            .finish_non_exhaustive()
    }
}

impl Pump {
    /// A tunnel in which nothing has been sent yet.
    pub fn new(client: Socket, instance: Socket, protocol: Protocol, entry: Arc<Entry>) -> Self {
        Self {
            client,
            instance,
            up: Direction::new(Sender::Client, protocol),
            down: Direction::new(Sender::Instance, protocol),
            entry,
            question: None,
            ending: None,
            first: None,
        }
    }

    /// Begins with what was read from either side before the tunnel stood.
    pub fn start_with(&mut self, client: Bytes, instance: Bytes, lane: &Lane) {
        for (direction, early) in [(&mut self.up, client), (&mut self.down, instance)] {
            direction.frames.advance(&early);
            direction.bytes = early.len() as u64;
            lane.passed(direction.sender as usize, direction.bytes, direction.frames.messages());
            direction.wait(&early);
        }
    }

    /// Relays; ready at the end.
    pub fn poll(&mut self, account: &Account, cx: &mut Context<'_>) -> Poll<Flow> {
        self.poll_flow(account, cx).map(|end| Flow {
            end,
            bytes: [self.up.bytes, self.down.bytes],
            messages: [self.up.frames.messages(), self.down.frames.messages()],
            close_codes: [self.up.frames.close_code(), self.down.frames.close_code()],
            told: self.ending.as_ref().and_then(|ending| ending.code),
        })
    }

    fn poll_flow(&mut self, account: &Account, cx: &mut Context<'_>) -> Poll<TunnelEnd> {
        if self.ending.is_none()
            && let Some(end) = self.entry.order(cx.waker())
        {
            self.begin_end(end, account);
        }
        self.up.ping |= self.entry.take_ping(Sender::Instance);
        self.down.ping |= self.entry.take_ping(Sender::Client);
        let told = (&*self.entry, account.in_flight.lane());
        let (client, instance) = (&mut self.client, &mut self.instance);
        let up = self.up.poll((client, instance), told, self.down.finished, cx);
        let down = self.down.poll((instance, client), told, self.up.finished, cx);
        if self.up.finished || self.down.finished {
            self.entry.half_close();
        }
        self.note_first();
        let client_failed = matches!(up, Poll::Ready(Err(Fault::Read)))
            || matches!(down, Poll::Ready(Err(Fault::Write)));
        let instance_failed = matches!(up, Poll::Ready(Err(Fault::Write)))
            || matches!(down, Poll::Ready(Err(Fault::Read)));
        if client_failed {
            return Poll::Ready(self.result(TunnelEnd::Client));
        }
        if instance_failed || self.poll_question(account, cx) == Poll::Ready(false) {
            self.lose_instance(account, cx);
            return Poll::Pending;
        }
        if up.is_ready() && down.is_ready() {
            return Poll::Ready(self.result(TunnelEnd::Client));
        }
        self.poll_end(cx)
    }

    /// Whether an instance that ended its direction is still there, once that is known.
    fn poll_question(&mut self, account: &Account, cx: &mut Context<'_>) -> Poll<bool> {
        if !self.down.ended || self.down.may_end {
            return Poll::Pending;
        }
        // After a Close it has every right to go, and behind half a frame nothing can be said.
        let doubtful = self.ending.is_none() && self.down.frames.at_boundary();
        if doubtful {
            let instance = account.in_flight.instance();
            let ask = || Box::pin(listens(Arc::clone(instance))) as Question;
            let listens = ready!(self.question.get_or_insert_with(ask).as_mut().poll(cx));
            self.question = None;
            if !listens {
                return Poll::Ready(false);
            }
        }
        self.down.may_end = true;
        cx.waker().wake_by_ref();
        Poll::Ready(true)
    }

    /// Burdock ends the tunnel: a Close each way, then a while to answer.
    fn begin_end(&mut self, end: TunnelEnd, account: &Account) {
        self.down.may_end = true;
        let websocket = account.roster.websocket();
        let close = end.close(&websocket.closes);
        if let Some(close) = close {
            self.up.close(close.code, &close.reason);
            self.down.close(close.code, &close.reason);
        }
        let grace = Box::pin(tokio::time::sleep(websocket.close_grace));
        let code = close.map(|close| close.code);
        self.ending = Some(Box::new(Ending { end, code, grace }));
    }

    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<TunnelEnd> {
        let Some(ending) = &mut self.ending else { return Poll::Pending };
        let told = |direction: &Direction| {
            direction.finished || (direction.close.is_none() && direction.pending.is_none())
        };
        let over =
            told(&self.up) && told(&self.down) && self.up.is_answered() && self.down.is_answered();
        if !over {
            ready!(ending.grace.as_mut().poll(cx));
        }
        let end = ending.end;
        // FIN to both; whoever still sends after its Close, or after the grace, is cut.
        for stream in [&mut self.client, &mut self.instance] {
            let _ = Pin::new(stream).poll_shutdown(cx);
        }
        Poll::Ready(end)
    }

    /// The instance broke off: the client gets what still came from it, and a Close on its behalf.
    fn lose_instance(&mut self, account: &Account, cx: &mut Context<'_>) {
        self.down.may_end = true;
        if self.ending.is_none() {
            let end = self.result(TunnelEnd::Instance);
            let websocket = account.roster.websocket();
            let close = &websocket.closes.instance;
            self.down.close(close.code, &close.reason);
            let grace = Box::pin(tokio::time::sleep(websocket.close_grace));
            let code = Some(close.code);
            self.ending = Some(Box::new(Ending { end, code, grace }));
        }
        self.down.ended = true;
        self.up.sealed = true;
        self.up.close = None;
        self.up.pending = None;
        cx.waker().wake_by_ref();
    }

    fn note_first(&mut self) {
        let begun = |direction: &Direction| direction.ended || direction.frames.closed();
        if self.first.is_none() && self.ending.is_none() {
            self.first = match (begun(&self.up), begun(&self.down)) {
                (true, _) => Some(TunnelEnd::Client),
                (false, true) => Some(TunnelEnd::Instance),
                (false, false) => None,
            };
        }
    }

    fn result(&self, otherwise: TunnelEnd) -> TunnelEnd {
        let ordered = self.ending.as_ref().map(|ending| ending.end);
        ordered.or(self.first).unwrap_or(otherwise)
    }
}

async fn listens(instance: Arc<Instance>) -> bool {
    instance.listens().await
}
