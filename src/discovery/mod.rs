//! Instances that are found while Burdock runs: one task for each version that has a source asks it,
//! and reports. What is made of a report, and what is kept when a source fails, is for others to say.
//!
//! [`Sources`] holds the tasks; [`board`] is what is told of them; [`watch`] says when files change,
//! the configuration's own among them.

pub mod board;
mod dns;
mod docker;
mod ends;
mod etcd;
mod file;
mod kubernetes;
mod query;
pub mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout_at};

use crate::config::found::{Member, Whose, asked};
use crate::config::types::{Config, Discovery, Source};

/// Reports that may wait; a source that finds no room waits.
const QUEUE: usize = 64;
/// After a first failure.
const SHORTEST: Duration = Duration::from_secs(1);
/// After many.
const LONGEST: Duration = Duration::from_secs(60);

/// What a source says.
#[derive(Debug)]
pub struct Report {
    /// Of which version.
    pub whose: Whose,
    /// All instances that there are, or why nobody knows.
    pub told: Result<Vec<Member>, String>,
    /// How many more it names in a way that makes no sense, where one mistake is nobody else's.
    pub ignored: usize,
    serial: u64,
}

/// The sources of a configuration.
#[derive(Debug)]
pub struct Sources {
    tasks: BTreeMap<Whose, Task>,
    sender: mpsc::Sender<Report>,
    reports: mpsc::Receiver<Report>,
    serial: u64,
}

/// One that is asked.
#[derive(Debug)]
struct Task {
    discovery: Discovery,
    serial: u64,
    running: AbortHandle,
}

impl Drop for Task {
    fn drop(&mut self) {
        self.running.abort();
    }
}

/// Where a source reports.
#[derive(Debug, Clone)]
struct Reporter {
    whose: Whose,
    serial: u64,
    sender: mpsc::Sender<Report>,
}

impl Reporter {
    async fn tell(&self, told: Result<Vec<Member>, String>) {
        self.send(told, 0).await;
    }

    /// Tells of all but those that make no sense.
    async fn tell_without(&self, members: Vec<Member>, ignored: usize) {
        self.send(Ok(members), ignored).await;
    }

    async fn send(&self, told: Result<Vec<Member>, String>, ignored: usize) {
        let (whose, serial) = (self.whose.clone(), self.serial);
        // Nobody hears it if the process ends.
        let _ = self.sender.send(Report { whose, told, ignored, serial }).await;
    }
}

impl Default for Sources {
    fn default() -> Self {
        let (sender, reports) = mpsc::channel(QUEUE);
        Self { tasks: BTreeMap::new(), sender, reports, serial: 0 }
    }
}

impl Sources {
    /// Asks the sources of this configuration from now on, and no others. One that is as it was goes
    /// on undisturbed. Gives those that are new.
    pub fn follow(&mut self, config: &Config) -> BTreeSet<Whose> {
        let asked: BTreeMap<Whose, &Discovery> = asked(config).collect();
        self.tasks.retain(|whose, task| asked.get(whose) == Some(&&task.discovery));
        let new: Vec<_> = asked.iter().filter(|it| !self.tasks.contains_key(it.0)).collect();
        for (whose, discovery) in &new {
            self.serial += 1;
            let serial = self.serial;
            let (whose, discovery) = ((*whose).clone(), Discovery::clone(discovery));
            let reporter = Reporter { whose: whose.clone(), serial, sender: self.sender.clone() };
            let running = tokio::spawn(run(discovery.source.clone(), reporter)).abort_handle();
            self.tasks.insert(whose, Task { discovery, serial, running });
        }
        new.into_iter().map(|(whose, _)| whose.clone()).collect()
    }

    /// The next report. What was asked for by a configuration before this one is passed over.
    pub async fn next(&mut self) -> Report {
        loop {
            match self.reports.recv().await {
                Some(report) if self.is_current(&report) => return report,
                Some(_late) => {}
                // Not while there is a sender here.
                None => std::future::pending().await,
            }
        }
    }

    /// What `whose` say until each has been heard, or until `deadline`.
    pub async fn first(&mut self, mut whose: BTreeSet<Whose>, deadline: Instant) -> Vec<Report> {
        let mut reports = Vec::new();
        while !whose.is_empty() {
            let Ok(report) = timeout_at(deadline, self.next()).await else { break };
            // One that can't be heard yet may be in a moment.
            if report.told.is_ok() {
                whose.remove(&report.whose);
            }
            reports.push(report);
        }
        reports
    }

    fn is_current(&self, report: &Report) -> bool {
        self.tasks.get(&report.whose).is_some_and(|task| task.serial == report.serial)
    }
}

async fn run(source: Source, reporter: Reporter) {
    match source {
        Source::File(path) => file::follow(path, reporter).await,
        Source::Dns(dns) => dns::follow(dns, reporter).await,
        Source::Kubernetes(of) => kubernetes::follow(of, reporter).await,
        Source::Docker(of) => docker::follow(of, reporter).await,
        Source::Etcd(keys) => etcd::follow(keys, reporter).await,
    }
}

/// How long to wait after failures: longer each time, and not all at the same instant.
#[derive(Debug, Default)]
struct Backoff(u32);

impl Backoff {
    fn failed(&mut self) -> Duration {
        let wait = SHORTEST.saturating_mul(1 << self.0.min(6)).min(LONGEST);
        self.0 = self.0.saturating_add(1);
        wait.mul_f64(0.8 + 0.4 * fastrand::f64())
    }

    fn succeeded(&mut self) {
        self.0 = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_that_fails_is_asked_less_and_less_often() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..9).map(|_| backoff.failed().as_secs_f64()).collect();
        for (wait, expected) in waits.iter().zip([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0])
        {
            assert!((expected * 0.79..expected * 1.21).contains(wait), "{waits:?}");
        }
        backoff.succeeded();
        assert!(backoff.failed() < Duration::from_millis(1300));
    }

    fn config(text: &str) -> Config {
        crate::config::parse(text, std::path::Path::new("test.yaml")).unwrap().config
    }

    #[tokio::test]
    async fn a_source_that_stays_is_not_disturbed_and_one_that_goes_is_not_heard() {
        let folder = std::env::temp_dir().join(format!("burdock-sources-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        for name in ["a", "b"] {
            std::fs::write(folder.join(name), format!("[{name}:1]")).unwrap();
        }
        let text = |name: &str| {
            let path = folder.join(name).display().to_string();
            format!("discovery: {{ file: {path} }}\n")
        };
        let mut sources = Sources::default();
        let first = sources.follow(&config(&text("a")));
        assert_eq!(first.len(), 1);
        assert!(sources.follow(&config(&text("a"))).is_empty(), "it is asked already");
        let deadline = Instant::now() + Duration::from_secs(10);
        let reports = sources.first(first, deadline).await;
        assert_eq!(reports[0].told.as_ref().unwrap()[0].address, "a:1");
        // What this one says may be on its way when it is given up.
        sources.follow(&config(&text("b")));
        let report = timeout_at(deadline, sources.next()).await.unwrap();
        assert_eq!(report.told.unwrap()[0].address, "b:1");
        assert!(sources.follow(&config("instances: [c:1]")).is_empty());
        assert!(sources.tasks.is_empty());
        std::fs::remove_dir_all(folder).unwrap();
    }
}
