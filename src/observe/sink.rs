//! Where log lines go: a bounded buffer that a thread of its own writes to standard output.
//!
//! A worker only copies bytes under a short lock. When the reader of the output is too slow,
//! lines are dropped and counted; the data path never waits for a log.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// Bytes that may wait; beyond it lines are dropped.
const CAPACITY: usize = 8 * 1024 * 1024;
/// Lines are gathered this long, so that a busy log costs few system calls.
const GATHER: Duration = Duration::from_millis(20);

static SINK: OnceLock<Sink> = OnceLock::new();

#[derive(Debug, Default)]
struct Waiting {
    bytes: Vec<u8>,
    /// Whether the writer has taken bytes that it hasn't written yet.
    writing: bool,
}

/// The process's log output.
#[derive(Debug, Default)]
pub struct Sink {
    waiting: Mutex<Waiting>,
    filled: Condvar,
    written: Condvar,
    dropped: AtomicU64,
}

/// The sink; its writer starts with the first line.
pub fn sink() -> &'static Sink {
    static STARTED: std::sync::Once = std::sync::Once::new();
    let sink = SINK.get_or_init(Sink::default);
    STARTED.call_once(|| {
        let writer = std::thread::Builder::new().name("log".to_owned()).spawn(|| sink.run());
        // A process that can't start a thread is about to fail loudly elsewhere.
        drop(writer);
    });
    sink
}

impl Sink {
    /// Takes one whole line, with its newline.
    pub fn line(&self, line: &[u8]) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.bytes.len() + line.len() > CAPACITY {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let was_empty = waiting.bytes.is_empty();
        waiting.bytes.extend_from_slice(line);
        if was_empty {
            self.filled.notify_one();
        }
    }

    /// Lines dropped so far.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Waits until everything that was logged before is written, at most a second.
    pub fn flush(&self) {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let unwritten = |waiting: &mut Waiting| waiting.writing || !waiting.bytes.is_empty();
        let _ = self.written.wait_timeout_while(waiting, Duration::from_secs(1), unwritten);
    }

    fn run(&self) {
        let mut output = io::stdout();
        let mut taken = Vec::new();
        loop {
            {
                let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                let empty = |waiting: &mut Waiting| waiting.bytes.is_empty();
                let mut waiting =
                    self.filled.wait_while(waiting, empty).unwrap_or_else(PoisonError::into_inner);
                std::mem::swap(&mut waiting.bytes, &mut taken);
                waiting.writing = true;
            }
            // Nothing can be done for a log whose output is gone; traffic goes on.
            let _ = output.write_all(&taken).and_then(|()| output.flush());
            taken.clear();
            self.waiting.lock().unwrap_or_else(PoisonError::into_inner).writing = false;
            self.written.notify_all();
            std::thread::sleep(GATHER);
        }
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
