//! What a drill on a running balancer may never do: leave a version fewer healthy instances than were
//! promised. Pure, but for looking at instances.

use std::sync::Arc;
use std::time::Duration;

use crate::instance::disturbance::Effect;
use crate::instance::{Instance, Roster};
use crate::rehearsal::fault::{Deed, Hits};

/// One whole instance, in basis points of one.
const WHOLE: u64 = 10_000;

/// How many healthy instances each version that a drill touches must keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Least {
    /// So many.
    Count(u32),
    /// This share of those that it has, in basis points, rounded up to whole ones.
    Share(u32),
}

impl Least {
    /// Of so many.
    fn of(self, instances: usize) -> u64 {
        match self {
            Self::Count(count) => count.into(),
            Self::Share(share) => (instances as u64 * u64::from(share)).div_ceil(WHOLE),
        }
    }
}

impl std::fmt::Display for Least {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Count(count) => write!(f, "{count}"),
            Self::Share(share) => write!(f, "{}%", f64::from(*share) / 100.0),
        }
    }
}

/// What is left to clients of an instance that these deeds are done to, in basis points, where a request
/// that is so late is in danger of failing.
fn left(deeds: &[Deed], late: Duration) -> u64 {
    let (mut left, mut delays) = (WHOLE, Vec::new());
    for deed in deeds {
        match deed {
            Deed::Eject(_) | Deed::Drain(_) | Deed::Disable => return 0,
            Deed::Disturb(disturbance) => match disturbance.of_all() {
                Some(Effect::Abort(_)) => {
                    left = left * (WHOLE - u64::from(disturbance.share)) / WHOLE
                }
                Some(Effect::Delay(by)) => delays.push((by, u64::from(disturbance.share))),
                None => {}
            },
        }
    }
    left * (WHOLE - too_late(&delays, late)) / WHOLE
}

/// The most requests that delays, each of a share, make `late` or later, in basis points. Which of them
/// meet in one request is not known: each counts for its share of the lateness that it brings, which is
/// exact for one alone (Markov's inequality for several).
fn too_late(delays: &[(Duration, u64)], late: Duration) -> u64 {
    let total: Duration = delays.iter().map(|(by, _)| *by).sum();
    if total < late {
        return 0;
    }
    let late = late.as_micros().max(1);
    let brings = |(by, share): &(Duration, u64)| by.as_micros().min(late) * u128::from(*share);
    let brought: u128 = delays.iter().map(brings).sum();
    u64::try_from(brought.div_ceil(late)).unwrap_or(WHOLE).min(WHOLE)
}

/// Why these faults may not be there, or no longer, if they may not.
pub(super) fn objection(roster: &Roster, least: Least, hits: &Hits) -> Option<String> {
    let members = roster.members();
    let present = members.present();
    // An instance takes its own time as well: half of what it may take is left to it.
    let late = roster.first_byte() / 2;
    let sound = present.iter().filter(|instance| instance.is_sound());
    let left: u64 = sound.map(|instance: &Arc<Instance>| left(hits.on(instance), late)).sum();
    let needed = least.of(present.len());
    (left < needed * WHOLE).then(|| {
        let left = (left / 100) as f64 / 100.0;
        let (service, version) = (roster.service(), roster.version());
        format!(
            "{service}/{version} would have {left} healthy instances, and min_healthy is {least}"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_take_what_they_may_make_too_late() {
        let late = Duration::from_secs(30);
        for (delays, expected) in [
            (&[][..], 0),
            (&[(29, 10_000)], 0),
            (&[(30, 2500)], 2500),
            (&[(3600, 2500)], 2500),
            (&[(15, 10_000), (15, 10_000)], 10_000),
            (&[(15, 5000), (15, 5000)], 5000),
            (&[(20, 5000), (20, 5000), (20, 5000)], 10_000),
            (&[(30, 100), (1, 10_000)], 434),
            (&[(30, 0)], 0),
        ] {
            let of = |(by, share): &(u64, u64)| (Duration::from_secs(*by), *share);
            let delays: Vec<_> = delays.iter().map(of).collect();
            assert_eq!(too_late(&delays, late), expected, "{delays:?}");
        }
    }

    #[test]
    fn a_share_is_of_whole_instances() {
        for (least, instances, expected) in [
            (Least::Count(2), 9, 2),
            (Least::Share(5000), 3, 2),
            (Least::Share(5000), 4, 2),
            (Least::Share(1), 3, 1),
            (Least::Share(10_000), 3, 3),
            (Least::Share(5000), 0, 0),
        ] {
            assert_eq!(least.of(instances), expected, "{least} of {instances}");
        }
        assert_eq!([Least::Count(2), Least::Share(3350)].map(|it| it.to_string()), ["2", "33.5%"]);
    }
}
