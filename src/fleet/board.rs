//! What is told of the fleet: whether the etcd is heard, what is wanted, and who else is there.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::summary::Summary;

/// Balancers that are told of.
pub(super) const MOST_NODES: usize = 500;
/// One that says nothing for so long may be gone.
const STALE: Duration = Duration::from_secs(6);
/// One that is gone is told of for so long.
const REMEMBERED: Duration = Duration::from_secs(600);
/// Two that call themselves alike are told of for so long after the last sign of it.
const TWINS: Duration = Duration::from_secs(30);

/// The orders of the fleet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Orders {
    /// Instances and services of which something is wanted.
    pub rows: usize,
    /// Those of which something is not written in the etcd yet: others have not heard it.
    pub pending: usize,
    /// Keys that are left out, and why.
    pub strange: BTreeMap<String, String>,
}

/// How another balancer stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It is this one.
    Here,
    /// It was heard a moment ago.
    Fresh,
    /// It was not heard for longer than it should be, or the etcd is not.
    Stale,
    /// Its lease has run out, or it has ended.
    Gone,
}

impl Presence {
    /// Every one, in the order of the metric's rows.
    pub const ALL: [Self; 4] = [Self::Here, Self::Fresh, Self::Stale, Self::Gone];

    /// The word in the API.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Here => "here",
            Self::Fresh => "fresh",
            Self::Stale => "stale",
            Self::Gone => "gone",
        }
    }
}

/// A balancer as it is told of.
#[derive(Debug, Clone)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Whether it is there.
    pub presence: Presence,
    /// How long ago it was heard.
    pub heard: Duration,
    /// What it says, or said last.
    pub summary: Summary,
}

/// What is known of another balancer.
#[derive(Debug)]
struct Known {
    summary: Summary,
    heard: Instant,
    gone: bool,
}

/// How this balancer stands in its fleet.
#[derive(Debug, Clone, Default)]
pub struct Standing {
    /// What it is called there.
    pub name: String,
    /// Whether the etcd is heard.
    pub connected: bool,
    /// Since when it is, or is not.
    pub since: Option<SystemTime>,
    /// Why it is not, or why something could not be written.
    pub problem: Option<String>,
    /// What is wanted.
    pub orders: Orders,
    /// How often it was lost.
    pub losses: u64,
    /// What is wrong with the keyring.
    pub keyring: Option<String>,
    /// What is wrong with what is shared of the configuration.
    pub config: Option<String>,
    /// Whether another one calls itself alike.
    pub is_twin: bool,
}

#[derive(Debug, Default)]
struct State {
    /// Nothing where there is no fleet.
    standing: Option<Standing>,
    unwritten: Option<String>,
    own: Option<(Summary, Instant)>,
    others: BTreeMap<String, Known>,
    twins: [Option<Instant>; 2],
}

/// All that is told.
#[derive(Debug, Default)]
pub struct Board(Mutex<State>);

impl Board {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This balancer is in a fleet by this name; in none, without one. Nothing is known of it yet.
    pub(super) fn join(&self, name: Option<String>) {
        let standing = name.map(|name| Standing { name, ..Standing::default() });
        *self.state() = State { standing, ..State::default() };
    }

    /// The etcd is heard. Tells whether it was not before.
    pub(super) fn heard(&self, now: SystemTime) -> bool {
        let mut state = self.state();
        let Some(standing) = &mut state.standing else { return false };
        let is_news = !standing.connected;
        if is_news {
            (standing.connected, standing.since, standing.problem) = (true, Some(now), None);
        }
        is_news
    }

    /// It is not, for this reason. Tells whether it was before, or was never.
    pub(super) fn lost(&self, problem: String, now: SystemTime) -> bool {
        let mut state = self.state();
        let Some(standing) = &mut state.standing else { return false };
        let is_news = standing.connected || standing.since.is_none();
        if is_news {
            (standing.connected, standing.since) = (false, Some(now));
            standing.losses += 1;
        }
        standing.problem = Some(problem);
        is_news
    }

    /// What is wanted, and why something of it could not be written.
    pub(super) fn note(&self, orders: Orders, unwritten: Option<String>) {
        let mut state = self.state();
        state.unwritten = unwritten.filter(|_| orders.pending > 0);
        if let Some(standing) = &mut state.standing {
            standing.orders = orders;
        }
    }

    /// What is wrong with the keyring. Tells whether that is news.
    pub(super) fn note_keyring(&self, problem: Option<String>) -> bool {
        let mut state = self.state();
        let Some(standing) = &mut state.standing else { return false };
        let is_news = standing.keyring != problem;
        standing.keyring = problem;
        is_news
    }

    /// What is wrong with what is shared of the configuration.
    pub fn note_config(&self, problem: Option<String>) {
        if let Some(standing) = &mut self.state().standing {
            standing.config = problem;
        }
    }

    /// What this balancer says of itself.
    pub(super) fn say(&self, summary: Summary) {
        self.state().own = Some((summary, Instant::now()));
    }

    /// What a balancer of this name says.
    pub(super) fn see(&self, name: &str, summary: Summary) {
        let now = Instant::now();
        let mut state = self.state();
        let is_own = state.standing.as_ref().is_some_and(|standing| standing.name == name);
        if is_own {
            let is_other = state.own.as_ref().is_some_and(|(own, _)| own.id != summary.id);
            if is_other {
                // One alone is left by the process that this one has taken over from.
                state.twins = [state.twins[1], Some(now)];
            }
            return;
        }
        let has_room = state.others.len() < MOST_NODES || state.others.contains_key(name);
        if has_room {
            let known = Known { summary, heard: now, gone: false };
            state.others.insert(name.to_owned(), known);
        }
    }

    /// There is no balancer of this name any more.
    pub(super) fn miss(&self, name: &str) {
        if let Some(known) = self.state().others.get_mut(name) {
            known.gone = true;
        }
    }

    /// Only these are there.
    pub(super) fn miss_others(&self, names: &[&str]) {
        let mut state = self.state();
        state.others.retain(|_, known| !known.gone || known.heard.elapsed() < REMEMBERED);
        let gone = state.others.iter_mut().filter(|(name, _)| !names.contains(&&***name));
        gone.for_each(|(_, known)| known.gone = true);
    }

    /// How this balancer stands, if it is in a fleet.
    pub fn standing(&self) -> Option<Standing> {
        let state = self.state();
        let mut standing = state.standing.clone()?;
        standing.problem = standing.problem.or_else(|| state.unwritten.clone());
        let [first, second] = state.twins;
        standing.is_twin = first.zip(second).is_some_and(|(first, second)| {
            second.elapsed() < TWINS && second.duration_since(first) < TWINS
        });
        Some(standing)
    }

    /// All that are known, this one too, by name.
    pub fn nodes(&self) -> Vec<Node> {
        let now = Instant::now();
        let mut state = self.state();
        let lasts = |known: &Known| !known.gone || now - known.heard < REMEMBERED;
        state.others.retain(|_, known| lasts(known));
        let Some(standing) = &state.standing else { return Vec::new() };
        let own = state.own.as_ref().map(|(summary, at)| Node {
            name: standing.name.clone(),
            presence: Presence::Here,
            heard: now - *at,
            summary: summary.clone(),
        });
        let other = |(name, known): (&String, &Known)| Node {
            name: name.clone(),
            presence: match (known.gone, now - known.heard < STALE) {
                (true, _) => Presence::Gone,
                (false, true) => Presence::Fresh,
                (false, false) => Presence::Stale,
            },
            heard: now - known.heard,
            summary: known.summary.clone(),
        };
        let mut nodes: Vec<_> = own.into_iter().chain(state.others.iter().map(other)).collect();
        nodes.sort_by(|a, b| a.name.cmp(&b.name));
        nodes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(id: &str) -> Summary {
        Summary { id: id.to_owned(), ..Summary::default() }
    }

    #[test]
    fn who_is_gone_is_told_of_and_who_shares_a_name_is_found_out() {
        let board = Board::default();
        assert!(board.standing().is_none() && board.nodes().is_empty());
        board.join(Some("b".to_owned()));
        board.say(summary("1"));
        board.see("b", summary("1"));
        board.see("a", summary("2"));
        board.see("c", summary("3"));
        board.miss("c");
        let told = |board: &Board| {
            let row = |it: Node| format!("{} {}", it.name, it.presence.label());
            board.nodes().into_iter().map(row).collect::<Vec<_>>()
        };
        assert_eq!(told(&board), ["a fresh", "b here", "c gone"]);
        board.miss_others(&["b", "c"]);
        assert_eq!(told(&board), ["a gone", "b here", "c gone"]);
        board.see("b", summary("9"));
        assert!(!board.standing().unwrap().is_twin, "it may be the process before");
        board.see("b", summary("9"));
        assert!(board.standing().unwrap().is_twin);
        (0..MOST_NODES * 2).for_each(|n| board.see(&format!("n{n}"), summary("x")));
        assert_eq!(board.nodes().len(), MOST_NODES + 1);
    }

    #[test]
    fn a_loss_is_news_once() {
        let (board, now) = (Board::default(), SystemTime::now());
        board.join(Some("a".to_owned()));
        assert!(board.lost("refused".to_owned(), now), "it was never heard");
        assert!(!board.lost("late".to_owned(), now));
        assert_eq!(board.standing().unwrap().problem.as_deref(), Some("late"));
        assert!(board.heard(now) && !board.heard(now));
        let standing = board.standing().unwrap();
        assert_eq!((standing.connected, standing.losses, standing.problem), (true, 1, None));
        board.note(Orders { pending: 1, ..Orders::default() }, Some("denied".to_owned()));
        assert_eq!(board.standing().unwrap().problem.as_deref(), Some("denied"));
    }
}
