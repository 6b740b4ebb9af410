//! When a certificate is asked for, and when not: pure, in seconds since the Unix epoch.

use std::time::Duration;

const HOUR: u64 = 3600;
/// Orders for one host in an hour. Let's Encrypt takes five failures.
const MOST_FOR_ONE: usize = 5;
/// Orders in an hour for all hosts in one folder.
const MOST: usize = 60;
/// Waits after failures, in minutes; the last one is for all that follow.
const BACKOFF: [u64; 8] = [1, 5, 15, 30, 60, 120, 240, 480];

/// When a certificate that is good from `life.0` to `life.1` is to be replaced: `before` its end or a
/// third of its life, and up to a tenth of that earlier by `share`, 0 to 1. Never in the first half of
/// its life, so that no setting asks again and again.
pub(super) fn renewal(life: (u64, u64), before: Option<Duration>, share: f64) -> u64 {
    let (from, until) = life;
    let whole = until.saturating_sub(from);
    let before = before.map_or(whole / 3, |before| before.as_secs());
    let earlier = (before as f64 * 0.1 * share.clamp(0.0, 1.0)) as u64;
    until.saturating_sub(before.saturating_add(earlier).min(whole / 2))
}

/// How long to wait after a failure that `failures` others came before, spread by `share`, 0 to 1.
pub(super) fn backoff(failures: u32, share: f64) -> Duration {
    let place = usize::try_from(failures).unwrap_or(usize::MAX).min(BACKOFF.len() - 1);
    Duration::from_secs(BACKOFF[place] * 60).mul_f64(1.0 + 0.1 * share.clamp(0.0, 1.0))
}

/// When the next order for `domain` may be made, if that is not now: there were too many.
pub(super) fn bound(orders: &[(u64, String)], domain: &str, now: u64) -> Option<u64> {
    let recent = |(at, _): &&(u64, String)| *at + HOUR > now && *at <= now;
    let free_again = |mut times: Vec<u64>, most: usize| {
        times.sort_unstable();
        let last = times.len().checked_sub(most)?;
        Some(times[last] + HOUR)
    };
    let times = |of: &dyn Fn(&str) -> bool| -> Vec<u64> {
        let orders = orders.iter().filter(recent).filter(|(_, domain)| of(domain));
        orders.map(|(at, _)| *at).collect()
    };
    let own = free_again(times(&|known| known == domain), MOST_FOR_ONE);
    own.max(free_again(times(&|_| true), MOST))
}

/// Those that [`bound`] may still ask for.
pub(super) fn recent(orders: &[(u64, String)], now: u64) -> impl Iterator<Item = &(u64, String)> {
    orders.iter().filter(move |(at, _)| *at + HOUR > now && *at <= now)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: u64 = 86_400;

    #[test]
    fn a_certificate_is_replaced_in_its_last_third_or_as_is_said() {
        let from = 1_000 * DAY;
        for (days, before, share, expected) in [
            (90, None, 0.0, 60.0),
            (90, None, 1.0, 57.0),
            (90, Some(10), 0.0, 80.0),
            (90, Some(10), 1.0, 79.0),
            (6, Some(30), 0.0, 3.0),
            (90, Some(365), 1.0, 45.0),
        ] {
            let before = before.map(|days| Duration::from_secs(days * DAY));
            let at = renewal((from, from + days * DAY), before, share);
            assert_eq!((at - from) as f64 / DAY as f64, expected, "{days} {before:?} {share}");
        }
    }

    proptest! {
        #[test]
        fn no_setting_asks_in_the_first_half_of_a_life_or_after_it(
            from in 0_u64..1 << 40,
            whole in 1_u64..1 << 40,
            before in proptest::option::of(0_u64..1 << 40),
            share in 0.0..=1.0,
        ) {
            let at = renewal((from, from + whole), before.map(Duration::from_secs), share);
            prop_assert!(at >= from + whole / 2 && at <= from + whole);
        }

        #[test]
        fn whatever_is_asked_for_no_hour_has_more_orders_than_it_may(
            asked in proptest::collection::vec((0_u64..200, 0_u8..30), 1..600),
        ) {
            let (mut now, mut orders) = (HOUR, Vec::new());
            for (later, host) in asked {
                now += later;
                let domain = format!("{host}.test");
                match bound(&orders, &domain, now) {
                    None => orders.push((now, domain)),
                    Some(at) => prop_assert!(at > now),
                }
                let in_hour = recent(&orders, now);
                prop_assert!(in_hour.count() <= MOST);
                let own = |(_, known): &&(u64, String)| *known == format!("{host}.test");
                prop_assert!(recent(&orders, now).filter(own).count() <= MOST_FOR_ONE);
            }
        }
    }

    #[test]
    fn waits_grow_and_are_spread() {
        let minutes = |failures, share| backoff(failures, share).as_secs_f64() / 60.0;
        assert_eq!(
            [0, 1, 2, 7, 8, u32::MAX].map(|n| minutes(n, 0.0)),
            [1., 5., 15., 480., 480., 480.]
        );
        assert!((minutes(0, 1.0) - 1.1).abs() < 1e-9);
    }

    #[test]
    fn orders_of_one_host_leave_those_of_others_alone() {
        let orders: Vec<_> = (0..5).map(|n| (10_000 + n, "a.test".to_owned())).collect();
        assert_eq!(bound(&orders, "a.test", 10_010), Some(10_000 + HOUR));
        assert_eq!(bound(&orders, "b.test", 10_010), None);
        assert_eq!(bound(&orders, "a.test", 10_000 + HOUR), None);
        // A clock that was set back forgets them.
        assert_eq!(bound(&orders, "a.test", 9_000), None);
    }
}
