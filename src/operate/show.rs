//! Answers of the admin API as text for people. Pure: what they are printed on is an argument.

use std::fmt::Write as _;

use serde_json::Value;

use crate::operate::shapes::{Difference, Drill, Event, Explanation, Plan, Ramp, Status, Version};
use crate::operate::table::{Cell, Paper, Side, Table, Tone, safe};
use crate::operate::words;

/// Lines that grow. Writing to a String can't fail.
#[derive(Debug, Default)]
struct Page(String);

impl Page {
    fn line(&mut self, text: &str) {
        let _ = writeln!(self.0, "{}", text.trim_end());
    }
}

/// One look at everything.
pub fn status(status: &Status, paper: Paper) -> String {
    let mut page = Page::default();
    let process = &status.burdock;
    page.line(&format!(
        "{}  {}  pid {}, up {}, {}",
        paper.paint(&format!("burdock {}", safe(&process.version)), Tone::Strong),
        phase(&process.phase, paper),
        process.pid,
        words::seconds(process.uptime_seconds.floor()),
        words::plural(process.workers.into(), "worker"),
    ));
    page.line(&config(status, paper));
    let totals = &status.totals;
    let latency = totals.latency_seconds.map_or_else(String::new, |it| {
        format!(", p50 {}, p99 {}", words::latency(it.p50), words::latency(it.p99))
    });
    page.line(&format!(
        "{} requests/s, {} errors/s{latency}, {}",
        words::rate(totals.requests_per_second),
        words::rate(totals.errors_per_second),
        words::plural(status.connections.open, "connection"),
    ));
    for listener in &status.listeners {
        let mut manner = vec![if listener.tls { "https" } else { "http" }];
        manner.extend(listener.http2.then_some("HTTP/2"));
        let proxied = !matches!(listener.proxy_protocol.as_str(), "" | "off");
        manner.extend(proxied.then_some("PROXY protocol"));
        page.line(&format!("listens at {} ({})", safe(&listener.address), manner.join(", ")));
    }
    if let Some(drill) = &status.drill {
        self::drill(&mut page, drill, paper);
    }
    for ramp in status.services.iter().filter_map(|service| service.ramp.as_ref()) {
        self::ramp(&mut page, ramp, paper);
    }
    for service in &status.services {
        for version in &service.versions {
            page.line("");
            let several = service.versions.len() > 1;
            self::version(&mut page, (&service.name, several), version, paper);
        }
    }
    differences(&mut page, &status.differences, paper);
    warnings(&mut page, status, paper);
    page.0
}

fn ramp(page: &mut Page, ramp: &Ramp, paper: Paper) {
    if let Some(tone) = words::ramp_tone(ramp) {
        page.line(&paper.paint(&format!("ramp of {}", words::ramp(ramp)), tone));
    }
}

fn drill(page: &mut Page, drill: &Drill, paper: Paper) {
    let (name, holder) = (safe(&drill.name), safe(&drill.holder));
    let since = words::seconds(drill.elapsed_seconds.floor());
    let text = format!("the drill {name} of {holder} runs, for {since}");
    page.line(&paper.paint(&text, Tone::Warn));
    for fault in &drill.faults {
        let instances: Vec<_> = fault.instances.iter().map(|name| safe(name)).collect();
        let (kind, detail) = (safe(&fault.kind), safe(&fault.detail));
        page.line(&format!("  {kind} {} {detail}", instances.join(", ")));
    }
}

fn phase(phase: &str, paper: Paper) -> String {
    let tone = if phase == "serving" { Tone::Good } else { Tone::Warn };
    paper.paint(&safe(phase), tone)
}

fn config(status: &Status, paper: Paper) -> String {
    let file = status.config.file.as_deref().map_or_else(|| "no file".to_owned(), safe);
    let reload = match &status.config.last_reload {
        Some(reload) if !reload.ok => {
            let count = words::plural(reload.problems.len() as u64, "problem");
            paper.paint(&format!(", the last reload was rejected: {count}"), Tone::Bad)
        }
        Some(_) | None => String::new(),
    };
    format!("{file}, generation {}{reload}", status.config.generation)
}

fn version(page: &mut Page, (service, several): (&str, bool), version: &Version, paper: Paper) {
    let mut facts = vec![match version.session_affinity {
        true => "session affinity".to_owned(),
        false => "no session affinity".to_owned(),
    }];
    let share = version.share.filter(|_| several).map(|it| (it * 1e4).round() / 100.0);
    facts.extend(share.map(|share| format!("{share}% of new requests")));
    facts.push(format!("balance {}", safe(&version.balance)));
    facts.extend((version.queue > 0).then(|| format!("{} waiting", version.queue)));
    let moved: u64 = version.rehomes.values().sum();
    facts.extend((moved > 0).then(|| format!("{moved} re-homed")));
    let name = format!("{}/{}", safe(service), safe(&version.name));
    page.line(&format!("{}  {}", paper.paint(&name, Tone::Strong), facts.join(", ")));
    if version.panic {
        let text = "  panic: too few instances are ready, so unready ones serve too";
        page.line(&paper.paint(text, Tone::Bad));
    }
    let mut table = Table::new(&[
        ("INSTANCE", Side::Cut),
        ("STATE", Side::Cut),
        ("SESSIONS", Side::Right),
        ("REQ", Side::Right),
        ("TUNNELS", Side::Right),
        ("REQ/S", Side::Right),
        ("ERR/S", Side::Right),
        ("P99", Side::Right),
        ("WEIGHT", Side::Right),
    ]);
    for instance in &version.instances {
        let (state, tone) = words::standing(instance);
        let failing = instance.rates.errors_per_second > 0.0;
        table.row(vec![
            safe(&instance.name).into(),
            Cell::new(state, tone),
            words::count(instance.sessions).into(),
            words::count(instance.requests).into(),
            words::count(instance.tunnels).into(),
            words::rate(instance.rates.requests_per_second).into(),
            Cell::new(
                words::rate(instance.rates.errors_per_second),
                if failing { Tone::Bad } else { Tone::Plain },
            ),
            words::p99(instance.rates.latency_seconds.as_ref()).into(),
            words::weight(instance).into(),
        ]);
    }
    page.0.push_str(&table.render(paper, 2));
    for instance in &version.instances {
        let (state, tone) = words::standing(instance);
        if let Some(why) = words::complaint(instance).filter(|_| tone == Tone::Bad) {
            let text = format!("  {} is {state}: {why}", safe(&instance.name));
            page.line(&paper.paint(&text, Tone::Bad));
        }
    }
}

fn differences(page: &mut Page, differences: &[Difference], paper: Paper) {
    if differences.is_empty() {
        return;
    }
    page.line("");
    page.line(&paper.paint("not as the file says", Tone::Warn));
    for difference in differences {
        page.line(&format!("  {}", self::difference(difference)));
    }
}

/// What is not as the file says, in one line.
pub fn difference(difference: &Difference) -> String {
    let Difference { id, what, file, now, since, by } = difference;
    let by = by.as_deref().map(|by| format!(" by {}", safe(by))).unwrap_or_default();
    // Nobody asks for milliseconds of that.
    let at = since.as_deref().map(|at| at.split('.').next().unwrap_or(at).trim_end_matches('Z'));
    let since = at.map(|at| format!(" since {}Z", safe(at))).unwrap_or_default();
    match what.as_str() {
        "added" => format!("{}: added{since}{by}", safe(id)),
        what => {
            let (now, file) = (plain(now), plain(file));
            format!("{}: {} {now} (file: {file}){since}{by}", safe(id), safe(what))
        }
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), safe)
}

fn warnings(page: &mut Page, status: &Status, paper: Paper) {
    for warning in &status.warnings {
        page.line("");
        let times =
            if warning.count > 1 { format!(" ({}x)", warning.count) } else { String::new() };
        let head = format!("warning {}{times}", safe(&warning.code));
        page.line(&format!("{}: {}", paper.paint(&head, Tone::Warn), safe(&warning.message)));
        if let Some(cure) = &warning.cure {
            page.line(&format!("  cure: {}", safe(cure)));
        }
    }
}

/// An event in one line.
pub fn event(event: &Event, paper: Paper) -> String {
    let tone = match event.severity.as_str() {
        "error" => Tone::Bad,
        "warning" => Tone::Warn,
        _ => Tone::Plain,
    };
    let at = paper.paint(&safe(words::time_of_day(&event.at)), Tone::Faint);
    let kind = format!("{:<9}", safe(&event.kind));
    let of = event.instance.as_deref().map(|id| format!("{}  ", safe(id))).unwrap_or_default();
    format!("{at}  {}  {of}{}", paper.paint(&kind, tone), safe(&event.text))
}

/// Where a request would go and why.
pub fn explanation(said: &Explanation, paper: Paper) -> String {
    let mut page = Page::default();
    let mut row = |name: &str, text: String| {
        let name = paper.paint(&format!("{name:<10}"), Tone::Faint);
        page.line(&format!("{name}  {text}"));
    };
    let or_none = |text: &Option<String>| text.as_deref().map_or_else(|| "none".to_owned(), safe);
    row("listener", or_none(&said.listener));
    row("service", format!("{}: {}", or_none(&said.service), safe(&said.why_service)));
    let why = said.why_version.as_deref().map(|why| format!(": {}", safe(why)));
    row("version", or_none(&said.version) + &why.unwrap_or_default());
    if let Some(token) = &said.token {
        let mut told = vec![safe(&token.verdict)];
        let mut add = |name: &str, text: &Option<String>| {
            told.extend(text.as_deref().map(|text| format!("{name}{}", safe(text))));
        };
        add("", &token.reason);
        add("in the ", &token.carrier);
        add("names ", &token.instance);
        add("key ", &token.key);
        add("issued ", &token.issued);
        add("renewed ", &token.renewed);
        told.extend(token.age_seconds.map(|age| format!("{} old", words::seconds(age))));
        row("token", told.join(", "));
    }
    for (place, candidate) in said.candidates.iter().enumerate() {
        let (mark, tone) = if candidate.r#in { ("in ", Tone::Good) } else { ("out", Tone::Warn) };
        let mark = paper.paint(mark, tone);
        let text = format!("{mark}  {}: {}", safe(&candidate.instance), safe(&candidate.reason));
        row(if place == 0 { "candidates" } else { "" }, text);
    }
    let choice = said.choice.as_deref().map_or_else(|| "nowhere".to_owned(), safe);
    row("goes to", format!("{} ({})", paper.paint(&choice, Tone::Strong), safe(&said.outcome)));
    row("because", safe(&said.why));
    page.0
}

/// What a reload would change.
pub fn plan(plan: &Plan, paper: Paper) -> String {
    let mut page = Page::default();
    if plan.changes.is_empty() {
        page.line("A reload would change nothing.");
    } else {
        page.line(&paper.paint("A reload would change", Tone::Strong));
    }
    for change in &plan.changes {
        page.line(&format!("  {}", safe(change)));
    }
    for (what, ids) in plan.instances.iter().filter(|(_, ids)| !ids.is_empty()) {
        const SHOWN: usize = 20;
        let mut names: Vec<_> = ids.iter().take(SHOWN).map(|id| safe(id)).collect();
        let more = ids.len().saturating_sub(SHOWN);
        names.extend((more > 0).then(|| format!("and {more} more")));
        page.line(&format!("{:<11}  {}", safe(what), names.join(", ")));
    }
    let touched = &plan.touches;
    if !plan.changes.is_empty() {
        let text = format!(
            "{}, {}",
            words::plural(touched.sessions, "session"),
            words::plural(touched.tunnels, "tunnel")
        );
        let tone = if touched.sessions + touched.tunnels > 0 { Tone::Warn } else { Tone::Good };
        page.line(&format!("{:<11}  {}", "touches", paper.paint(&text, tone)));
    }
    if !plan.restart_needed.is_empty() {
        let keys = plan.restart_needed.iter().map(|key| safe(key)).collect::<Vec<_>>().join(", ");
        page.line(&format!("{:<11}  {keys}", "restart for"));
    }
    for warning in &plan.warnings {
        page.line(&format!("{} {}", paper.paint("warning:", Tone::Warn), safe(warning)));
    }
    page.0
}
