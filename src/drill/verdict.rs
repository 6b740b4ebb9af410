//! What the notes mean: each limit with what was measured. Pure: notes in, verdict out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::diary::Impaired;
use super::observe::Seen;
use super::plan::Plan;
use super::record::{End, Flaw, Kind, Move, Name, Notes, Sample, Trouble};
use super::scenario::{Limit, Measure, Scenario, Value};
use super::watched::Watched;

/// Everything that a verdict is made of.
#[derive(Debug)]
pub(super) struct Evidence<'a> {
    pub(super) scenario: &'a Scenario,
    pub(super) plan: &'a Plan,
    pub(super) notes: &'a Notes,
    pub(super) seen: &'a [Seen],
    pub(super) impaired: &'a [Impaired],
    /// Things that were done more than once.
    pub(super) repeated: u64,
    /// What share of new sessions each instance is to get, by its weight.
    pub(super) weights: &'a BTreeMap<String, u32>,
    /// What the balancer counted of real clients, where it was watched.
    pub(super) watched: Option<&'a [Watched]>,
}

/// One limit, held against what happened.
#[derive(Debug, Clone)]
pub(super) struct Finding {
    /// The index of its step; `None` for the whole drill.
    pub(super) step: Option<usize>,
    pub(super) limit: Limit,
    /// `None` where there was nothing to measure.
    pub(super) measured: Option<Value>,
    pub(super) is_met: bool,
}

/// A time that a limit looks at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    pub(super) from: Duration,
    pub(super) to: Duration,
}

impl Window {
    fn has(self, at: Duration) -> bool {
        self.from <= at && at < self.to
    }
}

impl Evidence<'_> {
    /// Every limit of the scenario, those of the whole drill first.
    pub(super) fn judge(&self) -> Vec<Finding> {
        // What ends after the last request was due still belongs to the drill.
        let whole = Window { from: Duration::ZERO, to: Duration::MAX };
        let overall = self.scenario.limits.iter().map(|limit| self.finding(None, whole, limit));
        let steps = self.scenario.steps.iter().zip(&self.plan.windows).enumerate();
        let of_steps = steps.flat_map(|(index, (step, (from, to)))| {
            let to = if *to == self.scenario.duration { Duration::MAX } else { *to };
            let window = Window { from: *from, to };
            step.limits.iter().map(move |limit| self.finding(Some(index), window, limit))
        });
        overall.chain(of_steps).collect()
    }

    fn finding(&self, step: Option<usize>, window: Window, limit: &Limit) -> Finding {
        let (measured, of) = self.measure(step, window, limit.measure);
        let is_met = measured.is_some_and(|measured| {
            limit.least.is_none_or(|least| !is_less(measured, least, of))
                && limit.most.is_none_or(|most| !is_less(most, measured, of))
        });
        Finding { step, limit: *limit, measured, is_met }
    }

    /// What there was of it, and how many a share is of.
    fn measure(
        &self,
        step: Option<usize>,
        window: Window,
        measure: Measure,
    ) -> (Option<Value>, u64) {
        let count = |count: usize| Some(Value::Count(count as u64));
        let time = |time: Option<Duration>| time.map(Value::Time);
        let requests = self.notes.samples.iter().filter(|sample| window.has(sample.at)).count();
        let flaws = |wanted: Flaw| {
            let flaws = self.notes.flaws.iter();
            flaws.filter(|(at, _, flaw)| window.has(*at) && *flaw == wanted).count()
        };
        let ends = || self.notes.ends.iter().filter(|end| window.has(end.at));
        if let Some(watched) = self.watched
            && let Some(found) = self.of_real(watched, window, measure)
        {
            return found;
        }
        let value = match measure {
            Measure::Errors => count(self.errors(window).count()),
            Measure::Moved => return (count(self.moved(window)), self.sessions()),
            Measure::Needless => {
                let clients = self.needless(window).map(|it| it.client).collect::<BTreeSet<_>>();
                return (count(clients.len()), self.sessions());
            }
            Measure::Lost => count(flaws(Flaw::Lost)),
            Measure::Duplicated => {
                let repeated = if step.is_none() { self.repeated } else { 0 };
                Some(Value::Count(flaws(Flaw::Duplicated) as u64 + repeated))
            }
            Measure::Reordered => count(flaws(Flaw::Reordered)),
            Measure::Wrong => count(flaws(Flaw::Wrong)),
            Measure::TunnelsEnded => count(ends().count()),
            Measure::Closed(code) => count(ends().filter(|end| end.code == Some(code)).count()),
            Measure::DetectWithin => time(self.detection(step, window)),
            Measure::RehomeWithin => time(self.rehoming(step, window)),
            Measure::RecoverWithin => time(self.recovery(window)),
            Measure::P50 => time(self.percentile(window, 50)),
            Measure::P90 => time(self.percentile(window, 90)),
            Measure::P99 => time(self.percentile(window, 99)),
            Measure::Evenness => self.evenness(window).map(Value::Share),
            Measure::TunnelEvenness => self.tunnel_evenness(window).map(Value::Share),
        };
        (value, requests as u64)
    }

    /// Whether somebody had a fault, or was about to recover from one, between the two.
    fn is_impaired(&self, name: &str, since: Duration, at: Duration) -> bool {
        self.impaired.iter().any(|it| {
            it.instance.as_deref() == Some(name)
                && it.from <= at
                && it.until.is_none_or(|until| since <= until + self.scenario.settle)
        })
    }

    /// Whether a sample is an error. That an instance which had a fault no longer knows a session,
    /// or has let go of its tunnels, is what the fault does.
    pub(super) fn is_error(&self, sample: &Sample) -> bool {
        match sample.trouble {
            None => false,
            Some(Trouble::UnknownSession | Trouble::Unclosed) => {
                let explained =
                    |(name, since): &(Name, Duration)| self.is_impaired(name, *since, sample.at);
                !sample.home.as_ref().is_some_and(explained)
            }
            Some(_) => true,
        }
    }

    fn errors(&self, window: Window) -> impl Iterator<Item = &Sample> {
        let samples = self.notes.samples.iter();
        samples.filter(move |sample| window.has(sample.at) && self.is_error(sample))
    }

    /// Clients that were bound to somebody at any time.
    fn sessions(&self) -> u64 {
        self.notes.bound.iter().map(|(_, client, _)| client).collect::<BTreeSet<_>>().len() as u64
    }

    /// Sessions that moved, each counted once.
    fn moved(&self, window: Window) -> usize {
        let moves = self.notes.moves.iter().filter(|it| window.has(it.at));
        moves.map(|it| it.client).collect::<BTreeSet<_>>().len()
    }

    /// Moves away from somebody who had no fault. A tunnel that was closed with a code was told to
    /// move, and its session with it.
    pub(super) fn is_needless(&self, it: &Move) -> bool {
        let told = |end: &End| end.from == it.from && end.code.is_some() && end.at >= it.since;
        let told = self.notes.ends.iter().any(|end| told(end) && end.at <= it.at);
        !told && !self.is_impaired(&it.from, it.since, it.at)
    }

    fn needless(&self, window: Window) -> impl Iterator<Item = &Move> {
        self.notes.moves.iter().filter(move |it| window.has(it.at) && self.is_needless(it))
    }

    fn targets(&self, step: Option<usize>) -> Vec<String> {
        let of = |index: usize| self.plan.targets[index].iter().map(ToString::to_string);
        match step {
            Some(index) => of(index).collect(),
            None => (0..self.plan.targets.len()).flat_map(of).collect(),
        }
    }

    /// From a fault until the balancer stopped sending requests to whoever has it; the longest.
    fn detection(&self, step: Option<usize>, window: Window) -> Option<Duration> {
        let targets = self.targets(step);
        let faults = self.impaired.iter().filter(|it| window.has(it.from));
        let of_targets = |it: &&Impaired| {
            it.instance.as_ref().is_some_and(|instance| targets.contains(instance))
        };
        let times: Option<Vec<Duration>> = faults
            .filter(of_targets)
            .map(|it| {
                let out = |seen: &&Seen| {
                    Some(&seen.instance) == it.instance.as_ref()
                        && seen.at >= it.from
                        && !seen.serves
                        && seen.at < window.to
                };
                self.seen.iter().find(out).map(|seen| seen.at - it.from)
            })
            .collect();
        times?.into_iter().max()
    }

    /// From a fault until the last session that moved away from it was answered elsewhere.
    fn rehoming(&self, step: Option<usize>, window: Window) -> Option<Duration> {
        let targets = self.targets(step);
        let faults: Vec<_> = self.impaired.iter().filter(|it| window.has(it.from)).collect();
        let times = self.notes.moves.iter().filter(|it| window.has(it.at)).filter_map(|moved| {
            let of = |it: &&&Impaired| {
                it.instance.as_deref() == Some(&*moved.from)
                    && targets.iter().any(|target| **target == *moved.from)
                    && it.from <= moved.at
            };
            faults.iter().filter(of).map(|it| moved.at - it.from).min()
        });
        times.max()
    }

    /// From the beginning of the window until the last error, and until everybody without a fault
    /// serves; nothing where the balancer never said that.
    fn recovery(&self, window: Window) -> Option<Duration> {
        let last = self.errors(window).map(|sample| sample.at - window.from).max();
        self.back_to_normal(window, last)
    }

    /// The same, with the time of the last error.
    pub(super) fn back_to_normal(
        &self,
        window: Window,
        last: Option<Duration>,
    ) -> Option<Duration> {
        let mut out: BTreeMap<&str, bool> = BTreeMap::new();
        let mut whole = Duration::ZERO;
        for seen in self.seen.iter().filter(|seen| seen.at < window.to) {
            let is_present = !self
                .impaired
                .iter()
                .any(|it| it.instance.as_ref() == Some(&seen.instance) && it.until.is_none());
            out.insert(&seen.instance, !seen.serves && is_present);
            if seen.serves && seen.at >= window.from {
                whole = whole.max(seen.at - window.from);
            }
        }
        let all_serve = !out.is_empty() && out.values().all(|is_out| !is_out);
        all_serve.then(|| whole.max(last.unwrap_or_default()))
    }

    /// Of requests that were answered.
    fn percentile(&self, window: Window, percent: usize) -> Option<Duration> {
        let samples = self.notes.samples.iter().filter(|sample| window.has(sample.at));
        percentile(samples.filter(|sample| sample.trouble.is_none()).map(latency), percent)
    }

    /// How far the counts of those who were well all the time are from their shares, in basis
    /// points of a share. One more or less is no unevenness: sessions can't be divided.
    fn spread(&self, window: Window, counts: &BTreeMap<&str, u64>) -> Option<u32> {
        let to = window.to.min(self.scenario.duration);
        let well = self.weights.iter().filter(|(name, weight)| {
            let gone = self.impaired.iter().any(|it| {
                it.instance.as_ref() == Some(*name)
                    && it.from < to
                    && it.until.is_none_or(|until| until > window.from)
            });
            **weight > 0 && !gone
        });
        let well: Vec<_> = well.collect();
        let of = |name: &String| counts.get(&**name).copied().unwrap_or_default() as f64;
        let total: f64 = well.iter().map(|(name, _)| of(name)).sum();
        let weights: f64 = well.iter().map(|(_, weight)| f64::from(**weight)).sum();
        if total == 0.0 || well.is_empty() {
            return None;
        }
        let off = |(name, weight): &(&String, &u32)| {
            let fair = total * f64::from(**weight) / weights;
            ((of(name) - fair).abs() - 1.0).max(0.0) / fair
        };
        let worst = well.iter().map(off).fold(0.0, f64::max);
        Some((worst * 10_000.0).round() as u32)
    }

    fn evenness(&self, window: Window) -> Option<u32> {
        let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
        for (_, name) in self.notes.begun.iter().filter(|(at, _)| window.has(*at)) {
            *counts.entry(name).or_default() += 1;
        }
        self.spread(window, &counts)
    }

    fn tunnel_evenness(&self, window: Window) -> Option<u32> {
        let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
        let opened = self.notes.opened.iter().filter(|(at, _)| *at < window.to);
        for (_, name) in opened {
            *counts.entry(name).or_default() += 1;
        }
        for end in self.notes.ends.iter().filter(|end| end.at < window.to) {
            let open = counts.entry(&end.from).or_default();
            *open = open.saturating_sub(1);
        }
        self.spread(window, &counts)
    }

    /// Errors by what they were, and of which clients.
    pub(super) fn troubles(&self) -> BTreeMap<(Kind, Trouble), u64> {
        let mut troubles = BTreeMap::new();
        let whole = Window { from: Duration::ZERO, to: Duration::MAX };
        for sample in self.errors(whole) {
            if let Some(trouble) = sample.trouble {
                *troubles.entry((sample.kind, trouble)).or_default() += 1;
            }
        }
        troubles
    }
}

/// From when a request was to begin, so that one that had to wait for its client's last counts as
/// what its user waited.
pub(super) fn latency(sample: &Sample) -> Duration {
    sample.at.saturating_sub(sample.due)
}

/// The smallest that so many percent don't exceed.
pub(super) fn percentile(
    latencies: impl Iterator<Item = Duration>,
    percent: usize,
) -> Option<Duration> {
    let mut sorted: Vec<Duration> = latencies.collect();
    sorted.sort_unstable();
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied()
}

fn is_less(a: Value, b: Value, of: u64) -> bool {
    let plain = |value| match value {
        Value::Count(count) => count as f64,
        Value::Share(points) => f64::from(points) / 10_000.0 * of as f64,
        Value::Time(time) => time.as_secs_f64(),
    };
    match (a, b) {
        (Value::Share(a), Value::Share(b)) => a < b,
        _ => plain(a) < plain(b),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn moved(from: &str, since: u64, ms: u64) -> Move {
        Move { at: at(ms), client: 1, from: Name::from(from), since: at(since) }
    }

    /// A drill of ten seconds in which `s/v/a` had a fault from 2 s to 4 s; `settle` is 2 s.
    fn judged<T>(notes: &Notes, ask: impl FnOnce(&Evidence<'_>) -> T) -> T {
        let text = "duration: 10s\nsteps: []\nconfig: { instances: [a:1] }\n";
        let file = std::env::temp_dir().join(format!("burdock-verdict-{}", fastrand::u64(..)));
        std::fs::write(&file, text).unwrap();
        let scenario =
            crate::drill::scenario::read(&file, &crate::drill::scenario::Mode::Embedded).unwrap();
        std::fs::remove_file(&file).unwrap();
        let plan = crate::drill::plan::plan(&scenario, Vec::new(), Vec::new()).unwrap();
        let (instance, until) = (Some("s/v/a".to_owned()), Some(at(4000)));
        let impaired = [Impaired { instance, what: "crash".to_owned(), from: at(2000), until }];
        let weights = ["s/v/a", "s/v/b", "s/v/c"].map(|name| (name.to_owned(), 1)).into();
        let (plan, impaired, weights) = (&plan, &impaired, &weights);
        let scenario = &scenario;
        let (seen, repeated, watched) = (&[], 0, None);
        ask(&Evidence { scenario, plan, notes, seen, impaired, repeated, weights, watched })
    }

    #[test]
    fn a_move_is_needless_unless_a_fault_or_a_close_explains_it() {
        let end = |code| End { at: at(8000), from: Name::from("s/v/b"), code };
        for (it, code, wanted) in [
            (moved("s/v/a", 1900, 2100), None, false),
            (moved("s/v/a", 5900, 6100), None, false),
            (moved("s/v/a", 6100, 6200), None, true),
            (moved("s/v/a", 1000, 1900), None, true),
            (moved("s/v/b", 1900, 2100), None, true),
            (moved("s/v/b", 7900, 8100), Some(1012), false),
        ] {
            let notes = Notes { ends: vec![end(code)], ..Notes::default() };
            assert_eq!(judged(&notes, |evidence| evidence.is_needless(&it)), wanted, "{it:?}");
        }
    }

    #[test]
    fn a_lost_session_is_an_error_unless_its_instance_had_a_fault() {
        for (home, trouble, wanted) in [
            ("s/v/a", Some(Trouble::UnknownSession), false),
            ("s/v/b", Some(Trouble::UnknownSession), true),
            ("s/v/a", Some(Trouble::Status(503)), true),
            ("s/v/a", None, false),
        ] {
            let home = Some((Name::from(home), at(1900)));
            let sample = Sample { kind: Kind::Polling, due: at(2000), at: at(2500), trouble, home };
            assert_eq!(judged(&Notes::default(), |evidence| evidence.is_error(&sample)), wanted);
        }
    }

    #[test]
    fn evenness_is_of_those_who_were_well() {
        let begun = [("s/v/b", 12), ("s/v/c", 8), ("s/v/a", 1)];
        let begun = begun.into_iter().flat_map(|(name, count)| {
            let name: Name = Arc::from(name);
            (0..count).map(move |_| (at(3000), Arc::clone(&name)))
        });
        let notes = Notes { begun: begun.collect(), ..Notes::default() };
        let window = Window { from: at(2500), to: at(3500) };
        assert_eq!(judged(&notes, |evidence| evidence.evenness(window)), Some(1000));
    }

    #[test]
    fn percentiles_are_of_what_was_there() {
        let times = || (1..=200).map(Duration::from_millis);
        assert_eq!(percentile(times(), 99), Some(at(198)));
        assert_eq!(percentile(times(), 100), Some(at(200)));
        assert_eq!(percentile([].into_iter(), 50), None);
        assert!(is_less(Value::Count(1), Value::Share(200), 100));
        assert!(!is_less(Value::Count(2), Value::Share(200), 100));
    }
}
