//! A file that names the process which serves.
//!
//! A process that takes over puts its own id there; one that failed to has the older write its id
//! again, so that whoever watches the file learns of either.

use std::path::{Path, PathBuf};

/// The file; removed at the end by the process that it names.
#[derive(Debug)]
pub(super) struct PidFile(PathBuf);

impl PidFile {
    /// At `path`, which is not written yet.
    pub(super) fn at(path: &Path) -> Self {
        Self(std::path::absolute(path).unwrap_or_else(|_unclear| path.to_owned()))
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Names this process, in one step.
    pub(super) fn write(&self) -> std::io::Result<()> {
        let mut beside = self.0.clone().into_os_string();
        beside.push(".new");
        std::fs::write(&beside, format!("{}\n", std::process::id()))?;
        std::fs::rename(&beside, &self.0)
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if read(&self.0) == Some(std::process::id()) {
            // Whoever can't remove it couldn't say so to anybody either.
            let _ = std::fs::remove_file(&self.0);
        }
    }
}

/// Whom a file names.
pub(super) fn read(path: &Path) -> Option<u32> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_another_process_is_left_alone() {
        let path = std::env::temp_dir().join(format!("burdock-pid-{}", std::process::id()));
        let file = PidFile::at(&path);
        file.write().unwrap();
        assert_eq!(read(&path), Some(std::process::id()));
        std::fs::write(&path, "1\n").unwrap();
        drop(file);
        assert_eq!(read(&path), Some(1));
        drop(PidFile::at(&path));
        assert!(path.exists());
        let file = PidFile::at(&path);
        file.write().unwrap();
        drop(file);
        assert!(!path.exists());
    }
}
