//! Balancers that share what is wanted of instances, by an etcd; each also says there how it is.
//!
//! Nothing of this is on a request's path, and losing the etcd changes nothing: what was wanted still
//! is, and what is said meanwhile is written when it is back. What becomes of what is wanted is for
//! others to say. [`Fleet`] is what they hold; [`row`] is the form of orders, `book` all of them,
//! `exchange` the tasks that hear and write, [`keyring`] and [`text`] what else is shared, [`board`] what is
//! told of it.

pub mod board;
mod book;
mod exchange;
pub mod keyring;
pub mod row;
pub mod summary;
pub mod text;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::{Notify, mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout, timeout_at};

use crate::config::overlay::{Key, Overlay, Override, Shares};
use crate::config::types;
use crate::etcd::Client;
use board::{Board, Orders};
use book::Book;
use keyring::Keys;
use row::Subject;
use summary::Summary;

/// News that may wait.
const QUEUE: usize = 16;
/// Whoever gives an order is told by then whether the others hear it.
const TOLD: Duration = Duration::from_secs(2);
/// A balancer that leaves says so for no longer.
const FAREWELL: Duration = Duration::from_millis(500);
/// For one question to one member of the etcd.
const PATIENCE: Duration = Duration::from_secs(2);

/// What has happened in the fleet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// Something else may be wanted, or what is wanted is written now.
    Orders,
    /// The keyring is another one.
    Keyring,
    /// What is shared of the configuration is heard.
    Config,
    /// The etcd is heard, for the first time or again.
    Heard,
    /// It is heard no longer.
    Lost(String),
}

/// What all tasks share.
#[derive(Debug)]
struct Shared {
    name: String,
    /// What keys of orders begin with, those of balancers, of secrets, and of the configuration.
    places: [Vec<u8>; 4],
    book: Mutex<Book>,
    board: Arc<Board>,
    news: mpsc::Sender<News>,
    /// There is something to write.
    ring: Notify,
    /// There is something new to say of this balancer.
    word: Notify,
    /// Counts what was tried to be written, with what went wrong last.
    rounds: watch::Sender<(u64, Option<String>)>,
    /// Whether the etcd was heard, or was found not to be.
    first: watch::Sender<bool>,
    /// The same of the keyring.
    first_keys: watch::Sender<bool>,
    keyring: Mutex<Option<Keys>>,
    config: Mutex<Option<Arc<str>>>,
    lease: Mutex<i64>,
}

impl Shared {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keyring(&self) -> MutexGuard<'_, Option<Keys>> {
        self.keyring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn config(&self) -> MutexGuard<'_, Option<Arc<str>>> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells of all orders.
    fn note(&self) {
        let (rows, pending, strange) = {
            let book = self.book();
            (book.len(), book.pending(), book.strange().clone())
        };
        let unwritten = self.rounds.borrow().1.clone();
        self.board.note(Orders { rows, pending, strange }, unwritten);
    }
}

/// A fleet that this balancer is in.
struct Running {
    settings: Arc<types::Fleet>,
    shared: Arc<Shared>,
    tasks: Vec<AbortHandle>,
    publishing: Option<AbortHandle>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.tasks.iter().chain(&self.publishing).for_each(AbortHandle::abort);
    }
}

/// Who says how this balancer is.
pub type Teller = Arc<dyn Fn() -> Summary + Send + Sync>;

/// The fleet of a configuration, if it is in one.
pub struct Fleet {
    running: Option<Running>,
    board: Arc<Board>,
    sender: mpsc::Sender<News>,
    news: mpsc::Receiver<News>,
    teller: Option<Teller>,
}

impl fmt::Debug for Fleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fleet").field("is_on", &self.running.is_some()).finish_non_exhaustive()
    }
}

impl Default for Fleet {
    fn default() -> Self {
        let (sender, news) = mpsc::channel(QUEUE);
        Self { running: None, board: Arc::default(), sender, news, teller: None }
    }
}

/// What is known before the fleet is heard.
#[derive(Debug)]
pub struct Known<'a> {
    /// What was kept of its orders.
    pub orders: Option<&'a str>,
    /// What this balancer was asked for alone, if nothing was.
    pub alone: &'a Overlay,
    /// Its affinity keys, or those to begin with.
    pub keyring: Option<Keys>,
}

/// An order that others are to hear.
#[derive(Debug)]
pub struct Sent {
    shared: Arc<Shared>,
    subject: Subject,
    rounds: watch::Receiver<(u64, Option<String>)>,
    before: u64,
}

impl Sent {
    /// Resolves when the order is written, or with why it is not yet.
    pub async fn heard(mut self) -> Result<(), String> {
        let late = || Err(format!("no word from etcd within {} s", TOLD.as_secs()));
        timeout(TOLD, self.tried()).await.unwrap_or_else(|_late| late())
    }

    async fn tried(&mut self) -> Result<(), String> {
        loop {
            if !self.shared.book().is_pending(&self.subject) {
                return Ok(());
            }
            if self.shared.book().is_newer(&self.subject) {
                return Err(
                    "a newer Burdock has written of it, which this one can't read".to_owned()
                );
            }
            let (number, problem) = self.rounds.borrow_and_update().clone();
            if let Some(problem) = problem.filter(|_| number > self.before) {
                return Err(problem);
            }
            if self.rounds.changed().await.is_err() {
                return Err("this balancer has left the fleet".to_owned());
            }
        }
    }
}

impl Fleet {
    /// Is in the fleet that the configuration says from now on, or in none.
    pub fn follow(&mut self, settings: Option<&Arc<types::Fleet>>, host: &str, known: Known<'_>) {
        if self.running.as_ref().map(|it| &it.settings) == settings {
            return;
        }
        let before = self.running.take();
        let name = settings.map(|it| it.name.clone().unwrap_or_else(|| host.to_owned()));
        self.board.join(name.clone());
        let Some((settings, name)) = settings.zip(name) else { return };
        let Known { orders, alone, keyring } = known;
        let kept = orders.map(Book::of_text).transpose().unwrap_or_else(|error| {
            tracing::warn!(error, "reading what the fleet wanted failed");
            None
        });
        // Where only the balancer's own part is another one, nothing was said in vain.
        let before = before.filter(|it| it.settings.keys == settings.keys);
        let book = before.map(|it| it.shared.book().clone()).or(kept);
        let book = book.unwrap_or_else(|| Book::of_overlay(alone, &name));
        let place = |of: &str| format!("{}{of}/", settings.keys.prefix).into_bytes();
        let shared = Arc::new(Shared {
            name,
            places: [place("orders"), place("nodes"), place("secret"), place("shared")],
            book: Mutex::new(book),
            board: Arc::clone(&self.board),
            news: self.sender.clone(),
            ring: Notify::new(),
            word: Notify::new(),
            rounds: watch::Sender::new((0, None)),
            first: watch::Sender::new(false),
            first_keys: watch::Sender::new(!settings.keyring),
            config: Mutex::default(),
            keyring: Mutex::new(keyring.filter(|_| settings.keyring)),
            lease: Mutex::new(0),
        });
        shared.note();
        let client = || Client::new(&settings.keys.etcd).patient_for(PATIENCE);
        let quiet = settings.keys.refresh;
        let mut tasks = vec![
            tokio::spawn(exchange::hear(Arc::clone(&shared), client(), quiet)).abort_handle(),
            tokio::spawn(exchange::write(Arc::clone(&shared), client())).abort_handle(),
            tokio::spawn(exchange::look(Arc::clone(&shared), client(), quiet)).abort_handle(),
        ];
        if settings.keyring {
            let task = keyring::follow(Arc::clone(&shared), [client(), client()], quiet);
            tasks.push(tokio::spawn(task).abort_handle());
        }
        if settings.config {
            let task = text::follow(Arc::clone(&shared), client(), quiet);
            tasks.push(tokio::spawn(task).abort_handle());
        }
        let settings = Arc::clone(settings);
        self.running = Some(Running { settings, shared, tasks, publishing: None });
        if let Some(teller) = self.teller.clone() {
            self.publish(teller);
        }
    }

    /// Resolves when the etcd was heard, or found not to be; or at `deadline`.
    pub async fn first(&self, deadline: Instant) {
        if let Some(running) = &self.running {
            let mut first = running.shared.first.subscribe();
            let mut keys = running.shared.first_keys.subscribe();
            // Whoever waits can't do more than go on.
            let _ = timeout_at(deadline, first.wait_for(|is_over| *is_over)).await;
            let _ = timeout_at(deadline, keys.wait_for(|is_over| *is_over)).await;
        }
    }

    /// The affinity keys, if they are the fleet's.
    pub fn keyring(&self) -> Option<Keys> {
        self.running.as_ref()?.shared.keyring().clone()
    }

    /// What is shared of the configuration, if it was heard.
    pub fn config(&self) -> Option<Arc<str>> {
        self.running.as_ref()?.shared.config().clone()
    }

    /// Says to the others how this balancer is, from now on.
    pub fn publish(&mut self, teller: Teller) {
        self.teller = Some(Arc::clone(&teller));
        if let Some(running) = &mut self.running {
            let client = Client::new(&running.settings.keys.etcd).patient_for(PATIENCE);
            let task = exchange::publish(Arc::clone(&running.shared), client, teller);
            running.publishing = Some(tokio::spawn(task).abort_handle());
        }
    }

    /// Says it at once, since something has changed that others wait for.
    pub fn say_now(&self) {
        if let Some(running) = &self.running {
            running.shared.word.notify_one();
        }
    }

    /// Whether it does.
    pub fn is_published(&self) -> bool {
        self.teller.is_some()
    }

    /// Says nothing more, and takes what was said away at once.
    pub async fn leave(&mut self) {
        self.teller = None;
        let Some(running) = &mut self.running else { return };
        let Some(publishing) = running.publishing.take() else { return };
        publishing.abort();
        let lease = *running.shared.lease.lock().unwrap_or_else(PoisonError::into_inner);
        let mut client = Client::new(&running.settings.keys.etcd).patient_for(FAREWELL);
        if lease != 0 {
            // It runs out by itself.
            let _ = timeout(FAREWELL, client.revoke(lease)).await;
        }
    }

    /// What happens next; never anything without a fleet.
    pub async fn next(&mut self) -> News {
        match self.news.recv().await {
            Some(news) => news,
            // Not while there is a sender here.
            None => std::future::pending().await,
        }
    }

    /// What the fleet wants, as a layer over the configuration.
    pub fn overlay(&self) -> Option<Overlay> {
        self.running.as_ref().map(|running| running.shared.book().overlay())
    }

    /// The same for a file, with whether there is nothing to say. It is taken for kept.
    pub fn to_text(&self) -> Option<(String, bool)> {
        let mut book = self.running.as_ref()?.shared.book();
        book.keep();
        Some((book.to_text(), book.is_empty()))
    }

    /// Whether there is more than was kept.
    pub fn is_to_keep(&self) -> bool {
        self.running.as_ref().is_some_and(|running| running.shared.book().is_to_keep())
    }

    /// What is told of it.
    pub fn board(&self) -> &Arc<Board> {
        &self.board
    }

    /// From now on `after` is wanted of an instance where it was `before`; nothing without a fleet, or
    /// where it has no room.
    pub fn want(&self, key: &Key, words: (&Override, &Override), now: SystemTime) -> Option<Sent> {
        let subject = Subject::Instance(key.clone());
        self.order(subject, now, |book, told| book.want(key, words, told))
    }

    /// The same of the versions of a service.
    pub fn share(
        &self,
        service: &str,
        words: (Option<&Shares>, Option<&Shares>),
        now: SystemTime,
    ) -> Option<Sent> {
        let subject = Subject::Service { split: service.to_owned() };
        self.order(subject, now, |book, told| book.share(service, words, told))
    }

    fn order(
        &self,
        subject: Subject,
        now: SystemTime,
        change: impl FnOnce(&mut Book, (&str, u64)) -> bool,
    ) -> Option<Sent> {
        let shared = Arc::clone(&self.running.as_ref()?.shared);
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let now = u64::try_from(now).unwrap_or(u64::MAX);
        let rounds = shared.rounds.subscribe();
        let before = rounds.borrow().0;
        if !change(&mut shared.book(), (&shared.name, now)) {
            tracing::warn!(%subject, "the fleet has too many orders: others do not hear of this one");
            return None;
        }
        shared.note();
        shared.ring.notify_one();
        Some(Sent { shared, subject, rounds, before })
    }
}
