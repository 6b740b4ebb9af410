//! A child process that is listened to line by line and never outlives its handle.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The end of a log is what explains a failure; an hour of traffic is not.
const LOG_LINES: usize = 60;

pub struct Process {
    name: String,
    child: Child,
    lines: Receiver<String>,
    log: Arc<Mutex<Vec<String>>>,
}

impl Process {
    /// # Panics
    /// If the program cannot be started; that is the test's failure.
    pub fn start(program: &Path, arguments: &[&str]) -> Self {
        let name = format!("{} {}", program.display(), arguments.join(" "));
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("cannot start {name}: {error}; tests/run installs what the tests need")
            });
        let log = Arc::new(Mutex::new(Vec::new()));
        let (sender, lines) = mpsc::channel();
        follow(child.stdout.take().unwrap(), Arc::clone(&log), Some(sender));
        follow(child.stderr.take().unwrap(), Arc::clone(&log), None);
        Self { name, child, lines, log }
    }

    /// The first value that `pick` finds in a line from here on; lines it passes over are gone.
    pub fn wait_for<T>(
        &mut self,
        what: &str,
        timeout: Duration,
        mut pick: impl FnMut(&str) -> Option<T>,
    ) -> T {
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    if let Some(found) = pick(&line) {
                        return found;
                    }
                }
                Err(reason) => {
                    panic!("{}: waited for {what}: {reason}; it said:\n{}", self.name, self.log())
                }
            }
        }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn say(&mut self, line: &str) {
        let stdin = self.child.stdin.as_mut().unwrap();
        writeln!(stdin, "{line}").unwrap();
    }

    pub fn kill(&mut self) {
        // An error means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    pub fn log(&self) -> String {
        let log = self.log.lock().unwrap();
        log[log.len().saturating_sub(LOG_LINES)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn follow(
    stream: impl Read + Send + 'static,
    log: Arc<Mutex<Vec<String>>>,
    lines: Option<Sender<String>>,
) {
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            log.lock().unwrap().push(line.clone());
            if let Some(lines) = &lines {
                // Nobody listens any more once the test has what it came for.
                let _ = lines.send(line);
            }
        }
    });
}
