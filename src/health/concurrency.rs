//! How many requests an instance may have in flight at once, learnt from how long its answers take.
//!
//! An instance that has more to do than it can do at once answers later, and no more often. So its
//! limit grows while answers take about as long as they do with little in flight, and shrinks by as
//! much as they take longer: the gradient of Netflix's concurrency-limits and of Envoy's adaptive
//! concurrency. How long they take with little in flight, the baseline, is learnt whenever little
//! is, and else by a look: for a moment the limit is halved.
//!
//! Pure: the time, the random source and what was observed are arguments.

use std::time::{Duration, Instant};

use crate::config::types;

/// A window has so many outcomes and lasts this long ...
const ENOUGH: u64 = 100;
const SHORTEST: Duration = Duration::from_millis(100);
/// ... or has fewer, after this long.
const FEW: u64 = 10;
const LONGEST: Duration = Duration::from_secs(2);
/// Answers take that much longer for reasons of their own, however fast they are.
const NOISE_MICROS: f64 = 1000.0;
/// A window cuts the limit to no less than this share of it.
const STEEPEST: f64 = 0.5;
/// Until the next look, if the last one taught something new.
const SOON: Duration = Duration::from_secs(2);
/// Until the next look, if it didn't, give or take a quarter: siblings must not look together.
const LATER: Duration = Duration::from_secs(30);
/// A look is given up after so many windows. What never ends, as event streams, may hold the places.
const PATIENCE: u32 = 10;
/// How much of a window with little in flight the baseline takes on.
const FOLLOW: f64 = 0.125;
/// Fixed point of [`share_of`].
const SCALE: f64 = 1024.0;

/// What an answer that took so long adds to [`Window::shares`].
pub fn share_of(latency: Duration) -> u64 {
    ((latency.as_micros() as f64 + 1.0).log2() * SCALE) as u64
}

/// What was observed in a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Window {
    /// Answers.
    pub answers: u64,
    /// What [`share_of`] says of each of them, added up.
    pub shares: u64,
    /// Attempts that failed, and answers that said that there was too much to do.
    pub failures: u64,
    /// Requests in flight at its end.
    pub in_flight: u64,
}

impl Window {
    /// Whether enough was seen by now, after it has been open for so long, to learn from.
    pub fn is_over(&self, open: Duration) -> bool {
        let seen = self.answers + self.failures;
        // What a window does shows in answers to requests that began after it.
        let shows = || open.as_micros() as f64 >= self.latency().unwrap_or(0.0);
        (seen >= ENOUGH && open >= SHORTEST && shows()) || (seen >= FEW && open >= LONGEST)
    }

    /// The geometric mean of latencies in microseconds: one slow report among many pages hardly
    /// moves it.
    fn latency(&self) -> Option<f64> {
        (self.answers > 0).then(|| (self.shares as f64 / self.answers as f64 / SCALE).exp2())
    }

    fn failed(&self) -> f64 {
        self.failures as f64 / (self.answers + self.failures).max(1) as f64
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Stage {
    /// The limit follows the gradient.
    Following,
    /// It is halved, until what was too much has ended and then for a window more.
    Looking { before: f64, settled: bool, left: u32 },
}

/// The limit of one instance.
#[derive(Debug, Clone, PartialEq)]
pub struct Concurrency {
    limit: f64,
    /// In microseconds.
    baseline: Option<f64>,
    stage: Stage,
    next_look: Instant,
    /// Whether the last window was clearly below the baseline.
    was_faster: bool,
}

impl Concurrency {
    /// A limit that begins where the configuration says.
    pub fn new(limits: &types::Concurrency, now: Instant) -> Self {
        let limit = f64::from(limits.initial);
        let (stage, next_look) = (Stage::Following, now + SOON);
        Self { limit, baseline: None, stage, next_look, was_faster: false }
    }

    /// The limit now, from `min` to `max`.
    pub fn limit(&self, limits: &types::Concurrency) -> u32 {
        (self.limit as u32).clamp(limits.min, limits.max)
    }

    /// Learns from a window. `random` is from 0 to 1.
    pub fn learn(
        &mut self,
        window: &Window,
        limits: &types::Concurrency,
        now: Instant,
        random: f64,
    ) {
        let next = match self.stage {
            Stage::Following => self.follow(window, limits, now),
            Stage::Looking { before, settled: true, .. } => {
                self.end_look(window.latency(), limits, now, random);
                before
            }
            Stage::Looking { before, left: 0, .. } => {
                self.end_look(None, limits, now, random);
                before
            }
            Stage::Looking { before, settled: false, left } => {
                let settled = window.in_flight <= u64::from(self.limit(limits));
                self.stage = Stage::Looking { before, settled, left: left - 1 };
                self.limit
            }
        };
        self.limit = next.clamp(f64::from(limits.min), f64::from(limits.max));
    }

    /// The limit after a window.
    fn follow(&mut self, window: &Window, limits: &types::Concurrency, now: Instant) -> f64 {
        let (limit, least) = (self.limit, f64::from(limits.min));
        let is_busy = window.in_flight * 2 >= u64::from(self.limit(limits));
        let works = 1.0 - window.failed();
        let gradient = window.latency().map_or(1.0, |it| self.gradient(it, is_busy, limits));
        if !is_busy {
            // The baseline is fresh, and what nobody reaches need not be higher.
            self.next_look = self.next_look.max(now + SOON);
            return limit * works.max(STEEPEST);
        }
        let next = (limit + limit.sqrt()) * (gradient * works).max(STEEPEST);
        if now < self.next_look || next <= least {
            return next;
        }
        self.stage = Stage::Looking { before: next, settled: false, left: PATIENCE };
        next / 2.0
    }

    /// How much less should be in flight, 1 for no less, and what that says of the baseline.
    fn gradient(&mut self, latency: f64, is_busy: bool, limits: &types::Concurrency) -> f64 {
        let slower = slower(limits);
        let baseline = self.baseline.get_or_insert(latency);
        if !is_busy {
            *baseline += (latency - *baseline) * FOLLOW;
        }
        let is_faster = latency * slower < *baseline;
        if std::mem::replace(&mut self.was_faster, is_faster) && is_faster {
            *baseline = latency;
        }
        let gradient = ((*baseline * slower + NOISE_MICROS) / latency).min(1.0);
        // With less in flight than this it can't be seen to answer faster.
        if gradient < 1.0 && (self.limit as u32) <= limits.min {
            *baseline = latency;
        }
        gradient
    }

    /// The limit is what it was before, from now on by what was learnt.
    fn end_look(
        &mut self,
        latency: Option<f64>,
        limits: &types::Concurrency,
        now: Instant,
        random: f64,
    ) {
        let known = self.baseline;
        self.baseline = latency.or(known);
        let is_news = known.zip(latency).is_some_and(|(known, it)| it * slower(limits) < known);
        self.next_look = now + if is_news { SOON } else { LATER.mul_f64(0.75 + random / 2.0) };
        self.stage = Stage::Following;
    }
}

/// How many times the baseline an answer may take.
fn slower(limits: &types::Concurrency) -> f64 {
    1.0 + f64::from(limits.tolerance) / 10_000.0
}

#[cfg(test)]
mod tests;
