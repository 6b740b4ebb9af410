//! A report for a terminal.

use std::fmt::Write;

use super::Report;

/// The verdict last, where a terminal leaves it in sight.
pub(in crate::drill) fn summary(report: &Report) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = write(&mut out, report);
    out
}

fn write(out: &mut String, report: &Report) -> std::fmt::Result {
    writeln!(out, "{}  (seed {}, {})", report.name, report.seed, report.target)?;
    if !report.about.is_empty() {
        writeln!(out, "{}", report.about)?;
    }
    writeln!(out)?;
    for event in report.events.iter().filter(|event| event.at > 0.5 || event.by == "drill") {
        writeln!(out, "{:>7.2} s  {:<8}  {}", event.at, event.by, event.what)?;
    }
    writeln!(out)?;
    writeln!(
        out,
        "{:<12} {:>8} {:>9} {:>9} {:>9} {:>9}",
        "", "answers", "p50", "p90", "p99", "max"
    )?;
    for (kind, it) in &report.latency {
        let times = [it.p50, it.p90, it.p99, it.max].map(|time| format!("{time:.1} ms"));
        let [p50, p90, p99, max] = times;
        writeln!(out, "{kind:<12} {:>8} {p50:>9} {p90:>9} {p99:>9} {max:>9}", it.count)?;
    }
    for error in &report.errors {
        writeln!(out, "{:<12} {:>8} errors: {}", error.clients, error.count, error.what)?;
    }
    let moves = report.moves;
    writeln!(
        out,
        "{} of {} requests failed; sessions moved {} times, {} of them needlessly",
        report.error_count, report.requests, moves.total, moves.needless
    )?;
    if report.tunnels.opened > 0 {
        let ended = report.tunnels.ended.iter().map(|(code, count)| format!("{count} with {code}"));
        let ended: Vec<_> = ended.collect();
        let ended = if ended.is_empty() { "none ended".to_owned() } else { ended.join(", ") };
        writeln!(out, "{} tunnels opened; Close codes: {ended}", report.tunnels.opened)?;
    }
    for (what, counts) in
        [("sessions re-homed", &report.rehomes), ("tunnels ended", &report.tunnels.causes)]
    {
        if !counts.is_empty() {
            let counts: Vec<_> = counts.iter().map(|(by, count)| format!("{count} {by}")).collect();
            writeln!(out, "{what}: {}", counts.join(", "))?;
        }
    }
    writeln!(out)?;
    for limit in &report.limits {
        let mark = if limit.met { "met   " } else { "MISSED" };
        let what = format!("{} {}", limit.measure, limit.allowed);
        writeln!(out, "{mark}  {what:<34} {:<12} {}", limit.measured, limit.of)?;
    }
    writeln!(out)?;
    let missed = report.limits.iter().filter(|limit| !limit.met).count();
    if let Some(reason) = &report.aborted {
        let seconds = report.duration_seconds;
        return writeln!(out, "ended by the balancer after {seconds:.1} s: {reason}");
    }
    match (report.passed, report.interrupted) {
        (true, _) => writeln!(out, "passed: all {} limits met", report.limits.len()),
        (false, true) => writeln!(out, "interrupted after {:.1} s", report.duration_seconds),
        (false, false) => {
            writeln!(out, "failed: {missed} of {} limits missed", report.limits.len())
        }
    }
}
