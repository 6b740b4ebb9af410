//! What the writer of a log writes to: standard output, standard error, or the end of a file.
//!
//! A line that could be written in part only is ended before the next one, so that a full disk spoils
//! no line but its own.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// Owner and group may read it: logs name clients.
const MODE: u32 = 0o640;

/// Whether another process has taken over. Whoever moves a file away tells that one; this one looks
/// before each write whether there is another file in its place, and goes there.
static FOLLOWS: AtomicBool = AtomicBool::new(false);

/// Another process has taken over.
pub fn follow_files() {
    FOLLOWS.store(true, Ordering::Relaxed);
}

/// Where lines go.
#[derive(Debug)]
pub enum Output {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A file.
    File(LogFile),
}

/// A file that lines are added to.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    file: File,
    /// Whether it ends within a line.
    is_torn: bool,
}

/// Lines that could not be written.
#[derive(Debug)]
pub struct Lost {
    /// How many.
    pub lines: u64,
    /// Why.
    pub error: io::Error,
}

/// Why a file could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("opening the access log {}: {error}", .path.display())]
pub struct OpenError {
    path: PathBuf,
    error: io::Error,
}

impl LogFile {
    /// Opens a file for adding to it; makes one where there is none.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let file = open(path).map_err(|error| OpenError { path: path.to_owned(), error })?;
        Ok(Self { path: path.to_owned(), file, is_torn: false })
    }

    fn reopen(&mut self) {
        let path = self.path.display();
        match open(&self.path) {
            Ok(file) => {
                (self.file, self.is_torn) = (file, false);
                tracing::info!(%path, "the access log was opened anew");
            }
            Err(error) => {
                tracing::error!(%path, %error, "opening the access log anew failed; it goes on in the file it had");
            }
        }
    }

    fn is_replaced(&self) -> bool {
        let place = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
        let (Ok(named), Ok(ours)) = (self.path.metadata(), self.file.metadata()) else {
            return false;
        };
        place(named) != place(ours)
    }
}

fn open(path: &Path) -> io::Result<File> {
    // Opening a pipe would wait for its reader.
    if let Ok(found) = path.metadata()
        && !found.is_file()
        && !found.file_type().is_char_device()
    {
        return Err(io::Error::other("it is there and is no file"));
    }
    OpenOptions::new().append(true).create(true).mode(MODE).open(path)
}

impl Output {
    /// Writes whole lines.
    pub(super) fn write(&mut self, lines: &[u8]) -> Result<(), Lost> {
        let log = match self {
            Self::Stdout => return write(&mut io::stdout(), lines, &mut false),
            Self::Stderr => return write(&mut io::stderr(), lines, &mut false),
            Self::File(log) => log,
        };
        if FOLLOWS.load(Ordering::Relaxed) && log.is_replaced() {
            log.reopen();
        }
        write(&mut log.file, lines, &mut log.is_torn)
    }

    /// Opens a file anew, which may have another name by now. One that can't be leaves all as it was.
    pub(super) fn reopen(&mut self) {
        if let Self::File(log) = self {
            log.reopen();
        }
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdout => f.write_str("stdout"),
            Self::Stderr => f.write_str("stderr"),
            Self::File(log) => log.path.display().fmt(f),
        }
    }
}

fn write(output: &mut impl Write, lines: &[u8], is_torn: &mut bool) -> Result<(), Lost> {
    let mut written = 0;
    let written_all = loop {
        if *is_torn {
            if let Err(error) = output.write_all(b"\n") {
                break Err(error);
            }
            *is_torn = false;
        }
        if written == lines.len() {
            break output.flush();
        }
        match output.write(&lines[written..]) {
            Ok(0) => break Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => break Err(error),
        }
    };
    written_all.map_err(|error| {
        *is_torn |= written > 0 && lines[written - 1] != b'\n';
        let lines = lines[written..].iter().filter(|byte| **byte == b'\n').count();
        Lost { lines: lines as u64, error }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes so many bytes, then none.
    struct Full(usize, Vec<u8>);

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = bytes.len().min(self.0);
            if count == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.0 -= count;
            self.1.extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_costs_the_lines_that_it_had_no_room_for_and_no_other() {
        let (mut disk, mut is_torn) = (Full(6, Vec::new()), false);
        let lost = write(&mut disk, b"one\ntwo\nthree\n", &mut is_torn).unwrap_err();
        assert_eq!((lost.lines, is_torn), (2, true));
        let lost = write(&mut disk, b"four\n", &mut is_torn).unwrap_err();
        assert_eq!((lost.lines, is_torn), (1, true));
        disk.0 = 100;
        write(&mut disk, b"five\n", &mut is_torn).unwrap();
        assert_eq!(String::from_utf8(disk.1).unwrap(), "one\ntw\nfive\n");
        assert!(!is_torn);
    }
}
