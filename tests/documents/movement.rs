//! How many sessions move when instances come, go and restart: simulated with the functions that requests pass through,
//! beside what a hash modulo the number of instances would move. The tables in `deploy/scale.md` are this program's
//! output; `BURDOCK_RECORD=1 cargo test --test documents movement::` writes them anew.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use burdock::balance::{self, Draw, Field, Ring, Rotation};
use burdock::config::types::{Balance, HashKey};
use burdock::route::split::Sharing;

const BEGIN: &str = "<!-- made by `BURDOCK_RECORD=1 cargo test --test documents movement::` -->\n";
const END: &str = "<!-- end -->\n";

/// How a session finds its instance.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    /// Its token names it; a session without a place gets its turn.
    Even,
    /// The same, but those without a place go to the emptier of two.
    LeastSessions,
    /// `affinity.by`: a ring leads there.
    Ring,
    /// A hash of its id modulo the number of instances that are there.
    Modulo,
}

const WAYS: [Way; 4] = [Way::Even, Way::LeastSessions, Way::Ring, Way::Modulo];

/// What happens: how many instances there ever are, and at each step who of them is there.
struct Event {
    name: &'static str,
    sessions: usize,
    instances: usize,
    steps: Vec<Vec<bool>>,
}

impl Event {
    fn new(name: &'static str, sessions: usize, steps: Vec<Vec<bool>>) -> Self {
        Self { name, sessions, instances: steps[0].len(), steps }
    }

    /// From the first `before` of them to the first `after`.
    fn resize(name: &'static str, sessions: usize, before: usize, after: usize) -> Self {
        let all = before.max(after);
        let first = |count: usize| (0..all).map(|index| index < count).collect();
        Self::new(name, sessions, vec![first(before), first(after)])
    }

    /// Each is gone once, so many at a time, and comes back under its name.
    fn restart(name: &'static str, sessions: usize, count: usize, at_once: usize) -> Self {
        let mut steps = vec![vec![true; count]];
        for begin in (0..count).step_by(at_once) {
            steps
                .push((0..count).map(|index| !(begin..begin + at_once).contains(&index)).collect());
        }
        steps.push(vec![true; count]);
        Self::new(name, sessions, steps)
    }

    /// Each is replaced by one of another name, so many at a time; the new ones are there before the old ones go.
    fn replace(name: &'static str, sessions: usize, count: usize, at_once: usize) -> Self {
        let mut steps = vec![(0..2 * count).map(|index| index < count).collect()];
        for begin in (0..count).step_by(at_once) {
            let end = (begin + at_once).min(count);
            steps.push((0..2 * count).map(|index| (begin..count + end).contains(&index)).collect());
            steps.push((0..2 * count).map(|index| (end..count + end).contains(&index)).collect());
        }
        Self::new(name, sessions, steps)
    }
}

fn events() -> Vec<Event> {
    const FEW: usize = 100_000;
    const MANY: usize = 1_000_000;
    let there_and_back = |gone: &[usize]| {
        let without = (0..10).map(|index| !gone.contains(&index)).collect();
        vec![vec![true; 10], without, vec![true; 10]]
    };
    vec![
        Event::resize("10 instances become 11", FEW, 10, 11),
        Event::resize("10 become 9", FEW, 10, 9),
        Event::resize("100 become 110", FEW, 100, 110),
        Event::resize("100 become 90", FEW, 100, 90),
        Event::resize("10,000 become 10,001", MANY, 10_000, 10_001),
        Event::resize("10,000 become 9,000", MANY, 10_000, 9_000),
        Event::new("one of 10 fails and comes back", FEW, there_and_back(&[3])),
        Event::new("five of 10 fail at once and come back", FEW, there_and_back(&[0, 1, 2, 3, 4])),
        Event::restart("10 are restarted, one at a time", FEW, 10, 1),
        Event::restart("100 are restarted, one at a time", FEW, 100, 1),
        Event::restart("10,000 are restarted, 100 at a time", MANY, 10_000, 100),
        Event::replace("100 are replaced by new ones, ten at a time", FEW, 100, 10),
        Event::replace("100 are replaced by new ones, all at once", FEW, 100, 100),
    ]
}

/// Numbers that are the same on all machines (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^ (bits >> 31)
    }
}

/// What an event did.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Outcome {
    /// Moves for each hundred sessions.
    moves: f64,
    /// Sessions of the busiest instance at the end, as a multiple of the mean.
    busiest: f64,
}

fn play(event: &Event, way: Way) -> Outcome {
    let mut places = vec![usize::MAX; event.sessions];
    let mut loads = vec![0_u64; event.instances];
    let mut random = Random(1);
    let turn = AtomicU64::new(0);
    let names: Vec<_> = (0..event.instances)
        .map(|index| format!("10.{}.{}.{}:80", index >> 16, index >> 8 & 255, index & 255))
        .collect();
    let on_ring = names.iter().enumerate().map(|(index, name)| (index, &**name, 1));
    let ring = (way == Way::Ring).then(|| Ring::build(on_ring, None).map(Arc::new)).flatten();
    // Where the ring leads if everybody is there; it leads nowhere else while that one is.
    let home = |session: usize| ring.as_ref()?.find(&(session as u64).to_le_bytes(), |_| false);
    let homes: Vec<_> = (0..event.sessions).map(home).collect();
    let mut moves = 0_u64;
    for (step, there) in event.steps.iter().enumerate() {
        let present: Vec<_> = (0..event.instances).filter(|index| there[*index]).collect();
        let weighted: Vec<_> = present.iter().map(|index| (*index, 1)).collect();
        let field = Field { rotation: Rotation::build(&weighted), ring: ring.clone() };
        for (session, place) in places.iter_mut().enumerate() {
            let before = *place;
            let keeps = before != usize::MAX && there[before];
            let id = (session as u64).to_le_bytes();
            let now = match way {
                Way::Even | Way::LeastSessions if keeps => before,
                Way::Ring if homes[session].is_some_and(|home| there[home]) => {
                    homes[session].expect("asked above")
                }
                Way::Modulo => present[(crc32fast::hash(&id) as usize) % present.len()],
                way => {
                    let draw =
                        Draw { key: (way == Way::Ring).then_some(&id[..]), random: random.next() };
                    let balance = match way {
                        Way::LeastSessions => Balance::LeastSessions,
                        Way::Ring => Balance::Hash(HashKey::ClientIp),
                        _ => Balance::Even,
                    };
                    let load = |index: usize| loads[index];
                    balance::choose(&balance, &field, &turn, draw, load, |_| false)
                        .expect("somebody")
                }
            };
            if now != before {
                if before != usize::MAX {
                    loads[before] -= 1;
                }
                loads[now] += 1;
                *place = now;
                moves += u64::from(step > 0);
            }
        }
    }
    let last = event.steps.last().expect("steps").iter().filter(|there| **there).count();
    let mean = event.sessions as f64 / last as f64;
    let busiest = *loads.iter().max().expect("loads") as f64;
    Outcome { moves: 100.0 * moves as f64 / event.sessions as f64, busiest: busiest / mean }
}

/// Of every hundred clients without a token, how many come to another version; by rendezvous, and by parts of
/// one range as a modulo would have it.
fn resplit(before: &[u32], after: &[u32]) -> [f64; 2] {
    const CLIENTS: u64 = 1_000_000;
    let names = ["v1", "v2", "v3"];
    let sharing = |weights: &[u32]| Sharing::new(names.into_iter().zip(weights.iter().copied()));
    let (one, other) = (sharing(before), sharing(after));
    let part = |weights: &[u32], client: u64| {
        let place = crc32fast::hash(&client.to_le_bytes()) % weights.iter().sum::<u32>();
        let mut end = 0;
        weights.iter().position(|weight| {
            end += weight;
            place < end
        })
    };
    let share = |moved: &dyn Fn(u64) -> bool| {
        100.0 * (0..CLIENTS).filter(|c| moved(*c)).count() as f64 / CLIENTS as f64
    };
    [
        share(&|client| one.of(client) != other.of(client)),
        share(&|client| part(before, client) != part(after, client)),
    ]
}

fn tables() -> String {
    let mut text = "\nMoves for each hundred sessions; with 1,000,000 sessions where there are 10,000 instances, else 100,000.\n\n\
        | what happens | tokens, `even` | tokens, `least_sessions` | `affinity.by` (ring) | modulo |\n|---|---|---|---|---|\n"
        .to_owned();
    let mut evenness = "\nThe busiest instance afterwards, as a multiple of the mean.\n\n\
        | what has happened | tokens, `even` | tokens, `least_sessions` | `affinity.by` (ring) | modulo |\n|---|---|---|---|---|\n"
        .to_owned();
    for event in events() {
        let outcomes = WAYS.map(|way| play(&event, way));
        let row = |figure: &dyn Fn(&Outcome) -> String| {
            format!(
                "| {} | {} |\n",
                event.name,
                outcomes.iter().map(figure).collect::<Vec<_>>().join(" | ")
            )
        };
        text += &row(&|outcome| format!("{:.2}", outcome.moves));
        evenness += &row(&|outcome| format!("{:.2}", outcome.busiest));
    }
    let mut splits =
        "\nOf every hundred clients that no token binds, so many come to another version.\n\n\
        | another `traffic_split` | rendezvous | parts of a range |\n|---|---|---|\n"
            .to_owned();
    let changes: [(&str, &[u32], &[u32]); 4] = [
        ("99:1 becomes 95:5", &[99, 1], &[95, 5]),
        ("95:5 becomes 99:1 again", &[95, 5], &[99, 1]),
        ("50:50 becomes 40:40:20", &[50, 50], &[40, 40, 20]),
        ("60:30:10 becomes 70:20:10", &[60, 30, 10], &[70, 20, 10]),
    ];
    for (name, before, after) in changes {
        let [rendezvous, range] = resplit(before, after);
        splits += &format!("| {name} | {rendezvous:.2} | {range:.2} |\n");
    }
    text + &evenness + &splits + "\n"
}

#[test]
fn the_tables_of_what_moves_are_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/scale.md");
    let text = std::fs::read_to_string(&path).expect("a document");
    let (before, rest) = text.split_once(BEGIN).expect("where the tables begin");
    let (tables_now, after) = rest.split_once(END).expect("where they end");
    let made = tables();
    if std::env::var_os("BURDOCK_RECORD").is_some() {
        std::fs::write(&path, format!("{before}{BEGIN}{made}{END}{after}")).expect("write");
        return;
    }
    assert!(
        tables_now == made,
        "deploy/scale.md: BURDOCK_RECORD=1 cargo test --test documents movement::; now:\n{made}"
    );
}

#[test]
fn nobody_moves_who_need_not() {
    let of = |event: &Event, way: Way| play(event, way);
    let grown = Event::resize("", 20_000, 10, 11);
    assert_eq!(of(&grown, Way::Even).moves, 0.0, "a new instance takes nobody away");
    assert!((of(&grown, Way::Ring).moves - 100.0 / 11.0).abs() < 2.0);
    assert!(of(&grown, Way::Modulo).moves > 85.0);
    let shrunk = Event::resize("", 20_000, 100, 90);
    assert!(
        (of(&shrunk, Way::Even).moves - 10.0).abs() < 0.01,
        "only those of the ten that are gone"
    );
    let restarted = Event::restart("", 20_000, 100, 1);
    // One that is uniformly placed moves, and again if its new instance is yet to be restarted: e - 1 times.
    assert!((of(&restarted, Way::Even).moves / 100.0 - (1f64.exp() - 1.0)).abs() < 0.02);
    assert!((of(&restarted, Way::Ring).moves / 100.0 - 2.0).abs() < 0.1, "away and back");
    let at_once = Event::replace("", 20_000, 100, 100);
    assert_eq!(of(&at_once, Way::Even).moves, 100.0);
    for way in WAYS {
        assert_eq!(of(&shrunk, way), of(&shrunk, way), "the same each time");
    }
}
