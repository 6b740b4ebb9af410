//! What a balancer has counted of its clients, look by look, and what that means for limits: the clients of
//! a drill that drives none, and of sessions and tunnels those of any drill on a running balancer. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use super::observe::row;
use super::scenario::{Measure, Value};
use super::verdict::{Evidence, Window};

/// Everything that was counted since the balancer began.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Counts {
    pub(super) requests: u64,
    /// Those that the balancer or an instance failed.
    pub(super) errors: u64,
    /// Re-homed sessions, by reason.
    pub(super) rehomes: BTreeMap<String, u64>,
    pub(super) opened: u64,
    /// Ends of tunnels, by cause.
    pub(super) ended: BTreeMap<String, u64>,
    /// Close codes that clients were sent.
    pub(super) closes: BTreeMap<String, u64>,
    /// How many took no longer than so many seconds; the last bound is infinite.
    pub(super) took: Vec<(f64, u64)>,
}

/// One look.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Watched {
    pub(super) at: Duration,
    pub(super) counts: Counts,
    /// Sessions by instance, as they were then.
    pub(super) sessions: BTreeMap<String, u64>,
}

/// Reads a look at the metrics of these versions; of all where none is named.
pub(super) fn read(text: &str, at: Duration, versions: &[(String, String)]) -> Watched {
    let mut found = Watched { at, ..Watched::default() };
    for (name, labels, value) in text.lines().filter_map(row) {
        let label = |key: &str| labels.get(key).cloned().unwrap_or_default();
        let version = (label("service"), label("version"));
        if !versions.is_empty() && !versions.contains(&version) {
            continue;
        }
        let (count, counts) = (value as u64, &mut found.counts);
        let add = |of: &mut BTreeMap<String, u64>, key: String| {
            if count > 0 {
                *of.entry(key).or_default() += count;
            }
        };
        match name {
            "burdock_client_requests_total" => counts.requests += count,
            "burdock_client_errors_total" => counts.errors += count,
            "burdock_tunnels_opened_total" => counts.opened += count,
            "burdock_rehomes_total" => add(&mut counts.rehomes, label("reason")),
            "burdock_tunnels_ended_total" => add(&mut counts.ended, label("cause")),
            "burdock_tunnel_closes_total"
                if label("from") != "client" && label("code") != "none" =>
            {
                add(&mut counts.closes, label("code"));
            }
            "burdock_client_request_duration_seconds_bucket" => {
                let bound = label("le").parse().unwrap_or(f64::INFINITY);
                match counts.took.iter_mut().find(|(known, _)| *known == bound) {
                    Some((_, took)) => *took += count,
                    None => counts.took.push((bound, count)),
                }
            }
            "burdock_instance_sessions" => {
                let id = format!("{}/{}/{}", version.0, version.1, label("instance"));
                *found.sessions.entry(id).or_default() += count;
            }
            _ => {}
        }
    }
    found
}

impl Counts {
    /// What came between a look and this one.
    pub(super) fn since(&self, before: &Self) -> Self {
        let less = |now: &BTreeMap<String, u64>, before: &BTreeMap<String, u64>| {
            let left = now.iter().map(|(key, count)| {
                let known = before.get(key).copied().unwrap_or_default();
                (key.clone(), count.saturating_sub(known))
            });
            left.filter(|(_, count)| *count > 0).collect()
        };
        let took = |bound: f64| {
            let known = before.took.iter().find(|(known, _)| *known == bound);
            known.map(|(_, count)| *count).unwrap_or_default()
        };
        Self {
            requests: self.requests.saturating_sub(before.requests),
            errors: self.errors.saturating_sub(before.errors),
            rehomes: less(&self.rehomes, &before.rehomes),
            opened: self.opened.saturating_sub(before.opened),
            ended: less(&self.ended, &before.ended),
            closes: less(&self.closes, &before.closes),
            took: self.took.iter().map(|(b, n)| (*b, n.saturating_sub(took(*b)))).collect(),
        }
    }

    pub(super) fn moved(&self) -> u64 {
        self.rehomes.values().sum()
    }

    /// The smallest that so many percent don't exceed, as far as the bounds tell: evenly spread between two
    /// of them.
    pub(super) fn percentile(&self, percent: u64) -> Option<Duration> {
        let all = self.took.iter().map(|(_, count)| *count).max().unwrap_or_default();
        let rank = (all * percent).div_ceil(100).max(1);
        let place = self.took.iter().position(|(_, count)| *count >= rank).filter(|_| all > 0)?;
        let (below, under) = match place.checked_sub(1) {
            Some(before) => self.took[before],
            None => (0.0, 0),
        };
        let (bound, upto) = self.took[place];
        let bound = if bound.is_finite() { bound } else { below };
        let part = (rank - under) as f64 / (upto - under).max(1) as f64;
        Some(Duration::from_secs_f64(below + (bound - below) * part))
    }
}

/// What came from one look to the next, with the times of both.
pub(super) fn steps(watched: &[Watched]) -> impl Iterator<Item = (Duration, Duration, Counts)> {
    watched.windows(2).map(|pair| {
        let [before, now] = pair else { return Default::default() };
        (before.at, now.at, now.counts.since(&before.counts))
    })
}

/// What came in this time.
pub(super) fn within(watched: &[Watched], window: Window) -> Counts {
    let until = |at: Duration| watched.iter().rfind(|look| look.at <= at).or(watched.first());
    match (until(window.from), until(window.to)) {
        (Some(before), Some(now)) => now.counts.since(&before.counts),
        _ => Counts::default(),
    }
}

impl Evidence<'_> {
    /// What there was of it by the balancer's own counts, and how many a share is of; nothing where the
    /// drill's own clients say more.
    pub(super) fn of_real(
        &self,
        watched: &[Watched],
        window: Window,
        measure: Measure,
    ) -> Option<(Option<Value>, u64)> {
        let counts = within(watched, window);
        let drives = self.scenario.load.is_any();
        let in_window = |(_, at, _): &(Duration, Duration, Counts)| {
            window.from < *at && *at <= window.to.max(window.from)
        };
        let last = |what: fn(&Counts) -> u64| {
            let steps = steps(watched).filter(in_window);
            steps.filter(|(.., step)| what(step) > 0).map(|(_, at, _)| at - window.from).last()
        };
        let count = |count: u64| Some(Value::Count(count));
        let time = |time: Option<Duration>| time.map(Value::Time);
        Some(match measure {
            Measure::Moved => (count(counts.moved()), self.real_sessions(watched)),
            Measure::Needless => {
                let needless = self.needless_of_real(watched, window);
                (count(needless), self.real_sessions(watched))
            }
            Measure::TunnelsEnded => (count(counts.ended.values().sum()), counts.requests),
            Measure::Closed(code) => {
                let sent = counts.closes.get(&code.to_string()).copied();
                (count(sent.unwrap_or_default()), counts.requests)
            }
            Measure::RehomeWithin => (time(last(Counts::moved)), 0),
            Measure::Errors if !drives => (count(counts.errors), counts.requests),
            Measure::RecoverWithin if !drives => {
                (time(self.back_to_normal(window, last(|counts| counts.errors))), 0)
            }
            Measure::P50 if !drives => (time(counts.percentile(50)), 0),
            Measure::P90 if !drives => (time(counts.percentile(90)), 0),
            Measure::P99 if !drives => (time(counts.percentile(99)), 0),
            _ => return None,
        })
    }

    /// The most that there were at once.
    pub(super) fn real_sessions(&self, watched: &[Watched]) -> u64 {
        watched.iter().map(|look| look.sessions.values().sum()).max().unwrap_or_default()
    }

    /// Moves while nobody had a fault, nor had one shortly before.
    pub(super) fn needless_of_real(&self, watched: &[Watched], window: Window) -> u64 {
        let settle = self.scenario.settle;
        let explained = |from: Duration, at: Duration| {
            self.impaired
                .iter()
                .any(|it| it.from <= at && it.until.is_none_or(|until| from <= until + settle))
        };
        let steps = steps(watched).filter(|(_, at, _)| window.from < *at && *at <= window.to);
        steps.filter(|(from, at, _)| !explained(*from, *at)).map(|(.., it)| it.moved()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(at: u64, text: &str) -> Watched {
        read(text, Duration::from_secs(at), &[("s".to_owned(), "v".to_owned())])
    }

    #[test]
    fn counts_are_of_the_versions_that_are_meant_and_of_the_time_between() {
        let text = |requests: u64, rehomed: u64| {
            format!(
                "burdock_client_requests_total{{service=\"s\",version=\"v\",class=\"2xx\"}} {requests}\n\
                 burdock_client_requests_total{{service=\"s\",version=\"v\",class=\"5xx\"}} 1\n\
                 burdock_client_requests_total{{service=\"t\",version=\"v\",class=\"2xx\"}} 1000\n\
                 burdock_rehomes_total{{service=\"s\",version=\"v\",reason=\"dead\"}} {rehomed}\n\
                 burdock_tunnel_closes_total{{service=\"s\",version=\"v\",from=\"burdock\",code=\"1014\"}} {rehomed}\n\
                 burdock_tunnel_closes_total{{service=\"s\",version=\"v\",from=\"client\",code=\"1000\"}} 5\n"
            )
        };
        let looks = [look(1, &text(10, 0)), look(2, &text(30, 2)), look(3, &text(35, 2))];
        let of = |from, to| {
            let [from, to] = [from, to].map(Duration::from_secs);
            within(&looks, Window { from, to })
        };
        assert_eq!((of(0, 9).requests, of(1, 2).requests, of(2, 9).requests), (25, 20, 5));
        assert_eq!((of(1, 2).moved(), of(2, 3).moved()), (2, 0));
        assert_eq!(of(0, 9).closes, BTreeMap::from([("1014".to_owned(), 2)]));
    }

    #[test]
    fn a_percentile_lies_within_its_bounds() {
        let counts = |took: &[(f64, u64)]| Counts { took: took.to_vec(), ..Counts::default() };
        let of = |took: &[(f64, u64)], percent| {
            counts(took).percentile(percent).map(|time| time.as_millis())
        };
        let some = [(0.1, 50), (0.2, 90), (f64::INFINITY, 100)];
        assert_eq!(
            (of(&some, 50), of(&some, 70), of(&some, 99)),
            (Some(100), Some(150), Some(200))
        );
        assert_eq!(of(&[(0.1, 0), (f64::INFINITY, 0)], 99), None);
        assert_eq!(of(&[], 99), None);
    }
}
