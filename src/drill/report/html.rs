//! A report as one page: no script, nothing from elsewhere, fit to be kept, printed and passed on.

use std::fmt::Write;

use super::Report;
use super::chart::{Band, Chart, Series, escaped, merged};
use crate::drill::record::Kind;

const STYLE: &str = include_str!("page.css");
/// Colours of the style sheet.
const COLOURS: usize = 8;

/// The page.
pub(in crate::drill) fn page(report: &Report) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = write(&mut out, report);
    out
}

fn write(out: &mut String, report: &Report) -> std::fmt::Result {
    let name = escaped(&report.name);
    writeln!(
        out,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src \
         'unsafe-inline'\">\n<title>{name}: drill</title>\n<style>\n{STYLE}</style>\n</head>\n<body>"
    )?;
    head(out, report)?;
    tiles(out, report)?;
    limits(out, report)?;
    charts(out, report)?;
    latency(out, report)?;
    errors(out, report)?;
    timeline(out, report)?;
    writeln!(out, "</body>\n</html>")
}

fn head(out: &mut String, report: &Report) -> std::fmt::Result {
    let missed = report.limits.iter().filter(|limit| !limit.met).count();
    let (class, verdict) = match (report.passed, report.interrupted) {
        _ if report.aborted.is_some() => {
            let reason = report.aborted.as_deref().unwrap_or_default();
            ("bad", format!("ended by the balancer: {}", escaped(reason)))
        }
        (true, _) => ("good", "passed".to_owned()),
        (false, true) => ("bad", "interrupted".to_owned()),
        (false, false) => ("bad", format!("{missed} of {} limits missed", report.limits.len())),
    };
    writeln!(out, "<p class=\"verdict {class}\">{verdict}</p>")?;
    writeln!(out, "<h1>{}</h1>", escaped(&report.name))?;
    writeln!(out, "<p>{}</p>", escaped(&report.about))?;
    writeln!(
        out,
        "<p class=\"soft\">{} · {:.0} s · seed {} · {} · Burdock {}</p>",
        escaped(&report.began),
        report.duration_seconds,
        report.seed,
        escaped(&report.target),
        escaped(&report.burdock)
    )
}

fn tiles(out: &mut String, report: &Report) -> std::fmt::Result {
    let slowest = report.latency.values().map(|it| it.p99).fold(0.0, f64::max);
    let slowest = match slowest {
        ms if ms < 1000.0 => format!("{ms:.0} ms"),
        ms => format!("{:.1} s", ms / 1000.0),
    };
    let tiles = [
        (report.requests.to_string(), "requests".to_owned()),
        (report.error_count.to_string(), "errors".to_owned()),
        (report.moves.total.to_string(), format!("moves of {} sessions", report.moves.sessions)),
        (report.moves.needless.to_string(), "needless moves".to_owned()),
        (slowest, "p99, slowest clients".to_owned()),
        (report.tunnels.opened.to_string(), "tunnels opened".to_owned()),
    ];
    writeln!(out, "<div class=\"tiles\">")?;
    for (value, what) in tiles {
        writeln!(out, "<div class=\"tile\"><b>{value}</b><span>{what}</span></div>")?;
    }
    writeln!(out, "</div>")
}

fn limits(out: &mut String, report: &Report) -> std::fmt::Result {
    writeln!(
        out,
        "<h2>Limits</h2>\n<div class=\"wide\"><table><tr><th></th><th>what</th><th>allowed</th>\
         <th>measured</th><th>during</th></tr>"
    )?;
    let (met, missed): (Vec<_>, Vec<_>) = report.limits.iter().partition(|limit| limit.met);
    for limit in missed.into_iter().chain(met) {
        let (class, mark) = if limit.met { ("met", "met") } else { ("missed", "missed") };
        writeln!(
            out,
            "<tr><td class=\"{class}\">{mark}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            escaped(&limit.measure.replace('_', " ")),
            escaped(&limit.allowed),
            escaped(&limit.measured),
            escaped(&limit.of)
        )?;
    }
    writeln!(out, "</table></div>")
}

fn charts(out: &mut String, report: &Report) -> std::fmt::Result {
    let band = |fault: &super::Fault| Band {
        from: fault.from,
        until: fault.until.unwrap_or(report.duration_seconds),
        name: format!("{} {}", fault.instance, fault.what),
    };
    let bands = merged(report.faults.iter().map(band).collect());
    let series = |name, class: &str, value: &dyn Fn(&super::Second) -> Option<f64>| Series {
        name,
        class: class.to_owned(),
        values: report.seconds.iter().map(value).collect(),
    };
    let answers = vec![
        series("answers", "c0", &|second| Some(second.answers as f64)),
        series("errors", "bad-line", &|second| Some(second.errors as f64)),
    ];
    chart(out, report, "Answers and errors", "a second", "", answers, &bands)?;
    let latency =
        vec![series("p50", "c0", &|second| second.p50), series("p99", "c1", &|second| second.p99)];
    let real = report.latency.contains_key(Kind::Real.plural());
    let note = if real { "of whole requests, by buckets" } else { "from when a request was due" };
    chart(out, report, "Latency", note, " ms", latency, &bands)?;
    let moves = vec![series("sessions that moved", "c3", &|second| Some(second.moves as f64))];
    chart(out, report, "Re-homes", "a second", "", moves, &bands)?;
    let rows = report.instances.iter().enumerate().map(|(place, instance)| Series {
        name: &instance.name,
        class: format!("c{}", place % COLOURS),
        values: instance.sessions.iter().map(|count| Some(*count as f64)).collect(),
    });
    chart(out, report, "Sessions per instance", "", "", rows.collect(), &bands)
}

fn chart(
    out: &mut String,
    report: &Report,
    title: &str,
    note: &str,
    unit: &str,
    series: Vec<Series<'_>>,
    bands: &[Band],
) -> std::fmt::Result {
    writeln!(out, "<h2>{} <span class=\"soft\">{}</span></h2>", escaped(title), escaped(note))?;
    writeln!(out, "<div class=\"legend\">")?;
    for it in &series {
        writeln!(out, "<span><i class=\"{}\"></i>{}</span>", it.class, escaped(it.name))?;
    }
    if !bands.is_empty() {
        writeln!(out, "<span><i class=\"band\"></i>a fault</span>")?;
    }
    writeln!(out, "</div>")?;
    let seconds = report.duration_seconds;
    out.push_str(&Chart { title, unit, seconds, series, bands }.svg());
    Ok(())
}

fn latency(out: &mut String, report: &Report) -> std::fmt::Result {
    writeln!(
        out,
        "<h2>Latency by kind of client <span class=\"soft\">ms</span></h2>\n<div class=\"wide\"><table>\
         <tr><th>clients</th><th class=\"number\">answers</th><th class=\"number\">p50</th>\
         <th class=\"number\">p90</th><th class=\"number\">p99</th><th class=\"number\">longest</th></tr>"
    )?;
    for (kind, it) in &report.latency {
        write!(out, "<tr><td>{}</td><td class=\"number\">{}</td>", escaped(kind), it.count)?;
        for time in [it.p50, it.p90, it.p99, it.max] {
            write!(out, "<td class=\"number\">{time:.1}</td>")?;
        }
        writeln!(out, "</tr>")?;
    }
    writeln!(out, "</table></div>")
}

fn errors(out: &mut String, report: &Report) -> std::fmt::Result {
    let ended = &report.tunnels.ended;
    let is_counted = !report.rehomes.is_empty() || !report.tunnels.causes.is_empty();
    if report.errors.is_empty() && ended.is_empty() && !is_counted {
        return Ok(());
    }
    writeln!(
        out,
        "<h2>Errors, moves and ends of tunnels</h2>\n<div class=\"wide\"><table><tr><th>clients</th>\
         <th>what</th><th class=\"number\">times</th></tr>"
    )?;
    let mut row = |clients: &str, what: &str, count: u64| {
        let (clients, what) = (escaped(clients), escaped(what));
        writeln!(out, "<tr><td>{clients}</td><td>{what}</td><td class=\"number\">{count}</td></tr>")
    };
    for error in &report.errors {
        row(&error.clients, &error.what, error.count)?;
    }
    for (code, count) in ended {
        row("websockets", &format!("ended, Close {code}"), *count)?;
    }
    for (cause, count) in &report.tunnels.causes {
        row("tunnels", &format!("ended, {}", cause.replace('_', " ")), *count)?;
    }
    for (reason, count) in &report.rehomes {
        row("sessions", &format!("re-homed, {}", reason.replace('_', " ")), *count)?;
    }
    writeln!(out, "</table></div>")
}

fn timeline(out: &mut String, report: &Report) -> std::fmt::Result {
    writeln!(
        out,
        "<h2>What happened</h2>\n<div class=\"wide\"><table><tr><th class=\"number\">at</th>\
         <th>by</th><th>what</th></tr>"
    )?;
    for event in &report.events {
        writeln!(
            out,
            "<tr><td class=\"number\">{:.2} s</td><td>{}</td><td>{}</td></tr>",
            event.at,
            escaped(&event.by),
            escaped(&event.what)
        )?;
    }
    writeln!(out, "</table></div>")
}
