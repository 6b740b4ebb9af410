//! The instance of the corpus: notes what it is sent, reads it to the letter, and answers each
//! target with itself, or as the case says.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc, oneshot};

use crate::case::{self, Case};
use crate::strict::{self, Message, Read};

/// What arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Got(Message),
    /// A beginning whose rest never came.
    Cut(String),
    /// Bytes that mean nothing, or two things.
    Bad(String),
}

#[derive(Debug, Default)]
struct State {
    log: Mutex<Vec<Event>>,
    script: Mutex<Script>,
    later: Mutex<Option<mpsc::UnboundedSender<Later>>>,
    came: Notify,
}

/// What is sent without being asked, and who waits until it is.
type Later = (Vec<u8>, oneshot::Sender<()>);

#[derive(Debug, Default, Clone)]
struct Script {
    answer: Option<Vec<u8>>,
    ends: bool,
}

/// A listening instance.
#[derive(Debug)]
pub struct Origin {
    pub address: SocketAddr,
    state: Arc<State>,
}

impl Origin {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(Arc::clone(&shared), stream));
            }
        });
        Self { address, state }
    }

    /// Forgets what was before, and answers as `case` says from now on.
    pub fn prepare(&self, case: &Case) {
        let answer = case.answer.as_deref().map(case::bytes);
        *self.state.script.lock().unwrap() = Script { answer, ends: case.ends };
        self.clear();
    }

    /// Forgets what was before.
    pub fn clear(&self) {
        self.state.log.lock().unwrap().clear();
    }

    /// What arrived since.
    pub fn events(&self) -> Vec<Event> {
        self.state.log.lock().unwrap().clone()
    }

    /// Waits for the next head.
    pub async fn head(&self) {
        self.state.came.notified().await;
    }

    /// Sends more on the connection that carried the case, if it is still there.
    pub async fn send_later(&self, bytes: Vec<u8>) {
        let connection = self.state.later.lock().unwrap().take();
        if let Some(connection) = connection {
            let (sent, done) = oneshot::channel();
            let _ = connection.send((bytes, sent));
            let _ = done.await;
        }
    }
}

async fn serve(state: Arc<State>, mut stream: TcpStream) {
    // What is sent without being asked must not wait for an acknowledgement of what was.
    let _ = stream.set_nodelay(true);
    let mut bytes = Vec::new();
    let (sender, mut later) = mpsc::unbounded_channel();
    let note = |event| state.log.lock().unwrap().push(event);
    let mut head_came = false;
    loop {
        match strict::request(&bytes) {
            Read::Whole(message, size) => {
                bytes.drain(..size);
                head_came = false;
                let target = message.word(1).to_owned();
                note(Event::Got(message.clone()));
                state.came.notify_one();
                let script = state.script.lock().unwrap().clone();
                let scripted = script.answer.filter(|_| target.contains("/case"));
                let ends = scripted.is_some() && script.ends;
                if scripted.is_some() {
                    *state.later.lock().unwrap() = Some(sender.clone());
                }
                let answer = scripted.unwrap_or_else(|| honest(&message, &target));
                if stream.write_all(&answer).await.is_err() || ends {
                    let _ = stream.shutdown().await;
                    return;
                }
                continue;
            }
            Read::Part(head) => {
                let waits = head.filter(|_| !head_came);
                if let Some(head) = waits {
                    head_came = true;
                    state.came.notify_one();
                    if head.all("expect") == ["100-continue"] {
                        let _ = stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await;
                    }
                }
            }
            Read::Bad(why) => {
                note(Event::Bad(format!("{why}: {}", strict::latin1(&bytes))));
                return;
            }
        }
        tokio::select! {
            read = stream.read_buf(&mut bytes) => if !read.is_ok_and(|count| count > 0) { break },
            Some((more, sent)) = later.recv() => {
                let _ = stream.write_all(&more).await;
                let _ = sent.send(());
            }
        }
    }
    if !bytes.is_empty() {
        note(Event::Cut(strict::latin1(&bytes)));
    }
}

/// 200 and the target; a cut-off head of the same to HEAD.
fn honest(request: &Message, target: &str) -> Vec<u8> {
    let body = if request.word(0) == "HEAD" { "" } else { target };
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", target.len()).into_bytes()
}
