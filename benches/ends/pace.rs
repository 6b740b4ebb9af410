//! Load by the clock: requests are due at even intervals whatever became of those before, and a
//! wait counts from when its request was due. A thread for each connection takes the next request,
//! sleeps until it is due and then waits for its answer, as threads wake within some 50 us and
//! timers of tokio within a millisecond.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::json;

use crate::say;
use crate::wire::{end_of_head, field};

/// No answer may take longer.
const PATIENCE: Duration = Duration::from_secs(10);

struct Load {
    to: SocketAddr,
    request: String,
    start: Instant,
    step: Duration,
    count: u32,
    next: AtomicU32,
    done: Mutex<Done>,
}

#[derive(Default)]
struct Done {
    waits: Vec<Duration>,
    errors: Vec<String>,
}

/// Waits of all requests, failed ones too, and how many failed.
pub(crate) fn pace(
    to: SocketAddr,
    path: &str,
    rate: f64,
    time: Duration,
    connections: usize,
) -> anyhow::Result<()> {
    let load = Load {
        to,
        request: format!("GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n"),
        start: Instant::now() + Duration::from_millis(50),
        step: Duration::from_secs_f64(1.0 / rate),
        count: (rate * time.as_secs_f64()) as u32,
        next: AtomicU32::new(0),
        done: Mutex::default(),
    };
    std::thread::scope(|scope| {
        for _ in 0..connections {
            scope.spawn(|| load.connection());
        }
    });
    let mut done = load.done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    done.waits.sort_unstable();
    let waits = &done.waits;
    let last = waits.last().context("no request was due")?;
    let at = |share: f64| waits[(waits.len() as f64 * share) as usize].as_secs_f64() * 1e6;
    say(&json!({
        "requests": waits.len(), "errors": done.errors.len(), "error": done.errors.first(),
        "p50_us": at(0.5), "p99_us": at(0.99), "p999_us": at(0.999), "max_us": last.as_secs_f64() * 1e6,
    }))
}

impl Load {
    fn connection(&self) {
        let (mut mine, mut kept) = (Done::default(), None);
        loop {
            let turn = self.next.fetch_add(1, Ordering::Relaxed);
            if turn >= self.count {
                break;
            }
            let due = self.start + self.step * turn;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            match self.exchange(kept.take()) {
                Ok(stream) => kept = stream,
                Err(error) => mine.errors.push(error.to_string()),
            }
            mine.waits.push(due.elapsed());
        }
        if let Ok(mut done) = self.done.lock() {
            done.waits.append(&mut mine.waits);
            done.errors.append(&mut mine.errors);
        }
    }

    /// The stream, if it can be used again.
    fn exchange(&self, kept: Option<TcpStream>) -> anyhow::Result<Option<TcpStream>> {
        let mut stream = match kept.filter(is_open) {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect(self.to)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream
            }
        };
        stream.write_all(self.request.as_bytes())?;
        let (mut buffer, mut scratch) = (Vec::new(), [0; 4096]);
        let head = loop {
            if let Some(end) = end_of_head(&buffer) {
                break end;
            }
            let taken = stream.read(&mut scratch)?;
            ensure!(taken > 0, "closed before its answer");
            buffer.extend(&scratch[..taken]);
        };
        ensure!(buffer.starts_with(b"HTTP/1.1 200 "), "not a 200");
        let length: usize =
            field(&buffer[..head], "content-length").context("no length")?.parse()?;
        let ends =
            field(&buffer[..head], "connection").is_some_and(|c| c.eq_ignore_ascii_case("close"));
        let mut left = length.saturating_sub(buffer.len() - head);
        while left > 0 {
            let taken = stream.read(&mut scratch)?;
            ensure!(taken > 0, "closed within its answer");
            left = left.saturating_sub(taken);
        }
        Ok((!ends).then_some(stream))
    }
}

/// Whether the other end has not closed a connection meanwhile, as it may while that is idle.
fn is_open(stream: &TcpStream) -> bool {
    let silent = stream.set_nonblocking(true).is_ok()
        && stream.peek(&mut [0]).is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock);
    silent && stream.set_nonblocking(false).is_ok()
}
