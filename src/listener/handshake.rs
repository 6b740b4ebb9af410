//! From an accepted socket to a connection that speaks TLS, within a limit of time, and with an account
//! of how it went.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::server::Acceptor;
use rustls::{AlertDescription, Error, HandshakeKind, ServerConfig};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::{LazyConfigAcceptor, StartHandshake};

use crate::listener::Worker;
use crate::listener::connection::{LINGER, linger};
use crate::listener::manner::Secure;
use crate::listener::transport::Transport;
use crate::observe::counters::Handshake;
use crate::snapshot::Phase;
use crate::tls::challenges;
use crate::tls::server::H2;
use crate::tls::session::Session;
use crate::tls::stream::{Stream, Wire};

/// The first byte of every handshake (RFC 8446 section 5.1).
const HANDSHAKE: u8 = 22;
/// To a client that speaks HTTP where TLS is spoken, as nginx and Go have it.
const PLAIN_HTTP: &[u8] = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\
    content-type: text/plain; charset=utf-8\r\ncontent-length: 15\r\n\r\n400 plain_http\n";

/// A connection after its handshake.
pub(super) struct Greeted {
    pub(super) transport: Transport,
    pub(super) session: Arc<Session>,
    /// Whether HTTP/2 was agreed on (RFC 7301).
    pub(super) http2: bool,
}

/// Speaks the handshake; `None` if it came to nothing.
pub(super) async fn greet(
    worker: &Worker,
    stream: TcpStream,
    peer: SocketAddr,
    secure: &Secure,
) -> Option<Greeted> {
    let done = tokio::select! {
        done = shake(stream, secure) => done,
        () = tokio::time::sleep(secure.tls.handshake_timeout) => Err((Handshake::Timeout, None)),
        () = drained(worker) => Err((Handshake::Closed, None)),
    };
    match done {
        Ok((outcome, greeted)) => {
            worker.live.counters.handshake(outcome);
            Some(greeted)
        }
        Err((outcome, error)) => {
            worker.live.counters.handshake(outcome);
            let error = error.as_ref().map(tracing::field::display);
            tracing::debug!(client = %peer, outcome = outcome.label(), error, "no TLS session");
            None
        }
    }
}

/// Resolves when a process that stops has waited long enough for a handshake.
async fn drained(worker: &Worker) {
    let mut phase = worker.live.phase();
    // Without a sender there is nobody to stop the process.
    let _ = phase.wait_for(|phase| *phase != Phase::Serving).await;
    tokio::time::sleep(LINGER).await;
}

/// How a handshake went, and what it brought or what was wrong.
type Shaken = Result<(Handshake, Greeted), (Handshake, Option<io::Error>)>;

async fn shake(stream: TcpStream, secure: &Secure) -> Shaken {
    let mut first = [0];
    match stream.peek(&mut first).await {
        Ok(1..) if first[0] == HANDSHAKE => {}
        Ok(1..) if first[0].is_ascii_uppercase() => {
            refuse_plain(stream).await;
            return Err((Handshake::PlainHttp, None));
        }
        Ok(1..) => return Err((Handshake::Malformed, None)),
        Ok(0) => return Err((Handshake::Closed, None)),
        Err(error) => return Err((Handshake::Closed, Some(error))),
    }
    let failed = |error: io::Error| (cause(&error, secure), Some(error));
    let wire = Wire::new(stream);
    let accepted = match &secure.proving {
        None => secure.acceptor.accept(wire).await.map_err(failed)?,
        Some(proving) => {
            let begun = LazyConfigAcceptor::new(Acceptor::default(), wire).await.map_err(failed)?;
            if challenges::asks(&begun.client_hello()) {
                return Err(prove(begun, proving).await);
            }
            let config = Arc::clone(secure.acceptor.config());
            begun.into_stream(config).await.map_err(failed)?
        }
    };
    let stream = Stream::new(accepted);
    let connection = stream.session();
    let outcome = match connection.handshake_kind() {
        Some(HandshakeKind::Resumed) => Handshake::Resumed,
        Some(HandshakeKind::Full | HandshakeKind::FullWithHelloRetryRequest) | None => {
            Handshake::Full
        }
    };
    let http2 = connection.alpn_protocol() == Some(H2);
    let session = Arc::new(Session::of(connection, &secure.tls));
    let transport = Transport::Tls(Box::new(stream));
    Ok((outcome, Greeted { transport, session, http2 }))
}

/// Shows what a CA asks for, which is all that such a connection is for (RFC 8737 section 4).
async fn prove(
    begun: StartHandshake<Wire>,
    proving: &Arc<ServerConfig>,
) -> (Handshake, Option<io::Error>) {
    match begun.into_stream(Arc::clone(proving)).await {
        Ok(mut stream) => (Handshake::Proof, stream.shutdown().await.err()),
        Err(error) => (Handshake::NoProof, Some(error)),
    }
}

async fn refuse_plain(mut stream: TcpStream) {
    if stream.write_all(PLAIN_HTTP).await.is_ok() {
        linger(Transport::plain(stream)).await;
    }
}

fn cause(error: &io::Error, secure: &Secure) -> Handshake {
    let Some(error) = error.get_ref().and_then(|error| error.downcast_ref::<Error>()) else {
        return Handshake::Closed;
    };
    match error {
        Error::AlertReceived(AlertDescription::CloseNotify) => Handshake::Closed,
        Error::AlertReceived(_) => Handshake::RefusedByClient,
        Error::NoCertificatesPresented | Error::InvalidCertificate(_) => {
            Handshake::ClientCertificate
        }
        Error::PeerIncompatible(_) | Error::NoApplicationProtocol => Handshake::Incompatible,
        // So rustls says that there is none to show.
        Error::General(_) if secure.tls.acme.is_some() => Handshake::NoCertificate,
        _ => Handshake::Malformed,
    }
}
