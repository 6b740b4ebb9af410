//! One client connection, from accept to close or to tunnel.
//!
//! A conversation of HTTP/1.1 is run here; when that is over, the connection becomes a tunnel, goes on
//! with HTTP/2 where the client began with that, or ends.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::instance::body::{Hold, Incoming};
use crate::listener::http1::conversation::Conversation;
use crate::listener::manner::{Manner, Secure};
use crate::listener::seats::{self, Seat};
use crate::listener::transport::Transport;
use crate::listener::watchdog::{Over, attend};
use crate::listener::{Worker, handshake, http1, http2, proxied, rest};
use crate::memory::apart;
use crate::observe::red::Red;
use crate::proxy::answer::AnswerBody;
use crate::proxy::client::{Arrival, Came, Client};
use crate::proxy::error::Reason;
use crate::proxy::pace::{HeadBytes, Waits};
use crate::proxy::{challenge, exchange, headers, redirect};
use crate::proxy_protocol::Ends;
use crate::tunnel::Side;

/// After the answer to a request that was not read to its end, the client may go on sending for
/// this long before its connection is reset: a reset would destroy the answer on its way.
pub(super) const LINGER: Duration = Duration::from_secs(2);

/// The answer to a request, as it comes about. There always is one.
pub(super) type Answering = Pin<Box<dyn Future<Output = Response<AnswerBody>> + Send>>;

/// Answers a request in the manner of its listener.
pub(super) fn answering(came: Came, request: Request<Option<Incoming>>) -> Answering {
    let client = came.client();
    if let Some(proof) = challenge::proof(client, &request) {
        return Box::pin(challenge::handle(came, &request, proof));
    }
    match client.arrival.redirect {
        None => Box::pin(crate::proxy::handle(came, request)),
        Some(to) => apart(|| redirect::handle(came, request, to)),
    }
}

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
                (Ok(hold), Some(secure)) => {
                    let guest = (ends, hold);
                    apart(|| serve_tls(&worker, stream, guest, (&manner, secure), red)).await;
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
    let mut spoken = (stream, Bytes::new());
    let (over, was_busy, stream, read) = loop {
        // Boxed, so that nothing of it is left while the connection rests.
        let (over, was_busy, parts) = Box::pin(converse(worker, &client, spoken)).await;
        let Some((stream, read)) = parts else { return };
        match over {
            Over::Rests if read.is_empty() => {
                // Empty as it is, it keeps the buffer that it is a part of.
                drop(read);
                if let Some(over) = rest::rest(&stream, &client).await {
                    break (over, false, stream, Bytes::new());
                }
                spoken = (stream, Bytes::new());
            }
            Over::Rests => spoken = (stream, read),
            over => break (over, was_busy, stream, read),
        }
    };
    match (over, client.opening()) {
        (Over::Finished | Over::Parted, Some(opening)) => {
            let client = Side { socket: stream.into_socket(), early: read };
            if let Some(tunnel) = opening.into_tunnel(client) {
                tokio::spawn(tunnel.open(&worker.registry));
            }
        }
        // Nothing comes for which the kernel would reset it before the answer is read. With TLS the end
        // itself is answered.
        (Over::Parted, None) if !stream.is_tls() => {}
        (Over::Finished | Over::Parted, None) => apart(|| linger(stream)).await,
        (Over::Unreadable(reason), _) => apart(|| refuse(&client, stream, reason)).await,
        (Over::Http2, _) if manner.listener.http2 && !stream.is_tls() && client.pace.is_fresh() => {
            apart(|| http2::serve(client, stream, read)).await;
        }
        (Over::Http2, _) => apart(|| refuse(&client, stream, Reason::BadRequest)).await,
        (Over::Late(Reason::HeaderReadTimeout), _) => {
            // Without a byte of a head there is no request to answer, and none to log.
            if head_bytes(&client) == HeadBytes::None {
                client.live.counters.error(Reason::HeaderReadTimeout);
                apart(|| farewell(stream)).await;
            } else {
                apart(|| refuse(&client, stream, Reason::HeaderReadTimeout)).await;
            }
        }
        // What is not told on the line of a request that was cut is counted here.
        (Over::Late(reason), _) if !was_busy => {
            client.live.counters.error(reason);
            apart(|| farewell(stream)).await;
        }
        (Over::Late(_) | Over::Broken | Over::Rests, _) => {}
    }
}

/// Serves requests until that is over, or rests: how it ended, whether in the middle of something, the
/// connection, and what was read of it and not made use of.
async fn converse(
    worker: &Worker,
    client: &Arc<Client>,
    (stream, read): (Transport, Bytes),
) -> (Over, bool, Option<(Transport, Bytes)>) {
    let limits = worker.live.snapshot().config.client_limits;
    let mut conversation = Conversation::new(stream, client, &limits, read);
    let over =
        attend(&mut conversation, client, true, Conversation::poll, Conversation::leave).await;
    let was_busy = client.pace.is_busy();
    match over {
        Over::Late(reason) => client.cut(reason),
        Over::Broken => tracing::debug!(client = %client.peer, "a client's connection broke off"),
        Over::Finished | Over::Parted | Over::Unreadable(_) | Over::Http2 | Over::Rests => {}
    }
    (over, was_busy, conversation.into_parts())
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

/// Answers what is no request with a reason.
async fn refuse(client: &Client, mut stream: Transport, reason: Reason) {
    exchange::unread(client, reason);
    let status = reason.outward().1.unwrap_or(StatusCode::BAD_REQUEST);
    let text = format!("{} {}\n", status.as_u16(), reason.label());
    let mut answer = format!("HTTP/1.1 {status}\r\ndate: ").into_bytes();
    http1::now(&mut answer);
    let rest = format!(
        "\r\nconnection: close\r\ncontent-type: text/plain; charset=utf-8\r\n\
         content-length: {}\r\n\r\n{text}",
        text.len(),
    );
    answer.extend_from_slice(rest.as_bytes());
    let told = tokio::time::timeout(LINGER, stream.write_all(&answer)).await;
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

/// Sends FIN, and takes what the client still sends until it has seen it.
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
