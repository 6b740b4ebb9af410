//! What the fleet wants of one instance, or of the versions of one service: the form in which it
//! stands at a key.
//!
//! Each thing that is wanted has its own "since", and the newest word counts, whoever hears it when:
//! `Row::join` gives the same in whatever order rows come. What is taken back stays as a word that
//! says nothing, so that an older one doesn't come back. Pure: no clock, no network.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::config::overlay::{Added, END_OF_TIME, Key, MAX_WEIGHT, Override, Shares};
use crate::config::types::State;
use crate::config::{is_address, is_name};

/// The version of the text; a newer one is left alone.
const FORMAT: u32 = 1;
/// The longest text of a row.
const LONGEST: usize = 16 * 1024;
/// No clock is so wrong; and there is room for words that come after such a one.
const LATEST: u64 = END_OF_TIME / 2;
/// Where instances stand below the fleet's prefix, and where services do.
const PLACES: [&str; 2] = ["instances/", "splits/"];

/// Who a row is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Subject {
    /// An instance.
    Instance(Key),
    /// The versions of a service.
    Service {
        /// Its name.
        split: String,
    },
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Instance(key) => key.fmt(f),
            Self::Service { split } => f.write_str(split),
        }
    }
}

impl Subject {
    /// Its key below the prefix of orders. No name has a slash.
    pub(super) fn to_key(&self) -> String {
        match self {
            Self::Instance(_) => format!("{}{self}", PLACES[0]),
            Self::Service { .. } => format!("{}{self}", PLACES[1]),
        }
    }

    /// Whose key that is.
    pub(super) fn of_key(key: &[u8]) -> Option<Self> {
        let key = std::str::from_utf8(key).ok()?;
        if let Some(service) = key.strip_prefix(PLACES[1]) {
            return is_name(service).then(|| Self::Service { split: service.to_owned() });
        }
        let parts: Vec<&str> = key.strip_prefix(PLACES[0])?.split('/').collect();
        let [service, version, name] = parts[..] else { return None };
        let is_sane = [service, version, name].into_iter().all(is_name);
        is_sane.then(|| {
            let [service, version, name] = [service, version, name].map(str::to_owned);
            Self::Instance(Key { service, version, name })
        })
    }
}

/// A word on one thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said<T> {
    /// What is wanted; nothing is what the configuration says.
    pub value: Option<T>,
    /// When it was said, in milliseconds since the Unix epoch.
    pub since: u64,
    /// At which balancer.
    #[serde(default)]
    pub by: String,
}

/// A state, and when its drain ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Steered {
    /// Nothing where only the end of a drain is wanted.
    #[serde(
        default,
        with = "crate::config::overlay::word",
        skip_serializing_if = "Option::is_none"
    )]
    pub state: Option<State>,
    /// In milliseconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<u64>,
}

/// All that is said of one subject.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<Said<Steered>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    weight: Option<Said<u32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    added: Option<Said<Added>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    split: Option<Said<BTreeMap<String, u32>>>,
}

/// Why a text is no row.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum RowError {
    /// Another one wrote it, who knows more.
    #[error("it has format {0}, and this version of Burdock reads format {FORMAT}")]
    Newer(u32),
    /// Nobody should have written it.
    #[error("it makes no sense: {0}")]
    Senseless(String),
}

#[derive(Serialize, Deserialize)]
struct Document {
    format: u32,
    #[serde(flatten)]
    row: Row,
}

impl Row {
    /// As it stands at a key.
    pub(super) fn to_text(&self) -> Vec<u8> {
        serde_json::to_vec(&Document { format: FORMAT, row: self.clone() })
            .expect("maps with keys of text and without floats have a text")
    }

    /// From such text.
    pub(super) fn of_text(text: &[u8], subject: &Subject) -> Result<Self, RowError> {
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let senseless = |why: &dyn std::fmt::Display| RowError::Senseless(why.to_string());
        if text.len() > LONGEST {
            return Err(senseless(&format_args!("it has more than {LONGEST} bytes")));
        }
        let wrong = |error: serde_json::Error| senseless(&error);
        let Format { format } = serde_json::from_slice(text).map_err(wrong)?;
        match format {
            FORMAT => {}
            newer if newer > FORMAT => return Err(RowError::Newer(newer)),
            other => return Err(senseless(&format_args!("it has format {other}"))),
        }
        let Document { row, .. } = serde_json::from_slice(text).map_err(wrong)?;
        match row.is_sane_of(subject) {
            true => Ok(row),
            false => Err(senseless(&"nobody can want that")),
        }
    }

    /// Whether a balancer could have been asked for this.
    pub(super) fn is_sane_of(&self, subject: &Subject) -> bool {
        let is_of_service = matches!(subject, Subject::Service { .. });
        let is_of_it = match is_of_service {
            true => self.state.is_none() && self.weight.is_none() && self.added.is_none(),
            false => self.split.is_none(),
        };
        is_of_it && self.is_sane()
    }

    fn is_sane(&self) -> bool {
        let Self { state, weight, added, split } = self;
        is_fine(state.as_ref(), |it| it.deadline.is_none_or(|deadline| deadline < END_OF_TIME))
            && is_fine(weight.as_ref(), |weight| *weight <= MAX_WEIGHT)
            && is_fine(added.as_ref(), |it| is_address(&it.address) && it.weight <= MAX_WEIGHT)
            && is_fine(split.as_ref(), |it| {
                it.keys().all(|name| is_name(name))
                    && Shares { allocations: it.clone(), since: 0 }.is_sane()
            })
    }

    /// Both, of each thing the newer word.
    pub(super) fn join(&self, other: &Self) -> Self {
        Self {
            state: newer(self.state.as_ref(), other.state.as_ref()),
            weight: newer(self.weight.as_ref(), other.weight.as_ref()),
            added: newer(self.added.as_ref(), other.added.as_ref()),
            split: newer(self.split.as_ref(), other.split.as_ref()),
        }
    }

    /// What of this is not in `other`.
    pub(super) fn without(&self, other: &Self) -> Self {
        let Self { state, weight, added, split } = self.clone();
        Self {
            state: state.filter(|it| other.state.as_ref() != Some(it)),
            weight: weight.filter(|it| other.weight.as_ref() != Some(it)),
            added: added.filter(|it| other.added.as_ref() != Some(it)),
            split: split.filter(|it| other.split.as_ref() != Some(it)),
        }
    }

    /// Whether nothing was ever said.
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether all that was said is taken back.
    pub(super) fn is_over(&self) -> bool {
        fn is_over<T>(said: Option<&Said<T>>) -> bool {
            said.is_none_or(|said| said.value.is_none())
        }
        is_over(self.state.as_ref())
            && is_over(self.weight.as_ref())
            && is_over(self.added.as_ref())
            && is_over(self.split.as_ref())
    }

    /// What is wanted of an instance by this.
    pub(super) fn wanted(&self) -> Override {
        let steered = self.state.as_ref().and_then(|said| said.value.clone());
        let instants = [
            self.state.as_ref().map(|it| it.since),
            self.weight.as_ref().map(|it| it.since),
            self.added.as_ref().map(|it| it.since),
        ];
        Override {
            state: steered.as_ref().and_then(|it| it.state),
            deadline: steered.and_then(|it| it.deadline),
            weight: self.weight.as_ref().and_then(|it| it.value),
            added: self.added.as_ref().and_then(|it| it.value.clone()),
            since: instants.into_iter().flatten().max().unwrap_or_default(),
        }
    }

    /// What is wanted of the versions of a service by this.
    pub(super) fn shares(&self) -> Option<Shares> {
        let said = self.split.as_ref()?;
        Some(Shares { allocations: said.value.clone()?, since: said.since })
    }

    /// From now on `after` is wanted of an instance where it was `before`.
    pub(super) fn want(&mut self, (before, after): (&Override, &Override), (by, now): (&str, u64)) {
        let steered = |it: &Override| {
            let Override { state, deadline, .. } = *it;
            (state.is_some() || deadline.is_some()).then_some(Steered { state, deadline })
        };
        say(&mut self.state, (steered(before), steered(after)), (by, now));
        say(&mut self.weight, (before.weight, after.weight), (by, now));
        say(&mut self.added, (before.added.clone(), after.added.clone()), (by, now));
    }

    /// The same of the versions of a service.
    pub(super) fn share(
        &mut self,
        (before, after): (Option<&Shares>, Option<&Shares>),
        told: (&str, u64),
    ) {
        let weights = |shares: Option<&Shares>| shares.map(|it| it.allocations.clone());
        say(&mut self.split, (weights(before), weights(after)), told);
    }
}

fn is_fine<T>(said: Option<&Said<T>>, value: impl Fn(&T) -> bool) -> bool {
    said.is_none_or(|said| {
        let by = said.by.is_empty() || is_name(&said.by);
        by && said.since <= LATEST && said.value.as_ref().is_none_or(value)
    })
}

/// Of two words from the same millisecond everybody has to choose the same.
fn newer<T: Clone + Serialize>(one: Option<&Said<T>>, other: Option<&Said<T>>) -> Option<Said<T>> {
    let rank = |said: &Said<T>| (said.since, serde_json::to_string(said).unwrap_or_default());
    match (one, other) {
        (Some(one), Some(other)) => {
            Some(if rank(one) >= rank(other) { one } else { other }.clone())
        }
        (one, other) => one.or(other).cloned(),
    }
}

/// Whoever speaks has heard what was said before, even where the clock of whoever said it is ahead.
fn say<T: PartialEq>(
    said: &mut Option<Said<T>>,
    (before, after): (Option<T>, Option<T>),
    (by, now): (&str, u64),
) {
    if before != after {
        let since = said.as_ref().map_or(now, |said| now.max(said.since + 1));
        *said = Some(Said { value: after, since, by: by.to_owned() });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn instance() -> Subject {
        let [service, version, name] = ["s", "v", "x"].map(str::to_owned);
        Subject::Instance(Key { service, version, name })
    }

    fn weighing(weight: Option<u32>, now: u64) -> Row {
        let mut row = Row::default();
        let before = Override { weight: Some(77), ..Override::default() };
        let after = Override { weight, ..Override::default() };
        row.want((&before, &after), ("a", now));
        row
    }

    fn rows() -> impl Strategy<Value = Row> {
        let state = prop_oneof![
            Just(None),
            Just(Some(State::Draining)),
            Just(Some(State::Active)),
            Just(Some(State::Disabled))
        ];
        let one = (state, proptest::option::of(0..3_u32), 0..4_u64, 0..4_u64, "[ab]");
        one.prop_map(|(state, weight, first, second, by)| {
            let mut row = Row::default();
            let other = Override { weight: Some(9), deadline: Some(1), ..Override::default() };
            row.want((&other, &Override { state, ..other.clone() }), (&by, first));
            row.want((&other, &Override { weight, ..other.clone() }), (&by, second));
            row
        })
    }

    proptest! {
        #[test]
        fn what_is_heard_in_whatever_order_comes_to_the_same(a in rows(), b in rows(), c in rows()) {
            prop_assert_eq!(a.join(&b), b.join(&a));
            prop_assert_eq!(a.join(&b).join(&c), a.join(&b.join(&c)));
            prop_assert_eq!(a.join(&a), a.clone());
            let all = a.join(&b);
            prop_assert_eq!(all.join(&b), all.clone());
            prop_assert_eq!(all.without(&b).join(&b), all);
        }

        #[test]
        fn what_is_written_is_read(row in rows()) {
            prop_assert_eq!(Row::of_text(&row.to_text(), &instance()).unwrap(), row);
        }

        #[test]
        fn whatever_stands_there_is_no_harm(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Row::of_text(&text, &instance());
            let _ = Subject::of_key(&text);
        }
    }

    #[test]
    fn the_newest_word_counts_and_a_clock_that_is_behind_is_no_harm() {
        let mut row = weighing(Some(5), 1000);
        let before = row.wanted();
        row.want((&before, &Override { weight: None, ..before.clone() }), ("b", 10));
        let later = row.join(&weighing(Some(5), 1000));
        assert_eq!((later.wanted().weight, later.wanted().since), (None, 1001));
        assert!(later.is_over() && !later.is_empty());
    }

    #[test]
    fn a_weight_and_a_state_from_two_operators_both_count() {
        let mut state = Row::default();
        let drains =
            Override { state: Some(State::Draining), deadline: Some(9), ..Override::default() };
        state.want((&Override::default(), &drains), ("b", 5));
        let both = weighing(Some(3), 6).join(&state).wanted();
        assert_eq!((both.state, both.deadline, both.weight), (drains.state, Some(9), Some(3)));
    }

    #[test]
    fn keys_are_those_of_names() {
        let key = Key { service: "s".into(), version: "v1".into(), name: "[::1]:80".into() };
        for subject in [Subject::Instance(key), Subject::Service { split: "chat".into() }] {
            assert_eq!(Subject::of_key(subject.to_key().as_bytes()), Some(subject));
        }
        for key in ["", "x", "instances/a/b", "instances/a/b/c/d", "instances/a//b", "splits/a/b"] {
            assert_eq!(Subject::of_key(key.as_bytes()), None, "{key}");
        }
    }

    #[test]
    fn what_nobody_can_want_is_told_from_what_is_newer() {
        for text in [
            "",
            "{}",
            "{\"format\":0}",
            "[]",
            "{\"format\":1,\"weight\":{\"value\":1001,\"since\":1}}",
            "{\"format\":1,\"weight\":{\"value\":1,\"since\":253402300800000}}",
            "{\"format\":1,\"weight\":{\"value\":1,\"since\":1,\"by\":\"a b\"}}",
            "{\"format\":1,\"state\":{\"value\":{\"state\":\"gone\"},\"since\":1}}",
            "{\"format\":1,\"added\":{\"value\":{\"address\":\"x\",\"weight\":1},\"since\":1}}",
            "{\"format\":1,\"split\":{\"value\":{\"v1\":1},\"since\":1}}",
        ] {
            let told = Row::of_text(text.as_bytes(), &instance());
            assert!(matches!(told, Err(RowError::Senseless(_))), "{text}: {told:?}");
        }
        let service = Subject::Service { split: "s".to_owned() };
        let split = |weight: u32| {
            format!("{{\"format\":1,\"split\":{{\"value\":{{\"v1\":{weight}}},\"since\":1}}}}")
        };
        assert!(Row::of_text(split(0).as_bytes(), &service).is_err());
        assert!(Row::of_text(split(1).as_bytes(), &service).unwrap().shares().is_some());
        let weight = b"{\"format\":1,\"weight\":{\"value\":1,\"since\":1}}";
        assert!(Row::of_text(weight, &service).is_err());
        let newer = Row::of_text(b"{\"format\":2,\"weight\":7}", &instance());
        assert_eq!(newer, Err(RowError::Newer(2)));
    }
}
