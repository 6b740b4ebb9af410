//! The affinity keys of a fleet: one text in the etcd, in the form of a key file. The first balancer puts
//! there what it has; each serves by what it heard last.
//!
//! Keys are secrets: no message repeats one. A new one is added behind the others first, so that
//! everybody opens what it seals before anybody seals with it; `burdock fleet keys rotate` does that.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::time::{Instant, sleep};

use super::board::MOST_NODES;
use super::exchange::{Pace, tell};
use super::summary::Summary;
use super::{News, PATIENCE, Shared};
use crate::affinity::token::Keyring;
use crate::config;
use crate::config::types::Fleet;
use crate::etcd::{Change, Client, EtcdError, Event, Follower, Pair, Swapped};

/// Its key, below that of secrets.
const NAME: &str = "keyring";
/// Keys in a keyring, and bytes of its text.
const MOST: usize = 32;
const LONGEST: usize = 16 * 1024;
/// Keys that are looked at below that of secrets.
const MOST_SECRETS: usize = 100;
/// Somebody else may write at the same time, but not so often.
const TRIES: usize = 5;
/// Between two looks at whether everybody has a new key.
const LOOK: Duration = Duration::from_millis(250);

/// Affinity keys, of which the first seals.
#[derive(Clone, PartialEq, Eq)]
pub struct Keys(Vec<[u8; 32]>);

impl std::fmt::Debug for Keys {
    /// Keys are secrets: only how many there are is shown.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Keys").field(&self.0.len()).finish()
    }
}

impl Keys {
    /// These, if there are any.
    pub fn new(keys: Vec<[u8; 32]>) -> Option<Self> {
        (!keys.is_empty()).then_some(Self(keys))
    }

    /// All of them, the one that seals first.
    pub fn all(&self) -> &[[u8; 32]] {
        &self.0
    }

    /// What each is known by, which is no secret.
    pub fn ids(&self) -> Vec<String> {
        Keyring::new(&self.0).map(|keyring| keyring.ids()).unwrap_or_default()
    }

    /// As a key file has them.
    pub fn to_text(&self) -> String {
        self.0.iter().map(|key| format!("{}\n", STANDARD.encode(key))).collect()
    }

    /// From the text of such a file.
    pub fn of_text(text: &str) -> Result<Self, String> {
        if text.len() > LONGEST {
            return Err(format!("more than {LONGEST} bytes"));
        }
        let keys = config::keys(text)?;
        match keys.len() {
            0..=MOST => Self::new(keys).ok_or_else(|| "no key".to_owned()),
            count => Err(format!("{count} keys; allowed: 1 to {MOST}")),
        }
    }

    fn of_pair(pair: &Pair) -> Result<Self, String> {
        Self::of_text(std::str::from_utf8(&pair.value).map_err(|_| "no text".to_owned())?)
    }
}

/// Hears which keys there are. What makes no sense replaces nothing.
pub(super) async fn follow(shared: Arc<Shared>, clients: [Client; 2], quiet: Duration) {
    let [watching, mut asking] = clients;
    let prefix = shared.places[2].clone();
    let key = [&prefix[..], NAME.as_bytes()].concat();
    let mut follower = Follower::new(watching, prefix, MOST_SECRETS, quiet);
    let mut pace = Pace::default();
    loop {
        let heard = match follower.next().await {
            Ok(change) => heed(&shared, &mut asking, &key, change).await,
            Err(error) => Err(error),
        };
        if let Err(error) = &heard {
            note(&shared, Some(error.to_string()));
        }
        shared.first_keys.send_replace(true);
        match heard {
            Ok(()) => pace = Pace::default(),
            Err(_told) => {
                sleep(pace.failed()).await;
                follower.begin();
            }
        }
    }
}

async fn heed(
    shared: &Shared,
    asking: &mut Client,
    key: &[u8],
    change: Change,
) -> Result<(), EtcdError> {
    let events = match change {
        Change::Nothing => return Ok(()),
        Change::Some(events) => events,
        Change::All(pairs) => match pairs.into_iter().find(|pair| pair.key == key) {
            Some(pair) => vec![Event::Put(pair)],
            None => vec![Event::Delete(key.to_vec())],
        },
    };
    let of_it = |event: &Event| match event {
        Event::Put(pair) => pair.key == key,
        Event::Delete(gone) => gone == key,
    };
    match events.into_iter().rfind(of_it) {
        Some(Event::Put(pair)) => take(shared, &pair).await,
        Some(Event::Delete(_)) => begin(shared, asking, key).await?,
        None => {}
    }
    Ok(())
}

/// Nobody has put any there, or they were lost: what is known here is as good as any.
async fn begin(shared: &Shared, asking: &mut Client, key: &[u8]) -> Result<(), EtcdError> {
    let Some(text) = shared.keyring().as_ref().map(Keys::to_text) else { return Ok(()) };
    if let Swapped::Found(Some(pair)) = asking.swap(key, 0, text.as_bytes(), 0).await? {
        take(shared, &pair).await;
    } else {
        note(shared, None);
        tell(shared, News::Keyring).await;
    }
    Ok(())
}

async fn take(shared: &Shared, pair: &Pair) {
    match Keys::of_pair(pair) {
        Ok(keys) => {
            note(shared, None);
            *shared.keyring() = Some(keys);
            // Those that were known may not be kept yet.
            tell(shared, News::Keyring).await;
        }
        Err(problem) => {
            note(shared, Some(format!("it makes no sense, and nothing changes: {problem}")))
        }
    }
}

fn note(shared: &Shared, problem: Option<String>) {
    let told = problem.clone().unwrap_or_default();
    if shared.board.note_keyring(problem) && !told.is_empty() {
        tracing::warn!(problem = told, "the fleet's keyring");
    }
}

/// Why a keyring was not changed.
#[derive(Debug, thiserror::Error)]
pub enum RotateError {
    /// The etcd is of no use.
    #[error(transparent)]
    Etcd(#[from] EtcdError),
    /// There is nothing to change.
    #[error("the fleet has no keyring; a balancer with `fleet: {{ keyring: true }}` begins it")]
    None,
    /// What is there makes no sense.
    #[error("the fleet's keyring makes no sense: {0}")]
    Senseless(String),
    /// Others write too.
    #[error("somebody else changes the keyring all the time")]
    Busy,
    /// Somebody would not open what it seals.
    #[error("not every balancer has the new key yet, and it is taken back: {0}")]
    Unheard(String),
}

/// The keyring of a fleet, for those who change it.
#[derive(Debug)]
pub struct Ring {
    client: Client,
    key: Vec<u8>,
    nodes: Vec<u8>,
}

impl Ring {
    /// That of this fleet.
    pub fn of(fleet: &Fleet) -> Self {
        let below = |rest: &str| format!("{}{rest}", fleet.keys.prefix).into_bytes();
        Self {
            client: Client::new(&fleet.keys.etcd).patient_for(PATIENCE),
            key: below(&format!("secret/{NAME}")),
            nodes: below("nodes/"),
        }
    }

    /// The keys that there are.
    pub async fn keys(&mut self) -> Result<Keys, RotateError> {
        let pair = self.client.look(&self.key).await?.ok_or(RotateError::None)?;
        Keys::of_pair(&pair).map_err(RotateError::Senseless)
    }

    /// These from now on, whatever there was.
    pub async fn put(&mut self, keys: &Keys) -> Result<(), RotateError> {
        self.client.put(&self.key, keys.to_text().as_bytes(), 0).await?;
        Ok(())
    }

    /// Lets `new` seal once every balancer opens what it seals, and keeps so many of those before it.
    /// Gives the keys that there are then.
    pub async fn rotate(
        &mut self,
        new: [u8; 32],
        keep: usize,
        wait: Duration,
    ) -> Result<Keys, RotateError> {
        self.change(|mut keys| {
            keys.push(new);
            keys
        })
        .await?;
        let id = Keys(vec![new]).ids().pop().unwrap_or_default();
        if let Err(who) = self.heard(&id, wait).await? {
            self.change(|mut keys| {
                keys.retain(|key| *key != new);
                keys
            })
            .await?;
            return Err(RotateError::Unheard(who));
        }
        self.change(|keys| {
            let before = keys.into_iter().filter(|key| *key != new).take(keep);
            std::iter::once(new).chain(before).collect()
        })
        .await
    }

    async fn change(
        &mut self,
        change: impl Fn(Vec<[u8; 32]>) -> Vec<[u8; 32]>,
    ) -> Result<Keys, RotateError> {
        for _ in 0..TRIES {
            let pair = self.client.look(&self.key).await?.ok_or(RotateError::None)?;
            let keys = Keys::of_pair(&pair).map_err(RotateError::Senseless)?;
            let keys = Keys::new(change(keys.0)).ok_or(RotateError::None)?;
            let text = keys.to_text();
            let swapped = self.client.swap(&self.key, pair.revision, text.as_bytes(), 0).await?;
            if matches!(swapped, Swapped::Done(_)) {
                return Ok(keys);
            }
        }
        Err(RotateError::Busy)
    }

    /// Waits until every balancer says that it has this key; else who doesn't.
    async fn heard(&mut self, id: &str, wait: Duration) -> Result<Result<(), String>, EtcdError> {
        let deadline = Instant::now() + wait;
        loop {
            let nodes = self.client.list(&self.nodes, MOST_NODES).await?.pairs;
            let has_it = |pair: &Pair| {
                Summary::of_text(&pair.value).is_none_or(|it| it.keys.iter().any(|key| key == id))
            };
            let name = |pair: &Pair| {
                String::from_utf8_lossy(pair.key.get(self.nodes.len()..).unwrap_or_default())
                    .chars()
                    .take(63)
                    .collect::<String>()
            };
            let without: Vec<_> = nodes.iter().filter(|pair| !has_it(pair)).map(name).collect();
            if without.is_empty() {
                return Ok(Ok(()));
            }
            if Instant::now() >= deadline {
                return Ok(Err(without.join(", ")));
            }
            sleep(LOOK).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keyring_is_a_key_file_of_a_bounded_length_and_is_never_shown() {
        let keys = Keys::new(vec![[1; 32], [2; 32]]).unwrap();
        assert_eq!(Keys::of_text(&keys.to_text()).unwrap(), keys);
        assert_eq!(format!("{keys:?}"), "Keys(2)");
        assert_eq!(keys.ids().len(), 2);
        let many: String =
            (0..=MOST as u8).map(|n| format!("{}\n", STANDARD.encode([n; 32]))).collect();
        for text in
            ["", "# none\n", "AAAA", &keys.to_text().repeat(2), &many, &"#".repeat(LONGEST + 1)]
        {
            assert!(Keys::of_text(text).is_err(), "{text}");
        }
        let error = Keys::of_text("c2VjcmV0\n").unwrap_err();
        assert!(!error.contains("c2VjcmV0") && error.contains("line 1"), "{error}");
        assert!(Keys::new(Vec::new()).is_none());
    }
}
