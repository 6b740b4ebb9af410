//! What a key makes of the state. Pure.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::state::{Mode, State, Wanted};

/// Rows that a page has, about.
const PAGE: isize = 10;

/// What is to be done outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Effect {
    Quit,
    Steer(String, Wanted),
}

/// Every key with what it does, for the help.
pub(super) const HELP: [(&str, &str); 11] = [
    ("↑ ↓  j k", "select an instance"),
    ("PgUp PgDn", "ten further; Home and End too"),
    ("s", "sort by the next column"),
    ("r", "the other way round"),
    ("/", "show only what has this in its id or state"),
    ("Esc", "show all again"),
    ("d", "drain: new sessions go elsewhere, its own stay until the deadline"),
    ("e", "enable: it serves again"),
    ("x", "disable: sessions move at once, tunnels are closed"),
    ("?", "this help"),
    ("q  Ctrl-C", "quit"),
];

impl State {
    /// A key was pressed.
    pub(super) fn key(&mut self, key: KeyEvent) -> Option<Effect> {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return matches!(key.code, KeyCode::Char('c' | 'd')).then_some(Effect::Quit);
        }
        match self.mode.clone() {
            Mode::Look => return self.look(key.code),
            Mode::Filter => self.filter(key.code),
            Mode::Help => self.mode = Mode::Look,
            Mode::Confirm(wanted, id) => {
                self.mode = Mode::Look;
                // Nothing else means yes: a key too much must not cut anybody off.
                if matches!(key.code, KeyCode::Char('y' | 'Y')) {
                    return Some(Effect::Steer(id, wanted));
                }
            }
        }
        None
    }

    fn look(&mut self, key: KeyCode) -> Option<Effect> {
        self.message = None;
        match key {
            KeyCode::Char('q') => return Some(Effect::Quit),
            KeyCode::Char('?' | 'h') => self.mode = Mode::Help,
            KeyCode::Char('/') => self.mode = Mode::Filter,
            KeyCode::Char('s') => self.sort = self.sort.next(),
            KeyCode::Char('r') => self.reversed = !self.reversed,
            KeyCode::Char('d') => self.ask(Wanted::Drain),
            KeyCode::Char('e') => self.ask(Wanted::Enable),
            KeyCode::Char('x') => self.ask(Wanted::Disable),
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Up | KeyCode::Char('k') => self.step(-1),
            KeyCode::Down | KeyCode::Char('j') => self.step(1),
            KeyCode::PageUp => self.step(-PAGE),
            KeyCode::PageDown => self.step(PAGE),
            KeyCode::Home => self.step(isize::MIN),
            KeyCode::End => self.step(isize::MAX),
            _ => {}
        }
        None
    }

    fn filter(&mut self, key: KeyCode) {
        match key {
            KeyCode::Enter => self.mode = Mode::Look,
            KeyCode::Esc => {
                self.filter.clear();
                self.mode = Mode::Look;
            }
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Char(c) => self.filter.push(c),
            _ => {}
        }
    }

    fn ask(&mut self, wanted: Wanted) {
        let shown = self.shown();
        let id = shown.get(self.place(&shown)).map(|row| row.id.clone());
        if let Some(id) = id {
            self.mode = Mode::Confirm(wanted, id);
        }
    }

    fn step(&mut self, by: isize) {
        let shown = self.shown();
        let last = shown.len().saturating_sub(1);
        let place = self.place(&shown).saturating_add_signed(by).min(last);
        self.selected = shown.get(place).map(|row| row.id.clone());
    }
}
