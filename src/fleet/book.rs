//! All that the fleet wants: what was heard of it, and what was said here and is not written yet.
//!
//! What is heard and what is said are joined, row by row, so that neither an outage nor a restart
//! loses a word. A row goes when it is gone from the etcd, but for what was not written there yet; of
//! an etcd that begins anew nothing is learnt but what it says. Pure: no clock, no network.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::row::{Row, RowError, Subject};
use crate::config::overlay::{Key, Overlay, Override, Shares};
use crate::etcd::{Change, Event, Pair};

/// Rows that are kept, and keys that are looked at.
pub(super) const MOST: usize = 20_000;
/// The version of the text; another one is refused rather than guessed at.
const FORMAT: u32 = 1;
/// Keys that make no sense and are remembered.
const STRANGE: usize = 100;
/// The longest key, and the longest complaint, that is repeated.
const SHOWN: usize = 200;

/// How far an etcd had come when it was last heard.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stand {
    /// Which etcd.
    pub(super) cluster: u64,
    /// How far.
    pub(super) revision: i64,
}

impl Stand {
    /// The later one of two that are of one etcd.
    fn later(self, other: Self) -> Self {
        Self { cluster: other.cluster, revision: self.revision.max(other.revision) }
    }

    /// Whether this is not what was heard before, a little later.
    fn is_anew_after(self, before: Self) -> bool {
        before.cluster != 0 && (self.cluster != before.cluster || self.revision < before.revision)
    }
}

/// A row.
#[derive(Debug, Clone, Default)]
struct Entry {
    row: Row,
    /// What stands in the etcd, and since which revision; nothing if nothing does.
    seen: Option<(i64, Row)>,
    /// Whether what stands there is not to be touched.
    is_newer: bool,
}

impl Entry {
    fn is_pending(&self) -> bool {
        self.seen.as_ref().map(|(_, seen)| seen) != Some(&self.row)
    }
}

/// What is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) subject: Subject,
    /// The revision of what it replaces; 0 for nothing.
    pub(super) revision: i64,
    pub(super) row: Row,
}

/// Everything that is wanted.
#[derive(Debug, Clone, Default)]
pub(super) struct Book {
    entries: BTreeMap<Subject, Entry>,
    stand: Stand,
    /// Keys that are left out, and why.
    strange: BTreeMap<String, String>,
    /// Whether something has changed since it was kept.
    is_to_keep: bool,
}

#[derive(Serialize, Deserialize)]
struct Document {
    format: u32,
    stand: Stand,
    rows: Vec<Line>,
}

#[derive(Serialize, Deserialize)]
struct Line {
    #[serde(flatten)]
    subject: Subject,
    row: Row,
    /// Whether it is not written in the etcd yet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pending: bool,
}

impl Book {
    /// What the overrides of a balancer that was alone said. It has heard nobody yet.
    pub(super) fn of_overlay(overlay: &Overlay, by: &str) -> Self {
        let mut book = Self::default();
        let nothing = Override::default();
        for it in overlay.rows() {
            book.want(&it.key, (&nothing, &it.wanted), (by, it.wanted.since));
        }
        for it in overlay.shares_rows() {
            book.share(&it.service, (None, Some(&it.wanted)), (by, it.wanted.since));
        }
        book
    }

    /// What is wanted, as a layer over a configuration.
    pub(super) fn overlay(&self) -> Overlay {
        let mut overlay = Overlay::default();
        for (subject, entry) in &self.entries {
            match subject {
                Subject::Instance(key) => overlay.set(key.clone(), entry.row.wanted()),
                Subject::Service { split } => {
                    overlay.set_shares(split.clone(), entry.row.shares());
                }
            }
        }
        overlay
    }

    /// From now on `after` is wanted of an instance where it was `before`. Whether there is room.
    pub(super) fn want(
        &mut self,
        key: &Key,
        words: (&Override, &Override),
        told: (&str, u64),
    ) -> bool {
        self.change(&Subject::Instance(key.clone()), |row| row.want(words, told))
    }

    /// The same of the versions of a service.
    pub(super) fn share(
        &mut self,
        service: &str,
        words: (Option<&Shares>, Option<&Shares>),
        told: (&str, u64),
    ) -> bool {
        self.change(&Subject::Service { split: service.to_owned() }, |row| row.share(words, told))
    }

    fn change(&mut self, subject: &Subject, change: impl FnOnce(&mut Row)) -> bool {
        if self.entries.len() >= MOST && !self.entries.contains_key(subject) {
            return false;
        }
        let entry = self.entries.entry(subject.clone()).or_default();
        change(&mut entry.row);
        self.is_to_keep = true;
        if entry.row.is_empty() {
            self.entries.remove(subject);
        }
        true
    }

    /// Takes what stands in the etcd; keys begin with `prefix`.
    pub(super) fn learn(&mut self, change: Change, prefix: &[u8], stand: Stand) {
        let events = match change {
            Change::Nothing => Vec::new(),
            Change::Some(events) => events,
            Change::All(pairs) => {
                self.forget_others(&pairs, prefix, stand);
                pairs.into_iter().map(Event::Put).collect()
            }
        };
        for event in events {
            match event {
                Event::Put(pair) => self.hear(&pair, prefix),
                Event::Delete(key) => self.lose(&key, prefix),
            }
        }
        // Of what is said in a quiet fleet nobody needs a copy.
        self.is_to_keep |= self.stand.cluster != stand.cluster;
        let is_anew = stand.is_anew_after(self.stand);
        self.stand = if is_anew { stand } else { self.stand.later(stand) };
    }

    /// All that is not among these is gone, unless nobody has taken it away.
    fn forget_others(&mut self, pairs: &[Pair], prefix: &[u8], stand: Stand) {
        let is_anew = stand.is_anew_after(self.stand);
        if is_anew {
            // Its revisions count anew, and nobody there has taken anything back.
            let entries = self.entries.values_mut();
            entries.for_each(|entry| (entry.seen, entry.is_newer) = (None, false));
        }
        let there: BTreeSet<Subject> =
            pairs.iter().filter_map(|it| subject(&it.key, prefix)).collect();
        let others = self.entries.keys().filter(|it| !there.contains(it)).cloned();
        for subject in others.collect::<Vec<_>>() {
            if !is_anew {
                self.forget(&subject);
            }
        }
        self.strange.clear();
    }

    /// What stands at one key.
    fn hear(&mut self, pair: &Pair, prefix: &[u8]) {
        let shown = || cut(&String::from_utf8_lossy(&pair.key));
        let Some(subject) = subject(&pair.key, prefix) else {
            return self.complain(shown(), "it names nobody");
        };
        let told = Row::of_text(&pair.value, &subject);
        if let Err(error) = &told {
            self.complain(shown(), &error.to_string());
        } else {
            self.strange.remove(&shown());
        }
        let is_newer = matches!(told, Err(RowError::Newer(_)));
        // Nothing is there that is worth to be kept.
        let row = told.unwrap_or_default();
        if row.is_empty() && !self.entries.contains_key(&subject) {
            return;
        }
        if self.entries.len() >= MOST && !self.entries.contains_key(&subject) {
            return self.complain(shown(), "there are too many");
        }
        self.is_to_keep = true;
        let entry = self.entries.entry(subject).or_default();
        // A watch may be behind what was written here.
        if entry.seen.as_ref().is_some_and(|(revision, _)| *revision > pair.revision) {
            return;
        }
        entry.row = entry.row.join(&row);
        entry.seen = Some((pair.revision, row));
        entry.is_newer = is_newer;
    }

    fn lose(&mut self, key: &[u8], prefix: &[u8]) {
        self.strange.remove(&cut(&String::from_utf8_lossy(key)));
        if let Some(subject) = subject(key, prefix) {
            self.forget(&subject);
        }
    }

    /// It is gone from the etcd, and stays only where it was not written there.
    fn forget(&mut self, subject: &Subject) {
        let Some(entry) = self.entries.get_mut(subject) else { return };
        self.is_to_keep = true;
        if let Some((_, seen)) = entry.seen.take() {
            entry.row = entry.row.without(&seen);
        }
        entry.is_newer = false;
        if entry.row.is_empty() {
            self.entries.remove(subject);
        }
    }

    fn complain(&mut self, key: String, why: &str) {
        if self.strange.len() < STRANGE || self.strange.contains_key(&key) {
            self.strange.insert(key, cut(why));
        }
    }

    /// What is to be written; of those that a newer balancer wrote only that they wait.
    pub(super) fn due(&self) -> Vec<Due> {
        let due = self.entries.iter().filter(|(_, it)| it.is_pending() && !it.is_newer);
        due.map(|(subject, entry)| Due {
            subject: subject.clone(),
            revision: entry.seen.as_ref().map_or(0, |(revision, _)| *revision),
            row: entry.row.clone(),
        })
        .collect()
    }

    /// This was written, with this revision.
    pub(super) fn written(&mut self, due: &Due, revision: i64) {
        if let Some(entry) = self.entries.get_mut(&due.subject) {
            entry.seen = Some((revision, due.row.clone()));
            self.stand.revision = self.stand.revision.max(revision);
            self.is_to_keep = true;
        }
    }

    /// This was not written, since this is there instead.
    pub(super) fn found(&mut self, due: &Due, pair: Option<&Pair>, prefix: &[u8]) {
        match pair {
            Some(pair) => self.hear(pair, prefix),
            None => self.forget(&due.subject),
        }
    }

    /// Whether what was said of these here is not written yet.
    pub(super) fn is_pending(&self, subject: &Subject) -> bool {
        self.entries.get(subject).is_some_and(Entry::is_pending)
    }

    /// Whether what stands there of it can't be read, since it is of a newer balancer.
    pub(super) fn is_newer(&self, subject: &Subject) -> bool {
        self.entries.get(subject).is_some_and(|it| it.is_newer)
    }

    /// How many rows are not written yet.
    pub(super) fn pending(&self) -> usize {
        self.entries.values().filter(|it| it.is_pending()).count()
    }

    /// How many say something.
    pub(super) fn len(&self) -> usize {
        self.entries.values().filter(|it| !it.row.is_over()).count()
    }

    /// Keys that are left out, and why.
    pub(super) fn strange(&self) -> &BTreeMap<String, String> {
        &self.strange
    }

    /// Whether there is nothing to keep.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.stand == Stand::default()
    }

    /// It is kept as it is.
    pub(super) fn keep(&mut self) {
        self.is_to_keep = false;
    }

    /// Whether something has changed since.
    pub(super) fn is_to_keep(&self) -> bool {
        self.is_to_keep
    }

    /// As text, for a file.
    pub(super) fn to_text(&self) -> String {
        let line = |(subject, entry): (&Subject, &Entry)| Line {
            subject: subject.clone(),
            row: entry.row.clone(),
            pending: entry.is_pending(),
        };
        let rows = self.entries.iter().map(line).collect();
        let document = Document { format: FORMAT, stand: self.stand, rows };
        let mut text = serde_json::to_string_pretty(&document)
            .expect("maps with keys of text and without floats have a text");
        text.push('\n');
        text
    }

    /// From such text.
    pub(super) fn of_text(text: &str) -> Result<Self, String> {
        let document: Document =
            serde_json::from_str(text).map_err(|error| format!("it is damaged: {error}"))?;
        if document.format != FORMAT {
            return Err(format!("it has format {}", document.format));
        }
        let mut book = Self { stand: document.stand, ..Self::default() };
        for Line { subject, row, pending } in document.rows.into_iter().take(MOST) {
            if row.is_sane_of(&subject) && !row.is_empty() && is_sane(&subject) {
                // Of which revision is found out when it is heard.
                let seen = (!pending).then(|| (0, row.clone()));
                book.entries.insert(subject, Entry { row, seen, is_newer: false });
            }
        }
        Ok(book)
    }
}

fn is_sane(subject: &Subject) -> bool {
    Subject::of_key(subject.to_key().as_bytes()).as_ref() == Some(subject)
}

fn subject(key: &[u8], prefix: &[u8]) -> Option<Subject> {
    Subject::of_key(key.strip_prefix(prefix)?)
}

/// Whoever wrote it may have written a book.
fn cut(text: &str) -> String {
    let mut told: String = text.chars().take(SHOWN).collect();
    if told.len() < text.len() {
        told.push_str("..");
    }
    told
}
