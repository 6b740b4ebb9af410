//! Addresses that accept clients: one socket per worker and address, so that the kernel spreads
//! connections and no worker ever waits for another.

mod calm;
pub mod connection;
pub mod descriptors;
mod handshake;
mod http1;
pub mod http2;
pub mod io;
pub mod manner;
mod paced;
mod proxied;
mod rest;
mod seats;
pub mod transport;
mod watchdog;

use std::io as std_io;
use std::net::{SocketAddr, TcpListener as StdListener, TcpStream as StdStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::instance::pool::is_own_fault;
use crate::listener::manner::Manner;
use crate::snapshot::Live;
use crate::tunnel::registry::Registry;

pub use seats::Seats;

/// Connections that may wait to be accepted, per worker.
const BACKLOG: i32 = 4096;
/// After an accept that failed for want of descriptors or memory.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);

/// An address could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("binding {address}: {cause}")]
pub struct BindError {
    /// Which.
    pub address: SocketAddr,
    /// Why.
    pub cause: std_io::Error,
}

/// The sockets of one address, one per worker, and the address that the kernel gave.
#[derive(Debug)]
pub struct Bound {
    /// With port 0 replaced.
    pub address: SocketAddr,
    /// One per worker, or more.
    pub sockets: Vec<StdListener>,
}

/// Binds `address` once per worker. `shared` says that this process has it open already, in other
/// words or as a part of a wider one.
pub fn bind(address: SocketAddr, workers: usize, shared: bool) -> Result<Bound, BindError> {
    let failed = |cause| BindError { address, cause };
    let address = if shared { address } else { vacant(address).map_err(failed)? };
    let sockets: Result<Vec<_>, _> = (0..workers).map(|_| open(address)).collect();
    Ok(Bound { address, sockets: sockets.map_err(failed)? })
}

/// One more socket that listens at `address`.
fn open(address: SocketAddr) -> std_io::Result<StdListener> {
    let socket = claim(address, true)?;
    socket.listen(BACKLOG)?;
    Ok(StdListener::from(socket))
}

/// Takes sockets over that listen at `address` already: at least one for each worker.
pub fn adopt(
    address: SocketAddr,
    mut sockets: Vec<StdListener>,
    workers: usize,
) -> Result<Bound, BindError> {
    let failed = |cause| BindError { address, cause };
    for socket in &sockets {
        socket.set_nonblocking(true).map_err(failed)?;
    }
    let given = sockets.len();
    while sockets.len() < workers {
        // The kernel spreads connections over sockets that share their port. Where those that were
        // given don't share it, some workers have to share a socket.
        let another = match open(address) {
            Ok(socket) => socket,
            Err(_owned) => sockets[sockets.len() % given].try_clone().map_err(failed)?,
        };
        sockets.push(another);
    }
    Ok(Bound { address, sockets })
}

/// `address` with a port, if nobody has it. Without SO_REUSEPORT: with it, a second Burdock would
/// silently share the port.
fn vacant(address: SocketAddr) -> std_io::Result<SocketAddr> {
    let local = claim(address, false)?.local_addr()?;
    local.as_socket().ok_or_else(unnamed)
}

fn unnamed() -> std_io::Error {
    std_io::Error::other("the kernel gave no IP address")
}

fn claim(address: SocketAddr, shared: bool) -> std_io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// What a worker needs to serve a client.
#[derive(Debug, Clone)]
pub struct Worker {
    /// Its number.
    pub index: usize,
    /// What all workers share.
    pub live: Arc<Live>,
    /// Its tunnels.
    pub registry: Arc<Registry>,
    /// What clients take of all workers.
    pub seats: Arc<Seats>,
}

/// Accepts as `how` says, until its sender is gone. Runs on the worker's own runtime.
pub async fn accept(worker: Worker, socket: StdListener, mut how: watch::Receiver<Arc<Manner>>) {
    let listener = match TcpListener::from_std(socket) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "registering a listening socket failed");
            return;
        }
    };
    let address = listener.local_addr().unwrap_or(how.borrow().listener.address);
    let red = worker.live.listener(address, worker.index);
    loop {
        let accepted = tokio::select! {
            biased;
            _gone = how.wait_for(|_| false) => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                if descriptors::are_short(worker.seats.taken(), &stream) {
                    tokio::select! {
                        biased;
                        _gone = how.wait_for(|_| false) => {}
                        () = descriptors::room(&worker, &listener) => {}
                    }
                }
                let manner = Arc::clone(&how.borrow());
                connection::spawn(&worker, stream, peer, (manner, Arc::clone(&red)));
            }
            // Whoever is in may still ask for more of them than is kept back.
            Err(error) if is_own_fault(&error) => {
                worker.live.counters.accept_errors.fetch_add(1, Ordering::Relaxed);
                tokio::select! {
                    biased;
                    _gone = how.wait_for(|_| false) => {}
                    () = descriptors::room(&worker, &listener) => {}
                }
            }
            Err(error) => {
                worker.live.counters.accept_errors.fetch_add(1, Ordering::Relaxed);
                // A client that left before it was accepted is no reason to wait.
                if error.kind() != std_io::ErrorKind::ConnectionAborted {
                    tracing::warn!(%error, "accepting a connection failed");
                    tokio::time::sleep(ACCEPT_BACKOFF).await;
                }
            }
        }
    }
    // Whoever the kernel has already greeted is served; a closed socket would reset them. The
    // kernel itself is asked, since the runtime may not have looked for a while.
    let Ok(listener) = listener.into_std() else { return };
    while let Some((stream, peer)) = greeted(&listener) {
        match stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream)) {
            Ok(stream) => {
                let manner = Arc::clone(&how.borrow());
                connection::spawn(&worker, stream, peer, (manner, Arc::clone(&red)));
            }
            Err(error) => tracing::warn!(%error, "accepting a connection failed"),
        }
    }
}

/// The next client that waits to be accepted.
fn greeted(listener: &StdListener) -> Option<(StdStream, SocketAddr)> {
    loop {
        match listener.accept() {
            Ok(accepted) => return Some(accepted),
            Err(error) if error.kind() == std_io::ErrorKind::ConnectionAborted => {}
            Err(_nobody) => return None,
        }
    }
}
