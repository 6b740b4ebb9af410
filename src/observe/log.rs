//! Sets `tracing` up: level, format, output.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

use crate::observe::sink::Line;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    Pretty,
    /// One JSON object per line.
    Json,
}

/// RFC 3339 in UTC with milliseconds, as in the access log.
struct Clock;

impl FormatTime for Clock {
    fn format_time(&self, writer: &mut Writer<'_>) -> std::fmt::Result {
        write!(writer, "{}", humantime::format_rfc3339_millis(std::time::SystemTime::now()))
    }
}

/// Starts logging. `level` takes the directives of `RUST_LOG`; that variable wins where it is set.
/// Calling it a second time in one process changes nothing.
pub fn start(format: Format, level: &str) {
    let filter = EnvFilter::try_from_default_env()
        .or_else(|_unset| EnvFilter::try_new(level))
        .unwrap_or_else(|_not_a_directive| EnvFilter::new("info"));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_timer(Clock)
        .with_ansi(false)
        .with_writer(|| Line);
    // An error means that a subscriber is set already.
    let _ = match format {
        Format::Pretty => subscriber.try_init(),
        Format::Json => subscriber.json().flatten_event(true).try_init(),
    };
    super::access::set_format(format);
}
