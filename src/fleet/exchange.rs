//! The tasks of a fleet: they hear what is wanted and write what was said here, and say how this
//! balancer is and hear how others are. Each goes on for ever, whatever the etcd does.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::time::sleep;

use super::board::MOST_NODES;
use super::book::{Due, MOST, Stand};
use super::summary::Summary;
use super::{News, Shared, Teller};
use crate::config::is_name;
use crate::etcd::{Change, Client, EtcdError, Event, Follower, Pair, Swapped};

/// After a first failure.
const SHORTEST: Duration = Duration::from_millis(200);
/// After many.
const LONGEST: Duration = Duration::from_secs(5);
/// Between two words of a balancer on itself.
const PERIOD: Duration = Duration::from_secs(2);
/// A balancer that says nothing for so long is gone.
const LEASE: Duration = Duration::from_secs(10);
/// What was taken back is remembered so long, for those who were away when it was.
const REMEMBERED: Duration = Duration::from_secs(7 * 86_400);

/// How long to wait after failures: longer each time, and not all at the same instant.
#[derive(Debug, Default)]
pub(super) struct Pace(u32);

impl Pace {
    pub(super) fn failed(&mut self) -> Duration {
        let wait = SHORTEST.saturating_mul(1 << self.0.min(6)).min(LONGEST);
        self.0 = self.0.saturating_add(1);
        wait.mul_f64(0.5 + fastrand::f64())
    }
}

/// Hears what is wanted, at once and whenever it changes.
pub(super) async fn hear(shared: Arc<Shared>, client: Client, quiet: Duration) {
    let prefix = &shared.places[0];
    let mut follower = Follower::new(client, prefix.clone(), MOST, quiet);
    let mut pace = Pace::default();
    loop {
        match follower.next().await {
            Ok(change) => {
                pace = Pace::default();
                let is_quiet = change == Change::Nothing;
                let (cluster, revision) = follower.heard();
                shared.book().learn(change, prefix, Stand { cluster, revision });
                let is_back = shared.board.heard(SystemTime::now());
                shared.note();
                if is_back {
                    tell(&shared, News::Heard).await;
                }
                if is_back || !is_quiet {
                    shared.ring.notify_one();
                    tell(&shared, News::Orders).await;
                }
                shared.first.send_replace(true);
            }
            Err(error) => {
                let problem = error.to_string();
                if shared.board.lost(problem.clone(), SystemTime::now()) {
                    tell(&shared, News::Lost(problem)).await;
                }
                shared.first.send_replace(true);
                sleep(pace.failed()).await;
                follower.begin();
            }
        }
    }
}

pub(super) async fn tell(shared: &Shared, news: News) {
    // Nobody hears it if the process ends.
    let _ = shared.news.send(news).await;
}

/// Writes what was said here, as soon as it can be.
pub(super) async fn write(shared: Arc<Shared>, mut client: Client) {
    let mut pace = Pace::default();
    loop {
        let due = shared.book().due();
        if due.is_empty() {
            shared.ring.notified().await;
            continue;
        }
        let mut problem = None;
        for due in due {
            if let Err(error) = write_one(&shared, &mut client, &due).await {
                problem = Some(error.to_string());
                break;
            }
        }
        let is_well = problem.is_none();
        shared.rounds.send_modify(|(number, last)| {
            *number += 1;
            *last = problem;
        });
        shared.note();
        tell(&shared, News::Orders).await;
        if is_well {
            pace = Pace::default();
        } else {
            // A new order is worth another try at once.
            tokio::select! {
                () = sleep(pace.failed()) => {}
                () = shared.ring.notified() => {}
            }
        }
    }
}

/// What somebody else has written meanwhile is joined, and is the next time what this replaces.
async fn write_one(shared: &Shared, client: &mut Client, due: &Due) -> Result<(), EtcdError> {
    let prefix = &shared.places[0];
    let key = [&prefix[..], due.subject.to_key().as_bytes()].concat();
    let lease = match due.row.is_over() {
        true => client.grant(REMEMBERED).await?.0,
        false => 0,
    };
    match client.swap(&key, due.revision, &due.row.to_text(), lease).await? {
        Swapped::Done(revision) => shared.book().written(due, revision),
        Swapped::Found(pair) => shared.book().found(due, pair.as_ref(), prefix),
    }
    Ok(())
}

/// Says how this balancer is, again and again, for as long as it does so.
pub(super) async fn publish(shared: Arc<Shared>, mut client: Client, teller: Teller) {
    let key = [&shared.places[1][..], shared.name.as_bytes()].concat();
    let mut pace = Pace::default();
    let mut lease = 0;
    loop {
        let summary = teller();
        shared.board.say(summary.clone());
        match say(&mut client, &key, &summary, &mut lease).await {
            Ok(()) => {
                pace = Pace::default();
                *shared.lease.lock().unwrap_or_else(PoisonError::into_inner) = lease;
                tokio::select! {
                    () = sleep(PERIOD) => {}
                    () = shared.word.notified() => {}
                }
            }
            Err(error) => {
                tracing::debug!(%error, "telling the fleet of this balancer failed");
                sleep(pace.failed()).await;
            }
        }
    }
}

async fn say(
    client: &mut Client,
    key: &[u8],
    summary: &Summary,
    lease: &mut i64,
) -> Result<(), EtcdError> {
    if *lease != 0 && client.keep_alive(*lease).await?.is_none() {
        *lease = 0;
    }
    if *lease == 0 {
        *lease = client.grant(LEASE).await?.0;
    }
    let put = client.put(key, &summary.to_text(), *lease).await;
    if put.as_ref().is_err_and(EtcdError::is_without_lease) {
        *lease = 0;
    }
    put.map(|_revision| ())
}

/// Hears how others are.
pub(super) async fn look(shared: Arc<Shared>, client: Client, quiet: Duration) {
    let prefix = &shared.places[1];
    let mut follower = Follower::new(client, prefix.clone(), MOST_NODES, quiet);
    let mut pace = Pace::default();
    loop {
        match follower.next().await {
            Ok(change) => {
                pace = Pace::default();
                see(&shared, prefix, change);
            }
            Err(_told_by_the_other) => {
                sleep(pace.failed()).await;
                follower.begin();
            }
        }
    }
}

fn see(shared: &Shared, prefix: &[u8], change: Change) {
    let name = |key: &[u8]| {
        let name = std::str::from_utf8(key.strip_prefix(prefix)?).ok()?;
        is_name(name).then(|| name.to_owned())
    };
    let events = match change {
        Change::Nothing => Vec::new(),
        Change::Some(events) => events,
        Change::All(pairs) => {
            let there: Vec<_> = pairs.iter().filter_map(|pair| name(&pair.key)).collect();
            let there: Vec<_> = there.iter().map(String::as_str).collect();
            shared.board.miss_others(&there);
            pairs.into_iter().map(Event::Put).collect()
        }
    };
    for event in events {
        match event {
            Event::Put(Pair { key, value, .. }) => {
                if let Some((name, summary)) = name(&key).zip(Summary::of_text(&value)) {
                    shared.board.see(&name, summary);
                }
            }
            Event::Delete(key) => {
                if let Some(name) = name(&key) {
                    shared.board.miss(&name);
                }
            }
        }
    }
}
