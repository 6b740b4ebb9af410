//! Asks the process that a pid file names to be taken over from, and waits for what comes of it.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

use crate::run::pid_file;

/// Longer than any outcome takes.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at the file.
const LOOK: Duration = Duration::from_millis(50);

/// Why nobody took over.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    /// The file names nobody.
    #[error("{0} names no process; run --pid-file writes it")]
    NoFile(String),
    /// The process could not be asked.
    #[error("sending SIGUSR2 to process {process}: {errno}")]
    Signal {
        /// Which.
        process: u32,
        /// Why.
        errno: Errno,
    },
    /// The file has outlived its process, and its id is somebody else's now, or nobody's.
    #[error("process {0} does not take upgrades; the pid file is stale")]
    Stale(u32),
    /// It ended, and nobody took over.
    #[error("process {0} is gone, and nobody has taken over")]
    Gone(u32),
    /// It goes on.
    #[error("process {0} goes on; its log says why")]
    Failed(u32),
}

/// Gives the process before and the one that has taken over from it. Blocks.
pub fn upgrade(file: &Path) -> Result<(u32, u32), UpgradeError> {
    let unnamed = || UpgradeError::NoFile(file.display().to_string());
    let before = pid_file::read(file).ok_or_else(unnamed)?;
    let written = written(file);
    let pid = i32::try_from(before).ok().and_then(Pid::from_raw).ok_or_else(unnamed)?;
    // Unasked for, the signal would end a process that has nothing to do with this.
    if !takes_upgrades(before) {
        return Err(UpgradeError::Stale(before));
    }
    let refused = |errno| UpgradeError::Signal { process: before, errno };
    kill_process(pid, Signal::USR2).map_err(refused)?;
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        match pid_file::read(file) {
            Some(now) if now != before => return Ok((before, now)),
            // Written anew with the same process: nobody took over.
            Some(_same) if self::written(file) != written => break,
            Some(_) | None if !takes_upgrades(before) => {
                // Its last act may have been to leave the file to another.
                let named = pid_file::read(file).filter(|now| *now != before);
                return named.map(|now| (before, now)).ok_or(UpgradeError::Gone(before));
            }
            Some(_) | None => std::thread::sleep(LOOK),
        }
    }
    Err(UpgradeError::Failed(before))
}

/// Whether a process has a handler for the signal, as proc(5) tells.
fn takes_upgrades(process: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    let bit = 1 << (Signal::USR2.as_raw() - 1);
    caught.is_some_and(|mask| mask & bit != 0)
}

fn written(file: &Path) -> Option<SystemTime> {
    std::fs::metadata(file).and_then(|metadata| metadata.modified()).ok()
}
