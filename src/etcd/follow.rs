//! A watch that lasts: all that stands under a prefix, and then what changes, in bunches.
//!
//! A watch that says nothing is made anew from where it ended, so that neither a path that swallows
//! everything nor a member that stands still is taken for peace. When anything else is wrong with
//! it, all is looked at again: that is always true.

use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};

use super::watch::{Batch, Event, Watch};
use super::{Client, EtcdError, Pair};

/// After a change: more of them come in a bunch.
const SETTLE: Duration = Duration::from_millis(50);
/// From one bunch to the next: whoever is told has work to do.
const GAP: Duration = Duration::from_millis(250);
/// From the first change on, whatever follows.
const LONGEST: Duration = Duration::from_secs(1);
/// Changes that are told at once, and the bytes in them.
const BUNCH: usize = 10_000;
const BUNCH_BYTES: usize = 16 * 1024 * 1024;
/// Looks at everything that follow on one another without a watch that was of any use.
const LOOKS: u32 = 3;

/// What is told of a prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// All that there is; what was told before means nothing any more.
    All(Vec<Pair>),
    /// What has happened since, in order.
    Some(Vec<Event>),
    /// Nothing has.
    Nothing,
}

/// Follows what stands under a prefix.
#[derive(Debug)]
pub struct Follower {
    client: Client,
    prefix: Vec<u8>,
    most: usize,
    quiet: Duration,
    watch: Option<Watch>,
    /// All is told until here.
    revision: i64,
    cluster: u64,
    looks: u32,
    /// When changes were told of last.
    told: Option<Instant>,
}

impl Follower {
    /// Of no more than `most` keys when it looks at them. A watch that says nothing for `quiet` is
    /// made anew.
    pub fn new(client: Client, prefix: Vec<u8>, most: usize, quiet: Duration) -> Self {
        Self {
            client,
            prefix,
            most,
            quiet,
            watch: None,
            revision: 0,
            cluster: 0,
            looks: 0,
            told: None,
        }
    }

    /// Which cluster was heard, and until which revision all of it is told.
    pub fn heard(&self) -> (u64, i64) {
        (self.cluster, self.revision)
    }

    /// Begins anew: all is told next.
    pub fn begin(&mut self) {
        self.watch = None;
    }

    /// What is to be told next: all at first, and after an error. Whoever gives it up half way is
    /// told all the next time.
    pub async fn next(&mut self) -> Result<Change, EtcdError> {
        let Some(mut watch) = self.watch.take() else {
            self.looks = 0;
            return self.look().await;
        };
        match timeout(self.quiet, watch.next()).await {
            Ok(Ok(batch)) => Ok(self.bunch(watch, batch).await),
            Ok(Err(error)) => {
                if !matches!(error, EtcdError::Compacted(..)) {
                    self.client.turn();
                }
                self.look_after(error).await
            }
            Err(_quiet) => self.renew().await,
        }
    }

    /// Looks at everything after this, unless that happens again and again.
    async fn look_after(&mut self, error: EtcdError) -> Result<Change, EtcdError> {
        match self.looks < LOOKS {
            true => self.look().await,
            false => Err(error),
        }
    }

    async fn look(&mut self) -> Result<Change, EtcdError> {
        self.looks += 1;
        let listing = self.client.list(&self.prefix, self.most).await?;
        let watch = self.client.watch(&self.prefix, listing.revision + 1).await?;
        if watch.header().cluster_id != listing.cluster {
            return Err(watch.nonsense("it is of another cluster than the member before it"));
        }
        self.watch = Some(watch);
        (self.revision, self.cluster) = (listing.revision, listing.cluster);
        Ok(Change::All(listing.pairs))
    }

    /// Another watch from where the one before it has come to.
    async fn renew(&mut self) -> Result<Change, EtcdError> {
        let watch = match self.client.watch(&self.prefix, self.revision + 1).await {
            Ok(watch) => watch,
            Err(error) => return self.look_after(error).await,
        };
        let header = watch.header();
        if header.cluster_id != self.cluster || header.revision < self.revision {
            // Another etcd, or one whose data were lost: it counts anew.
            return self.look().await;
        }
        self.watch = Some(watch);
        self.looks = 0;
        Ok(Change::Nothing)
    }

    /// What comes soon after the first of it, too.
    async fn bunch(&mut self, mut watch: Watch, first: Batch) -> Change {
        let latest = Instant::now() + LONGEST;
        let earliest = self.told.map_or_else(Instant::now, |told| told + GAP);
        let mut events = Vec::new();
        let mut bytes = 0;
        let mut next = first;
        self.looks = 0;
        loop {
            self.revision = self.revision.max(next.revision);
            bytes += next.events.iter().map(Event::size).sum::<usize>();
            events.extend(next.events);
            if events.is_empty() || events.len() >= BUNCH || bytes >= BUNCH_BYTES {
                break;
            }
            let until = latest.min(earliest.max(Instant::now() + SETTLE));
            next = match timeout_at(until, watch.next()).await {
                Ok(Ok(batch)) => batch,
                Err(_rested) => break,
                // The next time there is no watch, and all is looked at.
                Ok(Err(_lost)) => return Change::Some(events),
            };
        }
        self.watch = Some(watch);
        if events.is_empty() {
            return Change::Nothing;
        }
        self.told = Some(Instant::now());
        Change::Some(events)
    }
}
