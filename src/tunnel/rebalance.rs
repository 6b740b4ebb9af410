//! Moves tunnels to instances that have too few: [`Plan`] decides, [`run`] ends them politely.
//!
//! An instance that joins gets its share of new tunnels, but those that stand stay where they are
//! for as long as they live. So instances that are far above their share let some go, slowly, and
//! no more of them than needed. Who was sent away is counted where it is expected.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::types::{Rebalance, RebalanceMode};
use crate::instance::{Instance, Roster};
use crate::snapshot::Live;
use crate::tunnel::registry::Registry;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(500);
/// Between two cleanings of what is over.
const SWEEP: Duration = Duration::from_secs(5);

/// An instance that takes new sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seat {
    /// Above 0.
    pub weight: u32,
    /// Tunnels that it has or will have.
    pub tunnels: usize,
}

/// Tunnels above or below an instance's share.
#[derive(Debug, Clone, Copy)]
struct Excess(f64);

impl Ord for Excess {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl PartialOrd for Excess {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Excess {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Excess {}

/// Which tunnels should move, one after the other. Instances are kept in the order of their excess, so
/// that a move takes a logarithm of their number.
#[derive(Debug)]
pub struct Plan {
    seats: Vec<Seat>,
    /// Of all tunnels, by weight; a move changes none.
    shares: Vec<f64>,
    /// In basis points of a share.
    tolerance: u32,
    all: BTreeSet<(Excess, usize)>,
    /// Those that have more than is tolerated.
    overfull: BTreeSet<(Excess, usize)>,
}

impl Plan {
    /// For these instances; `tolerance` is in basis points of an instance's share.
    pub fn new(seats: Vec<Seat>, tolerance: u32) -> Self {
        let weight: f64 = seats.iter().map(|seat| f64::from(seat.weight)).sum();
        let tunnels: f64 = seats.iter().map(|seat| seat.tunnels as f64).sum();
        let share = |seat: &Seat| tunnels * f64::from(seat.weight) / weight;
        let shares = seats.iter().map(share).collect();
        let (all, overfull) = (BTreeSet::new(), BTreeSet::new());
        let mut plan = Self { seats, shares, tolerance, all, overfull };
        (0..plan.seats.len()).for_each(|place| plan.enter(place));
        plan
    }

    /// From where to where one tunnel should move, if one should.
    pub fn next(&self) -> Option<(usize, usize)> {
        let (most, from) = self.overfull.last()?;
        let (least, to) = self.all.first()?;
        // Where one would only change places with the other, it stays.
        (most.0 - least.0 > 1.0).then_some((*from, *to))
    }

    /// One has moved from the one to the other.
    pub fn moved(&mut self, from: usize, to: usize) {
        for place in [from, to] {
            let entry = self.entry(place);
            self.all.remove(&entry);
            self.overfull.remove(&entry);
        }
        self.seats[from].tunnels -= 1;
        self.seats[to].tunnels += 1;
        self.enter(from);
        self.enter(to);
    }

    fn enter(&mut self, place: usize) {
        let limit = (self.shares[place] * (1.0 + f64::from(self.tolerance) / 10_000.0)).ceil();
        let entry = self.entry(place);
        self.all.insert(entry);
        if self.seats[place].tunnels as f64 > limit {
            self.overfull.insert(entry);
        }
    }

    fn entry(&self, place: usize) -> (Excess, usize) {
        (Excess(self.seats[place].tunnels as f64 - self.shares[place]), place)
    }
}

/// The pace of one version.
#[derive(Debug, Default)]
struct Pace {
    /// Moves that may be made now.
    credit: f64,
}

impl Pace {
    fn earn(&mut self, rebalance: Rebalance, passed: Duration) {
        let per_second = f64::from(rebalance.max_per_minute) / 60.0;
        let most = (per_second * LOOK.as_secs_f64() * 2.0).max(1.0);
        self.credit = (self.credit + per_second * passed.as_secs_f64()).min(most);
    }

    fn pay(&mut self) -> bool {
        let pays = self.credit >= 1.0;
        self.credit -= if pays { 1.0 } else { 0.0 };
        pays
    }
}

/// Rebalances every version that asks for it, for as long as the process runs.
pub async fn run(live: Arc<Live>, registries: Vec<Arc<Registry>>) {
    let mut paces = std::collections::HashMap::<(String, String), Pace>::new();
    let (mut before, mut swept) = (Instant::now(), Instant::now());
    loop {
        tokio::time::sleep(LOOK).await;
        let now = Instant::now();
        let passed = now.saturating_duration_since(before);
        before = now;
        let snapshot = live.snapshot();
        for service in snapshot.services() {
            let (rebalance, roster) = (service.version().rebalance, &service.roster);
            if rebalance.mode == RebalanceMode::Bounded || roster.moves.are_asked_for() {
                let of = (roster.service().to_owned(), roster.version().to_owned());
                let pace = paces.entry(of).or_default();
                pace.earn(rebalance, passed);
                move_some(roster, rebalance, pace, &registries, now);
            }
            if now.saturating_duration_since(swept) >= SWEEP {
                roster.moves.sweep(now);
            }
        }
        if now.saturating_duration_since(swept) >= SWEEP {
            swept = now;
            let is_known = |service: &str, version: &str| {
                snapshot.services().iter().any(|known| {
                    known.roster.service() == service && known.roster.version() == version
                })
            };
            paces.retain(|(service, version), _| is_known(service, version));
        }
    }
}

fn move_some(
    roster: &Roster,
    rebalance: Rebalance,
    pace: &mut Pace,
    registries: &[Arc<Registry>],
    now: Instant,
) {
    let (instances, seats) = seats(roster, registries, now);
    let mut plan = Plan::new(seats, rebalance.tolerance);
    let is_bounded = rebalance.mode == RebalanceMode::Bounded;
    while let Some((from, to)) = plan.next() {
        if !is_bounded && !roster.moves.are_asked_for() || !pace.pay() {
            return;
        }
        // The worker that holds most of them lets one go.
        let most = registries.iter().max_by_key(|registry| registry.open(&instances[from]));
        let expect = |session| roster.moves.begin(Arc::clone(&instances[to]), session, now);
        if !most.is_some_and(|registry| registry.shed(&instances[from], expect)) {
            return;
        }
        roster.moves.made_one();
        plan.moved(from, to);
    }
    roster.moves.ask(0);
}

/// Has tunnels moved once, at the pace of `rebalance.max_per_minute`, whatever its mode is. Gives how
/// many.
pub fn ask(roster: &Roster, registries: &[Arc<Registry>], tolerance: u32) -> usize {
    let (_, seats) = seats(roster, registries, Instant::now());
    let mut plan = Plan::new(seats, tolerance);
    let mut tunnels = 0;
    while let Some((from, to)) = plan.next() {
        plan.moved(from, to);
        tunnels += 1;
    }
    roster.moves.ask(tunnels);
    tunnels
}

/// The instances that take new sessions, and what they have or will have.
fn seats(
    roster: &Roster,
    registries: &[Arc<Registry>],
    now: Instant,
) -> (Vec<Arc<Instance>>, Vec<Seat>) {
    let instances: Vec<Arc<Instance>> = {
        let members = roster.members();
        let takes = |instance: &&Arc<Instance>| {
            instance.eligibility().new_sessions
                && instance.admits()
                && instance.effective_weight() > 0
        };
        members.all().iter().filter(takes).cloned().collect()
    };
    let seat = |instance: &Arc<Instance>| {
        let open = registries.iter().map(|registry| registry.open(instance)).sum::<usize>();
        let tunnels = open + roster.moves.expected(instance, now);
        Seat { weight: instance.effective_weight(), tunnels }
    };
    let seats = instances.iter().map(seat).collect();
    (instances, seats)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn seats(of: &[(u32, usize)]) -> Vec<Seat> {
        of.iter().map(|(weight, tunnels)| Seat { weight: *weight, tunnels: *tunnels }).collect()
    }

    /// Moves until nothing is left to move; how many moves that took.
    fn settle(seats: &mut Vec<Seat>, tolerance: u32) -> usize {
        let mut plan = Plan::new(std::mem::take(seats), tolerance);
        let mut moves = 0;
        while let Some((from, to)) = plan.next() {
            plan.moved(from, to);
            moves += 1;
            assert!(moves < 1_000_000, "{:?}", plan.seats);
        }
        *seats = plan.seats;
        moves
    }

    /// What it takes is printed: `--nocapture`. By looking at each instance for each move it would be
    /// minutes.
    #[test]
    fn ten_thousand_instances_are_planned_for_in_a_moment() {
        let of = |place: u32| (1, if place.is_multiple_of(2) { 100 } else { 0 });
        let mut seats = seats(&(0..10_000).map(of).collect::<Vec<_>>());
        let begun = Instant::now();
        let moves = settle(&mut seats, 0);
        println!("{moves} moves between {} instances in {:?}", seats.len(), begun.elapsed());
        assert_eq!(moves, 250_000);
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    }

    #[test]
    fn a_new_instance_gets_its_share_and_no_more_move_than_needed() {
        for (before, tolerance, after, moves) in [
            (&[(1, 50), (1, 50), (1, 0)][..], 0, &[34, 34, 32][..], 32),
            (&[(1, 50), (1, 50), (1, 0)], 1000, &[37, 37, 26], 26),
            (&[(1, 30), (2, 0)], 0, &[10, 20], 20),
            (&[(1, 10), (1, 10)], 0, &[10, 10], 0),
            (&[(1, 11), (1, 10)], 0, &[11, 10], 0),
            (&[(1, 1), (1, 0), (1, 0)], 0, &[1, 0, 0], 0),
            (&[(1, 2), (1, 0)], 0, &[1, 1], 1),
            (&[(1, 5)], 0, &[5], 0),
        ] {
            let mut seats = seats(before);
            assert_eq!(settle(&mut seats, tolerance), moves, "{before:?}");
            let tunnels: Vec<_> = seats.iter().map(|seat| seat.tunnels).collect();
            assert_eq!(tunnels, after, "{before:?}");
        }
        assert_eq!(Plan::new(Vec::new(), 0).next(), None);
    }

    proptest! {
        #[test]
        fn it_comes_to_rest_within_tolerance(
            of in proptest::collection::vec((1u32..20, 0usize..300), 1..8),
            tolerance in 0u32..5000,
        ) {
            let mut seats = seats(&of);
            settle(&mut seats, tolerance);
            let weight: u32 = seats.iter().map(|seat| seat.weight).sum();
            let tunnels: usize = seats.iter().map(|seat| seat.tunnels).sum();
            for seat in &seats {
                let share = tunnels as f64 * f64::from(seat.weight) / f64::from(weight);
                let limit = (share * (1.0 + f64::from(tolerance) / 10_000.0)).ceil() + 1.0;
                prop_assert!(seat.tunnels as f64 <= limit, "{:?}", seats);
            }
        }
    }

    #[test]
    fn the_pace_lets_no_more_pass_than_a_minute_allows() {
        let mut pace = Pace::default();
        let rebalance = Rebalance { max_per_minute: 60, ..Rebalance::default() };
        let mut made = 0;
        for _ in 0..120 {
            pace.earn(rebalance, Duration::from_millis(500));
            made += std::iter::from_fn(|| pace.pay().then_some(())).count();
        }
        assert_eq!(made, 60);
        pace.earn(rebalance, Duration::from_secs(3600));
        assert_eq!(std::iter::from_fn(|| pace.pay().then_some(())).count(), 1, "none are saved up");
    }
}
