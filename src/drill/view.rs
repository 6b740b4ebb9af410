//! What a drill looks like while it runs: a few lines that are drawn again and again. Only on a
//! terminal; a log gets the report alone.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use super::diary::Diary;
use super::record::Notes;
use super::scenario::Scenario;
use super::verdict::{self, Window};
use super::watched::{self, Counts, Watched};

const INTERVAL: Duration = Duration::from_millis(250);
/// Characters of the bar.
const WIDTH: usize = 50;
/// Things that were done that stay in sight.
const RECENT: usize = 4;
/// From nothing to the most.
const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The lines.
#[derive(Debug)]
pub(super) struct View {
    name: String,
    duration: Duration,
    is_shown: bool,
    /// Lines that stand there now.
    drawn: usize,
}

impl View {
    pub(super) fn new(scenario: &Scenario) -> Self {
        let (name, duration) = (scenario.name.clone(), scenario.duration);
        Self { name, duration, is_shown: std::io::stderr().is_terminal(), drawn: 0 }
    }

    /// Resolves when it is time to draw; never where nobody looks.
    pub(super) async fn tick(&self) {
        match self.is_shown {
            true => tokio::time::sleep(INTERVAL).await,
            false => std::future::pending().await,
        }
    }

    pub(super) fn draw(&mut self, diary: &Diary) {
        let record = &diary.record;
        if !self.is_shown {
            return;
        }
        let lines = self.lines(record.now(), &record.notes(), diary);
        self.clear();
        self.drawn = lines.len();
        // A terminal that is gone shows nothing.
        let _ = writeln!(std::io::stderr(), "{}", lines.join("\n"));
    }

    /// Takes the lines away.
    pub(super) fn clear(&mut self) {
        if self.drawn > 0 {
            // Up so many lines, then all below is erased.
            let _ = write!(std::io::stderr(), "\x1b[{}A\x1b[J", self.drawn);
            self.drawn = 0;
        }
    }

    fn lines(&self, now: Duration, notes: &Notes, diary: &Diary) -> Vec<String> {
        let done = now.as_secs_f64() / self.duration.as_secs_f64();
        let full = ((done * WIDTH as f64) as usize).min(WIDTH);
        let bar = format!("{}{}", "━".repeat(full), "─".repeat(WIDTH - full));
        let (now_s, all_s) = (now.as_secs_f64(), self.duration.as_secs_f64());
        let mut lines = vec![format!("{}  {bar}  {now_s:.1} of {all_s:.0} s", self.name)];
        let (is_real, second) = (is_real(notes), now.saturating_sub(Duration::from_secs(1)));
        let of_real = |what: fn(&Counts) -> u64| real_per_second(&notes.watched, now, what);
        let series = |what: &dyn Fn(&super::record::Sample) -> bool| per_second(notes, now, what);
        let [answers, errors] = match is_real {
            true => [of_real(|it| it.requests.saturating_sub(it.errors)), of_real(|it| it.errors)],
            false => [
                series(&|sample| sample.trouble.is_none()),
                series(&|sample| sample.trouble.is_some()),
            ],
        };
        lines.push(format!("answers  {}  {} a second", spark(&answers), last(&answers)));
        let all: u64 = errors.iter().sum();
        lines.push(format!("errors   {}  {all} in all", spark(&errors)));
        let recent = notes.samples.iter().rev().take_while(|sample| sample.at >= second);
        let times: Vec<_> = recent.map(verdict::latency).collect();
        let lately = watched::within(&notes.watched, Window { from: second, to: now });
        let at = |percent: usize| {
            let time = match is_real {
                true => lately.percentile(percent as u64),
                false => verdict::percentile(times.iter().copied(), percent),
            };
            let time = time.unwrap_or_default();
            format!("{:.1} ms", time.as_secs_f64() * 1000.0)
        };
        let moves = match notes.watched.is_empty() {
            true => notes.moves.len() as u64,
            false => of_real(Counts::moved).iter().sum(),
        };
        lines.push(format!("latency  p50 {}, p99 {};  {moves} moves", at(50), at(99)));
        let open: Vec<_> = diary.impaired.iter().filter(|it| it.until.is_none()).collect();
        let open = open
            .iter()
            .map(|it| format!("{} {}", it.instance.as_deref().unwrap_or("balancer"), it.what));
        let open: Vec<_> = open.collect();
        lines.push(format!(
            "faults   {}",
            if open.is_empty() { "none".into() } else { open.join("; ") }
        ));
        let recent = diary.done.iter().rev().take(RECENT).rev();
        lines.extend(recent.map(|done| format!("{:>7.1} s  {}", done.at.as_secs_f64(), done.what)));
        lines
    }
}

/// Whether the clients are the balancer's own, and not the drill's.
fn is_real(notes: &Notes) -> bool {
    notes.samples.is_empty() && !notes.watched.is_empty()
}

/// How many a running balancer counted in each of the last seconds.
fn real_per_second(watched: &[Watched], now: Duration, what: fn(&Counts) -> u64) -> Vec<u64> {
    let first = now.as_secs().saturating_sub(WIDTH as u64 - 1);
    let of = |second| {
        let [from, to] = [second, second + 1].map(Duration::from_secs);
        what(&watched::within(watched, Window { from, to }))
    };
    (first..=now.as_secs()).map(of).collect()
}

fn last(series: &[u64]) -> u64 {
    // The second that has not ended yet says too little.
    series.iter().rev().nth(1).copied().unwrap_or_default()
}

/// How many there were in each of the last seconds.
fn per_second(
    notes: &Notes,
    now: Duration,
    what: &dyn Fn(&super::record::Sample) -> bool,
) -> Vec<u64> {
    let last = now.as_secs();
    let first = last.saturating_sub(WIDTH as u64 - 1);
    let mut series = vec![0; usize::try_from(last - first + 1).unwrap_or(1)];
    for sample in notes.samples.iter().filter(|sample| what(sample)) {
        let place = sample.at.as_secs().checked_sub(first).map(usize::try_from);
        if let Some(Ok(place)) = place
            && let Some(count) = series.get_mut(place)
        {
            *count += 1;
        }
    }
    series
}

fn spark(series: &[u64]) -> String {
    let most = series.iter().copied().max().unwrap_or_default().max(1);
    let level = |count: u64| {
        let place = (count * (LEVELS.len() as u64 - 1)).div_ceil(most);
        LEVELS[usize::try_from(place).unwrap_or_default().min(LEVELS.len() - 1)]
    };
    series.iter().map(|count| level(*count)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_many_is_seen() {
        assert_eq!(spark(&[0, 1, 100]), "▁▂█");
        assert_eq!(spark(&[0, 0]), "▁▁");
        assert_eq!(spark(&[]), "");
    }
}
