//! Which instances have ended: those that their source had called about to end, and names no longer.
//!
//! For a source that knows of ends, not to be named is the end. Whoever is bound to such an instance is
//! not to find that out by an address where nobody is any more, or somebody else.

use crate::config::found::Member;

/// Those that are about to end.
#[derive(Debug, Default)]
pub(super) struct Ends(Vec<Member>);

impl Ends {
    /// What is to be told before `now`, if anything: the same, and those that have ended as unready.
    pub(super) fn before(&mut self, now: &[Member]) -> Option<Vec<Member>> {
        let draining = now.iter().filter(|it| it.draining).cloned().collect();
        let mut ended = std::mem::replace(&mut self.0, draining);
        // An address may have a new owner already, and then tells nothing of the old one.
        ended.retain(|old| !now.iter().any(|it| it.name == old.name || it.address == old.address));
        if ended.is_empty() {
            return None;
        }
        let ended = ended.into_iter().map(|it| Member { unready: true, ..it });
        Some(now.iter().cloned().chain(ended).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, draining: bool) -> Member {
        Member::new(Some(name.to_owned()), format!("{name}:1"), 1, draining).unwrap()
    }

    #[test]
    fn one_that_was_to_end_and_is_gone_is_told_of_as_unready_once() {
        let (a, b, c) = (member("a", false), member("b", true), member("c", false));
        let mut ends = Ends::default();
        assert_eq!(ends.before(&[a.clone(), b.clone(), c.clone()]), None);
        let ended = Member { unready: true, ..b.clone() };
        assert_eq!(ends.before(std::slice::from_ref(&a)), Some(vec![a.clone(), ended]));
        assert_eq!(ends.before(std::slice::from_ref(&a)), None, "c only vanished, b is told of");
        ends.before(&[a.clone(), b.clone()]);
        assert_eq!(ends.before(&[a.clone(), member("b", false)]), None, "it goes on after all");
        ends.before(&[a.clone(), b.clone()]);
        let heir = Member { address: b.address.clone(), ..c };
        assert_eq!(ends.before(&[a, heir]), None, "somebody else is there");
    }
}
