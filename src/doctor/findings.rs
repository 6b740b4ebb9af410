//! What the doctor has found and still holds to be so.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::Finding;
use crate::config::places::Places;

/// A finding is told for so long after it was last seen: a quiet hour is no cure.
const HOLD: Duration = Duration::from_secs(3600);

#[derive(Debug, Clone)]
struct Known {
    finding: Finding,
    since: SystemTime,
    seen: Instant,
}

#[derive(Debug, Default)]
struct Held {
    known: Vec<Known>,
    places: Arc<Places>,
}

/// What was found so far.
#[derive(Debug, Default)]
pub struct Findings(Mutex<Held>);

/// What a look has changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct News {
    /// What was not known.
    pub raised: Vec<Finding>,
    /// What is no longer so.
    pub cleared: Vec<Finding>,
}

impl Findings {
    /// All of it, with since when.
    pub fn all(&self) -> Vec<(Finding, SystemTime)> {
        self.held().known.iter().map(|it| (it.finding.clone(), it.since)).collect()
    }

    /// Where the keys of the configuration are from now on.
    pub fn locate(&self, places: Places) {
        self.held().places = Arc::new(places);
    }

    /// Where they are.
    pub fn places(&self) -> Arc<Places> {
        Arc::clone(&self.held().places)
    }

    /// Takes over what a look has found. Of a version that is not as it was, nothing is held: whether it is
    /// cured shows in its configuration first.
    pub fn take(
        &self,
        found: Vec<Finding>,
        is_as_it_was: impl Fn(&Finding) -> bool,
        (now, time): (Instant, SystemTime),
    ) -> News {
        let mut held = self.held();
        let same = |a: &Finding, b: &Finding| {
            (a.code, &a.service, &a.version) == (b.code, &b.service, &b.version)
        };
        let is_held = |it: &Known| {
            let is_seen = found.iter().any(|new| same(&it.finding, new));
            let lately = now.saturating_duration_since(it.seen) < HOLD;
            is_seen || lately && is_as_it_was(&it.finding)
        };
        let (kept, gone) = std::mem::take(&mut held.known).into_iter().partition(is_held);
        held.known = kept;
        let mut news = News {
            raised: Vec::new(),
            cleared: gone.into_iter().map(|it: Known| it.finding).collect(),
        };
        for finding in found {
            match held.known.iter_mut().find(|it| same(&it.finding, &finding)) {
                Some(known) => (known.finding, known.seen) = (finding, now),
                None => {
                    news.raised.push(finding.clone());
                    held.known.push(Known { finding, since: time, seen: now });
                }
            }
        }
        news
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(count: u64) -> Finding {
        Finding {
            code: "sid_unknown",
            service: "chat".into(),
            version: "v1".into(),
            message: String::new(),
            cure: String::new(),
            count,
        }
    }

    #[test]
    fn a_finding_is_raised_once_held_for_a_while_and_cleared_once() {
        let findings = Findings::default();
        let (begin, first) = (Instant::now(), SystemTime::UNIX_EPOCH);
        let at = |seconds| (begin + Duration::from_secs(seconds), SystemTime::now());
        let raised = |count| News { raised: vec![found(count)], cleared: Vec::new() };
        assert_eq!(findings.take(vec![found(1)], |_| true, (begin, first)), raised(1));
        assert_eq!(findings.take(vec![found(5)], |_| true, at(10)), News::default());
        assert_eq!(findings.take(Vec::new(), |_| true, at(3609)), News::default(), "a quiet hour");
        assert_eq!(findings.all(), [(found(5), first)]);
        let cleared = News { raised: Vec::new(), cleared: vec![found(5)] };
        assert_eq!(findings.take(Vec::new(), |_| true, at(3610)), cleared);
        assert_eq!(findings.all(), []);
        assert_eq!(findings.take(vec![found(6)], |_| true, at(3611)), raised(6));
        let cured = findings.take(Vec::new(), |_| false, at(3612));
        assert_eq!(cured.cleared, [found(6)], "a cure needs no hour");
    }
}
