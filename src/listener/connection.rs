//! One client connection, from accept to close or to tunnel.
//!
//! hyper parses and writes; this file runs it, and takes the socket back when HTTP/1 is over on it:
//! for a tunnel, or for HTTP/2 where the client begins with that.

use std::convert::Infallible;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::config::types;
use crate::instance::body::Hold;
use crate::listener::io::ClientIo;
use crate::listener::manner::{Manner, Secure};
use crate::listener::seats::{self, Seat};
use crate::listener::transport::Transport;
use crate::listener::watchdog::{Over, attend};
use crate::listener::{Worker, handshake, http2, proxied, rest};
use crate::observe::red::Red;
use crate::proxy::answer::AnswerBody;
use crate::proxy::client::{Arrival, Client, HeadBytes, Waits};
use crate::proxy::error::Reason;
use crate::proxy::{challenge, exchange, headers, redirect};
use crate::proxy_protocol::Ends;
use crate::tunnel::Side;

/// The most fields that hyper has room for on the stack.
const HYPER_FIELDS: usize = 100;
/// The most that is read ahead of an instance, and no less than the longest head.
const MAX_BUFFER: usize = 64 * 1024;
/// After the answer to a request that was not read to its end, the client may go on sending for
/// this long before its connection is reset: a reset would destroy the answer on its way.
pub(super) const LINGER: Duration = Duration::from_secs(2);

struct Proxy(Arc<Client>);

impl Service<Request<Incoming>> for Proxy {
    type Response = Response<AnswerBody>;
    type Error = Infallible;
    type Future = Answering;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        Answering::new(Arc::clone(&self.0), request)
    }
}

/// hyper asks for a result; there is always an answer.
pub(super) struct Answering(Pin<Box<dyn Future<Output = Response<AnswerBody>> + Send>>);

impl Answering {
    pub(super) fn new(client: Arc<Client>, request: Request<Incoming>) -> Self {
        if let Some(proof) = challenge::proof(&client, &request) {
            return Self(Box::pin(challenge::handle(client, &request, proof)));
        }
        match client.arrival.redirect {
            None => Self(Box::pin(crate::proxy::handle(client, request))),
            Some(to) => Self(Box::pin(redirect::handle(client, request, to))),
        }
    }
}

impl Future for Answering {
    type Output = Result<Response<AnswerBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx).map(Ok)
    }
}

type Connection = http1::Connection<TokioIo<ClientIo>, Proxy>;

/// Who is served: where the connection begins and ends, and the places that it takes.
type Guest = (Ends, Hold);

/// Serves a connection on a task of its own, in the manner of its listener; or closes it at once.
pub fn spawn(
    worker: &Worker,
    mut stream: TcpStream,
    peer: SocketAddr,
    (manner, red): (Arc<Manner>, Arc<Red>),
) {
    if !manner.listener.access.admits(peer.ip()) {
        return worker.live.counters.error(Reason::Denied);
    }
    let most = worker.live.snapshot().config.client_limits.connections;
    let Ok(seat) = worker.seats.take(most) else {
        return worker.live.counters.error(Reason::ConnectionLimit);
    };
    // Without it small answers wait for the client's acknowledgement; failing that, they wait.
    let _ = stream.set_nodelay(true);
    let worker = worker.clone();
    tokio::spawn(async move {
        let counters = &worker.live.counters;
        counters.accepted.fetch_add(1, Ordering::Relaxed);
        let acceptance = manner.listener.proxy_protocol;
        if let Some(ends) = proxied::ends(&worker, &mut stream, peer, acceptance).await {
            match (place(&worker, ends.source.ip(), seat), &manner.secure) {
                (Err(seats::Full), _) => counters.error(Reason::ClientConnectionLimit),
                (Ok(hold), None) => {
                    let redirect = manner.listener.https_redirect;
                    let arrival = Arrival { session: None, redirect, red };
                    let client = client(&worker, (ends, hold), arrival);
                    serve(&worker, client, Transport::plain(stream), &manner).await;
                }
                // Boxed, so that a plain connection is no larger for it.
                (Ok(hold), Some(secure)) => {
                    let served = serve_tls(&worker, stream, (ends, hold), (&manner, secure), red);
                    Box::pin(served).await;
                }
            }
        }
        counters.closed.fetch_add(1, Ordering::Relaxed);
    });
}

/// Speaks the handshake first.
async fn serve_tls(
    worker: &Worker,
    stream: TcpStream,
    guest: Guest,
    (manner, secure): (&Manner, &Secure),
    red: Arc<Red>,
) {
    let peer = guest.0.source;
    let Some(greeted) = handshake::greet(worker, stream, peer, secure).await else { return };
    let arrival = Arrival { session: Some(greeted.session), redirect: None, red };
    let client = client(worker, guest, arrival);
    match greeted.http2 {
        true => http2::serve(client, greeted.transport, Bytes::new()).await,
        false => serve(worker, client, greeted.transport, manner).await,
    }
}

fn client(worker: &Worker, guest: Guest, arrival: Arrival) -> Arc<Client> {
    let here = (worker.index, Arc::clone(&worker.registry));
    Arc::new(Client::new(Arc::clone(&worker.live), here, guest, arrival))
}

async fn serve(worker: &Worker, client: Arc<Client>, stream: Transport, manner: &Manner) {
    let mut io = ClientIo::new(stream, Arc::clone(&client));
    let (over, was_busy, io, read) = loop {
        // Boxed, so that nothing of it is left while the connection rests.
        let (over, was_busy, back, read) = Box::pin(converse(worker, &client, io)).await;
        io = back;
        match (over, io.get_ref()) {
            (Over::Rests, Some(stream)) if read.is_empty() => {
                // Empty as it is, it keeps the buffer that it is a part of.
                drop(read);
                if let Some(over) = rest::rest(stream, &client).await {
                    break (over, false, io, Bytes::new());
                }
            }
            (Over::Rests, Some(_)) => io.put_back(read),
            (over, _) => break (over, was_busy, io, read),
        }
    };
    let Some(stream) = io.into_inner() else { return };
    match (over, client.opening()) {
        (Over::Finished, Some(opening)) => {
            let client = Side { socket: stream.into_socket(), early: read };
            if let Some(tunnel) = opening.into_tunnel(client) {
                tokio::spawn(tunnel.open(&worker.registry));
            }
        }
        (Over::Finished, None) => Box::pin(linger(stream)).await,
        (Over::Unreadable(reason), _) => {
            exchange::unread(&client, reason);
            Box::pin(linger(stream)).await;
        }
        (Over::Http2, _) if manner.listener.http2 && !stream.is_tls() && client.pace.is_fresh() => {
            Box::pin(http2::serve(client, stream, read)).await;
        }
        (Over::Http2, _) => Box::pin(refuse(&client, stream, Reason::BadRequest)).await,
        (Over::Late(Reason::HeaderReadTimeout), _) => {
            // Without a byte of a head there is no request to answer, and none to log.
            if head_bytes(&client) == HeadBytes::None {
                client.live.counters.error(Reason::HeaderReadTimeout);
                Box::pin(farewell(stream)).await;
            } else {
                Box::pin(refuse(&client, stream, Reason::HeaderReadTimeout)).await;
            }
        }
        // What is not told on the line of a request that was cut is counted here.
        (Over::Late(reason), _) if !was_busy => {
            client.live.counters.error(reason);
            Box::pin(farewell(stream)).await;
        }
        (Over::Late(_) | Over::Broken | Over::Rests, _) => {}
    }
}

/// Lets hyper serve requests until that is over, or rests: how it ended, whether in the middle of
/// something, the connection, and what was read of it and not made use of.
async fn converse(
    worker: &Worker,
    client: &Arc<Client>,
    io: ClientIo,
) -> (Over, bool, ClientIo, Bytes) {
    let limits = worker.live.snapshot().config.client_limits;
    let proxy = Proxy(Arc::clone(client));
    let mut connection = Box::new(http1(&limits).serve_connection(TokioIo::new(io), proxy));
    let leave = |it: &mut Box<Connection>| {
        Pin::new(&mut **it).graceful_shutdown();
        // Browsers connect before they know what to ask; hyper would wait for that.
        matches!(client.pace.waits(), Waits::Head(_, HeadBytes::None))
    };
    let over = attend(&mut connection, client, true, |it, cx| poll(it, client, cx), leave).await;
    let was_busy = client.pace.is_busy();
    if let Over::Late(reason) = over {
        client.cut(reason);
    }
    let parts = connection.into_parts();
    (over, was_busy, parts.io.into_inner(), parts.read_buf)
}

fn http1(limits: &types::ClientLimits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.max_buf_size(MAX_BUFFER).max_header_size(limits.head);
    // Room for another number than hyper's own is allocated for each request.
    if limits.fields != HYPER_FIELDS {
        builder.max_headers(limits.fields);
    }
    builder
}

/// What is dropped when the client's connection is no more: a place among all, and one of its own. A
/// trusted proxy's connections are those of many clients.
fn place(worker: &Worker, address: IpAddr, seat: Seat) -> Result<Hold, seats::Full> {
    let snapshot = worker.live.snapshot();
    let config = &snapshot.config;
    let limits = &config.client_limits;
    let is_many = || headers::is_trusted(address.to_canonical(), &config.trusted_proxies);
    match limits.connections_per_client.filter(|_| !is_many()) {
        Some(most) => {
            let own = worker.seats.take_for(limits.client_of(address), most)?;
            Ok(Box::new((seat, own)))
        }
        None => Ok(Box::new(seat)),
    }
}

fn head_bytes(client: &Client) -> HeadBytes {
    match client.pace.waits() {
        Waits::Head(_, bytes) => bytes,
        Waits::Request(_) | Waits::Answer(_) => HeadBytes::None,
    }
}

/// Answers what is no request with a reason, in the place of hyper.
async fn refuse(client: &Client, mut stream: Transport, reason: Reason) {
    exchange::unread(client, reason);
    let status = reason.outward().1.unwrap_or(StatusCode::BAD_REQUEST);
    let text = format!("{} {}\n", status.as_u16(), reason.label());
    let answer = format!(
        "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-type: text/plain; charset=utf-8\r\n\
         content-length: {}\r\n\r\n{text}",
        text.len(),
    );
    let told = tokio::time::timeout(LINGER, stream.write_all(answer.as_bytes())).await;
    if told.is_ok_and(|told| told.is_ok()) {
        linger(stream).await;
    }
}

/// Says that the end is no accident, where a FIN alone would not (RFC 8446 section 6.1).
async fn farewell(mut stream: Transport) {
    if stream.is_tls() {
        let _ = tokio::time::timeout(LINGER, stream.shutdown()).await;
    }
}

/// Sends FIN, and takes what the client still sends until it has seen it. Boxed where it is called:
/// a connection should not carry this buffer all its life.
pub(super) async fn linger(mut stream: Transport) {
    let mut rest = [0; 4096];
    // With TLS what it has not taken yet goes before the end, and it may take none of it.
    let end = async {
        if stream.shutdown().await.is_ok() {
            while stream.read(&mut rest).await.is_ok_and(|count| count > 0) {}
        }
    };
    let _ = tokio::time::timeout(LINGER, end).await;
}

fn poll(connection: &mut Connection, client: &Client, cx: &mut Context<'_>) -> Poll<Over> {
    connection.poll_without_shutdown(cx).map(|ended| {
        let Err(error) = ended else { return Over::Finished };
        tracing::debug!(client = %client.peer, %error, "a client's connection ended");
        // To what is no head hyper writes its 400, 414 or 431; the client gets to read it.
        match error.is_parse() {
            true if error.is_parse_version_h2() => Over::Http2,
            true if error.is_parse_too_large() => Over::Unreadable(Reason::HeadTooLarge),
            true => Over::Unreadable(Reason::BadRequest),
            false => Over::Broken,
        }
    })
}
