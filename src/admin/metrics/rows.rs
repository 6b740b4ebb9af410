//! Writes the samples of one metric in the text format: a scrape of many instances is hundreds of
//! thousands of them, so labels are made once and copied.

use std::fmt::{Display, Write};

use crate::observe::latency::{LABELS, Spread};

/// Labels ready to be written, without their braces; values escaped as the format asks for.
#[derive(Debug, Clone, Default)]
pub(super) struct Labels(String);

impl Labels {
    pub(super) fn of(pairs: &[(&str, &str)]) -> Self {
        pairs.iter().fold(Self::default(), |labels, (key, value)| labels.and(key, value))
    }

    /// These and another.
    pub(super) fn and(mut self, key: &str, value: &str) -> Self {
        if !self.0.is_empty() {
            self.0.push(',');
        }
        self.0.push_str(key);
        self.0.push_str("=\"");
        if value.contains(['\\', '"', '\n']) {
            let escaped = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            self.0.push_str(&escaped);
        } else {
            self.0.push_str(value);
        }
        self.0.push('"');
        self
    }

    /// One label with each of these values.
    pub(super) fn each<'a>(key: &str, values: impl IntoIterator<Item = &'a str>) -> Vec<Self> {
        values.into_iter().map(|value| Self::of(&[(key, value)])).collect()
    }
}

/// The samples of one metric.
pub(super) struct Rows<'a> {
    text: &'a mut String,
    pub(super) name: &'static str,
}

impl<'a> Rows<'a> {
    pub(super) fn begin(text: &'a mut String, name: &'static str, kind: &str, help: &str) -> Self {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        Self { text, name }
    }

    /// A count, with the labels of whose it is and of which it is.
    pub(super) fn count(&mut self, whose: &Labels, which: &Labels, value: u64) {
        self.start("", whose, which);
        self.text.push_str(itoa::Buffer::new().format(value));
        self.text.push('\n');
    }

    /// Any other number.
    pub(super) fn number(&mut self, whose: &Labels, value: impl Display) {
        self.start("", whose, &Labels::default());
        let _ = writeln!(self.text, "{value}");
    }

    /// One count for each of several labels.
    pub(super) fn counts(
        &mut self,
        whose: &Labels,
        which: &[Labels],
        values: impl IntoIterator<Item = u64>,
    ) {
        for (which, value) in which.iter().zip(values) {
            self.count(whose, which, value);
        }
    }

    /// A histogram of latencies.
    pub(super) fn spread(&mut self, whose: &Labels, bounds: &[Labels], spread: &Spread) {
        self.histogram(whose, bounds, &spread.buckets, spread.micros as f64 / 1e6);
    }

    /// A histogram; each bucket is without those below it. `bounds` may be the last ones only.
    pub(super) fn histogram(
        &mut self,
        whose: &Labels,
        bounds: &[Labels],
        buckets: &[u64],
        sum: f64,
    ) {
        let (untold, told) = buckets.split_at(buckets.len().saturating_sub(bounds.len()));
        let (none, mut count) = (Labels::default(), untold.iter().sum::<u64>());
        for (bound, bucket) in bounds.iter().zip(told) {
            count += bucket;
            self.start("_bucket", whose, bound);
            self.text.push_str(itoa::Buffer::new().format(count));
            self.text.push('\n');
        }
        self.start("_sum", whose, &none);
        let _ = writeln!(self.text, "{sum}");
        self.start("_count", whose, &none);
        let _ = writeln!(self.text, "{count}");
    }

    fn start(&mut self, suffix: &str, whose: &Labels, which: &Labels) {
        let text = &mut *self.text;
        text.push_str(self.name);
        text.push_str(suffix);
        if !(whose.0.is_empty() && which.0.is_empty()) {
            text.push('{');
            text.push_str(&whose.0);
            if !(whose.0.is_empty() || which.0.is_empty()) {
                text.push(',');
            }
            text.push_str(&which.0);
            text.push('}');
        }
        text.push(' ');
    }
}

/// The bounds of histograms of latencies.
pub(super) fn latency_bounds() -> Vec<Labels> {
    Labels::each("le", LABELS)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::observe::latency::Latencies;

    #[test]
    fn rows_are_written_as_the_format_asks_for() {
        let mut text = String::new();
        let mut rows = Rows::begin(&mut text, "n", "gauge", "What it is.");
        let whose = Labels::of(&[("a", "b\\c\"d\ne")]);
        let none = Labels::default();
        rows.count(&none, &none, 1);
        rows.count(&whose, &none, 2);
        rows.counts(&whose, &Labels::each("f", ["g", "h"]), [3, 4]);
        rows.number(&none, 0.5);
        let expected = "# HELP n What it is.\n# TYPE n gauge\nn 1\nn{a=\"b\\\\c\\\"d\\ne\"} 2\n\
                        n{a=\"b\\\\c\\\"d\\ne\",f=\"g\"} 3\nn{a=\"b\\\\c\\\"d\\ne\",f=\"h\"} 4\nn 0.5\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn buckets_of_a_histogram_hold_those_below_them() {
        let latencies = Latencies::default();
        for millis in [1, 1, 30, 100_000] {
            latencies.count(Duration::from_millis(millis));
        }
        let (mut spread, mut text) = (Spread::default(), String::new());
        spread.add(&latencies);
        let mut rows = Rows::begin(&mut text, "n", "histogram", "x");
        rows.spread(&Labels::default(), &latency_bounds(), &spread);
        for line in [
            "n_bucket{le=\"0.0005\"} 0",
            "n_bucket{le=\"0.001\"} 2",
            "n_bucket{le=\"0.05\"} 3",
            "n_bucket{le=\"60\"} 3",
            "n_bucket{le=\"+Inf\"} 4",
            "n_sum 100.032",
            "n_count 4",
        ] {
            assert!(text.lines().any(|it| it == line), "{line} in {text}");
        }
    }
}
