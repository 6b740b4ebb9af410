//! The PROXY protocol header in front of a client's connection.
//!
//! It is looked at where it lies in the socket and taken out when all of it is there: what follows,
//! be it TLS or HTTP, finds the socket as if there had been none.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, Interest};
use tokio::net::TcpStream;

use crate::config::types::Acceptance;
use crate::listener::Worker;
use crate::memory::apart;
use crate::proxy::error::Reason;
use crate::proxy::headers;
use crate::proxy_protocol::{Ends, Header, LONGEST, Malformed, Start, parse};
use crate::snapshot::Phase;

/// Why a connection has no client.
#[derive(Debug, thiserror::Error)]
enum Headless {
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("no PROXY protocol header")]
    Absent,
    #[error("the peer is no trusted proxy")]
    Untrusted,
    #[error("the connection ended within its PROXY protocol header")]
    Ended,
    #[error("the connection ended before a byte")]
    Silent,
    #[error("the PROXY protocol header did not come in time")]
    Late,
    #[error("reading a PROXY protocol header: {0}")]
    Io(#[from] io::Error),
}

/// The ends of the connection that `peer` made or speaks for. Without them there is nobody to serve,
/// and it has been counted.
pub(super) async fn ends(
    worker: &Worker,
    stream: &mut TcpStream,
    peer: SocketAddr,
    acceptance: Acceptance,
) -> Option<Ends> {
    let own = own(stream, peer);
    if acceptance == Acceptance::Off {
        return Some(own);
    }
    let mut phase = worker.live.phase();
    let is_required = acceptance == Acceptance::Require;
    let header = tokio::select! {
        biased;
        header = apart(|| header(worker, stream, peer, is_required)) => header,
        _ = phase.wait_for(|phase| *phase != Phase::Serving) => return None,
    };
    let error = match header {
        Ok(Header::Proxied(ends)) => return Some(ends),
        Ok(Header::Local) => return Some(own),
        Err(error) => error,
    };
    tracing::debug!(%peer, %error, "a connection was closed");
    match error {
        // Whoever connects to see whether the port is open has nothing to say.
        Headless::Silent => {}
        Headless::Late => worker.live.counters.error(Reason::HeaderReadTimeout),
        Headless::Malformed(_)
        | Headless::Absent
        | Headless::Untrusted
        | Headless::Ended
        | Headless::Io(_) => worker.live.counters.error(Reason::ProxyHeader),
    }
    None
}

/// What the header says; a connection that needs none and has none is its peer's own.
async fn header(
    worker: &Worker,
    stream: &mut TcpStream,
    peer: SocketAddr,
    is_required: bool,
) -> Result<Header, Headless> {
    let snapshot = worker.live.snapshot();
    let trusted = &snapshot.config.trusted_proxies;
    let (is_trusted, limit) = (
        headers::is_trusted(peer.ip().to_canonical(), trusted),
        snapshot.config.client_timeouts.header_read,
    );
    drop(snapshot);
    if !is_trusted {
        return if is_required { Err(Headless::Untrusted) } else { Ok(Header::Local) };
    }
    let read = tokio::time::timeout(limit, read(stream)).await;
    match read.map_err(|_elapsed| Headless::Late)?? {
        Some(header) => Ok(header),
        None if is_required => Err(Headless::Absent),
        None => Ok(Header::Local),
    }
}

fn own(stream: &TcpStream, peer: SocketAddr) -> Ends {
    // A socket that lost its peer has no address, and nobody to serve either.
    Ends { source: peer, destination: stream.local_addr().unwrap_or(peer) }
}

/// Takes a header out of `stream`, if it begins with one.
async fn read(stream: &mut TcpStream) -> Result<Option<Header>, Headless> {
    let mut bytes = vec![0; LONGEST];
    loop {
        let is_last = stream.ready(Interest::READABLE).await?.is_read_closed();
        let count = stream.peek(&mut bytes).await?;
        match parse(&bytes[..count])? {
            Start::Partial if count == 0 => return Err(Headless::Silent),
            Start::Partial if is_last => return Err(Headless::Ended),
            // What was looked at is still there: only what comes now is news. A worker has one thread,
            // so that none of it can have been told of since.
            Start::Partial => {
                let _ = stream.try_io(Interest::READABLE, || -> io::Result<()> {
                    Err(io::ErrorKind::WouldBlock.into())
                });
            }
            Start::Other => return Ok(None),
            Start::Whole(header, length) => {
                stream.read_exact(&mut bytes[..length]).await?;
                return Ok(Some(header));
            }
        }
    }
}
