//! `access_log` and `tracing`, with all that they say but secrets.

use super::{Text, scalar};
use crate::config::types::{AccessLog, Destination};
use crate::config::units::format_percent;

pub(super) fn access_log(out: &mut Text, log: Option<&AccessLog>) {
    let Some(log) = log else { return out.key("access_log", false) };
    out.map("access_log", |out| {
        out.key(
            "to",
            match &log.to {
                Destination::Stdout => "stdout".to_owned(),
                Destination::Stderr => "stderr".to_owned(),
                Destination::File(path) => scalar(&path.display().to_string()),
            },
        );
        out.key("format", log.format.word());
        out.key("sample", format_percent(log.sample));
    });
}
