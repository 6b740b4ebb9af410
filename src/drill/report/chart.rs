//! Lines, bands and axes as SVG. Knows numbers and names, nothing of drills.

use std::fmt::Write;

/// The drawing's inside.
const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 150.0;
const LEFT: f64 = 56.0;
const TOP: f64 = 14.0;
const BELOW: f64 = 26.0;
const RIGHT: f64 = 14.0;
/// The width of a letter of a label, and how many one has.
const LETTER: f64 = 6.0;
const LABEL: usize = 60;

/// One line of a chart.
#[derive(Debug)]
pub(super) struct Series<'a> {
    pub(super) name: &'a str,
    /// Its class in the style sheet.
    pub(super) class: String,
    /// One for each second; nothing where there is nothing to say.
    pub(super) values: Vec<Option<f64>>,
}

/// A time that is marked.
#[derive(Debug)]
pub(super) struct Band {
    pub(super) from: f64,
    pub(super) until: f64,
    pub(super) name: String,
}

/// One band for each time in which anything is marked: one over another would hide it.
pub(super) fn merged(mut bands: Vec<Band>) -> Vec<Band> {
    bands.sort_by(|a, b| a.from.total_cmp(&b.from));
    let mut merged: Vec<Band> = Vec::new();
    for band in bands {
        match merged.last_mut().filter(|last| band.from <= last.until) {
            Some(last) => {
                last.until = last.until.max(band.until);
                last.name = format!("{}, {}", last.name, band.name);
            }
            None => merged.push(band),
        }
    }
    merged
}

/// A chart over seconds.
#[derive(Debug)]
pub(super) struct Chart<'a> {
    /// Said to those who don't see it.
    pub(super) title: &'a str,
    pub(super) unit: &'a str,
    pub(super) seconds: f64,
    pub(super) series: Vec<Series<'a>>,
    pub(super) bands: &'a [Band],
}

impl Chart<'_> {
    /// The SVG element.
    pub(super) fn svg(&self) -> String {
        let mut out = String::new();
        // Writing to a string does not fail.
        let _ = self.write(&mut out);
        out
    }

    fn x(&self, second: f64) -> f64 {
        LEFT + (second / self.seconds.max(0.001)).clamp(0.0, 1.0) * WIDTH
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let values = self.series.iter().flat_map(|series| series.values.iter().flatten());
        let top = nice(values.copied().fold(0.0, f64::max));
        let y = |value: f64| TOP + HEIGHT - value / top * HEIGHT;
        let (width, height) = (LEFT + WIDTH + RIGHT, TOP + HEIGHT + BELOW);
        let title = escaped(self.title);
        writeln!(
            out,
            "<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{title}\">"
        )?;
        for band in self.bands {
            let (from, until) = (self.x(band.from), self.x(band.until));
            // What was over at once is still to be seen.
            let wide = (until - from).max(2.0);
            let name = escaped(&band.name);
            self.write_label(out, band, from)?;
            writeln!(
                out,
                "<rect class=\"band\" x=\"{from:.1}\" y=\"{TOP}\" width=\"{wide:.1}\" \
                 height=\"{HEIGHT}\"><title>{name}</title></rect>"
            )?;
        }
        for part in 0..=2 {
            let value = top * f64::from(part) / 2.0;
            let (at, end) = (y(value), LEFT + WIDTH);
            writeln!(
                out,
                "<line class=\"grid\" x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{end}\" y2=\"{at:.1}\"/>"
            )?;
            let (label, x, below) = (number(value), LEFT - 8.0, at + 4.0);
            let unit = escaped(if part == 2 { self.unit } else { "" });
            writeln!(
                out,
                "<text class=\"axis\" x=\"{x}\" y=\"{below:.1}\" text-anchor=\"end\">{label}{unit}</text>"
            )?;
        }
        self.write_time(out)?;
        for series in &self.series {
            self.write_series(out, series, &y)?;
        }
        writeln!(out, "</svg>")
    }

    /// As much of the name as fits until the drawing's end.
    fn write_label(&self, out: &mut String, band: &Band, from: f64) -> std::fmt::Result {
        let fits = ((LEFT + WIDTH - from) / LETTER) as usize;
        let mut name: String = band.name.chars().take(fits.min(LABEL)).collect();
        if name.len() < band.name.len() {
            name.pop();
            name.push('…');
        }
        let (x, y, name) = (from + 4.0, TOP + 12.0, escaped(&name));
        writeln!(out, "<text class=\"axis\" x=\"{x:.1}\" y=\"{y}\">{name}</text>")
    }

    fn write_time(&self, out: &mut String) -> std::fmt::Result {
        let step = nice(self.seconds / 8.0).max(1.0);
        let mut second = 0.0;
        while second <= self.seconds + 0.001 {
            let (x, y) = (self.x(second), TOP + HEIGHT + 18.0);
            let label = number(second);
            writeln!(
                out,
                "<text class=\"axis\" x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\">{label} s</text>"
            )?;
            second += step;
        }
        Ok(())
    }

    /// A value stands in the middle of its second; a gap stays a gap.
    fn write_series(
        &self,
        out: &mut String,
        series: &Series<'_>,
        y: &dyn Fn(f64) -> f64,
    ) -> std::fmt::Result {
        let (mut path, mut is_open) = (String::new(), false);
        for (second, value) in series.values.iter().enumerate() {
            let Some(value) = value else {
                is_open = false;
                continue;
            };
            let (x, y) = (self.x(second as f64 + 0.5), y(*value));
            write!(path, "{}{x:.1} {y:.1}", if is_open { "L" } else { "M" })?;
            if !is_open {
                // A single second is a dot: a line of no length with round ends.
                write!(path, "h0")?;
            }
            is_open = true;
        }
        let (name, class) = (escaped(series.name), escaped(&series.class));
        writeln!(out, "<path class=\"series {class}\" d=\"{path}\"><title>{name}</title></path>")
    }
}

/// A round number that is not less.
fn nice(value: f64) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let size = 10_f64.powf(value.log10().floor());
    [1.0, 2.0, 4.0, 5.0, 10.0]
        .map(|step| step * size)
        .into_iter()
        .find(|it| *it >= value * 0.9999)
        .unwrap_or(value)
}

fn number(value: f64) -> String {
    if value.fract().abs() < 0.001 { format!("{value:.0}") } else { format!("{value:.1}") }
}

/// Text that says what it says wherever it stands in a page.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if c.is_control() && c != '\n' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_told_becomes_markup() {
        assert_eq!(
            escaped("<a b=\"c\" d='e'>&\u{7}"),
            "&lt;a b=&quot;c&quot; d=&#39;e&#39;&gt;&amp;\u{fffd}"
        );
        let bands = [Band { from: 1.0, until: 2.0, name: "</svg><script>".to_owned() }];
        let series =
            vec![Series { name: "<b>", class: "x\"".to_owned(), values: vec![Some(1.0), None] }];
        let svg = Chart { title: "\"", unit: "<", seconds: 2.0, series, bands: &bands }.svg();
        assert!(
            !svg.contains("<script>") && !svg.contains("<b>") && !svg.contains("x\"\""),
            "{svg}"
        );
    }

    #[test]
    fn bands_that_overlap_are_one() {
        let band = |from, until, name: &str| Band { from, until, name: name.to_owned() };
        let merged = merged(vec![band(5.0, 6.0, "c"), band(1.0, 3.0, "a"), band(2.0, 4.0, "b")]);
        let told: Vec<_> = merged.iter().map(|b| (b.from, b.until, &*b.name)).collect();
        assert_eq!(told, [(1.0, 4.0, "a, b"), (5.0, 6.0, "c")]);
    }

    #[test]
    fn axes_end_at_round_numbers() {
        for (value, wanted) in [(0.0, 1.0), (0.7, 1.0), (3.0, 4.0), (42.0, 50.0), (100.0, 100.0)] {
            assert_eq!(nice(value), wanted);
        }
    }
}
