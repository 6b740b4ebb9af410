//! An embedded instance: a small app in this process that answers clients of a drill, remembers its
//! sessions as an app without a shared store does, and fails when it is told to.
//!
//! Knows the wire and [`Fault`]s; neither the balancer nor who asks. Start at [`Instance`].

mod answers;
mod memory;
mod path;
mod polling;
mod websocket;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use super::plan::Id;
use super::reset::ResetOnDrop;
use super::scenario::Fault;
pub(super) use memory::Ledger;
use memory::Memory;
use path::Path;

/// Waiting connections of one instance.
const BACKLOG: u32 = 1024;
/// Pause after an accept that failed for want of something.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);
/// How long an instance that starts again waits for its port.
const PORT_PATIENCE: Duration = Duration::from_secs(3);

/// What is wrong with an instance now; several things may be at once.
#[derive(Debug, Clone, Default)]
struct Faults {
    hang: bool,
    refuse: bool,
    reset: u32,
    slow: Option<(Duration, Duration, u32)>,
    fail: Option<(u32, u16)>,
    unready: bool,
    dead: bool,
    flap: Option<(Duration, Instant)>,
    delay: Duration,
    throttle: Option<u64>,
}

/// What the tasks of an instance share.
#[derive(Debug)]
struct State {
    id: Id,
    faults: watch::Sender<Faults>,
    memory: Mutex<Memory>,
    ledger: Arc<Ledger>,
    rng: Mutex<fastrand::Rng>,
}

impl State {
    fn memory(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether something that happens to this share of answers, in basis points, happens now.
    fn draws(&self, share: u32) -> bool {
        share > 0 && self.rng().u32(0..10_000) < share
    }

    fn rng(&self) -> std::sync::MutexGuard<'_, fastrand::Rng> {
        self.rng.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An embedded instance. Dropping it resets its connections and closes its port.
#[derive(Debug)]
pub(super) struct Instance {
    state: Arc<State>,
    address: SocketAddr,
    running: Option<Running>,
}

/// The tasks of one life.
#[derive(Debug)]
struct Running {
    accepting: Option<JoinHandle<()>>,
    connections: Arc<Mutex<JoinSet<()>>>,
}

impl Instance {
    /// Binds a free port and serves.
    pub(super) async fn start(id: Id, ledger: Arc<Ledger>, seed: u64) -> io::Result<Self> {
        let state = Arc::new(State {
            id,
            faults: watch::Sender::default(),
            memory: Mutex::default(),
            ledger,
            rng: Mutex::new(fastrand::Rng::with_seed(seed)),
        });
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut instance = Self { state, address: nowhere, running: None };
        instance.rise().await?;
        Ok(instance)
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Makes it misbehave.
    pub(super) async fn begin(&mut self, fault: Fault) {
        match fault {
            Fault::Crash => self.fall().await,
            Fault::Refuse => {
                self.set(|faults| faults.refuse = true);
                self.close_door().await;
            }
            Fault::Forget => *self.state.memory() = Memory::default(),
            Fault::Cut => self.cut().await,
            Fault::Hang => self.set(|faults| faults.hang = true),
            Fault::Reset { share } => self.set(|faults| faults.reset = share),
            Fault::Slow { from, to, share } => {
                self.set(|faults| faults.slow = Some((from, to, share)));
            }
            Fault::Fail { share, status } => self.set(|faults| faults.fail = Some((share, status))),
            Fault::Unready => self.set(|faults| faults.unready = true),
            Fault::Dead => self.set(|faults| faults.dead = true),
            Fault::Flap { every } => {
                self.set(|faults| faults.flap = Some((every, Instant::now())));
            }
            Fault::Delay { by } => self.set(|faults| faults.delay = by),
            Fault::Throttle { rate } => self.set(|faults| faults.throttle = Some(rate)),
        }
    }

    /// Ends one fault.
    pub(super) async fn end(&mut self, fault: Fault) -> io::Result<()> {
        let none = Faults::default();
        self.set(|faults| match fault {
            Fault::Crash | Fault::Forget | Fault::Cut => {}
            Fault::Refuse => faults.refuse = false,
            Fault::Hang => faults.hang = false,
            Fault::Reset { .. } => faults.reset = 0,
            Fault::Slow { .. } => faults.slow = None,
            Fault::Fail { .. } => faults.fail = None,
            Fault::Unready => faults.unready = false,
            Fault::Dead => faults.dead = false,
            Fault::Flap { .. } => faults.flap = None,
            Fault::Delay { .. } => faults.delay = none.delay,
            Fault::Throttle { .. } => faults.throttle = None,
        });
        match fault {
            Fault::Crash | Fault::Refuse => self.rise().await,
            _ => Ok(()),
        }
    }

    /// Ends every fault.
    pub(super) async fn restore(&mut self) -> io::Result<()> {
        self.set(|faults| *faults = Faults::default());
        self.rise().await
    }

    fn set(&self, change: impl FnOnce(&mut Faults)) {
        self.state.faults.send_modify(change);
    }

    /// Serves again, at the same port, where it doesn't.
    async fn rise(&mut self) -> io::Result<()> {
        if self.state.faults.borrow().refuse {
            return Ok(());
        }
        let running = self
            .running
            .get_or_insert_with(|| Running { accepting: None, connections: Arc::default() });
        if running.accepting.is_none() {
            let listener = bind(self.address).await?;
            self.address = listener.local_addr()?;
            let accepting = accept(listener, Arc::clone(&self.state), running.connections.clone());
            running.accepting = Some(tokio::spawn(accepting));
        }
        Ok(())
    }

    /// As a killed process does.
    async fn fall(&mut self) {
        self.close_door().await;
        self.cut().await;
        self.running = None;
        *self.state.memory() = Memory::default();
    }

    async fn close_door(&mut self) {
        if let Some(accepting) = self.running.as_mut().and_then(|it| it.accepting.take()) {
            accepting.abort();
            // The port is closed once the task is gone.
            let _ = accepting.await;
        }
    }

    async fn cut(&mut self) {
        let Some(running) = &self.running else { return };
        let mut connections = std::mem::take(
            &mut *running.connections.lock().unwrap_or_else(PoisonError::into_inner),
        );
        connections.shutdown().await;
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if let Some(accepting) = self.running.as_ref().and_then(|it| it.accepting.as_ref()) {
            accepting.abort();
        }
    }
}

/// The port of an instance that was killed may take a moment to be free.
async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let until = Instant::now() + PORT_PATIENCE;
    loop {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        match socket.bind(address).and_then(|()| socket.listen(BACKLOG)) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < until => {
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
            outcome => return outcome,
        }
    }
}

async fn accept(listener: TcpListener, state: Arc<State>, connections: Arc<Mutex<JoinSet<()>>>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let serving = serve(stream, Arc::clone(&state));
                let mut connections = connections.lock().unwrap_or_else(PoisonError::into_inner);
                while connections.try_join_next().is_some() {}
                connections.spawn(serving);
            }
            // Out of descriptors, most likely: without a pause this would spin.
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

/// One connection, from its first request to its end, the tunnel included.
async fn serve(stream: TcpStream, state: Arc<State>) {
    let _ = stream.set_nodelay(true);
    let Ok(mut reset) = ResetOnDrop::watch(&stream) else { return };
    let tunnel = websocket::Slot::default();
    let service = service_fn(|request| {
        let (state, tunnel) = (&state, &tunnel);
        async move { answers::answer(state, tunnel, request).await }
    });
    let io = TokioIo::new(Path::new(stream, state.faults.subscribe()));
    let ended = http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(io, service)
        .with_upgrades()
        .await;
    let tunnel = tunnel.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some(upgrade) = tunnel {
        websocket::serve(upgrade).await;
    }
    if ended.is_ok() {
        reset.ended();
    }
}
