//! Certificates from a CA that speaks ACME (RFC 8555): asked for in time, kept in a folder, put into use
//! without a reload.
//!
//! [`Keeper`] has the task that does it; `pace` says when, `order` talks to the CA, `client` is
//! how it is reached, `store` is the folder. Knows nothing of listeners: what it gets goes to a
//! [`Place`], where handshakes look. A failure here never touches what is in use.

mod client;
mod order;
mod pace;
mod store;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::acme::order::{Failure, Why, order};
use crate::acme::store::Store;
use crate::config::types::{Acme, Config};
use crate::tls::automatic::{Automatic, InUse, Outcome, Place, Subject};

/// Between two looks at the clock, which may have been set.
const LONGEST_REST: u64 = 600;
/// After another process was found at work on the same folder.
const OTHERS_WORK: u64 = 20;
/// One order with all its questions.
const ORDER_TIMEOUT: Duration = Duration::from_secs(300);

/// What is wanted, and whether somebody waits for it.
#[derive(Debug, Clone, Default)]
struct Plan {
    wanted: Vec<(Subject, Arc<Acme>)>,
    /// Counts the times that what failed was to be tried again at once.
    nudges: u64,
}

/// Keeps certificates up to date until it is dropped.
#[derive(Debug)]
pub struct Keeper {
    automatic: Arc<Automatic>,
    plan: watch::Sender<Plan>,
    task: JoinSet<()>,
}

impl Keeper {
    /// One that wants nothing yet.
    pub fn new(automatic: Arc<Automatic>) -> Self {
        Self { automatic, plan: watch::Sender::default(), task: JoinSet::new() }
    }

    /// Wants from now on what `config` says; what is in the folder already is put into use.
    pub fn follow(&self, config: &Config) {
        let acmes = config.listeners.iter().filter_map(|it| it.tls.as_ref()?.acme.as_ref());
        let mut wanted: Vec<(Subject, Arc<Acme>)> = Vec::new();
        for acme in acmes {
            let shared = Arc::new(acme.clone());
            for subject in Subject::all(acme) {
                if wanted.iter().all(|(known, _)| *known != subject) {
                    wanted.push((subject, Arc::clone(&shared)));
                }
            }
        }
        for (subject, _) in &wanted {
            let place = self.automatic.place(subject);
            if place.in_use().is_none() {
                find(subject, &place);
            }
        }
        let subjects: Vec<_> = wanted.iter().map(|(subject, _)| subject.clone()).collect();
        self.automatic.retain(&subjects);
        self.plan.send_if_modified(|plan| {
            let is_new = plan.wanted != wanted;
            if is_new {
                *plan = Plan { wanted, nudges: plan.nudges + 1 };
            }
            is_new
        });
    }

    /// Tries at once what has failed, as far as the bounds of orders let it.
    pub fn nudge(&self) {
        self.plan.send_modify(|plan| plan.nudges += 1);
    }

    /// Begins to ask for what is wanted. Of several processes only the one that serves does.
    pub fn begin(&mut self) {
        if self.task.is_empty() {
            self.task.spawn(keep(Arc::clone(&self.automatic), self.plan.subscribe()));
        }
    }

    /// Asks for nothing any more, whatever is under way.
    pub fn stop(&mut self) {
        self.task.abort_all();
    }
}

/// Puts into use what the folder has for `subject`, if that is newer.
fn find(subject: &Subject, place: &Place) {
    let (domain, folder) = (&subject.domain, subject.state.display());
    match Store::of(&subject.state, &subject.directory).certificate(domain) {
        Ok(None) => {}
        Ok(Some(found)) => {
            if place.in_use().is_none_or(|in_use| in_use.not_after < found.not_after) {
                place.put(found);
            }
        }
        Err(error) => {
            tracing::error!(domain, %folder, %error, "a kept certificate is of no use");
        }
    }
}

/// How it stands with one subject.
#[derive(Debug, Clone, Default)]
struct Standing {
    failures: u32,
    /// Not before this, in seconds since the Unix epoch.
    not_before: u64,
    /// The CA has asked not to be asked before this, and nobody's hurry changes that.
    held: u64,
    /// So much earlier than it has to be, as a share of what is possible: replicas should not ask
    /// all at once.
    share: f64,
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

async fn keep(automatic: Arc<Automatic>, mut plan: watch::Receiver<Plan>) {
    let mut standings: HashMap<Subject, Standing> = HashMap::new();
    loop {
        let Plan { wanted, .. } = plan.borrow_and_update().clone();
        standings.retain(|subject, _| wanted.iter().any(|(known, _)| known == subject));
        let mut next = now() + LONGEST_REST;
        for (subject, acme) in &wanted {
            let fresh = || Standing { share: fastrand::f64(), ..Standing::default() };
            let standing = standings.entry(subject.clone()).or_insert_with(fresh);
            let place = automatic.place(subject);
            let due = |standing: &Standing| {
                let in_use = place.in_use();
                let life = in_use.as_ref().map(|it| (it.not_before, it.not_after));
                let due = life.map_or(0, |it| pace::renewal(it, acme.renew_before, standing.share));
                due.max(standing.not_before)
            };
            if due(standing) <= now() {
                attend((subject, acme), &automatic, &place, standing).await;
            }
            next = next.min(due(standing));
        }
        let rest = Duration::from_secs(next.saturating_sub(now()).max(1));
        tokio::select! {
            changed = plan.changed() => match changed {
                Ok(()) => standings.values_mut().for_each(|it| it.not_before = it.held),
                Err(_nobody_wants_anything) => return,
            },
            () = tokio::time::sleep(rest) => {}
        }
    }
}

/// Gets a certificate that is due.
async fn attend(
    (subject, acme): (&Subject, &Acme),
    automatic: &Automatic,
    place: &Place,
    standing: &mut Standing,
) {
    let (domain, directory) = (&subject.domain, &subject.directory);
    match work(subject, acme, automatic, place).await {
        Ok(Done::Found) => standing.failures = 0,
        Ok(Done::NotBefore(at)) => standing.not_before = at,
        Ok(Done::Issued(issued)) => {
            let expires =
                httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(issued.not_after));
            place.put(issued);
            *standing = Standing { share: standing.share, ..Standing::default() };
            automatic.ended(place, Outcome::Issued);
            tracing::info!(domain, directory, expires, "certificate issued");
        }
        Err(Failure { why, wait }) => {
            standing.held = wait.map_or(0, |wait| now() + wait.as_secs());
            let backoff = pace::backoff(standing.failures, fastrand::f64());
            let wait = backoff.max(wait.unwrap_or_default());
            standing.failures = standing.failures.saturating_add(1);
            standing.not_before = now() + wait.as_secs();
            automatic.ended(place, why.outcome());
            let (challenge, next_try_s) = (acme.challenge.word(), wait.as_secs());
            let has_one = place.in_use().is_some();
            tracing::error!(
                domain, directory, challenge, error = %why, has_one, next_try_s,
                "no certificate issued"
            );
        }
    }
}

/// What came of the attention to one subject.
enum Done {
    Issued(InUse),
    /// Another process had got it.
    Found,
    NotBefore(u64),
}

/// Orders a certificate, unless another process has it already or is about to.
async fn work(
    subject: &Subject,
    acme: &Acme,
    automatic: &Automatic,
    place: &Place,
) -> Result<Done, Failure> {
    let domain = &subject.domain;
    let store = Store::of(&subject.state, &subject.directory);
    let lock = store.lock()?;
    let expiry = || place.in_use().map(|in_use| in_use.not_after);
    let before = expiry();
    find(subject, place);
    let Some(_lock) = lock else { return Ok(Done::NotBefore(now() + OTHERS_WORK)) };
    if expiry() != before {
        return Ok(Done::Found);
    }
    if let Some(at) = pace::bound(&store.orders(), domain, now()) {
        let wait_s = at.saturating_sub(now());
        tracing::warn!(
            domain,
            wait_s,
            "there were enough orders in the last hour; the next one waits"
        );
        return Ok(Done::NotBefore(at));
    }
    let ordered = order(acme, domain, &store, &automatic.challenges);
    match tokio::time::timeout(ORDER_TIMEOUT, ordered).await {
        Ok(ordered) => ordered.map(Done::Issued),
        Err(_late) => Err(Failure { why: Why::Late(ORDER_TIMEOUT), wait: None }),
    }
}
