//! A backend that speaks HTTP/2 without TLS, and nothing else.
//!
//! | path | answer |
//! |---|---|
//! | `/echo` | the body as it comes, and its trailers |
//! | `/sized/N` | N bytes of [`pattern`](super::pattern) |
//! | `/trailers` | a body and trailers |
//! | `/gate` | the gate, then its name |
//! | `/silent` | none, with the body unread |
//! | `/early` | 200 and its name, with the body unread and the stream left open |
//! | `/half` | half a body, and no more |
//! | `/refuse` | the stream is refused |
//! | `/reset` | the stream is reset |
//! | else | 200 and its name |

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use h2::server::{Builder, SendResponse};
use h2::{Reason, RecvStream};
use http::{HeaderMap, Request, Response, request};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::AbortHandle;

use super::{eventually, pattern};

/// A request as it arrived.
#[derive(Debug)]
pub struct Arrived {
    pub head: request::Parts,
    /// Numbers the connection that it came on, from 0.
    pub connection: usize,
}

#[derive(Debug)]
struct State {
    name: String,
    requests: Mutex<Vec<Arrived>>,
    resets: Mutex<Vec<(String, Reason)>>,
    gate: Semaphore,
    max_streams: Mutex<u32>,
    connections: Mutex<usize>,
    /// Grows by one when every connection is to go away.
    leaves: watch::Sender<usize>,
}

/// A backend of streams; it stops when dropped.
#[derive(Debug)]
pub struct Streams {
    pub name: String,
    pub address: SocketAddr,
    state: Arc<State>,
    acceptor: AbortHandle,
}

impl Streams {
    pub async fn start(name: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            name: name.to_owned(),
            requests: Mutex::default(),
            resets: Mutex::default(),
            gate: Semaphore::new(0),
            max_streams: Mutex::new(100),
            connections: Mutex::default(),
            leaves: watch::Sender::new(0),
        });
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                let connection = {
                    let mut connections = shared.connections.lock().unwrap();
                    *connections += 1;
                    *connections - 1
                };
                tokio::spawn(serve(Arc::clone(&shared), stream, connection));
            }
        });
        Self { name: name.to_owned(), address, state, acceptor: task.abort_handle() }
    }

    /// New connections may have so many streams open.
    pub fn takes(&self, max_streams: u32) {
        *self.state.max_streams.lock().unwrap() = max_streams;
    }

    pub fn open_gate(&self, n: usize) {
        self.state.gate.add_permits(n);
    }

    /// Every connection says that it goes away, and finishes what it has.
    pub fn leaves(&self) {
        self.state.leaves.send_modify(|leaves| *leaves += 1);
    }

    /// How many requests came, and on which connections.
    pub fn connections(&self) -> Vec<usize> {
        self.state.requests.lock().unwrap().iter().map(|arrived| arrived.connection).collect()
    }

    pub fn accepted(&self) -> usize {
        *self.state.connections.lock().unwrap()
    }

    /// Waits for the `n`th request, and gives what `look` sees of it.
    pub async fn request<T>(&self, n: usize, look: impl Fn(&Arrived) -> T) -> T {
        let what = format!("request {n} at {}", self.name);
        eventually(&what, || self.state.requests.lock().unwrap().get(n - 1).map(&look)).await
    }

    /// Waits until the stream of a request for `path` is reset.
    pub async fn reset(&self, path: &str) -> Reason {
        eventually(&format!("a reset of {path}"), || {
            let resets = self.state.resets.lock().unwrap();
            resets.iter().find(|(of, _)| of == path).map(|(_, reason)| *reason)
        })
        .await
    }

    pub fn resets(&self) -> usize {
        self.state.resets.lock().unwrap().len()
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        self.acceptor.abort();
        self.leaves();
    }
}

async fn serve(state: Arc<State>, stream: TcpStream, number: usize) {
    let max = *state.max_streams.lock().unwrap();
    let mut leaves = state.leaves.subscribe();
    let handshake = Builder::new().max_concurrent_streams(max).handshake::<_, Bytes>(stream);
    let Ok(mut connection) = handshake.await else { return };
    loop {
        let accepted = tokio::select! {
            accepted = connection.accept() => accepted,
            Ok(()) = leaves.changed() => {
                connection.graceful_shutdown();
                continue;
            }
        };
        let Some(Ok((request, respond))) = accepted else { return };
        let (head, body) = request.into_parts();
        let asked = head.clone();
        state.requests.lock().unwrap().push(Arrived { head, connection: number });
        let state = Arc::clone(&state);
        tokio::spawn(
            async move { answer(&state, Request::from_parts(asked, body), respond).await },
        );
    }
}

async fn answer(
    state: &State,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) -> Option<()> {
    let (head, mut body) = request.into_parts();
    let path = head.uri.path().to_owned();
    let reset = |reason| state.resets.lock().unwrap().push((path.clone(), reason));
    let response = || Response::builder().header("x-instance", &state.name);
    let name = Bytes::from(state.name.clone());
    let size = path.strip_prefix("/sized/").and_then(|size| size.parse().ok());
    match path.as_str() {
        "/echo" => {
            let mut stream = respond.send_response(response().body(()).ok()?, false).ok()?;
            while let Some(data) = body.data().await {
                let Ok(data) =
                    data.map_err(|error| reset(error.reason().unwrap_or(Reason::CANCEL)))
                else {
                    return None;
                };
                let _ = body.flow_control().release_capacity(data.len());
                send(&mut stream, data).await?;
            }
            match body.trailers().await.ok()? {
                Some(trailers) => stream.send_trailers(trailers).ok()?,
                None => stream.send_data(Bytes::new(), true).ok()?,
            }
        }
        "/trailers" => {
            let mut stream = respond.send_response(response().body(()).ok()?, false).ok()?;
            send(&mut stream, Bytes::from_static(b"body")).await?;
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().ok()?);
            stream.send_trailers(trailers).ok()?;
        }
        "/gate" => {
            tokio::select! {
                gate = state.gate.acquire() => gate.ok()?.forget(),
                reason = std::future::poll_fn(|cx| respond.poll_reset(cx)) => {
                    reset(reason.ok()?);
                    return None;
                }
            }
            respond
                .send_response(response().body(()).ok()?, false)
                .ok()?
                .send_data(name, true)
                .ok()?;
        }
        "/silent" => {
            let reason = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
            reset(reason.ok()?);
        }
        "/early" => {
            let mut stream = respond.send_response(response().body(()).ok()?, false).ok()?;
            send(&mut stream, name).await?;
            let reason = std::future::poll_fn(|cx| stream.poll_reset(cx)).await;
            reset(reason.ok()?);
        }
        "/half" => {
            let whole = response().header("content-length", "100").body(()).ok()?;
            let mut stream = respond.send_response(whole, false).ok()?;
            send(&mut stream, Bytes::from(pattern(50))).await?;
            let reason = std::future::poll_fn(|cx| stream.poll_reset(cx)).await;
            reset(reason.ok()?);
        }
        "/refuse" => respond.send_reset(Reason::REFUSED_STREAM),
        "/reset" => respond.send_reset(Reason::INTERNAL_ERROR),
        _ => {
            let mut stream = respond.send_response(response().body(()).ok()?, false).ok()?;
            let bytes = size.map_or(name, |size| Bytes::from(pattern(size)));
            send(&mut stream, bytes).await?;
            stream.send_data(Bytes::new(), true).ok()?;
        }
    }
    Some(())
}

async fn send(stream: &mut h2::SendStream<Bytes>, mut bytes: Bytes) -> Option<()> {
    while !bytes.is_empty() {
        stream.reserve_capacity(bytes.len());
        let room = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await?.ok()?;
        stream.send_data(bytes.split_to(room.min(bytes.len())), false).ok()?;
    }
    Some(())
}
