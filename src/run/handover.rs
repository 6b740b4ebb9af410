//! A newer process takes over from an older one, without a moment in which nobody listens.
//!
//! The older starts the newer with one end of a socket pair as its standard input, sends it every
//! listening socket, and goes on serving. The newer reads its configuration, probes its instances,
//! serves, and says so; only then the older drains. If the newer ends, or says nothing in time, the
//! older kills it and nothing has happened. One message is one packet: a line of JSON, and with it
//! the descriptors that it tells of.

use std::ffi::OsString;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, sockopt,
};
use serde::{Deserialize, Serialize};

use crate::config::overlay::{Overlay, RampRow, Row, SharesRow};
use crate::run::inherited::{Given, Inherited};

/// Says to a process that its standard input is the channel.
const VARIABLE: &str = "BURDOCK_TAKES_OVER";
/// What speaks to the older process only, and would mislead the newer one.
const NOT_PASSED_ON: [&str; 4] = ["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_PID"];
/// The newer process must serve by then.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks at whether the older process has been told to stop meanwhile.
const LOOK: Duration = Duration::from_millis(100);
/// Descriptors in one packet; the kernel takes 253.
const MOST: usize = 128;
/// Bytes of one packet.
const LONGEST: usize = 64 * 1024;

/// One packet.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Message {
    /// Listening sockets of one address come with this.
    Sockets { asked: SocketAddr, address: SocketAddr },
    /// The older process has a ready instance for this service; the newer must have one too.
    Served(String),
    /// What the older process was asked for at run time.
    Override(Row),
    /// How it was asked to share requests among versions.
    Split(SharesRow),
    /// Which versions ramp up, or did.
    Ramp(RampRow),
    /// That was all.
    Begin,
    /// The newer process serves.
    Serving,
}

/// Why a process did not hand over.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    /// The program could not be started.
    #[error("starting {program}: {cause}")]
    Start {
        /// Which.
        program: String,
        /// Why.
        cause: std::io::Error,
    },
    /// The channel.
    #[error("speaking to the other process: {0}")]
    Channel(#[from] std::io::Error),
    /// It ended; its own log says why.
    #[error("the new process ended before it served ({0})")]
    Ended(String),
    /// It was killed.
    #[error("the new process did not serve within {} s and was killed", PATIENCE.as_secs())]
    Late,
    /// This process was told to stop meanwhile.
    #[error("this process was told to stop meanwhile")]
    Stopped,
    /// The other end spoke of something else.
    #[error("the other process speaks another protocol")]
    Unknown,
}

impl HandoverError {
    /// Whether the other process is gone: one that ends early may do so before it was told all.
    fn is_end(&self) -> bool {
        use std::io::ErrorKind::{BrokenPipe, ConnectionReset};
        match self {
            Self::Ended(_) => true,
            Self::Channel(error) => matches!(error.kind(), BrokenPipe | ConnectionReset),
            Self::Start { .. } | Self::Late | Self::Stopped | Self::Unknown => false,
        }
    }
}

impl From<Errno> for HandoverError {
    fn from(errno: Errno) -> Self {
        Self::Channel(errno.into())
    }
}

/// How this program was called, as far as it can be called so again.
#[derive(Debug, Clone)]
pub(super) struct Call {
    program: OsString,
    arguments: Vec<OsString>,
}

impl Call {
    /// To be noted at the start, before anything changes the folder.
    pub(super) fn of_this_process() -> Self {
        let mut arguments = std::env::args_os();
        let program = arguments.next().unwrap_or_default();
        // By the name it was called by, so that a link to a newer program is followed; one without a
        // slash is looked up as before.
        let is_path = Path::new(&program).components().count() > 1;
        let absolute = is_path.then(|| std::path::absolute(&program).ok()).flatten();
        let program = absolute.map_or(program, OsString::from);
        Self { program, arguments: arguments.collect() }
    }

    fn start(&self, channel: OwnedFd) -> Result<Child, HandoverError> {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).env(VARIABLE, "1").stdin(Stdio::from(channel));
        NOT_PASSED_ON.iter().for_each(|name| {
            command.env_remove(name);
        });
        let program = self.program.display().to_string();
        command.spawn().map_err(|cause| HandoverError::Start { program, cause })
    }
}

/// What a newer process is given.
#[derive(Debug)]
pub(super) struct Estate {
    /// Every listening socket.
    pub(super) sockets: Vec<Given>,
    /// Services that have a ready instance.
    pub(super) served: Vec<String>,
    /// What was asked for at run time.
    pub(super) overrides: Vec<Row>,
    /// How requests are to be shared among versions instead.
    pub(super) splits: Vec<SharesRow>,
    /// Which versions ramp up, or did.
    pub(super) ramps: Vec<RampRow>,
}

/// Starts `call` as the newer process, and returns its id once it serves. Blocks.
pub(super) fn hand_over(
    call: &Call,
    estate: &Estate,
    stopping: &AtomicBool,
) -> Result<u32, HandoverError> {
    let flags = SocketFlags::CLOEXEC;
    let (ours, theirs) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    let mut child = call.start(theirs)?;
    let told = tell(&ours, estate).and_then(|()| await_service(&ours, stopping));
    match told {
        Ok(()) => Ok(child.id()),
        Err(error) => {
            // It may have ended by itself; then killing it fails, and that is as good.
            let by_itself = child.try_wait().ok().flatten();
            let _ = child.kill();
            let status = child.wait();
            match (error, by_itself.or(status.ok())) {
                (error, Some(status)) if error.is_end() => {
                    Err(HandoverError::Ended(status.to_string()))
                }
                (error, _) => Err(error),
            }
        }
    }
}

fn tell(channel: &OwnedFd, estate: &Estate) -> Result<(), HandoverError> {
    sockopt::set_socket_timeout(channel, sockopt::Timeout::Send, Some(PATIENCE))?;
    for Given { asked, address, sockets } in &estate.sockets {
        for some in sockets.chunks(MOST) {
            let message = Message::Sockets { asked: *asked, address: *address };
            send(channel, &message, &some.iter().map(AsFd::as_fd).collect::<Vec<_>>())?;
        }
    }
    for service in &estate.served {
        send(channel, &Message::Served(service.clone()), &[])?;
    }
    for row in &estate.overrides {
        send(channel, &Message::Override(row.clone()), &[])?;
    }
    for row in &estate.splits {
        send(channel, &Message::Split(row.clone()), &[])?;
    }
    for row in &estate.ramps {
        send(channel, &Message::Ramp(row.clone()), &[])?;
    }
    send(channel, &Message::Begin, &[])
}

fn await_service(channel: &OwnedFd, stopping: &AtomicBool) -> Result<(), HandoverError> {
    let deadline = Instant::now() + PATIENCE;
    sockopt::set_socket_timeout(channel, sockopt::Timeout::Recv, Some(LOOK))?;
    loop {
        match receive(channel) {
            Ok(Some((Message::Serving, _))) => return Ok(()),
            Ok(Some(_)) => return Err(HandoverError::Unknown),
            Ok(None) => return Err(HandoverError::Ended("no status".to_owned())),
            Err(HandoverError::Channel(error))
                if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        if stopping.load(Ordering::Relaxed) {
            return Err(HandoverError::Stopped);
        }
        if Instant::now() >= deadline {
            return Err(HandoverError::Late);
        }
    }
}

/// The newer process's end.
#[derive(Debug)]
pub(super) struct Predecessor {
    channel: OwnedFd,
    /// Services that it must have a ready instance for before it serves.
    pub(super) served: Vec<String>,
    /// What was asked for while it ran.
    pub(super) overlay: Overlay,
}

impl Predecessor {
    /// The process that this one takes over from, if there is one, and its sockets. Blocks.
    pub(super) fn meet() -> Result<Option<(Self, Inherited)>, HandoverError> {
        if std::env::var_os(VARIABLE).is_none() {
            return Ok(None);
        }
        let channel = std::io::stdin().as_fd().try_clone_to_owned()?;
        sockopt::set_socket_timeout(&channel, sockopt::Timeout::Recv, Some(PATIENCE))?;
        let (mut inherited, mut served) = (Inherited::default(), Vec::new());
        let (mut overrides, mut splits, mut ramps) = (Vec::new(), Vec::new(), Vec::new());
        loop {
            match receive(&channel)? {
                Some((Message::Sockets { asked, address }, sockets)) => {
                    for socket in sockets {
                        inherited.add(asked, address, TcpListener::from(socket));
                    }
                }
                Some((Message::Served(service), _)) => served.push(service),
                Some((Message::Override(row), _)) => overrides.push(row),
                Some((Message::Split(row), _)) => splits.push(row),
                Some((Message::Ramp(row), _)) => ramps.push(row),
                Some((Message::Begin, _)) => break,
                Some((Message::Serving, _)) | None => return Err(HandoverError::Unknown),
            }
        }
        let mut overlay = Overlay::of_rows(overrides);
        splits.into_iter().for_each(|row| overlay.set_shares(row.service, Some(row.wanted)));
        ramps.into_iter().for_each(|row| overlay.set_ramp(row.service, row.ramp));
        Ok(Some((Self { channel, served, overlay }, inherited)))
    }

    /// Tells it that this process serves.
    pub(super) fn relieve(self) -> Result<(), HandoverError> {
        send(&self.channel, &Message::Serving, &[])
    }
}

fn send(
    channel: &OwnedFd,
    message: &Message,
    with: &[BorrowedFd<'_>],
) -> Result<(), HandoverError> {
    let text = serde_json::to_vec(message).map_err(std::io::Error::other)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !with.is_empty() && !control.push(SendAncillaryMessage::ScmRights(with)) {
        return Err(HandoverError::Unknown);
    }
    let slices = [IoSlice::new(&text)];
    // Without a signal: a newer process that is gone is an error like another. Where a socket has a
    // timeout, any other signal interrupts a call for good (signal(7)).
    retry_on_intr(|| rustix::net::sendmsg(channel, &slices, &mut control, SendFlags::NOSIGNAL))?;
    Ok(())
}

/// The next message and its descriptors; `None` at the end.
fn receive(channel: &OwnedFd) -> Result<Option<(Message, Vec<OwnedFd>)>, HandoverError> {
    let mut text = vec![0; LONGEST];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let slices = &mut [IoSliceMut::new(&mut text)];
    let received = retry_on_intr(|| {
        rustix::net::recvmsg(channel, slices, &mut control, RecvFlags::CMSG_CLOEXEC)
    })?;
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    if received.bytes == 0 {
        return Ok(None);
    }
    match serde_json::from_slice(&text[..received.bytes]) {
        Ok(message) => Ok(Some((message, descriptors))),
        Err(_other) => Err(HandoverError::Unknown),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::overlay::Shares;

    fn channel() -> (OwnedFd, OwnedFd) {
        let flags = SocketFlags::CLOEXEC;
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap()
    }

    fn program(name: &str) -> Call {
        Call { program: name.into(), arguments: Vec::new() }
    }

    fn nothing() -> Estate {
        Estate {
            sockets: Vec::new(),
            served: Vec::new(),
            overrides: Vec::new(),
            splits: Vec::new(),
            ramps: Vec::new(),
        }
    }

    #[test]
    fn sockets_arrive_with_their_addresses() {
        let (ours, theirs) = channel();
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let asked = SocketAddr::from(([127, 0, 0, 1], 0));
        let sockets = vec![socket.try_clone().unwrap(), socket];
        let sockets = vec![Given { asked, address, sockets }];
        let text = r#"{"service":"chat","version":"v1","name":"a","state":"draining","since":1}"#;
        let row: Row = serde_json::from_str(text).unwrap();
        let overrides = vec![row.clone()];
        let allocations = [("v1".to_owned(), 5)].into();
        let wanted = Shares { allocations, since: 7 };
        let split = SharesRow { service: "chat".to_owned(), wanted };
        tell(
            &ours,
            &Estate {
                sockets,
                served: vec!["chat".to_owned()],
                overrides,
                splits: vec![split.clone()],
                ramps: Vec::new(),
            },
        )
        .unwrap();
        let (message, descriptors) = receive(&theirs).unwrap().unwrap();
        assert_eq!(message, Message::Sockets { asked, address });
        let arrived = TcpListener::from(descriptors.into_iter().next_back().unwrap());
        assert_eq!(arrived.local_addr().unwrap(), address);
        assert_eq!(receive(&theirs).unwrap().unwrap().0, Message::Served("chat".to_owned()));
        assert_eq!(receive(&theirs).unwrap().unwrap().0, Message::Override(row));
        assert_eq!(receive(&theirs).unwrap().unwrap().0, Message::Split(split));
        assert_eq!(receive(&theirs).unwrap().unwrap().0, Message::Begin);
        drop(ours);
        assert!(receive(&theirs).unwrap().is_none());
    }

    #[test]
    fn a_program_that_is_missing_or_ends_is_told_of() {
        let stopping = AtomicBool::new(false);
        let missing = hand_over(&program("/nowhere/burdock"), &nothing(), &stopping);
        assert!(matches!(missing, Err(HandoverError::Start { .. })), "{missing:?}");
        let ended = hand_over(&program("false"), &nothing(), &stopping);
        let text = ended.unwrap_err().to_string();
        assert!(text.starts_with("the new process ended before it served"), "{text}");
    }

    #[test]
    fn a_newer_process_does_not_outlive_a_stop() {
        // It keeps its end open and says nothing.
        let call = Call { program: "sleep".into(), arguments: vec!["60".into()] };
        let stopped = hand_over(&call, &nothing(), &AtomicBool::new(true));
        assert!(matches!(stopped, Err(HandoverError::Stopped)), "{stopped:?}");
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let (ours, theirs) = channel();
        let mut none = SendAncillaryBuffer::default();
        let text = [IoSlice::new(b"hello")];
        rustix::net::sendmsg(&ours, &text, &mut none, SendFlags::empty()).unwrap();
        assert!(matches!(receive(&theirs), Err(HandoverError::Unknown)));
    }
}
