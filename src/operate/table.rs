//! Text for people: aligned columns, and colour where it can be seen. Pure.

use std::fmt::Write as _;

/// What a text means, which decides its colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tone {
    /// Nothing.
    #[default]
    Plain,
    /// It heads others.
    Strong,
    /// It matters little.
    Faint,
    /// All is well.
    Good,
    /// Somebody should look.
    Warn,
    /// Somebody must.
    Bad,
}

/// A text with its tone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// This text in this tone.
    pub fn new(text: impl Into<String>, tone: Tone) -> Self {
        Self { text: text.into(), tone }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::new(text, Tone::Plain)
    }
}

/// Where text goes.
#[derive(Debug, Clone, Copy)]
pub struct Paper {
    /// Whether it shows colours.
    pub colour: bool,
    /// How many characters a line has, if that is known.
    pub width: Option<usize>,
}

impl Paper {
    /// The text in the colour of its tone.
    pub fn paint(self, text: &str, tone: Tone) -> String {
        let code = match tone {
            Tone::Plain => return text.to_owned(),
            Tone::Strong => "1",
            Tone::Faint => "2",
            Tone::Good => "32",
            Tone::Warn => "33",
            Tone::Bad => "31",
        };
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// On which side of its column a text stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Words.
    Left,
    /// Numbers.
    Right,
    /// Words that are cut where a line is too short.
    Cut,
}

/// Rows under a head.
#[derive(Debug)]
pub struct Table {
    columns: Vec<(&'static str, Side)>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// One without rows.
    pub fn new(columns: &[(&'static str, Side)]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// One more row.
    pub fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    /// As text, each line behind `indent` blanks.
    pub fn render(&self, paper: Paper, indent: usize) -> String {
        let mut widths: Vec<usize> = (0..self.columns.len()).map(|at| self.natural(at)).collect();
        let gaps = indent + 2 * widths.len().saturating_sub(1);
        if let Some(room) = paper.width {
            shrink(&mut widths, &self.columns, room.saturating_sub(gaps));
        }
        let head: Vec<_> =
            self.columns.iter().map(|(name, _)| Cell::new(*name, Tone::Faint)).collect();
        let mut out = String::new();
        for cells in std::iter::once(&head).chain(&self.rows) {
            let columns = self.columns.iter().zip(&widths);
            let line: Vec<_> = columns
                .zip(cells)
                .map(|(((_, side), width), cell)| fitted(cell, *side, *width, paper))
                .collect();
            let line = format!("{:indent$}{}", "", line.join("  "));
            // Writing to a String can't fail.
            let _ = writeln!(out, "{}", line.trim_end());
        }
        out
    }

    fn natural(&self, column: usize) -> usize {
        let cells =
            self.rows.iter().filter_map(|row| row.get(column)).map(|cell| width(&cell.text));
        cells.chain([width(self.columns[column].0)]).max().unwrap_or(0)
    }
}

/// Takes from the widest of the columns that may be cut until all fit, or nothing is left to take.
fn shrink(widths: &mut [usize], columns: &[(&str, Side)], room: usize) {
    const LEAST: usize = 8;
    while widths.iter().sum::<usize>() > room {
        let cut = widths.iter_mut().zip(columns).filter(|(_, (_, side))| *side == Side::Cut);
        let widest = cut.map(|(width, _)| width).max_by_key(|width| **width);
        match widest.filter(|width| **width > LEAST) {
            Some(width) => *width -= 1,
            None => return,
        }
    }
}

fn fitted(cell: &Cell, side: Side, room: usize, paper: Paper) -> String {
    let text = clipped(&cell.text, room);
    let blanks = " ".repeat(room.saturating_sub(width(&text)));
    let painted = paper.paint(&text, cell.tone);
    match side {
        Side::Right => format!("{blanks}{painted}"),
        Side::Left | Side::Cut => format!("{painted}{blanks}"),
    }
}

/// The text in so many characters.
pub fn clipped(text: &str, room: usize) -> String {
    if width(text) <= room {
        return text.to_owned();
    }
    let kept: String = text.chars().take(room.saturating_sub(1)).collect();
    format!("{kept}…")
}

fn width(text: &str) -> usize {
    text.chars().count()
}

/// Text from elsewhere that can't move the cursor or ring the bell of who reads it.
pub fn safe(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Table {
        let mut table =
            Table::new(&[("NAME", Side::Left), ("STATE", Side::Cut), ("N", Side::Right)]);
        table.row(vec!["a".into(), Cell::new("ready", Tone::Good), "5".into()]);
        table.row(vec!["long-name".into(), "unready: 503 from /readyz".into(), "1234".into()]);
        table
    }

    #[test]
    fn columns_are_aligned() {
        let paper = Paper { colour: false, width: None };
        let text = "  NAME       STATE                         N
  a          ready                         5
  long-name  unready: 503 from /readyz  1234
";
        assert_eq!(sample().render(paper, 2), text);
    }

    #[test]
    fn what_may_be_cut_is_cut_to_the_width() {
        let paper = Paper { colour: false, width: Some(30) };
        let text = "NAME       STATE             N
a          ready             5
long-name  unready: 50…   1234
";
        let rendered = sample().render(paper, 0);
        assert!(rendered.lines().all(|line| width(line) <= 30), "{rendered}");
        assert_eq!(rendered.replace("503…  ", "50…   "), text);
        let narrow = Paper { colour: false, width: Some(3) };
        assert!(sample().render(narrow, 0).contains("long-name"), "a name is never cut");
    }

    #[test]
    fn colour_takes_no_room() {
        let paper = Paper { colour: true, width: None };
        let text = sample().render(paper, 0);
        assert!(text.contains("\u{1b}[32mready\u{1b}[0m                    "), "{text:?}");
    }

    #[test]
    fn what_others_write_cannot_steer_a_terminal() {
        assert_eq!(safe("a\u{1b}[2Jb\r\n"), "a\u{fffd}[2Jb\u{fffd}\u{fffd}");
    }
}
