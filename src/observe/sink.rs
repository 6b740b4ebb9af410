//! Where log lines go: a bounded buffer that a thread of its own writes out.
//!
//! A worker only copies bytes under a short lock. When the reader of the output is too slow, or
//! nothing can be written, lines are dropped and counted; the data path never waits for a log.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::observe::output::Output;

/// Bytes that may wait; beyond it lines are dropped.
const CAPACITY: usize = 8 * 1024 * 1024;
/// Lines are gathered this long, so that a busy log costs few system calls.
const GATHER: Duration = Duration::from_millis(20);
/// The log tells of lines that were dropped at once, and then not again for this long.
const TOLD: Duration = Duration::from_secs(60);

/// Lines that were dropped since the process began.
#[derive(Debug, Default)]
pub struct Losses {
    /// The output was too slow.
    pub slow: AtomicU64,
    /// They could not be written.
    pub failed: AtomicU64,
}

impl Losses {
    const fn none() -> Self {
        Self { slow: AtomicU64::new(0), failed: AtomicU64::new(0) }
    }

    /// For either reason.
    pub fn all(&self) -> u64 {
        self.slow.load(Ordering::Relaxed) + self.failed.load(Ordering::Relaxed)
    }
}

/// Of the log of the process.
pub static LOG: Losses = Losses::none();
/// Of access logs with an output of their own.
pub static ACCESS: Losses = Losses::none();

#[derive(Debug, Default)]
struct Waiting {
    bytes: Vec<u8>,
    /// Whether the writer has taken bytes that it hasn't written yet.
    writing: bool,
    /// Whether the writer is to open its file anew.
    reopen: bool,
    /// Whether nothing more comes.
    closed: bool,
}

/// Takes lines for one output.
#[derive(Debug)]
pub struct Sink {
    waiting: Mutex<Waiting>,
    filled: Condvar,
    written: Condvar,
    losses: &'static Losses,
}

/// The process's log output; its writer starts with the first line.
pub fn sink() -> &'static Sink {
    static SINK: LazyLock<Arc<Sink>> = LazyLock::new(|| Sink::start(Output::Stdout, &LOG));
    &SINK
}

impl Sink {
    /// One with a writer of its own, which ends after [`Sink::close`].
    pub fn start(output: Output, losses: &'static Losses) -> Arc<Self> {
        let (waiting, filled, written) = (Mutex::default(), Condvar::new(), Condvar::new());
        let sink = Arc::new(Self { waiting, filled, written, losses });
        let writer = Arc::clone(&sink);
        let thread = std::thread::Builder::new().name("log".to_owned());
        // A process that can't start a thread is about to fail loudly elsewhere.
        drop(thread.spawn(move || writer.run(output)));
        sink
    }

    /// Takes one whole line, with its newline.
    pub fn line(&self, line: &[u8]) {
        let mut waiting = self.waiting();
        if waiting.bytes.len() + line.len() > CAPACITY {
            self.losses.slow.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let was_empty = waiting.bytes.is_empty();
        waiting.bytes.extend_from_slice(line);
        if was_empty {
            self.filled.notify_one();
        }
    }

    /// Lets the writer open its file anew, once what came before is written.
    pub fn reopen(&self) {
        self.waiting().reopen = true;
        self.filled.notify_one();
    }

    /// Lets the writer end, once everything is written.
    pub fn close(&self) {
        self.waiting().closed = true;
        self.filled.notify_one();
    }

    /// Waits until everything that was logged before is written, at most a second.
    pub fn flush(&self) {
        let waiting = self.waiting();
        let unwritten = |waiting: &mut Waiting| waiting.writing || !waiting.bytes.is_empty();
        let _ = self.written.wait_timeout_while(waiting, Duration::from_secs(1), unwritten);
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, mut output: Output) {
        let (mut taken, mut report) = (Vec::new(), Report::default());
        while let Some(reopen) = self.take(&mut taken, report.is_due(self.losses)) {
            if let Err(lost) = output.write(&taken) {
                self.losses.failed.fetch_add(lost.lines, Ordering::Relaxed);
                report.error = Some(lost.error.to_string());
            }
            taken.clear();
            self.waiting().writing = false;
            self.written.notify_all();
            if reopen {
                output.reopen();
            }
            report.tell(&output, self.losses);
            std::thread::sleep(GATHER);
        }
    }

    /// Waits for something to do, for no longer than `patience`; says whether to open anew as well.
    /// Nothing at the end.
    fn take(&self, taken: &mut Vec<u8>, patience: Option<Duration>) -> Option<bool> {
        let waiting = self.waiting();
        let idle = |it: &mut Waiting| it.bytes.is_empty() && !it.reopen && !it.closed;
        let mut waiting = match patience {
            None => self.filled.wait_while(waiting, idle).unwrap_or_else(PoisonError::into_inner),
            Some(patience) => {
                let waited = self.filled.wait_timeout_while(waiting, patience, idle);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
        };
        if waiting.closed && waiting.bytes.is_empty() {
            return None;
        }
        std::mem::swap(&mut waiting.bytes, taken);
        waiting.writing = true;
        Some(std::mem::take(&mut waiting.reopen))
    }
}

/// What the log is told of lines that were dropped.
#[derive(Debug, Default)]
struct Report {
    slow: u64,
    failed: u64,
    error: Option<String>,
    last: Option<Instant>,
}

impl Report {
    /// How long it takes until there is something to tell, if there will be.
    fn is_due(&self, losses: &Losses) -> Option<Duration> {
        let last = self.last.filter(|_| losses.all() > self.slow + self.failed)?;
        Some(TOLD.saturating_sub(last.elapsed()))
    }

    fn tell(&mut self, output: &Output, losses: &Losses) {
        let [slow, failed] = [&losses.slow, &losses.failed].map(|it| it.load(Ordering::Relaxed));
        if slow + failed == self.slow + self.failed
            || self.last.is_some_and(|last| last.elapsed() < TOLD)
        {
            return;
        }
        let error = self.error.take();
        tracing::warn!(
            %output,
            too_slow = slow - self.slow,
            failed = failed - self.failed,
            error,
            "log lines were dropped"
        );
        (self.slow, self.failed, self.last) = (slow, failed, Some(Instant::now()));
    }
}

/// Lets `tracing-subscriber` write here; it hands over one whole line at a time.
#[derive(Debug, Clone, Copy)]
pub struct Line;

impl Write for Line {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        sink().line(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_logs_never_waits_for_an_output_that_is_stuck() {
        static LOSSES: Losses = Losses::none();
        let (waiting, filled, written) = (Mutex::default(), Condvar::new(), Condvar::new());
        let sink = Sink { waiting, filled, written, losses: &LOSSES };
        let line = [b'x'; 1024];
        for _ in 0..CAPACITY / line.len() + 5 {
            sink.line(&line);
        }
        assert_eq!((LOSSES.slow.load(Ordering::Relaxed), LOSSES.all()), (5, 5));
        assert_eq!(sink.waiting().bytes.len(), CAPACITY);
    }

    #[test]
    fn what_was_dropped_is_told_of_at_once_and_then_once_a_minute() {
        let losses = Losses::none();
        let mut report = Report::default();
        report.tell(&Output::Stdout, &losses);
        assert!(report.last.is_none(), "nothing to tell");
        losses.slow.store(3, Ordering::Relaxed);
        report.tell(&Output::Stdout, &losses);
        assert_eq!((report.slow, report.is_due(&losses)), (3, None));
        losses.failed.store(2, Ordering::Relaxed);
        report.tell(&Output::Stdout, &losses);
        assert_eq!(report.failed, 0, "not yet");
        assert!(report.is_due(&losses).is_some_and(|due| due > TOLD / 2 && due <= TOLD));
        report.last = Instant::now().checked_sub(TOLD);
        report.tell(&Output::Stdout, &losses);
        assert_eq!((report.failed, report.is_due(&losses)), (2, None));
    }
}
