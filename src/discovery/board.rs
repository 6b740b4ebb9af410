//! What is told of the sources: when each was last heard, what it said, and what went wrong.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use crate::config::found::{Whose, asked};
use crate::config::types::Config;

/// One source.
#[derive(Debug, Clone, Default)]
pub struct Standing {
    /// Its key in the configuration.
    pub source: &'static str,
    /// When it last said something that was believed.
    pub heard: Option<SystemTime>,
    /// How many instances are known of it.
    pub instances: usize,
    /// How many more it names in a way that makes no sense; where one mistake spoils all, 0.
    pub ignored: usize,
    /// Why it is not believed, or not heard, since then.
    pub problem: Option<String>,
    /// How often it changed something.
    pub changes: u64,
    /// How often it could not be heard.
    pub failures: u64,
    /// How often it named too few, or too many, to be believed.
    pub refusals: u64,
}

/// All sources.
#[derive(Debug, Default)]
pub struct Board(Mutex<BTreeMap<Whose, Standing>>);

/// What became of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome<'a> {
    /// It names so many instances, as before.
    Same(usize),
    /// It names so many, others than before.
    Changed(usize),
    /// It was not believed, for this reason.
    Refused(&'a str),
    /// There was none, for this reason.
    Failed(&'a str),
}

impl Board {
    /// Has a row for each source of this configuration, and no others. Of those that are new,
    /// `known` says how many instances are known.
    pub fn follow(&self, config: &Config, known: impl Fn(&Whose) -> usize) {
        let mut rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut before = std::mem::take(&mut *rows);
        for (whose, discovery) in asked(config) {
            let source = discovery.source.word();
            let row = before.remove(&whose).filter(|row| row.source == source);
            let fresh = || Standing { source, instances: known(&whose), ..Standing::default() };
            rows.insert(whose.clone(), row.unwrap_or_else(fresh));
        }
    }

    /// Notes what became of a report. Tells whether that is news: the same trouble again is none.
    pub fn note(&self, whose: &Whose, outcome: Outcome<'_>, now: SystemTime) -> bool {
        let mut rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(row) = rows.get_mut(whose) else { return false };
        let problem = match outcome {
            Outcome::Same(count) | Outcome::Changed(count) => {
                row.heard = Some(now);
                row.instances = count;
                row.changes += u64::from(matches!(outcome, Outcome::Changed(_)));
                None
            }
            Outcome::Refused(problem) => {
                row.refusals += 1;
                Some(problem)
            }
            Outcome::Failed(problem) => {
                row.failures += 1;
                Some(problem)
            }
        };
        let is_news = row.problem.as_deref() != problem;
        row.problem = problem.map(str::to_owned);
        is_news
    }

    /// Notes how many of those that a report names are left out.
    pub fn note_ignored(&self, whose: &Whose, ignored: usize) {
        let mut rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(row) = rows.get_mut(whose) {
            row.ignored = ignored;
        }
    }

    /// Of one version.
    pub fn of(&self, whose: &Whose) -> Option<Standing> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(whose).cloned()
    }

    /// Of all.
    pub fn all(&self) -> Vec<(Whose, Standing)> {
        let rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        rows.iter().map(|(whose, row)| (whose.clone(), row.clone())).collect()
    }
}
