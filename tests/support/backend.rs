//! A backend in the test's own process: it answers with its name, records every request, and has
//! one knob per way a backend misbehaves. What it answers to which path is in `answer`.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{Semaphore, watch};
use tokio::task::AbortHandle;

use super::answer;
use super::eventually;
use super::wire::{Body, Conn, Head};

/// What an application request meets instead of an answer; probes and upgrades are not touched.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Fault {
    #[default]
    None,
    /// The request is read whole, then the connection is reset.
    ResetBeforeAnswer,
    /// The same with an orderly FIN.
    CloseBeforeAnswer,
    /// Reset as soon as the head is read, whatever of the body has come.
    ResetOnHead,
    /// A head that promises more, this many bytes, then a reset.
    ResetMidAnswer(usize),
    /// A head that promises more, this many bytes, then nothing.
    StallMidAnswer(usize),
    /// Waits for [`Backend::open_gate`] before it answers.
    Gate,
    /// Waits so long before it answers.
    Late(Duration),
    /// An empty answer with this status.
    Status(u16),
    /// Exactly these bytes, then a FIN.
    Raw(Vec<u8>),
}

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Recorded {
    pub head: Head,
    /// Numbers the connection that it came on, from 0.
    pub connection: usize,
    /// `None` until it has been read to its end.
    pub body: Option<Body>,
}

/// What the tasks of one backend share.
#[derive(Debug)]
pub(super) struct State {
    pub(super) name: String,
    pub(super) requests: Mutex<Vec<Recorded>>,
    pub(super) probes: Mutex<Vec<Head>>,
    /// Close codes and reasons that arrived on WebSockets, and whether they were masked.
    pub(super) closes: Mutex<Vec<(u16, String, bool)>>,
    /// Bytes that arrived on raw tunnels, one entry per tunnel that ended.
    pub(super) tunnelled: Mutex<Vec<Vec<u8>>>,
    pub(super) ready: AtomicBool,
    pub(super) alive: AtomicBool,
    pub(super) ready_status: AtomicUsize,
    /// Statuses for the next `/readyz` probes; then the knob decides.
    pub(super) script: Mutex<VecDeque<u16>>,
    pub(super) hangs_probes: AtomicBool,
    /// Fields of the answers to `/readyz`, each line with its end.
    pub(super) probe_fields: Mutex<String>,
    pub(super) fault: Mutex<(Fault, usize)>,
    pub(super) gate: Semaphore,
    workers: Semaphore,
    /// Requests that a worker is at or that wait for one, and the most so far.
    at_work: [AtomicUsize; 2],
    pub(super) closes_after_each: AtomicBool,
    frozen: watch::Sender<bool>,
    accepted: AtomicUsize,
    open: AtomicUsize,
    panicked: AtomicBool,
    tasks: Mutex<Vec<AbortHandle>>,
}

impl State {
    /// Waits while the backend is told to hang.
    pub(super) async fn thawed(&self) {
        let mut frozen = self.frozen.subscribe();
        // The sender lives in self, so that waiting can't fail.
        drop(frozen.wait_for(|frozen| !frozen).await);
    }

    /// Waits until a worker has had so long for a request.
    pub(super) async fn work(&self, time: Duration) {
        let [at_work, most] = &self.at_work;
        most.fetch_max(at_work.fetch_add(1, Ordering::AcqRel) + 1, Ordering::AcqRel);
        // Nobody closes the semaphore.
        let worker = self.workers.acquire().await;
        tokio::time::sleep(time).await;
        drop(worker);
        at_work.fetch_sub(1, Ordering::AcqRel);
    }

    /// The fault for this request.
    pub(super) fn next_fault(&self) -> Fault {
        let mut fault = self.fault.lock().unwrap();
        match &mut *fault {
            (_, 0) => Fault::None,
            (fault, left) => {
                *left -= 1;
                fault.clone()
            }
        }
    }
}

/// Counts what is open, and notices a panic.
struct Guard(Arc<State>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::AcqRel);
        if std::thread::panicking() {
            self.0.panicked.store(true, Ordering::Release);
        }
    }
}

/// A backend; it stops when dropped.
#[derive(Debug)]
pub struct Backend {
    pub name: String,
    pub address: SocketAddr,
    state: Arc<State>,
    /// Bound and never listening: keeps the port for [`Backend::comes_back`].
    _claim: TcpSocket,
    acceptor: Mutex<Option<AbortHandle>>,
}

impl Backend {
    /// Serves under `name` on a port of the kernel's choice: ready, alive, without a fault.
    pub async fn start(name: &str) -> Self {
        Self::start_at(name, SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    /// Some at one port of several addresses, as pods or containers of one image have it: the first at
    /// `127.0.0.first`, the others behind it. A port that is free at one address may be somebody's at
    /// another.
    pub async fn start_all(names: &[&str], first: u8) -> Vec<Self> {
        let address = |at: usize, port| {
            SocketAddr::from(([127, 0, 0, first + u8::try_from(at).expect("a few")], port))
        };
        let (port, _claims) = (0..100)
            .find_map(|_| {
                let chosen = try_claim(address(0, 0)).ok()?;
                let port = chosen.local_addr().ok()?.port();
                let others = (1..names.len()).map(|at| try_claim(address(at, port)).ok());
                Some((port, (chosen, others.collect::<Option<Vec<_>>>()?)))
            })
            .expect("a port that is free at all addresses");
        let mut all = Vec::new();
        for (at, name) in names.iter().enumerate() {
            all.push(Self::start_at(name, address(at, port)).await);
        }
        all
    }

    /// Like [`Backend::start`], on a port that the caller has a [`claim`] to.
    pub async fn start_at(name: &str, address: SocketAddr) -> Self {
        let claim = claim(address);
        let address = claim.local_addr().expect("a bound address");
        let state = Arc::new(State {
            name: name.to_owned(),
            requests: Mutex::default(),
            probes: Mutex::default(),
            closes: Mutex::default(),
            tunnelled: Mutex::default(),
            ready: AtomicBool::new(true),
            alive: AtomicBool::new(true),
            ready_status: AtomicUsize::new(200),
            script: Mutex::default(),
            hangs_probes: AtomicBool::new(false),
            probe_fields: Mutex::default(),
            fault: Mutex::default(),
            gate: Semaphore::new(0),
            workers: Semaphore::new(4),
            at_work: Default::default(),
            closes_after_each: AtomicBool::new(false),
            frozen: watch::Sender::new(false),
            accepted: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
            tasks: Mutex::default(),
        });
        let acceptor = Mutex::new(None);
        let backend = Self { name: name.to_owned(), address, state, _claim: claim, acceptor };
        backend.comes_back();
        backend
    }

    /// Backends with these names.
    pub async fn several(names: &[&str]) -> Vec<Self> {
        let mut backends = Vec::new();
        for name in names {
            backends.push(Self::start(name).await);
        }
        backends
    }

    /// Listens again on the same port.
    pub fn comes_back(&self) {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_reuseport(true).expect("share the port with the claim");
        socket.set_reuseaddr(true).expect("ignore old connections");
        socket.bind(self.address).expect("the claim keeps the port free");
        let listener = socket.listen(1024).expect("listen");
        let task = tokio::spawn(accept(Arc::clone(&self.state), listener));
        *self.acceptor.lock().unwrap() = Some(task.abort_handle());
    }

    /// Refuses new connections; those it has go on. Waits until the port really refuses.
    pub async fn stops_listening(&self) {
        if let Some(acceptor) = self.acceptor.lock().unwrap().take() {
            acceptor.abort();
        }
        let socket = || std::net::TcpStream::connect(self.address).is_err().then_some(());
        eventually("the port refuses", socket).await;
    }

    /// Refuses new connections and drops those it has, as a killed process does.
    pub async fn dies(&self) {
        self.stops_listening().await;
        self.drops_connections();
        eventually("every connection is dropped", || (self.open() == 0).then_some(())).await;
    }

    /// Drops every connection it has; keeps listening.
    pub fn drops_connections(&self) {
        self.state.tasks.lock().unwrap().drain(..).for_each(|task| task.abort());
    }

    /// Accepts and never answers, not even a probe, until told otherwise; as a stopped process.
    pub fn hangs(&self, hangs: bool) {
        self.state.frozen.send_replace(hangs);
    }

    /// What `/readyz` says: 200 or 503.
    pub fn ready(&self, ready: bool) {
        self.state.ready.store(ready, Ordering::Release);
    }

    /// What `/healthz` says: 200 or 503.
    pub fn alive(&self, alive: bool) {
        self.state.alive.store(alive, Ordering::Release);
    }

    /// The status of `/readyz` while ready.
    pub fn ready_status(&self, status: u16) {
        self.state.ready_status.store(status as usize, Ordering::Release);
    }

    /// What the next probes of `/readyz` are told, one by one.
    pub fn probes_meet(&self, statuses: &[u16]) {
        self.state.script.lock().unwrap().extend(statuses);
    }

    /// Waits until [`Backend::probes_meet`] is used up.
    pub async fn script_ended(&self) {
        let ended = || self.state.script.lock().unwrap().is_empty().then_some(());
        eventually("the end of the probes' script", ended).await;
    }

    /// A field that answers to `/readyz` have from now on; a former one is forgotten.
    pub fn tells_probes(&self, field: &str) {
        *self.state.probe_fields.lock().unwrap() = format!("{field}\r\n");
    }

    /// Probes get no answer; everything else does.
    pub fn hangs_probes(&self, hangs: bool) {
        self.state.hangs_probes.store(hangs, Ordering::Release);
    }

    /// Closes after each answer without having said so.
    pub fn closes_after_each(&self, closes: bool) {
        self.state.closes_after_each.store(closes, Ordering::Release);
    }

    /// Every application request meets `fault` from now on.
    pub fn misbehaves(&self, fault: Fault) {
        *self.state.fault.lock().unwrap() = (fault, usize::MAX);
    }

    /// The next `times` application requests meet `fault`.
    pub fn misbehaves_times(&self, fault: Fault, times: usize) {
        *self.state.fault.lock().unwrap() = (fault, times);
    }

    /// Lets `n` waiting requests pass.
    pub fn open_gate(&self, n: usize) {
        self.state.gate.add_permits(n);
    }

    /// The most requests at once that were worked on or waited for it.
    pub fn most_at_work(&self) -> usize {
        self.state.at_work[1].load(Ordering::Acquire)
    }

    /// Begins that count anew.
    pub fn forget_work(&self) {
        self.state.at_work[1].store(0, Ordering::Release);
    }

    /// Application requests so far, in the order of their heads.
    pub fn requests(&self) -> Vec<Recorded> {
        self.state.requests.lock().unwrap().clone()
    }

    pub fn request_count(&self) -> usize {
        self.state.requests.lock().unwrap().len()
    }

    /// The latest application request.
    pub fn last_request(&self) -> Recorded {
        self.requests().pop().expect("a request was recorded")
    }

    /// Waits for the `n`th application request and returns it; its body may still be on its way.
    pub async fn request(&self, n: usize) -> Recorded {
        let what = format!("request {n} at {}", self.name);
        eventually(&what, || self.requests().get(n - 1).cloned()).await
    }

    /// Waits until the body of the `n`th application request has been read.
    pub async fn body(&self, n: usize) -> Body {
        let what = format!("the body of request {n} at {}", self.name);
        eventually(&what, || self.requests().get(n - 1).and_then(|r| r.body.clone())).await
    }

    /// The heads of `/readyz` and `/healthz` requests so far.
    pub fn probes(&self) -> Vec<Head> {
        self.state.probes.lock().unwrap().clone()
    }

    /// Waits for `n` more probes, so that what is not to happen has had its chance.
    pub async fn probed(&self, n: usize) {
        let goal = self.probes().len() + n;
        eventually("more probes", || (self.probes().len() >= goal).then_some(())).await;
    }

    /// Closes that arrived on WebSockets: code, reason, masked.
    pub fn closes(&self) -> Vec<(u16, String, bool)> {
        self.state.closes.lock().unwrap().clone()
    }

    /// What came on raw tunnels that have ended.
    pub fn tunnelled(&self) -> Vec<Vec<u8>> {
        self.state.tunnelled.lock().unwrap().clone()
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.state.accepted.load(Ordering::Acquire)
    }

    /// Connections open now.
    pub fn open(&self) -> usize {
        self.state.open.load(Ordering::Acquire)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        if let Some(acceptor) = self.acceptor.lock().unwrap().take() {
            acceptor.abort();
        }
        self.drops_connections();
        let panicked = self.state.panicked.load(Ordering::Acquire);
        assert!(!panicked || std::thread::panicking(), "backend {} panicked", self.name);
    }
}

/// A socket that is bound and never listens: it keeps a port for those who share it.
pub fn claim(address: SocketAddr) -> TcpSocket {
    try_claim(address).expect("bind to loopback")
}

/// The same, if nobody else has that port.
fn try_claim(address: SocketAddr) -> io::Result<TcpSocket> {
    let claim = TcpSocket::new_v4()?;
    claim.set_reuseport(true)?;
    claim.bind(address)?;
    Ok(claim)
}

async fn accept(state: Arc<State>, listener: TcpListener) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let connection = state.accepted.fetch_add(1, Ordering::AcqRel);
        state.open.fetch_add(1, Ordering::AcqRel);
        let guard = Guard(Arc::clone(&state));
        let task = tokio::spawn(async move {
            let guard = guard;
            // An error here is the other side leaving, which is the other side's business.
            drop(answer::serve(&guard.0, Conn::new(stream), connection).await);
        });
        let mut tasks = state.tasks.lock().unwrap();
        tasks.retain(|task| !task.is_finished());
        tasks.push(task.abort_handle());
    }
}
