//! What a drill has done so far, and who was not what it should be meanwhile.

use std::sync::Arc;
use std::time::Duration;

use super::plan::Id;
use super::record::Record;

/// A time in which an instance, or all where none is named, was not what it should be.
#[derive(Debug, Clone)]
pub(super) struct Impaired {
    /// As an [`Id`] is written; `None` for the balancer itself.
    pub(super) instance: Option<String>,
    pub(super) what: String,
    pub(super) from: Duration,
    /// `None` where it has not ended.
    pub(super) until: Option<Duration>,
}

/// Something that was done.
#[derive(Debug, Clone)]
pub(super) struct Done {
    /// When it was to be done.
    pub(super) planned: Duration,
    pub(super) at: Duration,
    pub(super) what: String,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Diary {
    pub(super) record: Arc<Record>,
    pub(super) impaired: Vec<Impaired>,
    pub(super) done: Vec<Done>,
}

impl Diary {
    pub(super) fn new(record: Arc<Record>) -> Self {
        Self { record, impaired: Vec::new(), done: Vec::new() }
    }

    /// Something was done just now.
    pub(super) fn tell(&mut self, planned: Duration, what: String) {
        self.done.push(Done { planned, at: self.record.now(), what });
    }

    /// Somebody is not what it should be from now on.
    pub(super) fn impair(&mut self, id: Option<&Id>, what: &str) {
        let (instance, from) = (id.map(Id::to_string), self.record.now());
        self.impaired.push(Impaired { instance, what: what.to_owned(), from, until: None });
    }

    /// In this way no longer.
    pub(super) fn over(&mut self, id: Option<&Id>, what: &str) {
        let (id, now) = (id.map(Id::to_string), self.record.now());
        let open = self.impaired.iter_mut().filter(|it| it.until.is_none());
        open.filter(|it| it.instance == id && it.what == what).for_each(|it| it.until = Some(now));
    }
}

/// Instances in a line.
pub(super) fn names(who: &[Id]) -> String {
    let names: Vec<_> = who.iter().map(|id| &*id.name).collect();
    names.join(", ")
}
