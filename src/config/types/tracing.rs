//! Traces: whose are gone on with, how many are begun, where spans go.

use std::path::PathBuf;

use http::header::{HeaderName, HeaderValue};

use super::CaRoots;

/// How requests are traced.
#[derive(Clone, PartialEq, Eq)]
pub struct Tracing {
    /// The URL that a collector takes traces at by OTLP/HTTP; `http://` or `https://`.
    pub endpoint: String,
    /// Fields that each request to it has, those of the file among them; their values are secrets.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Where some of them stand.
    pub headers_file: Option<PathBuf>,
    /// Who vouches for the collector; with `https://` only.
    pub ca: Option<CaRoots>,
    /// Share of new traces that are recorded, in basis points; 0 for none.
    pub sample: u32,
    /// Whose traces are gone on with.
    pub trust: Trust,
    /// What this service is called in traces.
    pub service_name: String,
}

impl std::fmt::Debug for Tracing {
    /// Values of fields are secrets: only their names are shown.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = self.headers.iter().map(|(name, _)| name).collect();
        f.debug_struct("Tracing")
            .field("endpoint", &self.endpoint)
            .field("headers", &names)
            .field("headers_file", &self.headers_file)
            .field("ca", &self.ca)
            .field("sample", &self.sample)
            .field("trust", &self.trust)
            .field("service_name", &self.service_name)
            .finish()
    }
}

/// Whose `traceparent` is believed, and with it their wish to be recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// Everybody's: anybody may make spans, and as many as it sends requests.
    All,
    /// That of trusted proxies. Others' requests begin a trace each. The default.
    Proxies,
    /// Nobody's: each request begins a trace.
    None,
}

impl Trust {
    /// Each with its word in the configuration.
    pub const WORDS: [(&'static str, Self); 3] =
        [("all", Self::All), ("trusted_proxies", Self::Proxies), ("none", Self::None)];

    /// Its word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Proxies => "trusted_proxies",
            Self::None => "none",
        }
    }
}
