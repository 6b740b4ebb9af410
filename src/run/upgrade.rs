//! Asks the process that a pid file names to be taken over from, and waits for what comes of it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

use crate::run::pid_file;

/// Longer than any outcome takes.
const PATIENCE: Duration = Duration::from_secs(60);
/// How `run` is told of the file.
const OPTION: &str = "--pid-file";
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
    if !takes_upgrades(before) || !serves(before, file) {
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

/// Whether a process was started with this pid file: others have handlers for the signal too.
fn serves(process: u32, file: &Path) -> bool {
    let folder = std::fs::read_link(format!("/proc/{process}/cwd")).ok();
    let arguments = std::fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
    let mut arguments = arguments.split(|byte| *byte == 0).map(OsStr::from_bytes);
    let named = std::iter::from_fn(|| {
        let argument = arguments.next()?;
        let value = argument.as_bytes().strip_prefix(OPTION.as_bytes());
        Some(match value {
            Some(b"") => arguments.next(),
            Some([b'=', path @ ..]) => Some(OsStr::from_bytes(path)),
            _ => None,
        })
    });
    let is_it = |path: &OsStr| match &folder {
        Some(folder) => is_same(&folder.join(path), file),
        // Who may not see where it runs can tell by the name alone.
        None => Path::new(path).file_name() == file.file_name(),
    };
    named.flatten().any(is_it)
}

fn is_same(one: &Path, other: &Path) -> bool {
    let real = |path: &Path| std::fs::canonicalize(path).ok();
    real(one).is_some_and(|one| Some(one) == real(other))
}

fn written(file: &Path) -> Option<SystemTime> {
    std::fs::metadata(file).and_then(|metadata| metadata.modified()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_has_nothing_to_do_with_the_file_is_not_asked() {
        let folder = std::env::temp_dir().join(format!("burdock-upgrade-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = |name: &str| {
            std::fs::write(folder.join(name), "").unwrap();
            folder.join(name)
        };
        let (own, other) = (file("pid"), file("other"));
        // The rest of the line are arguments that the shell keeps, as a program would. What it prints tells
        // that it runs.
        let start = |arguments: &[&str]| {
            let mut command = std::process::Command::new("sh");
            let command = command.current_dir(&folder).args(["-c", "echo; read line", "run"]);
            let piped = std::process::Stdio::piped;
            let mut process =
                command.args(arguments).stdin(piped()).stdout(piped()).spawn().unwrap();
            std::io::Read::read_exact(process.stdout.as_mut().unwrap(), &mut [0]).unwrap();
            process
        };
        for (arguments, serves_it) in [
            (&["--pid-file", "pid"][..], true),
            (&["--pid-file=pid"], true),
            (&["--pid-file", own.to_str().unwrap()], true),
            (&["--pid-file", "other"], false),
            (&["--pid-files", "pid"], false),
            (&["pid"], false),
        ] {
            let mut process = start(arguments);
            let asked = [&own, &other].map(|file| serves(process.id(), file));
            // Its end is that of its input.
            drop(process.stdin.take());
            process.wait().unwrap();
            assert_eq!(asked, [serves_it, arguments.contains(&"other")], "{arguments:?}");
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
