//! What a drill on a running balancer may never do: leave a version fewer healthy instances than were
//! promised. Pure, but for looking at instances.

use std::sync::Arc;

use crate::instance::{Instance, Roster};
use crate::rehearsal::fault::Fault;

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

/// What is left to clients of this instance, in basis points.
fn left(instance: &Arc<Instance>, faults: &[&Fault]) -> u64 {
    if !instance.is_sound() {
        return 0;
    }
    let of = faults.iter().filter(|fault| fault.hits(instance));
    of.fold(WHOLE, |left, fault| left * (WHOLE - u64::from(fault.deed.takes())) / WHOLE)
}

/// Why these faults may not be there, or no longer, if they may not.
pub(super) fn objection(roster: &Roster, least: Least, faults: &[&Fault]) -> Option<String> {
    let members = roster.members();
    let present = members.present();
    let left: u64 = present.iter().map(|instance| left(instance, faults)).sum();
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
