//! The demo: small chat instances inside this process, for `burdock demo` to balance over, and the
//! page they serve. An instance keeps its sessions in its own memory, as a socket.io app without a
//! shared adapter does, so a request that reaches the wrong one is refused: affinity shows.
//!
//! Knows only the wire, nothing of the balancer in front. Start at [`Instance`].

mod chat;
mod console;
mod http;
mod store;
#[cfg(test)]
mod tests;
mod ws;

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::config::{self, ConfigErrors, Loaded};
use crate::drill::reset::ResetOnDrop;

use chat::Chat;
pub use console::console;

/// The names `burdock demo` gives its instances: like burdock, flowers of the daisy family. The
/// page has a colour for each.
pub const NAMES: [&str; 3] = ["aster", "bellis", "cirsium"];

/// The balancer's configuration in front of `instances`: what a user would write, without an access
/// log, which would push the console's own lines away, and with a quick end.
pub fn config(instances: &[Instance], listen: SocketAddr) -> Result<Loaded, ConfigErrors> {
    let row = |instance: &Instance| {
        format!("  - {{ name: {}, address: \"{}\" }}\n", instance.name(), instance.address())
    };
    let rows: String = instances.iter().map(row).collect();
    let text = format!(
        "listeners: [\"{listen}\"]\naccess_log: false\n\
         shutdown: {{ timeout: 3s, spread: 0s }}\ninstances:\n{rows}session_affinity: true\n\
         readiness_check: {{ path: /readyz, check_interval: 500ms, timeout: 500ms }}\n"
    );
    config::parse(&text, Path::new("demo.yaml"))
}

/// How often an instance shows that it is alive.
const TICK_INTERVAL: Duration = Duration::from_secs(1);
/// Connections one instance serves at once; further ones wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 10_500;
/// A client that sends no request head for this long is dropped, idle keep-alive included.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);
/// Pause after an accept that failed for want of something.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// One embedded chat instance. It runs on the tokio runtime that started it; dropping it stops
/// everything it spawned and resets its connections, as [`Instance::kill`] does, without waiting.
#[derive(Debug)]
pub struct Instance {
    name: String,
    address: SocketAddr,
    /// Sending or dropping it stops the task.
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Instance {
    /// Binds `address` (port 0 is allowed) and serves until killed or dropped.
    ///
    /// # Errors
    /// If the name can't stand in a header, the address can't be bound, or there is no randomness.
    pub async fn start(name: &str, address: SocketAddr) -> io::Result<Self> {
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            let problem = format!("name a demo instance {name:?}: letters, digits and - only");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
        }
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let chat = Arc::new(Chat::new(name).map_err(io::Error::other)?);
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(run(listener, chat, stopped));
        Ok(Self { name: name.to_owned(), address, stop: Some(stop), task })
    }

    /// The name it was started with.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The address it listens on, with the real port.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Dies as a killed process does: the listener closes, every connection is reset, the sessions
    /// are forgotten. When it returns, the port can be bound again. If the future is dropped, the
    /// instance dies all the same.
    pub async fn kill(mut self) {
        drop(self.stop.take());
        // An error would be a panic in the task, which is then as dead as asked for.
        let _ = (&mut self.task).await;
    }
}

/// Accepts until stopped. All connections are this task's own, so that they end with it.
async fn run(listener: TcpListener, chat: Arc<Chat>, mut stopped: oneshot::Receiver<()>) {
    let mut connections = JoinSet::new();
    let mut tick = interval(TICK_INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = &mut stopped => break,
            _ = tick.tick() => chat.tick(),
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((stream, _)) => drop(connections.spawn(serve(stream, Arc::clone(&chat)))),
                // Out of file descriptors, most likely: without a pause this would spin.
                Err(_) => sleep(ACCEPT_PAUSE).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
    drop(listener);
    connections.shutdown().await;
}

/// One connection, from its first request to its end, the tunnel included.
async fn serve(stream: TcpStream, chat: Arc<Chat>) {
    let _ = stream.set_nodelay(true);
    let Ok(mut reset) = ResetOnDrop::watch(&stream) else { return };
    let tunnel = ws::Slot::default();
    let service = service_fn(|request| {
        let (chat, tunnel) = (&chat, &tunnel);
        async move { http::Answered::Ok(http::answer(chat, tunnel, request).await) }
    });
    // What ended it is the client's affair.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
    let tunnel = tunnel.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some(tunnel) = tunnel {
        ws::serve(&chat, tunnel).await;
    }
    reset.ended();
}
