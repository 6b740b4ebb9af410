//! `access_log` and `tracing`, with all that they say but secrets.

use std::path::Path;

use super::{Text, scalar};
use crate::config::types::{AccessLog, Destination, Tracing};
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

pub(super) fn tracing(out: &mut Text, tracing: Option<&Tracing>) {
    let Some(tracing) = tracing else { return out.key("tracing", "off") };
    let path = |path: &Path| scalar(&path.display().to_string());
    out.map("tracing", |out| {
        out.key("endpoint", scalar(&tracing.endpoint));
        let names: Vec<_> = tracing.headers.iter().map(|(name, _)| name.as_str()).collect();
        if !names.is_empty() {
            out.comment(&format!("masked: {}", names.join(", ")));
        }
        out.key("headers", "{}");
        out.optional("headers_file", tracing.headers_file.as_deref().map(path));
        let ca = tracing.ca.as_ref().and_then(|ca| ca.file.as_deref());
        out.key("ca", ca.map_or("system".to_owned(), path));
        out.key("sample", format_percent(tracing.sample));
        out.key("trust", tracing.trust.word());
        out.key("service_name", scalar(&tracing.service_name));
    });
}
