//! The access log: where it goes, how it looks, how much of it there is.

use std::path::PathBuf;

/// What is written of finished requests and tunnels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessLog {
    /// Where to.
    pub to: Destination,
    /// How a line looks.
    pub format: LineFormat,
    /// Share of requests that get a line, in basis points, 1 to 10000. Those that failed always do.
    pub sample: u32,
}

impl AccessLog {
    /// All of them: `sample: 100%`.
    pub const ALL: u32 = 10_000;
}

impl Default for AccessLog {
    fn default() -> Self {
        Self { to: Destination::Stdout, format: LineFormat::Auto, sample: Self::ALL }
    }
}

/// Where an access log goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// Standard output, where the log of the process goes.
    Stdout,
    /// Standard error.
    Stderr,
    /// The end of a file, by its absolute path; its folder is there.
    File(PathBuf),
}

/// How a line of it looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineFormat {
    /// JSON in a file; elsewhere as `--log-format` says.
    Auto,
    /// One object.
    Json,
    /// The Common Log Format of NCSA httpd.
    Common,
    /// The same with `Referer` and `User-Agent`.
    Combined,
}

impl LineFormat {
    /// Every format with its word in the configuration.
    pub const WORDS: [(&'static str, Self); 4] = [
        ("auto", Self::Auto),
        ("json", Self::Json),
        ("common", Self::Common),
        ("combined", Self::Combined),
    ];

    /// Its word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Json => "json",
            Self::Common => "common",
            Self::Combined => "combined",
        }
    }
}
