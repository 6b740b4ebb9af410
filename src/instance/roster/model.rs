//! Any sequence of what can happen to instances, against an oracle that knows the table of causes.
//!
//! The breaker is a machine with properties of its own: the oracle takes its word for what passes.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::config::types::State;
use crate::health::agent::Report;
use crate::instance::{InFlight, Trial};

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// What can happen.
#[derive(Debug, Clone)]
enum Event {
    /// A reload names these, in these states; at least one.
    Reload(Vec<Option<State>>),
    /// A verdict.
    Health(usize, Health),
    /// An instance says what it wants.
    Report(usize, State, bool),
    /// A request begins where it belongs.
    Begin(usize),
    /// The oldest request succeeds, fails, is answered with a 5xx, or its client leaves.
    End(char),
    /// Time passes.
    Pass(u64),
    /// The oldest drain of a state is over.
    Drained,
    /// The drain of a removed instance is over.
    Forget(usize),
}

/// What the oracle knows of an instance.
#[derive(Debug, Clone)]
struct Known {
    present: bool,
    operator: State,
    agent: (State, bool),
    drained: bool,
    health: Health,
}

impl Known {
    fn wanted(&self) -> State {
        self.operator.max(self.agent.0)
    }

    /// A word from one side; a drain begins anew once it was called off.
    fn hear(&mut self, say: impl FnOnce(&mut Self)) {
        say(self);
        self.drained &= self.wanted() == State::Draining;
    }
}

struct World {
    roster: Arc<Roster>,
    known: BTreeMap<&'static str, Known>,
    requests: VecDeque<(InFlight, Option<Trial>)>,
    drains: VecDeque<(Arc<Instance>, Departure)>,
    now: Instant,
}

impl World {
    fn new() -> Self {
        let now = Instant::now();
        let roster = Arc::new(Roster::new("default", "default", now));
        let (known, requests, drains) = Default::default();
        let mut world = Self { roster, known, requests, drains, now };
        world.reload(&[Some(State::Active); 4]);
        world
    }

    fn find(&self, place: usize) -> Option<Arc<Instance>> {
        let members = self.roster.members();
        members.everyone().iter().find(|it| it.identity().name == NAMES[place]).cloned()
    }

    fn reload(&mut self, states: &[Option<State>]) {
        let named: Vec<_> =
            NAMES.iter().zip(states).filter_map(|(name, state)| Some((*name, (*state)?))).collect();
        if named.is_empty() {
            return;
        }
        let row = |(name, state): &(&str, State)| {
            format!("{{ name: {name}, address: {name}:1, state: {} }}", state.word())
        };
        let rows: Vec<_> = named.iter().map(row).collect();
        let text = format!(
            "instances: [{}]\nslow_start: 30s\npanic_threshold: 50%\n\
             readiness_check: {{ path: /r, agent: true }}\n\
             breaker: {{ failures: 2, error_share: 50%, min_requests: 4, open: 1s, trials: 1 }}\n",
            rows.join(", ")
        );
        let config = tests::version(&text);
        self.drains.extend(self.roster.reconcile(&config, 1).draining);
        self.known.values_mut().for_each(|known| known.present = false);
        for (name, operator) in named {
            let known = self.known.entry(name).or_insert_with(|| Known {
                present: true,
                operator,
                agent: (State::Active, true),
                drained: false,
                health: Health::Unknown,
            });
            known.present = true;
            known.hear(|known| known.operator = operator);
        }
    }

    fn happens(&mut self, event: &Event) {
        match event {
            Event::Reload(states) => self.reload(states),
            Event::Health(place, health) => {
                let Some(instance) = self.find(*place) else { return };
                instance.set_health(*health, "a model");
                self.known.get_mut(NAMES[*place]).unwrap().health = *health;
            }
            Event::Report(place, state, has_weight) => {
                let Some(instance) = self.find(*place) else { return };
                let percent = if *has_weight { 100 } else { 0 };
                let drain = instance.heed(Report { state: *state, percent });
                self.drains.extend(drain.map(|drain| (instance, drain)));
                let known = self.known.get_mut(NAMES[*place]).unwrap();
                known.hear(|known| known.agent = (*state, *has_weight));
            }
            Event::Begin(place) => {
                let bound = self.roster.bound(NAMES[*place], 0).ok();
                let draw = Draw { key: None, random: *place as u64 };
                let Some(to) = bound.or_else(|| self.roster.choose(draw, Kind::Request, &[]))
                else {
                    return;
                };
                let trial = Trial::begin(&to);
                self.requests.push_back((
                    InFlight::begin(&to, 0, Kind::Request).expect("no limit is set"),
                    trial,
                ));
            }
            Event::End(how) => {
                let Some((request, trial)) = self.requests.pop_front() else { return };
                let instance = request.instance();
                match how {
                    's' => {
                        request.lane().answered(http::StatusCode::OK);
                        instance.succeeded(trial);
                    }
                    '5' => {
                        request.lane().answered(http::StatusCode::BAD_GATEWAY);
                        instance.erred(0, trial, self.now);
                    }
                    'f' => {
                        request.lane().failed();
                        instance.failed(0, trial, self.now);
                    }
                    _ => drop(trial),
                }
            }
            Event::Pass(millis) => {
                self.now += Duration::from_millis(*millis);
                self.roster.advance_ramps(self.now);
                let members = self.roster.members();
                members.everyone().iter().for_each(|instance| instance.tick(self.now));
            }
            Event::Drained => {
                let Some((instance, drain)) = self.drains.pop_front() else { return };
                if instance.finish_drain(drain)
                    && instance.membership() != Membership::Gone
                    && let Some(known) = self.known.get_mut(&*instance.identity().name)
                {
                    known.drained = true;
                }
            }
            Event::Forget(place) => {
                let Some(instance) = self.find(*place) else { return };
                self.roster.forget(&instance);
                if instance.membership() == Membership::Gone {
                    self.known.remove(NAMES[*place]);
                }
            }
        }
    }

    fn is_in_panic(&self) -> bool {
        let counts = |known: &&Known| {
            known.present && known.wanted() == State::Active && known.health != Health::Unknown
        };
        let counted: Vec<_> = self.known.values().filter(counts).collect();
        let ready = counted.iter().filter(|known| known.health == Health::Ready).count();
        ready * 2 < counted.len()
    }

    /// Whether the table lets it serve its sessions, breaker aside.
    fn serves(&self, known: &Known) -> bool {
        let is_healthy = match known.health {
            Health::Ready => true,
            Health::Unready | Health::Unanswered => self.is_in_panic(),
            Health::Unknown | Health::Dead => false,
        };
        is_healthy && known.wanted() != State::Disabled && !known.drained
    }

    fn check(&self) -> Result<(), TestCaseError> {
        prop_assert_eq!(self.roster.is_in_panic(), self.is_in_panic());
        let live: Vec<_> = (0..NAMES.len())
            .filter_map(|place| Some((self.find(place)?, self.known.get(NAMES[place])?)))
            .collect();
        prop_assert_eq!(live.len(), self.known.len(), "nobody else is there");
        let names = |fits: &dyn Fn(&Instance, &Known) -> bool| -> Vec<&str> {
            let fitting = live.iter().filter(|(instance, known)| fits(instance, known));
            fitting.map(|(instance, _)| &*instance.identity().name).collect()
        };
        let helps = names(&|instance, known| self.serves(known) && instance.admits());
        for (instance, known) in &live {
            let name = &*instance.identity().name;
            let bound = self.roster.bound(name, 0);
            let is_needed = helps.iter().all(|other| *other == name);
            let expected = self.serves(known) && (instance.admits() || is_needed);
            prop_assert_eq!(bound.is_ok(), expected, "{} {:?} {:?}", name, known, bound);
        }
        let welcome = names(&|instance, known| {
            let takes_new = known.present && known.wanted() == State::Active && known.agent.1;
            takes_new && self.serves(known) && instance.admits()
        });
        let held = names(&|_, known| known.present && self.serves(known));
        let allowed = [&welcome, &helps, &held].into_iter().find(|names| !names.is_empty());
        for random in 0..8 {
            let chosen = self.roster.choose(Draw { key: None, random }, Kind::Request, &[]);
            let chosen = chosen.as_ref().map(|chosen| &*chosen.identity().name);
            prop_assert_eq!(chosen.is_some(), allowed.is_some());
            let fits = chosen.zip(allowed).is_none_or(|(name, allowed)| allowed.contains(&name));
            prop_assert!(fits, "{:?} of {:?}", chosen, allowed);
        }
        Ok(())
    }

    /// Nothing is left of what has ended.
    fn rest(mut self) -> Result<(), TestCaseError> {
        self.requests.clear();
        self.happens(&Event::Pass(120_000));
        for instance in self.roster.members().everyone() {
            prop_assert_eq!(instance.load(), 0);
            prop_assert!(instance.admits(), "a permit is lost: {:?}", instance.passage());
        }
        Ok(())
    }
}

fn event() -> impl Strategy<Value = Event> {
    let state = || prop_oneof![3 => Just(State::Active), 1 => Just(State::Draining), 1 => Just(State::Disabled)];
    let health = prop_oneof![
        4 => Just(Health::Ready),
        1 => Just(Health::Unready),
        1 => Just(Health::Unanswered),
        1 => Just(Health::Dead),
    ];
    let place = 0..NAMES.len();
    prop_oneof![
        1 => proptest::collection::vec(proptest::option::weighted(0.8, state()), 4)
            .prop_map(Event::Reload),
        4 => (place.clone(), health).prop_map(|(place, health)| Event::Health(place, health)),
        1 => (place.clone(), state(), any::<bool>())
            .prop_map(|(place, state, has_weight)| Event::Report(place, state, has_weight)),
        4 => place.clone().prop_map(Event::Begin),
        4 => proptest::sample::select(vec!['s', '5', 'f', 'f', 'd']).prop_map(Event::End),
        2 => (0_u64..3000).prop_map(Event::Pass),
        1 => Just(Event::Drained),
        1 => place.prop_map(Event::Forget),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_nobody_is_chosen_who_may_not_and_no_session_moves_needlessly(
        events in proptest::collection::vec(event(), 1..60),
    ) {
        let mut world = World::new();
        world.check()?;
        for event in &events {
            world.happens(event);
            world.check()?;
        }
        world.rest()?;
    }
}
