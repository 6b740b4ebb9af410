//! What is wrong with a configuration: every problem, each with its file, line and key path.
//!
//! Knows nothing of how problems are found. Read [`ConfigErrors`] first.

use std::fmt;
use std::path::{Path, PathBuf};

/// One thing that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file it is in, or a word for the source where there is no file.
    pub file: PathBuf,
    /// Counted from 1; 0 where no line is to blame.
    pub line: usize,
    /// The key, such as `services.chat.hosts[0]`; empty for the file as a whole.
    pub path: String,
    /// The problem, and after a semicolon what is allowed.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if self.line > 0 {
            write!(f, "{}:", self.line)?;
        }
        if !self.path.is_empty() {
            write!(f, " {}:", self.path)?;
        }
        write!(f, " {}", self.message)
    }
}

/// Every problem of one configuration; never empty. Displays one problem per line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors {
    problems: Vec<Problem>,
}

impl ConfigErrors {
    /// Sorts by line; problems of `main` come before those of the files it names.
    pub(crate) fn new(main: &Path, mut problems: Vec<Problem>) -> Self {
        problems.sort_by(|a, b| {
            (a.file != main, &a.file, a.line).cmp(&(b.file != main, &b.file, b.line))
        });
        Self { problems }
    }

    /// A single problem with a file as a whole.
    pub fn whole_file(file: &Path, message: String) -> Self {
        let problem = Problem { file: file.to_owned(), line: 0, path: String::new(), message };
        Self { problems: vec![problem] }
    }

    /// The problems, sorted by file and line.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}
