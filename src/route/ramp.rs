//! Whether the share of a version that ramps up may grow: by what it and the other versions of its service have
//! answered in the same time.
//!
//! Pure: what was seen and what time it is are arguments. Nothing is judged of too few requests, and nothing
//! goes back to versions that could not serve. [`judge`] compares, [`Watch`] remembers from one look to the next.

#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use crate::config::overlay::{Limits, Plan, Slow};

/// A version without an instance that can serve is waited for so long at most: its clients get errors.
const UNSERVED: Duration = Duration::from_secs(10);
/// Latencies are compared as multiples only where they are at least so far apart.
const LEAST_APART: Duration = Duration::from_millis(5);

/// What was seen of the answers of some versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Seen {
    /// Requests that were answered well, or not for the version's fault.
    pub requests: u64,
    /// Of these, so many not.
    pub faults: u64,
    /// How long the answers took, at the quantile that is asked for.
    pub latency: Option<Duration>,
}

impl Seen {
    /// In basis points.
    fn errors(&self) -> u32 {
        let points = self.faults.saturating_mul(10_000).checked_div(self.requests);
        u32::try_from(points.unwrap_or_default()).unwrap_or(10_000).min(10_000)
    }
}

/// Why a ramp does not go on, or goes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Too many errors.
    Errors,
    /// Answers take too long.
    Latency,
    /// No instance of the version can serve.
    Unserved,
    /// Somebody wants it.
    Operator,
    /// Too few requests were seen.
    TooFew,
    /// A drill is about to show something else.
    Drill,
}

impl Cause {
    /// Those that a ramp is rolled back for, in the order of the metric's rows.
    pub const BACK: [Self; 4] = [Self::Errors, Self::Latency, Self::Unserved, Self::Operator];

    /// The label in logs and metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Errors => "errors",
            Self::Latency => "latency",
            Self::Unserved => "unserved",
            Self::Operator => "operator",
            Self::TooFew => "too_few_requests",
            Self::Drill => "drill",
        }
    }

    /// Whether somebody should hear of it: what is only too little to judge by passes by itself.
    pub const fn is_news(self) -> bool {
        !matches!(self, Self::TooFew)
    }
}

/// A cause in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// Which.
    pub cause: Cause,
    /// How it shows.
    pub text: String,
}

impl Reason {
    fn new(cause: Cause, text: String) -> Self {
        Self { cause, text }
    }
}

/// What comes of comparing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// Nothing yet.
    TooFew(Reason),
    /// All is well.
    Fine,
    /// Not well enough for more.
    Hold(Reason),
    /// Bad.
    Back(Reason),
}

/// Compares what was seen of a version with what was seen of the others in the same time. Where there is too
/// little of those, they count as having no errors, and their latency as unknown.
pub fn judge(limits: &Limits, own: &Seen, others: &Seen) -> Finding {
    let needed = limits.min_requests;
    if own.requests < needed {
        let text = format!("{} of {needed} requests seen", own.requests);
        return Finding::TooFew(Reason::new(Cause::TooFew, text));
    }
    let others = Some(others).filter(|others| others.requests >= needed);
    let worse = |limit| errors(limit, own, others);
    let slower = |limit| latency(limit, own, others);
    let back = limits.back_errors.and_then(worse).or_else(|| limits.back_latency.and_then(slower));
    if let Some(reason) = back {
        return Finding::Back(reason);
    }
    let hold = limits.hold_errors.and_then(worse).or_else(|| limits.hold_latency.and_then(slower));
    hold.map_or(Finding::Fine, Finding::Hold)
}

fn errors(limit: u32, own: &Seen, others: Option<&Seen>) -> Option<Reason> {
    let (own, others) = (own.errors(), others.map(Seen::errors));
    let excess = own.saturating_sub(others.unwrap_or_default());
    let percent = |points: u32| f64::from(points) / 100.0;
    let beside = match others {
        Some(others) => format!("{}% of the other versions'", percent(others)),
        None => "too few of the other versions' to compare".to_owned(),
    };
    let text = || {
        let (own, limit) = (percent(own), percent(limit));
        format!("{own}% of its answers are errors, {beside}: {limit}% more is the limit")
    };
    (excess >= limit).then(|| Reason::new(Cause::Errors, text()))
}

fn latency(limit: Slow, own: &Seen, others: Option<&Seen>) -> Option<Reason> {
    let own = own.latency?;
    let (bound, beside) = match limit {
        Slow::Millis(millis) => (Duration::from_millis(millis), String::new()),
        Slow::Times(hundredths) => {
            let others = others?.latency?;
            let bound = others.saturating_mul(hundredths) / 100;
            let times = f64::from(hundredths) / 100.0;
            (bound.max(others + LEAST_APART), format!(", {times} times {}", told(others)))
        }
    };
    let text = || format!("its answers take {}: {}{beside} is the limit", told(own), told(bound));
    (own >= bound).then(|| Reason::new(Cause::Latency, text()))
}

fn told(latency: Duration) -> String {
    let millis = latency.as_secs_f64() * 1000.0;
    match millis {
        ..10.0 => format!("{millis:.1} ms"),
        _ => format!("{millis:.0} ms"),
    }
}

/// One look at a ramp that is under way.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    /// When.
    pub now: Instant,
    /// What its version has answered since the window began.
    pub own: Seen,
    /// What the others have.
    pub others: Seen,
    /// Whether an instance of the version takes new sessions.
    pub is_served: bool,
    /// Whether one of a version that it could go back to does.
    pub has_refuge: bool,
    /// Whether a drill runs.
    pub is_drilled: bool,
}

/// What follows a look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Another look.
    Wait,
    /// Another window at the same share.
    Renew,
    /// A larger share, and another window.
    Step,
    /// It is at its end.
    Finish,
    /// It goes back.
    Back(Reason),
}

/// What is remembered of a ramp from one look to the next.
#[derive(Debug, Clone)]
pub struct Watch {
    /// Of the window.
    began: Instant,
    unserved: Option<Instant>,
    held: Option<Reason>,
}

impl Watch {
    /// A window begins.
    pub fn new(now: Instant) -> Self {
        Self { began: now, unserved: None, held: None }
    }

    /// Another window begins.
    pub fn renew(&mut self, now: Instant) {
        self.began = now;
    }

    /// Why it does not go on, if it doesn't.
    pub fn held(&self) -> Option<&Reason> {
        self.held.as_ref()
    }

    /// Looks at a ramp that has made so many steps; a paused one makes no more.
    pub fn look(&mut self, plan: &Plan, (step, is_paused): (u32, bool), look: &Look) -> Next {
        let &Look { now, is_served, has_refuge, is_drilled, .. } = look;
        if is_drilled {
            self.unserved = None;
            self.hold(Cause::Drill, "a drill runs".to_owned());
            return Next::Renew;
        }
        if self.held.take_if(|held| held.cause == Cause::Drill).is_some() {
            // What was seen since the last look may still be the drill's doing.
            return Next::Renew;
        }
        if !is_served {
            return self.unserved(plan, now, has_refuge);
        }
        self.unserved = None;
        let finding = judge(&plan.limits, &look.own, &look.others);
        let is_over = now.saturating_duration_since(self.began) >= plan.interval();
        // Of two that suffer from the same, the one that is seen first must not look the worse.
        let is_compared = look.others.requests >= plan.limits.min_requests;
        match finding {
            Finding::Back(reason) if is_over || is_compared => {
                return self.back(reason, has_refuge);
            }
            _ if !is_over => return Next::Wait,
            Finding::TooFew(reason) => {
                self.held = Some(reason);
                return Next::Wait;
            }
            Finding::Hold(reason) | Finding::Back(reason) => {
                self.held = Some(reason);
                return Next::Renew;
            }
            Finding::Fine => self.held = None,
        }
        match step < plan.steps() {
            _ if is_paused => Next::Renew,
            true => Next::Step,
            false => Next::Finish,
        }
    }

    fn unserved(&mut self, plan: &Plan, now: Instant, has_refuge: bool) -> Next {
        let since = *self.unserved.get_or_insert(now);
        let text = "no instance of it can serve".to_owned();
        let patience = plan.interval().min(UNSERVED);
        if now.saturating_duration_since(since) >= patience {
            return self.back(Reason::new(Cause::Unserved, text), has_refuge);
        }
        self.hold(Cause::Unserved, text);
        Next::Wait
    }

    /// Goes back, if that is better for anybody.
    fn back(&mut self, reason: Reason, has_refuge: bool) -> Next {
        if has_refuge {
            return Next::Back(reason);
        }
        let text = format!("{}; no other version can serve", reason.text);
        self.hold(reason.cause, text);
        Next::Wait
    }

    fn hold(&mut self, cause: Cause, text: String) {
        self.held = Some(Reason::new(cause, text));
    }
}
