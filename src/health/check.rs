//! The verdict of one active check: consecutive results against two thresholds.
//!
//! The first result gives the first verdict by itself: nothing is known yet that a threshold could
//! protect, and a client may be waiting. Pure; the prober feeds it.

use crate::config::types;

/// What one probe came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It passed.
    Pass,
    /// An answer came, and it says no.
    Refused,
    /// No answer: the connection was refused or reset, or the time ran out.
    NoAnswer,
}

impl Outcome {
    /// All of them, in the order of the metric's rows.
    pub const ALL: [Self; 3] = [Self::Pass, Self::Refused, Self::NoAnswer];

    /// The label in metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Refused => "refused",
            Self::NoAnswer => "no_answer",
        }
    }
}

/// What a check asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// May it get traffic?
    Readiness,
    /// Is it alive?
    Liveness,
}

impl Kind {
    /// Both, in the order of the metric's rows.
    pub const ALL: [Self; 2] = [Self::Readiness, Self::Liveness];

    /// The label in logs and metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Readiness => "readiness",
            Self::Liveness => "liveness",
        }
    }
}

/// What the results add up to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// No result yet.
    Unknown,
    /// Good.
    Pass,
    /// Bad, and it answers.
    Refused,
    /// Bad, and it doesn't answer.
    NoAnswer,
}

/// The state of one check of one instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    verdict: Verdict,
    passes: u32,
    failures: u32,
    unanswered: u32,
}

/// How many results in a row it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thresholds {
    /// To become good.
    pub success: u32,
    /// To become bad.
    pub failure: u32,
}

impl From<&types::Check> for Thresholds {
    fn from(check: &types::Check) -> Self {
        Self { success: check.success_threshold, failure: check.failure_threshold }
    }
}

impl Check {
    /// A check that starts from `verdict`, which one contrary result doesn't overturn.
    pub fn starting(verdict: Verdict) -> Self {
        Self { verdict, passes: 0, failures: 0, unanswered: 0 }
    }

    /// The verdict now.
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// Takes one result; the new verdict if it changed.
    pub fn record(&mut self, outcome: Outcome, thresholds: Thresholds) -> Option<Verdict> {
        match outcome {
            Outcome::Pass => {
                self.passes = self.passes.saturating_add(1);
                (self.failures, self.unanswered) = (0, 0);
            }
            Outcome::Refused => {
                self.failures = self.failures.saturating_add(1);
                (self.passes, self.unanswered) = (0, 0);
            }
            Outcome::NoAnswer => {
                self.failures = self.failures.saturating_add(1);
                self.unanswered = self.unanswered.saturating_add(1);
                self.passes = 0;
            }
        }
        let next = self.next(outcome, thresholds);
        (next != self.verdict).then(|| {
            self.verdict = next;
            next
        })
    }

    fn next(&self, outcome: Outcome, thresholds: Thresholds) -> Verdict {
        let failed = match outcome {
            Outcome::Pass => return self.after_pass(thresholds),
            Outcome::Refused => Verdict::Refused,
            Outcome::NoAnswer => Verdict::NoAnswer,
        };
        match self.verdict {
            Verdict::Unknown => failed,
            Verdict::Pass if self.failures >= thresholds.failure => failed,
            // An instance that said "not ready" and then stops answering is in worse shape.
            Verdict::Refused if self.unanswered >= thresholds.failure => Verdict::NoAnswer,
            Verdict::NoAnswer if failed == Verdict::Refused => Verdict::Refused,
            Verdict::Pass | Verdict::Refused | Verdict::NoAnswer => self.verdict,
        }
    }

    fn after_pass(&self, thresholds: Thresholds) -> Verdict {
        match self.verdict {
            Verdict::Unknown => Verdict::Pass,
            Verdict::Refused | Verdict::NoAnswer if self.passes < thresholds.success => {
                self.verdict
            }
            Verdict::Pass | Verdict::Refused | Verdict::NoAnswer => Verdict::Pass,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const THRESHOLDS: Thresholds = Thresholds { success: 2, failure: 3 };

    /// `p` pass, `r` refused, `n` no answer; gives the verdict after each as `?`, `P`, `R`, `N`.
    fn walk(from: Verdict, outcomes: &str) -> String {
        let mut check = Check::starting(from);
        outcomes
            .chars()
            .map(|outcome| {
                let outcome = match outcome {
                    'p' => Outcome::Pass,
                    'r' => Outcome::Refused,
                    _ => Outcome::NoAnswer,
                };
                check.record(outcome, THRESHOLDS);
                match check.verdict() {
                    Verdict::Unknown => '?',
                    Verdict::Pass => 'P',
                    Verdict::Refused => 'R',
                    Verdict::NoAnswer => 'N',
                }
            })
            .collect()
    }

    #[test]
    fn the_first_result_decides_and_later_ones_need_their_thresholds() {
        for (from, outcomes, verdicts) in [
            (Verdict::Unknown, "p", "P"),
            (Verdict::Unknown, "r", "R"),
            (Verdict::Unknown, "n", "N"),
            (Verdict::Pass, "rrprrr", "PPPPPR"),
            (Verdict::Pass, "nnn", "PPN"),
            (Verdict::Pass, "rrn", "PPN"),
            (Verdict::Refused, "prpp", "RRRP"),
            (Verdict::Refused, "nnnr", "RRNR"),
            (Verdict::NoAnswer, "pp", "NP"),
        ] {
            assert_eq!(walk(from, outcomes), verdicts, "{from:?} {outcomes}");
        }
    }

    proptest! {
        #[test]
        fn a_good_verdict_falls_only_after_the_threshold_in_a_row(outcomes in "[prn]{0,64}") {
            let verdicts = walk(Verdict::Pass, &outcomes);
            for (index, pair) in verdicts.as_bytes().windows(2).enumerate() {
                if pair[0] == b'P' && pair[1] != b'P' {
                    let last = &outcomes[index + 2 - 3..index + 2];
                    prop_assert!(!last.contains('p'));
                }
            }
        }
    }
}
