//! A stream of changes of all keys that begin alike, from one revision on. It ends with its connection.

use super::wire::{self, Header, Message, Pair};
use super::{EtcdError, Refusal};
use crate::outward::Lines;

/// What has happened to a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// It is there, with this.
    Put(Pair),
    /// It is gone: taken away, or its lease has run out.
    Delete(Vec<u8>),
}

impl Event {
    /// Bytes that it holds.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Put(pair) => pair.key.len() + pair.value.len(),
            Self::Delete(key) => key.len(),
        }
    }
}

/// What has happened until a revision; nothing, if that is all there is to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// All is told until here.
    pub revision: i64,
    /// In order.
    pub events: Vec<Event>,
}

/// A watch.
#[derive(Debug)]
pub struct Watch {
    lines: Lines,
    place: String,
    header: Header,
}

impl Watch {
    /// Begins, once a member says that it does.
    pub(super) async fn begun(mut lines: Lines, place: String) -> Result<Self, EtcdError> {
        let line = line(&mut lines, &place).await?;
        match wire::watched(&line) {
            Ok(Message::Created(header)) => Ok(Self { lines, place, header }),
            // It may have no token any more, which is found out only here.
            Ok(Message::Ended(refusal)) => Err(EtcdError::Refused(place, refusal)),
            Ok(Message::Compacted(revision)) => Err(EtcdError::Compacted(place, revision)),
            Ok(Message::Changed(_)) => {
                Err(EtcdError::Nonsense(place, "changes of a watch that has not begun".to_owned()))
            }
            Err(why) => Err(EtcdError::Nonsense(place, why)),
        }
    }

    /// The cluster that is watched, and how far its member had come when this began.
    pub(super) fn header(&self) -> Header {
        self.header
    }

    pub(super) fn nonsense(&self, why: &str) -> EtcdError {
        EtcdError::Nonsense(self.place.clone(), why.to_owned())
    }

    /// What happens next. Nothing is lost when this is given up half way.
    pub async fn next(&mut self) -> Result<Batch, EtcdError> {
        let line = line(&mut self.lines, &self.place).await?;
        let place = || self.place.clone();
        match wire::watched(&line) {
            Ok(Message::Changed(batch)) => Ok(batch),
            Ok(Message::Compacted(revision)) => Err(EtcdError::Compacted(place(), revision)),
            Ok(Message::Ended(Refusal { message, .. })) => Err(EtcdError::Ended(place(), message)),
            Ok(Message::Created(_)) => Err(self.nonsense("a second watch begins")),
            Err(why) => Err(self.nonsense(&why)),
        }
    }
}

async fn line(lines: &mut Lines, place: &str) -> Result<bytes::Bytes, EtcdError> {
    loop {
        match lines.next().await {
            Ok(Some(line)) if line.is_empty() => {}
            Ok(Some(line)) => return Ok(line),
            Ok(None) => {
                return Err(EtcdError::Ended(place.to_owned(), "the answer has ended".to_owned()));
            }
            Err(error) => return Err(EtcdError::Unanswered(place.to_owned(), error)),
        }
    }
}
