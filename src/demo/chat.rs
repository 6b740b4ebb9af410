//! The chat of one instance, shared by its connections: the store behind a lock, the wake-up for
//! those who wait, and the JSON that both transports carry. It must not know HTTP or WebSocket.
//!
//! Start at [`Chat`]; the page (`page/app.js`) is the other side of [`Chat::read`]'s JSON.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::Deserialize;
use serde_json::json;
use tokio::sync::watch;

use super::store::{Sid, Store, StoreError};

/// Longest request body or WebSocket message, in bytes.
pub(super) const MAX_MESSAGE: usize = 4096;
/// Longest author's name, in characters; it has to fit beside the text on a phone.
const MAX_NAME: usize = 24;

/// What a client posts.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Draft {
    from: String,
    text: String,
}

/// Why a message was not taken. The text goes to the client.
#[derive(Debug, thiserror::Error)]
pub(super) enum PostError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("a message is {{\"from\":\"1 to {MAX_NAME} characters\",\"text\":\"not empty\"}}")]
    Malformed,
}

/// What the sender of more than [`MAX_MESSAGE`] is told.
pub(super) fn too_long() -> String {
    format!("a message has at most {MAX_MESSAGE} bytes")
}

/// The chat of one instance.
#[derive(Debug)]
pub(super) struct Chat {
    name: String,
    /// Differs at every start, so that the page can tell a restarted instance from the old one.
    run: String,
    store: Mutex<Store>,
    /// Woken at each message and tick. Everybody reads everything, so one bell serves all.
    news: watch::Sender<()>,
    answered: AtomicU64,
}

impl Chat {
    pub(super) fn new(name: &str) -> Result<Self, getrandom::Error> {
        Ok(Self {
            name: name.to_owned(),
            run: format!("{:08x}", getrandom::u32()?),
            store: Mutex::default(),
            news: watch::channel(()).0,
            answered: AtomicU64::new(0),
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The number of this `/whoami` request, from 1.
    pub(super) fn count_answer(&self) -> u64 {
        self.answered.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Opens a session and returns it with the greeting that tells the client its id.
    pub(super) fn open(&self) -> Result<(Sid, String), OpenError> {
        let mut random = [0; 16];
        getrandom::fill(&mut random)?;
        let sid = Sid::from_random(random);
        self.store().open(sid, Instant::now())?;
        let greeting = json!({
            "type": "hello", "instance": self.name, "run": self.run, "sid": sid.to_string(),
        });
        Ok((sid, greeting.to_string()))
    }

    pub(super) fn close(&self, sid: Sid) -> Result<(), StoreError> {
        self.store().close(sid)
    }

    pub(super) fn touch(&self, sid: Sid) -> Result<(), StoreError> {
        self.store().touch(sid, Instant::now())
    }

    /// Takes a client's message and shows it to every session of this instance.
    pub(super) fn post(&self, sid: Sid, body: &[u8]) -> Result<(), PostError> {
        let mut store = self.store();
        store.touch(sid, Instant::now())?;
        let draft: Draft = serde_json::from_slice(body).map_err(|_| PostError::Malformed)?;
        let (from, text) = (draft.from.trim(), draft.text.trim());
        let printable = !from.chars().chain(text.chars()).any(char::is_control);
        if from.is_empty() || from.chars().count() > MAX_NAME || text.is_empty() || !printable {
            return Err(PostError::Malformed);
        }
        let message = json!({
            "type": "chat", "instance": self.name, "number": store.next_number(),
            "from": from, "text": text,
        });
        store.post(message.to_string().into());
        drop(store);
        self.news.send_replace(());
        Ok(())
    }

    /// One heartbeat.
    pub(super) fn tick(&self) {
        self.store().tick(Instant::now());
        self.news.send_replace(());
    }

    /// A bell that rings at whatever is posted after this call.
    pub(super) fn listen(&self) -> watch::Receiver<()> {
        self.news.subscribe()
    }

    /// Hands over what the session has not read yet, as JSON objects. A reply that is lost on its
    /// way loses these: the demo imitates apps without an outbox.
    pub(super) fn read(&self, sid: Sid) -> Result<Vec<Arc<str>>, StoreError> {
        let mut store = self.store();
        let unread = store.take(sid)?;
        let sessions = store.len();
        drop(store);
        let mut events = Vec::new();
        if unread.missed > 0 {
            events.push(json!({ "type": "missed", "count": unread.missed }).to_string().into());
        }
        events.extend(unread.messages);
        if let Some(count) = unread.tick {
            let tick = json!({
                "type": "tick", "instance": self.name, "count": count, "sessions": sessions,
            });
            events.push(tick.to_string().into());
        }
        Ok(events)
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        // No call on the store can panic half way, so what a poisoned lock guards is whole.
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why no session was opened.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("draw a session id: no randomness")]
    Random(#[from] getrandom::Error),
}
