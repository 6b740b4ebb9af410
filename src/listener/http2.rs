//! A client's connection that speaks HTTP/2 (RFC 9113): each stream is a request of its own, on a
//! task of its own, with a pace and a watchdog of its own.
//!
//! hyper speaks the protocol and bounds what CONTINUATION frames and early resets may hold; what one
//! connection may keep open and buffered is set here; `calm` bounds floods of everything else.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::Service;
use hyper_util::rt::TokioIo;

use crate::instance::body::{self, Broken};
use crate::listener::connection::{self, LINGER};
use crate::listener::io::ClientIo;
use crate::listener::transport::Transport;
use crate::listener::watchdog::{Over, Step, Watchdog, attend};
use crate::proxy::answer::AnswerBody;
use crate::proxy::client::{Came, Client};
use crate::proxy::error::Reason;

/// Streams that a client may have open at once; more are refused and may be tried again
/// (RFC 9113 section 5.1.2).
const MAX_STREAMS: u32 = 250;
/// Streams that a client may have reset before they were looked at; one more is ENHANCE_YOUR_CALM.
const MAX_RESETS: usize = 20;
/// Streams that may have been reset for a client's mistakes; as before.
const MAX_ERRORS: usize = 256;
/// Bytes of a frame (RFC 9113 section 4.2 allows no less).
const MAX_FRAME: u32 = 16 * 1024;
/// Bytes of fields that a client may have remembered (RFC 7541 section 4.2), the default.
const HEADER_TABLE: u32 = 4096;
/// Bytes of one upload that are read ahead of an instance, at most.
const STREAM_WINDOW: u32 = 128 * 1024;
/// Bytes of all uploads of a connection: many of them have to stand still before others must too.
const CONNECTION_WINDOW: u32 = 64 * STREAM_WINDOW;
/// Bytes of one answer that are read ahead of the client.
const MAX_SEND_BUFFER: usize = 64 * 1024;

/// The client of the stream that was just begun, on its way from the service to the executor: hyper
/// calls one right after the other.
type Begun = Arc<Mutex<Option<Arc<Client>>>>;

struct Proxy {
    connection: Arc<Client>,
    begun: Begun,
}

impl Service<Request<Incoming>> for Proxy {
    type Response = Response<AnswerBody>;
    type Error = Infallible;
    type Future = Answering;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let client = Arc::new(self.connection.stream());
        *self.begun.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&client));
        let request = request.map(|body| {
            let has_one = !body.is_end_stream();
            has_one.then(|| Box::pin(body.map_err(broken)) as body::Incoming)
        });
        Answering(connection::answering(Came::now(&client), request))
    }
}

/// hyper asks for a result; there is always an answer.
struct Answering(connection::Answering);

impl Future for Answering {
    type Output = Result<Response<AnswerBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx).map(Ok)
    }
}

/// A stream's data needs no sense: what breaks it off is its client.
fn broken(_: hyper::Error) -> Broken {
    Broken::Gone
}

/// Spawns what hyper does for a stream.
#[derive(Clone)]
struct Streams(Begun);

impl<Work: Future<Output = ()> + Send + 'static> Executor<Work> for Streams {
    fn execute(&self, work: Work) {
        let begun = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        match begun {
            Some(client) => tokio::spawn(watched(client, work)),
            // The sending half of a tunnel, which the tunnel itself watches.
            None => tokio::spawn(work),
        };
    }
}

/// Drops `work`, which resets its stream, when its client has taken nothing for too long.
async fn watched(client: Arc<Client>, work: impl Future<Output = ()>) {
    let mut watchdog = Watchdog::new(&client, false);
    let mut work = pin!(work);
    let late = poll_fn(|cx| match work.as_mut().poll(cx) {
        Poll::Ready(()) => Poll::Ready(None),
        Poll::Pending => watchdog.poll(&client, cx).map(Some),
    });
    if let Some(Over::Late(reason)) = late.await {
        client.cut(reason);
    }
}

type Connection = http2::Connection<TokioIo<ClientIo>, Proxy, Streams>;

/// Serves the rest of a connection of which `early` has been read already.
pub(super) async fn serve(client: Arc<Client>, stream: Transport, early: Bytes) {
    client.pace.begin_streams();
    let begun = Begun::default();
    let io = TokioIo::new(ClientIo::new(stream, Arc::clone(&client), early));
    let longest_head = client.live.snapshot().config.client_limits.head;
    let mut connection = Box::pin(
        http2::Builder::new(Streams(Arc::clone(&begun)))
            .max_concurrent_streams(MAX_STREAMS)
            .max_pending_accept_reset_streams(MAX_RESETS)
            .max_local_error_reset_streams(MAX_ERRORS)
            .max_frame_size(MAX_FRAME)
            .header_table_size(HEADER_TABLE)
            .max_header_list_size(u32::try_from(longest_head).unwrap_or(u32::MAX))
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(MAX_SEND_BUFFER)
            .enable_connect_protocol()
            .serve_connection(io, Proxy { connection: Arc::clone(&client), begun }),
    );
    let leave = |it: &mut Pin<Box<Connection>>| {
        it.as_mut().graceful_shutdown();
        false
    };
    // A GOAWAY loses nothing (RFC 9113 section 6.8), so there is no reason to wait.
    let over = attend(&mut connection, &client, false, |it, cx| poll(it, &client, cx), leave).await;
    if let Over::Late(reason) = over {
        client.cut(reason);
    }
    // Either one that was just given, or that its socket was found to flood.
    let Some(reason) = client.late() else { return };
    if !client.pace.is_busy() {
        client.live.counters.error(reason);
    }
    // RFC 9113 section 6.8: a client that is told can tell what was lost.
    if reason == Reason::KeepAliveTimeout {
        leave(&mut connection);
        let _ = tokio::time::timeout(LINGER, connection).await;
    }
}

fn poll(
    connection: &mut Pin<Box<Connection>>,
    client: &Client,
    cx: &mut Context<'_>,
) -> Poll<Step> {
    let polled = connection.as_mut().poll(cx).map(|ended| match ended {
        Ok(()) => Over::Finished,
        Err(error) => {
            tracing::debug!(client = %client.peer, %error, "a client's connection ended");
            Over::Broken
        }
    });
    polled.map(Step::Over)
}
