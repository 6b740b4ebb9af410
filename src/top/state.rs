//! All that is shown: what was heard, and what the person at the keyboard has chosen. Pure.

use std::cmp::Ordering;
use std::collections::{BTreeMap, VecDeque};

use crate::operate::shapes::{Event, Instance, Load, Status, Tick};
use crate::operate::table::Tone;
use crate::operate::words;

/// Seconds that a curve shows at most.
pub(super) const CURVE: usize = 60;
/// Events that can be looked back at.
const EVENTS: usize = 200;

/// Something that was heard.
#[derive(Debug)]
pub(super) enum News {
    /// A second.
    Tick(Box<Tick>),
    /// The status, without instances.
    Status(Box<Status>),
    /// An event.
    Event(Event),
    /// What came of a wish.
    Steered(Result<String, String>),
    /// The balancer can't be heard, for this reason.
    Lost(String),
}

/// What somebody wants of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    Drain,
    Enable,
    Disable,
}

impl Wanted {
    /// As the API has it.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Drain => "draining",
            Self::Enable => "active",
            Self::Disable => "disabled",
        }
    }

    /// Before it is done.
    pub(super) const fn question(self) -> &'static str {
        match self {
            Self::Drain => "Drain",
            Self::Enable => "Enable",
            Self::Disable => "Disable",
        }
    }

    /// What it means.
    pub(super) const fn meaning(self) -> &'static str {
        match self {
            Self::Drain => "New sessions go elsewhere; its own stay until the drain's deadline.",
            Self::Enable => "It takes new sessions again.",
            Self::Disable => "Its sessions move at once and its tunnels are closed.",
        }
    }

    /// After it was done.
    pub(super) const fn done(self) -> &'static str {
        match self {
            Self::Drain => "drains",
            Self::Enable => "enabled",
            Self::Disable => "disabled",
        }
    }
}

/// What rows are sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    Name,
    State,
    Sessions,
    Tunnels,
    Rate,
    Errors,
    Latency,
}

impl Sort {
    const ALL: [Self; 7] = [
        Self::Name,
        Self::State,
        Self::Sessions,
        Self::Tunnels,
        Self::Rate,
        Self::Errors,
        Self::Latency,
    ];

    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::State => "state",
            Self::Sessions => "sessions",
            Self::Tunnels => "tunnels",
            Self::Rate => "req/s",
            Self::Errors => "err/s",
            Self::Latency => "p99",
        }
    }

    pub(super) fn next(self) -> Self {
        let place = Self::ALL.iter().position(|sort| *sort == self).unwrap_or_default();
        Self::ALL[(place + 1) % Self::ALL.len()]
    }
}

/// What keys are for at the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mode {
    Look,
    Filter,
    Help,
    Confirm(Wanted, String),
}

/// An instance.
#[derive(Debug, Clone, Default)]
pub(super) struct Row {
    pub(super) id: String,
    pub(super) load: Load,
    /// Answers in each of the last seconds.
    pub(super) curve: VecDeque<f64>,
}

impl Row {
    /// How it stands, in words.
    pub(super) fn standing(&self) -> (String, Tone) {
        words::standing(&Instance {
            admin: self.load.admin.clone(),
            health: self.load.health.clone(),
            breaker: self.load.breaker.clone(),
            ..Instance::default()
        })
    }

    fn badness(&self) -> u8 {
        match self.standing().1 {
            Tone::Bad => 2,
            Tone::Warn => 1,
            Tone::Plain | Tone::Strong | Tone::Faint | Tone::Good => 0,
        }
    }
}

/// All that is shown.
#[derive(Debug)]
pub(super) struct State {
    pub(super) address: String,
    pub(super) status: Status,
    pub(super) tick: Tick,
    pub(super) rows: BTreeMap<String, Row>,
    /// Answers of all instances in each of the last seconds.
    pub(super) rate: VecDeque<f64>,
    /// Sessions that moved in each of them.
    pub(super) moves: VecDeque<f64>,
    pub(super) events: VecDeque<Event>,
    pub(super) sort: Sort,
    pub(super) reversed: bool,
    pub(super) filter: String,
    pub(super) mode: Mode,
    /// The id of the row that keys are about.
    pub(super) selected: Option<String>,
    /// What came of the last wish.
    pub(super) message: Option<Result<String, String>>,
    /// Why nothing new is heard.
    pub(super) lost: Option<String>,
}

impl State {
    /// One that has heard nothing yet.
    pub(super) fn new(address: &str) -> Self {
        Self {
            address: address.to_owned(),
            status: Status::default(),
            tick: Tick::default(),
            rows: BTreeMap::new(),
            rate: VecDeque::new(),
            moves: VecDeque::new(),
            events: VecDeque::new(),
            sort: Sort::Name,
            reversed: false,
            filter: String::new(),
            mode: Mode::Look,
            selected: None,
            message: None,
            lost: None,
        }
    }

    /// Takes news in.
    pub(super) fn hear(&mut self, news: News) {
        match news {
            News::Tick(tick) => {
                self.lost = None;
                self.second(*tick);
            }
            News::Status(status) => self.status = *status,
            News::Event(event) => {
                self.events.push_back(event);
                let old = self.events.len().saturating_sub(EVENTS);
                self.events.drain(..old);
            }
            News::Steered(said) => self.message = Some(said),
            News::Lost(why) => self.lost = Some(why),
        }
    }

    fn second(&mut self, tick: Tick) {
        let moved = |tick: &Tick| tick.rehomes_total.values().sum::<u64>();
        let is_first = self.tick.at.is_empty();
        let moves = if is_first { 0 } else { moved(&tick).saturating_sub(moved(&self.tick)) };
        push(&mut self.moves, moves as f64);
        push(&mut self.rate, tick.totals.requests_per_second);
        self.rows.retain(|id, _| tick.instances.contains_key(id));
        for (id, load) in &tick.instances {
            let row = self.rows.entry(id.clone()).or_default();
            row.id.clone_from(id);
            row.load = load.clone();
            push(&mut row.curve, load.rps);
        }
        self.tick = tick;
    }

    /// The rows as they are shown: those that the filter lets through, sorted.
    pub(super) fn shown(&self) -> Vec<&Row> {
        let wanted = self.filter.to_lowercase();
        let fits = |row: &&Row| {
            wanted.is_empty()
                || row.id.to_lowercase().contains(&wanted)
                || row.standing().0.contains(&wanted)
        };
        let mut rows: Vec<_> = self.rows.values().filter(fits).collect();
        // Stable, so that equal ones keep the order of their ids.
        rows.sort_by(|a, b| self.order(a, b));
        if self.reversed {
            rows.reverse();
        }
        rows
    }

    fn order(&self, a: &Row, b: &Row) -> Ordering {
        let (one, other) = (&a.load, &b.load);
        match self.sort {
            Sort::Name => Ordering::Equal,
            Sort::State => b.badness().cmp(&a.badness()),
            Sort::Sessions => other.sessions.cmp(&one.sessions),
            Sort::Tunnels => other.tunnels.cmp(&one.tunnels),
            Sort::Rate => other.rps.total_cmp(&one.rps),
            Sort::Errors => other.eps.total_cmp(&one.eps),
            Sort::Latency => other.p99.unwrap_or_default().total_cmp(&one.p99.unwrap_or_default()),
        }
    }

    /// The place of the selected row among `shown`, the first where it isn't there.
    pub(super) fn place(&self, shown: &[&Row]) -> usize {
        let is_selected = |row: &&Row| Some(&row.id) == self.selected.as_ref();
        shown.iter().position(is_selected).unwrap_or(0)
    }
}

fn push(curve: &mut VecDeque<f64>, value: f64) {
    curve.push_back(value);
    let old = curve.len().saturating_sub(CURVE);
    curve.drain(..old);
}
