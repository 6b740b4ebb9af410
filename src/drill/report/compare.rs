//! Two reports side by side.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::Report;

/// What differs, and whether the second misses a limit that the first one met.
pub(in crate::drill) fn compare(a: &Report, b: &Report) -> (String, bool) {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = write(&mut out, a, b);
    (out, !worse(a, b).is_empty())
}

type Key<'a> = (&'a str, &'a str, &'a str);

fn limits(report: &Report) -> BTreeMap<Key<'_>, (&str, bool)> {
    let rows = report.limits.iter();
    rows.map(|it| ((&*it.of, &*it.measure, &*it.allowed), (&*it.measured, it.met))).collect()
}

/// Limits that the first met and the second doesn't.
fn worse<'a>(a: &'a Report, b: &'a Report) -> Vec<Key<'a>> {
    let after = limits(b);
    let met = limits(a).into_iter().filter(|(_, (_, met))| *met);
    met.map(|(key, _)| key).filter(|key| after.get(key).is_some_and(|(_, met)| !met)).collect()
}

fn write(out: &mut String, a: &Report, b: &Report) -> std::fmt::Result {
    writeln!(out, "{:<44} {:>16} {:>16}", "", shown(a), shown(b))?;
    if a.name != b.name || a.seed != b.seed {
        writeln!(out, "{:<44} {:>16} {:>16}", "drill", a.name, b.name)?;
        writeln!(out, "{:<44} {:>16} {:>16}", "seed", a.seed, b.seed)?;
    }
    let mut row = |what: &str, a: String, b: String| {
        let mark = if a == b { "" } else { "  differs" };
        writeln!(out, "{what:<44} {a:>16} {b:>16}{mark}")
    };
    row("requests", a.requests.to_string(), b.requests.to_string())?;
    row("errors", a.error_count.to_string(), b.error_count.to_string())?;
    row("moves", a.moves.total.to_string(), b.moves.total.to_string())?;
    row("needless moves", a.moves.needless.to_string(), b.moves.needless.to_string())?;
    for (kind, before) in &a.latency {
        if let Some(after) = b.latency.get(kind) {
            let ms = |time: f64| format!("{time:.1} ms");
            row(&format!("{kind} p50"), ms(before.p50), ms(after.p50))?;
            row(&format!("{kind} p99"), ms(before.p99), ms(after.p99))?;
        }
    }
    let (before, after) = (limits(a), limits(b));
    for (key, (measured, met)) in &before {
        let tell =
            |measured: &str, met: bool| format!("{measured}{}", if met { "" } else { " MISSED" });
        let other = after.get(key).map_or("-".to_owned(), |(measured, met)| tell(measured, *met));
        row(&format!("{} {} ({})", key.1, key.2, key.0), tell(measured, *met), other)?;
    }
    let worse = worse(a, b);
    match worse.len() {
        0 => writeln!(out, "\nthe second misses nothing that the first met"),
        count => writeln!(out, "\nworse: the second misses {count} limits that the first met"),
    }
}

fn shown(report: &Report) -> &'static str {
    if report.passed { "passed" } else { "failed" }
}
