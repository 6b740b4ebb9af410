//! The picture of a state. Pure: the same state gives the same picture.

use std::collections::VecDeque;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Cell, Clear, Paragraph, Row as TableRow, Table, TableState, Wrap};

use super::keys::HELP;
use super::state::{Mode, Row, Sort, State};
use crate::operate::shapes::Event;
use crate::operate::table::{Tone, safe};
use crate::operate::words;

/// Lines of the header.
const HEADER: u16 = 4;
/// Lines of the events, their title included, on a terminal of 24 lines.
const EVENTS: u16 = 7;
/// A terminal of fewer shows a note instead.
const LEAST: (u16, u16) = (40, 12);
/// Seconds of an instance's curve.
const CURVE: usize = 12;
/// Characters for how an instance stands.
const STATE: u16 = 13;
/// Characters of all columns but the first, and of the gaps between them.
const TAKEN: u16 = STATE + 6 + 5 + 6 + 5 + 6 + CURVE as u16 + 7;

/// Draws it.
pub(super) fn draw(frame: &mut Frame<'_>, state: &State) {
    let area = frame.area();
    if area.width < LEAST.0 || area.height < LEAST.1 {
        let text = format!("top needs {} columns and {} lines; q quits", LEAST.0, LEAST.1);
        frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: true }), area);
        return;
    }
    let events = EVENTS + area.height.saturating_sub(24) / 3;
    let [header, table, events, footer] = Layout::vertical([
        Constraint::Length(HEADER),
        Constraint::Min(4),
        Constraint::Length(events.min(area.height / 3)),
        Constraint::Length(1),
    ])
    .areas(area);
    frame.render_widget(Paragraph::new(self::header(state, header.width)), header);
    instances(frame, state, table);
    self::events(frame, state, events);
    frame.render_widget(Paragraph::new(self::footer(state)), footer);
    match &state.mode {
        Mode::Help => help(frame, area),
        Mode::Confirm(wanted, id) => {
            let lines = vec![
                Line::from(format!("{} {}?", wanted.question(), safe(id))).style(strong()),
                Line::from(wanted.meaning()),
                Line::from(""),
                Line::from("y  do it      any other key  leave it"),
            ];
            popup(frame, area, "Are you sure?", lines);
        }
        Mode::Look | Mode::Filter => {}
    }
}

fn style(tone: Tone) -> Style {
    match tone {
        Tone::Plain => Style::new(),
        Tone::Strong => strong(),
        Tone::Faint => Style::new().fg(Color::DarkGray),
        Tone::Good => Style::new().fg(Color::Green),
        Tone::Warn => Style::new().fg(Color::Yellow),
        Tone::Bad => Style::new().fg(Color::Red),
    }
}

fn strong() -> Style {
    Style::new().add_modifier(Modifier::BOLD)
}

fn header(state: &State, width: u16) -> Vec<Line<'static>> {
    let (process, tick) = (&state.status.burdock, &state.tick);
    let phase = if process.phase == "serving" { Tone::Good } else { Tone::Warn };
    let first = match &state.lost {
        Some(why) => {
            Line::from(safe(&format!("lost {}: {why}", state.address))).style(style(Tone::Bad))
        }
        None => Line::from(vec![
            Span::styled(format!("burdock {}", safe(&process.version)), strong()),
            Span::raw(format!("  {}  ", safe(&state.address))),
            Span::styled(safe(&process.phase), style(phase)),
            Span::raw(format!(
                "  generation {}  up {}",
                state.status.config.generation,
                words::seconds(process.uptime_seconds.floor())
            )),
        ]),
    };
    let latency = tick.totals.latency_seconds.map_or_else(
        || "p50 -  p99 -".to_owned(),
        |it| format!("p50 {}  p99 {}", words::latency(it.p50), words::latency(it.p99)),
    );
    let errors = tick.totals.errors_per_second;
    let failing = if errors > 0.0 { Tone::Bad } else { Tone::Plain };
    let room = usize::from(width).saturating_sub(56).clamp(8, super::state::CURVE);
    let rates = Line::from(vec![
        Span::raw(format!("{:>7} req/s  ", words::rate(tick.totals.requests_per_second))),
        Span::styled(curve(&state.rate, room), style(Tone::Good)),
        Span::styled(format!("  {} err/s", words::rate(errors)), style(failing)),
        Span::raw(format!("  {latency}")),
    ]);
    let moved = &tick.rehomes_total;
    let total: u64 = moved.values().sum();
    let mut reasons: Vec<_> = moved.iter().filter(|(_, count)| **count > 0).collect();
    reasons.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let reasons: Vec<_> =
        reasons.iter().take(2).map(|(reason, count)| format!("{} {count}", safe(reason))).collect();
    let reasons = if total > 0 { format!(" ({})", reasons.join(", ")) } else { String::new() };
    let loads = Line::from(vec![
        Span::raw(format!(
            "{:>7} sessions  {} tunnels  {} conns  {total} re-homed{reasons} ",
            words::count(tick.sessions),
            words::count(tick.tunnels),
            words::count(tick.connections)
        )),
        Span::styled(curve(&state.moves, CURVE), style(Tone::Warn)),
    ]);
    vec![first, rates, loads, notice(state)]
}

/// The most pressing of what there is to say.
fn notice(state: &State) -> Line<'static> {
    match &state.message {
        Some(Ok(text)) => return Line::from(safe(text)).style(style(Tone::Good)),
        Some(Err(text)) => return Line::from(safe(text)).style(style(Tone::Bad)),
        None => {}
    }
    if let Some(reload) = state.status.config.last_reload.as_ref().filter(|reload| !reload.ok) {
        let why = reload.problems.first().map_or("see the log", String::as_str);
        let text = safe(&format!("the last reload was rejected: {why}"));
        return Line::from(text).style(style(Tone::Bad));
    }
    if let Some(name) = &state.tick.drill {
        let text = safe(&format!("the drill {name} runs: what fails may be meant to"));
        return Line::from(text).style(style(Tone::Warn));
    }
    if let Some((text, tone)) = ramp(state) {
        return Line::from(text).style(style(tone));
    }
    match state.status.warnings.as_slice() {
        [] => Line::default(),
        [first, rest @ ..] => {
            let more = if rest.is_empty() { String::new() } else { format!("+{} ", rest.len()) };
            let text = safe(&format!("warning {more}{}: {}", first.code, first.message));
            Line::from(text).style(style(Tone::Warn))
        }
    }
}

/// A ramp that is under way, or ended badly.
fn ramp(state: &State) -> Option<(String, Tone)> {
    let mut ramps = state.status.services.iter().filter_map(|service| service.ramp.as_ref());
    ramps.find_map(|ramp| Some((format!("ramp of {}", words::ramp(ramp)), words::ramp_tone(ramp)?)))
}

fn instances(frame: &mut Frame<'_>, state: &State, area: Rect) {
    let shown = state.shown();
    let wide = area.width >= 100;
    let sorted = |sort: Sort, name: &'static str| {
        let marked = if state.sort == sort { Modifier::UNDERLINED } else { Modifier::empty() };
        Cell::from(name).style(style(Tone::Faint).add_modifier(marked))
    };
    let number = |sort: Sort, name: &'static str, room: usize| {
        let marked = if state.sort == sort { Modifier::UNDERLINED } else { Modifier::empty() };
        Cell::from(format!("{name:>room$}")).style(style(Tone::Faint).add_modifier(marked))
    };
    let mut head = vec![
        sorted(Sort::Name, "INSTANCE"),
        sorted(Sort::State, "STATE"),
        number(Sort::Sessions, "SESS", 6),
        number(Sort::Tunnels, "TUN", 5),
        number(Sort::Rate, "REQ/S", 6),
        number(Sort::Errors, "ERR/S", 5),
        number(Sort::Latency, "P99", 6),
        Cell::from("LAST SECONDS").style(style(Tone::Faint)),
    ];
    let mut widths = vec![
        Constraint::Fill(1),
        Constraint::Length(STATE),
        Constraint::Length(6),
        Constraint::Length(5),
        Constraint::Length(6),
        Constraint::Length(5),
        Constraint::Length(6),
        Constraint::Length(CURVE as u16),
    ];
    if wide {
        head.push(Cell::from(format!("{:>6}", "WEIGHT")).style(style(Tone::Faint)));
        widths.push(Constraint::Length(6));
    }
    let taken = if wide { TAKEN + 7 } else { TAKEN };
    let room = usize::from(area.width.saturating_sub(taken));
    let rows = shown.iter().map(|row| TableRow::new(cells(row, wide, room)));
    let table = Table::new(rows, widths)
        .header(TableRow::new(head))
        .column_spacing(1)
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED))
        .block(Block::new().title(Line::from(title(state, shown.len())).style(strong())));
    let selected = (!shown.is_empty()).then(|| state.place(&shown));
    let mut place = TableState::new().with_selected(selected);
    frame.render_stateful_widget(table, area, &mut place);
}

fn title(state: &State, shown: usize) -> String {
    let all = state.rows.len();
    let mut text = match shown == all {
        true => words::plural(all as u64, "instance"),
        false => format!("{shown} of {}", words::plural(all as u64, "instance")),
    };
    let left_out = state.tick.instances_left_out;
    if left_out > 0 {
        text.push_str(&format!(" ({left_out} quiet ones left out)"));
    }
    let way = if state.reversed { ", reversed" } else { "" };
    text.push_str(&format!(", by {}{way}", state.sort.label()));
    if !state.filter.is_empty() || state.mode == Mode::Filter {
        let cursor = if state.mode == Mode::Filter { "_" } else { "" };
        text.push_str(&format!(", with {}{cursor}", safe(&state.filter)));
    }
    text
}

fn cells(row: &Row, wide: bool, room: usize) -> Vec<Cell<'static>> {
    let load = &row.load;
    let (state, tone) = row.standing();
    let failing = if load.eps > 0.0 { Tone::Bad } else { Tone::Plain };
    let right = |text: String, room: usize| format!("{text:>room$}");
    let mut cells = vec![
        Cell::from(end_of(&safe(&row.id), room)),
        Cell::from(state).style(style(tone)),
        Cell::from(right(words::count(load.sessions), 6)),
        Cell::from(right(words::count(load.tunnels), 5)),
        Cell::from(right(words::rate(load.rps), 6)),
        Cell::from(right(words::rate(load.eps), 5)).style(style(failing)),
        Cell::from(right(load.p99.map_or_else(|| "-".to_owned(), short), 6)),
        Cell::from(curve(&row.curve, CURVE)).style(style(Tone::Good)),
    ];
    if wide {
        cells.push(Cell::from(right(load.weight.to_string(), 6)));
    }
    cells
}

/// The end of an id, where all of it does not fit: instances differ there, in their ports above all.
fn end_of(id: &str, room: usize) -> String {
    let length = id.chars().count();
    if length <= room {
        return id.to_owned();
    }
    let end: String = id.chars().skip(length + 1 - room.max(1)).collect();
    format!("…{end}")
}

/// A latency in six characters.
fn short(seconds: f64) -> String {
    words::latency(seconds).replace(' ', "")
}

/// The last values as bars, the newest last, in so many characters.
pub(super) fn curve(values: &VecDeque<f64>, room: usize) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let last = values.iter().skip(values.len().saturating_sub(room));
    let most = last.clone().copied().fold(0.0, f64::max);
    let bar = |value: &f64| match (most > 0.0, *value > 0.0) {
        (true, true) => BARS[((value / most * 7.0).round() as usize).min(7)],
        _ => '▁',
    };
    let bars: String = last.map(bar).collect();
    format!("{}{bars}", " ".repeat(room.saturating_sub(values.len())))
}

fn events(frame: &mut Frame<'_>, state: &State, area: Rect) {
    let block = Block::new().title(Line::from("events").style(strong()));
    let room = usize::from(area.height.saturating_sub(1));
    let last = state.events.iter().skip(state.events.len().saturating_sub(room));
    let lines: Vec<_> = last.map(event).collect();
    let text = if lines.is_empty() {
        Paragraph::new("none yet").style(style(Tone::Faint))
    } else {
        Paragraph::new(lines)
    };
    frame.render_widget(text.block(block), area);
}

fn event(event: &Event) -> Line<'static> {
    let tone = match event.severity.as_str() {
        "error" => Tone::Bad,
        "warning" => Tone::Warn,
        _ => Tone::Plain,
    };
    let at = words::time_of_day(&event.at).split('.').next().unwrap_or_default();
    let of = event.instance.as_deref().map(|id| format!("{} ", safe(id))).unwrap_or_default();
    Line::from(vec![
        Span::styled(format!("{} ", safe(at)), style(Tone::Faint)),
        Span::styled(format!("{:<8} ", safe(&event.kind)), style(tone)),
        Span::raw(format!("{of}{}", safe(&event.text))),
    ])
}

fn footer(state: &State) -> Line<'static> {
    let text = match state.mode {
        Mode::Filter => "type a part of an id or state; Enter keeps it, Esc shows all",
        Mode::Look | Mode::Help | Mode::Confirm(..) => {
            "q quit  s sort  r reverse  / filter  d drain  e enable  x disable  ? help"
        }
    };
    Line::from(text).style(style(Tone::Faint))
}

fn help(frame: &mut Frame<'_>, area: Rect) {
    let line = |(key, does): &(&'static str, &'static str)| {
        Line::from(vec![Span::styled(format!("{key:<10} "), strong()), Span::raw(*does)])
    };
    popup(frame, area, "Keys", HELP.iter().map(line).collect());
}

/// Lines in a frame, in the middle of everything.
fn popup(frame: &mut Frame<'_>, area: Rect, title: &'static str, lines: Vec<Line<'static>>) {
    let widest = lines.iter().map(Line::width).max().unwrap_or(0);
    let width = u16::try_from(widest + 4).unwrap_or(u16::MAX).min(area.width);
    let height = u16::try_from(lines.len() + 2).unwrap_or(u16::MAX).min(area.height);
    let x = area.x + (area.width - width) / 2;
    let y = area.y + (area.height - height) / 2;
    let area = Rect { x, y, width, height };
    let block = Block::bordered().title(title).padding(ratatui::widgets::Padding::horizontal(1));
    frame.render_widget(Clear, area);
    frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: false }).block(block), area);
}
