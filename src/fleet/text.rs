//! What a fleet shares of its configurations: one text in the etcd. Whether it makes sense is for others
//! to say.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::exchange::{Pace, tell};
use super::{News, PATIENCE, Shared};
use crate::config::types::Fleet;
use crate::etcd::{Change, Client, EtcdError, Event, Follower, Pair, Swapped};

/// Its key, below the fleet's prefix.
const NAME: &str = "shared/config";
/// The longest text; an etcd takes requests of 1.5 MiB.
pub const LONGEST: usize = 1024 * 1024;
/// Keys that are looked at beside it.
const MOST: usize = 100;

/// What problems in it are told of.
pub fn origin(fleet: &Fleet) -> PathBuf {
    Path::new(&format!("etcd:{}{NAME}", fleet.keys.prefix)).to_owned()
}

/// Hears what it is. One that is taken away changes nothing.
pub(super) async fn follow(shared: Arc<Shared>, client: Client, quiet: Duration) {
    let key = [&shared.places[3][..], b"config"].concat();
    let mut follower = Follower::new(client, shared.places[3].clone(), MOST, quiet);
    let mut pace = Pace::default();
    loop {
        match follower.next().await {
            Ok(change) => {
                pace = Pace::default();
                let events = match change {
                    Change::Nothing => Vec::new(),
                    Change::Some(events) => events,
                    Change::All(pairs) => pairs.into_iter().map(Event::Put).collect(),
                };
                let put = events.into_iter().rev().find_map(|event| match event {
                    Event::Put(pair) if pair.key == key => Some(pair),
                    Event::Put(_) | Event::Delete(_) => None,
                });
                if let Some(pair) = put {
                    take(&shared, pair).await;
                }
            }
            Err(error) => {
                // An outage is told of by those who hear orders.
                if matches!(error, EtcdError::Refused(..)) {
                    shared.board.note_config(Some(error.to_string()));
                }
                sleep(pace.failed()).await;
                follower.begin();
            }
        }
    }
}

async fn take(shared: &Shared, pair: Pair) {
    match text(pair) {
        Ok(text) => {
            *shared.config() = Some(text.into());
            tell(shared, News::Config).await;
        }
        Err(problem) => shared.board.note_config(Some(problem)),
    }
}

fn text(pair: Pair) -> Result<String, String> {
    if pair.value.len() > LONGEST {
        return Err(format!("it has more than {LONGEST} bytes"));
    }
    String::from_utf8(pair.value).map_err(|_| "it is no text".to_owned())
}

/// Why there is no text.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// The etcd is of no use.
    #[error(transparent)]
    Etcd(#[from] EtcdError),
    /// Nobody has put one there.
    #[error("there is none yet; `burdock fleet push FILE` puts one there")]
    None,
    /// It is none.
    #[error("{0}")]
    Senseless(String),
    /// Somebody else was quicker.
    #[error("somebody else has changed it meanwhile; look at it again")]
    Changed,
}

/// The text of a fleet, for those who look at it and change it.
#[derive(Debug)]
pub struct Place {
    client: Client,
    key: Vec<u8>,
}

impl Place {
    /// That of this fleet.
    pub fn of(fleet: &Fleet) -> Self {
        let client = Client::new(&fleet.keys.etcd).patient_for(PATIENCE);
        Self { client, key: format!("{}{NAME}", fleet.keys.prefix).into_bytes() }
    }

    /// What it is, with its revision.
    pub async fn look(&mut self) -> Result<(i64, String), TextError> {
        let pair = self.client.look(&self.key).await?.ok_or(TextError::None)?;
        Ok((pair.revision, text(pair).map_err(TextError::Senseless)?))
    }

    /// The same, asked for again and again until `deadline` where the etcd is of no use.
    pub async fn wait(&mut self, deadline: Instant) -> Result<String, TextError> {
        let mut pace = Pace::default();
        loop {
            match self.look().await {
                Err(TextError::Etcd(_)) if Instant::now() < deadline => sleep(pace.failed()).await,
                told => return told.map(|(_, text)| text),
            }
        }
    }

    /// Puts this in the place of what was there at `revision`; 0 for nothing.
    pub async fn put(&mut self, revision: i64, text: &str) -> Result<(), TextError> {
        if text.len() > LONGEST {
            return Err(TextError::Senseless(format!("it has more than {LONGEST} bytes")));
        }
        match self.client.swap(&self.key, revision, text.as_bytes(), 0).await? {
            Swapped::Done(_) => Ok(()),
            Swapped::Found(_) => Err(TextError::Changed),
        }
    }
}
