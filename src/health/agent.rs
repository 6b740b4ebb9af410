//! What an instance says of itself in the answer to a readiness probe. Pure.
//!
//! The field `X-Burdock-State` holds words, separated by commas or spaces: `ready`, `drain`, `maint`
//! and `weight=NN%`. Each answer says all of it: a state that isn't said is ready, a weight 100 %.

use crate::config::types::State;

/// The response field, in lower case.
pub const FIELD: &str = "x-burdock-state";

/// What an instance wants for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// Its state; the operator's counts where it is stricter.
    pub state: State,
    /// Percent of its configured weight, up to 100.
    pub percent: u32,
}

impl Default for Report {
    fn default() -> Self {
        Self { state: State::Active, percent: 100 }
    }
}

impl Report {
    /// Reads the values of the field: the report, and the first word that means nothing.
    pub fn read<'a>(values: impl Iterator<Item = &'a [u8]>) -> (Self, Option<String>) {
        let mut report = Self::default();
        let mut unclear = None;
        for value in values {
            let words = value.split(|byte| *byte == b',' || byte.is_ascii_whitespace());
            for word in words.filter(|word| !word.is_empty()) {
                let word = word.to_ascii_lowercase();
                if report.take(&word).is_none() && unclear.is_none() {
                    unclear = Some(word.escape_ascii().to_string());
                }
            }
        }
        (report, unclear)
    }

    fn take(&mut self, word: &[u8]) -> Option<()> {
        let state = match word {
            b"ready" => State::Active,
            b"drain" => State::Draining,
            b"maint" => State::Disabled,
            _ => {
                self.percent = percent(word)?;
                return Some(());
            }
        };
        self.state = self.state.max(state);
        Some(())
    }
}

fn percent(word: &[u8]) -> Option<u32> {
    let digits = word.strip_prefix(b"weight=")?.strip_suffix(b"%")?;
    if !(1..=3).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value = digits.iter().fold(0, |value, digit| value * 10 + u32::from(digit - b'0'));
    (value <= 100).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_a_report_and_what_is_not_said_is_the_default() {
        for (values, state, percent, unclear) in [
            (&[][..], State::Active, 100, None),
            (&["ready"], State::Active, 100, None),
            (&["drain"], State::Draining, 100, None),
            (&["Maint"], State::Disabled, 100, None),
            (&["weight=30%"], State::Active, 30, None),
            (&["drain, weight=0%"], State::Draining, 0, None),
            (&["maint", "ready"], State::Disabled, 100, None),
            (&["weight=101%"], State::Active, 100, Some("weight=101%")),
            (&["weight=+5%"], State::Active, 100, Some("weight=+5%")),
            (&["up drain"], State::Draining, 100, Some("up")),
        ] {
            let (report, word) = Report::read(values.iter().map(|value| value.as_bytes()));
            assert_eq!(report, Report { state, percent }, "{values:?}");
            assert_eq!(word.as_deref(), unclear, "{values:?}");
        }
    }
}
