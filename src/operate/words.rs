//! How an instance, a number, a time is told to people. Pure.

use crate::operate::shapes::{Instance, Latency, Ramp};
use crate::operate::table::{Tone, safe};

/// How an instance stands, in a few words.
pub fn standing(instance: &Instance) -> (String, Tone) {
    let mut said = Vec::new();
    let mut tone = Tone::Good;
    let left = instance.drain.as_ref().filter(|drain| !drain.done);
    let left = left.and_then(|drain| drain.deadline_seconds);
    let left = left.map(|left| format!(" {}", seconds(left))).unwrap_or_default();
    if instance.membership == "removed" {
        said.push(format!("removed{left}"));
        tone = Tone::Warn;
    } else if !matches!(instance.admin.as_str(), "active" | "") {
        let left = if instance.admin == "draining" { left.as_str() } else { "" };
        said.push(format!("{}{left}", instance.admin));
        tone = Tone::Warn;
    }
    if !matches!(instance.health.as_str(), "ready" | "") {
        said.push(instance.health.clone());
        tone = match instance.health.as_str() {
            "unknown" => Tone::Warn,
            _ => Tone::Bad,
        };
    }
    if !matches!(instance.breaker.as_str(), "closed" | "") {
        said.push(format!("breaker {}", instance.breaker));
        tone = if instance.breaker == "open" { Tone::Bad } else { Tone::Warn.max_of(tone) };
    }
    if said.is_empty() {
        said.push(if instance.health.is_empty() { "up" } else { "ready" }.to_owned());
    }
    (safe(&said.join(", ")), tone)
}

impl Tone {
    fn max_of(self, other: Self) -> Self {
        if other == Self::Bad { other } else { self }
    }
}

/// How a ramp stands.
pub fn ramp(ramp: &Ramp) -> String {
    let (service, version) = (safe(&ramp.service), safe(&ramp.version));
    let stage = safe(&ramp.stage.replace('_', " "));
    let reason = ramp.reason.as_deref().map(|reason| format!(": {}", safe(reason)));
    format!("{service}/{version}: {stage}, {}{}", percent(ramp.share), reason.unwrap_or_default())
}

/// How much that matters; nothing once it is over, unless it ended badly.
pub fn ramp_tone(ramp: &Ramp) -> Option<Tone> {
    match ramp.stage.as_str() {
        "running" => Some(Tone::Plain),
        "held" | "paused" => Some(Tone::Warn),
        "rolled_back" => Some(Tone::Bad),
        _ => None,
    }
}

/// A share from 0 to 1.
pub fn percent(share: f64) -> String {
    format!("{}%", (share * 1e4).round() / 100.0)
}

/// What its probe that failed said.
pub fn complaint(instance: &Instance) -> Option<String> {
    let probes = [&instance.probes.readiness, &instance.probes.liveness];
    let failed = probes.into_iter().flatten().find(|probe| !probe.ok)?;
    Some(safe(&failed.detail)).filter(|detail| !detail.is_empty())
}

/// Seconds as somebody would say them.
pub fn seconds(seconds: f64) -> String {
    // Half a second of a deadline is still one to wait for.
    let whole = seconds.max(0.0).ceil() as u64;
    match whole {
        0..=119 => format!("{whole} s"),
        120..=7199 => format!("{} min", whole / 60),
        7200..=172_799 => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
        _ => format!("{} d {} h", whole / 86_400, whole % 86_400 / 3600),
    }
}

/// A short time, in its unit.
pub fn latency(seconds: f64) -> String {
    let ms = seconds * 1000.0;
    match ms {
        _ if ms < 0.1 => format!("{:.0} µs", ms * 1000.0),
        _ if ms < 10.0 => format!("{ms:.1} ms"),
        _ if ms < 1000.0 => format!("{ms:.0} ms"),
        _ => format!("{seconds:.1} s"),
    }
}

/// The slowest of a hundred.
pub fn p99(latency_seconds: Option<&Latency>) -> String {
    latency_seconds.map_or_else(|| "-".to_owned(), |it| latency(it.p99))
}

/// A rate.
pub fn rate(per_second: f64) -> String {
    match per_second {
        _ if per_second <= 0.0 => "0".to_owned(),
        _ if per_second < 100.0 => format!("{per_second:.1}"),
        _ => count(per_second.round() as u64),
    }
}

/// A number, short where it is large.
pub fn count(number: u64) -> String {
    match number {
        0..=99_999 => number.to_string(),
        100_000..=9_999_999 => format!("{}k", number / 1000),
        _ => format!("{}M", number / 1_000_000),
    }
}

/// A share of new sessions.
pub fn weight(instance: &Instance) -> String {
    let plain = |number: f64| format!("{}", (number * 100.0).round() / 100.0);
    let (now, whole) = (instance.effective_weight, instance.weight);
    match (now - whole).abs() < 0.005 {
        true => plain(whole),
        false => format!("{}/{}", plain(now), plain(whole)),
    }
}

/// `1 session`, `2 sessions`.
pub fn plural(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// The time of day of an RFC 3339 instant.
pub fn time_of_day(at: &str) -> &str {
    let time = at.split_once('T').map_or(at, |(_, time)| time);
    time.trim_end_matches('Z')
}

/// Which ids `asked` may mean: the one that it is, else those that end with it.
pub fn matching<'a>(ids: impl Iterator<Item = &'a str> + Clone, asked: &str) -> Vec<&'a str> {
    if let Some(exact) = ids.clone().find(|id| *id == asked) {
        return vec![exact];
    }
    let ends = |id: &&str| id.strip_suffix(asked).is_some_and(|front| front.ends_with('/'));
    ids.filter(ends).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operate::shapes::Drain;

    #[test]
    fn an_instance_is_told_by_what_is_not_as_usual() {
        let up = Instance {
            membership: "present".into(),
            admin: "active".into(),
            health: "ready".into(),
            breaker: "closed".into(),
            ..Instance::default()
        };
        assert_eq!(standing(&up), ("ready".to_owned(), Tone::Good));
        let drain = Drain { deadline_seconds: Some(17.2), ..Drain::default() };
        let drained = Instance {
            admin: "draining".into(),
            health: "unready".into(),
            drain: Some(drain),
            ..up.clone()
        };
        assert_eq!(standing(&drained), ("draining 18 s, unready".to_owned(), Tone::Bad));
        let ejected = Instance { breaker: "half-open".into(), ..up };
        assert_eq!(standing(&ejected), ("breaker half-open".to_owned(), Tone::Warn));
    }

    #[test]
    fn numbers_are_as_somebody_would_say_them() {
        let said = [0.2, 18.0, 119.0, 120.0, 7300.0, 200_000.0].map(seconds);
        assert_eq!(said, ["1 s", "18 s", "119 s", "2 min", "2 h 1 min", "2 d 7 h"]);
        let said = [0.000_05, 0.0012, 0.0499, 2.5].map(latency);
        assert_eq!(said, ["50 µs", "1.2 ms", "50 ms", "2.5 s"]);
        assert_eq!([0.0, 1.25, 1234.4].map(rate), ["0", "1.2", "1234"]);
        assert_eq!([7, 123_456, 12_345_678].map(count), ["7", "123k", "12M"]);
        assert_eq!([plural(1, "tunnel"), plural(0, "tunnel")], ["1 tunnel", "0 tunnels"]);
        assert_eq!(time_of_day("2026-11-29T06:24:42.123Z"), "06:24:42.123");
    }

    #[test]
    fn an_id_is_found_whole_or_by_its_end() {
        let ids = ["chat/v1/a", "chat/v2/a", "chat/v1/ba", "a"];
        let found = |asked| matching(ids.into_iter(), asked);
        assert_eq!(found("chat/v1/a"), ["chat/v1/a"]);
        assert_eq!(found("v2/a"), ["chat/v2/a"]);
        assert_eq!(found("a"), ["a"]);
        assert_eq!(matching(ids[..3].iter().copied(), "a"), ["chat/v1/a", "chat/v2/a"]);
        assert_eq!(found("x"), [""; 0]);
        assert_eq!(found(""), [""; 0]);
    }
}
